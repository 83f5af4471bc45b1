/* SPDX-License-Identifier: MIT */
/*
 * Proves that memory which is swapped out is a hole that nobody fills, and that
 * pages may move while they go to swap and come back: none is lost, none is
 * zeroed, and the kernel survives pages under writeback. The swap area is a block
 * device in memory (null_blk) that takes 10 ms for a request, so that pages are
 * under writeback for a good while. The same in a cgroup that may keep only a part
 * of its memory resident: FERRY_TEST_SECONDS of it, for a slow disk and for a fast
 * one. Mover threads and the main thread; only the latter touches the memory.
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
#include <sys/stat.h>

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

/* ---- under memory pressure ------------------------------------------------ */

#define CGROUP  "/sys/fs/cgroup"
#define PRESSED CGROUP "/ferry-swap"

enum { PRESSED_PAGES = 5120, PRESSED_MAX = 15 << 20, MOVERS = 2 };

/* Seconds of each case: FERRY_TEST_SECONDS, or 3. */
static unsigned int pressure_seconds(void)
{
	const char *text = getenv("FERRY_TEST_SECONDS");
	long seconds = text ? strtol(text, NULL, 10) : 0;

	return seconds > 0 ? (unsigned int)seconds : 3;
}

/* A cheap sequence */
static size_t some(uint64_t *state, size_t below)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (size_t)(*state >> 33) % below;
}

/* Moves parts of the memory to and fro; meets what is being swapped out and in. */
static void *pressing_mover(void *arg)
{
	char *mem = arg;
	uint64_t state = (uintptr_t)&state;

	while (!atomic_load(&stop)) {
		size_t pages = 1 + some(&state, 600);
		size_t first = some(&state, PRESSED_PAGES - pages);
		struct ferry_ioc_result res;
		long ret = kt_migrate(mem + first * kt.page, pages * kt.page,
				      some(&state, 2) ? kt.ddr : kt.hbm,
				      some(&state, 2) ? FERRY_RANGE_POPULATE : 0, &res);

		KT_EXPECT_EQ(ret, res.moved + res.populated);
		KT_EXPECT_EQ(res.populated, 0);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_SUM(&res, pages * kt.page);
		atomic_fetch_add(&moved, res.moved);
	}
	return NULL;
}

/* Each page has a pattern that is written anew now and then, and checked before. */
static void touch_pressed(char *mem, uint64_t *generation, uint64_t *state)
{
	for (int i = 0; i < 64; i++) {
		size_t page = some(state, PRESSED_PAGES);
		char *at = mem + page * kt.page;

		KT_EXPECT(kt_bad(at, kt.page, generation[page]) == 0, "page %zu is wrong",
			  page);
		if (some(state, 2))
			kt_fill(at, kt.page, ++generation[page]);
	}
	/* These come back while they are still under writeback. */
	if (!some(state, 4)) {
		size_t first = some(state, PRESSED_PAGES - 16);

		madvise(mem + first * kt.page, 16 * kt.page, MADV_PAGEOUT);
		for (size_t i = first; i < first + 16; i++)
			KT_EXPECT(kt_bad(mem + i * kt.page, kt.page, generation[i]) == 0,
				  "page %zu is wrong when it is back", i);
	}
}

/* The child: 20 MiB in use where only 15 may be resident. */
static void pressed_child(void)
{
	static uint64_t generation[PRESSED_PAGES];
	const size_t len = PRESSED_PAGES * kt.page;
	const uint64_t limit = pressure_seconds() * 1000000ull;
	uint64_t began, state = SEED;
	pthread_t thread[MOVERS];
	char *mem;

	KT_REQUIRE(kt_write_file(PRESSED "/cgroup.procs", "0"), "cgroup.procs: %m");
	alarm(60 * kt_slowness() + 2 * pressure_seconds());
	kt.fd = kt_open();
	mem = kt_alloc(len);
	for (size_t i = 0; i < PRESSED_PAGES; i++)
		kt_fill(mem + i * kt.page, kt.page, 0);
	for (int i = 0; i < MOVERS; i++)
		KT_REQUIRE(pthread_create(&thread[i], NULL, pressing_mover, mem) == 0,
			   "no thread");
	for (began = kt_now_us(); kt_now_us() - began < limit && !kt_failures();)
		touch_pressed(mem, generation, &state);
	atomic_store(&stop, true);
	for (int i = 0; i < MOVERS; i++)
		pthread_join(thread[i], NULL);
	for (size_t i = 0; i < PRESSED_PAGES; i++)
		KT_EXPECT(kt_bad(mem + i * kt.page, kt.page, generation[i]) == 0,
			  "page %zu is wrong at the end", i);
	printf("    %lu pages moved\n", atomic_load(&moved));
	KT_EXPECT(atomic_load(&moved) > 0, "nothing moved");
	kt_child_end();
}

static void pressed(enum kt_disk_kind disk)
{
	long out = kt_file_key("/proc/vmstat", "pswpout");
	long in = kt_file_key("/proc/vmstat", "pswpin");
	char text[32];
	pid_t pid;

	alarm(60 * kt_slowness() + 2 * pressure_seconds());
	if (!kt_write_file(CGROUP "/cgroup.subtree_control", "+memory"))
		kt_skip("no memory controller in cgroup2: %m");
	KT_REQUIRE(mkdir(PRESSED, 0755) == 0 || errno == EEXIST, "mkdir: %m");
	snprintf(text, sizeof(text), "%d", PRESSED_MAX);
	KT_REQUIRE(kt_write_file(PRESSED "/memory.max", text), "memory.max: %m");
	kt_swap_on(disk);
	pid = kt_fork();
	if (pid == 0)
		pressed_child();
	KT_EXPECT_EQ(kt_wait(pid), 0);
	out = kt_file_key("/proc/vmstat", "pswpout") - out;
	in = kt_file_key("/proc/vmstat", "pswpin") - in;
	printf("    %ld pages written to swap, %ld read\n", out, in);
	KT_EXPECT(out > 0 && in > 0, "there was no pressure");
	KT_EXPECT_EQ(kt_file_key(PRESSED "/memory.events", "oom_kill"), 0);
	kt_swap_off();
	KT_EXPECT(rmdir(PRESSED) == 0, "rmdir: %m");
}

static void pressed_slow_disk(void)
{
	pressed(KT_DISK_LATE);
}

static void pressed_fast_disk(void)
{
	pressed(KT_DISK_PLAIN);
}

static const struct kt_case cases[] = {
	KT_CASE(swapped_out),
	KT_CASE(moving_while_swapping),
	KT_CASE(pressed_slow_disk),
	KT_CASE(pressed_fast_disk),
};

KT_MAIN(cases)
