/* SPDX-License-Identifier: MIT */
/*
 * Proves that userfaultfd's registrations keep their meaning: a page that a
 * handler is to supply is not populated, write protection moves with the page
 * and is lost by neither moving nor populating, and a poisoned page stays so.
 * The main thread handles the faults; a thread writes to raise one.
 */
#include "kmod_test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Younger than Debian 12's headers */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13) /* Linux 6.4 */
#endif
#ifndef UFFDIO_POISON
#define UFFD_FEATURE_POISON (1 << 14) /* Linux 6.6 */
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

enum { SEED = 37, PAGES = 32 };

static int uffd_open(uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		kt_skip("userfaultfd: %m");
	if (ioctl(fd, UFFDIO_API, &api) != 0)
		kt_skip("UFFDIO_API: %m");
	return fd;
}

static void uffd_register(int fd, void *mem, size_t len, uint64_t mode)
{
	struct uffdio_register reg = {
		.range = {.start = (uintptr_t)mem, .len = len},
		.mode = mode,
	};

	KT_REQUIRE(ioctl(fd, UFFDIO_REGISTER, &reg) == 0, "UFFDIO_REGISTER: %m");
}

static void *write_word(void *at)
{
	*(volatile uint64_t *)at = 0;
	return NULL;
}

/* Waits for the fault that a write to @at is to raise; false when none comes. */
static bool uffd_faulted(int fd, char *at, uint64_t flag, pthread_t *writer)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};
	struct uffd_msg msg;

	pthread_create(writer, NULL, write_word, at);
	if (poll(&poller, 1, 3000) != 1 || read(fd, &msg, sizeof(msg)) != sizeof(msg))
		return false;
	return msg.event == UFFD_EVENT_PAGEFAULT &&
	       msg.arg.pagefault.address / kt.page == (uintptr_t)at / kt.page &&
	       (!flag || msg.arg.pagefault.flags & flag);
}

/* A page somebody's handler will supply is not populated over its head. */
static void missing(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc(len), *source = kt_alloc_on(kt.page, kt.ddr, SEED);
	int fd = uffd_open(0);
	struct ferry_ioc_result res;
	struct uffdio_copy copy;
	pthread_t writer;

	kt_fill_on(mem, 8 * kt.page, kt.ddr, SEED);
	uffd_register(fd, mem, len, UFFDIO_REGISTER_MODE_MISSING);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res), 8);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.moved, 8);
	KT_EXPECT_EQ(res.populated, 0);
	KT_EXPECT_SUM(&res, len);
	KT_EXPECT_ON(mem, 8 * kt.page, kt.hbm);
	KT_EXPECT_EQ(kt_smaps(mem, len, "Rss"), 8 * kt.page / 1024);

	KT_EXPECT(uffd_faulted(fd, mem + 20 * kt.page, 0, &writer),
		  "the fault went unseen");
	copy = (struct uffdio_copy){.dst = (uintptr_t)mem + 20 * kt.page,
				    .src = (uintptr_t)source,
				    .len = kt.page};
	KT_EXPECT(ioctl(fd, UFFDIO_COPY, &copy) == 0, "UFFDIO_COPY: %m");
	pthread_join(writer, NULL);
	KT_EXPECT_DATA(mem, 8 * kt.page, SEED);
}

