/* SPDX-License-Identifier: MIT */
/* Rounds of sightings: see sight.h. One thread's. */
#include "policy/sight.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "os/random.h"
#include "os/thread.h"
#include "policy/planner.h"

/* Granules whose pages are counted together, and rounds after which it is done anew. */
#define COUNT_MOST   ((size_t)64)
#define COUNT_ROUNDS 64

/*
 * What is clearly hot or cold is watched after the first time, and after twice as
 * long each time up to the last that this was confirmed.
 */
#define REST_MS       500
#define PATIENCE_MOST 3
/* What may be one or the other is watched in every round. */
#define UNCLEAR_MS 100

/* How urgent a sighting is: 0 if it is not due, and what nothing is known of. */
#define URGENCIES   32
#define MOST_URGENT (URGENCIES - 1)

/* Where more than this part is unclear, rounds come fast. */
#define UNCLEAR_PART 16

/*
 * Where this part of the sightings are surprises, or likely to be, something else is done
 * with memory now, and all of it is worth a look.
 */
#define SURPRISES_PART 16
#define SURPRISES_FEW  2

struct sights {
	size_t n;
	struct sighting sighting[SIGHTINGS_MOST];
	struct granule *granule[SIGHTINGS_MOST];
	struct sample sample[COUNT_MOST * GRANULE_BLOCKS];
};

/* Calls @fn for the part of each granule that a span covers. */
typedef void part_fn(struct watch *watch, struct granule *granule, uintptr_t start,
		     uintptr_t end, void *arg);

static void each_part(struct watch *watch, struct heat *heat, const struct span *span,
		      size_t n, part_fn *fn, void *arg)
{
	for (size_t i = 0; i < n; i++)
		for (uintptr_t addr = span[i].start, end; addr < span[i].end;
		     addr = end) {
			struct granule *granule = heat_granule(heat, addr, false);

			end = granule_end(addr);
			if (end > span[i].end)
				end = span[i].end;
			if (granule && granule->counted)
				fn(watch, granule, addr, end, arg);
		}
}

/* ---- counting ------------------------------------------------------------ */

static bool is_to_be_counted(const struct watch *watch, const struct granule *granule,
			     uintptr_t addr)
{
	return !granule || !granule->counted || granule->length != watch->restarts ||
	       (watch->rounds + addr / GRANULE_BYTES) % COUNT_ROUNDS == 0;
}

static void note_counts(struct watch *watch, struct heat *heat, const struct span *span)
{
	const struct sample *sample = watch->sights->sample;

	for (uintptr_t addr = span->start, end; addr < span->end; addr = end) {
		struct granule *granule;
		size_t blocks;
		bool any = false;

		end = granule_end(addr);
		if (end > span->end)
			end = span->end;
		blocks = (end - addr) / BLOCK_BYTES;
		for (size_t i = 0; i < blocks; i++)
			any |= sample[i].present > 0;
		/* Memory that was never touched needs no entry. */
		granule = heat_granule(heat, addr, any);
		if (granule)
			heat_count(granule, sample, addr % GRANULE_BYTES / BLOCK_BYTES,
				   blocks, watch->restarts);
		sample += blocks;
	}
}

static int count_run(struct watch *watch, struct heat *heat, const struct span *run)
{
	int err;

	if (run->start == run->end)
		return 0;
	err = watch->sampler->count(run, 1, watch->sights->sample);
	if (!err)
		note_counts(watch, heat, run);
	return err;
}

