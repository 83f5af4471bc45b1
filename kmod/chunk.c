// SPDX-License-Identifier: GPL-2.0-only
/*
 * One chunk through migrate_vma: at most one page table's worth of pages of one
 * anonymous VMA.
 *
 * A pass over a chunk
 *   1. scans the page table and decides for each page what to do with it,
 *   2. has as many pages on the target ready as it needs,
 *   3. hands runs of pages to migrate_vma_setup(), which unmaps and locks them,
 *      and then, a few pages at a time, has those that should move copied, and
 *      lets migrate_vma finish.
 * Pages that could not be had are left PENDING for another pass.
 *
 * migrate_vma takes all pages of the range it is given, and a page that is
 * taken in vain costs about as much as one that moves. A run therefore begins
 * and ends with a page that is to move, and between two of them takes along
 *   - entries that migrate_vma skips by itself, as many as there are;
 *   - at most RUN_GAP_MAX pages in a row that are to stay, which is about what
 *     beginning another run costs (two TLB shootdowns and a drain of the LRU
 *     caches);
 *   - never a page that is not to be touched: one that other processes map, a
 *     KSM page, one pinned or under writeback.
 *
 * migrate_vma is given a huge page only to move it as one (whole.c), or to split
 * it (split.c); a run has none. (A fault may still put one where the scan saw no
 * page table and holes are to be filled; it is split then, and its pages stay.)
 *
 * Locking: mmap_lock is held for reading throughout a pass; the scan takes the
 * PTL. Between migrate_vma_setup() and migrate_vma_finalize() the pages are
 * locked and unmapped, and nothing in between allocates or waits.
 */
#include <linux/ksm.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/rmap.h>
#include <linux/userfaultfd_k.h>

#include "compat.h"
#include "ferry.h"

#define RUN_GAP_MAX 16

/* struct ferry_chunk.action */
enum action {
	ACTION_SKIP,	/* migrate_vma passes over it */
	ACTION_STAY,	/* stays, but may be taken along in a run */
	ACTION_APART,	/* must not be touched: ends a run */
	ACTION_MOVE,	/* move the page */
	ACTION_FILL,	/* put a page into the hole */
};

static enum action settle(struct ferry_chunk *chunk, unsigned int i,
			  enum ferry_outcome outcome, enum action action)
{
	chunk->outcome[i] = outcome;
	return action;
}

static enum action judge_hole(struct ferry_chunk *chunk, unsigned int i)
{
	if (chunk->populate)
		return ACTION_FILL;
	return settle(chunk, i, FERRY_HOLE, ACTION_SKIP);
}

/* An entry that is neither empty nor present */
static enum action judge_swap(struct ferry_chunk *chunk, unsigned int i,
			      swp_entry_t entry)
{
	if (is_migration_entry(entry))
		return ACTION_APART;
	if (!non_swap_entry(entry) || is_pte_marker_entry(entry))
		return settle(chunk, i, FERRY_HOLE, ACTION_SKIP);
	return settle(chunk, i, FERRY_UNSUPPORTED, ACTION_APART);
}

static enum action judge_folio(struct ferry_chunk *chunk, unsigned int i,
			       struct folio *folio)
{
	/* Small, so this counts the page tables that map it. */
	bool others = atomic_read(&folio->_mapcount) > 0 && !chunk->shared;
	bool apart = others || folio_test_ksm(folio) ||
		     folio_maybe_dma_pinned(folio) ||
		     folio_test_hwpoison(folio);

	if (folio_nid(folio) == chunk->node)
		return settle(chunk, i, FERRY_ALREADY,
			      apart ? ACTION_APART : ACTION_STAY);
	if (apart)
		return settle(chunk, i, FERRY_BUSY, ACTION_APART);
	/* Ends soon, so it is worth another pass; see may_move(). */
	if (folio_test_writeback(folio))
		return ACTION_APART;
	chunk->pfn[i] = folio_pfn(folio);
	return ACTION_MOVE;
}

/* A page of a huge page: migrate_vma might split it, since 6.17 of any kind. */
static enum action judge_huge(struct ferry_chunk *chunk, unsigned int i,
			      struct folio *folio)
{
	return settle(chunk, i, folio_nid(folio) == chunk->node ?
		      FERRY_ALREADY : FERRY_HUGE, ACTION_APART);
}

static enum action judge_page(struct ferry_chunk *chunk, unsigned int i,
			      struct page *page)
{
	struct folio *folio = page_folio(page);

