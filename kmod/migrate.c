// SPDX-License-Identifier: GPL-2.0-only
/*
 * A batch: its ranges one after the other, each cut into chunks that lie within
 * one VMA and one page table.
 *
 * Locking: mmap_lock is taken for reading for each pass over a chunk, for
 * writing to split a huge page between two passes, and released in between, so
 * VMAs are looked up anew each time. Results are
 * written to the caller while it is not held.
 */
#include <linux/dax.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/oom.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/userfaultfd_k.h>

#include "compat.h"
#include "ferry.h"
#include "ferry_trace.h"

/*
 * How often a chunk is gone over. A page that a fault or the scan of reclaim
 * holds for a moment is free again in the next pass, as in migrate_pages().
 */
#define MAX_PASSES 6

/*
 * A request's struct ferry_chunk. It is too large for the stack, and for a
 * small request to be zeroed: what a pass uses it sets, but for the pools, which
 * are empty in each chunk of the cache.
 */
static struct kmem_cache *chunk_cache;

/*
 * Who touches a page of a chunk waits for it, so how long a chunk is makes how
 * often an application waits, and how long. With 64 pages that is seldom enough
 * and short; with fewer, what is done for a chunk as a whole (two TLB shootdowns,
 * the caches of the LRU lists drained) would begin to count.
 */
static struct ferry_param chunk_bytes = {
	.value = SZ_256K, .min = SZ_64K, .max = FERRY_CHUNK_BYTES,
	.power_of_two = true,
};

module_param_cb(chunk_bytes, &ferry_param_ops, &chunk_bytes, 0644);
__MODULE_PARM_TYPE(chunk_bytes, "uint");
MODULE_PARM_DESC(chunk_bytes,
		 "Most bytes that are migrated under one hold of mmap_lock");

/**
 * ferry_chunk_bytes() - the most that is migrated under one hold of mmap_lock
 *
 * Return: bytes, a power of two, FERRY_CHUNK_BYTES at most.
 */
unsigned int ferry_chunk_bytes(void)
{
	return ferry_param(&chunk_bytes);
}

static void construct_chunk(void *object)
{
	struct ferry_chunk *chunk = object;

	memset(chunk->pools, 0, sizeof(chunk->pools));
}

/**
 * ferry_migrate_init() - what all requests share, before there are any
 *
 * Return: 0 or -ENOMEM.
 */
int ferry_migrate_init(void)
{
	chunk_cache = kmem_cache_create("ferry_chunk",
					sizeof(struct ferry_chunk), 0,
					SLAB_ACCOUNT, construct_chunk);
	return chunk_cache ? 0 : -ENOMEM;
}

/**
 * ferry_migrate_exit() - undo ferry_migrate_init(), after the last request
 */
void ferry_migrate_exit(void)
{
	kmem_cache_destroy(chunk_cache);
}

/**
 * ferry_interrupted() - should a request end early?
 *
 * Return: true if a signal is pending or, in an io-wq worker, the request is
 * being cancelled. Task work alone (TIF_NOTIFY_SIGNAL) is no reason elsewhere.
 */
bool ferry_interrupted(void)
{
	if (current->flags & PF_IO_WORKER)
		return signal_pending(current);
	return task_sigpending(current);
}

/* Is this memory that migrate_vma can move without loss? */
static bool is_movable(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma) && !vma_is_dax(vma) &&
	       !(vma->vm_flags & (VM_SPECIAL | VM_HUGETLB | VM_SHADOW_STACK |
				  VM_DROPPABLE));
}

/*
 * May holes be filled here, as a write by the application would fill them? Not
 * where a userfaultfd handler is to supply the page, or is to be told of the
 * write: migrate_vma replaces a write-protected zero page without a word.
 */
static bool is_fillable(struct vm_area_struct *vma)
{
	return (vma->vm_flags & VM_WRITE) && !userfaultfd_missing(vma) &&
	       !userfaultfd_wp(vma);
}

static u64 pages(unsigned long start, unsigned long end)
{
	return (end - start) >> PAGE_SHIFT;
}

/* Take mmap_lock, and count how long it is held: so long faults may wait. */
static int lock(struct ferry_chunk *chunk)
{
	if (mmap_read_lock_killable(current->mm))
		return -EINTR;
	chunk->locked_at = ktime_get_ns();
	return 0;
}

static void count_stall(struct ferry_chunk *chunk)
{
	const u64 held = ktime_get_ns() - chunk->locked_at;

	chunk->stall_ns += held;
	ferry_stat_add(FERRY_STAT_STALL_NS, held);
	ferry_stat_max(FERRY_STAT_STALL_MAX_NS, held);
}

static void unlock(struct ferry_chunk *chunk)
{
	count_stall(chunk);
	mmap_read_unlock(current->mm);
}

static void tally(const struct ferry_chunk *chunk, unsigned int passes,
		  struct ferry_ioc_result *result)
{
	unsigned int i, nr[FERRY_NR_OUTCOMES] = {};

