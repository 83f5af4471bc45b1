/* SPDX-License-Identifier: MIT */
/*
 * Proves that memory is counted once and whole by the nodes that it is on, also while a
 * page of it is out for a sample, and while its mappings come apart and together.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migrate/numa_maps.h"
#include "trap_test.h"

#define LEN    ((size_t)8 << 20)
#define PIECE  ((size_t)32 * PAGE_BYTES)
#define COUNTS 300

static char *mem;

static int is_mem(const void *addr)
{
	return (const char *)addr >= mem && (const char *)addr < mem + LEN ? 0 : -1;
}

/* 0 or what numa_maps_count() says; in *@total, the bytes on all nodes. */
static int count(uint64_t *total)
{
	static uint64_t bytes[1][FERRY_MAX_NODES];
	int err = numa_maps_count(is_mem, bytes, 1);

	*total = 0;
	for (size_t node = 0; node < FERRY_MAX_NODES; node++)
		*total += bytes[0][node];
	return err;
}

static void by_node(void **state)
{
	uint64_t total;

	(void)state;
	assert_int_equal(count(&total), 0);
	assert_int_equal(total, LEN);
	madvise(mem, PIECE, MADV_DONTNEED);
	assert_int_equal(count(&total), 0);
	assert_int_equal(total, LEN - PIECE);
	pattern_fill(mem, LEN, 1);
}

static void a_page_is_out(void **state)
{
	char *out = mem + 5 * PAGE_BYTES;
	uint64_t total;

	(void)state;
	if (traps_start())
		skip(); /* before Linux 6.8 */
	assert_int_equal(traps_set(out, PAGE_BYTES), 0);
	assert_false(page_is_there(out));
	assert_int_equal(count(&total), 0);
	assert_int_equal(total, LEN);
	assert_true(pattern_is_in(mem, LEN, 1));
}

static atomic_bool stop;

/* Splits all of it into pieces and puts it together again; rests in between. */
static void *split_and_merge(void *unused)
{
	while (!atomic_load(&stop)) {
		for (size_t at = 0; at < LEN; at += 2 * PIECE)
			mprotect(mem + at, PIECE, PROT_READ);
		usleep(3000);
		mprotect(mem, LEN, PROT_READ | PROT_WRITE);
		usleep(3000);
	}
	return unused;
}

static void mappings_come_and_go(void **state)
{
	pthread_t thread;
	unsigned int counted = 0;
	uint64_t total;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, split_and_merge, NULL), 0);
	for (int i = 0; i < COUNTS; i++) {
		int err = count(&total);

		assert_true(!err || err == -EAGAIN);
		if (!err)
			assert_int_equal(total, LEN);
		counted += !err;
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	assert_true(counted > COUNTS / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_node),
		cmocka_unit_test(a_page_is_out),
		cmocka_unit_test(mappings_come_and_go),
	};
	uint64_t total;

	mem = pages_map(LEN, false);
	pattern_fill(mem, LEN, 1);
	if (count(&total) == -ENOENT)
		return 77; /* a kernel without nodes */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
