/* SPDX-License-Identifier: ((GPL-2.0-only WITH Linux-syscall-note) OR MIT) */
/*
 * The contract between ferry.ko and its callers: the ioctls of /dev/ferry and
 * the same requests as io_uring commands (IORING_OP_URING_CMD).
 *
 * Rules that hold for every struct here:
 *  - Its first field is its size in bytes, set by the caller. A shorter struct
 *    than the module knows is padded with zeros; a longer one is accepted when
 *    the unknown tail is zero, and E2BIG otherwise.
 *  - Unknown flags and non-zero reserved fields are EINVAL.
 *  - All fields are naturally aligned and pointers are carried in __u64, so
 *    that 32-bit callers use the same layout.
 *  - Addresses and lengths are in bytes and multiples of the page size; tags
 *    in the top address bits (LAM, TBI) are ignored. Counts are in base pages.
 *
 * Every request acts on the caller's own memory, and only if the caller's mm
 * is the one that opened the device (EPERM otherwise). It needs no privilege:
 * it can do no more than move_pages(2) on oneself.
 */
#ifndef FERRY_IOCTL_H
#define FERRY_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define FERRY_DEVICE_PATH "/dev/ferry"

/*
 * ferry_ioc_info.abi. Grows when what is there changes its meaning; not when a
 * struct gets longer, for which the sizes are.
 */
#define FERRY_ABI_VERSION 1

/* ---- FERRY_IOC_INFO --------------------------------------------------- */

/* ferry_ioc_info.features */
#define FERRY_FEATURE_MIGRATE	(1ULL << 0) /* FERRY_IOC_MIGRATE */
#define FERRY_FEATURE_QUERY	(1ULL << 1) /* FERRY_IOC_QUERY */
#define FERRY_FEATURE_URING	(1ULL << 2) /* IORING_OP_URING_CMD */
#define FERRY_FEATURE_POPULATE	(1ULL << 3) /* FERRY_RANGE_POPULATE */
#define FERRY_FEATURE_BATCHED_FLUSH (1ULL << 4) /* one TLB flush per chunk */
#define FERRY_FEATURE_SCAN	(1ULL << 5) /* FERRY_IOC_SCAN */
#define FERRY_FEATURE_HELD	(1ULL << 6) /* FERRY_QUERY_HELD */
#define FERRY_FEATURE_COPY_PARALLEL (1ULL << 7) /* there are workers to copy */
#define FERRY_FEATURE_COPY_DMA	(1ULL << 8) /* there is a DMA channel now */
#define FERRY_FEATURE_EXCHANGE	(1ULL << 9) /* FERRY_MIGRATE_EXCHANGE */
#define FERRY_FEATURE_SPLIT_HUGE (1ULL << 10) /* FERRY_MIGRATE_SPLIT_HUGE */
#define FERRY_FEATURE_WHOLE_HUGE (1ULL << 11) /* huge pages move whole */

/* Words of ferry_ioc_info.nodes: one bit for each node index, 1024 at most. */
#define FERRY_NODE_WORDS 16

/**
 * struct ferry_ioc_info - what this module is and what the caller may ask
 * @size: in: size of this struct; out: size of the struct the module knows
 * @abi: out: FERRY_ABI_VERSION of the module
 * @features: out: FERRY_FEATURE_* bits
 * @page_size: out: bytes of a base page
 * @chunk_bytes: out: the most that is migrated under one hold of mmap_lock
 * @max_ranges: out: most ranges in one request
 * @max_in_flight: out: batches of one process that are worked on at a time
 * @max_bytes: out: most bytes in all ranges of one request
 * @nodes: out: nodes that have memory and are in the caller's cpuset
 * @version: out: module version, NUL-terminated
 */
struct ferry_ioc_info {
	__u32 size;
	__u32 abi;
	__u64 features;
	__u32 page_size;
	__u32 chunk_bytes;
	__u32 max_ranges;
	__u32 max_in_flight;
	__u64 max_bytes;
	__u64 nodes[FERRY_NODE_WORDS];
	char version[32];
};

