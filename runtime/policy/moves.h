/* SPDX-License-Identifier: MIT */
/*
 * What a round of the policy moves: lists of ranges, and an engine carrying them out:
 * demotions ahead of promotions, in turns where it can exchange, so that there is room
 * for these.
 *
 * One thread's: the policy's. Carrying out blocks for the time of the copy.
 */
#ifndef FERRY_MOVES_H
#define FERRY_MOVES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ferry/ferry.h>

#include "migrate/engine.h"

#define MOVES_MOST 8192

struct moves {
	size_t count;
	struct ferry_range range[MOVES_MOST];
};

/* Adds a range, ascending from call to call. false: the list is full. */
bool moves_add(struct moves *moves, uintptr_t start, uintptr_t end, int node);

/*
 * Carries out both lists, and counts the pages that moved. A failure is in no page's way;
 * it stays where it is.
 */
void moves_carry_out(const struct engine *engine, const struct moves *demotions,
		     const struct moves *promotions, uint64_t *demoted,
		     uint64_t *promoted);

#endif /* FERRY_MOVES_H */
