/* SPDX-License-Identifier: MIT */
/* Watching memory: see watch.h. One thread's. */
#include "policy/watch.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "os/thread.h"
#include "policy/sight.h"

/*
 * The rate (heat_rate()) that the reference shall have: at it a quarter to a
 * half of the pages are accessed, which is where a sample tells most.
 */
#define RATE_WANTED 0.7f
/*
 * A window is right when it is off by no more than the first factor, and is so
 * until it is off by the second; it is changed by no more than the third.
 */
#define RIGHT_WITHIN 1.8f
#define WRONG_FROM   3.0f
#define STEP_MOST    4.0f

/* Small pages of so many granules are few. */
#define FEW 256

/* Granules that are sampled together; see slice_size(). */
#define SLICE_LEAST 64
#define SLICE_MOST  4096

static const struct {
	/*
	 * Of a window. The least one is long enough for a thread that shares
	 * the sampler's CPU to be run at all.
	 */
	uint64_t first_ns, least_ns, most_ns;
	unsigned int windows; /* in a round */
	unsigned int pages;   /* that one observation stands for */
	uint64_t scan_ns;     /* about, a granule */
} kinds[PAGE_KINDS] = {
	[SMALL_PAGES] = {20000000, 500000, 200000000, 1, 1, 20000},
	[HUGE_PAGES] = {100000, 20000, 20000000, HEAT_WINDOWS_HUGE / 4, GRANULE_PAGES,
			200},
};

/*
 * What is sampled next: parts of granules, in slices; of a slice all parts are sampled
 * together, as spans. Slices take turns with their windows, so that what the program does
 * just now, or that it pauses, tells of none of them more than of the others.
 */
struct watch_slices {
	size_t parts, spans;
	struct part {
		uintptr_t start, end;
	} part[SLICE_MOST];
	struct span span[SLICE_MOST];
	struct sample sample[SLICE_MOST * GRANULE_BLOCKS];
};

/* A kind of which there is less than one in so many needs no window that is right. */
#define RARE 16

enum page_kind watch_kind(const struct granule *granule)
{
	return granule && granule->huge ? HUGE_PAGES : SMALL_PAGES;
}

static bool sees_accesses(const struct watch *watch)
{
	return watch->sampler && !watch->sampler->sample;
}

/* A window is one for all that is sampled together if scanning is short beside it. */
static size_t slice_size(const struct watch *watch, enum page_kind kind)
{
	uint64_t granules = watch->window[kind].ns / kinds[kind].scan_ns / 2;

	return granules < SLICE_LEAST  ? SLICE_LEAST
	       : granules > SLICE_MOST ? SLICE_MOST
				       : granules;
}

/* ---- slices -------------------------------------------------------------- */

static void make_spans(struct watch_slices *slices, size_t first, size_t end)
{
	slices->spans = 0;
	for (size_t i = first; i < end; i++) {
		const struct part *part = &slices->part[i];

		if (slices->spans && slices->span[slices->spans - 1].end == part->start)
			slices->span[slices->spans - 1].end = part->end;
		else
			slices->span[slices->spans++] =
				(struct span){part->start, part->end};
	}
}

/* Of a block's pages, a part so much greater than before is not chance. */
#define JUMP 0.4f

/* Notes, by one block, what is found beside what was known. */
static void compare(struct window *window, struct granule *granule, size_t block,
		    const struct sample *sample)
{
	bool comparable =
		granule->windows && granule->length == window->length && sample->watched;
	float seen, expected;

	depth_note(&window->depth, granule, sample, comparable);
	if (!comparable)
		return;
	seen = (float)sample->accessed / (float)sample->watched;
	expected = (float)granule->heat[block] / 65535.0f;
	window->seen += seen;
	window->expected += expected;
	window->compared++;
	window->jumped += !sample->huge && seen - expected > JUMP;
}

static void note_slice(const struct watch_slices *slices, size_t first, size_t end,
		       struct heat *heat, struct window *window)
{
	const struct sample *sample = slices->sample;

	for (size_t i = first; i < end; i++) {
		uintptr_t start = slices->part[i].start;
		size_t n = (slices->part[i].end - start) / BLOCK_BYTES;
		struct granule *granule;
		size_t k = 0;

		while (k < n && !sample[k].present)
			k++;
		/* Memory that was never touched needs no entry. */
		granule = heat_granule(heat, start, k < n);
		if (granule) {
			if (k < n)
				compare(window, granule,
					start % GRANULE_BYTES / BLOCK_BYTES + k,
					&sample[k]);
			granule->depth = (uint8_t)depth_now(&window->depth);
			heat_note(granule, sample, start % GRANULE_BYTES / BLOCK_BYTES, n,
				  window->length);
		}
		sample += n;
	}
}