	if (!folio_test_anon(folio) || is_zone_device_page(&folio->page))
		return settle(chunk, i, FERRY_UNSUPPORTED, ACTION_APART);
	if (folio_test_large(folio))
		return judge_huge(chunk, i, folio);
	return judge_folio(chunk, i, folio);
}

/* What to do with a page that is not settled, by its page table entry */
static enum action judge(struct ferry_chunk *chunk, unsigned int i, pte_t pte)
{
	if (likely(ferry_pte_is_page(pte)))
		return judge_page(chunk, i, ferry_pte_page(pte));
	if (pte_none(pte))
		return judge_hole(chunk, i);
	if (!pte_present(pte))
		return judge_swap(chunk, i, pte_to_swp_entry(pte));
	if (is_zero_pfn(pte_pfn(pte)))
		return judge_hole(chunk, i);
	return settle(chunk, i, FERRY_UNSUPPORTED, ACTION_SKIP);
}

/* What a page settled in an earlier pass means for the runs of this one */
static enum action action_of_settled(enum ferry_outcome outcome)
{
	switch (outcome) {
	case FERRY_MOVED:
	case FERRY_POPULATED:
	case FERRY_ALREADY:
	case FERRY_NOMEM:
		return ACTION_STAY;
	case FERRY_HOLE:
		return ACTION_SKIP;
	default:
		return ACTION_APART;
	}
}

static enum action judge_moving(struct ferry_chunk *chunk, unsigned int i)
{
	return ACTION_APART;
}

/* Note what to do with a page. */
static void decide(struct ferry_chunk *chunk, unsigned int i,
		   enum action action)
{
	chunk->action[i] = action;
	chunk->need += action >= ACTION_MOVE;
}

static void scan_alike(struct ferry_chunk *chunk,
		       enum action (*judge_one)(struct ferry_chunk *,
						unsigned int))
{
	unsigned int i;

	for (i = 0; i < chunk->nr; i++)
		decide(chunk, i, chunk->outcome[i] == FERRY_PENDING ?
		       judge_one(chunk, i) :
		       action_of_settled(chunk->outcome[i]));
}

static enum action judge_held(struct ferry_chunk *chunk, unsigned int i)
{
	return settle(chunk, i, FERRY_BUSY, ACTION_APART);
}

/* All pages are one huge page, which may move as one: see judge_folio(). */
static void scan_whole(struct ferry_chunk *chunk, struct folio *folio)
{
	const bool others = folio_mapcount(folio) > 1 && !chunk->shared;

	if (others || folio_maybe_dma_pinned(folio) ||
	    folio_test_hwpoison(folio)) {
		scan_alike(chunk, judge_held);
		return;
	}
	chunk->pfn[0] = folio_pfn(folio);
	chunk->whole = !folio_test_writeback(folio);
	scan_alike(chunk, judge_moving);
}

/* All pages are in one huge page. */
static void scan_huge(struct ferry_chunk *chunk, struct page *head)
{
	struct folio *folio = page_folio(head);
	unsigned int i;

	/* The huge zero page is a hole; it alone belongs to nothing. */
	if (!READ_ONCE(head->mapping)) {
		scan_alike(chunk, judge_hole);
		return;
	}
	if (page_to_nid(head) != chunk->node && ferry_is_whole(chunk, folio)) {
		scan_whole(chunk, folio);
		return;
	}
	/* Whoever holds it may let go of it before the next pass. */
	if (chunk->split && page_to_nid(head) != chunk->node) {
		chunk->unsplit = true;
		chunk->try_split = ferry_may_split(folio);
		scan_alike(chunk, judge_moving);
		return;
	}
	for (i = 0; i < chunk->nr; i++)
		decide(chunk, i, chunk->outcome[i] == FERRY_PENDING ?
		       judge_huge(chunk, i, folio) :
		       action_of_settled(chunk->outcome[i]));
}

static void scan_table(pte_t *pte, void *arg)
{
	struct ferry_chunk *chunk = arg;
	unsigned int i;

	for (i = 0; i < chunk->nr; i++, pte++)
		decide(chunk, i, chunk->outcome[i] == FERRY_PENDING ?
		       judge(chunk, i, ptep_get(pte)) :
		       action_of_settled(chunk->outcome[i]));
}

