// SPDX-License-Identifier: GPL-2.0-only
/*
 * Free pages on the target node, taken from the allocator in bulk before the
 * pages of a chunk are unmapped, so that nothing waits for memory while the
 * application waits for its pages.
 *
 * Locking: a pool belongs to one request. Filling may reclaim memory on the
 * node and so may sleep; mmap_lock may be held for reading as in a page fault.
 */
#include <linux/gfp.h>
#include <linux/mm.h>

#include "compat.h"
#include "ferry.h"

/*
 * Only this node, without a warning, without trying hard: the caller is told
 * how many pages there was no memory for. Neither __GFP_THISNODE nor
 * __GFP_NORETRY ever invokes the OOM killer.
 */
#define FERRY_GFP (GFP_HIGHUSER_MOVABLE | __GFP_THISNODE | __GFP_NOWARN | \
		   __GFP_NORETRY)

/**
 * ferry_pool_drain() - give the pages of a pool back
 * @pool: the pool, empty afterwards
 */
void ferry_pool_drain(struct ferry_pool *pool)
{
	while (pool->nr)
		__free_page(ferry_pool_take(pool));
}

/**
 * ferry_pool_take() - take a page out of a pool
 * @pool: the pool
 *
 * Return: a page with one reference, its content undefined, or NULL.
 */
struct page *ferry_pool_take(struct ferry_pool *pool)
{
	struct page *page;

	if (!pool->nr)
		return NULL;
	page = pool->pages[--pool->nr];
	pool->pages[pool->nr] = NULL;
	return page;
}

/* Pages that came from elsewhere all the same are of no use. */
static unsigned int drop_strangers(struct ferry_pool *pool, unsigned int nr)
{
	unsigned int i, kept = pool->nr;

	for (i = pool->nr; i < nr; i++) {
		struct page *page = pool->pages[i];

		pool->pages[i] = NULL;
		if (unlikely(page_to_nid(page) != pool->node))
			__free_page(page);
		else
			pool->pages[kept++] = page;
	}
	return kept;
}

/**
 * ferry_pool_fill() - have a number of pages on a node ready
 * @pool: the pool; pages of another node are given back first
 * @node: the node
 * @nr: pages wanted, FERRY_CHUNK_PAGES at most
 *
 * The pool may hold less than @nr afterwards: then the node has no more.
 */
void ferry_pool_fill(struct ferry_pool *pool, int node, unsigned int nr)
{
	gfp_t gfp = FERRY_GFP;

	if (pool->node != node) {
		ferry_pool_drain(pool);
		pool->node = node;
		pool->dry = false;
	}
	if (pool->dry)
		gfp &= ~__GFP_RECLAIM;

	while (pool->nr < nr) {
		/* Fills the empty places and returns how many are filled. */
		unsigned long got = ferry_alloc_bulk(gfp, node, nr, pool->pages);
		unsigned int had = pool->nr;

		pool->nr = drop_strangers(pool, got);
		if (pool->nr == had) {
			pool->dry = true;
			break;
		}
	}
}
