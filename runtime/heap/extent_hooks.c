/* SPDX-License-Identifier: MIT */
/* jemalloc's extent hooks: see extent_hooks.h. */
#include "heap/extent_hooks.h"

#include <errno.h>
#include <sys/mman.h>

/*
 * Extents below SMALL_SIZE come from an arena's chunk: the rest of a chunk that
 * is too small for the next extent is less than an eighth of it. From
 * ALIGNED_SIZE on they begin at a granule. Smaller ones do not, since the space
 * that this leaves between them would be filled where huge pages are: in HBM.
 */
#define SMALL_SIZE   (GRANULE_SIZE / 8)
#define ALIGNED_SIZE (16 * GRANULE_SIZE)

#define ARENAS_MAX 4096 /* jemalloc's limit */

/* The arenas' chunks; the region's lock guards them. */
static struct region_chunk chunks[ARENAS_MAX];

/* What jemalloc is given is the first member. */
struct kind_hooks {
	extent_hooks_t hooks;
	enum region_kind kind;
	bool strict;
};

static void *extent_alloc(extent_hooks_t *hooks, void *new_addr, size_t size,
			  size_t alignment, bool *zero, bool *commit, unsigned int arena)
{
	const struct kind_hooks *own = (const struct kind_hooks *)hooks;
	bool wants_zero = *zero;
	void *addr;

	*zero = true;
	*commit = true;
	if (new_addr)
		return region_extend(new_addr, size) ? new_addr : NULL;
	if (size < SMALL_SIZE && alignment <= GRANULE_SIZE && arena < ARENAS_MAX)
		addr = region_alloc_small(own->kind, &chunks[arena], size, alignment,
					  own->strict);
	else
		addr = region_alloc(own->kind, size,
				    size >= ALIGNED_SIZE && alignment < GRANULE_SIZE
					    ? GRANULE_SIZE
					    : alignment,
				    own->strict);
	if (!addr)
		*zero = wants_zero;
	return addr;
}

/* true means, to jemalloc, that the arena keeps the extent. */
static bool extent_dalloc(extent_hooks_t *hooks, void *addr, size_t size, bool committed,
			  unsigned int arena)
{
	int saved = errno; /* of the program, which may be calling free() */
	bool keep = size < GRANULE_SIZE || region_free(addr, size);

	(void)hooks;
	(void)committed;
	(void)arena;
	errno = saved;
	return keep;
}

static bool extent_purge(extent_hooks_t *hooks, void *addr, size_t size, size_t offset,
			 size_t length, unsigned int arena)
{
	int saved = errno;
	bool failed = madvise((char *)addr + offset, length, MADV_DONTNEED);

	(void)hooks;
	(void)size;
	(void)arena;
	errno = saved;
	return failed;
}

static bool extent_split(extent_hooks_t *hooks, void *addr, size_t size, size_t size_a,
			 size_t size_b, bool committed, unsigned int arena)
{
	(void)hooks;
	(void)addr;
	(void)size;
	(void)size_a;
	(void)size_b;
	(void)committed;
	(void)arena;
	return false;
}

/* Extents of different regions may touch by chance. */
static bool extent_merge(extent_hooks_t *hooks, void *addr_a, size_t size_a, void *addr_b,
			 size_t size_b, bool committed, unsigned int arena)
{
	(void)hooks;
	(void)size_a;
	(void)size_b;
	(void)committed;
	(void)arena;
	return region_of(addr_a) != region_of(addr_b);
}

#define HOOKS                                                                            \
	{                                                                                \
		.alloc = extent_alloc, .dalloc = extent_dalloc,                          \
		.purge_forced = extent_purge, .split = extent_split,                     \
		.merge = extent_merge,                                                   \
	}

extent_hooks_t *extent_hooks(enum region_kind kind, bool strict)
{
	static struct kind_hooks preferred[REGION_KINDS] = {
		{HOOKS, REGION_DDR, false},
		{HOOKS, REGION_HBM, false},
		{HOOKS, REGION_INTERLEAVE, false},
		{HOOKS, REGION_METADATA, false},
	};
	static struct kind_hooks strict_hooks[REGION_PLACED] = {
		{HOOKS, REGION_DDR, true},
		{HOOKS, REGION_HBM, true},
		{HOOKS, REGION_INTERLEAVE, true},
	};

	return &(strict ? strict_hooks : preferred)[kind].hooks;
}
