/* SPDX-License-Identifier: MIT */
/* Proves that a range set is the set it claims to be: random additions,
 * removals and takes against a bitmap, and the shape of the array. One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "heap/range_set.h"

#define UNITS 2000 /* the bitmap's length */
#define UNIT  4096
#define BASE  ((uintptr_t)1 << 40)

static bool model[UNITS];

static uintptr_t at(size_t unit)
{
	return BASE + unit * UNIT;
}

/* The set holds what the model holds, in order, without touching neighbours. */
static void assert_same(const struct range_set *set)
{
	size_t unit = 0, bytes = 0;

	for (size_t i = 0; i < set->count; i++) {
		assert_true(set->span[i].start < set->span[i].end);
		if (i)
			assert_true(set->span[i - 1].end < set->span[i].start);
		for (; at(unit) < set->span[i].start; unit++)
			assert_false(model[unit]);
		for (; at(unit) < set->span[i].end; unit++)
			assert_true(model[unit]);
		bytes += set->span[i].end - set->span[i].start;
	}
	for (; unit < UNITS; unit++)
		assert_false(model[unit]);
	assert_int_equal(bytes, set->bytes);
}

static size_t count_model(size_t start, size_t end)
{
	size_t count = 0;

	for (; start < end; start++)
		count += model[start];
	return count;
}

/* The first aligned run of @size units, or UNITS. */
static size_t first_fit(size_t size, size_t alignment)
{
	for (size_t start = 0; start + size <= UNITS; start += alignment)
		if (count_model(start, start + size) == size)
			return start;
	return UNITS;
}

/* The first run of at least @least units from a multiple of @alignment within a window.
 */
static size_t first_piece(size_t least, size_t alignment, size_t window, size_t *size)
{
	for (size_t start = 0; start < UNITS; start += alignment) {
		*size = 0;
		while (start + *size < UNITS && model[start + *size] &&
		       (start + *size) / window == start / window)
			++*size;
		if (*size >= least)
			return start;
	}
	return UNITS;
}

/* That range_set_has() tells what follows @start, up to @end. */
static void assert_has(const struct range_set *set, size_t start, size_t end)
{
	uintptr_t until = at(end);
	size_t stop = start;

	if (start >= end)
		return;
	assert_int_equal(range_set_has(set, at(start), &until), model[start]);
	while (stop < end && model[stop] == model[start])
		stop++;
	assert_int_equal(until, at(stop));
}

static void random_operations(void **state)
{
	struct range_set set = {0};

	(void)state;
	srand(1);
	for (int i = 0; i < 20000; i++) {
		size_t start = (size_t)rand() % UNITS;
		size_t size = (size_t)rand() % (rand() % 8 ? 8 : 200);
		size_t end = start + size < UNITS ? start + size : UNITS;
		size_t alignment = (size_t)1 << rand() % 5, removed, expected;
		uintptr_t taken;

		switch (rand() % 4) {
		case 0:
			assert_int_equal(range_set_add(&set, at(start), at(end)), 0);
			memset(model + start, true, end - start);
			break;
		case 1:
			assert_has(&set, start, end);
			expected = count_model(start, end) * UNIT;
			assert_int_equal(range_set_overlap(&set, at(start), at(end)),
					 expected);
			assert_int_equal(
				range_set_remove(&set, at(start), at(end), &removed), 0);
			assert_int_equal(removed, expected);
			memset(model + start, false, end - start);
			break;
		case 2:
			size = size ? size : 1;
			expected = first_fit(size, alignment);
			taken = range_set_take(&set, size * UNIT, alignment * UNIT);
			if (expected == UNITS) {
				assert_int_equal(taken, 0);
				break;
			}
			assert_int_equal(taken, at(expected));
			memset(model + expected, false, size);
			break;
		case 3: {
			size_t window = alignment << rand() % 3, got = 0;

			expected = first_piece(alignment, alignment, window, &size);
			taken = range_set_take_piece(&set, alignment * UNIT,
						     alignment * UNIT, window * UNIT,
						     &got);
			if (expected == UNITS) {
				assert_int_equal(taken, 0);
				break;
			}
			assert_int_equal(taken, at(expected));
			assert_int_equal(got, size * UNIT);
			memset(model + expected, false, size);
			break;
		}
		}
		if (i % 16 == 0)
			assert_same(&set);
	}
	assert_same(&set);
	range_set_destroy(&set);
	assert_int_equal(set.count, 0);
}

/* More spans than fit into the first page of the array. */
static void grows(void **state)
{
	struct range_set set = {0};
	size_t removed;

	(void)state;
	for (size_t i = 0; i < 10000; i++)
		assert_int_equal(range_set_add(&set, at(2 * i), at(2 * i + 1)), 0);
	assert_int_equal(set.count, 10000);
	for (size_t i = 0; i < 10000; i++)
		assert_int_equal(set.span[i].start, at(2 * i));
	assert_int_equal(range_set_add(&set, at(0), at(20000)), 0);
	assert_int_equal(set.count, 1);
	assert_int_equal(range_set_remove(&set, 0, UINTPTR_MAX, &removed), 0);
	assert_int_equal(removed, 20000 * UNIT);
	assert_int_equal(set.count, 0);
	range_set_destroy(&set);
}

static void nothing(void **state)
{
	struct range_set set = {0};
	size_t removed = 1;

	(void)state;
	assert_int_equal(range_set_take(&set, UNIT, UNIT), 0);
	assert_int_equal(range_set_remove(&set, at(0), at(5), &removed), 0);
	assert_int_equal(removed, 0);
	assert_int_equal(range_set_add(&set, at(3), at(3)), 0);
	assert_int_equal(set.count, 0);
	assert_int_equal(range_set_add(&set, at(0), at(1)), 0);
	/* sizes and alignments beyond what there is, up to the largest */
	assert_int_equal(range_set_take(&set, SIZE_MAX, UNIT), 0);
	assert_int_equal(range_set_take(&set, UNIT, (size_t)1 << 63), 0);
	assert_int_equal(range_set_take(&set, UNIT, UNIT), at(0));
	range_set_destroy(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations),
		cmocka_unit_test(grows),
		cmocka_unit_test(nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
