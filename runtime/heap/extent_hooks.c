/* SPDX-License-Identifier: MIT */
/* jemalloc's extent hooks: see extent_hooks.h. */
#include "heap/extent_hooks.h"

#include <errno.h>

#include "heap/huge.h"

/*
 * Extents below CHUNK_SIZE come from an arena's chunks, those from MEDIUM_SIZE
 * on from chunks of their own. From ALIGNED_SIZE on they begin at a granule.
 * Smaller ones do not, since the space that this leaves between them would be
 * filled where huge pages are: in HBM.
 */
#define MEDIUM_SIZE  (GRANULE_SIZE / 4)
#define ALIGNED_SIZE HUGE_EXTENT

#define ARENAS_MAX 4096 /* jemalloc's limit */

/* The arenas' chunks; the region's lock guards them. */
static struct arena_chunks {
	struct region_chunk small, medium;
} chunks[ARENAS_MAX];

static struct region_chunk *chunk_of(unsigned int arena, size_t size)
{
	return size < MEDIUM_SIZE ? &chunks[arena].small : &chunks[arena].medium;
}

/* What jemalloc is given is the first member. */
struct kind_hooks {
	extent_hooks_t hooks;
	enum region_kind kind;
	bool strict;
};

static bool ends_chunk(const void *addr)
{
	return (uintptr_t)addr % CHUNK_SIZE == 0;
}

/* The extent before @addr may be in any of the arena's chunks. */
static bool extend(void *addr, size_t size, unsigned int arena)
{
	return !ends_chunk(addr) && (region_extend(addr, &chunks[arena].small, size) ||
				     region_extend(addr, &chunks[arena].medium, size));
}

/* One fault of the kernel's fills a huge page: nothing is better at that. */
static void begin_extent(void *addr, size_t size)
{
	if (huge_begin(addr, size))
		region_fill(addr, size, false);
}

static void *extent_alloc(extent_hooks_t *hooks, void *new_addr, size_t size,
			  size_t alignment, bool *zero, bool *commit, unsigned int arena)
{
	const struct kind_hooks *own = (const struct kind_hooks *)hooks;
	bool wants_zero = *zero;
	void *addr;

	*zero = true;
	*commit = true;
	if (arena >= ARENAS_MAX) /* which there are not */
		return NULL;
	if (new_addr) {
		addr = extend(new_addr, size, arena) ? new_addr : NULL;
		if (addr)
			begin_extent(addr, size);
		return addr;
	}
	if (size < CHUNK_SIZE && alignment <= GRANULE_SIZE &&
	    own->kind != REGION_METADATA)
		addr = region_alloc_small(own->kind, chunk_of(arena, size), size,
					  alignment, own->strict);
	else
		addr = region_alloc(own->kind, size,
				    size >= ALIGNED_SIZE && alignment < GRANULE_SIZE
					    ? GRANULE_SIZE
					    : alignment,
				    own->strict);
	if (addr)
		begin_extent(addr, size);
	else
		*zero = wants_zero;
	return addr;
}

/* true means, to jemalloc, that the arena keeps the extent. */
static bool extent_dalloc(extent_hooks_t *hooks, void *addr, size_t size, bool committed,
			  unsigned int arena)
{
	int saved = errno; /* of the program, which may be calling free() */
	bool keep = size < GRANULE_SIZE;

	if (!keep) {
		if (huge_end(addr, size))
			region_fill(addr, size, true);
		keep = region_free(addr, size);
	}
	(void)hooks;
	(void)committed;
	(void)arena;
	errno = saved;
	return keep;
}

/*
 * Where huge pages are behind: of what has been free for a while, the whole
 * granules are given back. jemalloc keeps the rest as "muzzy" and merges it with
 * what becomes free beside it; what has not become a granule by the time that
 * muzzy memory decays too is given back all the same.
 */
static bool extent_purge_lazily(extent_hooks_t *hooks, void *addr, size_t size,
				size_t offset, size_t length, unsigned int arena)
{
	uintptr_t start = granule_up((uintptr_t)addr + offset);
	uintptr_t end = granule_down((uintptr_t)addr + offset + length);
	int saved = errno;

	(void)hooks;
	(void)size;
	(void)arena;
	if (!huge_keeps())
		return true;
	if (start < end)
		region_discard((void *)start, end - start);
	errno = saved;
	return false;
}

static bool extent_purge(extent_hooks_t *hooks, void *addr, size_t size, size_t offset,
			 size_t length, unsigned int arena)
{
	int saved = errno;
	bool failed = region_discard((char *)addr + offset, length);

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

/*
 * Extents of different regions may touch by chance. Those of different chunks
 * are not merged: see extent_hooks.h.
 */
static bool extent_merge(extent_hooks_t *hooks, void *addr_a, size_t size_a, void *addr_b,
			 size_t size_b, bool committed, unsigned int arena)
{
	(void)hooks;
	(void)size_a;
	(void)size_b;
	(void)committed;
	(void)arena;
	return ends_chunk(addr_b) || region_of(addr_a) != region_of(addr_b);
}

#define HOOKS                                                                            \
	{                                                                                \
		.alloc = extent_alloc, .dalloc = extent_dalloc,                          \
		.purge_lazy = extent_purge_lazily, .purge_forced = extent_purge,         \
		.split = extent_split, .merge = extent_merge,                            \
	}

extent_hooks_t *extent_hooks(enum region_kind kind, bool strict)
{
	static struct kind_hooks preferred[REGION_KINDS] = {
		{HOOKS, REGION_DDR, false},        {HOOKS, REGION_HBM, false},
		{HOOKS, REGION_INTERLEAVE, false}, {HOOKS, REGION_AUTO, false},
		{HOOKS, REGION_METADATA, false},
	};
	static struct kind_hooks strict_hooks[REGION_PLACED] = {
		{HOOKS, REGION_DDR, true},
		{HOOKS, REGION_HBM, true},
		{HOOKS, REGION_INTERLEAVE, true},
		{HOOKS, REGION_AUTO, true},
	};

	return &(strict ? strict_hooks : preferred)[kind].hooks;
}
