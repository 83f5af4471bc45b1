/* SPDX-License-Identifier: MIT */
/* When rounds come, and what they may cost: see pace.h. Pure functions. */
#include "policy/pace.h"

#define MS UINT64_C(1000000)

/* The most from one round to the next, when all is as it should be; where it is flat. */
#define INTERVAL_MOST (1000 * MS)
#define INTERVAL_FLAT (5000 * MS)

/* The budget is kept on average over this time. */
#define BUDGET_NS (60000 * MS)
/* Of what is left of it, the most that one round takes. */
#define ROUND_PART 8

/*
 * There is always something left to sample with: rounds that have nothing for that use up
 * by themselves what is paid. While it is not all known rounds come the later, the more
 * of the first part of the budget is gone; half of that stays, for at that point they
 * cost what time pays, and something may change at any time. When it does they come
 * fast; and once it is all gone, not again before there is the second part.
 */
#define SEARCH_KEEPS 2
#define DEBT_LEAVES  32

static int64_t budget_most(const struct pace *pace)
{
	return (int64_t)(BUDGET_NS / 100 * pace->overhead);
}

void pace_begin(struct pace *pace, unsigned int overhead, uint64_t now)
{
	*pace = (struct pace){
		.overhead = overhead, .interval = PACE_LEAST, .paid_at = now};
	pace->left = budget_most(pace);
}

uint64_t pace_pay(struct pace *pace, uint64_t now)
{
	uint64_t passed = now - pace->paid_at;

	pace->left += (int64_t)(passed / 100 * pace->overhead);
	if (pace->left > budget_most(pace))
		pace->left = budget_most(pace);
	pace->paid_at = now;
	return passed;
}

uint64_t pace_round_ns(const struct pace *pace)
{
	return (uint64_t)(pace->left > 0 ? pace->left : 0) / ROUND_PART;
}

/* In @paid_in time pays for a round. */
static uint64_t search_interval(const struct pace *pace, uint64_t paid_in)
{
	int64_t kept = budget_most(pace) / SEARCH_KEEPS, gone = kept - pace->left;
	double interval = 2.0 * (double)paid_in * (double)gone / (double)kept;

	return interval > (double)PACE_LEAST ? (uint64_t)interval : PACE_LEAST;
}

static uint64_t next(const struct pace *pace, const struct pace_round *round)
{
	uint64_t most = round->flat ? INTERVAL_FLAT : INTERVAL_MOST;
	uint64_t paid_in = round->cost_ns * 100 / pace->overhead;
	uint64_t interval = pace->interval + pace->interval / 2;

	if (round->learning)
		return PACE_LEARNING;
	if (round->urgent)
		return PACE_LEAST;
	if (!round->settled)
		return search_interval(pace, paid_in);
	/* In peace half of what is paid is saved. */
	if (2 * paid_in > most)
		most = 2 * paid_in;
	return interval < most ? interval : most;
}

void pace_next(struct pace *pace, const struct pace_round *round)
{
	pace_extra(pace, round->cost_ns);
	pace->interval = next(pace, round);
}

void pace_extra(struct pace *pace, uint64_t cost_ns)
{
	pace->left -= (int64_t)cost_ns;
}

uint64_t pace_debt(const struct pace *pace)
{
	int64_t wanted = budget_most(pace) / DEBT_LEAVES;

	return pace->left >= 0 ? 0
			       : (uint64_t)(wanted - pace->left) * 100 / pace->overhead;
}
