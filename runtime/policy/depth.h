/* SPDX-License-Identifier: MIT */
/*
 * Depth: how much more often memory has to be sampled until it is known (heat.h).
 *
 * Windows tell the more of a granule, the more pages of it are accessed independently
 * of each other. A sweep accesses all of a granule or nothing of it: then a few windows
 * tell no more than where the sweep just was, and what is moved for that goes back soon.
 * So it takes 2^depth as many,
 *
 * - the most at once where sweeps are seen: of many blocks one window finds all pages
 *   accessed and the next one none, of as many the other way round, over and over. (A
 *   huge page, with one accessed bit, does not tell.)
 * - one step more each time that much of what was moved goes back.
 *
 * One thread's: the policy's.
 */
#ifndef FERRY_DEPTH_H
#define FERRY_DEPTH_H

#include "policy/heat.h"

/* All zeros is the depth 0. */
struct depth {
	/*
	 * Of this round: blocks that could be compared with the window before, and those
	 * of which all is accessed now, or nothing is any more, by the window's number.
	 */
	size_t compared;
	struct {
		size_t on, off;
	} turned[HEAT_WINDOWS_SMALL];
	unsigned int window; /* the number of the one that is noted */

	bool sweeps;
	uint8_t turning; /* rounds in a row that it is otherwise; see depth_end_round() */
	unsigned int rounds; /* since it was found; up to what it takes to know */

	/* Pages moved, and moved back, lately: each round counts less than the next. */
	float moved, returned;
	uint8_t learnt;
	uint8_t raises;    /* of that, so far */
	unsigned int calm; /* rounds since that changed or was right */
};

unsigned int depth_now(const struct depth *depth);

/*
 * Notes what a window found of one of a granule's blocks, always the same one;
 * @comparable with what the one before it did.
 */
void depth_note(struct depth *depth, struct granule *granule, const struct sample *sample,
		bool comparable);

/* After a round, before it is acted upon: finds whether memory is swept over. */
void depth_end_round(struct depth *depth);

/* Whether it is, and not for long enough to know memory by it. */
bool depth_is_new(const struct depth *depth);

/* Takes note of the pages that a round moves, those that go back, and all there are. */
void depth_learn(struct depth *depth, uint64_t moved, uint64_t returned, uint64_t all);

#endif /* FERRY_DEPTH_H */