/* Decide what to do with each page, and count the pages needed for it. */
static void scan(struct ferry_chunk *chunk, struct mm_struct *mm)
{
	struct ferry_spot spot;

	chunk->need = 0;
	chunk->whole = false;
	chunk->unsplit = false;
	chunk->try_split = false;
	ferry_locate(mm, chunk->start, &spot);
	switch (spot.level) {
	case FERRY_LEVEL_NONE:
		scan_alike(chunk, judge_hole);
		break;
	case FERRY_LEVEL_HUGE:
		scan_huge(chunk, pfn_to_page(spot.pfn));
		break;
	case FERRY_LEVEL_MOVING:
		scan_alike(chunk, judge_moving);
		break;
	case FERRY_LEVEL_TABLE:
		/* If it has changed this moment, look again in the next pass */
		if (!ferry_with_table(mm, spot.pmd, chunk->start, scan_table,
				      chunk))
			scan_alike(chunk, judge_moving);
		break;
	}
}

/* Where memory on the target is short, the last pages go without, or wait. */
static void give_up_beyond(struct ferry_chunk *chunk, unsigned int have)
{
	unsigned int i;

	for (i = 0; i < chunk->nr; i++) {
		if (chunk->action[i] < ACTION_MOVE) {
			continue;
		} else if (have) {
			have--;
		} else if (chunk->fit) {
			chunk->nr = i;
		} else {
			chunk->action[i] = settle(chunk, i, FERRY_NOMEM,
						  ACTION_STAY);
		}
	}
}

/* Find the next run from page *@first on. Returns false if there is none. */
static bool next_run(const struct ferry_chunk *chunk, unsigned int *first,
		     unsigned int *end)
{
	unsigned int i = *first, gap = 0;

	while (i < chunk->nr && chunk->action[i] < ACTION_MOVE)
		i++;
	if (i == chunk->nr)
		return false;
	*first = i;

	for (; i < chunk->nr && chunk->action[i] != ACTION_APART; i++) {
		if (chunk->action[i] >= ACTION_MOVE) {
			*end = i + 1;
			gap = 0;
		} else if (chunk->action[i] == ACTION_STAY &&
			   ++gap > RUN_GAP_MAX) {
			break;
		}
	}
	return true;
}

/*
 * May this page, locked and unmapped by migrate_vma_setup(), move? It must be
 * the one that the scan looked at, for only that one's sharing was checked. And
 * migrate_vma_pages() has a BUG_ON() for writeback; none can begin while the
 * page is locked.
 */
static bool may_move(const struct ferry_chunk *chunk, unsigned int i,
		     struct page *page)
{
	struct folio *folio = page_folio(page);

	return chunk->action[i] == ACTION_MOVE &&
	       page_to_pfn(page) == chunk->pfn[i] && folio_test_anon(folio) &&
	       !folio_test_ksm(folio) && !folio_test_large(folio) &&
	       !folio_test_writeback(folio);
}

static struct page *take_locked(struct ferry_chunk *chunk)
{
	struct page *page = ferry_pool_take(chunk->pool);

	/* Nobody else knows of it, so this cannot fail. */
	if (page)
		WARN_ON_ONCE(!trylock_page(page));
	return page;
}

/* Does the new place of a page need content? A hole's may have it already. */
static bool needs_copy(const struct page *old)
{
	return old || !want_init_on_alloc(GFP_HIGHUSER_MOVABLE);
}

/* Take back the new places of pages that could not be copied. */
static void forget_lost(struct ferry_chunk *chunk, unsigned int first,
			unsigned int end)
{
	unsigned int i, next = 0;

	for (i = first; i < end; i++)
		if (chunk->dst[i] &&
		    needs_copy(migrate_pfn_to_page(chunk->src[i])) &&
		    !chunk->copy.dst[next++])
			chunk->dst[i] = 0;
}