/* One window of the parts [first, end). */
static int sample_slice(struct watch *watch, struct heat *heat, struct window *window,
			size_t first, size_t end)
{
	struct watch_slices *slices = watch->slices;
	uint64_t before;
	float taken;
	int err;

	make_spans(slices, first, end);
	before = clock_ns(CLOCK_MONOTONIC);
	err = watch->sampler->sample(slices->span, slices->spans, window->ns,
				     slices->sample);
	if (err)
		return err;
	taken = (float)(clock_ns(CLOCK_MONOTONIC) - before);
	note_slice(slices, first, end, heat, window);
	watch->samples++;
	/* A page is watched from one scan to the next, not during both. */
	taken = (taken + (float)window->ns) / 2;
	window->taken_ns +=
		(taken - window->taken_ns) / (window->taken_ns > 0 ? 16.0f : 1.0f);
	return 0;
}

/* Where few small pages are waited for, one round is enough to know them. */
static unsigned int windows_in_round(const struct watch *watch, enum page_kind kind)
{
	if (kind == SMALL_PAGES && watch->small_score != 0 &&
	    watch->slices->parts < FEW && watch->window[kind].settled)
		return HEAT_WINDOWS_SMALL;
	return kinds[kind].windows;
}

static int sample_slices(struct watch *watch, struct heat *heat, enum page_kind kind)
{
	struct window *window = &watch->window[kind];
	struct watch_slices *slices = watch->slices;
	size_t size = slice_size(watch, kind);
	unsigned int windows = windows_in_round(watch, kind);

	window->granules += slices->parts;
	for (unsigned int i = 0; i < windows; i++) {
		window->depth.window = i % HEAT_WINDOWS_SMALL;
		for (size_t first = 0; first < slices->parts; first += size) {
			size_t end = first + size;
			int err = sample_slice(watch, heat, window, first,
					       end < slices->parts ? end : slices->parts);

			if (err)
				return err;
		}
	}
	slices->parts = 0;
	return 0;
}

/* ---- a round ------------------------------------------------------------- */

static int sample_kind(struct watch *watch, struct heat *heat, const struct span *span,
		       size_t n, enum page_kind kind, uint64_t cpu_end)
{
	struct window *window = &watch->window[kind];
	struct watch_slices *slices = watch->slices;
	size_t most = slice_size(watch, kind) * kinds[kind].windows;
	uintptr_t from = window->next;

	if (most > SLICE_MOST)
		most = SLICE_MOST;
	window->next = 0;
	for (size_t i = 0; i < n; i++) {
		uintptr_t addr = span[i].start > from ? span[i].start : from;

		while (addr < span[i].end) {
			uintptr_t end = granule_end(addr);
			int err;

			if (end > span[i].end)
				end = span[i].end;
			if (watch_kind(heat_granule(heat, addr, false)) == kind)
				slices->part[slices->parts++] = (struct part){addr, end};
			addr = end;
			if (slices->parts < most)
				continue;
			err = sample_slices(watch, heat, kind);
			if (err)
				return err;
			if (clock_ns(CLOCK_THREAD_CPUTIME_ID) > cpu_end) {
				window->next = addr;
				return 0;
			}
		}
	}
	return sample_slices(watch, heat, kind);
}

static void begin_window(struct window *window, uint64_t ns)
{
	window->ns = ns;
	window->taken_ns = 0;
	window->settled = false;
	window->length++;
}

