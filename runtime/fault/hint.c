/* SPDX-License-Identifier: MIT */
/*
 * The sampler `fault`: hint faults. Pages are taken out of their place (trap.h),
 * each for a window; those that are accessed come back by a fault, and the rest
 * when it is over. Accessed is what came back before its window was over.
 *
 * A fault is dear, some microseconds of the thread that takes it, and only a
 * fault tells that a page is hot. So few pages are watched: of the blocks that
 * small pages map one page of each, of those that huge pages map the huge page,
 * drawn anew for each window. How many is limited by a budget: what traps and
 * faults cost is measured and paid from an account that grows with time.
 *
 * The policy's thread draws, and waits; the handler's thread takes out. What
 * they share is the order, whose phase says whose it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fault/handler.h"
#include "fault/sampler.h"
#include "fault/uffd.h"
#include "migrate/pagemap.h"
#include "os/thread.h"

/* No page is out for longer, whatever window is asked for. */
#define WINDOW_MOST UINT64_C(200000000)

/* The account holds at most so much time's worth; a window takes a part of it. */
#define ACCOUNT_NS  INT64_C(10000000000)
#define WINDOW_PART 4

/* Pages taken out before faults are looked at: those who fault wait meanwhile. */
#define AT_ONCE 4

#define FD_LEAST 500 /* out of the way of what programs number themselves */

enum outcome { REFUSED, OUT, ACCESSED, IDLE };

struct pick {
	uintptr_t addr;
	size_t len;
	size_t block; /* index in the samples */
	enum outcome outcome;
};

enum phase { NONE, ORDERED, DONE };

static struct {
	_Atomic uint32_t phase; /* a futex; ORDERED: the handler's */
	struct pick pick[TRAPS_SMALL + TRAPS_HUGE];
	unsigned int picks;
	unsigned int next;   /* that is to be taken out */
	unsigned int faults; /* that brought one back */
	uint64_t window_ns;

	atomic_ullong cost_ns; /* so far */
} order;

/* The policy's thread's. */
static struct {
	int pagemap;
	uint64_t fault_ns;    /* what a fault costs its thread */
	uint64_t trap_ns;     /* what a page that is watched costs, about */
	unsigned int percent; /* the budget */
	int64_t account;      /* of time that may be used, in ns */
	uint64_t earned_at;   /* when it last grew */
	uint64_t random;
} hint = {.pagemap = -1};

static void futex(_Atomic uint32_t *word, int operation, uint32_t value, long ns)
{
	const struct timespec timeout = {.tv_nsec = ns};

	syscall(SYS_futex, word, operation, value, &timeout, NULL, 0);
}

/* ---- the handler's thread ------------------------------------------------- */

/* Some of those that are to be taken out; faults are answered in between. */
static void take_out(void)
{
	for (unsigned int i = 0; i < AT_ONCE && order.next < order.picks; i++) {
		struct pick *pick = &order.pick[order.next++];

		/* First, since it may come back at once. */
		pick->outcome = OUT;
		if (trap_set(pick->addr, pick->len, clock_ns(CLOCK_MONOTONIC)))
			pick->outcome = REFUSED;
	}
}

static void finish_order(void)
{
	atomic_store(&order.phase, DONE);
	futex(&order.phase, FUTEX_WAKE_PRIVATE, INT_MAX, 0);
}

/* Goes on with an order; when to do so next. */
static uint64_t carry_out(uint64_t now)
{
	uint64_t oldest;

	if (now > order.window_ns)
		trap_expire(now - order.window_ns, now);
	take_out();
	if (order.next < order.picks)
		return 0;
	oldest = trap_oldest();
	if (oldest != UINT64_MAX)
		return oldest + order.window_ns;
	finish_order();
	return UINT64_MAX;
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

static void hint_ended(uintptr_t addr, size_t len, uint64_t ns, bool touched)
{
	(void)len;
	order.faults += touched;
	for (unsigned int i = 0; i < order.next; i++) {
		struct pick *pick = &order.pick[i];

		if (pick->addr != addr || pick->outcome != OUT)
			continue;
		/* What was called back before its time tells nothing. */
		pick->outcome = ns >= order.window_ns ? IDLE
				: touched             ? ACCESSED
						      : REFUSED;
		return;
	}
}

static const struct handler_client client = {.tick = hint_tick, .ended = hint_ended};

/* ---- opening -------------------------------------------------------------- */

static void hint_limit(unsigned int percent)
{
	hint.percent = percent;
	hint.account = ACCOUNT_NS / 100 * percent;
	hint.earned_at = clock_ns(CLOCK_MONOTONIC);
}

/* A ring is a fault that is answered. */
static uint64_t measure_fault(void)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		uint64_t before = clock_ns(CLOCK_MONOTONIC), took;

		handler_wake();
		took = clock_ns(CLOCK_MONOTONIC) - before;
		if (took < least)
			least = took;
	}
	return least;
}