/* ---- FERRY_IOC_MIGRATE ------------------------------------------------ */

/* ferry_ioc_range.flags */
#define FERRY_RANGE_POPULATE (1U << 0) /* give holes a zeroed page on @node */

/**
 * struct ferry_ioc_range - one range of a batch
 * @addr: start address
 * @len: length in bytes, not 0; may span several VMAs and gaps between them
 * @node: target node, by its OS index
 * @flags: FERRY_RANGE_*
 */
struct ferry_ioc_range {
	__u64 addr;
	__u64 len;
	__s32 node;
	__u32 flags;
};

/**
 * struct ferry_ioc_result - what became of one range
 * @error: 0, or the -errno that ended work on this range: -ENOMEM (the
 *	module's own memory), -EINTR (a signal), -ECANCELED (not begun because
 *	an earlier range ended the batch). Pages that could not move are no
 *	error; they are counted below.
 * @reserved: 0
 * @moved: pages that were on another node and now are on the target
 * @populated: holes that were given a page on the target
 * @already: pages that were on the target before
 * @busy: pages pinned, locked, under writeback, or shared in a way that
 *	cannot move, after the module's retries
 * @nomem: pages that stayed because the target had no free memory
 * @hole: pages of the range with nothing behind them: never touched, zero
 *	page, swapped out, or no VMA
 * @unsupported: pages of mappings that are not private anonymous memory, or
 *	are marked VM_IO, VM_PFNMAP, hugetlb, ...
 * @huge: pages of a huge page on another node, which stays whole: this
 *	kernel's migrate_vma would split it. move_pages(2) moves it whole. With
 *	FERRY_MIGRATE_SPLIT_HUGE, one that cannot be split; with
 *	FERRY_FEATURE_WHOLE_HUGE, one that the range does not cover
 * @dma_fallback: not one of the above: pages that the CPU copied though a DMA
 *	engine was to, because there was no channel, or it failed
 *
 * The counts up to @huge add up to the pages of the range unless @error is
 * set.
 */
struct ferry_ioc_result {
	__s32 error;
	__u32 reserved;
	__u64 moved;
	__u64 populated;
	__u64 already;
	__u64 busy;
	__u64 nomem;
	__u64 hole;
	__u64 unsupported;
	__u64 huge;
	__u64 dma_fallback;
};

/* ferry_ioc_migrate.flags */
/*
 * Also move pages that other processes map, as MPOL_MF_MOVE_ALL does; needs
 * CAP_SYS_NICE (EPERM otherwise). Without it such pages count as busy.
 */
#define FERRY_MIGRATE_SHARED (1U << 0)
/*
 * Exchange memory between two nodes that have next to none free. The ranges
 * have at most two targets (EINVAL otherwise) and are worked on in turns, a
 * chunk to the one, a chunk to the other; the pages that one turn frees are
 * taken for the next. So it is enough if one of the nodes has a chunk's worth
 * of free memory; with less, turns become as short. Ranges with the same target
 * keep their order; of two that overlap, either target may come out.
 */
#define FERRY_MIGRATE_EXCHANGE (1U << 1)
/*
 * Split huge pages that are not on their target and move them by small pages
 * (with FERRY_FEATURE_WHOLE_HUGE only those that cannot move whole).
 * One that the range covers in part is split whole, and the part moves. One that
 * is pinned, mapped by other processes or in use by the kernel stays whole and
 * counts as huge.
 */
#define FERRY_MIGRATE_SPLIT_HUGE (1U << 2)

/*
 * ferry_ioc_migrate.copy_mode: who copies pages. The caller waits for the copy
 * in every mode.
 */
