/* SPDX-License-Identifier: MIT */
/*
 * The batcher: from ranges as the caller gave them to batches of pieces.
 *
 * A plan holds the ranges page-aligned, without overlaps and coalesced, sorted
 * by target node and then by address: at most twice as many entries as there
 * were ranges, however large they are. Batches are cut off it one at a time.
 *
 * Pure functions on values; a plan belongs to one thread at a time.
 */
#ifndef FERRY_BATCHER_H
#define FERRY_BATCHER_H

#include <stdbool.h>
#include <stddef.h>

#include "migrate/engine.h"

struct plan {
	struct piece *part; /* by node, then address; not split at granules */
	size_t count;
	size_t next; /* the part that the next batch begins in */
	size_t done; /* bytes of that part that earlier batches took */
};

/*
 * Makes the plan of @n ranges. They must not wrap; node is an OS index. Where
 * ranges overlap the later one wins, target and flags. 0 or -ENOMEM.
 */
int plan_make(struct plan *plan, const struct ferry_range *range, size_t n);

/*
 * Cuts the next batch off: sets its pieces and clears its result. false when
 * nothing is left.
 */
bool plan_next(struct plan *plan, struct batch *batch);

void plan_free(struct plan *plan);

/* Whether two batches name a page in common. */
bool batch_overlaps(const struct batch *a, const struct batch *b);

#endif /* FERRY_BATCHER_H */
