/* SPDX-License-Identifier: MIT */
/*
 * Proves what the planner promises: HBM is filled with the hottest and no
 * more than it has room for, what differs by chance stays where it is, exchange
 * pays, limits hold; one plan at a time, and over many rounds of simulated
 * workloads with noise, in which HBM has to end with the hottest memory and
 * moves have to end too. One thread; no memory is moved.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/planner.h"

#define UNITS 1000
#define PAGES 512

static struct planner planner;
static struct plan_unit unit[UNITS];
static enum plan_move move[UNITS];

static const struct plan_limits quarter = {
	.fill = UNITS / 4 * PAGES, .keep = UNITS / 4 * PAGES, .most = UINT64_MAX};

static void all_in_ddr(float score)
{
	for (size_t i = 0; i < UNITS; i++)
		unit[i] = (struct plan_unit){.score = score,
					     .rate = 1,
					     .weight = 1,
					     .pages = PAGES,
					     .movable = true};
}

static void plan(const struct plan_limits *limits)
{
	planner_begin(&planner);
	for (size_t i = 0; i < UNITS; i++)
		planner_add(&planner, &unit[i]);
	planner_decide(&planner, limits);
	for (size_t i = 0; i < UNITS; i++)
		move[i] = planner_pick(&planner, &unit[i]);
}

static size_t count(enum plan_move wanted)
{
	size_t n = 0;

	for (size_t i = 0; i < UNITS; i++)
		n += move[i] == wanted;
	return n;
}

static void carry_out(void)
{
	for (size_t i = 0; i < UNITS; i++)
		if (move[i] != PLAN_STAY)
			unit[i].on_hbm = move[i] == PLAN_PROMOTE;
}

static size_t on_hbm(void)
{
	size_t n = 0;

	for (size_t i = 0; i < UNITS; i++)
		n += unit[i].on_hbm;
	return n;
}

/* ---- single plans -------------------------------------------------------- */

static void hot_ones_are_promoted(void **state)
{
	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS; i += 10)
		unit[i].score = 9;
	plan(&quarter);
	for (size_t i = 0; i < UNITS; i++)
		assert_int_equal(move[i], i % 10 ? PLAN_STAY : PLAN_PROMOTE);
	assert_false(planner.flat);
	assert_true(planner.reference == 1);
}

static void equally_hot_stays(void **state)
{
	(void)state;
	for (float score = 1e-6f; score < 1e9f; score *= 10) {
		all_in_ddr(score);
		for (size_t i = 0; i < UNITS; i++) {
			unit[i].score *= 0.8f + 0.4f * (float)(i % 7) / 7;
			unit[i].on_hbm = i % 4 == 1;
		}
		plan(&quarter);
		assert_int_equal(count(PLAN_STAY), UNITS);
		assert_true(planner.flat);
	}
	all_in_ddr(0);
	plan(&quarter);
	assert_int_equal(count(PLAN_STAY), UNITS);
}

/* A third seems colder, by few samples: the rest is not hot beside it. */
static void little_known_counts_little(void **state)
{
	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS; i++) {
		unit[i].weight = i % 3 ? 32 : 8;
		unit[i].score = i == 1 ? 1.8f : i % 3 ? 1 : 0.4f;
	}
	plan(&quarter);
	assert_int_equal(count(PLAN_STAY), UNITS);
	assert_true(planner.reference > 0.85f);
	for (size_t i = 0; i < UNITS; i++)
		unit[i].weight = 1;
	plan(&quarter);
	assert_int_equal(move[1], PLAN_PROMOTE);
}

/* Room is filled with what is as hot as the rest, if nothing is hotter, and that is all.
 */
