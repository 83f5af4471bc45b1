/* SPDX-License-Identifier: MIT */
/*
 * Proves that heat follows what samples tell, forgets, begins anew where the
 * memory or the window is another, and costs less than a thousandth of what is
 * managed, a TiB of scattered memory included. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include <string.h>
#include <sys/resource.h>

#include "policy/heat.h"

#define SOMEWHERE ((uintptr_t)0x7f0000000000)

static struct sample samples[GRANULE_BLOCKS];

/* All blocks alike: of 16 pages each @accessed, all in a huge page or none. */
static void fill(uint8_t accessed, bool huge)
{
	for (size_t i = 0; i < GRANULE_BLOCKS; i++)
		samples[i] = (struct sample){.present = BLOCK_PAGES,
					     .watched = BLOCK_PAGES,
					     .accessed = accessed,
					     .huge = huge ? BLOCK_PAGES : 0};
}

static void note(struct granule *granule, unsigned int times, uint8_t length)
{
	for (unsigned int i = 0; i < times; i++)
		heat_note(granule, samples, 0, GRANULE_BLOCKS, length);
}

static void means_and_forgets(void **state)
{
	struct granule granule = {0};

	(void)state;
	fill(4, false);
	note(&granule, 2, 1);
	assert_false(heat_is_known(&granule));
	fill(12, false);
	note(&granule, 2, 1);
	assert_true(heat_is_known(&granule));
	/* The mean of the first four: 4, 4, 12, 12 of 16. */
	assert_in_range(granule.mean, 65535 / 2 - 3, 65535 / 2 + 3);
	assert_int_equal(granule.pages, GRANULE_PAGES);
	fill(0, false);
	note(&granule, 4, 1);
	assert_in_range(granule.mean, 65535 / 2 * 0.3, 65535 / 2 * 0.33);
	note(&granule, 40, 1);
	assert_in_range(granule.mean, 0, 8);
}

static void blocks_differ(void **state)
{
	struct granule granule = {0};

	(void)state;
	fill(0, false);
	samples[7].accessed = BLOCK_PAGES;
	samples[9].present = samples[9].watched = 0;
	note(&granule, 8, 1);
	for (size_t i = 0; i < GRANULE_BLOCKS; i++)
		assert_in_range(granule.heat[i], i == 7 ? 65000 : 0, i == 7 ? 65535 : 0);
	assert_int_equal(granule.pages, GRANULE_PAGES - BLOCK_PAGES);
	/* A part of the granule only: the rest stays. */
	fill(BLOCK_PAGES, false);
	heat_note(&granule, samples, 8, 1, 1);
	assert_true(granule.heat[7] > 65000 && granule.heat[8] > 10000);
	assert_int_equal(granule.heat[10], 0);
}

/* Nothing but counts: they begin anew as samples do, and tell nothing of heat. */
static void counts(void **state)
{
	struct granule granule = {0};

	(void)state;
	fill(0, false);
	for (size_t i = 0; i < GRANULE_BLOCKS; i++)
		samples[i].watched = 0;
	heat_count(&granule, samples, 0, GRANULE_BLOCKS, 1);
	assert_true(granule.counted);
	assert_int_equal(granule.windows, 0);
	assert_int_equal(granule.present[3], BLOCK_PAGES);
	heat_see(&granule, 1, 0.5f);
	heat_count(&granule, samples, 0, GRANULE_BLOCKS, 1);
	assert_int_equal(granule.windows, 1);
	heat_count(&granule, samples, 0, GRANULE_BLOCKS, 2); /* used for something else */
	assert_int_equal(granule.windows, 0);
	assert_true(granule.seconds == 0);
	heat_see(&granule, 0, 0.5f);
	heat_see(&granule, 1, 0.001f);
	assert_true(granule.doubted && granule.hotter.sum > 0);
	for (size_t i = 0; i < GRANULE_BLOCKS; i++)
		samples[i].present = 0;
	heat_count(&granule, samples, 0, GRANULE_BLOCKS, 2); /* other pages */
	assert_false(granule.counted);
	assert_true(!granule.doubted && granule.hotter.sum == 0);
	assert_int_equal(granule.windows, 0);
}

static bool is_about(float value, float wanted)
{
	return value > 0.9f * wanted && value < 1.1f * wanted;
}

