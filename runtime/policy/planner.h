/* SPDX-License-Identifier: MIT */
/*
 * The planner: which memory changes its tier, by what is gained and what it
 * costs. It sees all memory in two passes of units (a granule, or a block of
 * one that is skewed) and keeps only a histogram in between:
 *
 *   planner_begin()
 *   planner_add() each unit    counts it
 *   planner_decide()           with what HBM has room for: finds from which score
 *                              on to promote, up to which to demote
 *   planner_pick() each unit   says what becomes of it
 *
 * The reference is the mean score of the memory that has to stay in DDR if HBM
 * is filled as well as can be; what is known by little counts less in it. A unit is worth
 * its move when its score is PLAN_RATIO times that, and worth to take another one's place
 * when it is PLAN_RATIO times that one's score. So memory that is all equally hot stays
 * where it is, and so does what differs by the chance of sampling only.
 * Where all memory fits, all that is in use is promoted. Where all is equally hot, room
 * that nobody else wants is better filled than left: once the caller says so, memory
 * that is as hot as the rest moves there, and nothing makes room for it.
 *
 * Advice goes before heat. What is pinned takes no part in this: it goes to its
 * tier, before all else, and stays there. What will be needed is hotter than
 * anything that samples tell of, and what is cold is colder.
 *
 * Pure functions on values.
 */
#ifndef FERRY_PLANNER_H
#define FERRY_PLANNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ferry/ferry.h>

#define PLAN_RATIO 2.0f
/* What has come so far may be on its way there: heat is a mean over windows. */
#define PLAN_STIRS 1.5f

/*
 * The least rate (heat_rate()) to be promoted by: below it a unit is accessed
 * so seldom that its score is chance. Where nothing else is accessed at all, a
 * multiple of the reference would tell nothing.
 */
#define PLAN_LEAST_RATE 0.5f

/*
 * Eight buckets for each factor of two, over the scores that occur. The last one
 * is for what will be needed.
 */
#define PLAN_BUCKETS 512

struct plan_unit {
	float score;    /* accesses of a page, any unit of time; 0: none seen */
	float rate;     /* in a window */
	float weight;   /* of a page's score in a mean; more than 0 */
	uint32_t pages; /* present */
	enum ferry_advice advice;
	bool on_hbm;
	bool movable; /* known well enough, and not just failed to move */
};

/* In pages. */
struct plan_limits {
	uint64_t fill; /* HBM may be filled up to this */
	uint64_t keep; /* beyond this it must shrink to `fill` again; not less */
	uint64_t most; /* to be moved at once */
	bool level;    /* for some time all was equally hot */
};

enum plan_move { PLAN_STAY, PLAN_PROMOTE, PLAN_DEMOTE };

struct planner {
	struct plan_limits limits;
	uint64_t total, on_hbm; /* pages of all units; of total not the pinned ones */
	uint64_t pinned;        /* to HBM */
	uint64_t arrive, leave; /* pinned to HBM, to DDR, and not yet there */
	struct plan_bucket {
		uint64_t pages;       /* of all units */
		uint64_t promotable;  /* of these, in DDR and worth it by themselves */
		uint64_t demotable;   /* of these, in HBM */
		double score, weight; /* sums over pages; score by weight */
	} bucket[PLAN_BUCKETS];

	/* decided */
	bool fits; /* all of it into HBM */
	bool flat; /* next to nothing is hot beside the rest */
	float reference;
	uint64_t stirring; /* pages in DDR that are PLAN_STIRS times as hot */
	size_t promote_from, demote_to; /* the bucket in which a part moves */
	uint64_t promote_part, demote_part, arrive_part, leave_part;
	bool promote_whole;       /* what moves of it has to fit into that part */
	uint64_t promote, demote; /* pages in all */
};

void planner_begin(struct planner *planner);
void planner_add(struct planner *planner, const struct plan_unit *unit);
void planner_decide(struct planner *planner, const struct plan_limits *limits);

/*
 * Whether memory with a @rate is worth looking at without the rest of its granule, which
 * has @mean in all: it is accessed @ratio times as often, and not by chance.
 */
static inline bool planner_stands_out(float rate, float mean, float ratio)
{
	return rate >= PLAN_LEAST_RATE && rate >= ratio * mean;
}

/* Units as they were added, in any order. */
enum plan_move planner_pick(struct planner *planner, const struct plan_unit *unit);

#endif /* FERRY_PLANNER_H */