static void level_memory_fills_room(void **state)
{
	struct plan_limits level = quarter;

	(void)state;
	level.level = true;
	all_in_ddr(1);
	for (size_t i = 0; i < 50; i++)
		unit[i].on_hbm = true;
	for (size_t i = 50; i < 100; i++)
		unit[i].score = 0.1f;
	plan(&quarter);
	assert_int_equal(count(PLAN_STAY), UNITS);
	plan(&level);
	assert_int_equal(count(PLAN_PROMOTE), UNITS / 4 - 50);
	assert_int_equal(count(PLAN_DEMOTE), 0);
	for (size_t i = 50; i < 100; i++)
		assert_int_equal(move[i], PLAN_STAY);
	carry_out();
	plan(&level);
	assert_int_equal(count(PLAN_STAY), UNITS);
	/* Something is hot: that alone moves, for one of those. */
	unit[0].on_hbm = false;
	for (size_t i = 200; i < 210; i++) {
		unit[i].on_hbm = false;
		unit[i].score = 9;
	}
	plan(&level);
	assert_int_equal(count(PLAN_PROMOTE), 10);
	all_in_ddr(0); /* idle */
	plan(&level);
	assert_int_equal(count(PLAN_STAY), UNITS);
}

static void all_that_fits_is_promoted(void **state)
{
	struct plan_limits all = {UNITS * PAGES, UNITS * PAGES, UINT64_MAX, false};

	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS; i += 2)
		unit[i].score = 0; /* not in use: not worth it */
	unit[1].movable = false;
	plan(&all);
	assert_int_equal(count(PLAN_PROMOTE), UNITS / 2 - 1);
	all.most = 10 * PAGES;
	plan(&all);
	assert_int_equal(count(PLAN_PROMOTE), 10);
}

static void room_is_kept(void **state)
{
	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS / 2; i++)
		unit[i].score = 10 + (float)i; /* more than there is room for */
	plan(&quarter);
	assert_int_equal(count(PLAN_PROMOTE), UNITS / 4);
	for (size_t i = 0; i < UNITS / 2 - UNITS / 4 - 64; i++)
		assert_int_equal(move[i],
				 PLAN_STAY); /* but for those of the last bucket */
}

static void the_colder_makes_room(void **state)
{
	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS / 4; i++) {
		unit[i].on_hbm = true;
		unit[i].score = i < 50 ? 0.1f : 20;
	}
	for (size_t i = 500; i < 530; i++)
		unit[i].score = 20;
	plan(&quarter);
	assert_int_equal(count(PLAN_PROMOTE), 30);
	assert_int_equal(count(PLAN_DEMOTE), 30);
	for (size_t i = 0; i < UNITS; i++) {
		if (move[i] == PLAN_DEMOTE)
			assert_true(i < 50);
		if (move[i] == PLAN_PROMOTE)
			assert_true(i >= 500 && i < 530);
	}
}

/* Not for a little more heat, nor for what is not known. */
static void exchange_has_to_pay(void **state)
{
	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS / 4; i++) {
		unit[i].on_hbm = true;
		unit[i].score = 12;
	}
	for (size_t i = 500; i < 600; i++)
		unit[i].score = 20;
	plan(&quarter);
	assert_int_equal(count(PLAN_STAY), UNITS);
	for (size_t i = 500; i < 600; i++)
		unit[i].score = 40;
	plan(&quarter);
	assert_int_equal(count(PLAN_PROMOTE), 100);
	assert_int_equal(count(PLAN_DEMOTE), 100);
	for (size_t i = 0; i < UNITS / 4; i++)
		unit[i].movable = false;
	plan(&quarter);
	assert_int_equal(count(PLAN_STAY), UNITS);
}

static void chance_is_no_heat(void **state)
{
	(void)state;
	all_in_ddr(0); /* idle, all of it */
	unit[3].score = 1;
	unit[3].rate = PLAN_LEAST_RATE / 2;
	unit[4].score = 1;
	unit[4].rate = PLAN_LEAST_RATE;
	unit[5].score = 1;
	unit[5].movable = false;
	plan(&quarter);
	assert_int_equal(move[3], PLAN_STAY);
	assert_int_equal(move[4], PLAN_PROMOTE);
	assert_int_equal(move[5], PLAN_STAY);
}

