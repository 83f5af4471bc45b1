/* SPDX-License-Identifier: MIT */
/*
 * Proves that nothing is lost or changed while threads use the pages that move:
 * atomic increments, plain stores, reads, the kernel's own copies into and out
 * of them and short pins, with batched TLB flushes on and off, and with two
 * movers that work against each other. FERRY_TEST_ROUNDS=200 for a long run.
 *
 * Threads: each user owns a part of every page (struct layout) and a record of
 * what must be there; the movers own nothing. `stop` is the only shared state.
 */
#include "kmod_test.h"
#include "kmod_uring.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum { SEED = 71, ROUNDS = 8, MAX_PAGES = 128, ADDERS = 2, STATIC_WORDS = 448 };

/* A page: most of it never changes, the rest belongs to one thread each. */
struct layout {
	uint64_t constant[STATIC_WORDS]; /* the pattern; read by all */
	_Atomic uint64_t sum[ADDERS];    /* adder i increments sum[i] */
	uint64_t pad[6];
	uint64_t store[16]; /* the storer */
	uint64_t copy[16];  /* the copier */
	uint64_t spare[24];
};

static struct {
	struct layout *page;
	size_t pages, len;
	atomic_bool stop;
} area;

/* A cheap sequence that meets all pages in no order; own state per thread. */
static size_t some_page(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return (*state >> 8) % area.pages;
}

static void *adder(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;
	uint64_t added[MAX_PAGES] = {0}, all = 0;
	uint32_t state = (uint32_t)me;

	while (!atomic_load_explicit(&area.stop, memory_order_relaxed)) {
		size_t i = some_page(&state);

		atomic_fetch_add_explicit(&area.page[i].sum[me], 1, memory_order_relaxed);
		added[i]++;
	}
	for (size_t i = 0; i < area.pages; i++) {
		KT_EXPECT(added[i] == area.page[i].sum[me],
			  "page %zu: %llu increments were made, %llu are there", i,
			  (unsigned long long)added[i],
			  (unsigned long long)area.page[i].sum[me]);
		all += added[i];
	}
	KT_EXPECT(all > 0, "the adder never ran");
	return NULL;
}

/* Stores, and checks at once and later that the stores are there. */
static void *storer(void *arg)
{
	uint64_t last[MAX_PAGES] = {0}, value = 0;
	uint32_t state = 1000;

	(void)arg;
	while (!atomic_load_explicit(&area.stop, memory_order_relaxed)) {
		size_t i = some_page(&state);
		volatile uint64_t *store = area.page[i].store;

		for (size_t k = 0; k < 16; k++)
			KT_EXPECT(store[k] == last[i], "page %zu: a store was lost", i);
		last[i] = ++value;
		for (size_t k = 0; k < 16; k++)
			store[k] = value;
		for (size_t k = 0; k < 16; k++)
			KT_EXPECT(store[k] == value, "page %zu: a store was not kept", i);
	}
	KT_EXPECT(value > 0, "the storer never ran");
	return NULL;
}

static void *reader(void *arg)
{
	struct layout *expected = arg;
	uint32_t state = 2000;
	size_t reads = 0;

	while (!atomic_load_explicit(&area.stop, memory_order_relaxed)) {
		size_t i = some_page(&state);
		volatile uint64_t *actual = area.page[i].constant;

		for (size_t k = state & 15; k < STATIC_WORDS; k += 16)
			KT_EXPECT(actual[k] == expected[i].constant[k],
				  "page %zu word %zu: wrong data", i, k);
		reads++;
	}
	KT_EXPECT(reads > 0, "the reader never ran");
	return NULL;
}

/*
 * The kernel copies from one moving page to another through a pipe, and pins
 * pages by vmsplice meanwhile.
 */
static void *copier(void *arg)
{
	struct layout *expected = arg;
	uint64_t buffer[STATIC_WORDS];
	uint32_t state = 3000;
	size_t copies = 0;
	int fd[2];

	KT_REQUIRE(pipe(fd) == 0, "pipe: %m");
	while (!atomic_load_explicit(&area.stop, memory_order_relaxed)) {
		size_t from = some_page(&state), to = some_page(&state), k = state % 400;
		struct iovec iov = {.iov_base = area.page[from].constant,
				    .iov_len = sizeof(buffer)};

		KT_REQUIRE(write(fd[1], &area.page[from].constant[k], 128) == 128,
			   "write from a moving page: %m");
		KT_REQUIRE(read(fd[0], area.page[to].copy, 128) == 128,
			   "read into a moving page: %m");
		KT_EXPECT(!memcmp(area.page[to].copy, &expected[from].constant[k], 128),
			  "pages %zu to %zu: wrong data copied", from, to);

		KT_REQUIRE(vmsplice(fd[1], &iov, 1, 0) == sizeof(buffer), "vmsplice: %m");
		KT_REQUIRE(read(fd[0], buffer, sizeof(buffer)) == sizeof(buffer),
			   "read: %m");
		KT_EXPECT(!memcmp(buffer, expected[from].constant, sizeof(buffer)),
			  "page %zu: wrong data spliced", from);
		copies++;
	}
	KT_EXPECT(copies > 0, "the copier never ran");
	return NULL;
}

/* What a mover found out. */
struct tally {
	uint64_t moved, busy, requests;
};

static void check_constant(const struct layout *expected, const char *when)
{
	for (size_t i = 0; i < area.pages; i++)
		KT_EXPECT(!memcmp(area.page[i].constant, expected[i].constant,
				  sizeof(expected[i].constant)),
			  "page %zu: wrong data %s", i, when);
}

