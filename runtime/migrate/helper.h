/* SPDX-License-Identifier: MIT */
/*
 * A copier's helper: two threads that do, while the copier copies, what small pages take
 * besides (relocate.h).
 *
 * One takes away the page table that they have left, which is in the way of a huge page:
 * mremap(2) with MREMAP_DONTUNMAP moves an empty one as it does a full one, and the
 * granule stays mapped and registered. Who moves what is registered waits until the event
 * of it is read, so the copier itself cannot. The event says where to, which is how it is
 * told from those of the program (helper_owns()).
 *
 * The other gives the small pages of the granule before back to the kernel, and has a
 * huge page come up for the next one, if none is kept.
 *
 * Each helper is one copier's at a time; what a thread is to do, and what it has done,
 * changes hands by its state. They are started when there is a copier without a helper,
 * and never end.
 */
#ifndef FERRY_HELPER_H
#define FERRY_HELPER_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/staging.h"

struct helper;

/* @uffd: what granules are registered with. In one thread. 0 or -errno. */
int helper_open(int uffd);
/* In a forked child, where there are none. */
void helper_forget(void);

/* Whether page tables are taken to that address. Any thread. */
bool helper_owns(uintptr_t addr);

/* A helper for this thread alone; NULL: none can be started. May block for one. */
struct helper *helper_get(void);
/* No more for this thread, once it is done. */
void helper_give_back(struct helper *helper);

/* Has it take the page table of @granule, which is out and stays so until it is done. */
void helper_take_table(struct helper *helper, uintptr_t granule);
/* Whether it is; in *@err whether that has worked. */
bool helper_has_table(struct helper *helper, int *err);

/*
 * Has it give @slot back, which has small pages, and see to it that one is filled by
 * @node (SLOT_EMPTY: none). Blocks until that is done of the slot before.
 */
void helper_give_pages(struct helper *helper, struct slot *slot, int node);

#endif /* FERRY_HELPER_H */
