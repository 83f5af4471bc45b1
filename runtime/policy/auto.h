/* SPDX-License-Identifier: MIT */
/*
 * The policy `auto`: memory is placed at first touch, and a thread then moves
 * what is hot to HBM and what is cold to DDR.
 *
 *   sampler --samples--> watch --heat--> placer --ranges--> engine
 *                                           |
 *                                        planner
 *
 * The thread has all signals blocked, is never waited for, and ends with the
 * process. Its memory comes from mmap(2). Until enough memory is managed to be
 * worth it, it only looks at that now and then.
 *
 * What the program advises goes before heat, and phases that it marks are
 * remembered: what was hot on HBM at the end of one is brought there again when
 * the next one of that name begins, or is said to come. Both wake the thread;
 * without a sampler it does nothing else.
 *
 * It stays within a budget of CPU time, averaged over a minute: rounds come
 * fast while there is something to find out, and rarely when all is as it
 * should be. Moving is not counted in, but takes turns with rest.
 */
#ifndef FERRY_AUTO_H
#define FERRY_AUTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ferry/ferry.h>

#include "heap/range_set.h"
#include "config/config.h"
#include "topology/topology.h"

struct auto_options {
	const struct config *config;
	const struct topology *topology;
	/*
	 * Managed memory besides REGION_AUTO's: fills in up to @max spans, in
	 * ascending order and disjoint; how many there are. May be NULL.
	 */
	size_t (*spans)(struct span *out, size_t max);
	/* Whether @start is such memory; *@end is lowered to where that ends. */
	bool (*has)(uintptr_t start, uintptr_t *end);
	/* Writes a line to stderr. */
	void (*say)(const char *format, ...);
	bool said_no_sampler; /* `ferry run` has said already that there is none */
};

/*
 * Starts the thread; once a process, after region_init(). *@options is kept. 0
 * or -errno (-EAGAIN).
 */
int auto_start(const struct auto_options *options);

/*
 * Advice on the leading part of [start, *@end) that is managed as a whole, or
 * not at all: *@end is lowered to its end, and *@taken tells which it is. Not
 * taken is what there is no thread for. 0 or -ENOMEM. The thread acts upon it at
 * once; the caller does not wait.
 */
int auto_advise(uintptr_t start, uintptr_t *end, enum ferry_advice advice, bool *taken);

/* Has the thread look at what has changed: phases. */
void auto_wake(void);

/*
 * Around fork(2), the preload library's lock of mappings being taken before. In
 * the child auto_fork_child() follows.
 */
void auto_fork_prepare(void);
void auto_fork_done(void);

/*
 * In a forked child, where the thread is not: starts a new one, which knows
 * nothing yet. To be called when memory can be allocated again.
 */
void auto_fork_child(void);

struct auto_stats {
	bool started;        /* the thread has begun to manage */
	const char *sampler; /* "none": there is none, for the reason in why */
	const char *why;
	uint64_t samples;
	uint64_t lost; /* accesses that the sampler could not tell of */
	uint64_t promoted_pages, demoted_pages;
	uint64_t split, whole;  /* huge pages; made whole again */
	uint64_t cpu_ns;        /* without moving */
	uint64_t move_ns;       /* CPU time of moving */
	uint64_t heat_bytes;    /* memory for heat */
	uint64_t managed_bytes; /* address space looked at in the last round */
};
void auto_stats(struct auto_stats *out);

#endif /* FERRY_AUTO_H */
