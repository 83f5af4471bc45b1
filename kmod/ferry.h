/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Internal declarations of ferry.ko.
 *
 * The parts, top down:
 *   main.c     the device, its file operations, the module's life cycle
 *   uring.c    the same requests as io_uring commands
 *   args.c     copying and checking what the caller passes in
 *   migrate.c  a batch: ranges, their VMAs, their chunks
 *   exchange.c a batch with two targets, in turns
 *   chunk.c    one chunk through migrate_vma
 *   copy.c     copying pages; copy_stream.c, copy_parallel.c and copy_dma.c are
 *              ways to do so
 *   whole.c    a huge page as one, where migrate_vma can
 *   split.c    a huge page into small ones
 *   flush.c    one TLB shootdown for a chunk in place of one for each page
 *   pool.c     free pages on the target node
 *   free.c     giving back the pages that others have taken the place of
 *   query.c    where pages are
 *   scan.c     which pages have been accessed
 *   walk.c     from an address to its page table
 *   space.c    what the open devices of an address space share
 *   params.c   module parameters with bounds
 *   stats.c    counters and tracepoints
 *   compat.h   differences between kernels
 *
 * Locks. A request is used by one task only, and by workers while that task is
 * in ferry_copy_run(). What the requests of an address space share is in
 * space.c, whose mutex is taken at open, release and when a parameter is set,
 * with no other lock of the module or of what follows held. Of the kernel's
 * locks it takes, in this order:
 *   1. mmap_lock of current->mm, for reading, for one chunk at a time, or for
 *      writing, to split one huge page, and then the VMA's own lock as well;
 *      never held while user memory is copied, since a fault would take it
 *      again
 *   2. folio locks, only ever by trylock (in migrate_vma_setup(), and for
 *      destination pages that nobody else knows)
 *   3. the page table lock of one page table (PTL), never across a sleep
 * rcu_read_lock() keeps a page table in being while it is looked at or locked.
 */
#ifndef FERRY_H
#define FERRY_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include <ferry/ferry_ioctl.h>

struct attribute_group;
struct ferry_dma;
struct ferry_space;
struct io_uring_cmd;

#ifndef CONFIG_64BIT
#error "ferry.ko needs a 64-bit kernel: page table entries are read in one go"
#endif

#define FERRY_MODULE_VERSION "0.1.0"

/* A chunk lies within one page table, so one PTL covers it. */
#define FERRY_CHUNK_BYTES PMD_SIZE
#define FERRY_CHUNK_PAGES (FERRY_CHUNK_BYTES / PAGE_SIZE)

#define FERRY_MAX_RANGES 65536
#define FERRY_MAX_NODES (FERRY_NODE_WORDS * 64)
/* The count of pages moved must fit into a positive int. */
#define FERRY_MAX_BYTES ((u64)(1U << 30) * PAGE_SIZE)

/* ---- params.c --------------------------------------------------------- */

/**
 * struct ferry_param - a module parameter that is a number
 * @value: its value
 * @min: the least it may be
 * @max: the most
 * @power_of_two: it has to be one
 * @changed: called after it was set, or NULL
 */
struct ferry_param {
	unsigned int value;
	unsigned int min;
	unsigned int max;
	bool power_of_two;
	void (*changed)(void);
};

extern const struct kernel_param_ops ferry_param_ops;

static inline unsigned int ferry_param(const struct ferry_param *param)
{
	return READ_ONCE(param->value);
}

/* ---- space.c ---------------------------------------------------------- */

/**
 * struct ferry_file - an open /dev/ferry
 * @space: the address space that opened it
 */
struct ferry_file {
	struct ferry_space *space;
};

void ferry_space_init(void);
struct ferry_space *ferry_space_get(void);
void ferry_space_put(struct ferry_space *space);
bool ferry_space_is_current(const struct ferry_space *space);
int ferry_space_enter(struct ferry_space *space);
void ferry_space_leave(struct ferry_space *space);
unsigned int ferry_space_limit(void);

/* ---- args.c ----------------------------------------------------------- */

/**
 * struct ferry_batch - a checked FERRY_IOC_MIGRATE request
 * @args: the caller's struct
 * @ranges: the caller's ranges, checked, addresses untagged
 * @bytes: length of all ranges together
 */
