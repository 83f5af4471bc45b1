/* SPDX-License-Identifier: MIT */
/*
 * A program whose arrays are in its threads' stacks: the main thread's, that of a thread
 * with the usual stack, of one with a size asked for, and of one whose stack it gives.
 * Run by test_stack; prints for each the MiB on HBM and elsewhere. Then, many times, a
 * thread ends by pthread_exit() or is cancelled, and a child is forked in a thread, which
 * creates another.
 *
 * usage: stacks where    touches all of the arrays
 *        stacks hot      works on the main thread's array until it is on HBM
 * Ends with 1 if something fails, or after waiting in vain.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "../where.h"

#define MIB     ((size_t)1 << 20)
#define BYTES   (4 * MIB)
#define BLOCK   ((size_t)64 << 10) /* what auto places on its own */
#define THREADS 200
#define SECONDS 60

static bool hot;

/* Works on it until its blocks are on HBM. */
static int work(volatile unsigned char *array)
{
	uintptr_t start = ((uintptr_t)array + BLOCK - 1) & ~(BLOCK - 1);
	uintptr_t stop = ((uintptr_t)array + BYTES) & ~(BLOCK - 1);
	time_t end = time(NULL) + SECONDS;

	while (!all_hbm((void *)start, stop - start)) {
		for (int i = 0; i < 20; i++)
			for (size_t at = 0; at < BYTES; at += 64)
				array[at]++;
		flush_tlb();
		if (time(NULL) > end)
			return 1;
	}
	return 0;
}

static void *in_stack(void *name)
{
	volatile unsigned char array[BYTES];
	int failed = 0;

	for (size_t at = 0; at < BYTES; at += WHERE_PAGE)
		array[at] = (unsigned char)(at / WHERE_PAGE);
	if (hot && !strcmp(name, "main"))
		failed = work(array);
	printf("%s %zu %zu\n", (char *)name, bytes_at((void *)array, BYTES, true) / MIB,
	       bytes_at((void *)array, BYTES, false) / MIB);
	for (size_t at = 0; !hot && at < BYTES; at += WHERE_PAGE)
		failed |= array[at] != (unsigned char)(at / WHERE_PAGE);
	return failed ? name : NULL;
}

static int run(const char *name, const pthread_attr_t *attr, void *(*function)(void *))
{
	void *result = NULL;
	pthread_t thread;

	if (pthread_create(&thread, attr, function, (void *)name) ||
	    pthread_join(thread, &result))
		return 1;
	return result != NULL;
}

static int run_all(void)
{
	pthread_attr_t attr;
	int failed = run("usual", NULL, in_stack);
	void *given = aligned_alloc(2 * MIB, 8 * MIB);

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 6 * MIB);
	failed |= run("sized", &attr, in_stack);
	pthread_attr_setstack(&attr, given, 8 * MIB);
	failed |= run("given", &attr, in_stack);
	pthread_attr_destroy(&attr);
	free(given);
	return failed;
}

static void *leave(void *unused)
{
	(void)unused;
	pthread_exit(NULL);
}

static void *wait_long(void *unused)
{
	(void)unused;
	while (!pause())
		;
	return "";
}

static void *fork_in(void *unused)
{
	int status = 1;
	pid_t child = fork();

	(void)unused;
	if (!child)
		_exit(run("child", NULL, leave));
	waitpid(child, &status, 0);
	return status ? "" : NULL;
}

/* What threads took of the limit is there again, or the last would be in DDR. */
static int come_and_go(void)
{
	int failed = 0;

	for (int i = 0; i < THREADS; i++) {
		pthread_t thread;

		failed |= run("", NULL, leave);
		if (pthread_create(&thread, NULL, wait_long, NULL))
			return 1;
		pthread_cancel(thread);
		pthread_join(thread, NULL);
	}
	failed |= run("", NULL, fork_in);
	return failed | run("last", NULL, in_stack);
}

int main(int argc, char **argv)
{
	int failed;

	if (argc != 2)
		return 1;
	hot = !strcmp(argv[1], "hot");
	failed = in_stack("main") != NULL;
	if (!hot) {
		failed |= run_all();
		failed |= come_and_go();
	}
	return failed;
}
