/* SPDX-License-Identifier: MIT */
/*
 * The staging area of the engine `relocate`: slots of a granule's size that a
 * program does not know of. A granule that is moved goes out into an empty
 * slot; its copy is made in a slot that a huge page of the target node fills;
 * and the slot with the original then is one filled by its node, which the next
 * granule that goes there can take without the kernel clearing a page.
 *
 * The area is registered with the userfaultfd of the program's memory, for
 * UFFDIO_MOVE wants that of a destination; without missing faults, so that
 * reading it does not wait. Nothing is inherited by children, whose share in the
 * pages would make them shared.
 *
 * The lock guards the table of slots; nothing is touched and no lock is taken under
 * it that may be out of place, or held by who waits for what is.
 */
#ifndef FERRY_STAGING_H
#define FERRY_STAGING_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Most pages that are kept filled, of all nodes together: 32 MiB, while memory is moved.
 * Those of HBM count against the HBM limit.
 */
#define STAGING_KEPT 16

struct slot {
	uintptr_t addr;
	int node;         /* of the huge page in it; or one of those below */
	int used;         /* by a copier */
	uint64_t kept_at; /* ns of CLOCK_MONOTONIC: since when it is kept */
};

#define SLOT_EMPTY  (-1)
#define SLOT_BROKEN (-2) /* it could not be mapped */

/* @uffd: what uffd_move() into a slot wants; it must be open at staging_close(). 0 or
 * -errno. */
int staging_open(int uffd);
void staging_close(void);
/* In a forked child, which has no staging area: it is mapped anew by opening. */
void staging_forget(void);

/* An empty slot; NULL: none can be mapped now, else there always is one for each copier.
 */
struct slot *staging_empty(void);

/*
 * A slot with a huge page of @node, whatever is in it; NULL if there is no
 * memory for one.
 */
struct slot *staging_filled(int node);

/* Has a huge page of @node come up for the next one who wants it, if none is kept. */
void staging_stock(int node);

/* Gives a slot back that is empty, or filled by a huge page of slot->node. */
void staging_put(struct slot *slot);
/* Gives a slot back in whatever state it is. */
void staging_put_spoiled(struct slot *slot);

/* Whether slots are kept filled. */
bool staging_keeps(void);

/* Gives the memory of all slots that are kept filled back to the kernel. */
void staging_trim(void);

#endif /* FERRY_STAGING_H */
