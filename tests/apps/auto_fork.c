/* SPDX-License-Identifier: MIT */
/*
 * Waits until the policy `auto` has moved the hot part of its memory to HBM, and
 * then has a forked child wait for the same with memory of its own, while a
 * signal comes in now and then. Run under `ferry run --policy auto`, with less
 * HBM than memory. Ends with 0; 1 if it waited in vain or data was lost.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../where.h"

#define BYTES     ((size_t)96 << 20)
#define HOT_BYTES ((size_t)8 << 20)
#define HOT_AT    ((size_t)40 << 20)
#define SECONDS   30

static pthread_t main_thread;
static volatile sig_atomic_t elsewhere;

/* Signals are for the program's threads, not for Ferry's. */
static void on_alarm(int number)
{
	(void)number;
	if (!pthread_equal(pthread_self(), main_thread))
		elsewhere = 1;
}

/* Works on the hot part until it is on HBM. 0, or 1 after some time. */
static int work(char *mem, const char *who)
{
	time_t end = time(NULL) + SECONDS;
	uint64_t rounds = 0;

	while (!all_hbm(mem + HOT_AT, HOT_BYTES)) {
		for (int i = 0; i < 20; i++, rounds++) {
			for (size_t at = 0; at < HOT_BYTES; at += 64)
				++*(volatile uint64_t *)(mem + HOT_AT + at);
			flush_tlb();
		}
		if (time(NULL) > end) {
			printf("%s: %zu of %zu hot bytes are on HBM\n", who,
			       bytes_at(mem + HOT_AT, HOT_BYTES, true), HOT_BYTES);
			return 1;
		}
	}
	for (size_t at = 0; at < BYTES; at += 64)
		if (*(uint64_t *)(mem + at) !=
		    (at >= HOT_AT && at < HOT_AT + HOT_BYTES ? rounds : 0)) {
			printf("%s: data was lost at %zu\n", who, at);
			return 1;
		}
	if (elsewhere)
		printf("%s: a signal met another thread\n", who);
	return elsewhere;
}

static int run(const char *who)
{
	char *mem = aligned_alloc((size_t)2 << 20, BYTES);
	int failed;

	main_thread = pthread_self();
	if (!mem)
		return 1;
	memset(mem, 0, BYTES);
	failed = work(mem, who);
	free(mem);
	return failed;
}

int main(void)
{
	struct itimerval often = {{0, 20000}, {0, 20000}};
	int status = 0;
	pid_t child;

	setvbuf(stdout, NULL, _IONBF, 0);
	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &often, NULL);
	if (run("parent"))
		return 1;
	child = fork();
	if (!child) {
		setitimer(ITIMER_REAL, &often, NULL);
		_exit(run("child"));
	}
	while (waitpid(child, &status, 0) < 0)
		;
	return !WIFEXITED(status) || WEXITSTATUS(status);
}
