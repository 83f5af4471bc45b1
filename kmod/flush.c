// SPDX-License-Identifier: GPL-2.0-only
/*
 * One TLB shootdown for a chunk in place of one for each page.
 *
 * migrate_vma_setup() clears each page table entry with ptep_clear_flush(),
 * which interrupts every CPU that runs the process, page by page. It does not
 * do so for an entry that the CPU cannot use, because no TLB can hold such a
 * one. So all entries of the chunk are first made inaccessible at once, in the
 * form that NUMA balancing gives them (PRESENT clear, PROTNONE set), and the
 * TLBs are flushed once. A thread that touches such a page meanwhile takes an
 * ordinary NUMA hint fault, which makes the entry accessible again, and
 * migrate_vma_setup() then flushes for this page alone. Entries that are still
 * marked afterwards are put back.
 *
 * Others (reclaim, compaction, KSM, userfaultfd) skip their flush for a marked
 * entry just the same. So the flush has to be complete before anyone can see
 * the marks, and it is: it happens before the page table lock is released.
 * Lockless readers (GUP-fast) refuse marked entries.
 *
 * flush_tlb_range() is not exported. The flush here is built as the kernel's
 * is: the new TLB generation makes every CPU that comes to the address space
 * later flush by itself, the interrupt makes those do it that are in it now.
 *
 * Not done where that is not known to suffice: secondary MMUs (their TLBs are
 * reached through notifiers only), Xen PV, CPUs that keep TLB entries without
 * regard to the generation (CONFIG_BROADCAST_TLB_FLUSH).
 *
 * Locking: mmap_lock held for reading; the marks are set and put back under
 * the PTL.
 */
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/pgtable.h>
#include <linux/smp.h>

#include "ferry.h"

#if defined(CONFIG_X86_64) && defined(CONFIG_NUMA_BALANCING) && \
	!defined(CONFIG_BROADCAST_TLB_FLUSH)

#include <asm/cpufeature.h>
#include <asm/tlbflush.h>

static bool batched_flush = true;
module_param(batched_flush, bool, 0644);
MODULE_PARM_DESC(batched_flush,
		 "One TLB shootdown for a chunk in place of one for each page");

/* Fewer pages than this are not worth the flush of all else in the TLBs. */
#define FERRY_MARK_MIN 4

/**
 * ferry_flush_supported() - is the batched flush built in and switched on?
 *
 * Return: true if so.
 */
bool ferry_flush_supported(void)
{
	return READ_ONCE(batched_flush) &&
	       !cpu_feature_enabled(X86_FEATURE_XENPV);
}

static bool usable(struct vm_area_struct *vma, unsigned long start,
		   unsigned long end)
{
	/*
	 * Entries of a PROT_NONE mapping look marked already, and a fault there
	 * would not be taken for a hint fault.
	 */
	return ferry_flush_supported() && vma_is_accessible(vma) &&
	       !mm_has_notifiers(vma->vm_mm) &&
	       end - start >= FERRY_MARK_MIN * PAGE_SIZE;
}

/*
 * Set or take back a mark: all other bits stay, also RW and DIRTY, and the page
 * frame is inverted, as it is in entries without PRESENT. The CPU may set
 * ACCESSED and DIRTY at the same time, so this is one atomic operation.
 */
static void toggle_mark(struct vm_area_struct *vma, unsigned long addr,
			pte_t *pte)
{
	const pteval_t bits = _PAGE_PRESENT | _PAGE_PROTNONE | PTE_PFN_MASK;

#ifdef CONFIG_PAGE_TABLE_CHECK
	/* This one keeps account of each present entry. */
	pte_t old = ptep_modify_prot_start(vma, addr, pte);

	ptep_modify_prot_commit(vma, addr, pte, old,
				__pte(native_pte_val(old) ^ bits));
#else
	atomic64_xor(bits, (atomic64_t *)&pte->pte);
#endif
}

