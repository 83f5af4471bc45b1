// SPDX-License-Identifier: GPL-2.0-only
/*
 * What has been accessed: reads and clears the accessed bits of the page
 * tables, one segment (at most one page table's worth) at a time.
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
 * Locking: mmap_lock is held for reading for a segment and released before the
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
 * @shift: log2 of the bytes of a granule
 * @base: number of the granule that @row[0] is for
 * @row: rows of the granules that the segment meets; the one of a granule that
 *	is larger than a segment stays from one to the next
 */
struct scan {
	struct ferry_ioc_scan args;
	struct mm_struct *mm;
	struct vm_area_struct *vma;
	unsigned long addr;
	unsigned long end;
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

static void scan_huge(struct scan *scan, pmd_t *pmd)
{
	unsigned long addr = scan->addr;
	bool accessed, dirty;
	spinlock_t *ptl; /* the PTL of the huge page */
	pmd_t val;

	ptl = pmd_lock(scan->mm, pmd);
	val = READ_ONCE(*pmd);
	/* If it is split this moment, or the huge zero page, nothing is here. */
	if (!pmd_present(val) || !pmd_leaf(val) ||
	    !READ_ONCE(pmd_page(val)->mapping)) {
		spin_unlock(ptl);
		return;
	}
	accessed = pmd_young(val);
	dirty = pmd_dirty(val);
	if (accessed && !(scan->args.flags & FERRY_SCAN_PEEK)) {
		ferry_pmd_clear_young(scan->vma, addr, pmd);
		ferry_keep_young(pmd_page(val));
	}
	spin_unlock(ptl);

	while (addr < scan->end) {
		const unsigned long end = granule_end(scan, addr);
		const unsigned int nr = (end - addr) >> PAGE_SHIFT;

		count(scan, addr, nr, accessed ? nr : 0, dirty ? nr : 0, nr);
		addr = end;
	}
}

static bool is_scannable(struct vm_area_struct *vma)
{
	return !vma_is_dax(vma) && !(vma->vm_flags & (VM_SPECIAL | VM_HUGETLB));
}

static void scan_part(struct scan *scan)
{
	struct ferry_spot spot;

	ferry_locate(scan->mm, scan->addr, &spot);
	if (spot.level == FERRY_LEVEL_TABLE)
		ferry_with_table(scan->mm, spot.pmd, scan->addr, scan_table,
				 scan);
	else if (spot.level == FERRY_LEVEL_HUGE && spot.pmd)
		scan_huge(scan, spot.pmd);
}

static int scan_segment(struct scan *scan, unsigned long addr,
			unsigned long end)
{
	struct vm_area_struct *vma;

	if (mmap_read_lock_killable(scan->mm))
		return -EINTR;
	while (addr < end) {
		vma = find_vma(scan->mm, addr);
		if (!vma || vma->vm_start >= end)
			break;
		scan->vma = vma;
		scan->addr = max(addr, vma->vm_start);
		scan->end = min(end, vma->vm_end);
		addr = scan->end;
		if (is_scannable(vma))
			scan_part(scan);
	}
	mmap_read_unlock(scan->mm);
	return 0;
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
		const unsigned long end =
			min(last, ALIGN_DOWN(addr, FERRY_CHUNK_BYTES) +
				  FERRY_CHUNK_BYTES);
		int err;

		if (ferry_interrupted())
			return -EINTR;
		err = scan_segment(scan, addr, end);
		if (!err)
			err = put_rows(scan, end, end == last);
		if (err)
			return err;
		addr = end;
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
