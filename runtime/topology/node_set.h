/* SPDX-License-Identifier: MIT */
/*
 * A set of nodes by their OS index, and its text form.
 *
 * The text form is numactl's nodestring: "0,2-3", "all", and a leading "!" for
 * the complement within the nodes that have memory. numactl's "+" (indices
 * relative to the cpuset) is not taken: it names other nodes in each process.
 * Pure functions on values; no allocation, so that the preload library may use
 * them before libc's own constructors have run.
 */
#ifndef FERRY_NODE_SET_H
#define FERRY_NODE_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ferry/ferry.h>

#define NODE_SET_WORDS (FERRY_MAX_NODES / 64)

/* Laid out as mbind(2) and struct ferry_tier_info take it on 64-bit machines. */
struct node_set {
	uint64_t word[NODE_SET_WORDS];
};

static inline bool node_set_has(const struct node_set *set, int node)
{
	return node >= 0 && node < FERRY_MAX_NODES &&
	       (set->word[node / 64] >> (node % 64) & 1);
}

static inline void node_set_add(struct node_set *set, int node)
{
	set->word[node / 64] |= UINT64_C(1) << (node % 64);
}

int node_set_count(const struct node_set *set);
/* The lowest node >= from in the set, or -1. */
int node_set_next(const struct node_set *set, int from);
bool node_set_is_subset(const struct node_set *a, const struct node_set *b);

/*
 * Parses a nodestring; "all" and "!" mean nodes of @all. Returns 0, -EINVAL
 * for bad syntax, -ERANGE for an index of FERRY_MAX_NODES or more.
 */
int node_set_parse(struct node_set *out, const char *text, const struct node_set *all);

/* Enough for the text of any set. */
#define NODE_SET_TEXT_SIZE 4096

/* Writes "0,2-3" into @text, as much of it as @size holds; returns @text. */
const char *node_set_format(const struct node_set *set, char *text, size_t size);

#endif /* FERRY_NODE_SET_H */