/* What is on its way to be worth a move is told, and not moved yet. */
static void what_stirs_is_told(void **state)
{
	(void)state;
	all_in_ddr(1);
	plan(&quarter);
	assert_int_equal(planner.stirring, 0);
	for (size_t i = 0; i < 30; i++)
		unit[i].score = 1.8f;
	unit[40].score = 1.3f; /* less than that */
	unit[41].score = 1.8f; /* in HBM */
	unit[41].on_hbm = true;
	plan(&quarter);
	assert_int_equal(planner.stirring, 30 * PAGES);
	assert_int_equal(count(PLAN_STAY), UNITS);
}

/* A limit that shrinks: the coldest leave, down to `fill`. */
static void too_much_leaves(void **state)
{
	struct plan_limits less = {100 * PAGES, 120 * PAGES, UINT64_MAX, false};

	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < 110; i++) {
		unit[i].on_hbm = true;
		unit[i].score = 1 + (float)i;
	}
	plan(&less);
	assert_int_equal(count(PLAN_STAY), UNITS);
	less.keep = 105 * PAGES;
	plan(&less);
	assert_int_equal(count(PLAN_DEMOTE), 10);
	for (size_t i = 0; i < UNITS; i++)
		if (move[i] == PLAN_DEMOTE)
			assert_true(i < 20);
	less = (struct plan_limits){0, 0, UINT64_MAX, false};
	plan(&less);
	assert_int_equal(count(PLAN_DEMOTE), 110);
}

static void no_more_than_most(void **state)
{
	struct plan_limits few = quarter;

	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < 200; i++)
		unit[i].score = i < 20 ? 64 : 16;
	few.most = 50 * PAGES;
	plan(&few);
	assert_int_equal(count(PLAN_PROMOTE), 50);
	for (size_t i = 0; i < 20; i++) /* the hottest first */
		assert_int_equal(move[i], PLAN_PROMOTE);
}

/* What does not fit as a whole stays: on HBM it would be too much, and would leave. */
static void whole_units_only(void **state)
{
	struct plan_limits limits = {10 * PAGES + PAGES / 2, 10 * PAGES + PAGES / 2,
				     UINT64_MAX, false};

	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < 20; i++)
		unit[i].score = 100;
	plan(&limits);
	assert_int_equal(count(PLAN_PROMOTE), 10);
	carry_out();
	plan(&limits);
	assert_int_equal(count(PLAN_STAY), UNITS);
	/* A smaller one does. */
	unit[500] = (struct plan_unit){.score = 100,
				       .rate = 1,
				       .weight = 1,
				       .pages = PAGES / 4,
				       .movable = true};
	plan(&limits);
	assert_int_equal(move[500], PLAN_PROMOTE);
	assert_int_equal(count(PLAN_STAY), UNITS - 1);
	/* Where it is not room that ends, but what may move now, one more is begun. */
	all_in_ddr(1);
	unit[7].score = 100;
	limits.most = 1;
	plan(&limits);
	assert_int_equal(move[7], PLAN_PROMOTE);
}

static void any_score_has_a_bucket(void **state)
{
	const float scores[] = {0, -1, 1e-38f, 1e-10f, 1, 1e10f, 1e38f, INFINITY};

	(void)state;
	for (size_t i = 0; i < sizeof(scores) / sizeof(scores[0]); i++) {
		all_in_ddr(scores[i]);
		plan(&quarter);
		assert_int_equal(planner.total, UNITS * PAGES);
		assert_int_equal(count(PLAN_DEMOTE), 0);
	}
	planner_begin(&planner);
	planner_decide(&planner, &quarter);
	assert_int_equal(planner.promote + planner.demote, 0);
}

/* ---- advice -------------------------------------------------------------- */

