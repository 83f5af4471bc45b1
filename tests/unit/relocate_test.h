/* SPDX-License-Identifier: MIT */
/*
 * What the tests of relocation share. They run on one node, where a granule moves to
 * another page of it. Each case is a process of its own; its copiers are its own threads.
 * That a page is another is read in /proc/self/pagemap, as root only.
 */
#ifndef FERRY_RELOCATE_TEST_H
#define FERRY_RELOCATE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "migrate/page.h"
#include "migrate/relocate.h"

#define CHECK(what)                                                                      \
	do {                                                                             \
		if (!(what)) {                                                           \
			fprintf(stderr, "line %d: %s\n", __LINE__, #what);               \
			_exit(1);                                                        \
		}                                                                        \
	} while (0)

#define GRANULES 4
#define LEN      (GRANULES * GRANULE_BYTES)
#define WORDS    (GRANULE_BYTES / sizeof(uint64_t))

uint64_t pattern(size_t i);

/* Granules of huge pages in the middle of a larger mapping, filled. */
char *map_granules(void);
/* The same of small pages that may become huge; skips where they cannot be relocated. */
char *map_small(void);
/* Has small pages map a granule that a huge page maps, whose parts they then are. */
void split(char *granule);

/* How many words of @mem are not what map_granules() wrote at @offset. */
size_t wrong(const char *mem, size_t offset, size_t len);

/* relocate_run() within the node, of huge pages and of small ones. */
uint32_t move(char *mem, size_t n);
uint32_t move_small(char *mem, size_t n);

/* The page frame, 0 for those that may not see it. */
uint64_t frame(const char *mem);

/* A thread that works on @mem, GRANULES of them, until it is to stop. */
struct beside {
	char *mem;
	atomic_bool stop;
	atomic_uint_fast64_t rounds;
};
extern struct beside beside;

/* One that moves them all the time; it has begun. The second splits what is huge before.
 */
pthread_t start_moving(char *mem);
pthread_t start_moving_small(char *mem);
void end_moving(pthread_t thread);

/* Rounds, but no more than an emulated machine carries out in some seconds. */
bool another(int round, int rounds);

/* A case for cmocka: @test() in a process that can relocate; it ends with 77 to skip. */
#define CASE(test)                                                                       \
	static void test_##test(void **state)                                            \
	{                                                                                \
		(void)state;                                                             \
		run_case(test);                                                          \
	}
void run_case(void (*test)(void));

/* Whether relocation can be had here; says why not. */
bool relocate_available(void);

#endif /* FERRY_RELOCATE_TEST_H */
