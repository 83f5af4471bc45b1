/* SPDX-License-Identifier: MIT */
/*
 * Threads of Ferry's own in the program's process, and their time. Any thread; no
 * state.
 */
#ifndef FERRY_OS_THREAD_H
#define FERRY_OS_THREAD_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

/*
 * Starts a thread that nobody joins and that takes none of the program's signals.
 * thread_start_on(): with a stack of the caller's, @len bytes. 0 or -errno.
 */
int thread_start(void *(*run)(void *arg), void *arg);
int thread_start_on(void *stack, size_t len, void *(*run)(void *arg), void *arg);

/* A clock's time in ns (clock_gettime(2)). */
uint64_t clock_ns(clockid_t clock);

/* A time in ns as system calls take it. */
struct timespec timespec_of(uint64_t ns);

/* Waits @ns, signals or not. */
void sleep_ns(uint64_t ns);

#endif /* FERRY_OS_THREAD_H */