/* Counts what is to be counted of a span from @from on, in runs of neighbours. */
static int count_span(struct watch *watch, struct heat *heat, const struct span *span,
		      uintptr_t from, uint64_t cpu_end)
{
	uintptr_t addr = span->start > from ? span->start : from, end;
	struct span run = {addr, addr};
	int err = 0;

	for (; addr < span->end && !err && !watch->count_next; addr = end) {
		bool wanted =
			is_to_be_counted(watch, heat_granule(heat, addr, false), addr);

		end = granule_end(addr);
		if (end > span->end)
			end = span->end;
		if (wanted && run.end == addr)
			run.end = end;
		if (!wanted || end == span->end ||
		    run.end - run.start > (COUNT_MOST - 1) * GRANULE_BYTES) {
			err = count_run(watch, heat, &run);
			run = (struct span){end, end};
			if (clock_ns(CLOCK_THREAD_CPUTIME_ID) > cpu_end)
				watch->count_next = end;
		}
	}
	return err;
}

/* As much as there is time for; the next round goes on. */
static int count(struct watch *watch, struct heat *heat, const struct span *span,
		 size_t n, uint64_t cpu_end)
{
	uintptr_t from = watch->count_next;
	int err = 0;

	watch->count_next = 0;
	for (size_t i = 0; i < n && !err && !watch->count_next; i++)
		if (span[i].end > from)
			err = count_span(watch, heat, &span[i], from, cpu_end);
	watch->counted_all |= !err && !watch->count_next;
	return err;
}

/* ---- choosing ------------------------------------------------------------ */

struct choice {
	enum page_kind kind;
	uint32_t now_ms;
	size_t urgent[URGENCIES]; /* granules */
	double accesses, seconds;

	/* Of those that are less than the most urgent ones, a part. */
	unsigned int cut;
	size_t left, wanted;
};

static unsigned int urgency(const struct watch *watch, const struct granule *granule,
			    uint32_t now_ms)
{
	bool clear = !granule->windows ||
		     (!granule->doubted && heat_compare(granule, watch->worth));
	uint32_t age = now_ms - granule->seen_ms, turns;
	uint32_t interval = clear ? REST_MS << granule->patience : UNCLEAR_MS;

	if (!granule->windows && !granule->patience)
		return MOST_URGENT;
	/* In sixteenths. */
	turns = (age < UINT32_MAX / 16 ? age * 16 : UINT32_MAX) / interval;
	if (clear && turns < 16 && !watch->stirs)
		return 0;
	turns = 32 - (unsigned int)__builtin_clz(turns | 1);
	return turns < MOST_URGENT ? turns : MOST_URGENT - 1;
}

static bool is_of(const struct choice *choice, const struct granule *granule)
{
	return granule->huge == (choice->kind == HUGE_PAGES);
}

static void weigh_part(struct watch *watch, struct granule *granule, uintptr_t start,
		       uintptr_t end, void *arg)
{
	struct window *window = &watch->window[granule->huge ? HUGE_PAGES : SMALL_PAGES];
	struct choice *choice = arg;

	(void)start;
	(void)end;
	if (!is_of(choice, granule))
		return;
	choice->urgent[urgency(watch, granule, choice->now_ms)]++;
	window->granules++;
	window->known += granule->windows && heat_compare(granule, watch->worth);
	choice->accesses += (double)granule->accesses;
	choice->seconds += (double)granule->seconds;
}

static uint64_t draw(struct watch *watch, uint64_t below)
{
	return random_next(&watch->random) % below;
}

static void add_part(struct watch *watch, struct granule *granule, uintptr_t start,
		     uintptr_t end)
{
	struct sights *sights = watch->sights;

	sights->granule[sights->n] = granule;
	sights->sighting[sights->n++] = (struct sighting){.start = start, .end = end};
}

static void take_part(struct watch *watch, struct granule *granule, uintptr_t start,
		      uintptr_t end, void *arg)
{
	struct choice *choice = arg;
	unsigned int urgent;

	if (!is_of(choice, granule))
		return;
	urgent = urgency(watch, granule, choice->now_ms);
	if (urgent < choice->cut || !urgent || watch->sights->n == SIGHTINGS_MOST)
		return;
	if (urgent == choice->cut) {
		/* With the chance that makes any choice as likely as any other. */
		bool taken = draw(watch, choice->left) < choice->wanted;

		choice->left--;
		if (!taken)
			return;
		choice->wanted--;
	}
	add_part(watch, granule, start, end);
}

