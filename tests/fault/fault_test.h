/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the fault handler share: a handler that takes out what the
 * test says, and a look at the page tables. One thread orders traps.
 */
#ifndef FERRY_FAULT_TEST_H
#define FERRY_FAULT_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/page.h"

/* 0, or what handler_start() says; 77 is for the caller to return then. */
int fault_start(void);

/* Takes a page, or a huge page, out; what trap_set() says. */
int fault_trap(const void *addr, size_t len);

/* From now on the handler answers nothing for so long, once. */
void fault_delay(uint64_t ns);

/* Pages that are back, touched or not. */
unsigned int fault_touched(void);
unsigned int fault_untouched(void);

/* All the time takes out what @pick makes of random numbers, for 1 ms; NULL: stops. */
typedef uintptr_t (*fault_pick)(uint64_t random);
void fault_shower(fault_pick pick);

/* Whether the page table has a page at @addr; whether a huge page maps it. */
bool fault_is_there(const void *addr);
bool fault_is_huge(const void *addr);

/* Private anonymous memory at a granule, in small or huge pages, filled by fill(). */
char *fault_map(size_t len, bool huge);
void fault_fill(char *mem, size_t len, unsigned int seed);
bool fault_is_filled(const char *mem, size_t len, unsigned int seed);

#endif /* FERRY_FAULT_TEST_H */