static int make_slices(struct watch *watch)
{
	void *memory;

	if (watch->slices)
		return 0;
	memory = mmap(NULL, sizeof(*watch->slices), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	madvise(memory, sizeof(*watch->slices), MADV_NOHUGEPAGE);
	watch->slices = memory;
	return 0;
}

static void prepare(struct watch *watch)
{
	for (int kind = 0; kind < PAGE_KINDS; kind++) {
		watch->window[kind].sampled = false;
		if (!watch->window[kind].ns)
			begin_window(&watch->window[kind], kinds[kind].first_ns);
	}
}

static int sample_kinds(struct watch *watch, struct heat *heat, const struct span *span,
			size_t n, int end_kind, uint64_t cpu_end)
{
	int err = make_slices(watch);

	for (int kind = 0; kind < end_kind && !err; kind++) {
		struct window *window = &watch->window[kind];

		window->sampled = true;
		window->granules = window->compared = 0;
		window->seen = window->expected = 0;
		window->jumped_before = window->jumped;
		window->jumped = 0;
		err = sample_kind(watch, heat, span, n, (enum page_kind)kind, cpu_end);
		depth_end_round(&window->depth);
	}
	return err;
}

int watch_round(struct watch *watch, struct heat *heat, const struct span *span, size_t n,
		uint64_t cpu_ns)
{
	uint64_t cpu_end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + cpu_ns;

	prepare(watch);
	if (!sees_accesses(watch))
		return sample_kinds(watch, heat, span, n, PAGE_KINDS, cpu_end);
	for (int kind = 0; kind < PAGE_KINDS; kind++) {
		watch->window[kind].sampled = true;
		watch->window[kind].granules = watch->window[kind].known = 0;
	}
	return sight_round(watch, heat, span, n, cpu_ns);
}

int watch_small(struct watch *watch, struct heat *heat, const struct span *span, size_t n,
		uint64_t cpu_ns)
{
	uint64_t cpu_end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + cpu_ns;

	prepare(watch);
	return sees_accesses(watch)
		       ? 0
		       : sample_kinds(watch, heat, span, n, SMALL_PAGES + 1, cpu_end);
}

void watch_destroy(struct watch *watch)
{
	if (watch->slices)
		munmap(watch->slices, sizeof(*watch->slices));
	sight_destroy(watch);
	*watch = (struct watch){0};
}

/* ---- windows ------------------------------------------------------------- */

/* One sighting may be chance; that a granule is hot takes more, see watch_rate(). */
#define SIGHTINGS_LEAST 2

bool watch_knows(const struct watch *watch, const struct granule *granule)
{
	const struct window *window = &watch->window[watch_kind(granule)];

	if (sees_accesses(watch))
		return granule->length == watch->restarts &&
		       granule->windows >= SIGHTINGS_LEAST;
	return window->settled && granule->length == window->length &&
	       granule->depth >= depth_now(&window->depth) && heat_is_known(granule);
}

float watch_score(const struct watch *watch, const struct granule *granule,
		  uint16_t share)
{
	enum page_kind kind = watch_kind(granule);
	float taken = watch->window[kind].taken_ns;

	if (sees_accesses(watch))
		return heat_seen_rate(granule, watch->usual);
	return taken > 0 ? heat_rate(share) * 1e9f / taken / (float)kinds[kind].pages : 0;
}

/*
 * What happens to be seen accessed seldom at first is taken for cold and left alone, and
 * what does not is watched on; if each counted as much as the other, the mean would be
 * too low.
 */
float watch_weight(const struct watch *watch, const struct granule *granule)
{
	return sees_accesses(watch) ? (float)(granule->windows + 1) : 1;
}

float watch_rate(const struct watch *watch, const struct granule *granule, uint16_t share)
{
	if (sees_accesses(watch))
		return heat_compare(granule, watch->worth) > 0 ? HEAT_MOST_RATE : 0;
	return heat_rate(share);
}

/* true: it is another one now. */
static bool adapt(struct window *window, enum page_kind kind, float reference)
{
	float rate = reference * window->taken_ns / 1e9f * (float)kinds[kind].pages;
	float factor = rate * STEP_MOST > RATE_WANTED ? RATE_WANTED / rate : STEP_MOST;
	float off_by = window->settled ? WRONG_FROM : RIGHT_WITHIN;
	bool far = kind == HUGE_PAGES && rate > HEAT_MOST_RATE * 0.8f;
	float ns;

	if (factor < 1 / STEP_MOST)
		factor = 1 / STEP_MOST;
	/*
	 * Half of the way: what is accessed in short windows is not proportional. But
	 * where all huge pages are, it is far too long.
	 */
	ns = (float)window->ns * (far ? factor : (1 + factor) / 2);
	if (ns < (float)kinds[kind].least_ns)
		ns = (float)kinds[kind].least_ns;
	if (ns > (float)kinds[kind].most_ns)
		ns = (float)kinds[kind].most_ns;
	window->settled =
		(factor < off_by && factor * off_by > 1) || (uint64_t)ns == window->ns;
	if (!window->settled)
		window->ns = (uint64_t)ns;
	return !window->settled;
}

/* Whether a kind's window matters: it has its share of what the round sampled. */
static bool counts(const struct watch *watch, int kind)
{
	size_t all =
		watch->window[SMALL_PAGES].granules + watch->window[HUGE_PAGES].granules;

	return watch->window[kind].granules > 0 &&
	       watch->window[kind].granules >= all / RARE;
}

/*
 * The window of small pages that matter though they are few, by their own score: the
 * reference is that of huge pages then. It goes up and down, and is too low where
 * everything is accessed in the shortest window, as it is while a busy machine lets the
 * sampler wait.
 */
static bool adapt_few_small(struct watch *watch)
{
	struct window *window = &watch->window[SMALL_PAGES];

	if (!watch->needs_small || window->granules >= watch->window[HUGE_PAGES].granules)
		return false;
	if (watch->small_score == 0)
		window->settled = true;
	else if (watch->small_score > 0 && adapt(window, SMALL_PAGES, watch->small_score))
		begin_window(window, window->ns);
	return true;
}

/* Of the rate of all memory, from one round to the next. */
#define RISES_BY    2.0f
#define RISES_LEAST 0.2f
/* Rounds before that counts again: the more, the more often it has been so. */
#define RISE_ROUNDS 4
#define RISES_COUNT 8

/*
 * Whether the program accesses all of its memory more than it did: when it has filled it,
 * say. Then what is known of memory depends on how old that is; of small pages, of which
 * few windows count, not for long.
 */
static bool has_risen(struct window *window)
{
	float n = (float)window->compared, seen, expected;

	window->since++;
	if (!window->compared || window->since < (unsigned int)RISE_ROUNDS
							 << window->rises)
		return false;
	seen = heat_rate((uint16_t)(window->seen / n * 65535));
	expected = heat_rate((uint16_t)(window->expected / n * 65535));
	if (seen < RISES_BY * expected + RISES_LEAST)
		return false;
	window->since = 0;
	window->rises += window->rises < RISES_COUNT;
	return true;
}

void watch_need_small(struct watch *watch)
{
	struct window *window = &watch->window[SMALL_PAGES];

	watch->needs_small = true;
	watch->small_score = -1;
	if (window->granules < FEW)
		window->settled = false;
}

void watch_adapt(struct watch *watch, float reference)
{
	watch->reference = reference;
	for (int kind = 0; kind < PAGE_KINDS; kind++) {
		struct window *window = &watch->window[kind];

		if (!window->sampled)
			continue;
		if (kind == HUGE_PAGES && has_risen(window))
			window->length++;
		if (kind == SMALL_PAGES && adapt_few_small(watch))
			continue;
		if (!counts(watch, kind))
			window->settled = true;
		else if (sees_accesses(watch))
			window->settled = window->clear;
		else if (adapt(window, (enum page_kind)kind, reference))
			begin_window(window, window->ns);
	}
}

/* ---- what comes back ----------------------------------------------------- */

/* Times the rounds that it takes to know. */
#define HORIZON 4

unsigned int watch_horizon(const struct watch *watch, enum page_kind kind)
{
	unsigned int windows =
		kind == HUGE_PAGES ? HEAT_WINDOWS_HUGE : HEAT_WINDOWS_SMALL;

	return HORIZON * (windows << depth_now(&watch->window[kind].depth)) /
	       kinds[kind].windows;
}

void watch_learn(struct watch *watch, enum page_kind kind, uint64_t moved,
		 uint64_t returned)
{
	struct window *window = &watch->window[kind];

	depth_learn(&window->depth, moved, returned, window->granules * GRANULE_PAGES);
}

/* Of sightings, the part that shall end with an access: each one costs something. */
#define SEEN_WANTED 0.2f

void watch_tune(struct watch *watch, enum page_kind kind, size_t seen, size_t of)
{
	struct window *window = &watch->window[kind];
	float factor = 1 + SEEN_WANTED - (float)seen / (float)of;
	uint64_t ns = (uint64_t)((float)window->ns * (factor > 0.5f ? factor : 0.5f));

	window->ns = ns < kinds[kind].least_ns  ? kinds[kind].least_ns
		     : ns > kinds[kind].most_ns ? kinds[kind].most_ns
						: ns;
}

void watch_restart(struct watch *watch)
{
	watch->restarts++;
	for (int kind = 0; kind < PAGE_KINDS; kind++)
		watch->window[kind].length++;
}

bool watch_is_settled(const struct watch *watch)
{
	for (int kind = 0; kind < PAGE_KINDS; kind++)
		if (counts(watch, kind) && !watch->window[kind].settled)
			return false;
	return true;
}

/*
 * One block in so many is not chance either; but of a program that pauses, or uses its
 * memory in turns, more than so many are.
 */
#define JUMPED_PART 128
#define JUMPED_MOST 4

bool watch_stirs(const struct watch *watch)
{
	const struct window *window = &watch->window[SMALL_PAGES];

	if (sees_accesses(watch))
		return watch->stirs;
	return window->sampled && !window->depth.sweeps &&
	       window->jumped > window->jumped_before + window->compared / JUMPED_PART &&
	       window->jumped <= window->compared / JUMPED_MOST;
}

bool watch_is_learning(const struct watch *watch)
{
	for (int kind = 0; kind < PAGE_KINDS; kind++)
		if (counts(watch, kind) && depth_is_new(&watch->window[kind].depth))
			return true;
	return false;
}
