// SPDX-License-Identifier: GPL-2.0-only
/*
 * What has been accessed: reads and clears the accessed bits of the page
 * tables, as many of them in a stretch as there are rows for, and nobody else
 * waits for.
 *
 * The TLBs are not flushed, as they are not by the kernel's own aging: a CPU
 * that still holds a translation uses the page without setting the bit anew,
 * until the translation is evicted. So an accessed bit tells of an access for
 * certain; a missing one does not exclude it. Accesses that do not go through
 * these page tables are not seen: those of devices, of the kernel through its
 * own mapping (pinned pages), and of secondary MMUs (virtual machines, RDMA on
 * demand paging), whose notifiers are not called.
 *
 * Reclaim reads the same bits. What is taken from them here is left for it
 * in the folio, where idle page tracking leaves it (the young flag, which
 * reclaim takes for an accessed bit), and the folio is marked not idle. So a
 * page in use looks no colder to reclaim or to DAMON because somebody scans.
 *
 * Locking: mmap_lock is held for reading for a stretch and released before the
 * answer is copied to the caller; bits are cleared under the PTL.
 */
#include <linux/bitops.h>
#include <linux/dax.h>
#include <linux/log2.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "ferry.h"

/**
 * struct scan - a scan under way
 * @args: the caller's struct
 * @mm: the address space
 * @vma: the VMA that is being scanned
 * @addr: start of the part of it that is being scanned
 * @end: its end, in the same page table
 * @spot: what maps it
 * @shift: log2 of the bytes of a granule
 * @base: number of the granule that @row[0] is for
 * @row: rows of the granules that the stretch meets; the one of a granule that
 *	does not end in it stays for the next
 */
struct scan {
	struct ferry_ioc_scan args;
	struct mm_struct *mm;
	struct vm_area_struct *vma;
	unsigned long addr;
	unsigned long end;
	struct ferry_spot spot;
	unsigned int shift;
	unsigned long base;
	struct ferry_scan_row row[FERRY_CHUNK_PAGES];
};

/* Add to the row of the granule of @addr. FERRY_SCAN_GRANULE_MAX fits a u16. */
static void count(struct scan *scan, unsigned long addr, unsigned int present,
		  unsigned int accessed, unsigned int dirty, unsigned int huge)
{
	struct ferry_scan_row *row =
		&scan->row[(addr >> scan->shift) - scan->base];

	row->present += present;
	row->accessed += accessed;
	row->dirty += dirty;
	row->huge += huge;
}

/* End of the granule of @addr, or of the part if that comes first */
static unsigned long granule_end(const struct scan *scan, unsigned long addr)
{
	return min(scan->end, ((addr >> scan->shift) + 1) << scan->shift);
}

static void scan_table(pte_t *pte, void *arg)
{
	struct scan *scan = arg;
	const bool peek = scan->args.flags & FERRY_SCAN_PEEK;
	unsigned long addr = scan->addr;

	while (addr < scan->end) {
		const unsigned long start = addr, end = granule_end(scan, addr);
		const pte_t *last = pte + ((end - addr) >> PAGE_SHIFT);
		unsigned int present = 0, accessed = 0, dirty = 0;

		for (; pte < last; pte++) {
			pte_t val = ptep_get(pte);

			if (!ferry_pte_is_page(val))
				continue;
			present++;
			dirty += ferry_pte_dirty(val);
			if (!ferry_pte_young(val))
				continue;
			accessed++;
			if (!peek) {
				addr = end - (last - pte) * PAGE_SIZE;
				ferry_pte_clear_young(scan->vma, addr, pte);
				ferry_keep_young(ferry_pte_page(val));
			}
		}
		count(scan, start, present, accessed, dirty, 0);
		addr = end;
	}
}

/* If it is split this moment, or the huge zero page, nothing is here. */
static bool is_huge_page(pmd_t val)
{
	return pmd_present(val) && pmd_leaf(val) &&
	       READ_ONCE(pmd_page(val)->mapping);
}

/* Clear what a huge page has of accessed bits. Return: the entry before. */
static pmd_t clear_huge(struct scan *scan, pmd_t *pmd)
{
	spinlock_t *ptl = pmd_lock(scan->mm, pmd); /* the PTL of the huge page */
	pmd_t val = READ_ONCE(*pmd);

	if (is_huge_page(val) && pmd_young(val)) {
		ferry_pmd_clear_young(scan->vma, scan->addr, pmd);
		ferry_keep_young(pmd_page(val));
	}
	spin_unlock(ptl);
	return val;
}

static void scan_huge(struct scan *scan, pmd_t *pmd)
{
	unsigned long addr = scan->addr;
	pmd_t val = READ_ONCE(*pmd);

	if (pmd_young(val) && !(scan->args.flags & FERRY_SCAN_PEEK))
		val = clear_huge(scan, pmd);
	if (!is_huge_page(val))
		return;
	while (addr < scan->end) {
		const unsigned long end = granule_end(scan, addr);
		const unsigned int nr = (end - addr) >> PAGE_SHIFT;

		count(scan, addr, nr, pmd_young(val) ? nr : 0,
		      pmd_dirty(val) ? nr : 0, nr);
		addr = end;
	}
}

