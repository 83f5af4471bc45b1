/* SPDX-License-Identifier: MIT */
/*
 * Times the first touch of memory in order, a write to each page: filled by
 * userfaultfd, and by the kernel, in turns. Small pages.
 *
 * Prints a line a measurement: SUBJECT NANOSECONDS.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "fault/first_touch.h"
#include "migrate/page.h"

static void die(const char *what, int err)
{
	fprintf(stderr, "bench_first_touch: %s: %s\n", what, strerror(err));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void measure(const char *name, size_t len, bool registered)
{
	/* Where nothing was, so that both have page tables to make. */
	static uintptr_t next = UINT64_C(0x200000000000);
	char *mem = mmap((void *)next, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	uint64_t began;
	int err;

	if (mem == MAP_FAILED)
		die("mmap", errno);
	next += len + GRANULE_BYTES;
	madvise(mem, len, MADV_NOHUGEPAGE);
	err = registered ? first_touch_add((uintptr_t)mem, len) : 0;
	if (err)
		die("registering", -err);
	began = now_ns();
	for (size_t at = 0; at < len; at += PAGE_BYTES)
		((volatile char *)mem)[at] = 1;
	printf("%s %llu\n", name, (unsigned long long)(now_ns() - began));
	munmap(mem, len);
}

int main(int argc, char **argv)
{
	unsigned int rounds;
	const char *why;
	size_t len;

	if (argc != 3) {
		fprintf(stderr, "usage: bench_first_touch MIB ROUNDS\n");
		return 2;
	}
	len = strtoul(argv[1], NULL, 10) << 20;
	rounds = (unsigned int)strtoul(argv[2], NULL, 10);
	if (first_touch_start(1, &why)) {
		fprintf(stderr, "bench_first_touch: %s\n", why);
		return 1;
	}
	for (unsigned int round = 0; round < rounds; round++) {
		measure("userfaultfd", len, true);
		measure("kernel", len, false);
	}
	return 0;
}
