/* SPDX-License-Identifier: MIT */
/*
 * When rounds of a policy come, and what they may cost: a budget of CPU time, which time
 * pays into and rounds are paid from. It is kept on average over a minute, so that much
 * of it may be used at once while something changes.
 *
 * Times are in ns. One thread's; pure functions on values.
 */
#ifndef FERRY_PACE_H
#define FERRY_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* From one round to the next, at least, when it is urgent, and when it is more so. */
#define PACE_LEAST    UINT64_C(100000000)
#define PACE_LEARNING UINT64_C(25000000)

struct pace {
	unsigned int overhead; /* percent of one CPU */
	uint64_t interval;     /* to the next round */
	int64_t left;          /* CPU time that may be used now */
	uint64_t paid_at;      /* when time paid last */
};

/* A round that was. */
struct pace_round {
	uint64_t cost_ns;
	bool learning; /* it takes many of them to know, and they are not there yet */
	bool urgent;   /* something changes */
	bool settled;  /* all is known */
	bool flat;     /* there is nothing to choose between */
};

/* Begins with a whole minute's budget. */
void pace_begin(struct pace *pace, unsigned int overhead, uint64_t now);

/* Time pays; the ns since it did last. */
uint64_t pace_pay(struct pace *pace, uint64_t now);

/* Of what is left, as much as one round may use to sample. */
uint64_t pace_round_ns(const struct pace *pace);

/* Pays for a round; sets the interval to the next one. */
void pace_next(struct pace *pace, const struct pace_round *round);

/* Pays for one that came before its time. */
void pace_extra(struct pace *pace, uint64_t cost_ns);

/* Where the budget is overdrawn, how long to wait until there is something again. */
uint64_t pace_debt(const struct pace *pace);

#endif /* FERRY_PACE_H */
