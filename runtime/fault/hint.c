/* SPDX-License-Identifier: MIT */
/*
 * The sampler `fault`: hint faults. Pages are taken out of their place (trap.h),
 * each for a window; those that are accessed come back by a fault, and the rest
 * when it is over. The time until then is what a sighting tells.
 *
 * A fault is dear, some microseconds of the thread that takes it, and only a
 * fault tells that a page is hot. So of each range that is to be watched one page is
 * taken out, drawn anew for each window, or the huge page that maps it. What
 * traps and faults cost is measured, so that the caller can keep to a budget.
 *
 * The policy's thread draws, and waits; the handler's thread takes out. What
 * they share is the order, whose phase says whose it is.
 */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "fault/handler.h"
#include "fault/present.h"
#include "fault/sampler.h"
#include "fault/uffd.h"
#include "migrate/pagemap.h"
#include "os/futex.h"
#include "os/random.h"
#include "os/thread.h"

/* No page is out for longer, whatever window is asked for. */
#define WINDOW_MOST UINT64_C(200000000)

/* Nor for less than so many faults take. */
#define WINDOW_LEAST 2

/*
 * While threads wait for pages they access nothing else, and what is out seems colder
 * than it is. So no more is out at once than would, if all of it faulted, have a thread
 * wait for this part of a window; most of it does not.
 */
#define WAIT_PART 2

/* For so long none is taken out at first: the caller may have had the program's CPU. */
#define SETTLE_NS 4000000

/* No access is told apart from one that was sooner. */
#define LEAST_NS     1000
#define SOONEST_MOST 4 /* times a fault's */

/* Pages by which it is guessed, and known, what one costs. */
#define WATCHED_FIRST 16
#define WATCHED_MOST  1024

struct pick {
	uintptr_t addr;
	size_t len;
	struct sighting *sighting;
	bool out; /* taken out, and not yet back */
};

enum phase { NONE, ORDERED, DONE };

static struct {
	_Atomic uint32_t phase; /* a futex; ORDERED: the handler's */
	struct pick pick[SIGHTINGS_MOST];
	unsigned int picks;
	unsigned int next; /* that is to be taken out */
	unsigned int out;  /* of these, and not yet back */
	unsigned int most; /* that may be out */
	/*
	 * Until then none is taken out: a thread that has waited for one is not back at
	 * work yet, and what was out meanwhile would seem cold.
	 */
	uint64_t rest_until;
	unsigned int faults; /* that brought one back */
	uint64_t window_ns;
	uint64_t fault_ns; /* what a fault costs its thread */
	/*
	 * What passes at least from taking a page out until this thread hears of an
	 * access to it; of that time a sighting tells nothing. It creeps up, for
	 * what was least once may be so no more.
	 */
	uint64_t soonest_ns;

	atomic_ullong cost_ns; /* so far */
} order;

/* The policy's thread's. */
static struct {
	int pagemap;
	uint64_t watched, cost_ns; /* pages, and what they cost; old ones count less */
	uint64_t random;
} hint = {.pagemap = -1};

/* ---- the handler's thread ------------------------------------------------- */

static bool may_take_out(void)
{
	return order.next < order.picks && order.out < order.most;
}

/* One of those that are to be taken out; faults are answered in between. */
static void take_out(void)
{
	struct pick *pick = &order.pick[order.next++];

	if (trap_set(pick->addr, pick->len))
		return;
	pick->out = true;
	order.out++;
}

static void finish_order(void)
{
	atomic_store(&order.phase, DONE);
	futex_wake(&order.phase);
}

/* Goes on with an order; when to do so next. */
static uint64_t carry_out(uint64_t now)
{
	uint64_t window_ns = order.window_ns + order.soonest_ns, oldest, next;

	if (now > window_ns)
		trap_expire(now - window_ns, now);
	if (may_take_out() && now >= order.rest_until)
		take_out();
	oldest = trap_oldest();
	next = oldest < UINT64_MAX ? oldest + window_ns : UINT64_MAX;
	if (may_take_out() && order.rest_until < next)
		return order.rest_until;
	if (next == UINT64_MAX && order.next == order.picks)
		finish_order();
	return next;
}

