/* SPDX-License-Identifier: MIT */
/*
 * How memory is interleaved over both tiers: by their bandwidth, so that neither
 * waits for the other.
 *
 * Where the system has given its nodes weights, the kernel does it, page by page
 * (MPOL_WEIGHTED_INTERLEAVE, Linux 6.9; the weights are the system's and not a
 * process's to set). Where it has not, and the tiers' bandwidths differ, memory
 * of the heap is cut into stripes of whole granules, each of one tier. Else pages go to
 * all nodes in turn.
 *
 * Pure functions on values but for the reading of sysfs; no allocation.
 */
#ifndef FERRY_INTERLEAVE_H
#define FERRY_INTERLEAVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "topology/topology.h"

#define INTERLEAVE_SYSFS "/sys/kernel/mm/mempolicy/weighted_interleave"

enum interleave_how {
	INTERLEAVE_PAGES,   /* all nodes in turn: MPOL_INTERLEAVE */
	INTERLEAVE_WEIGHTS, /* the kernel's weights */
	INTERLEAVE_STRIPES,
};

/* Of so many parts, those that are HBM's. */
struct interleave {
	enum interleave_how how;
	unsigned int hbm, parts;
};

/* @sysfs: INTERLEAVE_SYSFS or a copy made for a test. Without HBM: all in turn. */
struct interleave interleave_choose(const struct topology *topology, const char *sysfs);

/*
 * The stripe at @addr: whether it is HBM's, and in *@end where it ends. @size: of
 * all that is striped together; larger memory has longer stripes, because each
 * becomes a VMA.
 */
bool interleave_stripe(const struct interleave *interleave, uintptr_t addr, size_t size,
		       uintptr_t *end);

#endif /* FERRY_INTERLEAVE_H */
