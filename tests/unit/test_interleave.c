/* SPDX-License-Identifier: MIT */
/*
 * Proves how interleaving is chosen, from weights in a copy of sysfs and from
 * bandwidths, and that stripes have the proportion they should, wherever memory
 * is and however large. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "heap/interleave.h"
#include "heap/region.h"

static char sysfs[64];
static struct topology topology;

static int set_up(void **state)
{
	(void)state;
	strcpy(sysfs, "/tmp/test_interleave.XXXXXX");
	return mkdtemp(sysfs) ? 0 : -1;
}

static int tear_down(void **state)
{
	char path[100];

	(void)state;
	for (int node = 0; node < 16; node++) {
		snprintf(path, sizeof(path), "%s/node%d", sysfs, node);
		unlink(path);
	}
	return rmdir(sysfs);
}

static void set_weight(int node, const char *weight)
{
	char path[100];
	FILE *file;

	snprintf(path, sizeof(path), "%s/node%d", sysfs, node);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "%s\n", weight);
	fclose(file);
}

/* @ddr nodes of DDR and then @hbm of HBM, with these bandwidths each. */
static void make(int ddr, uint64_t ddr_mbps, int hbm, uint64_t hbm_mbps)
{
	memset(&topology, 0, sizeof(topology));
	for (int i = 0; i < ddr + hbm; i++) {
		int tier = i < ddr ? FERRY_TIER_DDR : FERRY_TIER_HBM;

		topology.node[topology.node_count++] =
			(struct node_info){.id = i,
					   .tier = tier,
					   .read_mbps = i < ddr ? ddr_mbps : hbm_mbps};
		node_set_add(&topology.tier[tier], i);
	}
}

static void assert_choice(enum interleave_how how, unsigned int hbm, unsigned int parts)
{
	struct interleave chosen = interleave_choose(&topology, sysfs);

	assert_int_equal(chosen.how, how);
	assert_int_equal(chosen.hbm, hbm);
	assert_int_equal(chosen.parts, parts);
}

static void by_bandwidth(void **state)
{
	(void)state;
	make(1, 200000, 1, 800000);
	assert_choice(INTERLEAVE_STRIPES, 4, 5);
	make(4, 50000, 4, 200000);
	assert_choice(INTERLEAVE_STRIPES, 4, 5);
	make(1, 307000, 1, 1000000); /* 0.765 */
	assert_choice(INTERLEAVE_STRIPES, 3, 4);
	make(1, 1000, 1, 1000000); /* each gets a part */
	assert_choice(INTERLEAVE_STRIPES, 7, 8);
	/* The same for all nodes. */
	make(2, 100000, 1, 100000);
	assert_choice(INTERLEAVE_PAGES, 1, 3);
	/* Not known of one, or there is no HBM. */
	make(1, 200000, 1, 0);
	assert_choice(INTERLEAVE_PAGES, 1, 2);
	make(2, 200000, 0, 0);
	assert_choice(INTERLEAVE_PAGES, 0, 2);
}

static void by_the_systems_weights(void **state)
{
	(void)state;
	make(1, 200000, 1, 800000);
	set_weight(0, "1");
	set_weight(1, "1"); /* as nobody has set them */
	assert_choice(INTERLEAVE_STRIPES, 4, 5);
	set_weight(1, "3");
	assert_choice(INTERLEAVE_WEIGHTS, 3, 4);
	make(1, 200000, 2, 0);
	assert_choice(INTERLEAVE_PAGES, 2, 3); /* of node 2 there is none */
	set_weight(2, "3");
	assert_choice(INTERLEAVE_WEIGHTS, 6, 7);
}

static void stripes_have_the_proportion(void **state)
{
	const struct interleave four = {INTERLEAVE_STRIPES, 4, 5};
	static const size_t sizes[] = {(size_t)64 << 20, (size_t)3 << 30,
				       (size_t)1 << 40};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		uintptr_t start = (uintptr_t)0x7f1234600000, at = start, end;
		size_t hbm = 0, stripes = 0;

		for (; at < start + sizes[i]; at = end, stripes++) {
			bool on_hbm = interleave_stripe(&four, at, sizes[i], &end);

			assert_true(end > at && end % GRANULE_SIZE == 0);
			hbm += on_hbm ? end - at : 0;
		}
		assert_true(stripes <= 600);
		assert_in_range(hbm, sizes[i] / 100 * 72, sizes[i] / 100 * 88);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(by_bandwidth, set_up, tear_down),
		cmocka_unit_test_setup_teardown(by_the_systems_weights, set_up,
						tear_down),
		cmocka_unit_test(stripes_have_the_proportion),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
