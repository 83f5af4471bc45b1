/* SPDX-License-Identifier: MIT */
/*
 * How bench_hotset goes through its memory. Each access adds 1 to the first word of
 * a line; what else is in a line is the pattern's. One thread.
 */
#ifndef FERRY_BENCH_PATTERN_H
#define FERRY_BENCH_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINE   ((size_t)64)
#define PHASES 2

/* The working set, and which of its blocks are hot in a phase. */
struct working_set {
	char *memory;
	size_t bytes, block; /* of all, of a block */
	size_t blocks, hot_blocks;
	uint32_t *order;   /* blocks: the hot ones of phase p begin at hot_of(p) */
	uint64_t *counted; /* accesses of each block in this interval */
};

struct pattern {
	const char *name;
	bool scattered; /* the hot blocks lie anywhere, or in one run */
	bool all_hot;
	/* Prepares the memory, which is zero. false: no memory for it, or errno. */
	bool (*prepare)(const struct working_set *set);
	/* Adds 1 to @n lines. */
	void (*access)(const struct working_set *set, int phase, size_t n);
};

/* NULL: there is none of that name. */
const struct pattern *pattern_named(const char *name);

/* Where the hot blocks of a phase begin in the order. */
const uint32_t *hot_of(const struct working_set *set, int phase);

uint64_t next_random(void);

#endif /* FERRY_BENCH_PATTERN_H */