static int open_pagemap(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	hint.pagemap = fcntl(fd, F_DUPFD_CLOEXEC, FD_LEAST);
	if (hint.pagemap < 0)
		hint.pagemap = fd;
	else
		close(fd);
	return 0;
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
	int err = open_pagemap();

	if (err) {
		*why = "/proc/self/pagemap: cannot be opened";
		return err;
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
	hint.fault_ns = measure_fault();
	hint.trap_ns = 2 * hint.fault_ns;
	hint_limit(1);
	*why = "hint faults by userfaultfd";
	return 0;
}

/* ---- drawing -------------------------------------------------------------- */

static uint64_t draw(uint64_t below)
{
	hint.random ^= hint.random << 13;
	hint.random ^= hint.random >> 7;
	hint.random ^= hint.random << 17;
	return below ? hint.random % below : 0;
}

/* Adds the pages of a run, which lies in a span that @first is the first sample of. */
static void count_run(const struct page_run *run, uintptr_t start, struct sample *first)
{
	for (uintptr_t at = run->start; at < run->end;) {
		uintptr_t end = (at & ~(BLOCK_BYTES - 1)) + BLOCK_BYTES;
		struct sample *sample = &first[(at - start) / BLOCK_BYTES];
		uint8_t pages;

		if (end > run->end)
			end = run->end;
		pages = (uint8_t)((end - at) / PAGE_BYTES);
		sample->present += pages;
		if (run->huge)
			sample->huge += pages;
		at = end;
	}
}

static int count_pages(const struct span *span, struct sample *out)
{
	struct page_run run[PAGEMAP_RUNS];
	uintptr_t at = span->start;

	for (size_t i = 0; i < (span->end - span->start) / BLOCK_BYTES; i++)
		out[i] = (struct sample){0};
	while (at < span->end) {
		int n = pagemap_runs(hint.pagemap, at, span->end, run, &at);

		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			count_run(&run[i], span->start, out);
	}
	return 0;
}

/* A page of the block that is there; 0: none any more. */
static uintptr_t draw_page(uintptr_t block, unsigned int present)
{
	struct page_run run[PAGEMAP_RUNS];
	uintptr_t walked;
	int n = pagemap_runs(hint.pagemap, block, block + BLOCK_BYTES, run, &walked);
	size_t skip = draw(present) * PAGE_BYTES;

	for (int i = 0; i < n; i++) {
		if (run[i].huge)
			return 0;
		if (skip < run[i].end - run[i].start)
			return run[i].start + skip;
		skip -= run[i].end - run[i].start;
	}
	return 0;
}

enum kind { SMALL, HUGE, KINDS };

/* What could be watched, and how much of it is wanted yet. */
struct drawing {
	size_t left[KINDS], wanted[KINDS];
};

/*
 * What the samples from @sample on say of the memory at @addr. A granule that a
 * huge page maps is taken for its first block; SMALL with no pages: nothing.
 */
static enum kind kind_of(uintptr_t addr, uintptr_t end, const struct sample *sample)
{
	const size_t blocks = GRANULE_BYTES / BLOCK_BYTES;

	if (addr % GRANULE_BYTES || end - addr < GRANULE_BYTES)
		return SMALL;
	for (size_t i = 0; i < blocks; i++)
		if (sample[i].huge != BLOCK_BYTES / PAGE_BYTES)
			return SMALL;
	return HUGE;
}

static size_t step_of(enum kind kind)
{
	return kind == HUGE ? GRANULE_BYTES : BLOCK_BYTES;
}

static bool can_watch(enum kind kind, const struct sample *sample)
{
	return kind == HUGE || (sample->present && !sample->huge);
}

/* Takes it with the chance that makes any choice as likely as any other. */
static void draw_one(struct drawing *drawing, enum kind kind, uintptr_t addr,
		     size_t block, const struct sample *sample)
{
	struct pick *pick = &order.pick[order.picks];
	bool taken = draw(drawing->left[kind]) < drawing->wanted[kind];

	drawing->left[kind]--;
	if (!taken)
		return;
	drawing->wanted[kind]--;
	pick->addr = kind == HUGE ? addr : draw_page(addr, sample->present);
	pick->len = kind == HUGE ? GRANULE_BYTES : PAGE_BYTES;
	pick->block = block;
	pick->outcome = REFUSED;
	if (pick->addr)
		order.picks++;
}

/* Calls for each thing that could be watched; @out NULL counts them. */
static void each(const struct span *span, size_t n, const struct sample *out,
		 struct drawing *drawing, bool drawn)
{
	size_t block = 0;

	for (size_t i = 0; i < n; i++) {
		uintptr_t addr = span[i].start;

		while (addr < span[i].end) {
			enum kind kind = kind_of(addr, span[i].end, &out[block]);

			if (can_watch(kind, &out[block])) {
				if (drawn)
					draw_one(drawing, kind, addr, block, &out[block]);
				else
					drawing->left[kind]++;
			}
			addr += step_of(kind);
			block += step_of(kind) / BLOCK_BYTES;
		}
	}
}

/* Earns, and tells how many pages may be watched in one window. */
static size_t affordable(void)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	int64_t most = ACCOUNT_NS / 100 * hint.percent;

	hint.account += (int64_t)((now - hint.earned_at) / 100 * hint.percent);
	hint.earned_at = now;
	if (hint.account > most)
		hint.account = most;
	if (hint.account <= 0)
		return 0;
	/* One at least, for which the account may be overdrawn. */
	return 1 + (size_t)hint.account / WINDOW_PART / (hint.trap_ns + 1);
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void draw_all(const struct span *span, size_t n, const struct sample *out)
{
	struct drawing drawing = {0};
	size_t most = affordable();

	order.picks = 0;
	each(span, n, out, &drawing, false);
	/* In proportion to memory: a huge page is 32 blocks. */
	drawing.wanted[HUGE] = least(least(drawing.left[HUGE], TRAPS_HUGE), most);
	drawing.wanted[SMALL] = least(least(drawing.left[SMALL], TRAPS_SMALL),
				      most - drawing.wanted[HUGE]);
	each(span, n, out, &drawing, true);
}

/* ---- sampling ------------------------------------------------------------- */

static void pay(uint64_t cost, unsigned int watched)
{
	hint.account -= (int64_t)cost;
	if (watched)
		hint.trap_ns += (cost / watched >> 3) - (hint.trap_ns >> 3);
}

/* 0, or -ESRCH: there is no handler any more. */
static int watch(uint64_t window_ns)
{
	uint32_t phase;

	order.window_ns = window_ns < WINDOW_MOST ? window_ns : WINDOW_MOST;
	order.next = order.faults = 0;
	atomic_store(&order.phase, ORDERED);
	handler_wake();
	while ((phase = atomic_load(&order.phase)) != DONE) {
		if (!handler_is_running())
			return -ESRCH;
		futex(&order.phase, FUTEX_WAIT_PRIVATE, phase, 100000000);
	}
	return 0;
}

static void note(const struct pick *pick, struct sample *out)
{
	size_t blocks = pick->len == GRANULE_BYTES ? GRANULE_BYTES / BLOCK_BYTES : 1;
	uint8_t pages = pick->len == GRANULE_BYTES ? BLOCK_BYTES / PAGE_BYTES : 1;

	if (pick->outcome == REFUSED)
		return;
	for (size_t i = pick->block; i < pick->block + blocks; i++) {
		out[i].watched = pages;
		out[i].accessed = pick->outcome == ACCESSED ? pages : 0;
	}
}

static int hint_sample(const struct span *span, size_t n, uint64_t window_ns,
		       struct sample *out)
{
	uint64_t before = atomic_load(&order.cost_ns);
	size_t block = 0;
	int err;

	for (size_t i = 0; i < n; i++) {
		err = count_pages(&span[i], out + block);
		if (err)
			return err;
		block += (span[i].end - span[i].start) / BLOCK_BYTES;
	}
	draw_all(span, n, out);
	if (!order.picks) {
		sleep_ns(window_ns);
		return 0;
	}
	err = watch(window_ns);
	if (err)
		return err;
	for (unsigned int i = 0; i < order.picks; i++)
		note(&order.pick[i], out);
	atomic_fetch_add(&order.cost_ns, order.faults * hint.fault_ns);
	pay(atomic_load(&order.cost_ns) - before, order.picks);
	return 0;
}

static uint64_t hint_cost(void)
{
	return atomic_load(&order.cost_ns);
}

const struct sampler sampler_fault = {
	.name = "fault",
	.open = hint_open,
	.close = hint_close,
	.sample = hint_sample,
	.exact = true,
	.cost = hint_cost,
	.limit = hint_limit,
};
