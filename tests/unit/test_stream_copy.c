/* SPDX-License-Identifier: MIT */
/*
 * Proves of each streaming copy that this CPU has: all bytes arrive, none
 * beside them is touched, and the source stays. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "migrate/page.h"
#include "migrate/stream_copy.h"

static void check(stream_copy_fn *copy, size_t offset, size_t len)
{
	size_t size = len + 2 * 256;
	unsigned char *from = aligned_alloc(256, size), *to = aligned_alloc(256, size);
	unsigned char *same = malloc(len);

	assert_true(from && to && same);
	for (size_t i = 0; i < size; i++)
		from[i] = (unsigned char)(i * 131 + i / 256 * 7 + 1);
	memset(to, 0xee, size);
	memcpy(same, from + offset, len);
	copy(to + offset, from + offset, len);
	assert_memory_equal(to + offset, same, len);
	assert_memory_equal(from + offset, same, len);
	for (size_t i = 0; i < size; i++)
		if (i < offset || i >= offset + len)
			assert_int_equal(to[i], 0xee);
	free(from);
	free(to);
	free(same);
}

static void all_arrive(void **state)
{
	(void)state;
	for (const struct stream_copy *copy = stream_copies; copy->name; copy++) {
		if (!copy->usable()) {
			print_message("%s: not on this CPU\n", copy->name);
			continue;
		}
		print_message("%s\n", copy->name);
		for (size_t offset = 0; offset <= 192; offset += 64) {
			check(copy->copy, offset, 0);
			check(copy->copy, offset, 256);
			check(copy->copy, offset, PAGE_BYTES);
			check(copy->copy, offset, GRANULE_BYTES + 256);
		}
	}
}

static void best_is_the_first_usable(void **state)
{
	const struct stream_copy *best = stream_copy_best();

	(void)state;
	assert_true(best->usable());
	for (const struct stream_copy *copy = stream_copies; copy < best; copy++)
		assert_false(copy->usable());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_arrive),
		cmocka_unit_test(best_is_the_first_usable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