/* The rate is that of accesses, however long each was waited for. */
static void times_accesses(void **state)
{
	struct granule granule = {0};

	(void)state;
	assert_true(is_about(heat_seen_rate(&granule, 3), 3)); /* like the others */
	for (int i = 0; i < 200; i++)
		heat_see(&granule, i % 2 != 0, i % 2 ? 0.01f : 0.03f);
	assert_true(is_about(heat_seen_rate(&granule, 25), 25));
	assert_int_equal(granule.windows, HEAT_SIGHTINGS);
	assert_int_equal(heat_compare(&granule, 25), 0);
	assert_int_equal(heat_compare(&granule, 12), 1);
	assert_int_equal(heat_compare(&granule, 50), -1);
	/* What was never seen accessed is known for cold in time, and for idle. */
	granule = (struct granule){0};
	heat_see(&granule, 0, 0.1f);
	assert_int_equal(heat_compare(&granule, 10), 0);
	heat_see(&granule, 0, 0.1f);
	assert_int_equal(heat_compare(&granule, 10), -1);
	assert_true(heat_seen_rate(&granule, 5) > 0);
	heat_see(&granule, 0, 1);
	assert_true(heat_seen_rate(&granule, 5) == 0);
}

/* Four accesses in a row are soon enough chance; it takes more to be called hot. */
static void chance_is_not_heat(void **state)
{
	struct granule granule = {0};

	(void)state;
	for (int i = 0; i < 4; i++) {
		heat_see(&granule, 1, 0.001f);
		assert_int_equal(heat_compare(&granule, 1), 0);
	}
	heat_see(&granule, 1, 0.001f);
	assert_int_equal(heat_compare(&granule, 1), 1);
}

/* Sees memory for a window at most, which is accessed at @rate. */
static bool see_at(struct granule *granule, float rate)
{
	static unsigned int random = 1;
	float wait;

	random = random * 1664525 + 1013904223;
	wait = -logf(((float)(random >> 8) + 0.5f) / (1 << 24)) / rate;
	return wait < 0.2f ? heat_see(granule, 1, wait) : heat_see(granule, 0, 0.2f);
}

/* Sightings until it is found that memory is used otherwise; @most: it was not. */
static int sightings_until_found(struct granule *granule, float rate, int most)
{
	for (int i = 1; i < most; i++)
		if (see_at(granule, rate))
			return i;
	return most;
}

/* Cold memory that becomes hot, and the other way round, after a handful of sightings. */
static void follows_changes(void **state)
{
	int hot = 0, cold = 0;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		struct granule granule = {0};

		for (int k = 0; k < 100; k++)
			see_at(&granule, 2);
		assert_true(sightings_until_found(&granule, 100, 20) <= 10);
		for (int k = 0; k < 10; k++)
			see_at(&granule, 100);
		hot += heat_compare(&granule, 8) > 0;
		assert_true(sightings_until_found(&granule, 0.1f, 20) <= 6);
		for (int k = 0; k < 20; k++)
			see_at(&granule, 0.1f);
		cold += heat_compare(&granule, 8) < 0;
	}
	assert_in_range(hot, 980, 1000);
	assert_in_range(cold, 980, 1000);
}

/* Memory that is used as before seldom seems not to be, and is hot by that hardly ever.
 */
static void chance_is_no_change(void **state)
{
	int changes = 0, hot = 0;
	const int many = 200000;

	(void)state;
	for (float rate = 0.5f; rate < 20; rate *= 2) {
		struct granule granule = {0};

		for (int i = 0; i < many; i++) {
			changes += see_at(&granule, rate);
			hot += heat_compare(&granule, 2 * rate) > 0;
		}
	}
	assert_in_range(changes, 0, 6 * many / 2000);
	assert_in_range(hot, 0, 6 * many / 2000);
}

/* That nothing is accessed a moment counts for nothing: the program may not have run. */
static void a_pause_is_no_change(void **state)
{
	struct granule granule = {0};
	float accesses, seconds;

	(void)state;
	for (int i = 0; i < 100; i++)
		see_at(&granule, 100);
	accesses = granule.accesses;
	seconds = granule.seconds;
	assert_false(heat_see(&granule, 0, 0.2f));
	assert_false(heat_see(&granule, 0, 0.2f));
	assert_true(granule.doubted);
	assert_true(granule.accesses == accesses && granule.seconds == seconds);
	for (int i = 0; i < 5; i++)
		assert_false(see_at(&granule, 100));
	assert_false(heat_is_otherwise(&granule));
	assert_int_equal(heat_compare(&granule, 25), 1);
}

