/* SPDX-License-Identifier: MIT */
/*
 * Hints: what the program says of its memory, as the policy's thread takes it
 * in from one round to the next. Advice is read anew when it has changed.
 * Phases are remembered: when one ends, what was hot on HBM in it; when it is to
 * come again, that is needed, until nothing more of it can be moved. Heat, which
 * is of another phase then, begins anew.
 *
 * One thread's: the policy's.
 */
#ifndef FERRY_HINTS_H
#define FERRY_HINTS_H

#include "policy/phase.h"
#include "policy/placer.h"

/* All zeros is without any. */
struct hints {
	unsigned int changes; /* advice_changes() at the last look */
	struct advised *advised;
	size_t room;

	struct phase phase; /* that memory is placed for */
	bool moved;         /* getting ready for it moved something */
	struct remembered {
		uint64_t id; /* of the phase; 0: none */
		struct range_set hot;
	} phases[PHASES];
};

/* What a round works on. */
struct hints_round {
	struct placer *placer;
	const struct watch *watch;
	struct heat *heat;
	const struct span *span;
	size_t spans;
};

/*
 * Before a round: sets the placer's hints. In *@news, whether there is something
 * to be carried out. 0 or -ENOMEM.
 */
int hints_take(struct hints *hints, const struct hints_round *round, bool *news);

/* After a round that moved @moved pages. Whether heat must begin anew. */
bool hints_end(struct hints *hints, struct placer *placer, uint64_t moved);

void hints_destroy(struct hints *hints);

#endif /* FERRY_HINTS_H */
