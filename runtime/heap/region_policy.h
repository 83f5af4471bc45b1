/* SPDX-License-Identifier: MIT */
/*
 * The memory policies of regions (region.h says which there are and what for): set up
 * once, constant from then on, so that any thread may apply them. No allocation.
 */
#ifndef FERRY_REGION_POLICY_H
#define FERRY_REGION_POLICY_H

#include "heap/interleave.h"
#include "heap/region.h"

/* Once a process, before the others. How memory is interleaved. */
struct interleave region_policy_init(const struct topology *topology);

/* Whether the kernel takes the policies: 0; or -errno, and regions do without. */
int region_policy_try(void);

/* Whether there is HBM to choose, and the kernel has not refused. */
bool region_has_policy(void);

/* Whether a kind of region is cut into stripes of one tier each. */
bool region_is_striped(enum region_kind kind);

/*
 * Gives the memory [start, end) of such a region its policies; @size: bytes of the region
 * in use, by which stripes are made larger. 0 or -errno.
 */
int region_apply_stripes(uintptr_t start, uintptr_t end, size_t size);

#endif /* FERRY_REGION_POLICY_H */
