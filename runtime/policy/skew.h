/* SPDX-License-Identifier: MIT */
/*
 * Skew inside huge pages. A huge page has one accessed bit, which does not tell
 * whether all of it is in use or one block of it. So where HBM is short and a huge
 * page is neither cold nor hotter than can be told, it is doubtful; of the doubtful
 * ones some, chosen by chance, are split, and their blocks are sampled:
 *
 *   - where a block is worth to be moved without the others, it stays split, and
 *     its blocks are placed on their own (placer.h);
 *   - else it is made whole again, and is not doubtful until its heat has changed.
 *
 * The first turn splits few, before any huge page is moved. While a good part of a turn
 * is skewed the next one is larger; turns in vain come ever more rarely. Skew may come
 * without a change of any huge page's heat: so now and then a turn doubts all of them,
 * and where it finds skew, nothing counts that was known before. A huge page that was
 * split is made whole when its skew has gone. So what is hot as a whole stays whole.
 *
 * It is split by the kernel: MADV_COLD on one of its pages, which does nothing to the
 * data. It is made whole by MADV_COLLAPSE (Linux 6.1), which copies it; without that
 * none is split. Meanwhile the kernel's own thread for that (khugepaged) is kept
 * away by MADV_NOHUGEPAGE, since it would gather all of it on one node; a run of such
 * granules is a mapping of its own, so the number of runs is limited.
 *
 * One thread's: the policy's. It needs a sampler that tells of each block.
 */
#ifndef FERRY_SKEW_H
#define FERRY_SKEW_H

#include "policy/placer.h"

#define SKEW_PROBES 1024

/* All zeros but `why` is ready for the first round. */
struct skew {
	/* Huge pages stay whole, for this reason; NULL: they need not. */
	const char *why;
	bool missed; /* and one might have been skewed */

	/* The huge pages that were split in this turn and are not known yet. */
	size_t probes;
	uintptr_t probe[SKEW_PROBES];
	size_t turn, known, found; /* split in this turn; of these known, and skewed */
	uint64_t turn_ends;        /* though some are not known */

	size_t next_turn;      /* how many to split in the next one; 0: as at first */
	uint64_t next_at;      /* and not before */
	unsigned int in_vain;  /* turns in a row, up to the number that counts */
	bool pays;             /* the last turn found skew */
	bool tried, fits;      /* there was a turn; there is room for all on HBM */
	uint64_t hold_ends;    /* if there is none until then */
	uint64_t anew_at;      /* when a turn doubts all huge pages */
	bool forgets;          /* what was known counts no more */
	uint64_t moved;        /* pages, since the last one of them */
	size_t runs;           /* of granules that are split */
	size_t judged;         /* huge pages that more is known of, in the last round */
	uint64_t split, whole; /* huge pages, so far; made whole again */
	uint64_t ns;           /* CPU time of this thread that making whole took */
	int failed;            /* why some could not be made whole; 0: all could */
	uint64_t random;
};

/* What a round works on: what the placer had, and what it came to. */
struct skew_round {
	struct watch *watch;
	struct heat *heat;
	const struct span *span;
	size_t spans;
	const struct placer_hints *hints;
	const struct placer_result *result;
};

/*
 * Whether it can be done with a sampler, by name; in *why, a static string: what is
 * done, or why it is not.
 */
bool skew_available(const char *sampler, const char **why);

/* Before the first round. */
void skew_open(struct skew *skew, const struct sampler *sampler);

/* Whether there is more to do soon. */
bool skew_round(struct skew *skew, const struct skew_round *round);

/*
 * Whether huge pages shall stay where they are, since the first turn, soon to come, may
 * tell that parts of them will do. Not for long.
 */
bool skew_holds(const struct skew *skew);

/* Whether huge pages have been looked into so little that many may be skewed. */
bool skew_is_open(const struct skew *skew);

/* In a forked child, whose heat is about to be forgotten: nothing is split on purpose. */
void skew_let_go(struct skew *skew, const struct heat *heat);

#endif /* FERRY_SKEW_H */