struct ferry_batch {
	struct ferry_ioc_migrate args;
	struct ferry_ioc_range *ranges;
	u64 bytes;
};

int ferry_copy_struct(void *dst, size_t size, const void __user *src);
int ferry_batch_read(struct ferry_batch *batch, const void __user *src);
void ferry_batch_free(struct ferry_batch *batch);
int ferry_batch_put_result(const struct ferry_batch *batch, u32 index,
			   const struct ferry_ioc_result *result);
int ferry_query_read(struct ferry_ioc_query *query, const void __user *src);
int ferry_scan_read(struct ferry_ioc_scan *scan, const void __user *src);

/* ---- migrate.c, exchange.c, query.c, scan.c, uring.c ------------------ */

struct ferry_chunk;

int ferry_migrate_init(void);
void ferry_migrate_exit(void);
int ferry_migrate(struct ferry_space *space, const void __user *arg);
unsigned int ferry_chunk_bytes(void);
int ferry_migrate_chunk(struct ferry_chunk *chunk, unsigned long *addr,
			unsigned long end, bool populate,
			struct ferry_ioc_result *result);
int ferry_exchange(const struct ferry_batch *batch, struct ferry_chunk *chunk);
int ferry_query(const void __user *arg);
int ferry_scan(const void __user *arg);
int ferry_request(struct ferry_file *file, unsigned int op,
		  void __user *arg);
bool ferry_interrupted(void);
int ferry_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags);

/* ---- walk.c ----------------------------------------------------------- */

enum ferry_level {
	FERRY_LEVEL_NONE,	/* nothing is mapped here */
	FERRY_LEVEL_TABLE,	/* a page table */
	FERRY_LEVEL_HUGE,	/* a huge page */
	FERRY_LEVEL_MOVING,	/* a huge page that is being migrated */
};

/**
 * struct ferry_spot - what the levels above the page table say of an address
 * @level: what is there
 * @pmd: the entry, which points to a page table or maps a huge page; NULL if it
 *	is of a higher level
 * @pfn: HUGE, MOVING: first page frame of the huge page
 * @end: end of the addresses of which this is true
 */
struct ferry_spot {
	enum ferry_level level;
	pmd_t *pmd;
	unsigned long pfn;
	unsigned long end;
};

void ferry_locate(struct mm_struct *mm, unsigned long addr,
		  struct ferry_spot *spot);
bool ferry_locate_next(struct ferry_spot *spot, unsigned long addr);
bool ferry_with_table(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
		      void (*fn)(pte_t *pte, void *arg), void *arg);
const pte_t *ferry_peek_table(pmd_t *pmd, unsigned long addr);

/* ---- pool.c ----------------------------------------------------------- */

/**
 * struct ferry_pool - free pages on one node, kept from chunk to chunk
 * @node: where they are
 * @nr: number of them
 * @dry: the node ran out of memory during this request, so no more effort is
 *	put into reclaiming memory there
 * @vacated: in an exchange, pages that the request has freed on the node and
 *	not taken back
 * @pages: the pages; those at @nr and beyond are NULL
 */
struct ferry_pool {
	int node;
	unsigned int nr;
	bool dry;
	unsigned int vacated;
	struct page *pages[FERRY_CHUNK_PAGES];
};

void ferry_pool_begin(struct ferry_pool *pool);
void ferry_pool_fill(struct ferry_pool *pool, int node, unsigned int nr);
void ferry_pool_drain(struct ferry_pool *pool);

/* A page with one reference, its content undefined, or NULL */
static inline struct page *ferry_pool_take(struct ferry_pool *pool)
{
	struct page *page;

	if (!pool->nr)
		return NULL;
	page = pool->pages[--pool->nr];
	pool->pages[pool->nr] = NULL;
	return page;
}

/* ---- free.c ----------------------------------------------------------- */

void ferry_free_pages(struct page **pages, unsigned int nr);

/* ---- flush.c ---------------------------------------------------------- */

/**
 * struct ferry_marks - entries of a page table that are marked inaccessible
 * @vma: the VMA of the range, its mmap_lock held while there are marks
 * @start: start of the range
 * @end: its end, within the same page table
 * @nr: number of marks
 * @set: the pages of the range whose entries have one
 */
struct ferry_marks {
	struct vm_area_struct *vma;
	unsigned long start;
	unsigned long end;
	unsigned int nr;
	DECLARE_BITMAP(set, FERRY_CHUNK_PAGES);
};