/* So that none is always watched first, or after the same other one. */
static void shuffle(struct watch *watch)
{
	struct sights *sights = watch->sights;

	for (size_t i = sights->n; i > 1; i--) {
		size_t k = draw(watch, i);
		struct sighting sighting = sights->sighting[i - 1];
		struct granule *granule = sights->granule[i - 1];

		sights->sighting[i - 1] = sights->sighting[k];
		sights->granule[i - 1] = sights->granule[k];
		sights->sighting[k] = sighting;
		sights->granule[k] = granule;
	}
}

/* Chooses up to @most of a kind. */
static void choose(struct watch *watch, struct heat *heat, const struct span *span,
		   size_t n, struct choice *choice, size_t most)
{
	size_t taken = 0;

	choice->now_ms = (uint32_t)(clock_ns(CLOCK_MONOTONIC) / 1000000);
	each_part(watch, heat, span, n, weigh_part, choice);
	choice->cut = URGENCIES;
	while (choice->cut > 1 && taken < most)
		taken += choice->urgent[--choice->cut];
	watch->sights->n = 0;
	if (!taken || !most)
		return;
	choice->left = choice->urgent[choice->cut];
	choice->wanted = choice->left - (taken > most ? taken - most : 0);
	each_part(watch, heat, span, n, take_part, choice);
	shuffle(watch);
}

/* ---- watching ------------------------------------------------------------ */

/* Whether it was a surprise, or may be one. */
static bool note_sighting(const struct watch *watch, struct granule *granule,
			  const struct sighting *sighting, uint32_t now_ms)
{
	bool clear = true, surprise = false;

	granule->seen_ms = now_ms;
	if (granule->patience < PATIENCE_MOST)
		granule->patience++;
	if (sighting->seconds > 0) {
		surprise = heat_see(granule, sighting->accesses, sighting->seconds);
		clear = !granule->doubted && heat_compare(granule, watch->worth);
	}
	if (!clear)
		granule->patience = 0;
	return surprise || heat_is_otherwise(granule);
}

/* Watches one kind of pages; *@left is lowered by what it takes. */
static int see_kind(struct watch *watch, struct heat *heat, const struct span *span,
		    size_t n, struct choice *choice, size_t *left)
{
	struct sights *sights = watch->sights;
	size_t seen = 0, of = 0;
	uint32_t now_ms;
	int err;

	choose(watch, heat, span, n, choice,
	       *left < SIGHTINGS_MOST ? *left : SIGHTINGS_MOST);
	if (!sights->n)
		return 0;
	*left -= sights->n;
	err = watch->sampler->watch(sights->sighting, sights->n,
				    watch->window[choice->kind].ns);
	if (err)
		return err;
	now_ms = (uint32_t)(clock_ns(CLOCK_MONOTONIC) / 1000000);
	for (size_t i = 0; i < sights->n; i++) {
		const struct sighting *sighting = &sights->sighting[i];

		watch->surprises +=
			note_sighting(watch, sights->granule[i], sighting, now_ms);
		seen += sighting->accesses > 0;
		of += sighting->seconds > 0;
	}
	if (of)
		watch_tune(watch, choice->kind, seen, of);
	watch->samples++;
	return 0;
}

/* Takes in what was seen of those that are collected. */
static int flush_seen(struct watch *watch)
{
	struct sights *sights = watch->sights;
	uint32_t now_ms = (uint32_t)(clock_ns(CLOCK_MONOTONIC) / 1000000);
	int err = watch->sampler->watch(sights->sighting, sights->n, 0);

	for (size_t i = 0; i < sights->n && !err; i++)
		note_sighting(watch, sights->granule[i], &sights->sighting[i], now_ms);
	sights->n = 0;
	return err;
}