static uint64_t hint_tick(uint64_t now)
{
	static uint64_t spent; /* by this thread when it was last looked at */
	uint64_t cpu, next = UINT64_MAX;

	if (atomic_load(&order.phase) == ORDERED)
		next = carry_out(now);
	cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	atomic_fetch_add(&order.cost_ns, cpu > spent ? cpu - spent : cpu);
	spent = cpu;
	return next;
}

/* What the page told. An access to a huge page is one to any of its pages. */
static void note(struct sighting *sighting, size_t len, uint64_t ns, bool touched)
{
	size_t pages = len / PAGE_BYTES;

	if (touched && ns < order.soonest_ns)
		order.soonest_ns = ns;
	else if (order.soonest_ns < SOONEST_MOST * order.fault_ns)
		order.soonest_ns += order.soonest_ns / 64 + 1;
	ns = ns > order.soonest_ns + LEAST_NS ? ns - order.soonest_ns : LEAST_NS;
	sighting->accesses = touched ? 1 : 0;
	sighting->seconds = (float)ns * 1e-9f * (float)pages;
}

static void hint_ended(uintptr_t addr, size_t len, uint64_t ns, bool touched)
{
	order.faults += touched;
	for (unsigned int i = 0; i < order.next; i++) {
		struct pick *pick = &order.pick[i];

		if (pick->addr != addr || !pick->out)
			continue;
		pick->out = false;
		order.out--;
		if (touched)
			order.rest_until = clock_ns(CLOCK_MONOTONIC) + order.fault_ns;
		note(pick->sighting, len, ns, touched);
		return;
	}
}

static const struct handler_client client = {.tick = hint_tick, .ended = hint_ended};

/* ---- opening -------------------------------------------------------------- */

#define RINGS        7
#define RING_REST_NS 500000

/*
 * A ring is answered as a fault is. The handler is given time to be asleep. Not the least
 * of some, which may find it awake all the same, nor more, for others may be late for
 * other reasons.
 */
static uint64_t measure_fault(void)
{
	uint64_t took[RINGS];

	for (int i = 0, k; i < RINGS; i++) {
		uint64_t began, ns;

		sleep_ns(RING_REST_NS);
		began = clock_ns(CLOCK_MONOTONIC);
		handler_wake();
		ns = clock_ns(CLOCK_MONOTONIC) - began;
		for (k = i; k && took[k - 1] > ns; k--)
			took[k] = took[k - 1];
		took[k] = ns;
	}
	return took[RINGS / 3];
}

static void hint_close(void)
{
	handler_stop();
	if (hint.pagemap >= 0)
		close(hint.pagemap);
	hint.pagemap = -1;
	atomic_store(&order.phase, NONE);
	order.picks = 0;
}

static int hint_open(const char **why)
{
	int err;

	hint.pagemap = present_open();
	if (hint.pagemap < 0) {
		*why = "/proc/self/pagemap: cannot be opened";
		return hint.pagemap;
	}
	atomic_store(&order.phase, NONE);
	order.picks = 0;
	err = handler_start(&client);
	if (err) {
		*why = err == -EPERM ? "userfaultfd: permission denied (needs access to "
				       "/dev/userfaultfd and CAP_SYS_PTRACE, to see "
				       "children made by clone)"
				     : uffd_why(err);
		hint_close();
		return err;
	}
	hint.random = clock_ns(CLOCK_MONOTONIC) | 1;
	order.fault_ns = measure_fault();
	order.soonest_ns = order.fault_ns;
	hint.watched = WATCHED_FIRST;
	hint.cost_ns = hint.watched * 2 * order.fault_ns;
	*why = "hint faults by userfaultfd";
	return 0;
}

/* ---- drawing -------------------------------------------------------------- */

static uint64_t draw(uint64_t below)
{
	return below ? random_next(&hint.random) % below : 0;
}