bool ferry_flush_supported(void);
void ferry_flush_mark(struct ferry_marks *marks, struct vm_area_struct *vma,
		      unsigned long start, unsigned long end);
void ferry_flush_restore(struct ferry_marks *marks);

/* ---- copy.c, copy_stream.c, copy_parallel.c, copy_dma.c ---------------- */

#define FERRY_MAX_WORKERS 32

/**
 * struct ferry_worker - somebody else who copies
 * @work: what the workqueue knows of it
 * @copy: what to copy
 */
struct ferry_worker {
	struct work_struct work;
	struct ferry_copy *copy;
};

/**
 * struct ferry_copy - pages that are copied in one step
 * @mode: enum ferry_copy_mode of the batch
 * @nr: number of pages
 * @dst: the pages to write, which nobody else knows of
 * @src: for each the page to read, or NULL to fill it with zeros
 * @bytes: what has been copied for the chunk under work
 * @dma_bytes: part of it that a DMA engine has copied
 * @dma_fallback: pages of it that the CPU copied though DMA was to
 * @ns: time that copying and zeroing has taken for it
 * @dma: the batch's DMA channel, or NULL
 * @next: the first page that nobody has taken, while several CPUs copy
 * @worker: those who may help
 */
struct ferry_copy {
	u32 mode;
	unsigned int nr;
	struct page *dst[FERRY_CHUNK_PAGES];
	struct page *src[FERRY_CHUNK_PAGES];
	u64 bytes;
	u64 dma_bytes;
	u64 dma_fallback;
	u64 ns;
	struct ferry_dma *dma;
	atomic_t next;
	struct ferry_worker worker[FERRY_MAX_WORKERS];
};

void ferry_copy_open(struct ferry_copy *copy, u32 mode, u64 bytes);
void ferry_copy_close(struct ferry_copy *copy);
void ferry_copy_begin(struct ferry_copy *copy);
unsigned int ferry_copy_step(const struct ferry_copy *copy, unsigned int nr);
bool ferry_copy_run(struct ferry_copy *copy);
void ferry_copy_run_here(struct ferry_copy *copy);
void ferry_copy_pages(const struct ferry_copy *copy, unsigned int first,
		      unsigned int end);

/**
 * ferry_copy_add() - add a page to those that are to be copied
 * @copy: the others; FERRY_CHUNK_PAGES at most between two ferry_copy_run()
 * @dst: where to; locked, with one reference
 * @src: where from, or NULL for zeros
 */
static inline void ferry_copy_add(struct ferry_copy *copy, struct page *dst,
				  struct page *src)
{
	copy->dst[copy->nr] = dst;
	copy->src[copy->nr] = src;
	copy->nr++;
	if (src)
		copy->bytes += PAGE_SIZE;
}

bool ferry_stream_pages(const struct ferry_copy *copy, unsigned int first,
			unsigned int end);

int ferry_parallel_start(void);
void ferry_parallel_stop(void);
bool ferry_parallel_supported(void);
void ferry_parallel_copy(struct ferry_copy *copy);
void ferry_parallel_queue(struct work_struct *work);

struct ferry_dma *ferry_dma_open(void);
void ferry_dma_close(struct ferry_dma *dma);
bool ferry_dma_available(void);
bool ferry_dma_copy(struct ferry_copy *copy);

/* ---- chunk.c ---------------------------------------------------------- */

enum ferry_outcome {
	FERRY_PENDING,		/* not settled yet; busy if it stays so */
	FERRY_MOVED,
	FERRY_POPULATED,
	FERRY_ALREADY,
	FERRY_BUSY,
	FERRY_NOMEM,
	FERRY_HOLE,
	FERRY_UNSUPPORTED,
	FERRY_HUGE,
	FERRY_NR_OUTCOMES
};