/* What a part_fn of these needs. */
struct seeing {
	struct choice *choice;
	int err;
};

static void see_part(struct watch *watch, struct granule *granule, uintptr_t start,
		     uintptr_t end, void *arg)
{
	struct seeing *seeing = arg;
	struct choice *choice = &seeing->choice[granule->huge ? HUGE_PAGES : SMALL_PAGES];

	weigh_part(watch, granule, start, end, choice);
	add_part(watch, granule, start, end);
	if (watch->sights->n == SIGHTINGS_MOST && !seeing->err)
		seeing->err = flush_seen(watch);
}

/* With a sampler that sees accesses to all memory at once. */
static int see_all(struct watch *watch, struct heat *heat, const struct span *span,
		   size_t n, struct choice *choice)
{
	struct seeing seeing = {choice, watch->sampler->gather()};

	if (seeing.err)
		return seeing.err;
	watch->sights->n = 0;
	each_part(watch, heat, span, n, see_part, &seeing);
	if (!seeing.err)
		seeing.err = flush_seen(watch);
	watch->samples++;
	return seeing.err;
}

/* With one that has to be told what to watch, within @cpu_ns. */
static int see_some(struct watch *watch, struct heat *heat, const struct span *span,
		    size_t n, struct choice *choice, uint64_t cpu_ns)
{
	size_t most = watch->sampler->affordable(cpu_ns), left = most;
	int err = 0;

	watch->surprises = 0;
	for (int kind = 0; kind < PAGE_KINDS && !err; kind++)
		err = see_kind(watch, heat, span, n, &choice[kind], &left);
	watch->stirs = watch->surprises >= SURPRISES_FEW &&
		       watch->surprises >= (most - left) / SURPRISES_PART;
	return err;
}

/* What the memory that has been watched is accessed like, mostly. */
static void find_usual(struct watch *watch, const struct choice choice[PAGE_KINDS])
{
	double accesses = 0, seconds = 0;

	for (int kind = 0; kind < PAGE_KINDS; kind++) {
		accesses += choice[kind].accesses;
		seconds += choice[kind].seconds;
	}
	watch->usual = seconds > 0 ? (float)(accesses / seconds) : 0;
	watch->worth =
		PLAN_RATIO * (watch->reference > 0 ? watch->reference : watch->usual);
}

static int make_memory(struct watch *watch)
{
	void *memory;

	if (watch->sights)
		return 0;
	memory = mmap(NULL, sizeof(*watch->sights), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	madvise(memory, sizeof(*watch->sights), MADV_NOHUGEPAGE);
	watch->sights = memory;
	watch->random = clock_ns(CLOCK_MONOTONIC) | 1;
	return 0;
}

void sight_destroy(struct watch *watch)
{
	if (watch->sights)
		munmap(watch->sights, sizeof(*watch->sights));
	watch->sights = NULL;
}

int sight_round(struct watch *watch, struct heat *heat, const struct span *span, size_t n,
		uint64_t cpu_ns)
{
	struct choice choice[PAGE_KINDS] = {{.kind = SMALL_PAGES}, {.kind = HUGE_PAGES}};
	uint64_t began = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	int err = make_memory(watch);

	watch->rounds++;
	if (!err)
		err = count(watch, heat, span, n, began + cpu_ns);
	/* Before all is known to be there, HBM would seem to have room for it. */
	if (err || !watch->counted_all)
		return err;
	if (watch->sampler->gather)
		err = see_all(watch, heat, span, n, choice);
	else
		err = see_some(watch, heat, span, n, choice, cpu_ns);
	find_usual(watch, choice);
	for (int kind = 0; kind < PAGE_KINDS; kind++)
		watch->window[kind].clear =
			watch->window[kind].granules - watch->window[kind].known <=
			watch->window[kind].granules / UNCLEAR_PART;
	return err;
}
