/* SPDX-License-Identifier: MIT */
/*
 * Proves what FERRY_MIGRATE_SPLIT_HUGE does: huge pages move page by page, whole
 * or in part, with writers at work; those that are in place already, pinned or
 * shared stay whole, as all do without the flag; a huge page that small entries
 * map is left. Counts add up, and the kernel says where pages are and which are
 * huge. No memory is lost, even if other threads make the kernel lock and split
 * the same pages.
 *
 * Writers touch memory of their own only; what they share with the main thread
 * is atomic.
 */
#include "kmod_test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum { SEED = 307, HUGE_PAGES = 4, PAGES = KT_HUGE / 4096 };

static long migrate_split(void *addr, size_t len, int node, struct ferry_ioc_result *res)
{
	struct ferry_ioc_range range = {
		.addr = (uintptr_t)addr, .len = len, .node = node};

	memset(res, 0xa5, sizeof(*res));
	return kt_migrate_batch(FERRY_MIGRATE_SPLIT_HUGE, &range, 1, res);
}

static void whole(void)
{
	const size_t len = HUGE_PAGES * KT_HUGE;
	char *mem = kt_huge_on(HUGE_PAGES, kt.ddr, SEED);
	long splits = kt_file_key("/proc/vmstat", "thp_split_page");
	struct ferry_ioc_result res;

	KT_EXPECT(kt.info.features & FERRY_FEATURE_SPLIT_HUGE,
		  "the feature is not told of");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .huge = len / kt.page);
	KT_EXPECT_EQ(kt_huge_in(mem, len), HUGE_PAGES);

	/* Those that are there already need not be split. */
	KT_EXPECT_EQ(migrate_split(mem, len, kt.ddr, &res), 0);
	KT_EXPECT_RESULT(&res, .already = len / kt.page);
	KT_EXPECT_EQ(kt_huge_in(mem, len), HUGE_PAGES);
	KT_EXPECT_EQ(kt_file_key("/proc/vmstat", "thp_split_page"), splits);

	KT_EXPECT_EQ(migrate_split(mem, len, kt.hbm, &res), len / kt.page);
	KT_EXPECT_RESULT(&res, .moved = len / kt.page);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_EQ(kt_huge_in(mem, len), 0);
	KT_EXPECT_EQ(kt_file_key("/proc/vmstat", "thp_split_page"), splits + HUGE_PAGES);
	KT_EXPECT_DATA(mem, len, SEED);
	kt_fill(mem, len, SEED + 1);
	KT_EXPECT_DATA(mem, len, SEED + 1);
}

/* The part moves; the rest stays, in small pages. The neighbours stay whole. */
static void part(void)
{
	const size_t len = 3 * KT_HUGE, at = KT_HUGE + 100 * kt.page, n = 50 * kt.page;
	char *mem = kt_huge_on(3, kt.ddr, SEED);
	struct ferry_ioc_result res;

	KT_EXPECT_EQ(migrate_split(mem + at, n, kt.hbm, &res), 50);
	KT_EXPECT_RESULT(&res, .moved = 50);
	KT_EXPECT_ON(mem + at, n, kt.hbm);
	KT_EXPECT_EQ(kt_on(mem, len, kt.ddr), len / kt.page - 50);
	KT_EXPECT_EQ(kt_huge_in(mem, len), 2);
	KT_EXPECT_DATA(mem, len, SEED);
}

/*
 * Soft-dirty is not lost. The kernel's split of a dirty huge page may set it where
 * it was not (6.1 does, as pte_mkdirty() sets both).
 */
