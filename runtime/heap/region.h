/* SPDX-License-Identifier: MIT */
/*
 * Regions: one large reserved range of address space for each kind of
 * placement, with a memory policy on all of it, out of which the heap's
 * extents are cut.
 *
 *   |<------------- reservation: one policy, two VMAs ------------->|
 *   | in use | free | in use | free        | not open: PROT_NONE    |
 *   start                                  opened                 end
 *
 * A region is reserved at its first use, generously where nothing limits
 * address space (RLIMIT_AS), in further and smaller reservations where
 * something does. It is given its policy with mbind(2) and opened
 * (PROT_READ|PROT_WRITE) as the used part grows, so that an unused
 * reservation costs nothing, also where the kernel does not overcommit. Space
 * is cut out first fit, by address, and what is given back joins its
 * neighbours.
 *
 * The policy is what keeps the kernel's NUMA balancing away and what makes a
 * full HBM node mean DDR:
 *   DDR         MPOL_PREFERRED_MANY over the DDR nodes
 *   HBM         MPOL_PREFERRED_MANY over the HBM nodes: the kernel takes the
 *               one nearest to the touching CPU and goes on to others when full
 *   INTERLEAVE  over the nodes of both tiers, by bandwidth: MPOL_INTERLEAVE,
 *               MPOL_WEIGHTED_INTERLEAVE, or stripes of one tier (interleave.h)
 *   AUTO        what is opened first as HBM, until half of the HBM that may be
 *               used is opened; the rest as DDR. Pages are moved later: to have
 *               any policy is what makes NUMA balancing leave them where they
 *               are, whichever tier it prefers
 * Without HBM there is nothing to choose, and the regions have no policy.
 *   METADATA    jemalloc's own: no policy, and no huge pages, because each
 *               arena has a granule of it and uses some pages of that
 *
 * One mutex guards all regions. It is taken below jemalloc's locks, and
 * nothing else is taken and no allocation made while it is held.
 * region_fork_* hold it over fork(2).
 */
#ifndef FERRY_REGION_H
#define FERRY_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "topology/topology.h"

#define GRANULE_SIZE ((size_t)2 << 20)
#define CHUNK_SIZE   (4 * GRANULE_SIZE)

static inline uintptr_t granule_down(uintptr_t addr)
{
	return addr & ~(GRANULE_SIZE - 1);
}

static inline uintptr_t granule_up(uintptr_t addr)
{
	return granule_down(addr + GRANULE_SIZE - 1);
}

enum region_kind {
	REGION_DDR,
	REGION_HBM,
	REGION_INTERLEAVE,
	REGION_AUTO,
	REGION_PLACED, /* the number of those above */
	REGION_METADATA = REGION_PLACED,
	REGION_KINDS
};

/*
 * @hbm_limit: most bytes of HBM in use at once, UINT64_MAX for no limit. HBM's
 * region counts whole, interleaved memory with the share of its nodes that are
 * HBM. Once a process, before any other call. 0; or the -errno that keeps
 * memory policies from being set, a cpuset without the HBM nodes for example:
 * the regions then do without.
 */
int region_init(const struct topology *topology, uint64_t hbm_limit);

/*
 * What else bounds HBM: asked, with the bytes that would then be in use, for each
 * charge, and under the lock. Once, after region_init(), before memory is cut.
 */
void region_limit_by(uint64_t (*limit)(uint64_t bytes));

/*
 * Cuts @size bytes out of @kind's region; @size and @alignment (a power of
 * two) are multiples of the page size. The memory reads as zeros. At the HBM
 * limit the answer comes from DDR's region and is counted, or is NULL if
 * @strict. NULL: no space.
 */
void *region_alloc(enum region_kind kind, size_t size, size_t alignment, bool strict);

/*
 * The parts of regions that one user keeps for its small cuts, so that what it
 * cuts in a row lies together: of the region it cuts from, and of DDR's where
 * the HBM limit sends it there. A chunk begins at a granule and crosses no
 * multiple of CHUNK_SIZE; it counts as used only as it is cut up. All zeros is
 * without chunks.
 */
struct region_chunk {
	struct region_piece {
		uintptr_t start, end; /* what is left */
	} own, overflow;
};

/* As region_alloc(), out of @chunk: for sizes up to CHUNK_SIZE and alignments up to a
 * granule. */
void *region_alloc_small(enum region_kind kind, struct region_chunk *chunk, size_t size,
			 size_t alignment, bool strict);

/*
 * Cuts exactly [addr, addr + size), which follows memory of a region, if it is
 * free or what is next in @chunk, and within the HBM limit.
 */
bool region_extend(void *addr, struct region_chunk *chunk, size_t size);

/*
 * Gives back any part of what was cut out, and its pages to the kernel.
 * 0 or -errno, with nothing given back.
 */
int region_free(void *addr, size_t size);

/*
 * What fills memory when it is touched, in the kernel's place (runtime/fault):
 * from region_set_filler() on, @add is called for each reservation but
 * REGION_METADATA's, with the lock held. What either cannot do the kernel does.
 */
struct region_filler {
	int (*add)(uintptr_t addr, size_t len);
	int (*remove)(uintptr_t addr, size_t len);
};
void region_set_filler(const struct region_filler *filler);

/*
 * Gives the pages of any part of a region to the kernel; it reads as zeros then.
 * 0 or -errno.
 */
int region_discard(void *addr, size_t size);

/*
 * What has pages out of their place (runtime/fault): region_discard() calls
 * @hold for a range before it is discarded and @let_go afterwards, with no lock
 * of this part held. Set once.
 */
void region_guard(void (*hold)(const void *addr, size_t size), void (*let_go)(void));

/* Whether the filler, or else the kernel, fills the granules within a part of a region.
 */
void region_fill(void *addr, size_t size, bool by_filler);

/*
 * Where a region's memory is: fills in up to @max spans, in no order, free parts
 * included; how many there are.
 */
struct span;
size_t region_spans(enum region_kind kind, struct span *out, size_t max);

/* The region an address is in; -1: in none. Lock-free. */
int region_of(const void *addr);

/*
 * Whether @start is in @kind's region; *@end is lowered to where that is no
 * longer so. Lock-free.
 */
bool region_has(enum region_kind kind, uintptr_t start, uintptr_t *end);

/*
 * Counts a mapping outside the regions against the HBM limit. false: it is
 * over the limit, and counted as overflow.
 */
bool region_charge(enum region_kind kind, size_t bytes);
void region_uncharge(enum region_kind kind, size_t bytes);

/*
 * Sets @kind's memory policy on any range of the process; @flags as mbind(2)
 * takes them. It stays one VMA, or the program could not mremap(2) it: where the
 * region is striped, pages go to all nodes in turn here. Against the HBM limit they
 * count as in the region, which is more. 0, also without HBM, or -errno.
 */
int region_apply_policy(void *addr, size_t len, enum region_kind kind,
			unsigned int flags);

struct region_usage {
	size_t used_bytes[REGION_KINDS];     /* cut out of each region */
	size_t peak_bytes[REGION_KINDS];     /* the most of it at once */
	size_t charged_bytes[REGION_PLACED]; /* mappings outside */
	size_t overflow_bytes;               /* meant for HBM, answered by DDR, ever */
	size_t reserved_bytes;               /* of address space, all regions together */
};
void region_usage(struct region_usage *out);

void region_fork_prepare(void);
void region_fork_parent(void);
void region_fork_child(void);

#endif /* FERRY_REGION_H */
