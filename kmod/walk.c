// SPDX-License-Identifier: GPL-2.0-only
/*
 * From an address to its page table, by inline helpers only: the kernel's own
 * walkers are not exported.
 *
 * Locking: the caller holds mmap_lock for reading and has found a VMA around
 * the address under it, so that page tables are not freed by munmap(). Two
 * things may still happen to them: khugepaged frees tables of file mappings
 * after a grace period, and a fault puts a table or a huge page where there was
 * nothing. Therefore entries are read once, tables are used inside of
 * rcu_read_lock() or under their lock, and ferry_with_table() looks again once
 * it has the lock.
 */
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/pgtable.h>

#include "compat.h"
#include "ferry.h"

static unsigned long level_end(unsigned long addr, unsigned long size)
{
	return (addr & ~(size - 1)) + size;
}

static void look_at(pmd_t *pmd, unsigned long addr, struct ferry_spot *spot)
{
	pmd_t val = READ_ONCE(*pmd);

	spot->pmd = pmd;
	spot->end = level_end(addr, PMD_SIZE);
	if (pmd_none(val)) {
		spot->level = FERRY_LEVEL_NONE;
	} else if (!pmd_present(val)) {
		swp_entry_t entry = pmd_to_swp_entry(val);

		if (is_migration_entry(entry)) {
			spot->level = FERRY_LEVEL_MOVING;
			spot->pfn = swp_offset_pfn(entry);
		} else {
			spot->level = FERRY_LEVEL_NONE;
		}
	} else if (pmd_leaf(val)) {
		spot->level = FERRY_LEVEL_HUGE;
		spot->pfn = pmd_pfn(val);
	} else {
		spot->level = FERRY_LEVEL_TABLE;
	}
}

/**
 * ferry_locate() - find what maps an address
 * @mm: the address space, its mmap_lock held for reading
 * @addr: an address inside of a VMA
 * @spot: the answer
 */
void ferry_locate(struct mm_struct *mm, unsigned long addr,
		  struct ferry_spot *spot)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud, val;

	*spot = (struct ferry_spot){ .level = FERRY_LEVEL_NONE };
	if (pgd_none(*pgd)) {
		spot->end = level_end(addr, PGDIR_SIZE);
		return;
	}
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d)) {
		spot->end = level_end(addr, P4D_SIZE);
		return;
	}
	pud = pud_offset(p4d, addr);
	val = READ_ONCE(*pud);
	if (!pud_present(val)) {
		spot->end = level_end(addr, PUD_SIZE);
	} else if (pud_leaf(val)) {
		spot->level = FERRY_LEVEL_HUGE;
		spot->pfn = pud_pfn(val);
		spot->end = level_end(addr, PUD_SIZE);
	} else {
		look_at(pmd_offset(pud, addr), addr, spot);
	}
}

/**
 * ferry_locate_next() - find what maps the address where a spot ends
 * @spot: the answer for the memory before it, under the same hold of mmap_lock;
 *	and the new one
 * @addr: an address inside of a VMA
 *
 * Return: false if @addr is not there, or not in the same table: ferry_locate()
 * is to be asked.
 */
bool ferry_locate_next(struct ferry_spot *spot, unsigned long addr)
{
	if (!spot->pmd || addr != spot->end || IS_ALIGNED(addr, PUD_SIZE))
		return false;
	look_at(spot->pmd + 1, addr, spot);
	return true;
}

static bool is_table(pmd_t val)
{
	return pmd_present(val) && !pmd_leaf(val);
}

/**
 * ferry_with_table() - do something under the lock of a page table
 * @mm: the address space, its mmap_lock held for reading
 * @pmd: the entry that points to the table
 * @addr: an address that the table maps
 * @fn: called with the entry of @addr and @arg; must not sleep
 * @arg: for @fn
 *
 * Return: false if the table has gone; @fn was not called.
 */
bool ferry_with_table(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
		      void (*fn)(pte_t *pte, void *arg), void *arg)
{
	bool found = false;
	pmd_t val;

	rcu_read_lock();
	val = READ_ONCE(*pmd);
	if (is_table(val)) {
		spinlock_t *ptl = pte_lockptr(mm, &val);	/* the PTL */

		spin_lock(ptl);
		found = pmd_same(val, READ_ONCE(*pmd));
		if (likely(found))
			fn(pte_offset_kernel(&val, addr), arg);
		spin_unlock(ptl);
	}
	rcu_read_unlock();
	return found;
}

/**
 * ferry_peek_table() - find a page table for reading without its lock
 * @pmd: the entry that points to the table
 * @addr: an address that the table maps
 *
 * The caller is inside of rcu_read_lock(), as long as it uses the table.
 *
 * Return: the entry of @addr, or NULL if the table has gone.
 */
const pte_t *ferry_peek_table(pmd_t *pmd, unsigned long addr)
{
	pmd_t val = READ_ONCE(*pmd);

	return is_table(val) ? pte_offset_kernel(&val, addr) : NULL;
}
