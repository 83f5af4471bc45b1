/* SPDX-License-Identifier: MIT */
/*
 * Proves that the record of advice has the latest word on each byte and loses
 * what is freed, and that phases nest and are told apart by name. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "policy/advice.h"
#include "policy/phase.h"

#define K ((uintptr_t)1024)
#define M (K * K)

static struct advised list[64];
static size_t count;

static void look(void)
{
	count = advice_list(list, 64);
	assert_in_range(count, 0, 64);
}

static void assert_entry(size_t i, uintptr_t start, uintptr_t end,
			 enum ferry_advice advice)
{
	assert_true(i < count);
	assert_int_equal(list[i].start, start);
	assert_int_equal(list[i].end, end);
	assert_int_equal(list[i].advice, advice);
}

static void the_latest_counts(void **state)
{
	unsigned int before = advice_changes();

	(void)state;
	assert_int_equal(advice_set(10 * M, 20 * M, FERRY_ADVICE_WILL_NEED), 0);
	assert_int_equal(advice_set(12 * M, 14 * M, FERRY_ADVICE_PIN_DDR), 0);
	assert_int_equal(advice_set(30 * M, 31 * M, FERRY_ADVICE_COLD), 0);
	assert_int_equal(advice_set(16 * M, 17 * M, FERRY_ADVICE_NONE), 0);
	assert_true(advice_changes() != before);
	look();
	assert_int_equal(count, 5);
	assert_entry(0, 10 * M, 12 * M, FERRY_ADVICE_WILL_NEED);
	assert_entry(1, 12 * M, 14 * M, FERRY_ADVICE_PIN_DDR);
	assert_entry(2, 14 * M, 16 * M, FERRY_ADVICE_WILL_NEED);
	assert_entry(3, 17 * M, 20 * M, FERRY_ADVICE_WILL_NEED);
	assert_entry(4, 30 * M, 31 * M, FERRY_ADVICE_COLD);
	assert_int_equal(advice_list(list, 2), 5); /* and no more are written */
	/* Over all of it. */
	assert_int_equal(advice_set(9 * M, 40 * M, FERRY_ADVICE_PIN_HBM), 0);
	look();
	assert_int_equal(count, 1);
	assert_entry(0, 9 * M, 40 * M, FERRY_ADVICE_PIN_HBM);
}

static void what_is_freed_is_gone(void **state)
{
	unsigned int before;

	(void)state;
	assert_int_equal(advice_set(0, 100 * M, FERRY_ADVICE_NONE), 0);
	assert_int_equal(advice_set(10 * M, 20 * M, FERRY_ADVICE_PIN_HBM), 0);
	before = advice_changes();
	advice_forget(0, 10 * M);
	advice_forget(20 * M, 30 * M);
	assert_int_equal(advice_changes(), before);
	advice_forget(15 * M, 15 * M + 100);
	assert_true(advice_changes() != before);
	look();
	assert_int_equal(count, 2);
	assert_entry(0, 10 * M, 15 * M, FERRY_ADVICE_PIN_HBM);
	assert_entry(1, 15 * M + 100, 20 * M, FERRY_ADVICE_PIN_HBM);
	advice_forget(0, UINTPTR_MAX);
	look();
	assert_int_equal(count, 0);
}

static void most_of_a_unit_counts(void **state)
{
	bool alike;

	(void)state;
	assert_int_equal(advice_set(10 * M, 12 * M + 10, FERRY_ADVICE_PIN_HBM), 0);
	assert_int_equal(advice_set(14 * M, 15 * M, FERRY_ADVICE_COLD), 0);
	look();
	assert_int_equal(advice_of(list, count, 8 * M, 10 * M, &alike),
			 FERRY_ADVICE_NONE);
	assert_true(alike);
	assert_int_equal(advice_of(list, count, 10 * M, 12 * M, &alike),
			 FERRY_ADVICE_PIN_HBM);
	assert_true(alike);
	/* A few bytes of it are enough where there is nothing else. */
	assert_int_equal(advice_of(list, count, 12 * M, 14 * M, &alike),
			 FERRY_ADVICE_PIN_HBM);
	assert_false(alike);
	assert_int_equal(advice_of(list, count, 12 * M, 16 * M, &alike),
			 FERRY_ADVICE_COLD);
	assert_false(alike);
	advice_forget(0, UINTPTR_MAX);
}