	for (i = 0; i < chunk->nr; i++)
		nr[chunk->outcome[i]]++;
	result->moved += nr[FERRY_MOVED];
	result->populated += nr[FERRY_POPULATED];
	result->already += nr[FERRY_ALREADY];
	result->busy += nr[FERRY_BUSY] + nr[FERRY_PENDING];
	result->nomem += nr[FERRY_NOMEM];
	result->hole += nr[FERRY_HOLE];
	result->unsupported += nr[FERRY_UNSUPPORTED];
	result->huge += nr[FERRY_HUGE];
	result->dma_fallback += chunk->copy.dma_fallback;

	ferry_stat_add(FERRY_STAT_CHUNKS, 1);
	ferry_stat_add(FERRY_STAT_COPY_BYTES, chunk->copy.bytes);
	ferry_stat_add(FERRY_STAT_COPY_NS, chunk->copy.ns);
	ferry_stat_add(FERRY_STAT_DMA_BYTES, chunk->copy.dma_bytes);
	ferry_stat_add(FERRY_STAT_DMA_FALLBACK, chunk->copy.dma_fallback);
	trace_chunk_end(chunk, nr, passes);
}

/* Is there still memory that can be worked on? The VMA may have changed. */
static struct vm_area_struct *find_again(const struct ferry_chunk *chunk)
{
	const unsigned long end = chunk->start + (chunk->nr << PAGE_SHIFT);
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma = find_vma(mm, chunk->start);

	if (!vma || vma->vm_start > chunk->start || vma->vm_end < end)
		return NULL;
	if (!is_movable(vma) || check_stable_address_space(mm))
		return NULL;
	return vma;
}

/* Another pass over a chunk */
static unsigned int repeat_pass(struct ferry_chunk *chunk, bool populate)
{
	struct vm_area_struct *vma;
	unsigned int left = 0;

	chunk->unsplit = false;
	if (lock(chunk))
		return 0;
	vma = find_again(chunk);
	if (vma) {
		chunk->populate = populate && is_fillable(vma);
		left = ferry_chunk_pass(chunk, vma);
	}
	unlock(chunk);
	return left;
}

/* Between two passes: split the huge page that the chunk is in, if it can be. */
static void split(struct ferry_chunk *chunk)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;

	if (mmap_write_lock_killable(mm))
		return;
	chunk->locked_at = ktime_get_ns();
	vma = find_again(chunk);
	if (vma)
		ferry_split(chunk, vma);
	count_stall(chunk);
	mmap_write_unlock(mm);
}

/* A huge page that could not be split stays what it is. */
static void leave_unsplit(struct ferry_chunk *chunk)
{
	unsigned int i;

	for (i = 0; i < chunk->nr; i++)
		if (chunk->outcome[i] == FERRY_PENDING)
			chunk->outcome[i] = FERRY_HUGE;
}

/*
 * Count what lies between @addr and the next memory that can be worked on.
 * Returns the address of the latter and its VMA, or @end.
 */
static unsigned long skip(struct mm_struct *mm, unsigned long addr,
			  unsigned long end, bool populate,
			  struct vm_area_struct **vmap,
			  struct ferry_ioc_result *result)
{
	while (addr < end) {
		struct vm_area_struct *vma = find_vma(mm, addr);
		struct ferry_spot spot;
		unsigned long next;

		if (!vma || vma->vm_start > addr) {
			next = vma ? min(vma->vm_start, end) : end;
			result->hole += pages(addr, next);
			addr = next;
			continue;
		}
		next = min(vma->vm_end, end);
		if (!is_movable(vma)) {
			result->unsupported += pages(addr, next);
			addr = next;
			continue;
		}
		*vmap = vma;
		ferry_locate(mm, addr, &spot);
		if (spot.level != FERRY_LEVEL_NONE ||
		    (populate && is_fillable(vma)))
			break;
		/* A large gap in the page tables is passed in one step. */
		next = min(next, spot.end);
		result->hole += pages(addr, next);
		addr = next;
	}
	return addr;
}

/**
 * ferry_migrate_chunk() - work on the next chunk of a range
 * @chunk: its target, pool and how to go about it are set
 * @addr: where to begin; advanced past what was done
 * @end: end of the range
 * @populate: give holes a page
 * @result: what became of the pages is added to this
 *
 * Return: 0, or -EINTR if a signal came before the lock could be taken or the
 * task is dying.
 */
int ferry_migrate_chunk(struct ferry_chunk *chunk, unsigned long *addr,
			unsigned long end, bool populate,
			struct ferry_ioc_result *result)
{
	struct mm_struct *mm = current->mm;
	const unsigned int bytes = ferry_chunk_bytes();
	struct vm_area_struct *vma;
	unsigned int left, pass;