/* Give pages of a run their new places, and copy them there. */
static bool fill_places(struct ferry_chunk *chunk, unsigned int first,
			unsigned int end)
{
	bool filled = false;
	unsigned int i;

	for (i = first; i < end; i++) {
		struct page *new, *old;

		if (!(chunk->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		old = migrate_pfn_to_page(chunk->src[i]);
		if (old ? !may_move(chunk, i, old) :
			  chunk->action[i] != ACTION_FILL)
			continue;
		new = take_locked(chunk);
		if (!new)
			break;
		if (needs_copy(old))
			ferry_copy_add(&chunk->copy, new, old);
		chunk->dst[i] = migrate_pfn(page_to_pfn(new));
		filled = true;
	}
	if (unlikely(!ferry_copy_run(&chunk->copy)))
		forget_lost(chunk, first, end);
	return filled;
}

/*
 * Note which pages have moved. Each old one is held until the run is done, so
 * that they are freed together: one by one they cost the allocator more.
 */
static void settle_pages(struct ferry_chunk *chunk, unsigned int first,
			 unsigned int end)
{
	unsigned int i;

	for (i = first; i < end; i++) {
		struct page *old;

		if (!(chunk->dst[i] & MIGRATE_PFN_VALID) ||
		    !(chunk->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		if (chunk->action[i] == ACTION_FILL) {
			chunk->outcome[i] = FERRY_POPULATED;
			continue;
		}
		chunk->outcome[i] = FERRY_MOVED;
		old = migrate_pfn_to_page(chunk->src[i]);
		get_page(old);
		chunk->freed[chunk->nr_freed++] = old;
	}
}

/* Of an exchange: count the pages that migrate_vma_finalize() will free. */
static void count_vacated(struct ferry_chunk *chunk, unsigned int first,
			  unsigned int end)
{
	unsigned int i;

	for (i = first; i < end; i++) {
		struct page *old = migrate_pfn_to_page(chunk->src[i]);

		if (!(chunk->dst[i] & MIGRATE_PFN_VALID))
			continue;
		if (!(chunk->src[i] & MIGRATE_PFN_MIGRATE))
			chunk->pool->vacated++;
		else if (old && page_to_nid(old) == chunk->vacating->node)
			chunk->vacating->vacated++;
	}
}

/* Were there marked entries that migrate_vma_setup() did not take? */
static bool marks_left(const struct ferry_chunk *chunk, unsigned int first,
		       unsigned int end)
{
	unsigned int i;

	for (i = first; chunk->marks.nr && i < end; i++)
		if (!(chunk->src[i] & MIGRATE_PFN_VALID) &&
		    test_bit(i - first, chunk->marks.set))
			return true;
	return false;
}

/*
 * Bring pages of a run, unmapped by migrate_vma_setup(), to their new places or
 * back. Of a run any part can be finished by itself: what is left to do to a
 * page by migrate_vma_pages() and _finalize() depends on no other.
 */
static void finish_pages(struct ferry_chunk *chunk,
			 const struct migrate_vma *run, unsigned int first,
			 unsigned int end)
{
	struct migrate_vma args = {
		.vma = run->vma,
		.start = chunk->start + (first << PAGE_SHIFT),
		.end = chunk->start + (end << PAGE_SHIFT),
		.src = chunk->src + first,
		.dst = chunk->dst + first,
		.npages = end - first,
		.flags = run->flags,
	};

	if (fill_places(chunk, first, end)) {
		migrate_vma_pages(&args);
		settle_pages(chunk, first, end);
		if (chunk->vacating)
			count_vacated(chunk, first, end);
	}
	migrate_vma_finalize(&args);
}

static void migrate_run(struct ferry_chunk *chunk, struct vm_area_struct *vma,
			unsigned int first, unsigned int end)
{
	struct migrate_vma args = {
		.vma = vma,
		.start = chunk->start + (first << PAGE_SHIFT),
		.end = chunk->start + (end << PAGE_SHIFT),
		.src = chunk->src + first,
		.dst = chunk->dst + first,
		.flags = MIGRATE_VMA_SELECT_SYSTEM,
	};
	unsigned int stop;
	int err;

	ferry_flush_mark(&chunk->marks, vma, args.start, args.end);
	err = migrate_vma_setup(&args);
	if (err || marks_left(chunk, first, end))
		ferry_flush_restore(&chunk->marks);
	if (WARN_ON_ONCE(err))
		return;
	chunk->nr_freed = 0;
	for (end = first + args.npages; first < end; first = stop) {
		stop = first + ferry_copy_step(&chunk->copy, end - first);
		finish_pages(chunk, &args, first, stop);
	}
	ferry_free_pages(chunk->freed, chunk->nr_freed);
}

/**
 * ferry_chunk_pass() - try to move the pages of a chunk that are not settled
 * @chunk: the chunk; @outcome and what goes before it is set
 * @vma: a VMA that contains the chunk, its mmap_lock held for reading
 *
 * Return: number of pages that another pass may be able to move.
 */
unsigned int ferry_chunk_pass(struct ferry_chunk *chunk,
			      struct vm_area_struct *vma)
{
	unsigned int i, first = 0, end = 0, left = 0;

	scan(chunk, vma->vm_mm);
	if (chunk->whole) {
		ferry_move_whole(chunk, vma);
	} else if (chunk->need) {
		ferry_pool_fill(chunk->pool, chunk->node, chunk->need);
		if (chunk->pool->nr < chunk->need)
			give_up_beyond(chunk, chunk->pool->nr);
		for (; next_run(chunk, &first, &end); first = end)
			migrate_run(chunk, vma, first, end);
	}
	for (i = 0; i < chunk->nr; i++)
		left += chunk->outcome[i] == FERRY_PENDING;
	return left;
}
