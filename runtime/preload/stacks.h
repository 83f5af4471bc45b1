/* SPDX-License-Identifier: MIT */
/*
 * The stacks of the program's threads: the main thread's, and those that the C
 * library maps for pthread_create(3). It maps them by itself, so each thread places its
 * own before it runs anything of the program's. A stack that the program gives is its
 * own memory, placed as such, and Ferry's threads are not the program's.
 *
 * A stack gets a memory policy as a mapping does, with its full size against the HBM
 * limit, until the thread ends. The main thread's is the part that it may grow to,
 * STACK_MOST at most; its policy follows as it grows.
 */
#ifndef FERRY_STACKS_H
#define FERRY_STACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span;

/* Places the main thread's; from then on others are. In the library's constructor, once.
 */
void stacks_init(void);

/* Those that are REGION_AUTO's: as mapping_spans() and mapping_has_managed(). */
size_t stacks_spans(struct span *out, size_t max);
bool stacks_has_managed(uintptr_t start, uintptr_t *end);

/* Whether a placed stack is at @addr. */
bool stacks_has(const void *addr);

struct stacks_usage {
	uint64_t placed, placed_bytes; /* ever */
};
void stacks_usage(struct stacks_usage *out);

void stacks_fork_prepare(void);
void stacks_fork_parent(void);
/* In the child the other threads' stacks are nobody's. */
void stacks_fork_child(void);

#endif /* FERRY_STACKS_H */