/* To its tier before all else, whatever its heat, and nothing moves it away. */
static void pinned_goes_first(void **state)
{
	struct plan_limits limits = quarter;

	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS / 4; i++) { /* HBM is full, of what is hot */
		unit[i].on_hbm = true;
		unit[i].score = 20;
	}
	unit[0].advice = unit[1].advice = FERRY_ADVICE_PIN_DDR;
	unit[900].advice = unit[901].advice = unit[902].advice = FERRY_ADVICE_PIN_HBM;
	unit[902].movable = false;
	unit[2].advice = FERRY_ADVICE_PIN_HBM;
	unit[2].score = 0;
	plan(&limits);
	assert_int_equal(move[0], PLAN_DEMOTE);
	assert_int_equal(move[1], PLAN_DEMOTE);
	assert_int_equal(move[900], PLAN_PROMOTE);
	assert_int_equal(move[901], PLAN_PROMOTE);
	assert_int_equal(move[902], PLAN_STAY);
	assert_int_equal(count(PLAN_STAY), UNITS - 4);
	carry_out();
	assert_int_equal(on_hbm(), UNITS / 4);
	/* With less room the pinned stay, and all others leave. */
	limits.fill = limits.keep = 2 * PAGES;
	plan(&limits);
	carry_out();
	assert_int_equal(on_hbm(), 3);
	assert_true(unit[2].on_hbm && unit[900].on_hbm && unit[901].on_hbm);
	/* More of it than fits: as much as fits. */
	for (size_t i = 100; i < UNITS; i++)
		unit[i].advice = FERRY_ADVICE_PIN_HBM;
	for (int round = 0; round < 3; round++) {
		plan(&quarter);
		carry_out();
		assert_int_equal(on_hbm(), UNITS / 4);
	}
	limits.most = 7 * PAGES;
	for (size_t i = 0; i < UNITS; i++)
		unit[i].advice = FERRY_ADVICE_PIN_DDR;
	plan(&limits);
	assert_int_equal(count(PLAN_DEMOTE), 7);
}

static void needed_is_the_hottest(void **state)
{
	struct plan_limits limits = quarter;

	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS / 4; i++) {
		unit[i].on_hbm = true;
		unit[i].score = i < 200 ? 1000 : 1;
	}
	for (size_t i = 500; i < 550; i++) {
		unit[i].advice = FERRY_ADVICE_WILL_NEED;
		unit[i].score = unit[i].rate = 0;
	}
	plan(&limits);
	assert_int_equal(count(PLAN_PROMOTE), 50);
	assert_int_equal(count(PLAN_DEMOTE), 50);
	carry_out();
	for (size_t i = 500; i < 550; i++)
		assert_true(unit[i].on_hbm);
	/* What the others are compared with is the same. */
	assert_true(planner.reference == 1);
	plan(&limits);
	assert_int_equal(count(PLAN_STAY), UNITS);
	/* The last to leave, but for what is pinned. */
	limits.fill = limits.keep = 60 * PAGES;
	plan(&limits);
	carry_out();
	assert_int_equal(on_hbm(), 60);
	for (size_t i = 500; i < 550; i++)
		assert_true(unit[i].on_hbm);
	limits.fill = limits.keep = 40 * PAGES;
	unit[500].advice = FERRY_ADVICE_PIN_HBM;
	plan(&limits);
	carry_out();
	assert_int_equal(on_hbm(), 40);
	assert_true(unit[500].on_hbm);
	/* All of it fits: so does this. */
	limits.fill = limits.keep = UNITS * PAGES;
	plan(&limits);
	carry_out();
	for (size_t i = 500; i < 550; i++)
		assert_true(unit[i].on_hbm);
}

static void cold_makes_room_and_does_not_come(void **state)
{
	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS / 4; i++) {
		unit[i].on_hbm = true;
		unit[i].score = 20;
	}
	unit[7].advice = unit[8].advice = FERRY_ADVICE_COLD;
	plan(&quarter); /* nobody needs the room */
	assert_int_equal(count(PLAN_STAY), UNITS);
	unit[900].score = 20;
	unit[901].score = 100;
	unit[901].advice = FERRY_ADVICE_COLD;
	plan(&quarter);
	assert_int_equal(move[900], PLAN_PROMOTE);
	assert_int_equal(move[901], PLAN_STAY);
	assert_int_equal(count(PLAN_DEMOTE), 1);
	assert_true(move[7] == PLAN_DEMOTE || move[8] == PLAN_DEMOTE);
}

