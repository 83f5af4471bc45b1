/* SPDX-License-Identifier: MIT */
/*
 * Proves that what the kernel notes about a page or a mapping is as before once
 * the page has moved: written since (soft-dirty), locked in memory, charged to a
 * cgroup, free to be dropped (MADV_FREE); not for children (MADV_DONTFORK,
 * MADV_WIPEONFORK), sealed, guarded. Single-threaded, with child processes.
 */
#include "kmod_test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef SYS_mseal
#define SYS_mseal 462 /* Linux 6.10 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

enum { SEED = 97, PAGES = 64 };

/* move_pages(2) of the caller's pages, all to @node */
static void move_by_kernel(char *mem, size_t pages, int node)
{
	int target[PAGES], status[PAGES];
	void *list[PAGES];

	for (size_t i = 0; i < pages; i++) {
		list[i] = mem + i * kt.page;
		target[i] = node;
	}
	KT_REQUIRE(syscall(SYS_move_pages, 0, pages, list, target, status,
			   MPOL_MF_MOVE) >= 0,
		   "move_pages: %m");
}

/*
 * Has every CPU hand over the pages and counts that it keeps to itself; so
 * move_pages(2) begins. (Compaction does as well, but leaves a page isolated.)
 */
static void drain(void)
{
	static char *page;

	if (!page)
		page = kt_alloc(kt.page);
	*(volatile char *)page = 1;
	move_by_kernel(page, 1, kt_on(page, kt.page, kt.ddr) ? kt.hbm : kt.ddr);
	kt_write_file("/proc/sys/vm/stat_refresh", "1");
}

/* ---- soft-dirty ----------------------------------------------------------- */

static void clear_soft_dirty(void)
{
	KT_REQUIRE(kt_write_file("/proc/self/clear_refs", "4"), "clear_refs: %m");
}

/*
 * The pages written since are those of which (i / run) is odd; no others, unless
 * @more is allowed.
 */
static void expect_soft_dirty(const char *mem, size_t run, bool more, const char *when)
{
	uint64_t entry[PAGES];

	kt_pagemap(mem, PAGES * kt.page, entry);
	for (size_t i = 0; i < PAGES; i++) {
		bool dirty = entry[i] & KT_SOFT_DIRTY, written = i / run % 2 == 1;

		KT_EXPECT(dirty == written || (dirty && more),
			  "page %zu %s: pagemap says %#llx", i, when,
			  (unsigned long long)entry[i]);
	}
}

/*
 * Does this kernel's own migration make clean pages soft-dirty? Up to 6.1 it
 * does so with each page whose entry is dirty.
 */
static bool kernel_makes_dirty(char *mem)
{
	uint64_t entry[PAGES];
	bool dirty = false;

	clear_soft_dirty();
	move_by_kernel(mem, PAGES, kt.hbm);
	KT_EXPECT_ON(mem, PAGES * kt.page, kt.hbm);
	kt_pagemap(mem, PAGES * kt.page, entry);
	for (size_t i = 0; i < PAGES; i++)
		dirty |= !!(entry[i] & KT_SOFT_DIRTY);
	return dirty;
}

/* Writes the pages that expect_soft_dirty() expects, leaving their data as it is. */
static void touch(char *mem, size_t run)
{
	for (size_t i = 0; i < PAGES; i++) {
		volatile uint64_t *at = (uint64_t *)(mem + i * kt.page);

		if (i / run % 2 == 1)
			*at = *at;
	}
}

