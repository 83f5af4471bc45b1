/* SPDX-License-Identifier: MIT */
/*
 * The preload library's parts.
 *
 * init.c     reads the environment before anything allocates, sets jemalloc's
 *            options and gives its arenas their regions
 * malloc.c   what jemalloc's malloc family lacks
 * advise.c   what libferry, in a program that has both, passes on
 * mapping.c  mmap(2) and its kin: places large private anonymous mappings
 * statics.c  the program's static arrays (.data, .bss)
 * stacks.c   the stacks of the program's threads
 * direct.c   the system calls themselves, for the library's own use
 * summary.c  what FERRY_STATS prints at exit
 *
 * init.c runs in one thread, before main() and before other libraries'
 * constructors; afterwards `preload` does not change.
 */
#ifndef FERRY_PRELOAD_H
#define FERRY_PRELOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap/region.h"
#include "config/config.h"

/* The library hides what does not say that programs may see it. */
#define EXPORT __attribute__((visibility("default")))

struct preload {
	bool active;                   /* false: placement is off */
	struct config config;          /* as the environment has it */
	enum region_kind heap_kind;    /* of allocations in general */
	enum region_kind large_kind;   /* of large ones */
	enum region_kind mapping_kind; /* of mappings, static arrays, stacks */
	size_t threshold; /* allocations from here on are large_kind; 0: all are
			     heap_kind */
	bool place_mappings;
	bool has_auto;        /* the policy auto is at work */
	bool advise_mappings; /* huge pages, or none, for a program's own mappings */
};

extern struct preload preload;

/* Writes a line "ferry: ..." to stderr. Keeps errno; allocates nothing. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

struct mapping_usage {
	uint64_t placed, placed_bytes; /* ever */
};
void mapping_usage(struct mapping_usage *out);
/* Whether a placed mapping that counts against the HBM limit is at @addr. */
bool mapping_has(const void *addr);

/*
 * The placed mappings that are REGION_AUTO's: fills in up to @max, ascending;
 * how many there are.
 */
struct span;
size_t mapping_spans(struct span *out, size_t max);
/* Whether @start is in one; *@end is lowered to where that is no longer so. */
bool mapping_has_managed(uintptr_t start, uintptr_t *end);

void mapping_fork_prepare(void);
void mapping_fork_done(void);

/* Prepares the summary that the library's destructor prints. */
void summary_init(void);

#endif /* FERRY_PRELOAD_H */
