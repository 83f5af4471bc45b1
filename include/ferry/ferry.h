/* SPDX-License-Identifier: MIT */
/*
 * Ferry's public interface: memory whose placement between DDR and
 * high-bandwidth memory (HBM) is managed while the program runs.
 *
 * Conventions, unless a comment says otherwise:
 *  - Functions that return int give 0 or -errno and leave errno alone.
 *    Allocation functions follow malloc(3) and posix_memalign(3).
 *  - Every function may be called from any thread at any time, but not from a
 *    signal handler. A forked child may use all of them; requests of the
 *    parent are unknown to it.
 *  - The first call reads the environment and the machine's topology once.
 *    If an environment variable is wrong, one message goes to stderr, and
 *    every function that returns int gives -EINVAL, allocation fails with
 *    EINVAL.
 *  - On a machine without HBM everything works in DDR; that is said once.
 *  - Structs that may grow are passed with their size, as in clone3(2): the
 *    library writes no more than that, and what it does not know is 0.
 */
#ifndef FERRY_H
#define FERRY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FERRY_VERSION_MAJOR 0
#define FERRY_VERSION_MINOR 1
#define FERRY_VERSION_PATCH 0

/* "MAJOR.MINOR.PATCH" of the library in use. Never fails, never blocks. */
const char *ferry_version(void);

/* ---- tiers -------------------------------------------------------------- */

/* A tier is the set of nodes of one kind of memory. */
enum ferry_tier { FERRY_TIER_DDR = 0, FERRY_TIER_HBM = 1, FERRY_TIER_COUNT };

#define FERRY_MAX_NODES 1024

struct ferry_tier_info {
	uint64_t total_bytes;    /* memory of all its nodes */
	uint64_t free_bytes;     /* of that, free at this moment */
	uint64_t bandwidth_mbps; /* read, all nodes together, MB/s; 0: unknown */
	uint32_t latency_ns;     /* read, from the nearest CPU; 0: unknown */
	uint32_t node_count;     /* 0: this machine has no such tier */
	uint64_t nodes[FERRY_MAX_NODES / 64]; /* one bit for each node index */
};

/*
 * Describes a tier.
 * @tier: which; @info: filled in; @size: sizeof(*info).
 * Returns 0; -EINVAL for an unknown tier or a size of 0; -ENODEV when the
 * machine has no such tier (@info is then all zeros).
 * Reads sysfs, so it may block shortly. Bandwidth and latency are what the
 * firmware's HMAT says (Documentation/admin-guide/mm/numaperf.rst).
 */
int ferry_tier_info(enum ferry_tier tier, struct ferry_tier_info *info, size_t size);

/* ---- allocation --------------------------------------------------------- */

/*
 * Where an allocation goes: one of FERRY_ANY, FERRY_DDR, FERRY_HBM,
 * FERRY_INTERLEAVE, or'ed with flags.
 */
enum ferry_placement {
	FERRY_ANY = 0,        /* as FERRY_POLICY says; DDR without it */
	FERRY_DDR = 1,        /* DDR of the touching thread's CPU first */
	FERRY_HBM = 2,        /* the HBM nearest to the touching thread's CPU */
	FERRY_INTERLEAVE = 3, /* over the nodes of both tiers, by bandwidth */
	FERRY_PLACEMENT_MASK = 0xff,

	/*
	 * All pages are populated on the tier before the call returns, or it
	 * fails with ENOMEM. Without it the tier is preferred: what does not
	 * fit goes to the other tier, never to the OOM killer while that has
	 * room. Not with FERRY_ANY or FERRY_INTERLEAVE (EINVAL).
	 */
	FERRY_STRICT = 1 << 8,
	FERRY_ZERO = 1 << 9, /* the memory is zeroed */
};

/*
 * Allocates @size bytes (0 is a valid size), aligned as malloc(3) does.
 * @placement: enum ferry_placement.
 * Returns the memory, or NULL with errno ENOMEM or EINVAL (placement,
 * environment). May block in the kernel. Free it with ferry_free() only.
 */
void *ferry_malloc(size_t size, unsigned int placement);

/*
 * As ferry_malloc(), with an alignment as posix_memalign(3) takes it: a power
 * of two and a multiple of sizeof(void *).
 * Returns 0 and the memory in *@out, or EINVAL or ENOMEM (positive, as
 * posix_memalign) with *@out unchanged.
 */
int ferry_posix_memalign(void **out, size_t alignment, size_t size,
			 unsigned int placement);