/* Who saves only what was written since must miss no write, and move none for it. */
static void soft_dirty(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res;
	uint64_t entry[PAGES];
	bool more;

	clear_soft_dirty();
	touch(mem, 1);
	kt_pagemap(mem, len, entry);
	if (!(entry[1] & KT_SOFT_DIRTY))
		kt_skip("no soft-dirty bits in this kernel");
	more = kernel_makes_dirty(mem);
	if (more)
		printf("    this kernel's migration makes clean pages soft-dirty\n");

	/* Alternating pages, alternating runs, all clean: three moves each. */
	for (size_t run = 1; run <= PAGES; run *= 8) {
		clear_soft_dirty();
		touch(mem, run);
		expect_soft_dirty(mem, run, false, "before");
		for (int i = 0; i < 3; i++) {
			int to = kt_on(mem, len, kt.ddr) ? kt.hbm : kt.ddr;

			KT_EXPECT_EQ(kt_migrate(mem, len, to, 0, &res), PAGES);
			KT_EXPECT_RESULT(&res, .moved = PAGES);
			expect_soft_dirty(mem, run, more, "after a move");
		}
		KT_EXPECT_DATA(mem, len, SEED);
	}
	/* A write after the move shows. */
	clear_soft_dirty();
	touch(mem, 4);
	expect_soft_dirty(mem, 4, false, "written after a move");

	/* A populated page may count as written; a write to it must. */
	madvise(mem, len, MADV_DONTNEED);
	clear_soft_dirty();
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res), PAGES);
	clear_soft_dirty();
	touch(mem, 2);
	expect_soft_dirty(mem, 2, false, "populated");
}

/* ---- locked memory --------------------------------------------------------- */

static long node_kb(int node, const char *key)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	return kt_file_key(path, key);
}

/* What the kernel counts as locked and as never to be reclaimed on each node. */
struct locked {
	long mlocked[2], unevictable[2];
};

static struct locked locked_now(void)
{
	const int node[2] = {kt.ddr, kt.hbm};
	struct locked now;

	drain();
	for (int i = 0; i < 2; i++) {
		now.mlocked[i] = node_kb(node[i], "Mlocked");
		now.unevictable[i] = node_kb(node[i], "Unevictable");
	}
	return now;
}

/* So many kB more than @before are locked on each node. */
static void expect_locked(const struct locked *before, long ddr, long hbm,
			  const char *when)
{
	const long more[2] = {ddr, hbm};
	struct locked now;
	bool right = false;

	/* Pages that another CPU has in hand are counted a moment later. */
	for (int try = 0; try < 50 && !right; try++) {
		if (try)
			usleep(20000);
		now = locked_now();
		right = true;
		for (int i = 0; i < 2; i++)
			right &= now.mlocked[i] == before->mlocked[i] + more[i] &&
				 now.unevictable[i] == before->unevictable[i] + more[i];
	}
	KT_EXPECT(right,
		  "%s: locked %ld and %ld kB more, unevictable %ld and %ld, expected %ld "
		  "and %ld",
		  when, now.mlocked[0] - before->mlocked[0],
		  now.mlocked[1] - before->mlocked[1],
		  now.unevictable[0] - before->unevictable[0],
		  now.unevictable[1] - before->unevictable[1], ddr, hbm);
}

/* Locked pages stay locked, wherever they are, and are let go of once. */
static void locked(void)
{
	size_t len = PAGES * kt.page;
	const long kb = (long)(len / 1024);
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	const struct locked before = locked_now();
	struct ferry_ioc_result res;

	KT_REQUIRE(mlock(mem, len) == 0, "mlock: %m");
	expect_locked(&before, kb, 0, "mlock");
	for (int i = 0; i < 4; i++) {
		int to = i % 2 ? kt.ddr : kt.hbm;

		KT_EXPECT_EQ(kt_migrate(mem, len, to, 0, &res), PAGES);
		KT_EXPECT_RESULT(&res, .moved = PAGES);
		KT_EXPECT_ON(mem, len, to);
		expect_locked(&before, i % 2 ? kb : 0, i % 2 ? 0 : kb, "moved");
		KT_EXPECT_EQ(kt_smaps(mem, len, "Locked"), kb);
		KT_EXPECT_EQ(kt_file_key("/proc/self/status", "VmLck"), kb);
	}
	KT_EXPECT_EQ(kt_migrate(mem, len / 2, kt.hbm, 0, NULL), PAGES / 2);
	KT_REQUIRE(munlock(mem, len / 4) == 0, "munlock: %m");
	expect_locked(&before, kb / 2, kb / 4, "munlock");
	KT_EXPECT_DATA(mem, len, SEED);
	munmap(mem, len);
	expect_locked(&before, 0, 0, "munmap");
}