static void bits(void)
{
	static uint64_t entry[2 * PAGES];
	const size_t len = 2 * KT_HUGE;
	char *mem = kt_huge_on(2, kt.ddr, SEED);
	struct ferry_ioc_result res;

	if (!kt_write_file("/proc/self/clear_refs", "4"))
		kt_skip("no soft-dirty bits: %m");
	*(volatile char *)(mem + KT_HUGE) = *(mem + KT_HUGE);
	KT_EXPECT_EQ(migrate_split(mem, len, kt.hbm, &res), 2 * PAGES);
	kt_pagemap(mem, len, entry);
	for (size_t i = 0; i < PAGES; i++)
		KT_EXPECT(entry[PAGES + i] & KT_SOFT_DIRTY, "page %zu lost soft-dirty",
			  i);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* A pipe that holds a page of it has the huge page pinned. */
static void pinned(void)
{
	char *mem = kt_huge_on(2, kt.ddr, SEED);
	struct iovec iov = {.iov_base = mem + 5 * kt.page, .iov_len = kt.page};
	struct ferry_ioc_result res;
	int fd[2];

	KT_REQUIRE(pipe(fd) == 0, "pipe: %m");
	KT_REQUIRE(vmsplice(fd[1], &iov, 1, 0) == (ssize_t)kt.page, "vmsplice: %m");
	KT_EXPECT_EQ(migrate_split(mem, 2 * KT_HUGE, kt.hbm, &res), PAGES);
	KT_EXPECT_RESULT(&res, .moved = PAGES, .huge = PAGES);
	KT_EXPECT_ON(mem, KT_HUGE, kt.ddr);
	KT_EXPECT_ON(mem + KT_HUGE, KT_HUGE, kt.hbm);
	KT_EXPECT_EQ(kt_huge_in(mem, 2 * KT_HUGE), 1);
	KT_EXPECT_DATA(mem, 2 * KT_HUGE, SEED);

	close(fd[0]);
	close(fd[1]);
	KT_EXPECT_EQ(migrate_split(mem, 2 * KT_HUGE, kt.hbm, &res), PAGES);
	KT_EXPECT_RESULT(&res, .moved = PAGES, .already = PAGES);
	KT_EXPECT_EQ(kt_huge_in(mem, 2 * KT_HUGE), 0);
	KT_EXPECT_DATA(mem, 2 * KT_HUGE, SEED);
}

/* Also with the flag that moves what other processes map */
static void shared(void)
{
	char *mem = kt_huge_on(1, kt.ddr, SEED);
	struct ferry_ioc_range range = {
		.addr = (uintptr_t)mem, .len = KT_HUGE, .node = kt.hbm};
	struct kt_event done;
	struct ferry_ioc_result res;
	pid_t child;

	kt_event_init(&done);
	child = kt_fork();
	if (child == 0) {
		kt_event_wait(&done);
		KT_EXPECT_DATA(mem, KT_HUGE, SEED);
		kt_child_end();
	}
	KT_EXPECT_EQ(migrate_split(mem, KT_HUGE, kt.hbm, &res), 0);
	KT_EXPECT_RESULT(&res, .huge = PAGES);
	KT_EXPECT_EQ(kt_migrate_batch(FERRY_MIGRATE_SPLIT_HUGE | FERRY_MIGRATE_SHARED,
				      &range, 1, &res),
		     0);
	KT_EXPECT_RESULT(&res, .huge = PAGES);
	KT_EXPECT_ON(mem, KT_HUGE, kt.ddr);
	KT_EXPECT_EQ(kt_huge_in(mem, KT_HUGE), 1);
	KT_EXPECT_DATA(mem, KT_HUGE, SEED);
	kt_event_post(&done);
	KT_EXPECT_EQ(kt_wait(child), 0);

	/* Alone again, it may move. */
	KT_EXPECT_EQ(migrate_split(mem, KT_HUGE, kt.hbm, &res), PAGES);
	KT_EXPECT_DATA(mem, KT_HUGE, SEED);
}

/* Protecting a part splits the entry, not the page; it cannot be split further. */
static void mapped_by_small_entries(void)
{
	char *mem = kt_huge_on(1, kt.ddr, SEED);
	struct ferry_ioc_result res;

	KT_REQUIRE(mprotect(mem + KT_HUGE / 2, kt.page, PROT_READ) == 0, "mprotect: %m");
	KT_EXPECT_EQ(migrate_split(mem, KT_HUGE, kt.hbm, &res), 0);
	KT_EXPECT_RESULT(&res, .huge = PAGES);
	KT_EXPECT_ON(mem, KT_HUGE, kt.ddr);
	KT_EXPECT_DATA(mem, KT_HUGE, SEED);
}

/* The huge zero page is a hole, as ever. */
static void zero_page(void)
{
	char *mem = kt_alloc_huge(KT_HUGE);
	struct ferry_ioc_result res;

	KT_EXPECT_EQ(*(volatile char *)mem, 0);
	KT_EXPECT_EQ(migrate_split(mem, KT_HUGE, kt.hbm, &res), 0);
	KT_EXPECT_RESULT(&res, .hole = PAGES);
}

/* ---- with other threads ------------------------------------------------------- */

static _Atomic bool stop;

/* Two requests split the same pages while a thread writes to them. */
static void *migrate_on(void *arg)
{
	struct ferry_ioc_result res;

	migrate_split(arg, HUGE_PAGES * KT_HUGE, kt.hbm, &res);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_SUM(&res, HUGE_PAGES * KT_HUGE);
	return NULL;
}

static void start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	KT_REQUIRE(pthread_create(thread, NULL, fn, arg) == 0, "pthread_create");
}