/*
 * Changes the size of @ptr, which keeps its placement (the flags FERRY_STRICT
 * and FERRY_ZERO do not carry over). NULL: as ferry_malloc(size, FERRY_ANY).
 * Returns the memory, or NULL with errno ENOMEM; @ptr is then untouched.
 */
void *ferry_realloc(void *ptr, size_t size);

/* Frees memory of the allocation functions above; NULL is allowed. */
void ferry_free(void *ptr);

/* Bytes that may be used at @ptr (malloc_usable_size(3)); 0 for NULL. */
size_t ferry_usable_size(const void *ptr);

/* ---- migration ---------------------------------------------------------- */

/* Instead of a node's index: the tier's node nearest to the calling CPU. */
#define FERRY_NODE_DDR (-2)
#define FERRY_NODE_HBM (-3)

/*
 * A range of the caller's memory and where it shall be. Any private anonymous
 * memory may be named, not only Ferry's; pages of other mappings are counted
 * as unsupported. The range is taken outward to page boundaries.
 */
struct ferry_range {
	void *addr;
	size_t len;     /* bytes; 0 is allowed and moves nothing */
	int32_t node;   /* target node's OS index, FERRY_NODE_DDR or _HBM */
	uint32_t flags; /* FERRY_POPULATE, FERRY_STAY */
};

/* ferry_range.flags */
enum {
	/* Holes get a zeroed page on the target. */
	FERRY_POPULATE = 1 << 0,
	/*
	 * Give the range a memory policy that prefers the target's tier
	 * (mbind(2)), so that the kernel's NUMA balancing leaves the pages
	 * there. Ferry's own regions have one; for other memory each range
	 * may become a VMA of its own, so keep such ranges few and large.
	 */
	FERRY_STAY = 1 << 1,
};

/*
 * What a request came to, in base pages. Where ranges of a request overlap,
 * the later range wins, and each page counts once.
 */
struct ferry_result {
	int32_t error; /* 0, or the first -errno that kept a range from being worked on */
	uint32_t reserved;
	uint64_t moved;       /* were elsewhere, are on the target */
	uint64_t populated;   /* holes that were given a page on the target */
	uint64_t already;     /* were on the target */
	uint64_t busy;        /* pinned, locked, under writeback, or shared */
	uint64_t nomem;       /* the target had no free memory */
	uint64_t hole;        /* nothing there: never touched, swapped out, unmapped */
	uint64_t unsupported; /* not private anonymous memory */
};

/* A submitted batch of ranges; it completes once. */
typedef struct ferry_request ferry_request;

/*
 * Moves ranges and waits until that is done.
 * @ranges, @n: the batch; n of 0 is allowed.
 * @result: filled in when not NULL; @size: its size.
 * Returns 0 when the batch was carried out, whatever the counts (pages that
 * could not move stay where they are and are no error); or -errno, with
 * nothing moved: -EINVAL (flags, an address range that wraps), -ENODEV (a
 * node without memory, no such tier, or FERRY_ENGINE=kmod without the
 * module), -EACCES (a node outside the cpuset), -ENOMEM.
 * Blocks for the time of the copy. Semantics as move_pages(2) without
 * MPOL_MF_MOVE_ALL; threads may use the memory meanwhile.
 */
int ferry_migrate(const struct ferry_range *ranges, size_t n, struct ferry_result *result,
		  size_t size);

/*
 * Submits ranges and returns at once; @ranges may be reused after the call.
 * @out: the request, to be freed with ferry_request_free().
 * Returns 0, or -errno as ferry_migrate(), or -EAGAIN, -EMFILE or -ENFILE
 * (the worker thread cannot be started), with nothing submitted.
 * Does not block on the migration. Requests begin in the order of submission;
 * where two name the same page, the later one's target is where it ends.
 * ferry_migrate() begins at once and takes no part in that order.
 */
int ferry_submit(const struct ferry_range *ranges, size_t n, ferry_request **out);

/*
 * Waits for @request up to @timeout_ms milliseconds; -1: without limit, 0:
 * only looks. Returns 0 when it is complete, -ETIMEDOUT otherwise; -ESRCH in a
 * forked child for a request of the parent that was not complete at fork(2).
 * Any number of threads may wait for one request.
 */
int ferry_request_wait(ferry_request *request, int timeout_ms);

/*
 * A file descriptor that poll(2) reports readable once @request is complete
 * (an eventfd(2) that nothing resets). It belongs to the request and is
 * closed with it. Returns the descriptor or -errno (-EMFILE, -ENFILE,
 * -ENOMEM).
 */
int ferry_request_fd(ferry_request *request);

/*
 * The counts of a complete request. @result, @size: filled in.
 * Returns 0; -EINPROGRESS before completion; -EINVAL for a size of 0.
 */
