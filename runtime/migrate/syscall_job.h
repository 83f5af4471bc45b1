/* SPDX-License-Identifier: MIT */
/*
 * What a batch is for the engine `syscall`: units, one for each page, or one for
 * all pages that one huge page maps, and room for the arguments of a system call.
 *
 * A job belongs to one thread; there is no shared state.
 */
#ifndef FERRY_SYSCALL_JOB_H
#define FERRY_SYSCALL_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/engine.h"

enum outcome {
	ELSEWHERE, /* on another node, to be moved */
	MOVED,
	POPULATED,
	ALREADY,
	BUSY,
	NOMEM,
	HOLE,
	GIVEN_UP, /* because of an error: in no count */
};

/* One page, or all pages of the batch that one huge page maps. */
struct unit {
	uintptr_t addr;
	uint16_t pages;
	uint8_t outcome; /* enum outcome */
	bool populate;   /* to be given a page if it is a hole */
	bool was_hole;   /* and it was one */
	bool tried;      /* a call got as far as this unit, and it stayed */
};

/*
 * A batch being worked on. The arrays have an entry for each page of the
 * batch; units take up no more, even when all are split up.
 */
struct job {
	int node;
	int error;
	int pagemap; /* /proc/self/pagemap; -1: huge pages cannot be told */
	size_t pages;
	struct unit *unit;
	size_t units;

	/* The arguments of a system call, and which units they stand for. */
	void **page;
	int *target;
	int *status;
	uint32_t *index;
	size_t n;
};

/* A job for @batch, which is not empty, without units yet. 0 or -ENOMEM; job_free() is
 * due in any case. */
int job_make(struct job *job, const struct batch *batch);
void job_free(struct job *job);

/*
 * Makes the private anonymous parts of the batch's pieces units. What is between
 * mappings, and foreign mappings, are counted in the batch's result at once. 0 or
 * -errno.
 */
int job_add_units(struct job *job, struct batch *batch);

/* Makes a unit whose huge page was split a unit for each page. */
void job_split_unit(struct job *job, size_t i);

#endif /* FERRY_SYSCALL_JOB_H */
