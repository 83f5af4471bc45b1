// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copying the pages of a run: chunk.c gathers them, and they are copied in one
 * step, by the CPU that carries out the batch, by it and the module's workers
 * (copy_parallel.c), or by a DMA engine (copy_dma.c).
 *
 * FERRY_COPY_AUTO leaves a run shorter than copy_threshold to the CPU alone. A
 * longer one is for the DMA engine if the administrator lets the module have a
 * channel and there is one, else for the workers.
 *
 * Locking: the pages read are locked and unmapped, those written belong to the
 * request alone. mmap_lock is held, and the application may wait for the pages,
 * so nothing here waits for memory.
 */
#include <linux/highmem.h>
#include <linux/minmax.h>
#include <linux/moduleparam.h>
#include <linux/timekeeping.h>

#include "ferry.h"

/* 128 KiB: as many as are copied without preemption, see copy_stream.c */
#define STEP_PAGES 32U

static struct ferry_param copy_threshold = {
	.value = SZ_128K, .min = PAGE_SIZE, .max = FERRY_CHUNK_BYTES,
};

module_param_cb(copy_threshold, &ferry_param_ops, &copy_threshold, 0644);
__MODULE_PARM_TYPE(copy_threshold, "uint");
MODULE_PARM_DESC(copy_threshold,
		 "Shortest run of pages, in bytes, that more than one CPU copies in FERRY_COPY_AUTO");

/**
 * ferry_copy_open() - get ready for a batch
 * @copy: set up for ferry_copy_close()
 * @mode: enum ferry_copy_mode
 * @bytes: length of the batch
 *
 * May sleep.
 */
void ferry_copy_open(struct ferry_copy *copy, u32 mode, u64 bytes)
{
	copy->mode = mode;
	copy->dma = NULL;
	if (mode == FERRY_COPY_DMA ||
	    (mode == FERRY_COPY_AUTO && bytes >= ferry_param(&copy_threshold)))
		copy->dma = ferry_dma_open();
}

/**
 * ferry_copy_close() - the batch has ended
 * @copy: as ferry_copy_open() left it
 */
void ferry_copy_close(struct ferry_copy *copy)
{
	ferry_dma_close(copy->dma);
}

/**
 * ferry_copy_begin() - begin with a chunk
 * @copy: what has been counted for the chunk before is forgotten
 */
void ferry_copy_begin(struct ferry_copy *copy)
{
	copy->nr = 0;
	copy->bytes = 0;
	copy->dma_bytes = 0;
	copy->dma_fallback = 0;
	copy->ns = 0;
}

/**
 * ferry_copy_pages() - have this CPU copy a part of the pages
 * @copy: the pages
 * @first: the first one
 * @end: where to end
 */
void ferry_copy_pages(const struct ferry_copy *copy, unsigned int first,
		      unsigned int end)
{
	if (ferry_stream_pages(copy, first, end))
		return;
	for (; first < end; first++) {
		if (copy->src[first])
			copy_highpage(copy->dst[first], copy->src[first]);
		else
			clear_highpage(copy->dst[first]);
	}
}

/**
 * ferry_copy_step() - how many pages of a run are copied in one step
 * @copy: says who copies
 * @nr: length of the run
 *
 * All of them where others share the work. Where this CPU copies alone, few:
 * then those are given back to the application before the next are copied.
 *
 * Return: number of pages, @nr at most.
 */
unsigned int ferry_copy_step(const struct ferry_copy *copy, unsigned int nr)
{
	bool others = copy->dma || ferry_parallel_supported();

	if (copy->mode == FERRY_COPY_CPU || !others ||
	    (copy->mode == FERRY_COPY_AUTO &&
	     nr << PAGE_SHIFT < ferry_param(&copy_threshold)))
		return min(nr, STEP_PAGES);
	return nr;
}

static enum ferry_copy_mode choose(const struct ferry_copy *copy)
{
	if (copy->mode != FERRY_COPY_AUTO)
		return copy->mode;
	if (copy->nr << PAGE_SHIFT < ferry_param(&copy_threshold))
		return FERRY_COPY_CPU;
	return copy->dma ? FERRY_COPY_DMA : FERRY_COPY_PARALLEL;
}

/**
 * ferry_copy_run_here() - copy all that was added, by CPUs
 * @copy: the pages
 *
 * For pages that cannot be left to a DMA engine one by one, as it wants them if
 * it never answers. They count as a fallback where the batch asks for one.
 */
void ferry_copy_run_here(struct ferry_copy *copy)
{
	const u64 begin = ktime_get_ns();

	if (copy->mode == FERRY_COPY_DMA)
		copy->dma_fallback += copy->nr;
	if (choose(copy) == FERRY_COPY_CPU)
		ferry_copy_pages(copy, 0, copy->nr);
	else
		ferry_parallel_copy(copy);
	copy->nr = 0;
	copy->ns += ktime_get_ns() - begin;
}

/**
 * ferry_copy_run() - copy all that was added
 * @copy: the pages. Those in @dst that could not be copied are NULL afterwards
 *	and no longer the caller's
 *
 * Return: true if all are copied.
 */
bool ferry_copy_run(struct ferry_copy *copy)
{
	const u64 begin = ktime_get_ns();
	bool all = true;

	switch (choose(copy)) {
	case FERRY_COPY_DMA:
		all = ferry_dma_copy(copy);
		break;
	case FERRY_COPY_PARALLEL:
		ferry_parallel_copy(copy);
		break;
	default:
		ferry_copy_pages(copy, 0, copy->nr);
		break;
	}
	copy->nr = 0;
	copy->ns += ktime_get_ns() - begin;
	return all;
}