/* A page of [start, end) that is there, or the huge page that maps all of it; or none. */
static void draw_page(struct pick *pick, uintptr_t start, uintptr_t end)
{
	size_t blocks = (end - start + BLOCK_BYTES - 1) / BLOCK_BYTES;
	struct page_run run[PAGEMAP_RUNS];
	uintptr_t from = start + draw(blocks) * BLOCK_BYTES, walked;
	uint64_t pages = 0, skip;
	int n;

	pick->len = 0;
	n = pagemap_runs(hint.pagemap, from,
			 from + BLOCK_BYTES < end ? from + BLOCK_BYTES : end, run,
			 &walked);
	if (!n) /* there may be more elsewhere */
		n = pagemap_runs(hint.pagemap, start, end, run, &walked);
	for (int i = 0; i < n; i++) {
		if (run[i].huge) {
			pick->addr = start;
			pick->len = end - start == GRANULE_BYTES ? GRANULE_BYTES : 0;
			return;
		}
		pages += (run[i].end - run[i].start) / PAGE_BYTES;
	}
	skip = draw(pages) * PAGE_BYTES;
	for (int i = 0; i < n; i++) {
		if (skip < run[i].end - run[i].start) {
			pick->addr = run[i].start + skip;
			pick->len = PAGE_BYTES;
			return;
		}
		skip -= run[i].end - run[i].start;
	}
}

/* Makes the order. How many of its pages may be out, for want of room. */
static unsigned int draw_all(struct sighting *sighting, size_t n)
{
	unsigned int room = TRAPS_SMALL;

	order.picks = 0;
	for (size_t i = 0; i < n; i++) {
		struct pick *pick = &order.pick[order.picks];

		sighting[i].accesses = sighting[i].seconds = 0;
		draw_page(pick, sighting[i].start, sighting[i].end);
		if (!pick->len)
			continue;
		if (pick->len == GRANULE_BYTES)
			room = TRAPS_HUGE;
		pick->sighting = &sighting[i];
		pick->out = false;
		order.picks++;
	}
	return room;
}

/* ---- sampling ------------------------------------------------------------- */

static size_t hint_affordable(uint64_t ns)
{
	return ns / (hint.cost_ns / hint.watched + 1);
}

static void learn(uint64_t cost_ns, unsigned int watched)
{
	hint.watched += watched;
	hint.cost_ns += cost_ns;
	if (hint.watched < WATCHED_MOST)
		return;
	hint.watched /= 2;
	hint.cost_ns /= 2;
}

/* 0, or -ESRCH: there is no handler any more. */
static int carry_out_order(uint64_t window_ns, unsigned int room)
{
	uint32_t phase;

	order.window_ns = window_ns < WINDOW_MOST ? window_ns : WINDOW_MOST;
	if (order.window_ns < WINDOW_LEAST * order.fault_ns)
		order.window_ns = WINDOW_LEAST * order.fault_ns;
	order.most = (unsigned int)(order.window_ns / order.fault_ns / WAIT_PART + 1);
	if (order.most > room)
		order.most = room;
	order.rest_until = clock_ns(CLOCK_MONOTONIC) + SETTLE_NS;
	order.next = order.out = order.faults = 0;
	atomic_store(&order.phase, ORDERED);
	handler_wake();
	while ((phase = atomic_load(&order.phase)) != DONE) {
		if (!handler_is_running())
			return -ESRCH;
		futex_wait(&order.phase, phase, 100000000);
	}
	return 0;
}

static int hint_watch(struct sighting *sighting, size_t n, uint64_t window_ns)
{
	uint64_t before = atomic_load(&order.cost_ns);
	unsigned int room = draw_all(sighting, n);
	int err;

	if (!order.picks)
		return 0;
	err = carry_out_order(window_ns, room);
	if (err)
		return err;
	atomic_fetch_add(&order.cost_ns, order.faults * order.fault_ns);
	learn(atomic_load(&order.cost_ns) - before, order.picks);
	return 0;
}

static int hint_count(const struct span *span, size_t n, struct sample *out)
{
	return present_count(hint.pagemap, span, n, out);
}

static uint64_t hint_cost(void)
{
	return atomic_load(&order.cost_ns);
}

const struct sampler sampler_fault = {
	.name = "fault",
	.open = hint_open,
	.close = hint_close,
	.count = hint_count,
	.affordable = hint_affordable,
	.watch = hint_watch,
	.cost = hint_cost,
};
