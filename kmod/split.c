// SPDX-License-Identifier: GPL-2.0-only
/*
 * Splitting a huge page into small ones, for FERRY_MIGRATE_SPLIT_HUGE.
 *
 * No function that does it is exported, but migrate_vma_setup() splits a huge
 * page that it meets. It is called for one page of it and ended without a new
 * place, so that all stay where they are; then they are small.
 *
 * Up to 6.18 it has a flaw: if it cannot lock the huge page it forgets a
 * reference, and the page is never freed. So it is given only one that nobody
 * is about to lock:
 *   - the entry that maps it holds the only reference, looked at under the
 *     PTL; so no other process maps it, nobody has it pinned, and nobody has
 *     taken it off its LRU list;
 *   - mmap_lock and the VMA's own lock are held for writing, so that no thread
 *     of the process faults on it, unmaps it, or asks the kernel to move it.
 * There remain reclaim and compaction, which find pages by themselves. They
 * would have to come upon this one, isolate it and lock it, in the few
 * instructions between the look and the lock; that would cost its 2 MiB until
 * the next boot, and no data.
 *
 * Locking: the above; the PTL is taken for the look.
 */
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pgtable.h>

#include "compat.h"
#include "ferry.h"

/**
 * ferry_may_split() - is there a point in trying to split a huge page?
 * @folio: the huge page, which may be freed at any time unless the PTL is held
 *
 * Return: true if nothing but one page table refers to it.
 */
bool ferry_may_split(struct folio *folio)
{
	return folio_ref_count(folio) == 1 && !folio_test_locked(folio) &&
	       !folio_test_writeback(folio) && !folio_test_hwpoison(folio);
}

static bool is_candidate(struct mm_struct *mm, pmd_t *pmd, int node)
{
	bool found = false;
	spinlock_t *ptl; /* the PTL of the huge page */
	pmd_t val;

	ptl = pmd_lock(mm, pmd);
	val = READ_ONCE(*pmd);
	if (pmd_present(val) && pmd_leaf(val)) {
		struct folio *folio = page_folio(pmd_page(val));

		found = folio_test_anon(folio) && folio_nid(folio) != node &&
			ferry_may_split(folio);
	}
	spin_unlock(ptl);
	return found;
}

/**
 * ferry_split() - split the huge page that maps a chunk, if it is to move
 * @chunk: the chunk
 * @vma: the VMA that contains it, mmap_lock held for writing
 *
 * Where it cannot be split now it stays as it is.
 */
void ferry_split(struct ferry_chunk *chunk, struct vm_area_struct *vma)
{
	struct migrate_vma args = {
		.vma = vma,
		.start = chunk->start,
		.end = chunk->start + PAGE_SIZE,
		.src = chunk->src,
		.dst = chunk->dst,
		.flags = MIGRATE_VMA_SELECT_SYSTEM,
	};
	struct ferry_spot spot;

	ferry_vma_start_write(vma);
	ferry_locate(vma->vm_mm, chunk->start, &spot);
	if (spot.level != FERRY_LEVEL_HUGE || !spot.pmd ||
	    !is_candidate(vma->vm_mm, spot.pmd, chunk->node))
		return;
	if (!WARN_ON_ONCE(migrate_vma_setup(&args)))
		migrate_vma_finalize(&args);
}
