/* SPDX-License-Identifier: MIT */
/*
 * What the module tells of pages: whether one is held by more than page tables
 * (FERRY_QUERY_HELD), and where they are. Opened once, before and after which no
 * thread may ask.
 */
#ifndef FERRY_HELD_H
#define FERRY_HELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void held_open(void);
void held_close(void);

/* Whether there is a module that tells. */
bool held_known(void);

/*
 * Whether one of the pages of a granule's part is, or of the huge page there; false also
 * if nobody can tell. Any thread; takes no memory.
 */
bool held(uintptr_t addr, size_t len);

/* As an engine's query(), at a fraction of what move_pages(2) takes. -ENODEV: no module.
 */
int held_nodes(uintptr_t addr, size_t len, int16_t *nodes);

#endif /* FERRY_HELD_H */
