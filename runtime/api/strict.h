/* SPDX-License-Identifier: MIT */
/*
 * Strict placement: memory that is populated on its tier, or not handed out.
 * Functions on the caller's memory only; thread-safe.
 */
#ifndef FERRY_STRICT_H
#define FERRY_STRICT_H

#include <stdbool.h>
#include <stddef.h>

#include "topology/topology.h"

/* Whether the tier has @size bytes free now, and some to spare. */
bool strict_has_room(const struct topology *topology, enum ferry_tier tier, size_t size);

/*
 * Populates the pages of a fresh allocation and moves those that came out on
 * another tier. Contents stay. false: not all of them are on the tier.
 */
bool strict_populate(const struct topology *topology, enum ferry_tier tier, void *addr,
		     size_t size);

#endif /* FERRY_STRICT_H */
