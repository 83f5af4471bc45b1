/* SPDX-License-Identifier: MIT */
/* Depth: see depth.h. One thread's. */
#include "policy/depth.h"

#include <string.h>

unsigned int depth_now(const struct depth *depth)
{
	return depth->sweeps ? HEAT_DEPTH_MOST : depth->learnt;
}

/* ---- sweeps -------------------------------------------------------------- */

/* Pages that are accessed independently are not all accessed or none of them. */
#define PAGES_LEAST (BLOCK_PAGES / 2)
/* Fewer blocks tell nothing. */
#define COMPARED_LEAST 32
/*
 * What is hot may become cold, and other memory hot, but once; so it is believed when one
 * block in so many turned over in two rounds running, and until far fewer do for some
 * time. Of a program that pauses all turn the same way.
 */
#define TURNING_PART      8
#define ROUNDS_TO_BELIEVE 2
#define ROUNDS_TO_DOUBT   4

static enum seen seen_of(const struct sample *sample)
{
	if (sample->huge || sample->watched < PAGES_LEAST)
		return SEEN_UNKNOWN;
	return !sample->accessed                     ? SEEN_NONE
	       : sample->accessed == sample->watched ? SEEN_ALL
						     : SEEN_PART;
}

void depth_note(struct depth *depth, struct granule *granule, const struct sample *sample,
		bool comparable)
{
	enum seen seen = seen_of(sample);

	if (comparable && seen && granule->seen) {
		depth->compared++;
		if (seen == SEEN_ALL && granule->seen == SEEN_NONE)
			depth->turned[depth->window].on++;
		if (seen == SEEN_NONE && granule->seen == SEEN_ALL)
			depth->turned[depth->window].off++;
	}
	granule->seen = (uint8_t)seen;
}

/* Blocks that turned over, each way as many. */
static size_t count_turned(const struct depth *depth)
{
	size_t turned = 0;

	for (size_t i = 0; i < HEAT_WINDOWS_SMALL; i++) {
		size_t on = depth->turned[i].on, off = depth->turned[i].off;

		turned += 2 * (on < off ? on : off);
	}
	return turned;
}

void depth_end_round(struct depth *depth)
{
	size_t part = depth->sweeps ? 2 * TURNING_PART : TURNING_PART;
	bool sweeps = count_turned(depth) > depth->compared / part;
	bool tells = depth->compared >= COMPARED_LEAST;

	depth->compared = 0;
	memset(depth->turned, 0, sizeof(depth->turned));
	if (!tells)
		return;
	depth->rounds += depth_is_new(depth);
	depth->turning = sweeps == depth->sweeps ? 0 : depth->turning + 1;
	if (depth->turning < (sweeps ? ROUNDS_TO_BELIEVE : ROUNDS_TO_DOUBT))
		return;
	depth->sweeps = sweeps;
	depth->turning = 0;
	depth->rounds = 0;
}

bool depth_is_new(const struct depth *depth)
{
	return depth->sweeps && depth->rounds < HEAT_WINDOWS_SMALL << HEAT_DEPTH_MOST;
}

/* ---- what comes back ----------------------------------------------------- */

/* A round counts so much in the next. */
#define MEMORY_KEEPS 0.9f
/* Of what is moved, the part that must come back to be called much. */
#define MUCH_RETURNS 0.25f
/* And of all that is watched. */
#define MUCH_MATTERS (1 / 64.0f)
/*
 * Rounds after which it is tried with less: minutes, as they are rare in peace; twice
 * as long for each time that less was too little.
 */
#define CALM_ROUNDS 512
#define RAISES_MOST 8

static void set_learnt(struct depth *depth, unsigned int learnt)
{
	depth->learnt = (uint8_t)learnt;
	depth->moved = depth->returned = 0;
	depth->calm = 0;
}

void depth_learn(struct depth *depth, uint64_t moved, uint64_t returned, uint64_t all)
{
	depth->moved = depth->moved * MEMORY_KEEPS + (float)moved;
	depth->returned = depth->returned * MEMORY_KEEPS + (float)returned;
	depth->calm = returned ? 0 : depth->calm + 1;
	if (depth->returned > depth->moved * MUCH_RETURNS &&
	    depth->returned > (float)all * MUCH_MATTERS &&
	    depth->learnt < HEAT_DEPTH_MOST) {
		depth->raises += depth->raises < RAISES_MOST;
		set_learnt(depth, depth->learnt + 1U);
	} else if (depth->learnt && depth->calm >> depth->raises == CALM_ROUNDS) {
		set_learnt(depth, depth->learnt - 1U);
	}
}