static bool is_scannable(struct vm_area_struct *vma)
{
	return !vma_is_dax(vma) && !(vma->vm_flags & (VM_SPECIAL | VM_HUGETLB));
}

/* Scan what begins at @scan->addr. Return: where the next part begins. */
static unsigned long scan_part(struct scan *scan)
{
	struct ferry_spot *spot = &scan->spot;

	if (!is_scannable(scan->vma))
		return scan->vma->vm_end;
	if (!ferry_locate_next(spot, scan->addr))
		ferry_locate(scan->mm, scan->addr, spot);
	scan->end = min(scan->end, spot->end);
	if (spot->level == FERRY_LEVEL_TABLE)
		ferry_with_table(scan->mm, spot->pmd, scan->addr, scan_table,
				 scan);
	else if (spot->level == FERRY_LEVEL_HUGE && spot->pmd)
		scan_huge(scan, spot->pmd);
	return scan->end;
}

/* Whether somebody waits for this task, or for the lock it has */
static bool is_waited_for(struct scan *scan)
{
	return need_resched() || signal_pending(current) ||
	       mmap_lock_is_contended(scan->mm);
}

/*
 * Scan from @addr on, but not to beyond @end. Return: how far that got, or 0 if
 * the task is to die.
 */
static unsigned long scan_stretch(struct scan *scan, unsigned long addr,
				  unsigned long end)
{
	struct vm_area_struct *vma = NULL;

	if (mmap_read_lock_killable(scan->mm))
		return 0;
	scan->spot.pmd = NULL;
	do {
		if (!vma || addr >= vma->vm_end)
			vma = find_vma(scan->mm, addr);
		if (!vma || vma->vm_start >= end) {
			addr = end;
			break;
		}
		scan->vma = vma;
		scan->addr = max(addr, vma->vm_start);
		scan->end = min(end, vma->vm_end);
		addr = scan_part(scan);
	} while (addr < end && !is_waited_for(scan));
	mmap_read_unlock(scan->mm);
	return min(addr, end);
}

/* Hand out the rows of granules that are complete at @end. */
static int put_rows(struct scan *scan, unsigned long end, bool last)
{
	const unsigned long next = last ? ((end - 1) >> scan->shift) + 1
					: end >> scan->shift;
	const size_t bytes = (next - scan->base) * sizeof(*scan->row);

	if (!bytes)
		return 0;
	if (copy_to_user(u64_to_user_ptr(scan->args.out), scan->row, bytes))
		return -EFAULT;
	memset(scan->row, 0, bytes);
	scan->args.out += bytes;
	scan->base = next;
	return 0;
}

static int scan_all(struct scan *scan)
{
	unsigned long addr = scan->args.addr;
	const unsigned long last = addr + scan->args.len;

	scan->base = addr >> scan->shift;
	while (addr < last) {
		const unsigned long rows_end =
			(scan->base + ARRAY_SIZE(scan->row)) << scan->shift;
		int err;

		if (ferry_interrupted())
			return -EINTR;
		addr = scan_stretch(scan, addr, min(last, rows_end));
		err = addr ? put_rows(scan, addr, addr == last) : -EINTR;
		if (err)
			return err;
		cond_resched();
	}
	return 0;
}

/* Zero the answer ahead, so that a bad pointer is found before a bit is lost */
static int clear_out(const struct ferry_ioc_scan *args)
{
	const unsigned int shift = ilog2(args->granule_bytes);
	const u64 rows = ((args->addr + args->len - 1) >> shift) -
			 (args->addr >> shift) + 1;
	const u64 bytes = rows * sizeof(struct ferry_scan_row);

	if (args->out_bytes < bytes)
		return -ENOSPC;
	return clear_user(u64_to_user_ptr(args->out), bytes) ? -EFAULT : 0;
}

/**
 * ferry_scan() - FERRY_IOC_SCAN on the memory of current
 * @arg: the caller's struct ferry_ioc_scan
 *
 * Return: 0 or the errors listed at struct ferry_ioc_scan.
 */
int ferry_scan(const void __user *arg)
{
	struct ferry_ioc_scan args;
	struct scan *scan;
	int err;

	err = ferry_scan_read(&args, arg);
	if (!err)
		err = clear_out(&args);
	if (err)
		return err;

	scan = kvzalloc(sizeof(*scan), GFP_KERNEL_ACCOUNT);
	if (!scan)
		return -ENOMEM;
	scan->args = args;
	scan->mm = current->mm;
	scan->shift = ilog2(args.granule_bytes);
	err = scan_all(scan);
	kvfree(scan);
	return err;
}
