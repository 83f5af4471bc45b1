/* SPDX-License-Identifier: MIT */
/*
 * Which pages of this process are there, and which huge pages map: PAGEMAP_SCAN
 * (Linux 6.7) on /proc/self/pagemap. Functions on a descriptor; any thread. What they
 * tell may have changed by the time it is used.
 */
#ifndef FERRY_PAGEMAP_H
#define FERRY_PAGEMAP_H

#include <stdbool.h>
#include <stdint.h>

struct huge_run {
	uintptr_t start, end;
};

#define PAGEMAP_RUNS 16

/*
 * The first runs of pages in [start, end) that huge pages map, and in *walked
 * how far that holds. @fd: /proc/self/pagemap, opened for reading. How many,
 * or -errno.
 */
int pagemap_huge_runs(int fd, uintptr_t start, uintptr_t end,
		      struct huge_run run[PAGEMAP_RUNS], uintptr_t *walked);

struct page_run {
	uintptr_t start, end;
	bool huge; /* mapped by huge pages */
};

/* As pagemap_huge_runs(), of the pages that are there. */
int pagemap_runs(int fd, uintptr_t start, uintptr_t end,
		 struct page_run run[PAGEMAP_RUNS], uintptr_t *walked);

/* false also if it cannot be told. */
bool pagemap_is_huge(int fd, uintptr_t addr);

/* Whether there is a page of its own everywhere in [start, end), and no swapped one. */
bool pagemap_is_full(int fd, uintptr_t start, uintptr_t end);

#endif /* FERRY_PAGEMAP_H */