static void with_writers(void)
{
	const size_t len = HUGE_PAGES * KT_HUGE;

	for (unsigned int round = 0; round < kt_rounds(5); round++) {
		char *mem = kt_huge_on(HUGE_PAGES, kt.ddr, SEED);
		pthread_t other;
		size_t bad, on;

		kt_writer_start(mem, len);
		start(&other, migrate_on, mem);
		migrate_on(mem);
		pthread_join(other, NULL);
		on = kt_on(mem, len, kt.hbm);
		KT_EXPECT(on > len / kt.page / 2, "only %zu pages moved", on);
		bad = kt_writer_stop();
		KT_EXPECT(bad == 0, "%zu pages lost a write", bad);
		munmap(mem, len);
	}
}

/* Has the kernel lock huge pages to free a part of them, or to split them. */
static void *meddle(void *arg)
{
	char *mem = arg;

	while (!atomic_load(&stop))
		for (size_t i = 0; i < HUGE_PAGES; i++) {
			char *page = mem + i * KT_HUGE + kt.page;

			madvise(page, kt.page, MADV_FREE);
			madvise(page, kt.page, MADV_COLD);
		}
	return NULL;
}

/*
 * A reference that migrate_vma_setup() forgets would keep its huge page for good,
 * and there are not many others that take memory meanwhile.
 *
 * 6.1 takes seconds for a round: while madvise() waits for the page table's lock,
 * its pending flush has migrate_vma_setup() flush each page by itself (pte_accessible()).
 * Where a round takes still longer, fewer have to do.
 */
static void loses_no_memory(void)
{
	const unsigned int rounds = kt_rounds(8);
	const uint64_t enough_us = 20000000, began = kt_now_us();
	const size_t len = HUGE_PAGES * KT_HUGE;
	size_t before = kt_free_or_other(), after;
	pthread_t meddler, other;

	for (unsigned int i = 0;
	     i < rounds && (rounds > 8 || kt_now_us() - began < enough_us); i++) {
		char *mem = kt_alloc_huge(len);

		for (size_t at = 0; at < len; at += KT_HUGE)
			kt_fill_on(mem + at, sizeof(uint64_t), kt.ddr, SEED);
		atomic_store(&stop, false);
		start(&meddler, meddle, mem);
		start(&other, migrate_on, mem);
		migrate_on(mem);
		pthread_join(other, NULL);
		atomic_store(&stop, true);
		pthread_join(meddler, NULL);
		munmap(mem, len);
	}
	after = kt_free_or_other();
	printf("    %zd kB fewer are free\n", ((ssize_t)before - (ssize_t)after) / 1024);
	KT_EXPECT(after + 2 * len > before, "%zu kB are gone", (before - after) / 1024);
}

static const struct kt_case cases[] = {
	KT_CASE(whole),     KT_CASE(part),         KT_CASE(bits),
	KT_CASE(pinned),    KT_CASE(shared),       KT_CASE(mapped_by_small_entries),
	KT_CASE(zero_page), KT_CASE(with_writers), KT_CASE(loses_no_memory),
};

KT_MAIN(cases)
