/* SPDX-License-Identifier: MIT */
/*
 * Events of the kernel (perf_event_open(2)) that tell addresses: one thread's accesses,
 * in a ring of records that the kernel fills. Unprivileged: a user's own threads, and
 * not the kernel's work for them. Nothing allocates.
 *
 * What is opened by one thread is used by it.
 */
#ifndef FERRY_PERF_H
#define FERRY_PERF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What a counter counts. Zero `least_period`: any. */
struct perf_source {
	const char *name;
	uint32_t type;
	uint64_t config, config1;
	uint8_t precise;
	bool leader; /* needs one event before it, which counts `lead` */
	bool kernel; /* cannot leave the kernel's work out */
	uint64_t lead;
	uint64_t first_period; /* where to begin */
	uint64_t least_period; /* not less, and a multiple of it */
};

#define PERF_SOURCES 2

/*
 * The loads, with addresses, that this machine's PMUs can sample: more than one where
 * its CPUs differ. How many, or -ENODEV.
 */
int perf_loads(struct perf_source source[PERF_SOURCES]);

struct perf_ring {
	int fd, leader;
	void *map;
	size_t bytes; /* mapped */
};

/*
 * Opens a source for the thread @tid of this process. 0, or -errno: of
 * perf_event_open(2), or -ENOMEM where no ring can be locked in memory.
 */
int perf_open(struct perf_ring *ring, const struct perf_source *source, pid_t tid,
	      uint64_t period);
void perf_close(struct perf_ring *ring);

/* A static string: why perf_open() failed. */
const char *perf_why(int err);

int perf_set_period(const struct perf_ring *ring, uint64_t period);

/* What a read found besides addresses. */
struct perf_losses {
	uint64_t lost;      /* records, for want of room in the ring */
	uint64_t throttled; /* times the kernel found there to be too many */
};

/*
 * Calls @fn for the address of each access that is new in the ring, but not for loads
 * that a cache of the core has served, for which no placement matters. How many it read.
 */
uint64_t perf_read(struct perf_ring *ring, struct perf_losses *losses,
		   void (*fn)(uintptr_t addr));

#endif /* FERRY_PERF_H */
