/* SPDX-License-Identifier: MIT */
/*
 * Rounds of sightings: what to watch with a sampler that sees accesses (sampler.h),
 * each of which costs something, and what becomes of that in heat.
 *
 * A round counts what is there, then watches the granules that are worth it, as many
 * as can be afforded: first those that nothing is known of, then those that may
 * be hot or not, and those that are clearly one of it from time to time, the more rarely
 * the longer they have been so. Where there are too many, those go first that have waited
 * longest for their turn.
 *
 * One thread's: the policy's.
 */
#ifndef FERRY_SIGHT_H
#define FERRY_SIGHT_H

#include "policy/watch.h"

/* As watch_round(). */
int sight_round(struct watch *watch, struct heat *heat, const struct span *span, size_t n,
		uint64_t cpu_ns);

/* The memory that this takes of @watch. */
void sight_destroy(struct watch *watch);

#endif /* FERRY_SIGHT_H */
