/* SPDX-License-Identifier: MIT */
/*
 * What the tests of ferry.h's allocation functions share: tests that need an
 * environment of their own run the program again, with the test's name. One
 * thread.
 */
#ifndef FERRY_ALLOC_TEST_H
#define FERRY_ALLOC_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ferry/ferry.h>

#define PAGE ((size_t)4096)
#define MIB  ((size_t)1 << 20)

/*
 * At fork jemalloc takes more locks at once than TSan can count, and a child
 * cannot join its parent's threads.
 */
const char *__tsan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void)
{
	return "detect_deadlocks=0:report_thread_leaks=0";
}

static inline void *allocated(size_t size, unsigned int placement)
{
	void *ptr = ferry_malloc(size, placement);

	assert_non_null(ptr);
	memset(ptr, 1, size);
	return ptr;
}

struct special {
	struct CMUnitTest test;
	const char *variables[3];
};

/* Runs each of @specials in a process with its environment. */
static inline void in_environments(const struct special *specials, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		pid_t child = fork();
		int status;

		if (!child) {
			for (size_t v = 0; specials[i].variables[v]; v++)
				putenv((char *)specials[i].variables[v]);
			execl("/proc/self/exe", "test_alloc", specials[i].test.name,
			      NULL);
			_exit(127);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
}

/* The test that main()'s arguments name; NULL: they name none. */
static inline const struct CMUnitTest *named_special(const struct special *specials,
						     size_t count, int argc, char **argv)
{
	for (size_t i = 0; argc == 2 && i < count; i++)
		if (!strcmp(argv[1], specials[i].test.name))
			return &specials[i].test;
	return NULL;
}

#endif /* FERRY_ALLOC_TEST_H */
