// SPDX-License-Identifier: GPL-2.0-only
/*
 * An exchange: the ranges of a batch have two targets, and what moves to the
 * one comes from the other, of which neither has memory to spare. The batch is
 * worked on in turns, a chunk in each, and the pages that a turn frees on its
 * source are what the next turn moves to.
 *
 * They go through the page allocator. To keep them in hand would need a page
 * that migrate_vma_finalize() does not put on an LRU list (kernels before 2025
 * do, and it cannot be taken off there by exported means) and that is made new
 * as only the allocator can. How they are got back from it where it would
 * rather keep them for its watermarks: pool.c, take_back().
 *
 * A turn takes as many pages as there is memory for, so nothing is counted as
 * FERRY_NOMEM while the other direction may still free some.
 *
 * Locking: that of migrate.c.
 */
#include <linux/mm.h>
#include <linux/sched.h>

#include "ferry.h"

/**
 * struct lane - the ranges of one target
 * @node: the target
 * @index: the range that is under way, or the number of ranges if none is left
 * @addr: where in that range
 * @begun: a chunk of it has been worked on
 * @stuck: no use in a turn: the target had no memory at the last one, or there
 *	is nothing left to do
 * @result: what has become of the range so far
 */
struct lane {
	int node;
	u32 index;
	unsigned long addr;
	bool begun;
	bool stuck;
	struct ferry_ioc_result result;
};

/* Go to the lane's next range, from @index on. */
static void next_range(struct lane *lane, const struct ferry_batch *batch,
		       u32 index)
{
	while (index < batch->args.nr_ranges &&
	       batch->ranges[index].node != lane->node)
		index++;
	lane->index = index;
	lane->begun = false;
	lane->result = (struct ferry_ioc_result){};
	/* One with nothing left to do must not be waited for. */
	lane->stuck = index == batch->args.nr_ranges;
	if (!lane->stuck)
		lane->addr = batch->ranges[index].addr;
}

static bool is_done(const struct lane *lane, const struct ferry_batch *batch)
{
	return lane->index == batch->args.nr_ranges;
}

/* Report the range under way. Returns its pages that came to the target. */
static int put_result(struct lane *lane, const struct ferry_batch *batch,
		      int error, int *err)
{
	lane->result.error = error;
	ferry_stats_range(&lane->result);
	if (ferry_batch_put_result(batch, lane->index, &lane->result))
		*err = -EFAULT;
	return lane->result.moved + lane->result.populated;
}

/* One chunk, or as much of it as there is memory for */
static int take_turn(struct lane *lane, const struct ferry_batch *batch,
		     struct ferry_chunk *chunk)
{
	const struct ferry_ioc_range *range = &batch->ranges[lane->index];
	const unsigned long begin = lane->addr;
	int err;

	if (ferry_interrupted())
		return -EINTR;
	lane->begun = true;
	chunk->node = lane->node;
	err = ferry_migrate_chunk(chunk, &lane->addr, range->addr + range->len,
				  range->flags & FERRY_RANGE_POPULATE,
				  &lane->result);
	lane->stuck = lane->addr == begin;
	cond_resched();
	return err;
}

static u32 other_target(const struct ferry_batch *batch)
{
	u32 i = 0;

	while (i < batch->args.nr_ranges &&
	       batch->ranges[i].node == batch->ranges[0].node)
		i++;
	return i;
}

static void begin(struct lane lane[2], const struct ferry_batch *batch)
{
	const u32 other = other_target(batch);

	lane[0].node = batch->ranges[0].node;
	lane[1].node = other < batch->args.nr_ranges ?
		       batch->ranges[other].node : NUMA_NO_NODE;
	next_range(&lane[0], batch, 0);
	next_range(&lane[1], batch, other);
}

/**
 * ferry_exchange() - a batch with FERRY_MIGRATE_EXCHANGE
 * @batch: the batch, its ranges with at most two targets
 * @chunk: for the request's use, its pools empty
 *
 * Return: as ferry_migrate(), but for errors of the arguments.
 */
int ferry_exchange(const struct ferry_batch *batch, struct ferry_chunk *chunk)
{
	unsigned int turn = 0, i;
	struct lane lane[2];
	int err = 0, done = 0;

	begin(lane, batch);
	chunk->pools[0].node = lane[0].node;
	chunk->pools[1].node = lane[1].node;
	while (!err && !(is_done(&lane[0], batch) && is_done(&lane[1], batch))) {
		struct lane *now = &lane[turn], *then = &lane[!turn];

		if (is_done(now, batch) || (now->stuck && !then->stuck)) {
			turn = !turn;
			swap(now, then);
		}
		/* If neither can go on, it is for lack of memory after all. */
		chunk->fit = !then->stuck || !now->stuck;
		chunk->pool = &chunk->pools[turn];
		chunk->vacating = &chunk->pools[!turn];
		err = take_turn(now, batch, chunk);
		if (err)
			break;
		if (!now->stuck && !is_done(then, batch))
			then->stuck = false;
		if (now->addr == batch->ranges[now->index].addr +
				 batch->ranges[now->index].len) {
			done += put_result(now, batch, 0, &err);
			next_range(now, batch, now->index + 1);
		}
		turn = !turn;
	}
	for (i = 0; i < 2; i++)
		if (err && lane[i].begun)
			done += put_result(&lane[i], batch, err, &err);
	return done ?: err;
}
