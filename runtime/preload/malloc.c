/* SPDX-License-Identifier: MIT */
/*
 * The functions of the malloc family that are not jemalloc's own. No state.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jemalloc/jemalloc.h>

#include "preload/preload.h"

/* jemalloc's realloc(), which the build renames. */
void *je_realloc(void *ptr, size_t size);

/*
 * jemalloc grows in place where it can. With a threshold, what grows beyond it
 * has to move to the other region.
 */
static bool crosses_threshold(const void *ptr, size_t size)
{
	return preload.threshold && size >= preload.threshold && ptr &&
	       region_of(ptr) != (int)preload.large_kind &&
	       malloc_usable_size((void *)ptr) <= nallocx(preload.threshold, 0);
}

EXPORT void *realloc(void *ptr, size_t size)
{
	size_t old_size;
	void *moved;

	if (!crosses_threshold(ptr, size))
		return je_realloc(ptr, size);
	moved = malloc(size);
	if (!moved)
		return NULL;
	old_size = malloc_usable_size(ptr);
	memcpy(moved, ptr, old_size < size ? old_size : size);
	free(ptr);
	return moved;
}

EXPORT void *reallocarray(void *ptr, size_t count, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(ptr, bytes);
}

/* As valloc(3), with the size rounded up to a page. */
EXPORT void *pvalloc(size_t size)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
	size_t bytes;

	if (__builtin_add_overflow(size, page_size - 1, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	bytes &= ~(page_size - 1);
	return aligned_alloc(page_size, bytes ? bytes : page_size);
}
