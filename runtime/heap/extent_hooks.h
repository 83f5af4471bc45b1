/* SPDX-License-Identifier: MIT */
/*
 * jemalloc's extent hooks on the regions.
 *
 * jemalloc has to run with retain:false. With retain:true it tells its arenas'
 * extents apart by which of them begin a mapping, and an extent that is given
 * back in part and handed to another arena would be merged across arenas.
 *
 * An arena's small extents are cut from its own chunk of one granule, so that
 * they can be merged; the largest begin at a granule. What an arena has done
 * with goes back to the region from a granule on; smaller pieces stay with the
 * arena, without their pages.
 *
 * An arena is created with METADATA's hooks and then given those of its kind:
 * jemalloc takes metadata from the former as long as the arena lives, and
 * extents from the latter.
 *
 * Safe from any thread; called by jemalloc with some of its locks held.
 */
#ifndef FERRY_EXTENT_HOOKS_H
#define FERRY_EXTENT_HOOKS_H

#include <stdbool.h>
#include <stddef.h>

#include <jemalloc/jemalloc.h>

#include "heap/region.h"

/*
 * The hooks for arenas whose memory is cut from @kind's region. @strict: never
 * from another region instead. They live as long as the process.
 */
extent_hooks_t *extent_hooks(enum region_kind kind, bool strict);

#endif /* FERRY_EXTENT_HOOKS_H */