/**
 * struct ferry_chunk - pages that are migrated under one hold of mmap_lock
 * @start: address of the first page
 * @nr: number of pages; all in one page table and one VMA
 * @node: target node
 * @populate: give holes a page
 * @shared: move pages that other processes map, too
 * @split: split a huge page that is to move
 * @whole: the chunk is a huge page that is to move as one
 * @unsplit: the chunk is in a huge page that is to be split
 * @try_split: and it looks as if that could be done now
 * @outcome: enum ferry_outcome of each page
 * @action: what the current pass does with each page, see chunk.c
 * @need: pages on the target that the current pass needs
 * @pfn: page frame the current pass means to move
 * @src: migrate_vma's view of the pages
 * @dst: migrate_vma's view of their new places
 * @freed: pages of the current run that have moved, to be freed at its end
 * @nr_freed: number of them
 * @locked_at: when mmap_lock was last taken
 * @stall_ns: time mmap_lock was held
 * @marks: entries marked by flush.c
 * @pool: pages on the target node, one of @pools
 * @vacating: in an exchange, the pool of the node that pages come from
 * @fit: if there is not memory for all pages, make the chunk shorter
 * @pools: for each target of an exchange; the first otherwise
 * @copy: pages of the current run that are to be copied
 */
struct ferry_chunk {
	unsigned long start;
	unsigned int nr;
	int node;
	bool populate;
	bool shared;
	bool split;
	bool whole;
	bool unsplit;
	bool try_split;
	unsigned int need;
	u8 outcome[FERRY_CHUNK_PAGES];
	u8 action[FERRY_CHUNK_PAGES];
	unsigned long pfn[FERRY_CHUNK_PAGES];
	unsigned long src[FERRY_CHUNK_PAGES];
	unsigned long dst[FERRY_CHUNK_PAGES];
	struct page *freed[FERRY_CHUNK_PAGES];
	unsigned int nr_freed;
	u64 locked_at;
	u64 stall_ns;
	struct ferry_marks marks;
	struct ferry_pool *pool;
	struct ferry_pool *vacating;
	bool fit;
	struct ferry_pool pools[2];
	struct ferry_copy copy;
};

unsigned int ferry_chunk_pass(struct ferry_chunk *chunk,
			      struct vm_area_struct *vma);

/* ---- whole.c, on kernels for which it is built ------------------------- */

#ifdef FERRY_HAVE_MIGRATE_COMPOUND
bool ferry_whole_enabled(void);
bool ferry_is_whole(const struct ferry_chunk *chunk, struct folio *folio);
void ferry_move_whole(struct ferry_chunk *chunk, struct vm_area_struct *vma);
#else
static inline bool ferry_whole_enabled(void)
{
	return false;
}

static inline bool ferry_is_whole(const struct ferry_chunk *chunk,
				  struct folio *folio)
{
	return false;
}

static inline void ferry_move_whole(struct ferry_chunk *chunk,
				    struct vm_area_struct *vma)
{
}
#endif

/* ---- split.c ---------------------------------------------------------- */

bool ferry_may_split(struct folio *folio);
void ferry_split(struct ferry_chunk *chunk, struct vm_area_struct *vma);

/* ---- stats.c ---------------------------------------------------------- */

/* The files of the same names in sysfs; ferry(4) describes them. */
enum ferry_stat {
	FERRY_STAT_BATCHES,
	FERRY_STAT_IN_FLIGHT,
	FERRY_STAT_CHUNKS,
	FERRY_STAT_MOVED,
	FERRY_STAT_POPULATED,
	FERRY_STAT_ALREADY,
	FERRY_STAT_BUSY,
	FERRY_STAT_NOMEM,
	FERRY_STAT_HOLE,
	FERRY_STAT_UNSUPPORTED,
	FERRY_STAT_HUGE,
	FERRY_STAT_COPY_BYTES,
	FERRY_STAT_COPY_NS,
	FERRY_STAT_DMA_BYTES,
	FERRY_STAT_DMA_FALLBACK,
	FERRY_STAT_STALL_NS,
	FERRY_STAT_STALL_MAX_NS,
	FERRY_NR_STATS
};

/**
 * struct ferry_stats - what has happened on one CPU since the module was loaded
 * @value: by enum ferry_stat
 */
struct ferry_stats {
	u64 value[FERRY_NR_STATS];
};

DECLARE_PER_CPU(struct ferry_stats, ferry_stats);

/* One instruction on x86; any context */
static inline void ferry_stat_add(enum ferry_stat stat, u64 value)
{
	this_cpu_add(ferry_stats.value[stat], value);
}

void ferry_stat_max(enum ferry_stat stat, u64 value);
void ferry_stats_range(const struct ferry_ioc_result *result);
const struct attribute_group **ferry_stats_groups(void);

#endif /* FERRY_H */
