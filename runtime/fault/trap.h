/* SPDX-License-Identifier: MIT */
/*
 * Traps: pages taken out of their place (their home) with UFFDIO_MOVE into a
 * shadow area, so that the next access to them, a read or a write, by the
 * program or by the kernel on its behalf, is a fault that the handler sees. The
 * data is moved, never copied, and moved back by the fault, after a time, or on
 * demand.
 *
 *   home    |....|page|.....|        registered only while the page is out
 *                   | ^
 *         trap_set  v |  put back
 *   shadow  |page|    |page|  ...    registered, not inherited by children
 *
 * A page mapped by 4 KiB goes out alone. A huge page goes out whole and comes
 * back whole: one page of it would split it.
 *
 * What a program does to the home of a page that is out reaches the handler as
 * an event, which the kernel makes the caller wait for:
 *   REMOVE  madvise(DONTNEED, FREE): the page in the shadow is dropped
 *   UNMAP   munmap, mmap(MAP_FIXED): its home is gone, and so is the page
 *   REMAP   mremap: its home is elsewhere now
 *   FORK    a child that fork handlers did not see: it is given a copy
 * Until an event is read, UFFDIO_MOVE and UFFDIO_COPY answer EAGAIN; the page is
 * then due, and put back once the events are. That order is why only the
 * handler's thread, which reads the events, may move pages, and why it takes
 * the events of a read before the faults of it. A range that is discarded while
 * something in it is out may be about to be discarded still when the event has
 * been read, so nothing in its granules is ever taken out again.
 *
 * The program's pages are worth more than ours: where a page cannot be moved
 * back because its home was made read-only, locked or such, it is copied back.
 *
 * The handler's thread only, but for what says otherwise.
 */
#ifndef FERRY_TRAP_H
#define FERRY_TRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRAPS_SMALL 128 /* pages out at once */
#define TRAPS_HUGE  32  /* huge pages out at once */

/*
 * A page is back: it was touched @ns after it was taken out, or was not for
 * that long.
 */
typedef void trap_ended(uintptr_t addr, size_t len, uint64_t ns, bool touched);

/* Maps the shadow. @uffd has the events. 0 or -errno. */
int trap_init(int uffd, trap_ended *ended);
/* Unmaps it; nothing is out. */
void trap_exit(void);

/*
 * Takes the page, or the huge page (@len GRANULE_BYTES), at @addr out. 0, or
 * -errno with the page where it was: -ENOENT (nothing there), -EBUSY (shared or
 * pinned, another userfaultfd has it, it is out, its granule is barred, or there is a
 * hold), -ENOSPC (as many are out as can be), -EAGAIN, -EINVAL (not private anonymous
 * memory).
 */
int trap_set(uintptr_t addr, size_t len);

/* A fault at @addr. false: nothing of that address is out. */
bool trap_fault(uintptr_t addr, uint64_t now);

/* A fault in the shadow: somebody reads all of the process's memory. */
bool trap_shadow_fault(uintptr_t addr);

/* Puts back what was taken out before @since; everything: UINT64_MAX. */
void trap_expire(uint64_t since, uint64_t now);

/* Puts back what is due. false: something still is. */
bool trap_retry(void);

/* When the page that is out longest was taken out; UINT64_MAX: none is out. */
uint64_t trap_oldest(void);

void trap_removed(uintptr_t start, uintptr_t end);
void trap_unmapped(uintptr_t start, uintptr_t end);
void trap_moved(uintptr_t from, uintptr_t to, size_t len);
/* @child: the child's userfaultfd; closed by this. */
void trap_forked(int child);

/*
 * Any thread: while there are holds nothing is taken out, and what trap_overlaps()
 * says after trap_hold() does not become true again before trap_let_go().
 */
void trap_hold(void);
void trap_let_go(void);

/* Whether something of [start, end) is out. */
bool trap_overlaps(uintptr_t start, uintptr_t end);

/* In the child of a fork: nothing is out, and there is no shadow. */
void trap_forget(void);

#endif /* FERRY_TRAP_H */