enum ferry_copy_mode {
	/*
	 * By the length of a run of pages: short ones by the CPU; long ones by
	 * a DMA engine where the module may use one, else in parallel
	 */
	FERRY_COPY_AUTO = 0,
	/* The CPU that carries out the request */
	FERRY_COPY_CPU = 1,
	/* That CPU, and those workers of the module that are free */
	FERRY_COPY_PARALLEL = 2,
	/*
	 * A DMA engine; what it cannot do the CPU does, and
	 * ferry_ioc_result.dma_fallback counts it
	 */
	FERRY_COPY_DMA = 3,
};

/**
 * struct ferry_ioc_migrate - a batch of ranges to move
 * @size: size of this struct
 * @flags: FERRY_MIGRATE_*
 * @copy_mode: enum ferry_copy_mode
 * @nr_ranges: number of ranges, 1 to ferry_ioc_info.max_ranges
 * @ranges: user pointer to struct ferry_ioc_range[nr_ranges]
 * @results: user pointer to struct ferry_ioc_result[nr_ranges], or 0
 * @range_size: size of one element of @ranges; the rule for sizes applies
 * @result_size: size of one element of @results; a shorter one than the
 *	module knows gets the leading fields, a longer one a zero tail; 0 when
 *	@results is 0
 *
 * Returns the number of pages now on their target that were not before (moved
 * and populated; 0 is success), or -errno when the batch was refused:
 * E2BIG, EINVAL (flags, targets, alignment, a range that ends beyond user space, length
 * 0, no ranges, too many ranges or bytes), EFAULT (a pointer), ENODEV (a node
 * without memory), EACCES (a node outside the caller's cpuset), EPERM
 * (FERRY_MIGRATE_SHARED; wrong mm), ENOMEM. A refused batch has moved nothing.
 * When ferry_ioc_info.max_in_flight batches of the process are under way, the
 * request waits until one of them ends.
 * EINTR: a signal ended the batch, or its wait, before anything moved; when
 * something has moved the count is returned and the results tell the rest.
 */
struct ferry_ioc_migrate {
	__u32 size;
	__u32 flags;
	__u32 copy_mode;
	__u32 nr_ranges;
	__u64 ranges;
	__u64 results;
	__u32 range_size;
	__u32 result_size;
};

/* ---- FERRY_IOC_QUERY -------------------------------------------------- */

/* ferry_ioc_query.mode */
enum ferry_query_mode {
	/* __s16 for each page: its node, or FERRY_QUERY_HOLE */
	FERRY_QUERY_PAGES = 0,
	/*
	 * __u32[nr_nodes] for each granule of the range: pages on node i.
	 * Granules are aligned to granule_bytes; the first and the last may
	 * be covered in part. A page on a node >= nr_nodes is not counted.
	 */
	FERRY_QUERY_COUNTS = 1,
	/*
	 * __s16 for each page: 1 if something else than the page table that
	 * maps it here holds it: a device that reads or writes it, a pipe,
	 * another process, or for a moment the kernel itself; 0 if not; or
	 * FERRY_QUERY_HOLE. A huge page is held as a whole, and always if it
	 * is mapped page by page.
	 */
	FERRY_QUERY_HELD = 2,
};

#define FERRY_QUERY_HOLE (-1) /* nothing mapped here, or no node known */

/**
 * struct ferry_ioc_query - where the pages of a range are
 * @size: size of this struct
 * @flags: 0
 * @mode: enum ferry_query_mode
 * @nr_nodes: FERRY_QUERY_COUNTS: counts in a granule's row, 1 to 1024;
 *	otherwise 0
 * @addr: start address
 * @len: length in bytes, not 0
 * @granule_bytes: FERRY_QUERY_COUNTS: bytes of a granule, a power of two, at
 *	least one page and fewer than 2^32 pages; otherwise 0
 * @out: user pointer to the answer
 * @out_bytes: its size; ENOSPC when the answer does not fit
 *
 * Mapped file and shared pages are answered too: a query changes nothing.
 * Returns 0 or -errno: E2BIG, EINVAL, EFAULT, ENOSPC, EPERM, ENOMEM, EINTR.
 */
