// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where pages are, and whether they are held: a walk that only looks, one
 * segment (at most one page table's worth) at a time.
 *
 * Locking: mmap_lock is held for reading for a segment and released before the
 * answer is copied to the caller. Page tables are read without their lock,
 * inside of rcu_read_lock(), which keeps them in being. An entry read this way
 * may be old by the time it is used; but only its page frame number is used, to
 * find the node, and the node of a page frame never changes. So an answer is at
 * worst as old as any answer is once it has been given. Who holds a page is
 * found under the lock of the entry that maps it, which keeps the page in being.
 */
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "ferry.h"

#define SEGMENT_PAGES FERRY_CHUNK_PAGES

/**
 * struct answer - the answer to a query on its way to the caller
 * @query: what is asked
 * @nodes: for each page of the current segment its node, or whether it is held
 * @out: where in the caller's memory the next part goes
 * @row: COUNTS: the row of the granule that is being counted
 */
struct answer {
	struct ferry_ioc_query query;
	s16 nodes[SEGMENT_PAGES];
	u8 __user *out;
	u32 row[];
};

static s16 node_of_pfn(unsigned long pfn)
{
	return page_to_nid(pfn_to_page(pfn));
}

static s16 node_of_swap(swp_entry_t entry)
{
	/* A page on its way is still where it was. */
	if (is_migration_entry(entry))
		return node_of_pfn(swp_offset_pfn(entry));
	return FERRY_QUERY_HOLE;
}

static s16 node_of_pte(pte_t pte)
{
	if (pte_none(pte))
		return FERRY_QUERY_HOLE;
	if (!pte_present(pte))
		return node_of_swap(pte_to_swp_entry(pte));
	/* The zero page, and what has no struct page */
	if (pte_special(pte))
		return FERRY_QUERY_HOLE;
	return node_of_pfn(pte_pfn(pte));
}

static void fill(s16 *nodes, unsigned long addr, unsigned long end, s16 node)
{
	for (; addr < end; addr += PAGE_SIZE)
		*nodes++ = node;
}

static void read_table(pmd_t *pmd, unsigned long addr, unsigned long end,
		       s16 *nodes)
{
	const pte_t *pte;

	rcu_read_lock();
	pte = ferry_peek_table(pmd, addr);
	if (pte) {
		for (; addr < end; addr += PAGE_SIZE, pte++)
			*nodes++ = node_of_pte(READ_ONCE(*pte));
	} else {
		/* Became a huge page or went away this moment */
		fill(nodes, addr, end, FERRY_QUERY_HOLE);
	}
	rcu_read_unlock();
}

static s16 node_of_huge(unsigned long pfn)
{
	/* The huge zero page alone belongs to nothing. */
	if (!READ_ONCE(pfn_to_page(pfn)->mapping))
		return FERRY_QUERY_HOLE;
	return node_of_pfn(pfn);
}

static void read_vma(struct vm_area_struct *vma, unsigned long addr,
		     unsigned long end, s16 *nodes)
{
	struct ferry_spot spot;

	if (vma->vm_flags & (VM_PFNMAP | VM_IO)) {
		fill(nodes, addr, end, FERRY_QUERY_HOLE);
		return;
	}
	/* A segment lies within one page table. */
	ferry_locate(vma->vm_mm, addr, &spot);
	switch (spot.level) {
	case FERRY_LEVEL_NONE:
		fill(nodes, addr, end, FERRY_QUERY_HOLE);
		break;
	case FERRY_LEVEL_HUGE:
		fill(nodes, addr, end, node_of_huge(spot.pfn));
		break;
	case FERRY_LEVEL_MOVING:
		fill(nodes, addr, end, node_of_pfn(spot.pfn));
		break;
	case FERRY_LEVEL_TABLE:
		read_table(spot.pmd, addr, end, nodes);
		break;
	}
}

/* More references than one mapping and the swap cache account for */
static s16 held(struct folio *folio)
{
	int expected = 1;

	if (folio_test_swapcache(folio))
		expected += folio_nr_pages(folio);
	return folio_ref_count(folio) > expected;
}

/**
 * struct held_run - entries of one table to be looked at under its lock
 * @nr: number of them
 * @out: the answer
 */
struct held_run {
	unsigned long nr;
	s16 *out;
};

static void held_in_table(pte_t *pte, void *arg)
{
	struct held_run *run = arg;
	unsigned long i;

	for (i = 0; i < run->nr; i++) {
		pte_t val = ptep_get(pte + i);

		if (!pte_present(val) || pte_special(val))
			run->out[i] = FERRY_QUERY_HOLE;
		else
			run->out[i] = held(page_folio(pte_page(val)));
	}
}

static s16 held_huge(struct mm_struct *mm, struct ferry_spot *spot)
{
	s16 answer = FERRY_QUERY_HOLE;
	spinlock_t *ptl;	/* of the entry */
	pmd_t val;

	/* Larger than a table maps: not memory that this is asked of */
	if (!spot->pmd)
		return answer;
	ptl = pmd_lock(mm, spot->pmd);
	val = READ_ONCE(*spot->pmd);
	/* The huge zero page alone belongs to nothing. */
	if (pmd_trans_huge(val) && READ_ONCE(pmd_page(val)->mapping))
		answer = held(page_folio(pmd_page(val)));
	spin_unlock(ptl);
	return answer;
}

static void held_vma(struct vm_area_struct *vma, unsigned long addr,
		     unsigned long end, s16 *out)
{
	struct held_run run = { .nr = (end - addr) >> PAGE_SHIFT, .out = out };
	s16 answer = FERRY_QUERY_HOLE;
	struct ferry_spot spot;

	if (vma->vm_flags & (VM_PFNMAP | VM_MIXEDMAP | VM_IO | VM_HUGETLB)) {
		fill(out, addr, end, answer);
		return;
	}
	ferry_locate(vma->vm_mm, addr, &spot);
	if (spot.level == FERRY_LEVEL_TABLE &&
	    ferry_with_table(vma->vm_mm, spot.pmd, addr, held_in_table, &run))
		return;
	if (spot.level == FERRY_LEVEL_HUGE)
		answer = held_huge(vma->vm_mm, &spot);
	fill(out, addr, end, answer);
}

/* Find the answers for a segment's pages. */
static int read_segment(struct mm_struct *mm, unsigned long addr,
			unsigned long end, u32 mode, s16 *nodes)
{
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	while (addr < end) {
		struct vm_area_struct *vma = find_vma(mm, addr);
		unsigned long next;

		if (!vma || vma->vm_start > addr) {
			next = vma ? min(vma->vm_start, end) : end;
			fill(nodes, addr, next, FERRY_QUERY_HOLE);
		} else {
			next = min(vma->vm_end, end);
			if (mode == FERRY_QUERY_HELD)
				held_vma(vma, addr, next, nodes);
			else
				read_vma(vma, addr, next, nodes);
		}
		nodes += (next - addr) >> PAGE_SHIFT;
		addr = next;
	}
	mmap_read_unlock(mm);
	return 0;
}

static int put(struct answer *answer, const void *from, size_t size)
{
	if (copy_to_user(answer->out, from, size))
		return -EFAULT;
	answer->out += size;
	return 0;
}

/* Count a segment's pages, and hand out each row whose granule is complete. */
static int put_counts(struct answer *answer, unsigned long addr,
		      unsigned long end)
{
	const struct ferry_ioc_query *query = &answer->query;
	const unsigned long last = query->addr + query->len;
	const size_t row_bytes = query->nr_nodes * sizeof(u32);
	const s16 *node = answer->nodes;

	while (addr < end) {
		/* Not addr + granule_bytes, which may overflow */
		unsigned long left = query->granule_bytes -
				     (addr & (query->granule_bytes - 1));
		unsigned long next = end - addr < left ? end : addr + left;
		bool complete = end - addr >= left || next == last;
		int err;

		for (; addr < next; addr += PAGE_SIZE, node++)
			if (*node >= 0 && *node < query->nr_nodes &&
			    answer->row[*node] < U32_MAX)
				answer->row[*node]++;
		if (!complete)
			break;
		err = put(answer, answer->row, row_bytes);
		if (err)
			return err;
		memset(answer->row, 0, row_bytes);
	}
	return 0;
}

static int put_segment(struct answer *answer, unsigned long addr,
		       unsigned long end)
{
	if (answer->query.mode == FERRY_QUERY_COUNTS)
		return put_counts(answer, addr, end);
	return put(answer, answer->nodes,
		   ((end - addr) >> PAGE_SHIFT) * sizeof(*answer->nodes));
}

static int check_space(const struct ferry_ioc_query *query)
{
	u64 bytes;

	if (query->mode != FERRY_QUERY_COUNTS) {
		bytes = (query->len >> PAGE_SHIFT) * sizeof(s16);
	} else {
		u64 first = query->addr / query->granule_bytes;
		u64 last = (query->addr + query->len - 1) /
			   query->granule_bytes;

		if (check_mul_overflow(last - first + 1,
				       (u64)query->nr_nodes * sizeof(u32),
				       &bytes))
			return -ENOSPC;
	}
	return query->out_bytes < bytes ? -ENOSPC : 0;
}

static int answer_all(struct answer *answer)
{
	unsigned long addr = answer->query.addr;
	const unsigned long last = addr + answer->query.len;

	while (addr < last) {
		const unsigned long left = FERRY_CHUNK_BYTES -
					   (addr & (FERRY_CHUNK_BYTES - 1));
		const unsigned long end = last - addr < left ? last
							     : addr + left;
		int err;

		if (ferry_interrupted())
			return -EINTR;
		err = read_segment(current->mm, addr, end, answer->query.mode,
				   answer->nodes);
		if (!err)
			err = put_segment(answer, addr, end);
		if (err)
			return err;
		addr = end;
		cond_resched();
	}
	return 0;
}

/**
 * ferry_query() - FERRY_IOC_QUERY on the memory of current
 * @arg: the caller's struct ferry_ioc_query
 *
 * Return: 0 or the errors listed at struct ferry_ioc_query.
 */
int ferry_query(const void __user *arg)
{
	struct ferry_ioc_query query;
	struct answer *answer;
	int err;

	err = ferry_query_read(&query, arg);
	if (!err)
		err = check_space(&query);
	if (err)
		return err;

	answer = kvzalloc(struct_size(answer, row, query.nr_nodes),
			  GFP_KERNEL_ACCOUNT);
	if (!answer)
		return -ENOMEM;
	answer->query = query;
	answer->out = u64_to_user_ptr(query.out);
	err = answer_all(answer);
	kvfree(answer);
	return err;
}
