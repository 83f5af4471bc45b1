// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copying the pages of a run: chunk.c gathers them, and they are copied in one
 * step.
 *
 * Locking: the pages read are locked and unmapped, those written belong to the
 * request alone. mmap_lock is held, and the application may wait for the pages,
 * so nothing here waits for memory.
 */
#include <linux/highmem.h>
#include <linux/timekeeping.h>

#include "ferry.h"

/**
 * ferry_copy_begin() - begin with a chunk
 * @copy: what is set to nothing
 */
void ferry_copy_begin(struct ferry_copy *copy)
{
	copy->nr = 0;
	copy->bytes = 0;
	copy->ns = 0;
}

/**
 * ferry_copy_add() - add a page to those that are to be copied
 * @copy: the others; FERRY_CHUNK_PAGES at most between two ferry_copy_run()
 * @dst: where to
 * @src: where from, or NULL for zeros
 */
void ferry_copy_add(struct ferry_copy *copy, struct page *dst,
		    struct page *src)
{
	copy->dst[copy->nr] = dst;
	copy->src[copy->nr] = src;
	copy->nr++;
}

/**
 * ferry_copy_run() - copy all that was added
 * @copy: the pages, forgotten afterwards
 */
void ferry_copy_run(struct ferry_copy *copy)
{
	const u64 begin = ktime_get_ns();
	unsigned int i;

	for (i = 0; i < copy->nr; i++) {
		if (copy->src[i]) {
			copy_highpage(copy->dst[i], copy->src[i]);
			copy->bytes += PAGE_SIZE;
		} else {
			clear_highpage(copy->dst[i]);
		}
	}
	copy->nr = 0;
	copy->ns += ktime_get_ns() - begin;
}
