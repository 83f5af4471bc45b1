/* SPDX-License-Identifier: MIT */
/*
 * The engine `syscall`: move_pages(2), which is always there.
 *
 * The system call says on which node a page ended, not where it came from, and
 * it moves file pages too. So a batch is carried out in steps:
 *
 *   1. units (syscall_job.h): the private anonymous parts of its pieces become
 *      units, one for each page, or one for all pages that one huge page maps
 *      (its first address moves it whole, at a quarter of the price a page)
 *   2. query: which are there already, which are holes
 *   3. populate: holes, where asked for, are faulted in by the kernel under a
 *      task policy that prefers the target; they may still come out elsewhere
 *   4. move: what is elsewhere, in rounds, since one page that fails makes
 *      move_pages(2) give up the rest of its array
 *
 * No shared state and no locking: all of a batch is in `struct job`.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migrate/engine.h"
#include "migrate/pagemap.h"
#include "migrate/syscall_job.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Rounds without progress after which a page is called busy. */
#define MAX_IDLE_ROUNDS 3

/* ---- where pages are ---------------------------------------------------- */

/* A status that move_pages(2) has not written. */
#define UNSET INT16_MIN

/* A kernel without NUMA has node 0 only; a page is on it or nowhere. */
static int query_without_numa(void **page, int *status, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char resident;

		if (mincore(page[i], PAGE_BYTES, &resident))
			status[i] = errno == ENOMEM ? -ENOENT : -errno;
		else
			status[i] = resident & 1 ? 0 : -ENOENT;
	}
	return 0;
}

/* The node of each page, or -ENOENT or -EFAULT for a hole. 0 or -errno. */
static int query_status(void **page, int *status, size_t n)
{
	if (!n || !syscall(SYS_move_pages, 0, n, page, NULL, status, 0))
		return 0;
	return errno == ENOSYS ? query_without_numa(page, status, n) : -errno;
}

static int syscall_query(uintptr_t addr, size_t len, int16_t *nodes)
{
	void *page[512];
	int status[512];

	while (len) {
		size_t n = 0;
		int err;

		while (n < 512 && n < len / PAGE_BYTES) {
			page[n] = (void *)(addr + n * PAGE_BYTES);
			n++;
		}
		err = query_status(page, status, n);
		if (err)
			return err;
		for (size_t i = 0; i < n; i++)
			*nodes++ = (int16_t)(status[i] >= 0 ? status[i] : -1);
		addr += n * PAGE_BYTES;
		len -= n * PAGE_BYTES;
	}
	return 0;
}

/* ---- steps 2 to 4 ------------------------------------------------------- */

static void argument(struct job *job, size_t i)
{
	job->page[job->n] = (void *)job->unit[i].addr;
	job->target[job->n] = job->node;
	job->status[job->n] = UNSET;
	job->index[job->n++] = (uint32_t)i;
}

static struct unit *unit_of(struct job *job, size_t argument)
{
	return &job->unit[job->index[argument]];
}

static void give_up(struct job *job, int err)
{
	job->error = err;
	for (size_t i = 0; i < job->units; i++)
		if (job->unit[i].outcome == ELSEWHERE)
			job->unit[i].outcome = GIVEN_UP;
}

/* Asks where the units in the arguments are, for those not settled. */
static void look(struct job *job, enum outcome on_target)
{
	int err = query_status(job->page, job->status, job->n);

	if (err) {
		give_up(job, err);
		return;
	}
	for (size_t k = 0; k < job->n; k++) {
		struct unit *unit = unit_of(job, k);

		if (job->status[k] == job->node)
			unit->outcome = unit->was_hole ? POPULATED : on_target;
		else
			unit->outcome = job->status[k] < 0 ? HOLE : ELSEWHERE;
	}
}

/* Step 2 */
static void look_at_all(struct job *job)
{
	job->n = 0;
	for (size_t i = 0; i < job->units; i++)
		argument(job, i);
	look(job, ALREADY);
}

/* The thread's memory policy, to be put back. */
struct policy {
	int mode;
	unsigned long nodes[FERRY_MAX_NODES / 64];
};

