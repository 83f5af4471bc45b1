/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything that differs between the kernels the module builds for, and
 * nothing else. What a macro or a header's presence cannot tell is found by
 * the probes in Kbuild; there are no version tests.
 */
#ifndef FERRY_COMPAT_H
#define FERRY_COMPAT_H

#include <linux/gfp.h>
#include <linux/io_uring_types.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/page_idle.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/swap.h>

#ifdef FERRY_HAVE_URING_CMD_H
#include <linux/io_uring/cmd.h>
#else
#include <linux/io_uring.h>
#endif

/* Entries that are neither empty nor present, by their older names */
#include <linux/swapops.h>
#ifdef FERRY_HAVE_LEAFOPS_H
#include <linux/leafops.h>
#define pte_to_swp_entry softleaf_from_pte
#define pmd_to_swp_entry softleaf_from_pmd
#define swp_offset_pfn softleaf_to_pfn
#define is_migration_entry softleaf_is_migration
#define is_pte_marker_entry softleaf_is_marker
#define non_swap_entry(entry) (!softleaf_is_swap(entry))
#endif

/* Kinds of VMA that an older kernel does not have */
#ifndef VM_SHADOW_STACK
#define VM_SHADOW_STACK VM_NONE
#endif
#ifndef VM_DROPPABLE
#define VM_DROPPABLE VM_NONE
#endif

/* The command area of the SQE; see ferry_uring_is_kept(). */
static inline const void *ferry_uring_payload(struct io_uring_cmd *cmd)
{
#ifdef FERRY_HAVE_URING_SQE_CMD
	return cmd->sqe->cmd;
#else
	return cmd->cmd;
#endif
}

/*
 * Is the SQE still the one of the command, after its payload was read? A copy
 * is; but some kernels (6.4 to 6.14 or so) make none until the submitter's
 * attempt has failed, and a link may go to a worker without one: then the SQE
 * is in the ring, where another command's may be by now. One that looks the
 * same cannot be told.
 */
static inline bool ferry_uring_is_kept(struct io_uring_cmd *cmd)
{
#ifdef FERRY_HAVE_URING_SQE_CMD
	const struct io_uring_sqe *sqe = cmd->sqe;

	smp_rmb();	/* as it was before, it was when the payload was read */
	return READ_ONCE(sqe->opcode) == IORING_OP_URING_CMD &&
	       READ_ONCE(sqe->cmd_op) == cmd->cmd_op &&
	       READ_ONCE(sqe->user_data) == cmd_to_io_kiocb(cmd)->cqe.user_data;
#else
	return true;
#endif
}

static inline void ferry_uring_done(struct io_uring_cmd *cmd, int ret,
				    unsigned int issue_flags)
{
#ifdef FERRY_HAVE_URING_DONE_FLAGS
	io_uring_cmd_done(cmd, ret, 0, issue_flags);
#else
	io_uring_cmd_done(cmd, ret, issue_flags);
#endif
}

static inline unsigned long ferry_alloc_bulk(gfp_t gfp, int node,
					     unsigned long nr,
					     struct page **pages)
{
#ifdef alloc_pages_bulk_node
	return alloc_pages_bulk_node(gfp, node, nr, pages);
#else
	return alloc_pages_bulk_array_node(gfp, node, nr, pages);
#endif
}

/*
 * Nodes that have memory and that the caller's cpuset allows. Works on current,
 * lockless. An io-wq worker belongs to its submitter's cgroups.
 */
static inline void ferry_allowed_nodes(nodemask_t *nodes)
{
#ifdef CONFIG_CPUSETS
	unsigned int seq;

	do {
		seq = read_seqcount_begin(&current->mems_allowed_seq);
		*nodes = current->mems_allowed;
	} while (read_seqcount_retry(&current->mems_allowed_seq, seq));
	nodes_and(*nodes, *nodes, node_states[N_MEMORY]);
#else
	*nodes = node_states[N_MEMORY];
#endif
}

/* Keep page faults that go without mmap_lock out of a VMA, until it is released. */
static inline void ferry_vma_start_write(struct vm_area_struct *vma)
{
#ifdef CONFIG_PER_VMA_LOCK
	vma_start_write(vma);
#endif
}

/*
 * What a scan asks of an entry, and its page if it is one of a page. On x86
 * they are answered from the bits as they are: the kernel's own accessors mask
 * out bits of memory encryption first and translate page frames for Xen, which
 * is a quarter of the cost of scanning a page.
 */
#ifdef CONFIG_X86_64

#ifndef _PAGE_DIRTY_BITS
#define _PAGE_DIRTY_BITS _PAGE_DIRTY
#endif

static inline bool ferry_pte_is_page(pte_t pte)
{
	return (native_pte_val(pte) & (_PAGE_PRESENT | _PAGE_PROTNONE)) &&
	       !(native_pte_val(pte) & _PAGE_SPECIAL);
}

static inline bool ferry_pte_dirty(pte_t pte)
{
	return native_pte_val(pte) & _PAGE_DIRTY_BITS;
}

static inline bool ferry_pte_young(pte_t pte)
{
	return native_pte_val(pte) & _PAGE_ACCESSED;
}

static inline struct page *ferry_pte_page(pte_t pte)
{
	/* Entries without PRESENT hold the frame's number inverted. */
	if (unlikely(!(native_pte_val(pte) & _PAGE_PRESENT)) ||
	    cpu_feature_enabled(X86_FEATURE_XENPV))
		return pte_page(pte);
	return pfn_to_page((native_pte_val(pte) & PTE_PFN_MASK) >> PAGE_SHIFT);
}

#else

static inline bool ferry_pte_is_page(pte_t pte)
{
	return pte_present(pte) && !pte_special(pte);
}

#define ferry_pte_dirty pte_dirty
#define ferry_pte_young pte_young
#define ferry_pte_page pte_page

#endif /* CONFIG_X86_64 */

/*
 * ptep_test_and_clear_young() and its like for huge pages, under the PTL. Those
 * of x86 are not inline and not exported, but are no more than this.
 */
static inline void ferry_pte_clear_young(struct vm_area_struct *vma,
					 unsigned long addr, pte_t *pte)
{
#ifdef CONFIG_X86
	clear_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pte);
#else
	ptep_test_and_clear_young(vma, addr, pte);
#endif
}

static inline void ferry_pmd_clear_young(struct vm_area_struct *vma,
					 unsigned long addr, pmd_t *pmd)
{
#ifdef CONFIG_X86
	clear_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pmd);
#else
	pmdp_test_and_clear_young(vma, addr, pmd);
#endif
}

/*
 * Leave for reclaim what was taken from a page's accessed bit. Called under the
 * PTL. A kernel without the young flag takes the access for one by read(2).
 */
static inline void ferry_keep_young(struct page *page)
{
	struct folio *folio = page_folio(page);

#ifdef CONFIG_PAGE_IDLE_FLAG
	const unsigned long flags = BIT(PG_young) | BIT(PG_idle);

	/* Often so already: then the folio's cache line stays clean. */
	if ((READ_ONCE(*folio_flags(folio, 0)) & flags) == BIT(PG_young))
		return;
	folio_set_young(folio);
	folio_clear_idle(folio);
#else
	folio_mark_accessed(folio);
#endif
}

#endif /* FERRY_COMPAT_H */
