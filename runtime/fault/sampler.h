/* SPDX-License-Identifier: MIT */
/*
 * The interface of a sampler: a source of access samples.
 *
 * A sample tells, for each block of some ranges, how many of the pages that
 * were watched during a window have been accessed. Windows are chosen by the
 * caller: short ones tell hot memory from warm, long ones warm from idle.
 *
 * One thread uses a sampler: all calls but sampler_name() are the policy's
 * thread's. A sampler touches no page of the program, and all pages are where they
 * were when it has told of them.
 */
#ifndef FERRY_SAMPLER_H
#define FERRY_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "heap/range_set.h"
#include "migrate/page.h"

/* What is known of a block after a window; numbers of pages. */
struct sample {
	uint8_t present;  /* that are there */
	uint8_t watched;  /* of these, that an access would have been seen of */
	uint8_t accessed; /* of these, that were accessed */
	/*
	 * Of the present ones, mapped by a huge page: what is told of one of its
	 * pages is told of all, so that all of them are one observation.
	 */
	uint8_t huge;
};

struct sampler {
	const char *name;

	/*
	 * Makes the sampler ready in this process. In *why, a static string:
	 * what it found (0), or what is missing (-errno).
	 */
	int (*open)(const char **why);
	/* Lets go of all state, as a forked child must before it opens anew. */
	void (*close)(void);

	/*
	 * Watches the memory of @n spans for @window_ns and a little more, and
	 * writes a sample for each of their blocks to @out, span after span.
	 * Spans are made of whole blocks; what is not mapped has no pages. 0;
	 * or -errno, with @out undefined: nothing can be sampled any more.
	 */
	int (*sample)(const struct span *span, size_t n, uint64_t window_ns,
		      struct sample *out);

	/* Each page is watched for the window and no longer. */
	bool exact;

	/*
	 * CPU time that sampling took other threads so far, the program's among
	 * them, in ns; NULL: none.
	 */
	uint64_t (*cost)(void);

	/*
	 * Limits that time, in percent of one CPU: then fewer pages are watched.
	 * After open(), which sets 1. NULL: there is none.
	 */
	void (*limit)(unsigned int percent);
};

extern const struct sampler sampler_abit;
extern const struct sampler sampler_fault;

/*
 * The sampler that is asked for, if it can be opened in this process, or NULL; in
 * *why, why it is that one, or what it lacks. `auto` is abit: what the other one does
 * to a program's memory is for those who ask for it.
 */
const struct sampler *sampler_open(enum sampler_choice choice, const char **why);

/* Name and reason of what sampler_open() takes, without keeping it open; "none". */
const char *sampler_name(enum sampler_choice choice, const char **why);

#endif /* FERRY_SAMPLER_H */
