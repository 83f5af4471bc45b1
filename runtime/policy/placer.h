/* SPDX-License-Identifier: MIT */
/*
 * Placing memory: what heat tells and where the kernel says pages are become
 * units for the planner, and its decisions become moves, which an engine
 * carries out (moves.h).
 *
 * Each HBM node is a pool with a planner of its own: what is in it, and what is
 * on the DDR nodes it is the nearest to.
 *
 * One thread's: the policy's. Moving blocks for the time of the copy.
 */
#ifndef FERRY_PLACER_H
#define FERRY_PLACER_H

#include "policy/advice.h"
#include "policy/planner.h"
#include "policy/watch.h"
#include "topology/topology.h"

/* What goes before heat in a round. */
struct placer_hints {
	const struct advised *advised; /* ascending */
	size_t advised_count;
	/*
	 * Memory to be got ready for a phase; NULL: none. It will be needed, and
	 * nothing else is promoted, for its heat is of another phase.
	 */
	const struct range_set *phase;
};

/* All zeros but the first two is ready for the first round. */
struct placer {
	const struct topology *topology;
	const struct engine *engine;
	struct placer_hints hints; /* the caller's, as it likes before each round */
	/* There is no sampler: nothing but hints moves memory, and any may make room. */
	bool blind;
	bool holds_huge; /* heat moves no huge pages for now */

	struct placer_memory *memory; /* what a round works in */
	unsigned int rounds;
	double pages_per_ns; /* that the engine moves; 0: not known yet */

	uint64_t promoted_pages, demoted_pages; /* moved so far */
};

struct placer_result {
	float reference;          /* of the largest pool */
	bool flat;                /* nothing is worth a move, whatever the room */
	bool fits;                /* HBM has room for all */
	uint64_t room;            /* on HBM before this round's moves; pages */
	uint64_t total, stirring; /* pages, of all pools: see planner.h */
	uint64_t moved;           /* pages */
	/* Pages picked, and those of them that go back: see watch_learn(). */
	uint64_t picked[PAGE_KINDS], returned[PAGE_KINDS];
	uint64_t took; /* by moving, in ns */
	uint64_t ns;   /* of these, CPU time of this thread */
};

struct placer_limits {
	uint64_t hbm_bytes;  /* that may be filled; UINT64_MAX: all that there is */
	uint64_t move_ns;    /* about so long moving may take */
	uint64_t move_pages; /* and so many pages it may move */
	bool level;          /* see struct plan_limits */
};

/*
 * Plans for the memory of @n spans and moves what is to be moved. 0 or -ENOMEM.
 */
int placer_round(struct placer *placer, const struct watch *watch, struct heat *heat,
		 const struct span *span, size_t n, const struct placer_limits *limits,
		 struct placer_result *result);

/*
 * The memory of @n spans that is on HBM and worth it by what was planned last:
 * blocks, added to @set. 0 or -ENOMEM.
 */
int placer_remember(struct placer *placer, const struct watch *watch, struct heat *heat,
		    const struct span *span, size_t n, struct range_set *set);

void placer_destroy(struct placer *placer);

#endif /* FERRY_PLACER_H */