static bool markable(pte_t pte)
{
	const pteval_t stack = _PAGE_RW | _PAGE_DIRTY;
	const pteval_t bits = native_pte_val(pte);

	/* DIRTY without RW is a shadow stack; those are no business of ours. */
	return (bits & (_PAGE_PRESENT | _PAGE_PROTNONE | _PAGE_SPECIAL)) ==
		       _PAGE_PRESENT &&
	       (bits & stack) != _PAGE_DIRTY;
}

static bool is_marked(pte_t pte)
{
	return (native_pte_val(pte) & (_PAGE_PRESENT | _PAGE_PROTNONE)) ==
	       _PAGE_PROTNONE;
}

static void flush_this_cpu(void *unused)
{
	__flush_tlb_all();
}

static void flush_all_cpus(struct mm_struct *mm)
{
	/*
	 * A full barrier, paired with switch_mm(): a CPU either sees the new
	 * generation when it comes to this mm, or is in mm_cpumask() already.
	 */
	atomic64_inc_return(&mm->context.tlb_gen);
	on_each_cpu_mask(mm_cpumask(mm), flush_this_cpu, NULL, true);
}

static void mark_table(pte_t *pte, void *arg)
{
	struct ferry_marks *marks = arg;
	unsigned long addr = marks->start;
	unsigned int i;

	bitmap_zero(marks->set, FERRY_CHUNK_PAGES);
	for (i = 0; addr < marks->end; i++, addr += PAGE_SIZE, pte++) {
		if (!markable(ptep_get(pte)))
			continue;
		toggle_mark(marks->vma, addr, pte);
		__set_bit(i, marks->set);
		marks->nr++;
	}
	if (marks->nr)
		flush_all_cpus(marks->vma->vm_mm);
}

static void restore_table(pte_t *pte, void *arg)
{
	struct ferry_marks *marks = arg;
	unsigned int i;

	for_each_set_bit(i, marks->set, FERRY_CHUNK_PAGES)
		if (is_marked(ptep_get(&pte[i])))
			toggle_mark(marks->vma, marks->start + i * PAGE_SIZE,
				    &pte[i]);
}

static void with_table_of(struct ferry_marks *marks,
			  void (*fn)(pte_t *pte, void *arg))
{
	struct mm_struct *mm = marks->vma->vm_mm;
	struct ferry_spot spot;

	ferry_locate(mm, marks->start, &spot);
	if (spot.level == FERRY_LEVEL_TABLE)
		ferry_with_table(mm, spot.pmd, marks->start, fn, marks);
}

/**
 * ferry_flush_mark() - make the entries of a range inaccessible
 * @marks: filled in; what ferry_flush_restore() needs
 * @vma: the VMA of the range, its mmap_lock held for reading
 * @start: start of the range
 * @end: its end, within the same page table
 *
 * Where this is not possible nothing is marked.
 */
void ferry_flush_mark(struct ferry_marks *marks, struct vm_area_struct *vma,
		      unsigned long start, unsigned long end)
{
	marks->vma = vma;
	marks->start = start;
	marks->end = end;
	marks->nr = 0;
	if (usable(vma, start, end))
		with_table_of(marks, mark_table);
}

/**
 * ferry_flush_restore() - put entries back that are still marked
 * @marks: as ferry_flush_mark() left it, mmap_lock held since
 *
 * An entry that is no longer marked is someone else's: a hint fault has taken
 * the mark away, or the page has gone. Where NUMA balancing has set one of its
 * own meanwhile, it loses a hint. More access needs no flush.
 */
void ferry_flush_restore(struct ferry_marks *marks)
{
	if (marks->nr)
		with_table_of(marks, restore_table);
}

#else /* the batched flush is not possible */

bool ferry_flush_supported(void)
{
	return false;
}

void ferry_flush_mark(struct ferry_marks *marks, struct vm_area_struct *vma,
		      unsigned long start, unsigned long end)
{
	marks->nr = 0;
}

void ferry_flush_restore(struct ferry_marks *marks)
{
}

#endif