/* Pages that populating puts into locked memory are locked as well. */
static void locked_and_populated(void)
{
	size_t len = PAGES * kt.page;
	const long kb = (long)(len / 1024);
	char *mem = kt_alloc(len);
	const struct locked before = locked_now();

	KT_REQUIRE(mlock2(mem, len, MLOCK_ONFAULT) == 0, "mlock2: %m");
	expect_locked(&before, 0, 0, "mlock2");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, NULL), PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	expect_locked(&before, 0, kb, "populated");
	munmap(mem, len);
	expect_locked(&before, 0, 0, "munmap");
}

/* ---- the cgroup's charge --------------------------------------------------- */

#define CGROUP  "/sys/fs/cgroup"
#define CHARGED CGROUP "/ferry-charge"

enum { CHARGED_PAGES = 4096, SLACK_KB = 1024 }; /* CPUs take 64 pages in advance */

static long charged_kb(void)
{
	char text[32];

	KT_REQUIRE(kt_read_file(CHARGED "/memory.current", text, sizeof(text)),
		   "memory.current: %m");
	return strtol(text, NULL, 10) / 1024;
}

/* kB of anonymous memory that the cgroup has on a node */
static long charged_on(int node)
{
	char line[512], key[16];
	FILE *file = fopen(CHARGED "/memory.numa_stat", "re");
	long kb = -1;

	KT_REQUIRE(file, "memory.numa_stat: %m");
	snprintf(key, sizeof(key), " N%d=", node);
	while (fgets(line, sizeof(line), file)) {
		char *at = strstr(line, key);

		if (!strncmp(line, "anon ", 5) && at)
			kb = strtol(at + strlen(key), NULL, 10) / 1024;
	}
	fclose(file);
	return kb;
}

static void expect_charged(long kb, int node, const char *when)
{
	long current = 0, on = 0;

	/* The statistics are gathered from all CPUs every two seconds. */
	for (int try = 0; try < 60; try++) {
		if (try)
			usleep(50000);
		current = charged_kb();
		on = charged_on(node);
		if (labs(current - kb) <= SLACK_KB && labs(on - kb) <= SLACK_KB)
			return;
	}
	KT_EXPECT(false, "%s: %ld kB charged, %ld of it on node %d, expected %ld", when,
		  current, on, node, kb);
}

/* The child: a cgroup of its own, whose charge follows the pages. */
static void charged_child(void)
{
	const size_t len = CHARGED_PAGES * kt.page;
	const long kb = (long)(len / 1024);
	struct ferry_ioc_result res;
	char text[32], *mem;
	long base;

	KT_REQUIRE(kt_write_file(CHARGED "/cgroup.procs", "0"), "cgroup.procs: %m");
	kt.fd = kt_open();
	base = charged_kb();
	mem = kt_alloc_on(len, kt.ddr, SEED);
	base = charged_kb() - kb; /* what the process has charged besides */
	expect_charged(base + kb, kt.ddr, "allocated");

	/* At the limit, too: a page that moves needs no charge of its own. */
	snprintf(text, sizeof(text), "%ldK", base + kb + 2 * SLACK_KB);
	KT_REQUIRE(kt_write_file(CHARGED "/memory.max", text), "memory.max: %m");
	for (int i = 0; i < 5; i++) {
		int to = i % 2 ? kt.ddr : kt.hbm;

		KT_EXPECT_EQ(kt_migrate(mem, len, to, 0, &res), CHARGED_PAGES);
		KT_EXPECT_RESULT(&res, .moved = CHARGED_PAGES);
		if (i == 0 || i == 4)
			expect_charged(base + kb, to, "moved");
	}
	KT_EXPECT_EQ(kt_file_key(CHARGED "/memory.events", "oom"), 0);
	KT_EXPECT_DATA(mem, len, SEED);

	KT_REQUIRE(madvise(mem, len, MADV_DONTNEED) == 0, "MADV_DONTNEED: %m");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, NULL),
		     CHARGED_PAGES);
	expect_charged(base + kb, kt.hbm, "populated");
	munmap(mem, len);
	expect_charged(base, kt.hbm, "unmapped");
	kt_child_end();
}

