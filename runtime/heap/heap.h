/* SPDX-License-Identifier: MIT */
/*
 * libferry's heap: allocations from jemalloc arenas whose memory is cut from
 * one region each. jemalloc is a copy under other names: see jemalloc_private.h.
 *
 * Each kind has a few arenas, over which threads are spread, and each thread
 * has a cache for each kind, so that freed memory comes back as the same kind.
 *
 * All functions are safe from any thread; region_init() comes first.
 */
#ifndef FERRY_HEAP_H
#define FERRY_HEAP_H

#include <stdbool.h>
#include <stddef.h>

#include "heap/region.h"

struct heap_request {
	enum region_kind kind;
	bool strict; /* never from another region */
	bool zero;
	size_t size;
	size_t alignment; /* a power of two, or 0 for malloc's */
};

/* NULL: no memory. Leaves errno alone. */
void *heap_alloc(const struct heap_request *request);

/* The memory keeps its kind. NULL: no memory, and @ptr is untouched. */
void *heap_realloc(void *ptr, size_t size);

/* @ptr: not NULL, of heap_alloc(); ends the process otherwise. Leaves errno alone. */
void heap_free(void *ptr);

size_t heap_usable_size(const void *ptr);

#endif /* FERRY_HEAP_H */
