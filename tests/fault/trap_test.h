/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the fault handler share: a handler that takes out what the
 * test says, and a look at the page tables. One thread orders traps.
 */
#ifndef FERRY_TRAP_TEST_H
#define FERRY_TRAP_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/page.h"
#include "test_pages.h"

/* 0, or what handler_start() says; 77 is for the caller to return then. */
int traps_start(void);

/* Takes a page, or a huge page, out; what trap_set() says. */
int traps_set(const void *addr, size_t len);

/* From now on the handler answers nothing for so long, once. */
void traps_delay(uint64_t ns);

/* Pages that are back, touched or not. */
unsigned int traps_touched(void);
unsigned int traps_untouched(void);

/* All the time takes out what @pick makes of random numbers, for 1 ms; NULL: stops. */
typedef uintptr_t (*traps_pick)(uint64_t random);
void traps_shower(traps_pick pick);

/* Whether the page table has a page at @addr; whether a huge page maps it. */
bool page_is_there(const void *addr);
bool page_is_huge(const void *addr);

void pattern_fill(char *mem, size_t len, unsigned int seed);
bool pattern_is_in(const char *mem, size_t len, unsigned int seed);

#endif /* FERRY_TRAP_TEST_H */