static void many_ranges(void **state)
{
	(void)state;
	for (uintptr_t i = 0; i < 10000; i++)
		assert_int_equal(
			advice_set(M + i * 2 * K, M + i * 2 * K + K,
				   i % 2 ? FERRY_ADVICE_COLD : FERRY_ADVICE_WILL_NEED),
			0);
	assert_int_equal(advice_list(NULL, 0), 10000);
	assert_int_equal(advice_set(M + 3 * K, M + 4 * K + 1, FERRY_ADVICE_NONE), 0);
	assert_int_equal(advice_list(NULL, 0), 10000);
	advice_forget(0, UINTPTR_MAX);
	assert_int_equal(advice_list(NULL, 0), 0);
}

/* ---- phases -------------------------------------------------------------- */

static void phases_nest(void **state)
{
	struct phase a, b;

	(void)state;
	assert_int_equal(phase_now().id, 0);
	assert_int_equal(phase_begin("a"), 0);
	a = phase_now();
	assert_true(a.id && a.begun);
	assert_int_equal(phase_begin("b"), 0);
	b = phase_now();
	assert_true(b.id != a.id && b.slot != a.slot);
	assert_int_equal(phase_end("a"), -EINVAL); /* b is the innermost */
	assert_int_equal(phase_now().id, b.id);
	assert_int_equal(phase_end("b"), 0);
	assert_int_equal(phase_now().id, a.id);
	assert_int_equal(phase_end("a"), 0);
	assert_int_equal(phase_now().id, 0);
	assert_int_equal(phase_end("a"), -EINVAL);
	assert_int_equal(phase_begin("b"), 0); /* the one it was */
	assert_int_equal(phase_now().id, b.id);
	assert_int_equal(phase_end("b"), 0);
	for (int i = 0; i < PHASE_DEPTH; i++)
		assert_int_equal(phase_begin("deep"), 0);
	assert_int_equal(phase_begin("deep"), -ENOSPC);
	for (int i = 0; i < PHASE_DEPTH; i++)
		assert_int_equal(phase_end("deep"), 0);
}

static void prefetch_comes_first(void **state)
{
	struct phase now;

	(void)state;
	assert_int_equal(phase_begin("a"), 0);
	assert_int_equal(phase_prefetch("b"), 0);
	now = phase_now();
	assert_true(now.id && !now.begun);
	assert_int_equal(phase_end("a"), 0);
	assert_int_equal(phase_now().id, now.id);
	assert_int_equal(phase_begin("b"), 0);
	assert_int_equal(phase_now().id, now.id);
	assert_true(phase_now().begun);
	assert_int_equal(phase_end("b"), 0);
	/* Another phase than was said: that one counts. */
	assert_int_equal(phase_prefetch("a"), 0);
	assert_int_equal(phase_begin("b"), 0);
	assert_int_equal(phase_now().id, now.id);
	assert_int_equal(phase_end("b"), 0);
	assert_int_equal(phase_now().id, 0);
}

static void the_oldest_is_forgotten(void **state)
{
	struct phase outer, now;
	char name[16];

	(void)state;
	assert_int_equal(phase_begin("outer"), 0);
	outer = phase_now();
	for (int i = 0; i < 3 * PHASES; i++) {
		snprintf(name, sizeof(name), "phase %d", i);
		assert_int_equal(phase_begin(name), 0);
		now = phase_now();
		assert_true(now.id != outer.id && now.slot != outer.slot);
		assert_int_equal(phase_end(name), 0);
	}
	/* Not one that has begun. */
	assert_int_equal(phase_now().id, outer.id);
	assert_int_equal(phase_end("outer"), 0);
	assert_int_equal(phase_begin(name), 0);
	assert_int_equal(phase_now().id, now.id);
	assert_int_equal(phase_end(name), 0);
	assert_int_equal(phase_begin("phase 0"), 0);
	assert_true(phase_now().id > now.id);
	assert_int_equal(phase_end("phase 0"), 0);
}

static void wrong_names(void **state)
{
	char name[PHASE_NAME + 1];

	(void)state;
	memset(name, 'x', sizeof(name));
	name[PHASE_NAME] = '\0';
	assert_int_equal(phase_begin(NULL), -EINVAL);
	assert_int_equal(phase_begin(""), -EINVAL);
	assert_int_equal(phase_begin(name), -EINVAL);
	assert_int_equal(phase_prefetch(name), -EINVAL);
	assert_int_equal(phase_end(name), -EINVAL);
	name[PHASE_NAME - 1] = '\0';
	assert_int_equal(phase_begin(name), 0);
	assert_int_equal(phase_end(name), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_latest_counts),
		cmocka_unit_test(what_is_freed_is_gone),
		cmocka_unit_test(most_of_a_unit_counts),
		cmocka_unit_test(many_ranges),
		cmocka_unit_test(phases_nest),
		cmocka_unit_test(prefetch_comes_first),
		cmocka_unit_test(the_oldest_is_forgotten),
		cmocka_unit_test(wrong_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
