/* SPDX-License-Identifier: MIT */
/*
 * Proves that what ferry.h's functions allocate is on the nodes that were asked
 * for, as move_pages(2) tells, where there is an HBM node; that no more than the
 * limit is; and what ferry_tier_info() says.
 */
#include "alloc_test.h"
#include "../where.h"

#include <errno.h>
#include <stdbool.h>

static struct ferry_tier_info hbm; /* node_count 0: this machine has none */

/* ---- what the kernel says ------------------------------------------------ */

static bool in_tier(const struct ferry_tier_info *tier, int node)
{
	return node >= 0 && tier->nodes[node / 64] >> (node % 64) & 1;
}

/* Bytes of [addr, addr + size) that are on HBM; *@present: on any node. */
static size_t on_hbm(const void *addr, size_t size, size_t *present)
{
	char *page = (char *)((uintptr_t)addr & ~(PAGE - 1));
	const char *end = (const char *)addr + size;
	size_t count = 0;

	*present = 0;
	for (; page < end; page += PAGE) {
		int node = node_at(page);

		*present += node >= 0 ? PAGE : 0;
		count += in_tier(&hbm, node) ? PAGE : 0;
	}
	return count;
}

static void assert_hbm(const void *addr, size_t size)
{
	size_t present, bytes = on_hbm(addr, size, &present);

	assert_true(present >= size);
	assert_int_equal(bytes, present);
}

static void assert_ddr(const void *addr, size_t size)
{
	size_t present, bytes = on_hbm(addr, size, &present);

	assert_true(present >= size);
	assert_int_equal(bytes, 0);
}

static void need_hbm(void)
{
	if (!hbm.node_count)
		skip();
}

/* ---- with nodes ---------------------------------------------------------- */

static void pages_are_where_asked(void **state)
{
	static const size_t sizes[] = {16, 5000, 300000, 32 * MIB};

	(void)state;
	need_hbm();
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char *in_ddr = allocated(sizes[i], FERRY_DDR);
		char *in_hbm = allocated(sizes[i], FERRY_HBM);

		assert_ddr(in_ddr, sizes[i]);
		assert_hbm(in_hbm, sizes[i]);
		/* freed memory comes back as the same kind only */
		ferry_free(in_hbm);
		ferry_free(in_ddr);
		in_ddr = allocated(sizes[i], FERRY_DDR);
		in_hbm = allocated(sizes[i], FERRY_HBM);
		assert_ddr(in_ddr, sizes[i]);
		assert_hbm(in_hbm, sizes[i]);
		ferry_free(in_ddr);
		ferry_free(in_hbm);
	}
}

static void interleaved_evenly(void **state)
{
	size_t present, bytes;
	void *ptr;

	(void)state;
	need_hbm();
	ptr = allocated(64 * MIB, FERRY_INTERLEAVE);
	bytes = on_hbm(ptr, 64 * MIB, &present);
	assert_in_range(bytes, present * hbm.node_count / 8,
			present * 7 / 8 * hbm.node_count);
	ferry_free(ptr);
}

static void realloc_keeps_placement(void **state)
{
	char *in_hbm, *in_ddr;

	(void)state;
	need_hbm();
	in_hbm = allocated(1000, FERRY_HBM);
	in_ddr = allocated(1000, FERRY_DDR);
	for (size_t size = 4000; size < 32 * MIB; size *= 5) {
		in_hbm = ferry_realloc(in_hbm, size);
		in_ddr = ferry_realloc(in_ddr, size);
		memset(in_hbm, 1, size);
		memset(in_ddr, 1, size);
		assert_hbm(in_hbm, size);
		assert_ddr(in_ddr, size);
	}
	ferry_free(in_hbm);
	ferry_free(in_ddr);
}

static void strict_is_populated(void **state)
{
	static const size_t sizes[] = {1, 10000, MIB, 100 * MIB};

	(void)state;
	need_hbm();
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char *in_hbm = ferry_malloc(sizes[i], FERRY_HBM | FERRY_STRICT);
		char *in_ddr = ferry_malloc(sizes[i], FERRY_DDR | FERRY_STRICT);

		assert_non_null(in_hbm);
		assert_non_null(in_ddr);
		assert_hbm(in_hbm, sizes[i]); /* untouched as it is */
		assert_ddr(in_ddr, sizes[i]);
		ferry_free(in_hbm);
		ferry_free(in_ddr);
	}
}

static uint64_t hbm_free(void)
{
	assert_int_equal(ferry_tier_info(FERRY_TIER_HBM, &hbm, sizeof(hbm)), 0);
	return hbm.free_bytes;
}