static bool policy_save_and_prefer(struct policy *saved, int node)
{
	unsigned long nodes[FERRY_MAX_NODES / 64] = {0};

	nodes[node / 64] = 1UL << node % 64;
	return !syscall(SYS_get_mempolicy, &saved->mode, saved->nodes,
			FERRY_MAX_NODES + 1, NULL, 0) &&
	       !syscall(SYS_set_mempolicy, MPOL_PREFERRED, nodes, FERRY_MAX_NODES + 1);
}

static void policy_restore(const struct policy *saved)
{
	syscall(SYS_set_mempolicy, saved->mode, saved->nodes, FERRY_MAX_NODES + 1);
}

static bool to_populate(const struct unit *unit)
{
	return unit->outcome == HOLE && unit->populate;
}

/*
 * Step 3. The kernel takes write faults on the holes; data that another thread
 * puts there meanwhile stays. A policy of the mapping wins over the thread's,
 * so some pages may have to be moved afterwards.
 */
static void populate(struct job *job)
{
	struct policy saved;
	size_t units = job->units;
	bool preferred;

	job->n = 0;
	for (size_t i = 0; i < units; i++) {
		if (!to_populate(&job->unit[i]))
			continue;
		/* The huge zero page gives way to pages of any size. */
		job_split_unit(job, i);
		argument(job, i);
	}
	for (size_t i = units; i < job->units; i++)
		argument(job, i);
	if (!job->n)
		return;

	preferred = policy_save_and_prefer(&saved, job->node);
	for (size_t k = 0, end; k < job->n; k = end) {
		for (end = k + 1;
		     end < job->n &&
		     (char *)job->page[end] == (char *)job->page[end - 1] + PAGE_BYTES;
		     end++)
			;
		/* Where it fails holes remain, which the look tells. */
		madvise(job->page[k], (end - k) * PAGE_BYTES, MADV_POPULATE_WRITE);
	}
	if (preferred)
		policy_restore(&saved);

	for (size_t k = 0; k < job->n; k++)
		unit_of(job, k)->was_hole = true;
	look(job, POPULATED);
}

/*
 * How many of a call's units it got round to. The kernel collects units until
 * one needs no moving or cannot be had; it writes that one's status, moves what
 * it has collected, and ends if some of that fails, without a status for it.
 */
static size_t units_tried(const struct job *job)
{
	size_t told = job->n;

	while (told && job->status[told - 1] == UNSET)
		told--;
	return told >= 2 && job->status[told - 2] == UNSET ? told : job->n;
}

/*
 * One call of move_pages(2) for all that is elsewhere; settles what it can.
 * Returns whether there was progress.
 */
static bool move_round(struct job *job)
{
	size_t asked = job->n, unclear = 0;
	bool progress = false;
	int err = 0;

	if (syscall(SYS_move_pages, 0, job->n, job->page, job->target, job->status,
		    MPOL_MF_MOVE) < 0)
		err = errno;
	for (size_t k = units_tried(job); k-- > 0;)
		unit_of(job, k)->tried = true;

	for (size_t k = 0; k < asked; k++) {
		size_t i = job->index[k];
		struct unit *unit = &job->unit[i];
		int status = job->status[k];

		if (unit->pages > 1 && !pagemap_is_huge(job->pagemap, unit->addr)) {
			job_split_unit(job, i);
			progress = true;
		} else if (status == job->node) {
			unit->outcome = unit->was_hole ? POPULATED : MOVED;
		} else if (status == -EACCES) {
			unit->outcome = BUSY; /* shared with another process */
		} else {
			/* Not tried, or failed, or moved as part of a folio. */
			job->page[unclear] = job->page[k];
			job->index[unclear++] = (uint32_t)i;
		}
	}
	job->n = unclear;
	look(job, MOVED);
	for (size_t k = 0; k < job->n; k++) {
		struct unit *unit = unit_of(job, k);

		if (unit->outcome != ELSEWHERE)
			progress = true;
		else if (err == ENOMEM)
			unit->outcome = NOMEM;
	}
	if (err && err != ENOMEM)
		give_up(job, -err);
	return progress || unclear < asked;
}

