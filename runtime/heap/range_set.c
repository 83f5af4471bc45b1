/* SPDX-License-Identifier: MIT */
/* Sets of address ranges: see range_set.h. Not locked. */
#include "heap/range_set.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST_CAPACITY (4096 / sizeof(struct span))

int range_set_reserve(struct range_set *set, size_t changes)
{
	size_t capacity = set->capacity ? set->capacity : FIRST_CAPACITY;
	void *memory;

	if (set->count + changes <= set->capacity)
		return 0;
	while (set->count + changes > capacity)
		capacity *= 2;
	memory = mmap(NULL, capacity * sizeof(struct span), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	if (set->count)
		memcpy(memory, set->span, set->count * sizeof(struct span));
	if (set->span)
		munmap(set->span, set->capacity * sizeof(struct span));
	set->span = memory;
	set->capacity = capacity;
	return 0;
}

void range_set_destroy(struct range_set *set)
{
	if (set->span)
		munmap(set->span, set->capacity * sizeof(struct span));
	*set = (struct range_set){0};
}

/* The index of the first span that ends at @addr or later; count if none. */
static size_t find(const struct range_set *set, uintptr_t addr)
{
	size_t low = 0, high = set->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (set->span[middle].end < addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Puts @n spans in the place of the spans [from, to). Room must be there. */
static void replace(struct range_set *set, size_t from, size_t to,
		    const struct span *spans, size_t n)
{
	for (size_t i = from; i < to; i++)
		set->bytes -= set->span[i].end - set->span[i].start;
	if (to < set->count && to != from + n)
		memmove(&set->span[from + n], &set->span[to],
			(set->count - to) * sizeof(struct span));
	for (size_t i = 0; i < n; i++) {
		set->span[from + i] = spans[i];
		set->bytes += spans[i].end - spans[i].start;
	}
	set->count += n - (to - from);
}

int range_set_add(struct range_set *set, uintptr_t start, uintptr_t end)
{
	size_t from = find(set, start), to = from;
	struct span whole = {start, end};
	int err;

	if (start >= end)
		return 0;
	err = range_set_reserve(set, 1);
	if (err)
		return err;
	for (; to < set->count && set->span[to].start <= end; to++) {
		if (set->span[to].start < whole.start)
			whole.start = set->span[to].start;
		if (set->span[to].end > whole.end)
			whole.end = set->span[to].end;
	}
	replace(set, from, to, &whole, 1);
	return 0;
}

int range_set_remove(struct range_set *set, uintptr_t start, uintptr_t end,
		     size_t *removed)
{
	size_t from, to, n = 0, before = set->bytes;
	struct span rest[2];
	int err;

	if (removed)
		*removed = 0;
	if (start >= end)
		return 0;
	from = find(set, start + 1); /* a span that ends at start stays */
	for (to = from; to < set->count && set->span[to].start < end; to++) {
		if (set->span[to].start < start)
			rest[n++] = (struct span){set->span[to].start, start};
		if (set->span[to].end > end)
			rest[n++] = (struct span){end, set->span[to].end};
	}
	if (n > to - from) {
		err = range_set_reserve(set, 1);
		if (err)
			return err;
	}
	replace(set, from, to, rest, n);
	if (removed)
		*removed = before - set->bytes;
	return 0;
}

bool range_set_has(const struct range_set *set, uintptr_t start, uintptr_t *end)
{
	size_t i = find(set, start + 1);
	bool has = i < set->count && set->span[i].start <= start;
	uintptr_t until = i == set->count ? *end
			  : has           ? set->span[i].end
					  : set->span[i].start;

	if (until < *end)
		*end = until;
	return has;
}

size_t range_set_overlap(const struct range_set *set, uintptr_t start, uintptr_t end)
{
	size_t bytes = 0;

	for (size_t i = find(set, start); i < set->count && set->span[i].start < end;
	     i++) {
		const struct span *span = &set->span[i];
		uintptr_t first = span->start > start ? span->start : start;
		uintptr_t last = span->end < end ? span->end : end;

		if (first < last)
			bytes += last - first;
	}
	return bytes;
}

uintptr_t range_set_take(struct range_set *set, size_t size, size_t alignment)
{
	for (size_t i = 0; i < set->count; i++) {
		const struct span *span = &set->span[i];
		uintptr_t start = (span->start + alignment - 1) & ~(alignment - 1);

		if (start < span->start || start > span->end || span->end - start < size)
			continue;
		return range_set_remove(set, start, start + size, NULL) ? 0 : start;
	}
	return 0;
}

uintptr_t range_set_take_piece(struct range_set *set, size_t least, size_t alignment,
			       size_t window, size_t *size)
{
	for (size_t i = 0; i < set->count; i++) {
		const struct span *span = &set->span[i];
		uintptr_t start = (span->start + alignment - 1) & ~(alignment - 1);
		uintptr_t end = (start | (window - 1)) + 1;

		/* The rest of a window may be too small, and the next one not. */
		if (end - start < least) {
			start = end;
			end += window;
		}
		if (end > span->end)
			end = span->end;
		if (start < span->start || start > end || end - start < least)
			continue;
		*size = end - start;
		return range_set_remove(set, start, end, NULL) ? 0 : start;
	}
	return 0;
}
