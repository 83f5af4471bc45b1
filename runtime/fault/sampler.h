/* SPDX-License-Identifier: MIT */
/*
 * The interface of a sampler: a source of access samples. There are two kinds.
 *
 * One sees all pages at once, and tells for each block of some ranges how many of
 * its pages have been accessed during a window. Windows are chosen by the caller:
 * short ones tell hot memory from warm, long ones warm from idle.
 *
 * One sees accesses themselves, but few of them: for each range it is told to watch it
 * tells how many, and for how long it would have seen one. Which ranges are worth
 * it the caller knows. Their quotient is the rate of accesses, whatever the window.
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

/* What is known of a block; numbers of pages. */
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

/* A granule or a part of one that is watched, and what was seen of it. */
struct sighting {
	uintptr_t start, end;
	float accesses; /* seen */
	/*
	 * For how long one of an average page would have been seen: twice as long
	 * for two pages, half as long where every other access is seen. 0:
	 * nothing could be seen.
	 */
	float seconds;
};

#define SIGHTINGS_MOST 128

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
	 * or -errno, with @out undefined: nothing can be sampled any more. NULL: this
	 * is one of the other kind, which has what follows.
	 */
	int (*sample)(const struct span *span, size_t n, uint64_t window_ns,
		      struct sample *out);

	/* Samples without watching: what is there. */
	int (*count)(const struct span *span, size_t n, struct sample *out);

	/*
	 * NULL, or this one sees accesses to all memory at once: what has been seen
	 * since the last call is what watch() tells of from now on, for nothing.
	 * 0 or -errno.
	 */
	int (*gather)(void);

	/* How many sightings about @ns of CPU time of all threads pay for. Not with
	 * gather(). */
	size_t (*affordable)(uint64_t ns);

	/*
	 * Watches @n ranges, SIGHTINGS_MOST at most, each for @window_ns at most and
	 * not all at the same time. 0 or -errno.
	 */
	int (*watch)(struct sighting *sighting, size_t n, uint64_t window_ns);

	/*
	 * CPU time that sampling took other threads so far, the program's among
	 * them, in ns; NULL: none.
	 */
	uint64_t (*cost)(void);

	/* NULL, or accesses that could not be told of, so far, about. */
	uint64_t (*lost)(void);

	/*
	 * NULL, or limits the time of cost(), for one that samples all the time; in
	 * percent of one CPU. After open(), which sets 1.
	 */
	void (*limit)(unsigned int percent);
};

extern const struct sampler sampler_abit;
extern const struct sampler sampler_fault;
extern const struct sampler sampler_pebs;

/*
 * The sampler that is asked for, if it can be opened in this process, or NULL; in
 * *why, why it is that one, or what it lacks. `auto` is abit, which sees all memory and
 * stores, or else pebs: what fault does to a program's memory is for those who ask for
 * it.
 */
const struct sampler *sampler_open(enum sampler_choice choice, const char **why);

/* Name and reason of what sampler_open() takes, without keeping it open; "none". */
const char *sampler_name(enum sampler_choice choice, const char **why);

#endif /* FERRY_SAMPLER_H */