static void strict_beyond_hbm_fails(void **state)
{
	uint64_t before;
	char *most;

	(void)state;
	need_hbm();
	before = hbm_free();
	errno = 0;
	assert_null(ferry_malloc(hbm.total_bytes + MIB, FERRY_HBM | FERRY_STRICT));
	assert_int_equal(errno, ENOMEM);
	assert_null(ferry_malloc(before, FERRY_HBM | FERRY_STRICT));
	assert_true(hbm_free() + 64 * MIB > before);
	/* what is free beside a size class's slack can be had, and then no more */
	most = ferry_malloc(before / 8 * 5, FERRY_HBM | FERRY_STRICT);
	assert_non_null(most);
	assert_hbm(most, before / 8 * 5);
	assert_null(ferry_malloc(before / 2, FERRY_HBM | FERRY_STRICT));
	ferry_free(most);
	/* the kernel keeps some free pages on lists of each CPU */
	assert_true(hbm_free() + 64 * MIB > before);
}

/* More than HBM has, touched: the rest is in DDR, and nobody is killed. */
static void preferred_beyond_hbm_is_ddr(void **state)
{
	size_t size, present, bytes;
	char *ptr;

	(void)state;
	need_hbm();
	size = hbm_free() + 64 * MIB;
	ptr = ferry_malloc(size, FERRY_HBM);
	assert_non_null(ptr);
	for (size_t at = 0; at < size; at += PAGE)
		ptr[at] = (char)(at / PAGE);
	bytes = on_hbm(ptr, size, &present);
	assert_true(present >= size && present <= size + PAGE);
	assert_true(bytes < size - 32 * MIB);
	assert_true(bytes > size / 2);
	for (size_t at = 0; at < size; at += PAGE)
		assert_int_equal(ptr[at], (char)(at / PAGE));
	ferry_free(ptr);
}

static void tier_info(void **state)
{
	struct ferry_tier_info ddr;
	uint64_t first = 0;

	(void)state;
	assert_int_equal(ferry_tier_info(FERRY_TIER_DDR, &ddr, sizeof(ddr)), 0);
	assert_true(ddr.node_count > 0 && ddr.total_bytes > ddr.free_bytes &&
		    ddr.free_bytes > 0);
	assert_int_equal(ferry_tier_info(FERRY_TIER_DDR, (struct ferry_tier_info *)&first,
					 sizeof(first)),
			 0);
	assert_int_equal(first, ddr.total_bytes);
	assert_int_equal(ferry_tier_info((enum ferry_tier)9, &ddr, sizeof(ddr)), -EINVAL);
	assert_int_equal(ferry_tier_info(FERRY_TIER_DDR, &ddr, 0), -EINVAL);
	assert_int_equal(ferry_tier_info(FERRY_TIER_HBM, &ddr, sizeof(ddr)),
			 hbm.node_count ? 0 : -ENODEV);
}

/* ---- with an environment of their own ------------------------------------ */

/* FERRY_HBM_LIMIT=64M: never more, strict or not, and room that is freed is used. */
static void within_the_limit(void **state)
{
	char *first, *second, *third;

	(void)state;
	need_hbm();
	first = allocated(40 * MIB - PAGE, FERRY_HBM);
	second = allocated(40 * MIB - PAGE, FERRY_HBM);
	assert_hbm(first, 40 * MIB - PAGE);
	assert_ddr(second, 40 * MIB - PAGE);
	assert_null(ferry_malloc(40 * MIB - PAGE, FERRY_HBM | FERRY_STRICT));
	ferry_free(first);
	third = ferry_malloc(40 * MIB - PAGE, FERRY_HBM | FERRY_STRICT);
	assert_non_null(third);
	assert_hbm(third, 40 * MIB - PAGE);
	ferry_free(second);
	ferry_free(third);
}

/* FERRY_POLICY=threshold FERRY_MIN_SIZE=1M */
static void any_with_threshold(void **state)
{
	char *small, *large;

	(void)state;
	need_hbm();
	small = allocated(MIB - 1, FERRY_ANY);
	large = allocated(MIB, FERRY_ANY);
	assert_ddr(small, MIB - 1);
	assert_hbm(large, MIB);
	ferry_free(small);
	ferry_free(large);
}

static const struct special specials[] = {
	{cmocka_unit_test(within_the_limit), {"FERRY_HBM_LIMIT=64M"}},
	{cmocka_unit_test(any_with_threshold),
	 {"FERRY_POLICY=threshold", "FERRY_MIN_SIZE=1M"}},
};
#define SPECIALS (sizeof(specials) / sizeof(specials[0]))

static void with_their_environments(void **state)
{
	(void)state;
	in_environments(specials, SPECIALS);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest *special = named_special(specials, SPECIALS, argc, argv);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tier_info),
		cmocka_unit_test(pages_are_where_asked),
		cmocka_unit_test(interleaved_evenly),
		cmocka_unit_test(realloc_keeps_placement),
		cmocka_unit_test(strict_is_populated),
		cmocka_unit_test(strict_beyond_hbm_fails),
		cmocka_unit_test(preferred_beyond_hbm_is_ddr),
		cmocka_unit_test(with_their_environments),
	};

	setenv("FERRY_SAID_NO_HBM", "1", 1);
	ferry_tier_info(FERRY_TIER_HBM, &hbm, sizeof(hbm));
	if (special)
		return _cmocka_run_group_tests(argv[1], special, 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