int ferry_request_result(ferry_request *request, struct ferry_result *result,
			 size_t size);

/*
 * Frees the request; NULL is allowed. If it is not complete it goes on and is
 * freed when it ends: memory it names must stay mapped or be unmapped as a
 * whole, it is never read or written by Ferry itself. No other thread may use
 * @request during or after the call. Does not block.
 */
void ferry_request_free(ferry_request *request);

/* ---- advice ------------------------------------------------------------- */

/* What a program knows of memory that Ferry cannot, or not yet. */
enum ferry_advice {
	FERRY_ADVICE_NONE = 0,      /* nothing any more: advice is let go */
	FERRY_ADVICE_WILL_NEED = 1, /* needs bandwidth from now on: to HBM */
	FERRY_ADVICE_COLD = 2,      /* hardly accessed: the first to make room in HBM */
	FERRY_ADVICE_PIN_DDR = 3,   /* to DDR, and stays there */
	FERRY_ADVICE_PIN_HBM = 4,   /* to HBM, and stays there */
};

/*
 * Advises on a range of the caller's memory, of which the latest advice counts.
 * @addr, @len: the range, in bytes; a len of 0 is allowed and does nothing.
 * Memory that the policy auto manages: its planner honours the advice until it
 * is let go, or the memory is freed, reallocated or unmapped. What is pinned goes
 * first, then what will be needed, then what is found to be hot. No more than the
 * HBM limit goes to HBM. The range is taken outward to blocks of 64 KiB.
 * Other private anonymous memory is moved once, as ferry_submit() does with
 * FERRY_STAY: to HBM for WILL_NEED and PIN_HBM, to DDR for COLD and PIN_DDR.
 * Returns at once, before anything is moved: 0 or -errno (-EINVAL: advice, a
 * range that wraps; -ENODEV: PIN_HBM where there is no HBM; -ENOMEM; and, with
 * part of the range advised, what ferry_submit() returns).
 */
int ferry_advise(const void *addr, size_t len, enum ferry_advice advice);

/*
 * Marks of phases, for the policy auto; with others they do nothing. What was
 * hot in HBM at the end of a phase is remembered by the phase's name, and moved
 * there, before samples tell of it, when the phase begins again: with prefetch
 * already before it begins, while the program does something else. Phases are
 * the process's, not a thread's, and nest, up to 16 deep; the innermost counts.
 * Up to 32 are remembered, those named last.
 * @name: 1 to 63 bytes.
 * Return 0; -EINVAL (name; end: not the innermost phase); -ENOSPC (too deep). Do
 * not block on the migration.
 */
int ferry_phase_begin(const char *name);
int ferry_phase_end(const char *name);
int ferry_phase_prefetch(const char *name);

/* ---- where memory is ---------------------------------------------------- */

/*
 * The node of each page of a range, as the kernel sees it (move_pages(2)
 * without target nodes).
 * @addr, @len: the range, taken outward to page boundaries, in bytes.
 * @nodes: one entry for each base page: its node, or -1 where nothing is.
 * Returns 0 or -errno (-EINVAL, -ENOMEM). Touches no page.
 */
int ferry_query_pages(const void *addr, size_t len, int16_t *nodes);

/*
 * Pages of a range per node.
 * @pages: @n counters; pages[i] is set to the pages on node i; pages of nodes
 * beyond @n and holes are not counted.
 * Returns 0 or -errno (-EINVAL, -ENOMEM).
 */
int ferry_query(const void *addr, size_t len, uint64_t *pages, size_t n);

/* ---- statistics --------------------------------------------------------- */

struct ferry_stats {
	uint64_t requests;         /* submitted, synchronous ones included */
	uint64_t completed;        /* of these, complete */
	struct ferry_result total; /* counts of all complete requests; error 0 */
	uint64_t heap_bytes[FERRY_TIER_COUNT]; /* address space in use by the
						  heap in each tier's region */
	uint64_t hbm_overflow_bytes;           /* meant for HBM, placed in DDR because
						  of the limit */
};

/*
 * Statistics of this process since its start. @stats, @size: filled in.
 * Returns 0 or -EINVAL for a size of 0. Ferry's own counters: where memory
 * really is, ferry_query() tells.
 */
int ferry_stats(struct ferry_stats *stats, size_t size);

/*
 * The name of the engine, "kmod", "relocate" or "syscall", and in *@why (if not
 * NULL) why it was chosen. Both strings are static.
 */
const char *ferry_engine(const char **why);

#ifdef __cplusplus
}
#endif

#endif /* FERRY_H */
