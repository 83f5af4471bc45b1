/* SPDX-License-Identifier: MIT */
/*
 * Proves that pages may move while their process forks, unmaps, remaps, protects,
 * gives back, collapses or relocates them, and that a process may exec, exit, be
 * killed, or close its ring with requests in flight: the data is right, nothing
 * hangs, and the module is let go of.
 *
 * Threads: one mover, which only reports; the main thread changes the memory and
 * knows what must be in it.
 */
#include "kmod_test.h"
#include "kmod_uring.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; younger than Debian 12's C library */
#endif

enum { SEED = 83, PAGES = 128, CASE_MS = 1200 };

/* Moves a range to and fro until told to stop. */
struct mover {
	char *mem;
	size_t len;
	unsigned int flags;
	atomic_uint pause_us; /* between two requests */
	atomic_bool stop;
	atomic_ulong requests, moved;
	pthread_t thread;
};

static void *mover_run(void *arg)
{
	struct mover *m = arg;

	for (unsigned long i = 0; !atomic_load(&m->stop); i++) {
		struct ferry_ioc_result res;
		long ret = kt_migrate(m->mem, m->len, i % 2 ? kt.ddr : kt.hbm, m->flags,
				      &res);

		KT_EXPECT_EQ(ret, res.moved + res.populated);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_SUM(&res, m->len);
		atomic_fetch_add(&m->requests, 1);
		atomic_fetch_add(&m->moved, res.moved);
		if (atomic_load(&m->pause_us))
			usleep(atomic_load(&m->pause_us));
	}
	return NULL;
}

static void mover_start(struct mover *m, char *mem, size_t len, unsigned int flags)
{
	m->mem = mem;
	m->len = len;
	m->flags = flags;
	KT_REQUIRE(pthread_create(&m->thread, NULL, mover_run, m) == 0, "no thread");
	while (!atomic_load(&m->requests) && !kt_failures())
		usleep(1000);
}

static void mover_end(struct mover *m)
{
	atomic_store(&m->stop, true);
	pthread_join(m->thread, NULL);
	KT_EXPECT(atomic_load(&m->moved) > 0, "nothing moved meanwhile");
}

/* True until a case had its time and @least rounds, or something failed. */
static bool go_on(uint64_t start, unsigned int rounds, unsigned int least)
{
	uint64_t ms = (kt_now_us() - start) / 1000;

	if (kt_failures() || ms > 20 * CASE_MS)
		return false;
	return ms < CASE_MS || rounds < least;
}

/* Both sides of a fork see the old data, and no one's later writes but their own. */
static void fork_while_moving(void)
{
	size_t len = PAGES * kt.page, half = len / 2;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	uint64_t start = kt_now_us(), seed = SEED;
	struct mover mover = {0};
	unsigned int forks = 0;

	kt_fill(mem + half, half, SEED); /* each half has its own pattern */
	mover_start(&mover, mem, len, 0);
	for (; go_on(start, forks, 3); forks++) {
		pid_t pid = kt_fork();

		if (pid == 0) {
			KT_EXPECT_DATA(mem, half, seed);
			KT_EXPECT_DATA(mem + half, half, SEED);
			kt_fill(mem + half, half, 1);
			KT_EXPECT_DATA(mem, half, seed);
			KT_EXPECT_DATA(mem + half, half, 1);
			kt_child_end();
		}
		kt_fill(mem, half, ++seed); /* the child must not see it */
		KT_EXPECT_EQ(kt_wait(pid), 0);
		KT_EXPECT_DATA(mem, half, seed);
		KT_EXPECT_DATA(mem + half, half, SEED);
		seed++;
		kt_fill(mem, half, seed);
	}
	mover_end(&mover);
	KT_EXPECT(forks >= 3, "only %u forks", forks);
	KT_EXPECT_DATA(mem, half, seed);
	KT_EXPECT_DATA(mem + half, half, SEED);
}