/* ---- simulated workloads ------------------------------------------------- */

static unsigned int seed = 1;

static float noise(void)
{
	seed = seed * 1103515245 + 12345;
	return (float)(seed >> 8 & 0xffff) / 65536;
}

/*
 * Rounds of plans for units whose true heat is @heat; what the planner is told
 * of it is off by up to a seventh. The units moved.
 */
static size_t simulate(const float *heat, unsigned int rounds)
{
	size_t moved = 0;

	for (unsigned int i = 0; i < rounds; i++) {
		for (size_t k = 0; k < UNITS; k++)
			unit[k].score = heat[k] * (0.86f + noise() * 0.28f);
		plan(&quarter);
		carry_out();
		moved += UNITS - count(PLAN_STAY);
		assert_true(on_hbm() <= UNITS / 4);
	}
	return moved;
}

/* The share of all heat that is on HBM. */
static float served(const float *heat)
{
	float all = 0, served = 0;

	for (size_t i = 0; i < UNITS; i++) {
		all += heat[i];
		served += unit[i].on_hbm ? heat[i] : 0;
	}
	return served / all;
}

static void skewed_and_shifting(void **state)
{
	float heat[UNITS];

	(void)state;
	all_in_ddr(1);
	for (int phase = 0; phase < 10; phase++) {
		size_t moved;

		for (size_t i = 0; i < UNITS; i++)
			heat[i] = (i * 7 + (size_t)phase * 3) % 10 ? 1 : 81;
		moved = simulate(heat, 1);
		assert_true(served(heat) > 0.89f);
		/* A hundred come in; beyond the room that is left others go out. */
		assert_true(moved <= 200);
		assert_int_equal(simulate(heat, 20), 0);
	}
}

/* Zipf: heat 1/rank. The best quarter has some 0.8 of it. */
static void zipf(void **state)
{
	float heat[UNITS], best = 0, all = 0;

	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS; i++) {
		heat[(i * 377) % UNITS] = 1.0f / (float)(i + 1);
		all += 1.0f / (float)(i + 1);
		best += i < UNITS / 4 ? 1.0f / (float)(i + 1) : 0;
	}
	simulate(heat, 10);
	assert_true(served(heat) > 0.97f * best / all);
	assert_true(simulate(heat, 50) <= UNITS / 4 / 100);
}

/* More is hot than fits: HBM is full of it, and that is the end of it. */
static void more_hot_than_room(void **state)
{
	float heat[UNITS];

	(void)state;
	all_in_ddr(1);
	for (size_t i = 0; i < UNITS; i++)
		heat[i] = i % 2 ? 1 : 10;
	simulate(heat, 5);
	assert_true(on_hbm() >= UNITS / 4 - 1);
	for (size_t i = 0; i < UNITS; i++)
		if (unit[i].on_hbm)
			assert_int_equal(i % 2, 0);
	assert_int_equal(simulate(heat, 50), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hot_ones_are_promoted),
		cmocka_unit_test(equally_hot_stays),
		cmocka_unit_test(little_known_counts_little),
		cmocka_unit_test(level_memory_fills_room),
		cmocka_unit_test(all_that_fits_is_promoted),
		cmocka_unit_test(room_is_kept),
		cmocka_unit_test(the_colder_makes_room),
		cmocka_unit_test(exchange_has_to_pay),
		cmocka_unit_test(chance_is_no_heat),
		cmocka_unit_test(what_stirs_is_told),
		cmocka_unit_test(too_much_leaves),
		cmocka_unit_test(no_more_than_most),
		cmocka_unit_test(whole_units_only),
		cmocka_unit_test(any_score_has_a_bucket),
		cmocka_unit_test(pinned_goes_first),
		cmocka_unit_test(needed_is_the_hottest),
		cmocka_unit_test(cold_makes_room_and_does_not_come),
		cmocka_unit_test(skewed_and_shifting),
		cmocka_unit_test(zipf),
		cmocka_unit_test(more_hot_than_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
