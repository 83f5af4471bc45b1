/* SPDX-License-Identifier: MIT */
/*
 * Regions: one large reserved range of address space for each kind of
 * placement, with a memory policy on all of it, out of which the heap's
 * extents are cut.
 *
 * A region is one VMA where possible: it is reserved once (PROT_NONE), given
 * its memory policy with mbind(2), and opened (PROT_READ|PROT_WRITE) as the
 * used part grows. The policy is what keeps the kernel's NUMA balancing away
 * and what makes a full HBM node mean DDR:
 *   DDR         MPOL_PREFERRED_MANY over the DDR nodes
 *   HBM         MPOL_PREFERRED_MANY over the HBM nodes: the kernel takes the
 *               one nearest to the touching CPU and goes on to others when full
 *   INTERLEAVE  MPOL_INTERLEAVE over the nodes of both tiers
 *
 * Each region has one mutex, taken with no other lock of Ferry's held and
 * never while calling into jemalloc. region_fork_* hold all of them over
 * fork(2).
 */
#ifndef FERRY_REGION_H
#define FERRY_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "topology/topology.h"

#define GRANULE_SIZE ((size_t)2 << 20)

enum region_kind { REGION_DDR, REGION_HBM, REGION_INTERLEAVE, REGION_KINDS };

/*
 * Reserves the regions. @hbm_limit: most bytes of the HBM region in use at
 * once, UINT64_MAX for no limit. Without an HBM tier all kinds have DDR's
 * policy. Once a process, before any other call. 0 or -errno.
 */
int region_init(const struct topology *topology, uint64_t hbm_limit);

/*
 * Cuts [result, result + size) out of @kind's region; @size and @alignment
 * are multiples of the page size. The HBM region at its limit answers from
 * DDR's and counts that. The memory reads as zeros. NULL: no space.
 */
void *region_alloc(enum region_kind kind, size_t size, size_t alignment);

/* Gives back to its region, and its pages to the kernel. 0 or -errno. */
int region_free(void *addr, size_t size);

/* The region an address is in; -1: in none. Lock-free. */
int region_of(const void *addr);

/* Charges placed mappings outside the regions to the HBM limit. false: over it. */
bool region_charge_hbm(size_t bytes);
void region_uncharge_hbm(size_t bytes);

/* Sets @kind's memory policy on any range of the process. 0 or -errno. */
int region_apply_policy(void *addr, size_t len, enum region_kind kind);

struct region_usage {
	size_t used_bytes[REGION_KINDS]; /* cut out of each region */
	size_t charged_bytes;		 /* placed mappings */
	size_t overflow_bytes;		 /* meant for HBM, answered by DDR, ever */
};
void region_usage(struct region_usage *out);

void region_fork_prepare(void);
void region_fork_parent(void);
void region_fork_child(void);

#endif /* FERRY_REGION_H */