/* One change of the memory and the check that it did what it must. */
static void change(char *mem, size_t len, unsigned int what, uint64_t seed)
{
	size_t part = len / 4;
	char *mid = mem + part, *away;

	switch (what % 7) {
	case 0: /* given back: zeros */
		madvise(mid, part, MADV_DONTNEED);
		for (size_t i = 0; i < part; i += 512)
			KT_EXPECT(mid[i] == 0, "old data after MADV_DONTNEED");
		break;
	case 1: /* unmapped and mapped anew: zeros */
		munmap(mid, part);
		KT_EXPECT(!kt_readable(mid), "readable after munmap");
		away = mmap(mid, part, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		KT_REQUIRE(away == mid, "mmap: %m");
		madvise(mid, part, MADV_NOHUGEPAGE);
		for (size_t i = 0; i < part; i += 512)
			KT_EXPECT(mid[i] == 0, "old data after munmap");
		break;
	case 2: /* mapped over */
		away = mmap(mid, part, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		KT_REQUIRE(away == mid, "mmap: %m");
		madvise(mid, part, MADV_NOHUGEPAGE);
		KT_EXPECT_EQ(mid[0] | mid[part - 1], 0);
		break;
	case 3: /* no access, and back */
		KT_REQUIRE(mprotect(mid, part, PROT_NONE) == 0, "mprotect: %m");
		KT_EXPECT(!kt_readable(mid + part / 2), "readable with PROT_NONE");
		KT_REQUIRE(mprotect(mid, part, PROT_READ | PROT_WRITE) == 0,
			   "mprotect: %m");
		KT_EXPECT_DATA(mid, part, seed);
		break;
	case 4: /* read-only, and back */
		KT_REQUIRE(mprotect(mid, part, PROT_READ) == 0, "mprotect: %m");
		KT_EXPECT(!kt_writable(mid + part / 2), "writable with PROT_READ");
		KT_EXPECT_DATA(mid, part, seed);
		KT_REQUIRE(mprotect(mid, part, PROT_READ | PROT_WRITE) == 0,
			   "mprotect: %m");
		KT_EXPECT_DATA(mid, part, seed);
		break;
	case 5: /* taken away, and back */
		away = kt_alloc(part);
		KT_REQUIRE(mremap(mid, part, part, MREMAP_MAYMOVE | MREMAP_FIXED, away) ==
				   away,
			   "mremap: %m");
		KT_EXPECT_DATA(away, part, seed);
		KT_REQUIRE(mremap(away, part, part, MREMAP_MAYMOVE | MREMAP_FIXED, mid) ==
				   mid,
			   "mremap: %m");
		KT_EXPECT_DATA(mid, part, seed);
		break;
	case 6: /* lazily freed: old data or zeros, then what is written */
		madvise(mid, part, MADV_FREE);
		kt_fill(mid, part, seed + 1);
		KT_EXPECT_DATA(mid, part, seed + 1);
		break;
	}
	kt_fill(mid, part, seed);
}

static void changes_while_moving(unsigned int flags)
{
	size_t len = PAGES * kt.page, part = len / 4;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	uint64_t start = kt_now_us();
	struct mover mover = {0};
	unsigned int rounds = 0;

	kt_fill(mem + part, part, SEED); /* the part that changes */
	mover_start(&mover, mem, len, flags);
	for (; go_on(start, rounds, 14); rounds++)
		change(mem, len, rounds, SEED);
	mover_end(&mover);
	printf("    %u changes, %lu requests\n", rounds, atomic_load(&mover.requests));
	KT_EXPECT(rounds >= 14, "only %u changes", rounds);
	KT_EXPECT_DATA(mem, part, SEED);
	KT_EXPECT_DATA(mem + part, part, SEED);
}

static void remap_while_moving(void)
{
	changes_while_moving(0);
}

static void remap_while_populating(void)
{
	changes_while_moving(FERRY_RANGE_POPULATE);
}

/* Small pages become a huge one and small again, under the mover's hands. */
static void collapse_while_moving(void)
{
	char *mem = kt_alloc_huge(KT_HUGE);
	uint64_t start = kt_now_us();
	/* Collapsing needs a moment in which nothing moves, long on some kernels. */
	struct mover mover = {.pause_us = 5000};
	unsigned int collapsed = 0, rounds;
	int error = 0;

	madvise(mem, KT_HUGE, MADV_NOHUGEPAGE);
	kt_fill_on(mem, KT_HUGE, kt.ddr, SEED);
	mover_start(&mover, mem, KT_HUGE, 0);
	for (rounds = 0; go_on(start, collapsed, 1); rounds++) {
		madvise(mem, KT_HUGE, MADV_HUGEPAGE);
		if (madvise(mem, KT_HUGE, MADV_COLLAPSE) == 0)
			collapsed++;
		else
			error = errno;
		if (!collapsed && mover.pause_us < 500000)
			mover.pause_us *= 2;
		KT_EXPECT_DATA(mem, KT_HUGE, SEED);
		madvise(mem, KT_HUGE, MADV_NOHUGEPAGE);
		/* Writing it anew is what makes small pages for certain. */
		madvise(mem, KT_HUGE, MADV_DONTNEED);
		kt_fill_on(mem, KT_HUGE, kt.ddr, SEED);
		KT_EXPECT_DATA(mem, KT_HUGE, SEED);
	}
	mover_end(&mover);
	printf("    %u of %u collapsed\n", collapsed, rounds);
	KT_EXPECT(collapsed > 0, "never collapsed: %s", strerror(error));
	KT_EXPECT_DATA(mem, KT_HUGE, SEED);
}

/* move_pages(2) pulls the other way. */
static void move_pages_while_moving(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	uint64_t start = kt_now_us();
	struct mover mover = {0};
	int node[PAGES], status[PAGES];
	void *list[PAGES];

	mover_start(&mover, mem, len, 0);
	for (unsigned int i = 0; go_on(start, i, 3); i++) {
		for (size_t k = 0; k < PAGES; k++) {
			list[k] = mem + k * kt.page;
			node[k] = (i + k) % 2 ? kt.ddr : kt.hbm;
		}
		KT_EXPECT(syscall(SYS_move_pages, 0, PAGES, list, node, status,
				  MPOL_MF_MOVE) >= 0,
			  "move_pages: %m");
		KT_EXPECT_DATA(mem, len, SEED);
	}
	mover_end(&mover);
	KT_EXPECT_EQ(kt_on(mem, len, kt.ddr) + kt_on(mem, len, kt.hbm), PAGES);
}

/*
 * Who saves what was written since soft-dirty was cleared misses no write, not even
 * to a page that moves at that moment. (The kernel's own migration, which the module
 * leaves entries to, may make a clean page soft-dirty; that costs a save, no data.)
 */
static void track_while_moving(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	uint64_t start = kt_now_us(), longest = 0, entry[PAGES];
	struct mover mover = {0};
	unsigned int rounds = 0;

	kt_pagemap(mem, len, entry);
	if (!(entry[0] & KT_SOFT_DIRTY))
		kt_skip("no soft-dirty bits in this kernel");
	mover_start(&mover, mem, len, 0);
	for (; go_on(start, rounds, 20); rounds++) {
		const uint64_t begin = kt_now_us();

		KT_REQUIRE(kt_write_file("/proc/self/clear_refs", "4"), "clear_refs: %m");
		for (size_t i = rounds % 2; i < PAGES; i += 2)
			++*(volatile uint64_t *)(mem + i * kt.page);
		kt_pagemap(mem, len, entry);
		for (size_t i = rounds % 2; i < PAGES; i += 2)
			KT_EXPECT(entry[i] & KT_SOFT_DIRTY,
				  "round %u: the write to page %zu is lost, pagemap says "
				  "%#llx",
				  rounds, i, (unsigned long long)entry[i]);
		if (kt_now_us() - begin > longest)
			longest = kt_now_us() - begin;
	}
	mover_end(&mover);
	printf("    %u rounds of %llu us at most, %lu pages moved\n", rounds,
	       (unsigned long long)longest, atomic_load(&mover.moved));
	KT_EXPECT(rounds >= 20, "only %u rounds", rounds);
}

/* ---- the end of a process or a ring --------------------------------------- */

enum { FLIGHT = 16 };
static const size_t flight_len = 8ul << 20;

/* Requests in flight: FLIGHT of them by io_uring, and a thread in the ioctl. */
struct flight {
	char *mem;
	struct io_uring ring;
	struct kt_request req[FLIGHT];
	struct mover mover;
};

static void flight_start(struct flight *f)
{
	size_t part = flight_len / FLIGHT;

	f->mem = kt_alloc_on(flight_len, kt.ddr, SEED);
	memset(&f->mover, 0, sizeof(f->mover));
	mover_start(&f->mover, f->mem, flight_len, 0);
	kt_ring_init(&f->ring, FLIGHT, 0);
	for (size_t i = 0; i < FLIGHT; i++) {
		kt_request_init(&f->req[i], f->mem + i * part, part,
				i % 2 ? kt.ddr : kt.hbm);
		kt_ring_cmd(&f->ring, kt.fd, FERRY_IOC_MIGRATE, &f->req[i].arg, i);
	}
	KT_EXPECT_EQ(io_uring_submit(&f->ring), FLIGHT);
}

/* Runs @act in children that have requests in flight; each must end as told. */
static void in_children(void (*act)(struct flight *), int status, bool kill_it)
{
	/* Nothing may hold up a killed process; the others have work to do. */
	const uint64_t limit_ms = (kill_it ? 5000ULL : 30000ULL) * kt_slowness();

	for (int i = 0; i < 4 && !kt_failures(); i++) {
		struct kt_event ready;
		uint64_t start;
		pid_t pid;

		kt_event_init(&ready);
		pid = kt_fork();
		if (pid == 0) {
			static struct flight f;

			kt.fd = kt_open();
			flight_start(&f);
			kt_event_post(&ready);
			act(&f);
			_exit(99);
		}
		kt_event_wait(&ready);
		start = kt_now_us();
		if (kill_it) {
			usleep((useconds_t)i * 3000);
			kill(pid, SIGKILL);
		}
		KT_EXPECT_EQ(kt_wait(pid), status);
		KT_EXPECT(kt_now_us() - start < limit_ms * 1000, "took %llu ms to end",
			  (unsigned long long)(kt_now_us() - start) / 1000);
		close(ready.fd[0]);
		close(ready.fd[1]);
	}
}

static long module_users(void)
{
	char text[32];

	return kt_read_file("/sys/module/ferry/refcnt", text, sizeof(text))
		       ? strtol(text, NULL, 10)
		       : -1;
}

/* The module is as little used as before, and works. */
static void expect_usable(long users)
{
	size_t len = 32 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);

	/* The last reference of a ring goes by delayed work. */
	for (int i = 0; i < 500 && module_users() != users; i++)
		usleep(10000);
	KT_EXPECT_EQ(module_users(), users);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, NULL), 32);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

