/* SPDX-License-Identifier: MIT */
/*
 * What the environment asks of Ferry, parsed and checked in one place for the
 * library, the preload library and the command.
 *
 *   FERRY_POLICY     ddr | hbm | interleave | threshold | auto (default ddr)
 *   FERRY_MIN_SIZE   SIZE: threshold's least size that goes to HBM, and the
 *                    least private anonymous mmap that is placed (1M);
 *                    threshold takes 16K or more
 *   FERRY_MANAGE     which memory is placed at all: a list of heap, mmap, static
 *                                                            (default heap,mmap)
 *   FERRY_MOVE_LIMIT SIZE: most bytes a second that auto moves
 *                                                            (default none)
 *   FERRY_SAMPLER    auto | abit | fault | pebs: what tells auto which memory is
 *                    accessed; fault takes pages out of their place for moments, and
 *                    excludes FERRY_FIRST_TOUCH        (default auto: abit, else pebs)
 *   FERRY_OVERHEAD   1 to 100: percent of a CPU that auto may take to find out
 *                    what is hot                             (default 1)
 *   FERRY_HBM_LIMIT  SIZE: most HBM this process takes       (default none)
 *   FERRY_HBM_WEIGHT 1 to 10000: shares HBM with other processes that have one,
 *                    by weight                                (default: does not)
 *   FERRY_HBM_NODES  nodestring: these nodes are the HBM     (default: found)
 *   FERRY_HUGE       auto | always | never: huge pages       (default auto)
 *   FERRY_FIRST_TOUCH 0 | 1 | always: memory of the heap that is touched is filled
 *                    by threads of Ferry's, many pages at once; always: also where
 *                    memory cannot be pinned then before it is touched (default 0)
 *   FERRY_ENGINE     auto | kmod | relocate | syscall        (default auto)
 *   FERRY_STATS      0 | 1: summary to stderr at exit        (default 0)
 *
 * `ferry run` sets FERRY_POLICY=hbm where nothing else is asked for, and
 * FERRY_SAID_NO_HBM=1 when it has said that no HBM can be used,
 * FERRY_SAID_NO_HUGE=1 that there are no huge pages, FERRY_SAID_NO_SAMPLER=1 that
 * auto has no sampler, or FERRY_SAID_NO_FIRST_TOUCH=1 that the kernel fills what is
 * touched first, so that the libraries do not say it again.
 *
 * SIZE is a number of bytes with an optional suffix K, M, G or T (powers of
 * 1024). Pure functions on values; no allocation.
 */
#ifndef FERRY_CONFIG_H
#define FERRY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap/huge.h"

enum policy_kind {
	POLICY_DDR,
	POLICY_HBM,
	POLICY_INTERLEAVE,
	POLICY_THRESHOLD,
	POLICY_AUTO,
};

/* Smaller ones are jemalloc's small size classes, which share pages, and a page is in one
 * tier. */
#define THRESHOLD_LEAST ((size_t)16 << 10)

#define HBM_WEIGHT_MOST  10000
#define MOVE_LIMIT_LEAST ((uint64_t)64 << 10)

enum engine_choice {
	ENGINE_AUTO,
	ENGINE_KMOD,
	ENGINE_KMOD_RELOCATE, /* the latter for huge pages */
	ENGINE_RELOCATE,
	ENGINE_SYSCALL,
};

/* What FERRY_SAMPLER names. */
enum sampler_choice { SAMPLER_AUTO, SAMPLER_ABIT, SAMPLER_FAULT, SAMPLER_PEBS };

/* What FERRY_MANAGE names. */
enum {
	MANAGE_HEAP = 1 << 0,
	MANAGE_MMAP = 1 << 1,
	MANAGE_STATIC = 1 << 2,
	MANAGE_STACK = 1 << 3,
};

/* Who fills what is touched: the kernel, or Ferry where that is safe, or where it can. */
enum first_touch { FIRST_TOUCH_KERNEL, FIRST_TOUCH_SAFE, FIRST_TOUCH_ALWAYS };

struct config {
	enum policy_kind policy;
	size_t min_size;     /* bytes; THRESHOLD_LEAST or more with POLICY_THRESHOLD */
	unsigned int manage; /* MANAGE_* bits, one or more */
	uint64_t hbm_limit;  /* bytes; UINT64_MAX: none */
	unsigned int hbm_weight; /* 1 to HBM_WEIGHT_MOST; 0: not set */
	const char *hbm_nodes;   /* unparsed, NULL: not set */
	enum huge_mode huge;
	enum engine_choice engine;
	enum sampler_choice sampler;
	uint64_t move_limit;   /* bytes a second, a page or more; UINT64_MAX: none */
	unsigned int overhead; /* percent of a CPU, 1 to 100 */
	enum first_touch first_touch;
	bool stats;
};

/*
 * Reads the FERRY_* variables of @envp. Returns 0; or -EINVAL with one line in
 * @error that names the variable, its value and what is allowed, and @out at
 * its defaults. Unknown FERRY_ variables are left alone.
 */
int config_read(struct config *out, char *const envp[], char *error, size_t error_size);

/*
 * The process's configuration, read at the first call; NULL if it is wrong,
 * with the message in *@error (if not NULL). Thread-safe.
 */
const struct config *config_get(const char **error);

/* Parses "64K", "1M", "2G"; -EINVAL for anything else or overflow. */
int config_parse_size(const char *text, uint64_t *bytes);

const char *config_policy_name(enum policy_kind policy);
/* The name of MANAGE_*'s bit number @bit; NULL: there is none. */
const char *config_manage_name(unsigned int bit);
const char *config_huge_name(enum huge_mode huge);

#endif /* FERRY_CONFIG_H */