static void charged(void)
{
	pid_t pid;

	if (!kt_write_file(CGROUP "/cgroup.subtree_control", "+memory"))
		kt_skip("no memory controller in cgroup2: %m");
	KT_REQUIRE(mkdir(CHARGED, 0755) == 0 || errno == EEXIST, "mkdir: %m");
	pid = kt_fork();
	if (pid == 0)
		charged_child();
	KT_EXPECT_EQ(kt_wait(pid), 0);
	/* Nothing is left behind by a process that has ended. */
	for (int try = 0; try < 100 && charged_kb() > SLACK_KB; try++)
		usleep(10000);
	KT_EXPECT(charged_kb() <= SLACK_KB, "%ld kB stay charged", charged_kb());
	KT_EXPECT(rmdir(CHARGED) == 0, "rmdir: %m");
}

/* ---- advice ----------------------------------------------------------------- */

/* Each page holds its old data or zeros, those that were written since the former. */
static void expect_free_or_kept(const char *mem, const char *right, bool half_written)
{
	size_t gone = 0;

	for (size_t i = 0; i < PAGES; i++) {
		const char *page = mem + i * kt.page;
		bool kept = !memcmp(page, right + i * kt.page, kt.page), zero = true;

		for (size_t k = 0; k < kt.page; k++)
			zero &= !page[k];
		KT_EXPECT(kept || zero, "page %zu holds something else", i);
		if (half_written && i % 2)
			KT_EXPECT(kept, "page %zu was written, and is lost", i);
		gone += zero;
	}
	printf("    %zu of %d pages were dropped\n", gone, PAGES);
}

/*
 * What the kernel may drop, it still may after the move; what was written
 * after MADV_FREE it may not.
 */
static void lazily_free(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED), *right = kt_alloc(len);
	struct ferry_ioc_result res;
	long lazy;

	kt_fill(right, len, SEED);
	drain();
	KT_REQUIRE(madvise(mem, len, MADV_FREE) == 0, "MADV_FREE: %m");
	drain();
	for (size_t i = 1; i < PAGES; i += 2)
		memcpy(mem + i * kt.page, right + i * kt.page, 64);
	lazy = kt_smaps(mem, len, "LazyFree");
	KT_EXPECT_EQ(lazy, len / 2 / 1024);
	for (int i = 0; i < 3; i++) {
		KT_EXPECT_EQ(kt_migrate(mem, len, i % 2 ? kt.ddr : kt.hbm,
					FERRY_RANGE_POPULATE, &res),
			     PAGES);
		KT_EXPECT_RESULT(&res, .moved = PAGES);
		KT_EXPECT_EQ(kt_smaps(mem, len, "LazyFree"), lazy);
	}
	KT_EXPECT_DATA(mem, len, SEED); /* nothing has needed the memory yet */
	madvise(mem, len, MADV_PAGEOUT);
	expect_free_or_kept(mem, right, true);
	kt_fill(mem, len, SEED + 1);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.ddr, 0, &res), res.moved);
	KT_EXPECT_EQ(res.moved + res.already, PAGES);
	KT_EXPECT_DATA(mem, len, SEED + 1);
	KT_EXPECT_EQ(kt_smaps(mem, len, "LazyFree"), 0);
}

/* What a child is not to see it does not see, moved or populated. */
static void not_for_children(void)
{
	size_t len = PAGES * kt.page;
	char *hidden = kt_alloc_on(len, kt.ddr, SEED);
	char *wiped = kt_alloc_on(len, kt.ddr, SEED);
	pid_t pid;

	KT_REQUIRE(madvise(hidden, len, MADV_DONTFORK) == 0 &&
			   madvise(wiped, len, MADV_WIPEONFORK) == 0,
		   "madvise: %m");
	madvise(wiped, len / 2, MADV_DONTNEED);
	KT_EXPECT_EQ(kt_migrate(hidden, len, kt.hbm, 0, NULL), PAGES);
	KT_EXPECT_EQ(kt_migrate(wiped, len, kt.hbm, FERRY_RANGE_POPULATE, NULL), PAGES);
	pid = kt_fork();
	if (pid == 0) {
		KT_EXPECT(!kt_readable(hidden), "MADV_DONTFORK is forgotten");
		for (size_t i = 0; i < len; i++)
			KT_EXPECT(!wiped[i], "MADV_WIPEONFORK is forgotten");
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_wait(pid), 0);
	KT_EXPECT_DATA(hidden, len, SEED);
	KT_EXPECT_ON(hidden, len, kt.hbm);
	KT_EXPECT_ON(wiped, len, kt.hbm);
	/* Nobody shares these pages, so they may move on. */
	KT_EXPECT_EQ(kt_migrate(hidden, len, kt.ddr, 0, NULL), PAGES);
	KT_EXPECT_DATA(hidden, len, SEED);
}

