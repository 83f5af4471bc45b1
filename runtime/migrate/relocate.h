/* SPDX-License-Identifier: MIT */
/*
 * Relocation: a granule that one huge page maps, or that small pages fill, is moved
 * without the kernel copying a byte; either becomes a huge page of the target.
 *
 *   home     |..granule..|           registered while the granule is out
 *              | 1     ^ 3
 *   staging  |original|copy|         1: UFFDIO_MOVE out; 2: streaming copy into
 *                 2: ->              a page of the target; 3: UFFDIO_MOVE in
 *
 * Small pages leave a page table, which is taken away before 3 (helper.h).
 *
 * Who touches the granule meanwhile waits in the kernel until it is back. A
 * window is the time for which a run of granules is registered, one of them
 * being out at a time.
 *
 * What must not happen in a window, and why it does not:
 * - A copier touches what is out. Its stack and thread-local data are in memory
 *   that no huge page maps (MADV_NOHUGEPAGE), and so are the library's static
 *   data, which are smaller than a granule. It takes no memory of the heap, and
 *   all functions that it calls have been bound by a first, unneeded move.
 * - Data is lost. Either the original or the whole copy is moved in, and if the
 *   kernel refuses (the program has made its memory read-only, locked it), the
 *   data is copied in. A copier handles no signals; SIGKILL ends all threads.
 * - fork(2): the child would find zeros. windows_hold() waits until nothing is
 *   out and keeps it so. A vfork(2)ed child has the same memory and waits as a
 *   thread does. Of a clone(2) past the fork handlers the kernel tells, where it
 *   may (relocate_sees_forks()): the child waits until it has copies. Elsewhere
 *   ferry(3) tells programs not to.
 * - munmap, mremap, madvise(DONTNEED) of a home come first, and data that is
 *   gone comes back, or is missing where it went. The kernel makes them wait
 *   until they are read as events, and refuses to move anything in before;
 *   events are read, and what they say of the homes is noted, under one lock
 *   that moving in takes too.
 * - A page that a device or the kernel writes to is exchanged for a copy.
 *   UFFDIO_MOVE leaves pinned pages (io_uring, RDMA, direct I/O on disks) where
 *   they are. Some of the kernel takes plain references instead: vmsplice(2),
 *   direct I/O on network file systems. The module can tell these
 *   (FERRY_QUERY_HELD), nothing else can: see relocate_vouched().
 *
 * The lock of events is the last one taken; malloc is not called under it.
 */
#ifndef FERRY_RELOCATE_H
#define FERRY_RELOCATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/window.h"

/*
 * Makes relocation ready and tries it on a granule of its own. In *@why, a
 * static string, what is missing. 0 or -errno.
 */
int relocate_open(const char **why);
/* In a forked child. */
void relocate_forget(void);

/*
 * Whether small pages that fill a granule can be relocated too, and become a huge page by
 * it: where the kernel lets an empty page table be taken away. Any thread with nothing
 * out; the first call tries it, with threads that stay.
 */
bool relocate_can_small(void);
/* And whether it pays just now. */
bool relocate_takes_small(void);
/* Whether all pages that the kernel holds are told. */
bool relocate_vouched(void);
/* Whether this process may be told of children of clone(2). Before relocate_open() too.
 */
bool relocate_sees_forks(void);

/* Whether a huge page maps this address. */
bool relocate_is_huge(uintptr_t addr);
/* Whether there is a page of its own everywhere in a granule. */
bool relocate_is_full(uintptr_t granule);

/*
 * Moves @n granules at @addr, WINDOW_GRANULES at most, each mapped by a huge
 * page of the node given in @from, to @node. @from is NULL: each of them is full of small
 * pages, and nobody unmaps them meanwhile or maps anything over them: who does, and
 * writes to it at once, may lose that. Bit i of the answer: granule i is
 * there. The others are where they were. At most MAX_COPIERS threads at once,
 * with all signals blocked and a stack as said above.
 */
uint32_t relocate_run(uintptr_t addr, size_t n, const int16_t *from, int node);

#endif /* FERRY_RELOCATE_H */
