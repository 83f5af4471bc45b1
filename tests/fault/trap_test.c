/* SPDX-License-Identifier: MIT */
/* A handler for tests: see trap_test.h. */
#include "trap_test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fault/handler.h"
#include "migrate/pagemap.h"

static struct {
	_Atomic uintptr_t addr; /* to be trapped; 0: done */
	size_t len;
	int result;
	atomic_ullong delay_ns;
	atomic_uint touched, untouched;
	_Atomic(traps_pick) shower;
} order;

static void on_end(uintptr_t addr, size_t len, uint64_t ns, bool touched)
{
	(void)addr;
	(void)len;
	(void)ns;
	atomic_fetch_add(touched ? &order.touched : &order.untouched, 1);
}

static uint64_t shower(uint64_t now)
{
	static uint64_t random = 1;
	traps_pick pick = atomic_load(&order.shower);

	if (!pick)
		return UINT64_MAX;
	trap_expire(now - 1000000, now);
	for (int i = 0; i < 8; i++) {
		random = random * UINT64_C(6364136223846793005) + 1;
		trap_set(pick(random >> 20), PAGE_BYTES);
	}
	return now + 200000;
}

static uint64_t tick(uint64_t now)
{
	uint64_t delay = atomic_exchange(&order.delay_ns, 0);
	struct timespec time = {.tv_sec = (time_t)(delay / 1000000000),
				.tv_nsec = (long)(delay % 1000000000)};
	uintptr_t addr = atomic_load(&order.addr);

	if (addr) {
		order.result = trap_set(addr, order.len);
		atomic_store(&order.addr, 0);
	} else if (delay) {
		nanosleep(&time, NULL);
	}
	return shower(now);
}

int traps_start(void)
{
	static const struct handler_client client = {.tick = tick, .ended = on_end};

	return handler_start(&client);
}

int traps_set(const void *addr, size_t len)
{
	int result;

	do {
		order.len = len;
		atomic_store(&order.addr, (uintptr_t)addr);
		while (atomic_load(&order.addr))
			handler_wake();
		result = order.result;
	} while (result == -EAGAIN);
	return result;
}

static void *wake(void *unused)
{
	handler_wake();
	return unused;
}

void traps_delay(uint64_t ns)
{
	pthread_t waker;

	atomic_store(&order.delay_ns, ns);
	if (pthread_create(&waker, NULL, wake, NULL))
		abort();
	pthread_detach(waker);
	while (atomic_load(&order.delay_ns))
		sched_yield();
}

unsigned int traps_touched(void)
{
	return atomic_load(&order.touched);
}

unsigned int traps_untouched(void)
{
	return atomic_load(&order.untouched);
}

void traps_shower(traps_pick pick)
{
	atomic_store(&order.shower, pick);
	handler_wake();
}

bool page_is_there(const void *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;
	ssize_t n = pread(fd, &entry, sizeof(entry),
			  (off_t)((uintptr_t)addr / PAGE_BYTES * sizeof(entry)));

	close(fd);
	return n == sizeof(entry) && (entry >> 62 & 3); /* present or swapped */
}

bool page_is_huge(const void *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bool huge = pagemap_is_huge(fd, (uintptr_t)addr);

	close(fd);
	return huge;
}

/* Of the offset, so that it holds wherever the memory is moved. */
static uint64_t pattern(size_t at, unsigned int seed)
{
	return (at + seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

void pattern_fill(char *mem, size_t len, unsigned int seed)
{
	for (size_t at = 0; at < len; at += sizeof(uint64_t))
		*(uint64_t *)(mem + at) = pattern(at, seed);
}

bool pattern_is_in(const char *mem, size_t len, unsigned int seed)
{
	for (size_t at = 0; at < len; at += sizeof(uint64_t))
		if (*(const uint64_t *)(mem + at) != pattern(at, seed))
			return false;
	return true;
}