static bool same_granule(const struct unit *a, const struct unit *b)
{
	return granule_end(a->addr) == granule_end(b->addr);
}

/*
 * Whether units @i and @k are of one folio that cannot be moved: then the
 * kernel has collected it for @i when it comes to @k, and moving it fails.
 */
static bool share_busy_folio(struct job *job, size_t i, size_t k)
{
	job->n = 0;
	argument(job, i);
	argument(job, k);
	if (syscall(SYS_move_pages, 0, 2, job->page, job->target, job->status,
		    MPOL_MF_MOVE) > 0 &&
	    job->status[0] == UNSET && job->status[1] == -EBUSY)
		return true;
	/* Otherwise it may have moved; @k is looked at again in any case. */
	job->n = 1;
	look(job, MOVED);
	if (job->unit[i].outcome == ELSEWHERE)
		job->unit[i].outcome = BUSY;
	return false;
}

static void move_alone(struct job *job, size_t i)
{
	job->n = 0;
	argument(job, i);
	move_round(job);
	if (job->unit[i].outcome == ELSEWHERE)
		job->unit[i].outcome = BUSY;
}

/*
 * Settles what no round could move. A unit that none got round to, because one
 * before it failed every time, gets a call of its own. Large folios that are
 * mapped page by page, or that cannot be told before Linux 6.7, lead to that:
 * their second page ends a round. Failing for one takes the kernel long, so it
 * is not asked for each of its pages.
 */
static void move_stubborn(struct job *job)
{
	for (size_t i = 0; i < job->units; i++) {
		struct unit *unit = &job->unit[i];
		size_t last = i;

		if (unit->outcome != ELSEWHERE)
			continue;
		if (unit->tried) {
			unit->outcome = BUSY;
			continue;
		}
		for (size_t k = i + 1;
		     k < job->units && same_granule(unit, &job->unit[k]); k++)
			if (job->unit[k].outcome == ELSEWHERE)
				last = k;
		if (last > i && i && unit[-1].outcome == BUSY &&
		    same_granule(unit, unit - 1) && share_busy_folio(job, i - 1, last)) {
			for (; i <= last; i++)
				if (job->unit[i].outcome == ELSEWHERE)
					job->unit[i].outcome = BUSY;
			i = last;
		} else {
			move_alone(job, i);
		}
	}
}

/* Step 4 */
static void move_elsewhere(struct job *job)
{
	for (int idle = 0; idle < MAX_IDLE_ROUNDS;) {
		job->n = 0;
		for (size_t i = 0; i < job->units; i++)
			if (job->unit[i].outcome == ELSEWHERE)
				argument(job, i);
		if (!job->n)
			return;
		if (!move_round(job)) {
			idle++;
			sched_yield();
		}
	}
	move_stubborn(job);
}

static void count(const struct job *job, struct ferry_result *result)
{
	uint64_t pages[GIVEN_UP + 1] = {0};

	for (size_t i = 0; i < job->units; i++)
		pages[job->unit[i].outcome] += job->unit[i].pages;
	result->moved += pages[MOVED];
	result->populated += pages[POPULATED];
	result->already += pages[ALREADY];
	result->busy += pages[BUSY];
	result->nomem += pages[NOMEM];
	result->hole += pages[HOLE];
	if (job->error && !result->error)
		result->error = job->error;
}

/* ---- the engine --------------------------------------------------------- */

static void syscall_move(struct batch *batch)
{
	struct job job;

	if (!batch->count)
		return;
	job.error = job_make(&job, batch);
	if (!job.error)
		job.error = job_add_units(&job, batch);
	if (job.error)
		give_up(&job, job.error);
	else
		look_at_all(&job);
	if (!job.error)
		populate(&job);
	if (!job.error)
		move_elsewhere(&job);
	count(&job, &batch->result);
	job_free(&job);
}

static int syscall_open(const char **why)
{
	*why = "always there";
	return 0;
}

static void syscall_forget(void)
{
}

const struct engine engine_syscall = {
	.name = "syscall",
	.open = syscall_open,
	.forget = syscall_forget,
	.move = syscall_move,
	.query = syscall_query,
};