static void act_exit(struct flight *f)
{
	(void)f;
	_exit(7);
}

static void exit_in_flight(void)
{
	long users = module_users();

	in_children(act_exit, 7, false);
	expect_usable(users);
}

static void act_exec(struct flight *f)
{
	(void)f;
	execl("/bin/sh", "sh", "-c", "exit 9", (char *)NULL);
}

static void exec_in_flight(void)
{
	long users = module_users();

	in_children(act_exec, 9, false);
	expect_usable(users);
}

static void act_wait(struct flight *f)
{
	for (;;)
		kt_ring_call(&f->ring, kt.fd, FERRY_IOC_MIGRATE, &f->req[0].arg);
}

static void kill_in_flight(void)
{
	long users = module_users();

	in_children(act_wait, 128 + SIGKILL, true);
	expect_usable(users);
}

static void act_signal(struct flight *f)
{
	(void)f;
	abort();
}

static void abort_in_flight(void)
{
	long users = module_users();

	in_children(act_signal, 128 + SIGABRT, false);
	expect_usable(users);
}

/* The ring goes, its requests with it, and the memory is whole. */
static void act_close_ring(struct flight *f)
{
	io_uring_queue_exit(&f->ring);
	KT_EXPECT_DATA(f->mem, flight_len, SEED);
	mover_end(&f->mover);
	KT_EXPECT_DATA(f->mem, flight_len, SEED);
	KT_EXPECT_EQ(kt_on(f->mem, flight_len, kt.ddr) +
			     kt_on(f->mem, flight_len, kt.hbm),
		     flight_len / kt.page);
	kt_child_end();
}

