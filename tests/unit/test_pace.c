/* SPDX-License-Identifier: MIT */
/*
 * Proves that rounds keep to their budget, and that however long they go on there is
 * something left: to sample with, and for when something changes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "policy/pace.h"

#define MS       UINT64_C(1000000)
#define SECOND   (1000 * MS)
#define MINUTE   (60 * SECOND)
#define OVERHEAD 2
/* What a round costs before it samples, and what it samples for if it may. */
#define FIXED_NS  (2 * MS)
#define SAMPLE_NS (10 * MS)

struct run {
	struct pace pace;
	uint64_t now, spent, sampled;
	unsigned int rounds;
};

static void begin(struct run *run)
{
	*run = (struct run){.now = 5 * SECOND};
	pace_begin(&run->pace, OVERHEAD, run->now);
}

/* Rounds as @kind until @until. */
static void go_on(struct run *run, struct pace_round kind, uint64_t until)
{
	run->spent = run->sampled = run->rounds = 0;
	while (run->now < until) {
		uint64_t sample = SAMPLE_NS, debt;

		pace_pay(&run->pace, run->now);
		if (sample > pace_round_ns(&run->pace))
			sample = pace_round_ns(&run->pace);
		kind.cost_ns = FIXED_NS + sample;
		run->spent += kind.cost_ns;
		run->sampled += sample;
		run->rounds++;
		pace_next(&run->pace, &kind);
		debt = pace_debt(&run->pace);
		run->now += debt > run->pace.interval ? debt : run->pace.interval;
	}
}

static uint64_t paid(uint64_t ns)
{
	return ns / 100 * OVERHEAD;
}

/* Where it is never all known, rounds go on, and are most of them samples. */
static void search_never_starves(void **state)
{
	const struct pace_round kind = {.settled = false};
	struct run run;

	(void)state;
	begin(&run);
	go_on(&run, kind, run.now + MINUTE);
	assert_true(run.spent <= paid(2 * MINUTE));
	for (int i = 0; i < 60; i++) {
		uint64_t from = run.now;

		go_on(&run, kind, run.now + 10 * SECOND);
		assert_true(run.spent <= paid(run.now - from) * 3 / 2);
		assert_true(run.sampled >= paid(run.now - from) / 2);
	}
}

/* Then something changes: there is enough for two seconds of fast rounds. */
static void search_leaves_something(void **state)
{
	const struct pace_round search = {.settled = false}, change = {.urgent = true};
	struct run run;

	(void)state;
	begin(&run);
	go_on(&run, search, run.now + 10 * MINUTE);
	go_on(&run, change, run.now + 2 * SECOND);
	assert_true(run.rounds >= 19);
	assert_true(run.sampled == run.rounds * SAMPLE_NS);
}

/* And if it never stops changing, the budget is kept all the same. */
static void change_never_starves(void **state)
{
	const struct pace_round change = {.urgent = true}, learn = {.learning = true};
	struct run run;

	(void)state;
	begin(&run);
	go_on(&run, change, run.now + 10 * MINUTE);
	assert_true(run.spent <= paid(11 * MINUTE) + FIXED_NS + SAMPLE_NS);
	go_on(&run, learn, run.now + MINUTE);
	assert_true(run.spent <= paid(MINUTE) * 5 / 4);
	assert_true(run.sampled >= paid(MINUTE) / 2);
}

/* All is known: rounds become rare, and half of what is paid is saved. */
static void peace_saves(void **state)
{
	const struct pace_round peace = {.settled = true};
	const struct pace_round flat = {.settled = true, .flat = true};
	struct run run;

	(void)state;
	begin(&run);
	go_on(&run, peace, run.now + MINUTE);
	go_on(&run, peace, run.now + 10 * MINUTE);
	assert_true(run.spent <= paid(10 * MINUTE) / 2 + FIXED_NS + SAMPLE_NS);
	assert_true(run.rounds >= 490);
	go_on(&run, flat, run.now + MINUTE);
	go_on(&run, flat, run.now + 10 * MINUTE);
	assert_in_range(run.rounds, 110, 125);
}

/* What was spent beyond the budget is waited for. */
static void debt_is_paid(void **state)
{
	const struct pace_round round = {.cost_ns = 10 * SECOND, .urgent = true};
	struct run run;
	uint64_t debt;

	(void)state;
	begin(&run);
	pace_next(&run.pace, &round);
	assert_int_equal(pace_round_ns(&run.pace), 0);
	debt = pace_debt(&run.pace);
	assert_in_range(debt, 500 * SECOND - MINUTE, 502 * SECOND - MINUTE);
	assert_int_equal(pace_pay(&run.pace, run.now + debt), debt);
	assert_int_equal(pace_debt(&run.pace), 0);
	/* Enough of it that a round may sample. */
	assert_true(pace_round_ns(&run.pace) > FIXED_NS);
	pace_extra(&run.pace, 30 * MS);
	assert_int_equal(pace_debt(&run.pace), 0);
	pace_extra(&run.pace, 30 * MS);
	assert_true(pace_debt(&run.pace) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(search_never_starves),
		cmocka_unit_test(search_leaves_something),
		cmocka_unit_test(change_never_starves),
		cmocka_unit_test(peace_saves),
		cmocka_unit_test(debt_is_paid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
