/* SPDX-License-Identifier: MIT */
/*
 * The policy `auto`: see auto.h. All state is the thread's, but for `published`,
 * which a lock guards that nobody holds for long, and two atomics.
 */
#include "policy/auto.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "heap/hbm_limit.h"
#include "heap/region.h"
#include "migrate/migrate.h"
#include "os/futex.h"
#include "os/thread.h"
#include "policy/advice.h"
#include "policy/budget.h"
#include "policy/hints.h"
#include "policy/ledger.h"
#include "policy/pace.h"
#include "policy/skew.h"
#include "policy/watch.h"

#define MS UINT64_C(1000000)

/* Less memory than this is not worth a thread's work. */
#define MANAGED_LEAST ((size_t)16 << 20)
#define IDLE_NS       (250 * MS)

/* Rounds in a row after which it is believed that there is nothing to choose between. */
#define FLAT_ROUNDS 8

/* So much of all memory that begins to be hot means that something changes. */
#define STIRRING_PART 256

/* So long moving may take, and then rests as long: half a CPU at most. */
#define MOVE_NS (250 * MS)

/* Rounds in a row that hints may take from the sampler. */
#define HINTED_MOST 8

static struct auto_options options;

static struct {
	struct heat heat;
	struct watch watch;
	struct placer placer;
	struct skew skew;
	struct span *span; /* managed memory, whole blocks */
	size_t spans, room;
	struct pace pace;    /* of rounds of all */
	uint64_t due;        /* when the next one is */
	bool more;           /* to be done before, for huge pages that were split */
	uint64_t stirring;   /* pages in the last round */
	unsigned int flat;   /* rounds in a row, up to FLAT_ROUNDS */
	int64_t move_budget; /* bytes that may be moved now */
	uint64_t cpu_ns, move_ns;
	/* Stay in a forked child. */
	bool complained, complained_of_huge;

	unsigned int woken; /* `wakes` when it was looked at last */
	struct hints hints;
	unsigned int hinted; /* rounds in a row that hints took from the sampler */
} own;

/* Grows with each reason to look again at once; a futex. */
static atomic_uint wakes;
/* There is a thread, or will be, that takes advice. */
static atomic_bool serves;

static struct {
	pthread_mutex_t lock;
	struct auto_stats stats;
} published = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Sleeps until there is a reason to look: true; or @ns are over: false. */
static bool rest_ns(uint64_t ns)
{
	unsigned int before = own.woken;

	futex_wait(&wakes, own.woken, ns);
	own.woken = atomic_load(&wakes);
	return own.woken != before;
}

void auto_wake(void)
{
	atomic_fetch_add(&wakes, 1);
	futex_wake(&wakes);
}

/* ---- what is managed ----------------------------------------------------- */

static size_t count_spans(struct span *out, size_t max)
{
	size_t n = region_spans(REGION_AUTO, out, max);

	if (options.spans)
		n += options.spans(out + (n < max ? n : max), n < max ? max - n : 0);
	return n;
}

static void sort_spans(void)
{
	/* Two ascending lists, both short: insertion. */
	for (size_t i = 1; i < own.spans; i++) {
		struct span span = own.span[i];
		size_t k = i;

		for (; k && own.span[k - 1].start > span.start; k--)
			own.span[k] = own.span[k - 1];
		own.span[k] = span;
	}
}

/* Takes spans inward to whole blocks; drops what is then empty. */
static size_t trim_spans(void)
{
	size_t kept = 0, bytes = 0;

	for (size_t i = 0; i < own.spans; i++) {
		uintptr_t start =
			(own.span[i].start + BLOCK_BYTES - 1) & ~(BLOCK_BYTES - 1);
		uintptr_t end = own.span[i].end & ~(BLOCK_BYTES - 1);

		if (start >= end)
			continue;
		own.span[kept++] = (struct span){start, end};
		bytes += end - start;
	}
	own.spans = kept;
	return bytes;
}

