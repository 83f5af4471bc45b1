/* SPDX-License-Identifier: MIT */
/*
 * Random numbers to sample by: xorshift64 (G. Marsaglia, "Xorshift RNGs", 2003). Any
 * thread, with a state of its own.
 */
#ifndef FERRY_OS_RANDOM_H
#define FERRY_OS_RANDOM_H

#include <stdint.h>

/* The next of a series; @state is not 0. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif /* FERRY_OS_RANDOM_H */