	ferry_copy_begin(&chunk->copy);
	chunk->stall_ns = 0;
	if (lock(chunk))
		return -EINTR;
	/* The OOM killer has taken this memory, and the task is dying. */
	if (check_stable_address_space(mm)) {
		unlock(chunk);
		return -EINTR;
	}
	*addr = skip(mm, *addr, end, populate, &vma, result);
	if (*addr == end) {
		unlock(chunk);
		return 0;
	}
	end = min3(end, vma->vm_end,
		   ALIGN_DOWN(*addr, bytes) + bytes);
	chunk->start = *addr;
	chunk->nr = pages(*addr, end);
	chunk->populate = populate && is_fillable(vma);
	memset(chunk->outcome, FERRY_PENDING, chunk->nr);
	trace_chunk_begin(chunk);
	left = ferry_chunk_pass(chunk, vma);
	unlock(chunk);

	for (pass = 1; left && pass < MAX_PASSES && !ferry_interrupted();
	     pass++) {
		cond_resched();
		if (chunk->try_split)
			split(chunk);
		left = repeat_pass(chunk, populate);
	}
	if (chunk->unsplit)
		leave_unsplit(chunk);
	tally(chunk, pass, result);
	/* An exchange may have made the chunk shorter. */
	*addr += chunk->nr << PAGE_SHIFT;
	return 0;
}

static int migrate_range(struct ferry_chunk *chunk,
			 const struct ferry_ioc_range *range,
			 struct ferry_ioc_result *result)
{
	const unsigned long end = range->addr + range->len;
	const bool populate = range->flags & FERRY_RANGE_POPULATE;
	unsigned long addr = range->addr;

	chunk->node = range->node;
	while (addr < end) {
		int err;

		if (ferry_interrupted())
			return -EINTR;
		err = ferry_migrate_chunk(chunk, &addr, end, populate, result);
		if (err)
			return err;
		cond_resched();
	}
	return 0;
}

/* Tell of all ranges that they were not begun. Also finds a bad pointer. */
static int put_results_ahead(const struct ferry_batch *batch)
{
	const struct ferry_ioc_result result = { .error = -ECANCELED };
	u32 i;

	for (i = 0; i < batch->args.nr_ranges; i++) {
		if (ferry_batch_put_result(batch, i, &result))
			return -EFAULT;
		cond_resched();
	}
	return 0;
}

static int migrate_batch(const struct ferry_batch *batch,
			 struct ferry_chunk *chunk)
{
	int err = 0, done = 0;
	u32 i;

	for (i = 0; i < batch->args.nr_ranges && !err; i++) {
		struct ferry_ioc_result result = {};

		err = migrate_range(chunk, &batch->ranges[i], &result);
		result.error = err;
		ferry_stats_range(&result);
		done += result.moved + result.populated;
		if (ferry_batch_put_result(batch, i, &result))
			err = -EFAULT;
	}
	return done ?: err;
}

/* Returns what ferry_migrate() does. */
static int carry_out(const struct ferry_batch *batch)
{
	struct ferry_chunk *chunk;
	int ret;

	chunk = kmem_cache_alloc(chunk_cache, GFP_KERNEL);
	if (!chunk)
		return -ENOMEM;
	ferry_pool_begin(&chunk->pools[0]);
	ferry_pool_begin(&chunk->pools[1]);
	chunk->pool = &chunk->pools[0];
	chunk->vacating = NULL;
	chunk->fit = false;
	ferry_copy_open(&chunk->copy, batch->args.copy_mode, batch->bytes);
	chunk->shared = batch->args.flags & FERRY_MIGRATE_SHARED;
	chunk->split = batch->args.flags & FERRY_MIGRATE_SPLIT_HUGE;
	ret = put_results_ahead(batch);
	if (!ret)
		ret = batch->args.flags & FERRY_MIGRATE_EXCHANGE ?
		      ferry_exchange(batch, chunk) :
		      migrate_batch(batch, chunk);
	ferry_copy_close(&chunk->copy);
	ferry_pool_drain(&chunk->pools[0]);
	ferry_pool_drain(&chunk->pools[1]);
	kmem_cache_free(chunk_cache, chunk);
	return ret;
}

/**
 * ferry_migrate() - FERRY_IOC_MIGRATE on the memory of current
 * @space: the address space of current
 * @arg: the caller's struct ferry_ioc_migrate
 *
 * Return: number of pages that have come to their target, or the errors listed
 * at struct ferry_ioc_migrate.
 */
int ferry_migrate(struct ferry_space *space, const void __user *arg)
{
	struct ferry_batch batch;
	int ret;

	ret = ferry_batch_read(&batch, arg);
	if (ret)
		return ret;
	ret = ferry_space_enter(space);
	if (ret)
		goto out;
	ferry_stat_add(FERRY_STAT_BATCHES, 1);
	ferry_stat_add(FERRY_STAT_IN_FLIGHT, 1);
	trace_batch_begin(&batch.args);
	ret = carry_out(&batch);
	trace_batch_end(ret);
	ferry_stat_add(FERRY_STAT_IN_FLIGHT, -1);
	ferry_space_leave(space);
out:
	ferry_batch_free(&batch);
	return ret;
}
