// SPDX-License-Identifier: GPL-2.0-only
/*
 * Giving the old places of pages back to the allocator.
 *
 * pool.c takes blocks of pages and splits them, so pages that have moved before
 * lie together, and when they move again they are given back together: as the
 * block that they were. By itself each costs the allocator ten times as much, and
 * most of that is for merging them into the same block.
 *
 * Joining pages is split_page() undone. A block that is no compound page is one
 * whose first page alone has a reference; __free_pages() copes with somebody who
 * takes another one for a moment, as walkers of page frames do.
 *
 * Not where the kernel has an account of each page (who allocated it, shadow
 * memory of its initialization), which split_page() splits and nothing joins.
 *
 * Locking: the caller has the last reference, but for such a moment, to pages that
 * are unlocked, mapped by nobody, and on no LRU list.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/page_ref.h>
#include <linux/pagemap.h>

#include "ferry.h"

#if !defined(CONFIG_PAGE_OWNER) && !defined(CONFIG_MEM_ALLOC_PROFILING) && \
	!defined(CONFIG_KMSAN)

/* Smaller blocks go through the allocator's lists for each CPU as pages do. */
#define JOIN_ORDER_MIN 4

/*
 * Has the page nothing left that must be undone when it is freed? Otherwise, as
 * with an mlocked one, or one that its cgroup is still charged for (before 6.7),
 * release_pages() does that.
 */
static bool is_bare(struct page *page)
{
#ifdef CONFIG_MEMCG
	if (page->memcg_data)
		return false;
#endif
	return !(*folio_flags(page_folio(page), 0) &
		 (PAGE_FLAGS_CHECK_AT_FREE | __PG_HWPOISON));
}

/* The order of the largest block that the first of @nr pages begins, or 0 */
static unsigned int block_order(struct page **pages, unsigned int nr)
{
	const unsigned long pfn = page_to_pfn(pages[0]);
	unsigned int i, most = 1U << __ffs(pfn | FERRY_CHUNK_PAGES);

	most = min(most, nr);
	if (most < 1U << JOIN_ORDER_MIN)
		return 0;
	for (i = 0; i < most; i++)
		if (pages[i] != pages[0] + i || !is_bare(pages[i]))
			break;
	return i < 1U << JOIN_ORDER_MIN ? 0 : ilog2(i);
}

/*
 * Make a block of bare pages that lie together, and free it. Returns false, and
 * has done nothing, if somebody else has a reference to one of them.
 */
static bool join(struct page *block, unsigned int order)
{
	unsigned int i;

	for (i = 1; i < 1U << order; i++)
		if (unlikely(!page_ref_freeze(block + i, 1)))
			goto out_unfreeze;
	/* What is otherwise forgotten of the first page only */
	while (--i) {
		block[i].mapping = NULL;
		page_cpupid_reset_last(block + i);
	}
	/* Else it counts as one large folio of anonymous memory less. */
	block->mapping = NULL;
	__free_pages(block, order);
	return true;

out_unfreeze:
	while (--i)
		page_ref_unfreeze(block + i, 1);
	return false;
}

/**
 * ferry_free_pages() - drop the last reference to pages that have moved
 * @pages: the pages, in the order in which they were mapped
 * @nr: their number, FERRY_CHUNK_PAGES at most
 */
void ferry_free_pages(struct page **pages, unsigned int nr)
{
	unsigned int i = 0, single = 0, order;

	while (i < nr) {
		order = block_order(pages + i, nr - i);
		if (!order || !join(pages[i], order)) {
			i++;
			continue;
		}
		release_pages(pages + single, i - single);
		i += 1U << order;
		single = i;
	}
	release_pages(pages + single, nr - single);
}

#else

void ferry_free_pages(struct page **pages, unsigned int nr)
{
	release_pages(pages, nr);
}

#endif
