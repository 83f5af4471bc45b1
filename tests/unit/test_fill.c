/* SPDX-License-Identifier: MIT */
/*
 * Proves what is taken for filled in vain: memory that is touched here and there, but
 * not a part that several threads touch at once, whose faults come one after another.
 * Nobody waits here: the faults are this test's own. Skipped without userfaultfd.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fault/fill.h"
#include "fault/uffd.h"
#include "migrate/page.h"

#define SIZE ((size_t)256 << 20)

static int uffd;
static uintptr_t mem;

static int begin(void **state)
{
	char *mapped = mmap(NULL, SIZE + GRANULE_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)state;
	mem = granule_end((uintptr_t)mapped - 1);
	madvise((void *)mem, SIZE, MADV_NOHUGEPAGE);
	fill_open(uffd);
	return uffd_register(uffd, mem, SIZE);
}

static int end(void **state)
{
	(void)state;
	return munmap((void *)mem, SIZE);
}

static void many_threads_at_one_page(void **state)
{
	size_t filled;

	(void)state;
	for (uintptr_t at = mem; at < mem + 4 * GRANULE_BYTES; at += filled) {
		size_t more;

		assert_int_equal(fill(at, true, &filled), 0);
		for (int other = 0; other < 200; other++) {
			assert_int_equal(fill(at, true, &more), 0);
			assert_int_equal(more, 0);
		}
	}
	assert_null(fill_ends());
}

static void discarded_and_touched_again(void **state)
{
	size_t filled;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		assert_int_equal(fill(mem, true, &filled), 0);
		assert_int_equal(filled, BLOCK_BYTES);
		uffd_unregister(uffd, mem, GRANULE_BYTES);
		madvise((void *)mem, GRANULE_BYTES, MADV_DONTNEED);
		assert_int_equal(uffd_register(uffd, mem, GRANULE_BYTES), 0);
	}
	assert_null(fill_ends());
}

static void here_and_there(void **state)
{
	size_t filled, all = 0;

	(void)state;
	for (uintptr_t at = mem; at < mem + SIZE && !fill_ends(); at += 4 * BLOCK_BYTES) {
		assert_int_equal(fill(at, true, &filled), 0);
		all += filled;
	}
	assert_string_equal(fill_ends(), "memory is touched here and there");
	assert_true(all > 0 && all < SIZE / 4);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(many_threads_at_one_page, begin, end),
		cmocka_unit_test_setup_teardown(discarded_and_touched_again, begin, end),
		cmocka_unit_test_setup_teardown(here_and_there, begin, end),
	};

	uffd = uffd_open(0);
	if (uffd < 0) {
		fprintf(stderr, "skipped: %s\n", uffd_why(uffd));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
