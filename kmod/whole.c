// SPDX-License-Identifier: GPL-2.0-only
/*
 * Moving a huge page whole, on kernels whose migrate_vma takes it as one page
 * (6.19 and later; probe/migrate_compound.c). It does so only if it is given all
 * of the huge page's addresses, so a range has to cover it, and chunk_bytes not
 * to cut it.
 *
 * The first entry of src and dst stands for the huge page; the others are 0.
 *
 * Locking: that of chunk.c.
 */
#ifdef FERRY_HAVE_MIGRATE_COMPOUND

#include <linux/gfp.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>

#include "compat.h"
#include "ferry.h"

/*
 * It has been compiled, but no kernel that has it has run it for this project.
 * So it is for those who ask for it.
 */
static bool whole_huge;

module_param(whole_huge, bool, 0644);
MODULE_PARM_DESC(whole_huge,
		 "Move huge pages whole by migrate_vma (not tested)");

/*
 * As for small pages (pool.c), and without compaction: what it would take is
 * out of proportion to what is lost if the huge page stays.
 */
#define WHOLE_GFP ((GFP_TRANSHUGE_LIGHT | __GFP_THISNODE | __GFP_NOWARN | \
		    __GFP_NORETRY) & ~__GFP_RECLAIM)

/**
 * ferry_whole_enabled() - may huge pages be moved whole?
 *
 * Return: the module parameter.
 */
bool ferry_whole_enabled(void)
{
	return READ_ONCE(whole_huge);
}

/**
 * ferry_is_whole() - is a chunk a huge page, and not settled yet?
 * @chunk: the chunk
 * @folio: the huge page that maps its start, which may be freed at any time
 *
 * Return: true if so.
 */
bool ferry_is_whole(const struct ferry_chunk *chunk, struct folio *folio)
{
	return ferry_whole_enabled() && chunk->nr == HPAGE_PMD_NR &&
	       folio_order(folio) == HPAGE_PMD_ORDER &&
	       !memchr_inv(chunk->outcome, FERRY_PENDING, chunk->nr);
}

/* Is it, locked and unmapped by migrate_vma_setup(), the one that was judged? */
static bool may_move(const struct ferry_chunk *chunk)
{
	const unsigned long src = chunk->src[0];
	struct page *page = migrate_pfn_to_page(src);
	struct folio *folio;

	if (!page || !(src & MIGRATE_PFN_MIGRATE) ||
	    !(src & MIGRATE_PFN_COMPOUND) || page_to_pfn(page) != chunk->pfn[0])
		return false;
	folio = page_folio(page);
	return folio_test_anon(folio) && !folio_test_ksm(folio) &&
	       folio_order(folio) == HPAGE_PMD_ORDER &&
	       !folio_test_writeback(folio);
}

static void copy_whole(struct ferry_chunk *chunk, struct folio *new)
{
	struct page *old = migrate_pfn_to_page(chunk->src[0]);
	unsigned int i;

	for (i = 0; i < HPAGE_PMD_NR; i++)
		ferry_copy_add(&chunk->copy, folio_page(new, i), old + i);
	ferry_copy_run_here(&chunk->copy);
}

static void settle_all(struct ferry_chunk *chunk, enum ferry_outcome outcome)
{
	memset(chunk->outcome, outcome, chunk->nr);
}

static struct folio *alloc_on(int node, gfp_t gfp)
{
	struct folio *new = __folio_alloc_node(gfp, HPAGE_PMD_ORDER, node);

	if (new && folio_nid(new) != node) {
		folio_put(new);
		new = NULL;
	}
	return new;
}

/*
 * Returns a huge page on the chunk's node, or NULL. One that an exchange has
 * freed there is taken back as small pages are (pool.c, take_back()).
 */
static struct folio *alloc_whole(struct ferry_chunk *chunk)
{
	const unsigned int vacated = chunk->pool->vacated;
	struct folio *new = alloc_on(chunk->node, WHOLE_GFP);

	if (!new && chunk->vacating && vacated >= HPAGE_PMD_NR)
		new = alloc_on(chunk->node, WHOLE_GFP | __GFP_MEMALLOC);
	if (new)
		chunk->pool->vacated -= min(vacated, HPAGE_PMD_NR);
	return new;
}

/* There is no huge page on the target. */
static void go_without(struct ferry_chunk *chunk)
{
	if (chunk->fit) {
		chunk->nr = 0;
	} else if (chunk->split) {
		chunk->unsplit = true;
		chunk->try_split = true;
	} else {
		settle_all(chunk, FERRY_NOMEM);
	}
}

static void settle(struct ferry_chunk *chunk)
{
	if (!(chunk->src[0] & MIGRATE_PFN_MIGRATE))
		return;
	settle_all(chunk, FERRY_MOVED);
	if (chunk->vacating)
		chunk->vacating->vacated += HPAGE_PMD_NR;
}

/**
 * ferry_move_whole() - try to move the huge page that a chunk is
 * @chunk: the chunk; its first pfn is that of the huge page to move
 * @vma: the VMA that contains it, its mmap_lock held for reading
 *
 * Without a huge page on the target it stays, unless it may be split.
 */
void ferry_move_whole(struct ferry_chunk *chunk, struct vm_area_struct *vma)
{
	struct migrate_vma args = {
		.vma = vma,
		.start = chunk->start,
		.end = chunk->start + HPAGE_PMD_SIZE,
		.src = chunk->src,
		.dst = chunk->dst,
		.flags = MIGRATE_VMA_SELECT_SYSTEM |
			 MIGRATE_VMA_SELECT_COMPOUND,
	};
	struct folio *new = alloc_whole(chunk);

	if (!new) {
		go_without(chunk);
		return;
	}
	if (WARN_ON_ONCE(migrate_vma_setup(&args))) {
		folio_put(new);
		return;
	}
	if (may_move(chunk)) {
		/* Nobody else knows of it, so this cannot fail. */
		WARN_ON_ONCE(!folio_trylock(new));
		copy_whole(chunk, new);
		chunk->dst[0] = migrate_pfn(folio_pfn(new)) |
				MIGRATE_PFN_COMPOUND;
		migrate_vma_pages(&args);
		settle(chunk);
	} else {
		folio_put(new);
	}
	migrate_vma_finalize(&args);
}

#endif /* FERRY_HAVE_MIGRATE_COMPOUND */