static void move_once(int node, struct tally *tally)
{
	struct ferry_ioc_result res;
	long ret = kt_migrate(area.page, area.len, node, 0, &res);

	KT_EXPECT_EQ(ret, res.moved);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.moved + res.already + res.busy, area.pages);
	tally->moved += res.moved;
	tally->busy += res.busy;
	tally->requests++;
}

/* A mover of its own: goes on against the main one until told to stop. */
static void *opponent(void *arg)
{
	struct tally tally = {0};
	struct io_uring ring;
	struct kt_request req;
	int ret;

	(void)arg;
	kt_ring_init(&ring, 4, 0);
	while (!atomic_load(&area.stop)) {
		move_once(kt.ddr, &tally);
		kt_request_init(&req, area.page, area.len, kt.hbm);
		ret = kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg);
		KT_EXPECT_EQ(ret, req.result.moved);
		KT_EXPECT_SUM(&req.result, area.len);
	}
	io_uring_queue_exit(&ring);
	return NULL;
}

/* Moves to and fro for some rounds beside the threads; checks each time. */
static void run(size_t pages, void *(*const *user)(void *), size_t users, bool alone)
{
	unsigned int rounds = kt_rounds(ROUNDS);
	struct tally tally = {0};
	struct layout *expected;
	pthread_t thread[8];
	uint64_t start;

	_Static_assert(sizeof(struct layout) == 4096, "a layout fills a page");
	area.pages = pages;
	area.len = pages * kt.page;
	area.page = kt_alloc_on(area.len, kt.ddr, SEED);
	expected = kt_alloc(area.len);
	kt_fill(expected, area.len, SEED);
	for (size_t i = 0; i < pages; i++)
		memset(area.page[i].sum, 0, kt.page - offsetof(struct layout, sum));
	for (size_t i = 0; i < users; i++) {
		/* Adders are told their index, all others the right data. */
		void *arg = user[i] == adder ? (void *)(uintptr_t)i : expected;

		KT_REQUIRE(pthread_create(&thread[i], NULL, user[i], arg) == 0,
			   "no thread");
	}
	usleep(20000);
	start = kt_now_us();
	for (unsigned int i = 0; i < rounds && !kt_failures(); i++) {
		move_once(kt.hbm, &tally);
		check_constant(expected, "on the way there");
		move_once(kt.ddr, &tally);
		check_constant(expected, "on the way back");
	}
	start = kt_now_us() - start;
	atomic_store(&area.stop, true);
	for (size_t i = 0; i < users; i++)
		pthread_join(thread[i], NULL);
	check_constant(expected, "at the end");

	printf("    %u rounds, %llu pages moved, %llu busy, %.1f us a page\n", rounds,
	       (unsigned long long)tally.moved, (unsigned long long)tally.busy,
	       (double)start / (double)(tally.moved + !tally.moved));
	KT_EXPECT(tally.moved > 0, "nothing moved");
	if (alone) {
		struct ferry_ioc_result res;

		/* All users are gone: every page goes where it is told. */
		kt_migrate(area.page, area.len, kt.hbm, 0, &res);
		KT_EXPECT_EQ(res.moved + res.already, pages);
		KT_EXPECT_ON(area.page, area.len, kt.hbm);
		check_constant(expected, "after the end");
		KT_EXPECT(tally.busy * 10 <= tally.moved,
			  "more than one page in ten was busy");
	}
}

#define SWITCH "/sys/module/ferry/parameters/batched_flush"

/* Sets the parameter for this case; the runner's next case sets its own. */
static void batched_flush(bool on)
{
	char text[8];

	if (!kt_read_file(SWITCH, text, sizeof(text)))
		kt_skip("no " SWITCH);
	if (!kt_write_file(SWITCH, on ? "Y" : "N"))
		kt_skip(SWITCH " cannot be set: %m");
	KT_REQUIRE(kt_read_file(SWITCH, text, sizeof(text)) &&
			   text[0] == (on ? 'Y' : 'N'),
		   "the parameter reads %s", text);
}

static void *(*const writers[])(void *) = {adder, adder, storer};
static void *(*const readers[])(void *) = {reader, copier};
static void *(*const everyone[])(void *) = {adder,  adder,  storer,
					    reader, copier, opponent};

static void writers_batched(void)
{
	batched_flush(true);
	run(128, writers, 3, true);
}

static void readers_batched(void)
{
	batched_flush(true);
	run(128, readers, 2, false); /* the copier's pins may well be met */
}

static void opposed_batched(void)
{
	batched_flush(true);
	run(64, everyone, 6, false);
}

/* Each page costs a shootdown without batching: fewer of them. */
static void writers_unbatched(void)
{
	batched_flush(false);
	run(64, writers, 3, true);
}

static void readers_unbatched(void)
{
	batched_flush(false);
	run(64, readers, 2, false);
}

static void opposed_unbatched(void)
{
	batched_flush(false);
	run(32, everyone, 6, false);
}

static void restore_batched(void)
{
	batched_flush(true);
}

static const struct kt_case cases[] = {
	KT_CASE(writers_batched),   KT_CASE(readers_batched),
	KT_CASE(opposed_batched),   KT_CASE(writers_unbatched),
	KT_CASE(readers_unbatched), KT_CASE(opposed_unbatched),
	KT_CASE(restore_batched),
};

KT_MAIN(cases)
