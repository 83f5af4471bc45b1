/* SPDX-License-Identifier: MIT */
/*
 * A set of disjoint address ranges, kept in address order; neighbours that
 * touch are one range. It serves as a region's free space and as the record of
 * placed mappings.
 *
 * A sorted array: searches halve it, changes move its tail, first fit walks
 * it. Sets stay small, because what is put in touches what is there.
 *
 * Not locked: its user does that. Its memory comes straight from mmap(2), so
 * that it may be used below the allocator.
 */
#ifndef FERRY_RANGE_SET_H
#define FERRY_RANGE_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
	uintptr_t start, end; /* [start, end) */
};

/* All zeros is the empty set. */
struct range_set {
	struct span *span; /* sorted by start, none touching the next */
	size_t count;
	size_t capacity;
	size_t bytes; /* sum of the lengths */
};

/* Adds [start, end), whatever of it is there already. 0 or -ENOMEM. */
int range_set_add(struct range_set *set, uintptr_t start, uintptr_t end);

/*
 * Removes [start, end). *removed (if not NULL) gets the bytes that were in the
 * set. 0, or -ENOMEM (a split needs an entry) with the set unchanged.
 */
int range_set_remove(struct range_set *set, uintptr_t start, uintptr_t end,
		     size_t *removed);

/* The bytes of [start, end) that are in the set. */
size_t range_set_overlap(const struct range_set *set, uintptr_t start, uintptr_t end);

/*
 * Whether @start is in the set; *@end is lowered to where that is no longer so.
 */
bool range_set_has(const struct range_set *set, uintptr_t start, uintptr_t *end);

/*
 * First fit: takes @size bytes aligned to @alignment (a power of two) out of
 * the set. 0 if nothing fits, or no memory is there for a split.
 */
uintptr_t range_set_take(struct range_set *set, size_t size, size_t alignment);

/*
 * First fit of a piece: takes the first free stretch of at least @least bytes
 * that begins at a multiple of @alignment and, with all its bytes, lies within
 * one aligned @window; as much of it as is free there. 0 as above.
 */
uintptr_t range_set_take_piece(struct range_set *set, size_t least, size_t alignment,
			       size_t window, size_t *size);

/* Makes room so that the next @changes additions or removals cannot fail. */
int range_set_reserve(struct range_set *set, size_t changes);

/* Gives the set's memory back and leaves it empty. */
void range_set_destroy(struct range_set *set);

#endif /* FERRY_RANGE_SET_H */
