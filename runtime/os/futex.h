/* SPDX-License-Identifier: MIT */
/*
 * Waiting for a word of memory to change (futex(2)), among the threads of a process. No
 * state and no memory but the stack's; any thread.
 */
#ifndef FERRY_OS_FUTEX_H
#define FERRY_OS_FUTEX_H

#include <stdint.h>

#define FUTEX_FOREVER UINT64_MAX

/*
 * Waits while *@word is @value, until it is woken or @ns have passed; it may also return
 * for no reason.
 */
void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t ns);

/* Wakes all who wait. */
void futex_wake(_Atomic uint32_t *word);

#endif /* FERRY_OS_FUTEX_H */