/* Finds what is managed now; its bytes, or -ENOMEM. */
static ssize_t find_spans(void)
{
	size_t n = count_spans(own.span, own.room);

	while (n > own.room) {
		size_t room = 2 * n + 64;
		void *memory =
			mmap(NULL, room * sizeof(*own.span), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			return -ENOMEM;
		if (own.span)
			munmap(own.span, own.room * sizeof(*own.span));
		own.span = memory;
		own.room = room;
		n = count_spans(own.span, own.room);
	}
	own.spans = n;
	sort_spans();
	return (ssize_t)trim_spans();
}

/* What the budget leaves to this policy; bytes. */
static uint64_t hbm_limit(void)
{
	uint64_t budget = budget_hbm(), others = hbm_limit_used();

	if (budget == UINT64_MAX)
		return UINT64_MAX;
	return budget > others ? budget - others : 0;
}

/* ---- advice and phases --------------------------------------------------- */

int auto_advise(uintptr_t start, uintptr_t *end, enum ferry_advice advice, bool *taken)
{
	int err;

	*taken = false;
	if (!atomic_load(&serves))
		return 0;
	*taken = region_has(REGION_AUTO, start, end) ||
		 (options.has && options.has(start, end));
	if (!*taken)
		return 0;
	err = advice_set(start, *end, advice);
	if (!err)
		auto_wake();
	return err;
}

/* Takes in hints. Whether the round is to carry them out, and not to sample first. */
static int take_hints(bool *hinted)
{
	const struct hints_round round = {&own.placer, &own.watch, &own.heat, own.span,
					  own.spans};
	int err = hints_take(&own.hints, &round, hinted);

	*hinted &= own.hinted < HINTED_MOST;
	own.hinted = *hinted ? own.hinted + 1 : 0;
	return err;
}

/* ---- budgets ------------------------------------------------------------- */

static void earn(void)
{
	double passed = (double)pace_pay(&own.pace, clock_ns(CLOCK_MONOTONIC));

	if (options.config->move_limit == UINT64_MAX)
		return;
	/* What is not used of the last second is used up. */
	own.move_budget += (int64_t)((double)options.config->move_limit * passed / 1e9);
	if (own.move_budget > (int64_t)options.config->move_limit)
		own.move_budget = (int64_t)options.config->move_limit;
}

/* @ns, and by chance up to half of @by more or less. */
static uint64_t jitter(uint64_t ns, uint64_t by)
{
	return ns - by / 2 + by * (clock_ns(CLOCK_MONOTONIC) % 1024) / 1024;
}

/* ---- rounds -------------------------------------------------------------- */

static void publish(size_t managed)
{
	pthread_mutex_lock(&published.lock);
	published.stats.samples = own.watch.samples;
	if (own.watch.sampler && own.watch.sampler->lost)
		published.stats.lost = own.watch.sampler->lost();
	published.stats.started |=
		own.placer.promoted_pages + own.placer.demoted_pages > 0;
	published.stats.promoted_pages = own.placer.promoted_pages;
	published.stats.demoted_pages = own.placer.demoted_pages;
	published.stats.split = own.skew.split;
	published.stats.whole = own.skew.whole;
	published.stats.cpu_ns = own.cpu_ns;
	published.stats.move_ns = own.move_ns;
	published.stats.heat_bytes = own.heat.bytes;
	published.stats.managed_bytes = managed;
	pthread_mutex_unlock(&published.lock);
}

/* Pays for a round of all, and has the next one set by what it found. */
static void set_pace(const struct placer_result *result, uint64_t cost)
{
	/* More than chance makes of it. */
	bool stirs = result->stirring > own.stirring + result->total / STIRRING_PART;
	const struct pace_round round = {
		.cost_ns = cost,
		.learning = watch_is_learning(&own.watch),
		.urgent = result->moved || stirs || watch_stirs(&own.watch),
		.settled = watch_is_settled(&own.watch),
		.flat = result->flat,
	};

	own.stirring = result->stirring;
	pace_next(&own.pace, &round);
}

/* Samples, unless the program's hints come first. */
static int watch_memory(bool hinted, bool brief)
{
	if (hinted || own.placer.blind)
		return 0;
	return (brief ? watch_small : watch_round)(&own.watch, &own.heat, own.span,
						   own.spans, pace_round_ns(&own.pace));
}

/* Moves what is to be moved, within the limits. */
static int place_memory(struct placer_result *result)
{
	const uint64_t rate = options.config->move_limit;
	struct placer_limits limits = {hbm_limit(), MOVE_NS, UINT64_MAX,
				       own.flat == FLAT_ROUNDS};
	int err;

	if (rate != UINT64_MAX)
		limits.move_pages =
			own.move_budget > 0 ? (uint64_t)own.move_budget / PAGE_BYTES : 0;
	own.placer.holds_huge = skew_holds(&own.skew);
	err = placer_round(&own.placer, &own.watch, &own.heat, own.span, own.spans,
			   &limits, result);
	if (!err)
		own.move_budget -= (int64_t)(result->moved * PAGE_BYTES);
	return err;
}

static void complain_of_huge(const char *what, const char *why)
{
	if (!own.complained_of_huge)
		options.say("policy auto: %s: %s", what, why);
	own.complained_of_huge = true;
}

/* Splits huge pages, and makes them whole. Whether there is more to do soon. */
static bool look_into_huge_pages(struct placer_result *result)
{
	const struct skew_round round = {&own.watch, &own.heat,         own.span,
					 own.spans,  &own.placer.hints, result};
	bool more;

	if (own.placer.blind)
		return false;
	more = skew_round(&own.skew, &round);
	result->ns += own.skew.ns;
	if (own.skew.missed)
		complain_of_huge("huge pages are moved as a whole only", own.skew.why);
	if (own.skew.failed)
		complain_of_huge("some huge pages that were split stay so",
				 strerror(-own.skew.failed));
	return more;
}

/* Of other threads, for samples. */
static uint64_t sampler_cost(void)
{
	const struct sampler *sampler = own.watch.sampler;

	return sampler && sampler->cost ? sampler->cost() : 0;
}

/* Counts rounds in which nothing is hot beside the rest, and that is known for sure. */
static void count_flat(const struct placer_result *result)
{
	if (!result->flat || own.more || !watch_is_settled(&own.watch) ||
	    skew_is_open(&own.skew))
		own.flat = 0;
	else if (own.flat < FLAT_ROUNDS)
		own.flat++;
}

/* What the round's plan tells of the samples it was made from. */
static void learn(const struct placer_result *result)
{
	watch_adapt(&own.watch, result->reference);
	for (int kind = 0; kind < PAGE_KINDS; kind++)
		watch_learn(&own.watch, (enum page_kind)kind, result->picked[kind],
			    result->returned[kind]);
}

/*
 * Rests from moving, and finds when the next round is due: half more or less, since
 * samples shall not keep step with what the program does; from nothing to twice as much
 * where few of them are to tell of memory.
 */
static void set_due(const struct placer_result *result)
{
	const uint64_t interval = own.pace.interval;

	if (result->took > interval)
		sleep_ns(result->took - interval);
	own.due = clock_ns(CLOCK_MONOTONIC) +
		  jitter(interval, interval > PACE_LEAST ? interval : 2 * interval);
}

/* @brief: one before its time. 0, or -errno: nothing can be done any more. */
static int round_of_work(bool brief)
{
	uint64_t began = clock_ns(CLOCK_THREAD_CPUTIME_ID), others = sampler_cost(), cost;
	struct placer_result result;
	ssize_t managed = find_spans();
	int err = managed < 0 ? (int)managed : 0;
	bool hinted = false;

	earn();
	if (!err)
		err = take_hints(&hinted);
	if (!err)
		err = watch_memory(hinted, brief);
	if (!err)
		err = place_memory(&result);
	if (err)
		return err;
	own.more = false;
	if (!hinted) {
		own.more = look_into_huge_pages(&result);
		learn(&result);
		count_flat(&result);
	}
	ledger_want(result.total * PAGE_BYTES);
	if (hints_end(&own.hints, &own.placer, result.moved))
		watch_restart(&own.watch);
	cost = clock_ns(CLOCK_THREAD_CPUTIME_ID) - began - result.ns + sampler_cost() -
	       others;
	own.cpu_ns += cost;
	own.move_ns += result.ns;
	publish((size_t)managed);
	if (brief && !result.moved) {
		pace_extra(&own.pace, cost);
	} else {
		set_pace(&result, cost);
		set_due(&result);
	}
	return 0;
}

/* How long to wait for the next round, if nobody wakes. */
static uint64_t time_to_rest(void)
{
	uint64_t debt = pace_debt(&own.pace), now = clock_ns(CLOCK_MONOTONIC);
	uint64_t before = own.skew.turn ? PACE_LEARNING : PACE_LEAST;
	uint64_t rest = own.due > now ? own.due - now : 0;

	if (own.placer.blind && !own.placer.hints.advised_count &&
	    !own.placer.hints.phase)
		return FUTEX_FOREVER;
	if (own.more && rest > before)
		rest = jitter(before, before);
	return debt > rest ? debt : rest;
}

/*
 * Opens engine and sampler; without a sampler only hints move memory. false:
 * nothing can be moved.
 */
static bool begin(void)
{
	const char *why = NULL;

	own.placer.topology = options.topology;
	if (migrate_engine(&own.placer.engine, options.config->engine))
		return false;
	own.watch.sampler = sampler_open(options.config->sampler, &why);
	own.placer.blind = !own.watch.sampler;
	if (own.watch.sampler && own.watch.sampler->limit)
		own.watch.sampler->limit(options.config->overhead);
	pthread_mutex_lock(&published.lock);
	published.stats.started = own.watch.sampler != NULL;
	published.stats.sampler = own.watch.sampler ? own.watch.sampler->name : "none";
	published.stats.why = why;
	pthread_mutex_unlock(&published.lock);
	skew_open(&own.skew, own.watch.sampler);
	if (own.placer.blind && !own.complained && !options.said_no_sampler)
		options.say("policy auto: nothing tells what is accessed (%s); memory "
			    "stays where it is first touched",
			    why);
	own.complained |= own.placer.blind;
	return true;
}

static void *run(void *unused)
{
	bool brief = false;
	int err = 0;

	(void)unused;
	pthread_setname_np(pthread_self(), "ferry-auto");
	prctl(PR_SET_TIMERSLACK, 1UL);
	while (find_spans() < (ssize_t)MANAGED_LEAST && !advice_changes())
		rest_ns(IDLE_NS);
	pace_begin(&own.pace, options.config->overhead, clock_ns(CLOCK_MONOTONIC));
	if (!begin())
		err = -ENODEV;
	while (!err) {
		err = round_of_work(brief);
		brief = !err && !rest_ns(time_to_rest()) && own.more &&
			clock_ns(CLOCK_MONOTONIC) < own.due;
	}
	atomic_store(&serves, false);
	if (err != -ENODEV)
		options.say("policy auto: stops moving memory: %s", strerror(-err));
	return NULL;
}

static int start_thread(void)
{
	int err;

	atomic_store(&serves, true);
	err = thread_start(run, NULL);
	if (err)
		atomic_store(&serves, false);
	return err;
}

int auto_start(const struct auto_options *given)
{
	options = *given;
	published.stats.sampler = "none";
	published.stats.why = "little memory to manage";
	return start_thread();
}

void auto_fork_prepare(void)
{
	advice_fork_prepare();
	phase_fork_prepare();
}

void auto_fork_done(void)
{
	phase_fork_done();
	advice_fork_done();
}

void auto_fork_child(void)
{
	bool complained = own.complained, complained_of_huge = own.complained_of_huge;

	if (!options.config)
		return; /* it was never started */
	/* The parent's thread may have been anywhere, but pointers are whole. */
	if (own.watch.sampler)
		own.watch.sampler->close();
	watch_destroy(&own.watch);
	placer_destroy(&own.placer);
	skew_let_go(&own.skew, &own.heat);
	heat_destroy(&own.heat);
	if (own.span)
		munmap(own.span, own.room * sizeof(*own.span));
	hints_destroy(&own.hints);
	pthread_mutex_init(&published.lock, NULL);
	published.stats =
		(struct auto_stats){.sampler = "none", .why = "little memory to manage"};
	memset(&own, 0, sizeof(own));
	own.complained = complained;
	own.complained_of_huge = complained_of_huge;
	start_thread();
}

void auto_stats(struct auto_stats *out)
{
	pthread_mutex_lock(&published.lock);
	*out = published.stats;
	pthread_mutex_unlock(&published.lock);
}
