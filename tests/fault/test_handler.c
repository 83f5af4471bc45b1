/* SPDX-License-Identifier: MIT */
/*
 * Proves that who rings the fault handler wakes it once, though a thread that computes
 * has the same CPU. Skipped without userfaultfd, UFFDIO_MOVE or the events of a fork.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "fault/handler.h"
#include "os/thread.h"

#define RINGS   200
#define REST_NS 500000 /* from one to the next, for the handler to be asleep */

static atomic_uint ticks;
static atomic_bool done;

static uint64_t tick(uint64_t now)
{
	(void)now;
	atomic_fetch_add(&ticks, 1);
	return UINT64_MAX;
}

static void ended(uintptr_t addr, size_t len, uint64_t ns, bool touched)
{
	(void)addr;
	(void)len;
	(void)ns;
	(void)touched;
}

static void *compute(void *unused)
{
	while (!atomic_load_explicit(&done, memory_order_relaxed))
		;
	return unused;
}

/* This thread, and those that it starts. */
static int use_one_cpu(void)
{
	cpu_set_t all, one;

	if (sched_getaffinity(0, sizeof(all), &all))
		return -errno;
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all)) {
			CPU_SET(cpu, &one);
			break;
		}
	return sched_setaffinity(0, sizeof(one), &one) ? -errno : 0;
}

/* Lets the handler's thread come to rest; the wake-ups of RINGS rings from then on. */
static unsigned int ring_often(void)
{
	unsigned int before;

	sleep_ns(100 * REST_NS);
	before = atomic_load(&ticks);
	for (int i = 0; i < RINGS; i++) {
		sleep_ns(REST_NS);
		handler_wake();
	}
	return atomic_load(&ticks) - before;
}

int main(void)
{
	static const struct handler_client client = {.tick = tick, .ended = ended};
	pthread_t computer;
	unsigned int woke;
	int err = use_one_cpu();

	if (!err)
		err = handler_start(&client);
	if (err) {
		printf("no handler: %s\n", strerror(-err));
		return 77;
	}
	if (pthread_create(&computer, NULL, compute, NULL))
		return 1;
	woke = ring_often();
	atomic_store(&done, true);
	pthread_join(computer, NULL);
	handler_stop();
	printf("%d rings woke the handler %u times\n", RINGS, woke);
	/* It may still have been awake for one before it. */
	return woke > RINGS + RINGS / 10 || woke < RINGS / 2;
}