/* Protects a range, or lets go of it. */
static void uffd_protect(int fd, void *mem, size_t len, bool on)
{
	struct uffdio_writeprotect protect = {
		.range = {.start = (uintptr_t)mem, .len = len},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	KT_REQUIRE(ioctl(fd, UFFDIO_WRITEPROTECT, &protect) == 0,
		   "UFFDIO_WRITEPROTECT: %m");
}

/* All pages in the first half of a range are write-protected, and no others. */
static void expect_half_protected(const char *mem, size_t len, const char *when)
{
	uint64_t entry[PAGES];

	kt_pagemap(mem, len, entry);
	for (size_t i = 0; i < len / kt.page; i++)
		KT_EXPECT(!!(entry[i] & KT_UFFD_WP) == (i < len / kt.page / 2),
			  "page %zu %s: pagemap says %#llx", i, when,
			  (unsigned long long)entry[i]);
}

/* A write to @at waits for the handler, who lets it go on. */
static void expect_protected(int fd, char *at, size_t len)
{
	pthread_t writer;

	KT_EXPECT(uffd_faulted(fd, at, UFFD_PAGEFAULT_FLAG_WP, &writer),
		  "a write to a protected page went unseen");
	uffd_protect(fd, at, len, false);
	pthread_join(writer, NULL);
	KT_EXPECT_EQ(*(uint64_t *)at, 0);
}

/* Write protection moves with the page, and so does its absence. */
static void write_protected(void)
{
	size_t len = PAGES * kt.page, half = len / 2;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	int fd = uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	struct ferry_ioc_result res;

	uffd_register(fd, mem, len, UFFDIO_REGISTER_MODE_WP);
	uffd_protect(fd, mem, half, true);
	expect_half_protected(mem, len, "before");
	for (int i = 0; i < 3; i++) {
		int to = i % 2 ? kt.ddr : kt.hbm;

		KT_EXPECT_EQ(kt_migrate(mem, len, to, FERRY_RANGE_POPULATE, &res), PAGES);
		KT_EXPECT_RESULT(&res, .moved = PAGES);
		KT_EXPECT_ON(mem, len, to);
		expect_half_protected(mem, len, "after a move");
		KT_EXPECT_DATA(mem, len, SEED);
	}
	kt_fill(mem + half, half, SEED); /* raises nothing */
	for (size_t i = 0; i < PAGES / 2; i += 5)
		expect_protected(fd, mem + i * kt.page, kt.page);
	KT_EXPECT_DATA(mem + half, half, SEED);
}

/* The zero page can be protected too: populating must not open it to writes. */
static void write_protected_zeros(void)
{
	size_t len = PAGES * kt.page;
	volatile char *mem = kt_alloc(len);
	int fd = uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	struct ferry_ioc_result res;

	for (size_t at = 0; at < len; at += kt.page)
		KT_EXPECT_EQ(mem[at], 0);
	uffd_register(fd, (void *)mem, len, UFFDIO_REGISTER_MODE_WP);
	uffd_protect(fd, (void *)mem, len / 2, true);
	KT_EXPECT_EQ(kt_migrate((void *)mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res),
		     res.populated);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.populated + res.hole, PAGES);
	expect_half_protected((void *)mem, len, "after populating");
	for (size_t i = 0; i < PAGES / 2; i += 5)
		expect_protected(fd, (char *)mem + i * kt.page, kt.page);
	kt_fill((char *)mem + len / 2, len / 2, SEED); /* raises nothing */
	KT_EXPECT_DATA((char *)mem + len / 2, len / 2, SEED);
}

/* Where nothing is, the protection is a marker in the page table, which stays. */
static void write_protected_holes(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc(len);
	int fd = uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED);
	struct ferry_ioc_result res;

	uffd_register(fd, mem, len, UFFDIO_REGISTER_MODE_WP);
	uffd_protect(fd, mem, len / 2, true);
	expect_half_protected(mem, len, "before");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res),
		     res.populated);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.populated + res.hole, PAGES);
	expect_half_protected(mem, len, "after populating");
	expect_protected(fd, mem, kt.page);
}

/* A poisoned page raises SIGBUS, as before. */
static void poisoned(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc(len);
	int fd = uffd_open(UFFD_FEATURE_POISON);
	struct uffdio_poison poison = {
		.range = {.start = (uintptr_t)mem, .len = len / 2}};
	struct ferry_ioc_result res;
	pid_t pid;

	uffd_register(fd, mem, len,
		      UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING);
	KT_REQUIRE(ioctl(fd, UFFDIO_POISON, &poison) == 0, "UFFDIO_POISON: %m");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res), 0);
	KT_EXPECT_RESULT(&res, .hole = PAGES);
	/* Nor when nobody watches the range any more. */
	KT_REQUIRE(ioctl(fd, UFFDIO_UNREGISTER, &poison.range) == 0,
		   "UFFDIO_UNREGISTER: %m");
	KT_EXPECT_EQ(kt_migrate(mem, len / 2, kt.hbm, FERRY_RANGE_POPULATE, &res), 0);
	KT_EXPECT_RESULT(&res, .hole = PAGES / 2);
	pid = kt_fork();
	if (pid == 0) {
		*(volatile char *)mem = 1;
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_wait(pid), 128 + SIGBUS);
	KT_EXPECT(!kt_readable(mem), "a poisoned page can be read");
}

static const struct kt_case cases[] = {
	KT_CASE(missing),
	KT_CASE(write_protected),
	KT_CASE(write_protected_zeros),
	KT_CASE(write_protected_holes),
	KT_CASE(poisoned),
};

KT_MAIN(cases)
