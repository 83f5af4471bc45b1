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
 * Of the budget, the part that rounds do not come down to for good: they come the later,
 * the more of it is gone, and half of it stays, for at that point they cost what time
 * pays. Else there would soon be rounds that have nothing left to sample with, and that
 * use up by themselves what is paid. While it is not all known more is kept than when
 * something changes, which may be at any time.
 */
#define SEARCH_KEEPS 2
#define URGENT_KEEPS 8

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

/* In @paid_in time pays for a round. At least @least, and what keeps that part. */
static uint64_t keeping(const struct pace *pace, uint64_t paid_in, uint64_t least,
			int part)
{
	int64_t kept = budget_most(pace) / part, gone = kept - pace->left;
	double interval = 2.0 * (double)paid_in * (double)gone / (double)kept;

	return interval > (double)least ? (uint64_t)interval : least;
}

static uint64_t next(const struct pace *pace, const struct pace_round *round)
{
	uint64_t most = round->flat ? INTERVAL_FLAT : INTERVAL_MOST;
	uint64_t paid_in = round->cost_ns * 100 / pace->overhead;
	uint64_t interval = pace->interval + pace->interval / 2;

	if (round->learning)
		return keeping(pace, paid_in, PACE_LEARNING, URGENT_KEEPS);
	if (round->urgent)
		return keeping(pace, paid_in, PACE_LEAST, URGENT_KEEPS);
	if (!round->settled)
		return keeping(pace, paid_in, PACE_LEAST, SEARCH_KEEPS);
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
	return pace->left >= 0 ? 0 : (uint64_t)-pace->left * 100 / pace->overhead;
}
