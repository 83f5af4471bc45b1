/* SPDX-License-Identifier: MIT */
/* Threads and time: see thread.h. */
#include "os/thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

int thread_start_on(void *stack, size_t len, void *(*run)(void *arg), void *arg)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t thread;
	int err = 0;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (stack)
		err = pthread_attr_setstack(&attr, stack, len);
	/* The thread inherits what is blocked. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (!err)
		err = pthread_create(&thread, &attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -err;
}

int thread_start(void *(*run)(void *arg), void *arg)
{
	return thread_start_on(NULL, 0, run, arg);
}

uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000),
				 .tv_nsec = (long)(ns % 1000000000)};
}

void sleep_ns(uint64_t ns)
{
	struct timespec left = timespec_of(ns);

	while (ns && nanosleep(&left, &left) && errno == EINTR)
		;
}
