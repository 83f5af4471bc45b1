/* SPDX-License-Identifier: MIT */
/*
 * The batcher: from ranges as the caller gave them to batches of pieces.
 *
 * A plan holds the ranges page-aligned, without overlaps and coalesced, sorted
 * by target node and then by address: at most twice as many entries as there
 * were ranges, however large they are. Batches are cut off it one at a time.
 *
 * Who submits ranges only has them copied, into memory for all that is to come:
 * sorting them may take much longer, and is left to who cuts the first batch
 * off, which cannot fail.
 *
 * Pure functions on values; a plan belongs to one thread at a time.
 */
#ifndef FERRY_BATCHER_H
#define FERRY_BATCHER_H

#include <stdbool.h>
#include <stddef.h>

#include "migrate/engine.h"

struct plan {
	struct ferry_range *range; /* as given; NULL once they are sorted */
	size_t ranges;
	struct claim *claim; /* room to sort them, until then */

	struct piece *part; /* by node, then address; not split at granules */
	size_t count;
	size_t next; /* the part that the next batch begins in */
	size_t done; /* bytes of that part that earlier batches took */
};

/*
 * Takes all memory that the plan of @n ranges will need. The caller then sets
 * plan->range[0..n). They must not wrap; node is an OS index. Where ranges
 * overlap the later one wins, target and flags. 0 or -ENOMEM.
 */
int plan_reserve(struct plan *plan, size_t n);

/* plan_reserve(), with these ranges. */
int plan_make(struct plan *plan, const struct ferry_range *range, size_t n);

/* Sorts the ranges into parts, if that is not done yet. */
void plan_sort(struct plan *plan);

/*
 * Cuts the next batch off: sets its pieces and clears its result. Sorts the
 * plan first if need be. false when nothing is left.
 */
bool plan_next(struct plan *plan, struct batch *batch);

void plan_free(struct plan *plan);

/* Whether two batches name a page in common. */
bool batch_overlaps(const struct batch *a, const struct batch *b);

#endif /* FERRY_BATCHER_H */