static void ring_closed_in_flight(void)
{
	long users = module_users();

	in_children(act_close_ring, 0, false);
	expect_usable(users);
}

/* The device is closed under its requests: they end as if it were not. */
static void act_close_device(struct flight *f)
{
	atomic_store(&f->mover.stop, true);
	pthread_join(f->mover.thread, NULL);
	close(kt.fd);
	for (int i = 0; i < FLIGHT; i++) {
		int ret = kt_ring_wait(&f->ring, NULL);

		KT_EXPECT(ret >= 0, "a request ended with %d", ret);
	}
	KT_EXPECT_DATA(f->mem, flight_len, SEED);
	kt_child_end();
}

static void device_closed_in_flight(void)
{
	long users = module_users();

	in_children(act_close_device, 0, false);
	expect_usable(users);
}

/* The memory goes while requests work on it. */
static void act_unmap(struct flight *f)
{
	munmap(f->mem, flight_len);
	for (int i = 0; i < FLIGHT; i++) {
		int ret = kt_ring_wait(&f->ring, NULL);

		KT_EXPECT(ret >= 0, "a request ended with %d", ret);
	}
	atomic_store(&f->mover.stop, true);
	pthread_join(f->mover.thread, NULL);
	for (int i = 0; i < FLIGHT; i++)
		KT_EXPECT_SUM(&f->req[i].result, flight_len / FLIGHT);
	kt_child_end();
}

static void unmap_in_flight(void)
{
	long users = module_users();

	in_children(act_unmap, 0, false);
	expect_usable(users);
}

static const struct kt_case cases[] = {
	KT_CASE(fork_while_moving),       KT_CASE(remap_while_moving),
	KT_CASE(remap_while_populating),  KT_CASE(collapse_while_moving),
	KT_CASE(move_pages_while_moving), KT_CASE(track_while_moving),
	KT_CASE(exit_in_flight),          KT_CASE(exec_in_flight),
	KT_CASE(kill_in_flight),          KT_CASE(abort_in_flight),
	KT_CASE(ring_closed_in_flight),   KT_CASE(device_closed_in_flight),
	KT_CASE(unmap_in_flight),
};

KT_MAIN(cases)