struct ferry_ioc_query {
	__u32 size;
	__u32 flags;
	__u32 mode;
	__u32 nr_nodes;
	__u64 addr;
	__u64 len;
	__u64 granule_bytes;
	__u64 out;
	__u64 out_bytes;
};

/* ---- FERRY_IOC_SCAN --------------------------------------------------- */

/* ferry_ioc_scan.flags */
#define FERRY_SCAN_PEEK (1U << 0) /* leave the accessed bits as they are */

/* The largest granule: its pages must fit into a count of struct ferry_scan_row */
#define FERRY_SCAN_GRANULE_MAX (1UL << 27)

/**
 * struct ferry_scan_row - a granule's pages
 * @present: pages that are there; no holes, zero pages, swapped or moving pages
 * @accessed: of these, pages accessed since the bit was last cleared
 * @dirty: of these, pages written since they came up or were cleaned last
 * @huge: of these, pages that are part of a huge page. It has one accessed and
 *	one dirty bit, which count for each of its pages in the granule
 */
struct ferry_scan_row {
	__u16 present;
	__u16 accessed;
	__u16 dirty;
	__u16 huge;
};

/**
 * struct ferry_ioc_scan - read and clear the accessed bits of a range
 * @size: size of this struct
 * @flags: FERRY_SCAN_*
 * @addr: start address
 * @len: length in bytes, not 0; may span several VMAs and gaps between them
 * @granule_bytes: bytes of a granule, a power of two, at least one page and at
 *	most FERRY_SCAN_GRANULE_MAX
 * @out: user pointer to struct ferry_scan_row for each granule. Granules are
 *	aligned to @granule_bytes; the first and the last may be covered in part
 * @out_bytes: its size; ENOSPC when the answer does not fit
 *
 * Dirty bits are only read. TLBs are not flushed: an access by a CPU that still
 * has the translation may go unseen, so a set bit is certain, a clear one is
 * not. Accesses by devices and secondary MMUs are not seen. Clearing a part of
 * a huge page clears all of it. Memory that is not plain memory (VM_IO,
 * VM_PFNMAP, hugetlb, DAX, ...) counts as not present.
 * Returns 0 or -errno: E2BIG, EINVAL, EFAULT, ENOSPC, EPERM, ENOMEM, EINTR.
 * After EINTR the rows of the granules that were not scanned are 0; after the
 * others no bit was cleared (EFAULT: unless @out went away meanwhile).
 */
struct ferry_ioc_scan {
	__u32 size;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 granule_bytes;
	__u64 out;
	__u64 out_bytes;
};

/* ---- numbers ---------------------------------------------------------- */

/*
 * The size in an ioctl number is that of ABI version 1 and does not grow with
 * the structs; the size field decides.
 */
#define FERRY_IOC_TYPE 0xF7
#define FERRY_IOC_INFO	  _IOWR(FERRY_IOC_TYPE, 0x01, struct ferry_ioc_info)
#define FERRY_IOC_MIGRATE _IOW(FERRY_IOC_TYPE, 0x02, struct ferry_ioc_migrate)
#define FERRY_IOC_QUERY	  _IOW(FERRY_IOC_TYPE, 0x03, struct ferry_ioc_query)
#define FERRY_IOC_SCAN	  _IOW(FERRY_IOC_TYPE, 0x04, struct ferry_ioc_scan)

/**
 * struct ferry_uring_cmd - the command area of an SQE for /dev/ferry
 * @arg: user pointer to the struct that the ioctl takes; it, and all that it
 *	points to, must stay valid until the completion
 * @reserved: 0
 *
 * sqe->opcode is IORING_OP_URING_CMD, sqe->cmd_op FERRY_IOC_MIGRATE,
 * FERRY_IOC_QUERY or FERRY_IOC_SCAN. The submitter never blocks; cqe->res is what the ioctl
 * returns. EOPNOTSUPP: an unknown cmd_op.
 */
struct ferry_uring_cmd {
	__u64 arg;
	__u64 reserved;
};

#endif /* FERRY_IOCTL_H */
