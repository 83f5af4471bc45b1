/* SPDX-License-Identifier: MIT */
/*
 * Proves that threads which write, check, discard, remap and protect their
 * memory, and fork, find it right while random pages of it are taken out all
 * the time. Each thread works on pages of its own; mappings of one granule
 * cover several threads' pages. FERRY_TEST_SECONDS is the time it takes (5).
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fault/handler.h"
#include "fault/uffd.h"
#include "trap_test.h"

#define THREADS 4
#define PAGES   32 /* of each thread */

static char *mem;
static atomic_bool stop, failed;
static atomic_ulong rounds;

static void complain(const char *what, int page)
{
	if (!atomic_exchange(&failed, true))
		fprintf(stderr, "%s: page %d\n", what, page);
}

static bool is_all(const char *page, uint64_t value)
{
	for (size_t at = 0; at < PAGE_BYTES; at += sizeof(value))
		if (*(const volatile uint64_t *)(page + at) != value)
			return false;
	return true;
}

static void set(char *page, uint64_t value)
{
	for (size_t at = 0; at < PAGE_BYTES; at += sizeof(value))
		*(volatile uint64_t *)(page + at) = value;
}

/*
 * Of half of the pages each has a granule to itself, where it is barred alone
 * when it is discarded behind the handler's back.
 */
static char *page_of(int thread, int page)
{
	size_t index = (size_t)(page * THREADS + thread);

	if (page < PAGES / 2)
		return mem + index * PAGE_BYTES;
	return mem + index * GRANULE_BYTES;
}

static uintptr_t pick(uint64_t random)
{
	return (uintptr_t)page_of((int)(random % THREADS),
				  (int)(random / THREADS % PAGES));
}

/* What a program does through the library, or past it. */
static bool discard(char *page, bool held)
{
	bool done;

	if (held)
		handler_hold(page, PAGE_BYTES);
	done = !syscall(SYS_madvise, page, PAGE_BYTES, MADV_DONTNEED);
	if (held)
		handler_let_go();
	return done;
}

static bool map_over(char *page)
{
	return mmap(page, PAGE_BYTES, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page;
}

static bool forked_sees(const char *page, uint64_t value, bool raw)
{
	pid_t child =
		raw ? (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) : fork();
	int status;

	if (!child)
		_exit(!is_all(page, value));
	return child < 0 || (waitpid(child, &status, 0) == child && !status);
}

static void *work(void *arg)
{
	int thread = (int)(uintptr_t)arg;
	uint64_t random = (uint64_t)thread + 1, expected[PAGES] = {0};

	while (!atomic_load(&stop)) {
		int page, action;
		char *at;

		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		page = (int)(random >> 33) % PAGES;
		action = (int)(random >> 50) % 64;
		at = page_of(thread, page);
		if (!is_all(at, expected[page]))
			complain("wrong contents", page);
		if (action < 2 || action == 2) {
			bool held = action || page < PAGES / 2;
			bool done = action < 2 ? discard(at, held) : map_over(at);

			if (!done)
				complain("cannot discard", page);
			if (!is_all(at, 0))
				complain("old contents after they were discarded", page);
			expected[page] = 0;
		} else if (action == 3) {
			mprotect(at, PAGE_BYTES, PROT_READ);
			if (!is_all(at, expected[page]))
				complain("wrong contents, read-only", page);
			mprotect(at, PAGE_BYTES, PROT_READ | PROT_WRITE);
		} else if (action == 4 && (random >> 40) % 8 == 0) {
			if (!forked_sees(at, expected[page], random >> 45 & 1))
				complain("wrong contents in a child", page);
		} else if (action < 40) {
			expected[page] = random;
			set(at, random);
		}
		atomic_fetch_add(&rounds, 1);
	}
	return NULL;
}

int main(void)
{
	const char *seconds = getenv("FERRY_TEST_SECONDS");
	pthread_t thread[THREADS];
	unsigned int before;
	int err;

	err = traps_start();
	if (err) {
		fprintf(stderr, "skipped: %s\n", uffd_why(err));
		return 77;
	}
	mem = pages_map((size_t)THREADS * PAGES * GRANULE_BYTES, false);
	before = traps_touched() + traps_untouched();
	for (int i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)i);
	traps_shower(pick);
	sleep(seconds ? (unsigned int)atoi(seconds) : 5);
	atomic_store(&stop, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	traps_shower(NULL);
	printf("%lu rounds, %u pages were out\n", atomic_load(&rounds),
	       traps_touched() + traps_untouched() - before);
	if (traps_touched() + traps_untouched() - before < 10) {
		fprintf(stderr, "hardly anything was out\n");
		return 1;
	}
	return atomic_load(&failed);
}
