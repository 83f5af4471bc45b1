/* SPDX-License-Identifier: MIT */
/*
 * Phases that the program marks (ferry_phase_begin() and its kin): which one it
 * is in, and which it is to be got ready for. What memory a phase had on HBM is
 * remembered by the policy's thread, see auto.c.
 *
 * Phases nest; the innermost counts. The table holds PHASES of them; for one
 * more, that which was named longest ago is forgotten.
 *
 * One lock, under which nothing else is taken and nothing allocated.
 * phase_fork_* hold it over fork(2), and a child is in the same phases.
 */
#ifndef FERRY_PHASE_H
#define FERRY_PHASE_H

#include <stdbool.h>
#include <stdint.h>

#define PHASES      32
#define PHASE_DEPTH 16
#define PHASE_NAME  64 /* with its end */

/* 0, or -errno as ferry.h says. */
int phase_begin(const char *name);
int phase_end(const char *name);
int phase_prefetch(const char *name);

/* The phase that memory is to be placed for. */
struct phase {
	uint64_t id;       /* never used again for another; 0: none */
	unsigned int slot; /* in the table: below PHASES */
	bool begun;        /* false: only got ready for */
};

struct phase phase_now(void);

void phase_fork_prepare(void);
void phase_fork_done(void);

#endif /* FERRY_PHASE_H */
