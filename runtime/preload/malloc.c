/* SPDX-License-Identifier: MIT */
/*
 * The functions of the malloc family that are not jemalloc's, or not as they
 * should be. No state.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jemalloc/jemalloc.h>

#include "preload/direct.h"
#include "preload/preload.h"

/* jemalloc's own, which the build renames. */
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

/* realloc(3); jemalloc's leaves errno alone when there is no memory. */
EXPORT void *realloc(void *ptr, size_t size)
{
	size_t old_size;
	void *moved;

	if (!crosses_threshold(ptr, size)) {
		moved = je_realloc(ptr, size);
		if (!moved && size)
			errno = ENOMEM;
		return moved;
	}
	moved = __real_malloc(size);
	if (!moved)
		return NULL;
	old_size = malloc_usable_size(ptr);
	memcpy(moved, ptr, old_size < size ? old_size : size);
	__real_free(ptr);
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

/*
 * memalign(3), with an alignment that is no power of two rounded up, as the C
 * library does. jemalloc's forgets the alignment for a size of 0.
 */
EXPORT void *memalign(size_t alignment, size_t size)
{
	size_t power = sizeof(void *);

	while (power && power < alignment)
		power *= 2;
	return aligned_alloc(power, size ? size : 1); /* which refuses 0 */
}

EXPORT void *valloc(size_t size)
{
	return memalign((size_t)sysconf(_SC_PAGESIZE), size);
}

/* As valloc(), with the size rounded up to a page. */
EXPORT void *pvalloc(size_t size)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
	size_t bytes;

	if (__builtin_add_overflow(size, page_size - 1, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return valloc(bytes & ~(page_size - 1));
}
