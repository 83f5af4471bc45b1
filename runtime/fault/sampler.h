/* SPDX-License-Identifier: MIT */
/*
 * The interface of a sampler: a source of access samples.
 *
 * A sample tells, for each block of some ranges, how many of the pages that
 * were watched during a window have been accessed. Windows are chosen by the
 * caller: short ones tell hot memory from warm, long ones warm from idle.
 *
 * One thread uses a sampler: all calls but sampler_name() are the policy's
 * thread's. A sampler moves nothing and touches no page of the program.
 */
#ifndef FERRY_SAMPLER_H
#define FERRY_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

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
};

extern const struct sampler sampler_abit;

/*
 * The first sampler that can be opened in this process, or NULL; in *why, why
 * it is that one, or what each of them lacks.
 */
const struct sampler *sampler_open(const char **why);

/* Name and reason of what sampler_open() takes, without keeping it open; "none". */
const char *sampler_name(const char **why);

#endif /* FERRY_SAMPLER_H */
