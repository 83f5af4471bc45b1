/* SPDX-License-Identifier: MIT */
/*
 * Whether a page is held by more than page tables, as the module tells
 * (FERRY_QUERY_HELD). Opened once, before and after which no thread may ask.
 */
#ifndef FERRY_HELD_H
#define FERRY_HELD_H

#include <stdbool.h>
#include <stdint.h>

void held_open(void);
void held_close(void);

/* Whether there is a module that tells. */
bool held_known(void);

/* false also if nobody can tell. Any thread; takes no memory. */
bool held(uintptr_t addr);

#endif /* FERRY_HELD_H */
