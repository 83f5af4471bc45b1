/* SPDX-License-Identifier: MIT */
/*
 * Huge pages: which memory Ferry asks the kernel to back with them.
 *
 *                 the system has `always`   `madvise`                 `never`
 *   HUGE_AUTO     as the system does it     large extents only        none
 *   HUGE_ALWAYS   all                       all                       none
 *   HUGE_NEVER    none                      none                      none
 *
 * A large extent is one of HUGE_EXTENT and more: jemalloc hands such to one
 * allocation and gives it back as a whole, and programs that allocate so much at
 * a time use it. Smaller ones would have memory beside them that nobody asked
 * for: with all of them in huge pages a process has some MiB more for each
 * arena.
 *
 * "Asked for" and "not" must both be said, so that neighbours' mappings can be
 * one: regions begin with the advice of all that is not a large extent.
 *
 * huge_init() comes first, in one thread; then nothing changes.
 */
#ifndef FERRY_HUGE_H
#define FERRY_HUGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HUGE_EXTENT ((size_t)32 << 20)

enum huge_mode { HUGE_AUTO, HUGE_ALWAYS, HUGE_NEVER };

enum huge_system {
	HUGE_SYSTEM_NONE, /* the kernel has none */
	HUGE_SYSTEM_NEVER,
	HUGE_SYSTEM_MADVISE,
	HUGE_SYSTEM_ALWAYS,
};

/* What to tell the user who asks for huge pages that are not to be had. */
#define HUGE_MISSING                                                                     \
	"huge pages are off in this system "                                             \
	"(/sys/kernel/mm/transparent_hugepage/enabled); all pages are small"

/* What the system and this process's settings allow. */
enum huge_system huge_system(void);

void huge_init(enum huge_mode mode);

/* Advises on a new region; on a mapping of a program's own. Leave errno alone. */
void huge_advise_region(void *addr, size_t len);
void huge_advise_mapping(void *addr, size_t len);
bool huge_advises_mappings(void);

/*
 * A large extent begins, or memory of a region ends that may be of one: whether it
 * is to be in huge pages, or might have been, unlike its surroundings. Leave errno
 * alone.
 */
bool huge_begin(void *addr, size_t len);
bool huge_end(void *addr, size_t len);

/* Whether all memory of regions is in huge pages where it can be. */
bool huge_backs_all(enum huge_mode mode);

/*
 * A granule that was in a huge page is to be in small ones for a while, also if the
 * kernel likes it otherwise; and may be in a huge one again, or, if it is @gone, what
 * is put there next. As it was in one before, that is what the system or somebody
 * wants of it. Leave errno alone.
 */
void huge_keep_small(uintptr_t granule);
void huge_let_whole(uintptr_t granule, bool gone);

/*
 * Whether free memory that is less than a huge page is kept for a while longer,
 * MUZZY_DECAY_MS at most: giving part of one back splits it.
 */
bool huge_keeps(void);
#define MUZZY_DECAY_MS 60000

#endif /* FERRY_HUGE_H */
