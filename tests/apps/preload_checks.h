/* SPDX-License-Identifier: MIT */
/*
 * The checks that preload_checks runs under libferry-preload.so, and what they
 * share.
 *
 * preload_checks.c     which checks run in which environment
 * preload_behaviour.c  a complete malloc family and an mmap that behave as the
 *                      C library's, under any policy
 * preload_placement.c  memory is where each policy says, where there is an HBM
 *                      node
 */
#ifndef FERRY_PRELOAD_CHECKS_H
#define FERRY_PRELOAD_CHECKS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MIB ((size_t)1 << 20)

/* The path of a shared object that allocates as it is loaded: see early.h. */
extern const char *plugin;

/* What the compiler knows of malloc must not keep calls from being made. */
static inline void *hide(void *ptr)
{
	__asm__ volatile("" : "+r"(ptr));
	return ptr;
}

static inline void *touched(void *ptr, size_t size)
{
	assert_non_null(ptr);
	memset(ptr, 1, size);
	return hide(ptr);
}

static inline void *map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
}

/* preload_behaviour.c */
void every_function_is_ours(void **state);
void edges_of_malloc(void **state);
void aligned_forms(void **state);
void contents_stay(void **state);
void memory_goes_back(void **state);
void medium_blocks_keep_their_pages(void **state);
void mmap_like_the_kernels(void **state);
void forks_between_threads(void **state);
void plugins(void **state);

/* preload_placement.c */
void all_of_it_in_hbm(void **state);
void of_other_threads_too(void **state);
void mappings_in_hbm(void **state);
void all_of_it_in_ddr(void **state);
void all_of_it_interleaved(void **state);
void divided_by_size(void **state);
void limit_holds(void **state);

#endif /* FERRY_PRELOAD_CHECKS_H */
