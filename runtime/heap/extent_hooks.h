/* SPDX-License-Identifier: MIT */
/*
 * jemalloc's extent hooks on the regions.
 *
 * jemalloc has to run with retain:false. With retain:true it tells its arenas'
 * extents apart by which of them begin a mapping, and an extent that is given
 * back in part and handed to another arena would be merged across arenas.
 *
 * An arena's extents are cut from chunks of its own, so that they can be merged,
 * small and medium ones apart; the largest begin at a granule. What an arena has
 * done with goes back to the region from a granule on; smaller pieces stay with
 * the arena, without their pages.
 *
 * Free extents are merged within a multiple of CHUNK_SIZE only. jemalloc gives
 * the pages of a free extent back at once, without waiting for them to decay,
 * when it has grown by merging to oversize_threshold, 8 MiB. Merged without
 * end, all of what a program has freed of medium-sized blocks does so again and
 * again, and the pages are faulted in anew. (With retain:true jemalloc itself
 * merges nothing across the steps in which an arena has grown.)
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
