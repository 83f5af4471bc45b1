/* SPDX-License-Identifier: MIT */
/*
 * Proves that memory which is swapped out is a hole that nobody fills, and that
 * pages may move while they go to swap and come back: none is lost, none is
 * zeroed, and the kernel survives pages under writeback. The swap area is a block
 * device in memory (null_blk) that takes 30 ms for a request, so that pages are
 * under writeback for a good while. A mover thread and
 * the main thread; only the main thread touches the memory.
 */
#include "kmod_disk.h"
#include "kmod_test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

enum { SEED = 89, PAGES = 128 };

/* Sends pages to swap; returns how many are there. */
static size_t page_out(char *mem, size_t len)
{
	size_t out = 0;

	for (int i = 0; i < 100 && out < len / kt.page; i++) {
		madvise(mem, len, MADV_PAGEOUT);
		out = (size_t)kt_smaps(mem, len, "Swap") * 1024 / kt.page;
		usleep(10000);
	}
	return out;
}

/* What is in swap is not filled with zeros, and comes back as it was. */
static void swapped_out(void)
{
	size_t len = PAGES * kt.page, half = len / 2;
	char *mem;
	struct ferry_ioc_result res;

	kt_swap_on(KT_DISK_LATE);
	mem = kt_alloc_on(len, kt.ddr, SEED);
	KT_REQUIRE(page_out(mem, half) >= PAGES / 4, "too few pages went to swap");
	for (unsigned int flags = 0; flags <= FERRY_RANGE_POPULATE; flags++) {
		size_t out = (size_t)kt_smaps(mem, len, "Swap") * 1024 / kt.page;

		KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, flags, &res), res.moved);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_EQ(res.populated, 0);
		KT_EXPECT_EQ(res.hole, out);
		KT_EXPECT_SUM(&res, len);
		KT_EXPECT_EQ((size_t)kt_smaps(mem, len, "Swap") * 1024 / kt.page, out);
	}
	KT_EXPECT_DATA(mem, len, SEED);

	/*
	 * All of it is back, and moves. Pages that the end of their writeback put
	 * into another CPU's LRU batch are busy until that is emptied; compaction
	 * does it.
	 */
	kt_write_file("/proc/sys/vm/compact_memory", "1");
	for (int i = 0; i < 100; i++) {
		kt_migrate(mem, len, kt.hbm, 0, &res);
		if (!res.busy)
			break;
		usleep(10000);
	}
	KT_EXPECT(res.moved + res.already == PAGES,
		  "moved %llu, already %llu, busy %llu, hole %llu",
		  (unsigned long long)res.moved, (unsigned long long)res.already,
		  (unsigned long long)res.busy, (unsigned long long)res.hole);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
	kt_swap_off();
	KT_EXPECT_DATA(mem, len, SEED);
}

static atomic_bool stop;
static atomic_ulong moved;

struct range {
	char *mem;
	size_t len;
};

static void *mover(void *arg)
{
	const struct range *r = arg;

	for (unsigned long i = 0; !atomic_load(&stop); i++) {
		struct ferry_ioc_result res;
		long ret = kt_migrate(r->mem, r->len, i % 2 ? kt.ddr : kt.hbm,
				      i % 4 < 2 ? FERRY_RANGE_POPULATE : 0, &res);

		KT_EXPECT_EQ(ret, res.moved + res.populated);
		KT_EXPECT_EQ(res.populated, 0);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_SUM(&res, r->len);
		atomic_fetch_add(&moved, res.moved);
	}
	return NULL;
}

/*
 * Pages go out and are read back at once, some while they are still being
 * written; a page in the swap cache and under writeback must not be moved.
 */
static void moving_while_swapping(void)
{
	size_t len = PAGES * kt.page, part = len / 8;
	struct range range = {.len = len};
	uint64_t start, seed = SEED;
	unsigned int rounds = 0;
	long before, after;
	pthread_t thread;

	kt_swap_on(KT_DISK_LATE);
	range.mem = kt_alloc(len);
	for (size_t at = 0; at < len; at += part)
		kt_fill(range.mem + at, part, SEED);
	before = kt_file_key("/proc/vmstat", "pswpout");
	KT_REQUIRE(pthread_create(&thread, NULL, mover, &range) == 0, "no thread");
	start = kt_now_us();
	for (; (kt_now_us() - start < 2000000 || rounds < 8) && !kt_failures();
	     rounds++) {
		char *at = range.mem + rounds % 8 * part;

		madvise(at, part, MADV_PAGEOUT);
		KT_EXPECT_DATA(at, part, seed);
		usleep(5000);
		kt_fill(at, part, seed + 1);
		if (rounds % 8 == 7)
			seed++;
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	for (size_t i = 0; i < 8; i++)
		KT_EXPECT_DATA(range.mem + i * part, part,
			       i < rounds % 8 ? seed + 1 : seed);
	after = kt_file_key("/proc/vmstat", "pswpout");
	printf("    %u rounds, %lu pages moved, %ld written to swap\n", rounds,
	       atomic_load(&moved), after - before);
	KT_EXPECT(atomic_load(&moved) > 0, "nothing moved");
	KT_EXPECT(after > before, "nothing was written to swap");
	kt_swap_off();
}

static const struct kt_case cases[] = {
	KT_CASE(swapped_out),
	KT_CASE(moving_while_swapping),
};

KT_MAIN(cases)