static void begins_anew(void **state)
{
	struct granule granule = {0};

	(void)state;
	fill(8, false);
	note(&granule, HEAT_WINDOWS_SMALL, 1);
	assert_true(heat_is_known(&granule));
	note(&granule, 1, 2); /* another window */
	assert_false(heat_is_known(&granule));
	note(&granule, HEAT_WINDOWS_SMALL, 2);
	assert_true(heat_is_known(&granule));

	granule.placed_known = true;
	for (size_t i = 0; i < 8; i++) /* a quarter of the pages is gone */
		samples[i].present = samples[i].watched = samples[i].accessed = 0;
	note(&granule, 1, 2);
	assert_false(heat_is_known(&granule));
	assert_false(granule.placed_known);

	fill(8, true);
	note(&granule, 1, 2);
	assert_true(granule.huge);
	note(&granule, HEAT_WINDOWS_SMALL + 1, 2);
	assert_false(heat_is_known(&granule)); /* it has less to tell */
	note(&granule, HEAT_WINDOWS_HUGE, 2);
	assert_true(heat_is_known(&granule));
	for (size_t i = 1; i < GRANULE_BLOCKS; i++)
		assert_int_equal(granule.heat[i], granule.heat[0]);
}

static void rates(void **state)
{
	float before = -1;

	(void)state;
	assert_true(heat_rate(0) == 0);
	for (uint32_t share = 0; share <= 65535; share += 15) {
		float rate = heat_rate((uint16_t)share);

		assert_true(rate >= before && rate <= HEAT_MOST_RATE);
		before = rate;
	}
	/* 1 - 2^-n */
	assert_true(heat_rate(32768) > 0.99f && heat_rate(32768) < 1.01f);
	assert_true(heat_rate(49152) > 1.99f && heat_rate(49152) < 2.01f);
	assert_true(heat_rate(57344) > 2.99f && heat_rate(57344) < 3.01f);
	assert_true(heat_rate(65535) == HEAT_MOST_RATE);
}

static void addresses(void **state)
{
	struct heat heat = {0};
	struct granule *granule;

	(void)state;
	assert_null(heat_granule(&heat, SOMEWHERE, false));
	assert_int_equal(heat.bytes, 0);
	granule = heat_granule(&heat, SOMEWHERE + 12345, true);
	assert_non_null(granule);
	assert_ptr_equal(heat_granule(&heat, SOMEWHERE + GRANULE_BYTES - 1, false),
			 granule);
	assert_ptr_equal(heat_granule(&heat, SOMEWHERE + GRANULE_BYTES, true),
			 granule + 1);
	assert_non_null(heat_granule(&heat, ((uintptr_t)1 << 47) - 1, true));
	assert_null(heat_granule(&heat, (uintptr_t)1 << 47, true));
	heat_destroy(&heat);
	assert_null(heat_granule(&heat, SOMEWHERE, false));
}

static size_t resident_bytes(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (size_t)usage.ru_maxrss << 10;
}

/* A TiB in pieces of 4 GiB all over the address space. */
static void tebibyte(void **state)
{
	const size_t piece = (size_t)4 << 30, pieces = 256;
	size_t before = resident_bytes();
	struct heat heat = {0};

	(void)state;
	fill(3, false);
	for (size_t i = 0; i < pieces; i++)
		for (size_t at = 0; at < piece; at += GRANULE_BYTES) {
			struct granule *granule = heat_granule(
				&heat, ((uintptr_t)1 << 36) + i * 16 * piece + at, true);

			assert_non_null(granule);
			heat_note(granule, samples, 0, GRANULE_BLOCKS, 1);
		}
#ifdef __SANITIZE_THREAD__
	before = resident_bytes(); /* its shadow of what is touched is large */
#endif
	assert_true(resident_bytes() - before < pieces * piece / 10000);
	heat_destroy(&heat);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(means_and_forgets),
		cmocka_unit_test(blocks_differ),
		cmocka_unit_test(counts),
		cmocka_unit_test(times_accesses),
		cmocka_unit_test(chance_is_not_heat),
		cmocka_unit_test(follows_changes),
		cmocka_unit_test(chance_is_no_change),
		cmocka_unit_test(a_pause_is_no_change),
		cmocka_unit_test(begins_anew),
		cmocka_unit_test(rates),
		cmocka_unit_test(addresses),
		cmocka_unit_test(tebibyte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
