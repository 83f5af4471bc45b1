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
#include <linux/log2.h>
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

/* Smaller blocks than this are not worth an allocation of their own. */
#define BLOCK_ORDER_MIN 3

/**
 * ferry_pool_begin() - begin with a request or another node
 * @pool: a pool, which is empty
 */
void ferry_pool_begin(struct ferry_pool *pool)
{
	pool->node = NUMA_NO_NODE;
	pool->dry = false;
	pool->vacated = 0;
}

/**
 * ferry_pool_drain() - give the pages of a pool back
 * @pool: the pool, empty afterwards
 */
void ferry_pool_drain(struct ferry_pool *pool)
{
	while (pool->nr)
		__free_page(ferry_pool_take(pool));
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

/*
 * Take blocks of pages that lie together, as long as the node has them without
 * any effort: the allocator finds a block about as quickly as a page. Pages
 * that move together then lie together too, and in order.
 */
static void fill_blocks(struct ferry_pool *pool, unsigned int nr)
{
	while (pool->nr + (1U << BLOCK_ORDER_MIN) <= nr) {
		const unsigned int order = ilog2(nr - pool->nr);
		unsigned int i = 1U << order;
		struct page *block = alloc_pages_node(pool->node, FERRY_GFP &
						      ~__GFP_RECLAIM, order);

		if (!block)
			break;
		split_page(block, order);
		/* The last is taken first. */
		while (i)
			pool->pages[pool->nr++] = block + --i;
	}
}

/* Take single pages until there are @nr or no more can be had. */
static void fill_pages(struct ferry_pool *pool, unsigned int nr, gfp_t gfp)
{
	while (pool->nr < nr) {
		/* Fills the empty places and returns how many are filled. */
		unsigned long got = ferry_alloc_bulk(gfp, pool->node, nr,
						     pool->pages);
		unsigned int had = pool->nr;

		pool->nr = drop_strangers(pool, got);
		if (pool->nr == had)
			break;
	}
}

/* What is taken from the node by whatever means is no longer owed. */
static void repay(struct ferry_pool *pool, unsigned int had)
{
	pool->vacated -= min(pool->vacated, pool->nr - had);
}

/*
 * Take back pages that this request has freed on the node. The allocator holds
 * them, but where the node is full it keeps them for its watermarks, and does
 * not even count those that wait in the lists of a CPU. So watermarks are
 * ignored, for no more pages than have been freed: the node's reserve does not
 * become smaller than it was before the request.
 */
static void take_back(struct ferry_pool *pool, unsigned int nr)
{
	const unsigned int had = pool->nr;

	fill_pages(pool, min(nr, had + pool->vacated),
		   (FERRY_GFP & ~__GFP_RECLAIM) | __GFP_MEMALLOC);
	repay(pool, had);
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
	unsigned int had;

	if (pool->node != node) {
		ferry_pool_drain(pool);
		ferry_pool_begin(pool);
		pool->node = node;
	}
	had = pool->nr;
	if (!pool->dry)
		fill_blocks(pool, nr);
	fill_pages(pool, nr, FERRY_GFP & ~__GFP_RECLAIM);
	repay(pool, had);
	if (pool->vacated)
		take_back(pool, nr);
	if (pool->nr < nr && !pool->dry) {
		had = pool->nr;
		fill_pages(pool, nr, FERRY_GFP);
		pool->dry = pool->nr < nr;
		repay(pool, had);
	}
}
