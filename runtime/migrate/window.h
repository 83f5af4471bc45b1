/* SPDX-License-Identifier: MIT */
/*
 * Windows of relocation (relocate.h): the time for which a run of granules is
 * registered, and what is out of them meanwhile. What the program does to its memory
 * in that time are events of the userfaultfd; those of all windows are read by whichever
 * copier comes first.
 *
 * Of a window that is open, start, end and one do not change; the rest is guarded by
 * the lock of events, which is the last one taken.
 */
#ifndef FERRY_MIGRATE_WINDOW_H
#define FERRY_MIGRATE_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/page.h"

/* Those that may be open at the same time: each thread that relocates has one. */
#define MAX_COPIERS 4

/* Granules of a window. It is not for fork(2) to wait for that long: windows_held(). */
#define WINDOW_GRANULES 32

#define GRANULE_PAGES (GRANULE_BYTES / PAGE_BYTES)

/* A part of a granule that is out, and where it belongs now. */
struct extent {
	uintptr_t from; /* in a slot */
	uintptr_t home;
	size_t len;
};

/* Each extent has a page at least, so the table is never full. */
struct window {
	uintptr_t start, end; /* 0: not open */
	uint32_t changed;     /* granules that the program did something to */
	bool one;             /* mapping there was, all of it registered: no gap */
	bool whole;           /* what is out has gone back in one piece so far */
	size_t count;         /* extents: what is out */
	struct extent extent[GRANULE_PAGES];
};

/*
 * Windows from now on, in a forked child too, are of @uffd, which reports removing,
 * unmapping, remapping and, if it may, forking; -1: there are none until the next call. 0
 * or -errno.
 */
int windows_init(int uffd);

/*
 * Opens a window of whole granules. Blocks until nobody holds windows back and none of
 * the same memory is open. NULL: the memory cannot be registered.
 */
struct window *window_open(uintptr_t start, uintptr_t end);
/* Nothing may be out. */
void window_close(struct window *window);

/* Keeps windows from opening, and waits for those that are open to close. */
void windows_hold(void);
void windows_release(void);
/* Whether somebody waits for that: what is open is to be closed at the next granule. */
bool windows_held(void);

/* The lock of events: events are not read, and those that were are heeded. */
void window_lock(void);
void window_unlock(void);

/*
 * Reads the events there are: commands of the userfaultfd are refused with EAGAIN as
 * long as one is not read.
 */
void windows_take_events(void);

#endif /* FERRY_MIGRATE_WINDOW_H */