/* A sealed mapping cannot be changed; where its pages are is no part of it. */
static void sealed(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res;

	if (syscall(SYS_mseal, mem, len, 0) != 0)
		kt_skip("mseal: %m");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), PAGES);
	KT_EXPECT_RESULT(&res, .moved = PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT(munmap(mem, len) != 0 && errno == EPERM, "the seal is broken");
	KT_EXPECT_DATA(mem, len, SEED);
}

/* ---- guards ------------------------------------------------------------------ */

static void *guarded_thread(void *arg)
{
	size_t guard, size, above;
	struct ferry_ioc_result res;
	pthread_attr_t attr;
	void *stack;

	(void)arg;
	KT_REQUIRE(pthread_getattr_np(pthread_self(), &attr) == 0 &&
			   pthread_attr_getstack(&attr, &stack, &size) == 0 &&
			   pthread_attr_getguardsize(&attr, &guard) == 0,
		   "no stack");
	pthread_attr_destroy(&attr);
	/* The guard lies below what the thread may use, and is filled with nothing. */
	above = 8 * kt.page;
	KT_EXPECT(guard >= kt.page, "no guard");
	KT_EXPECT_EQ(kt_migrate((char *)stack - guard, guard + above, kt.hbm,
				FERRY_RANGE_POPULATE, &res),
		     above / kt.page);
	KT_EXPECT_RESULT(&res, .populated = above / kt.page, .hole = guard / kt.page);
	KT_EXPECT(!kt_readable((char *)stack - kt.page), "the guard is readable");
	KT_EXPECT(kt_writable(stack), "the stack cannot be written");
	return NULL;
}

/* The guard of a thread's stack, which is memory without access. */
static void guard_of_thread(void)
{
	pthread_t thread;

	KT_REQUIRE(pthread_create(&thread, NULL, guarded_thread, NULL) == 0, "no thread");
	pthread_join(thread, NULL);
}

/* The main stack grows by faults, and not because somebody asks below it. */
static void below_the_stack(void)
{
	const size_t below = PAGES * kt.page;
	struct ferry_ioc_result res;
	size_t len, len_after;
	char *stack = kt_find_map("[stack]", &len);

	KT_REQUIRE(stack, "no stack");
	KT_EXPECT_EQ(kt_migrate(stack - below, below, kt.hbm, FERRY_RANGE_POPULATE, &res),
		     0);
	KT_EXPECT_RESULT(&res, .hole = PAGES);
	KT_EXPECT(kt_find_map("[stack]", &len_after) == stack && len_after == len,
		  "the stack has grown");
}

/* Guards inside of a mapping are markers in the page table, which stay. */
static void guard_regions(void)
{
	size_t len = PAGES * kt.page, half = len / 2;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res;

	if (madvise(mem, half, MADV_GUARD_INSTALL) != 0)
		kt_skip("no guard regions in this kernel: %m");
	kt_fill_on(mem + half, half, kt.ddr, SEED);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res), PAGES / 2);
	KT_EXPECT_RESULT(&res, .moved = PAGES / 2, .hole = PAGES / 2);
	KT_EXPECT(!kt_readable(mem) && !kt_writable(mem + half - 1), "a guard is gone");
	KT_EXPECT_DATA(mem + half, half, SEED);
}

static const struct kt_case cases[] = {
	KT_CASE(soft_dirty),    KT_CASE(locked),          KT_CASE(locked_and_populated),
	KT_CASE(charged),       KT_CASE(lazily_free),     KT_CASE(not_for_children),
	KT_CASE(sealed),        KT_CASE(guard_of_thread), KT_CASE(below_the_stack),
	KT_CASE(guard_regions),
};

KT_MAIN(cases)
