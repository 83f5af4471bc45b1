/* SPDX-License-Identifier: MIT */
/*
 * Making huge pages of granules that small pages map. In Ferry's regions relocation does
 * it as it moves them (relocate.h), where that works. Elsewhere the kernel does it before
 * they are moved whole (MADV_COLLAPSE, Linux 6.1): it copies within a node, and leaves a
 * granule whose pages somebody holds or whose mapping is advised against huge pages
 * (MADV_NOHUGEPAGE). docs/architecture.md has the other ways and what they take.
 *
 * The policy is that of huge.h in Ferry's regions, whose advice the kernel heeds;
 * elsewhere the system's: where it makes huge pages only of what is advised so
 * (`madvise`), that cannot be told of memory that others map, which stays small.
 */
#ifndef FERRY_COLLAPSE_H
#define FERRY_COLLAPSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads the system's setting. Before the others, in one thread. */
void collapse_open(void);

/* Whether policy allows a granule to become a huge page, as far as Ferry can tell. */
bool collapse_allowed(uintptr_t granule);

/*
 * The same by its mapping's advice, as the kernel says: it is to make none of it huge.
 * For that it empties the CPUs' lists of pages, which hold those that came last (held.h).
 */
bool collapse_advised(uintptr_t granule);

/* Tries it on granules that lie together; which ones it worked on, see pagemap.h. */
void collapse(uintptr_t addr, size_t len);

/* Whether this kernel can do it at all. */
bool collapse_available(void);

/* The same of one granule, whose memory is to be in huge pages: 0 or -errno. */
int collapse_one(uintptr_t granule);

#endif /* FERRY_COLLAPSE_H */
