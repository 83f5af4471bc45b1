/* SPDX-License-Identifier: MIT */
/*
 * A library that allocates in its constructor, long before main(): the preload
 * library has to have started by then. Its memory is looked at by
 * preload_checks. It is also loaded and unloaded while that runs.
 */
#include <stdlib.h>
#include <string.h>

#include "early.h"

char *early_small, *early_large;

__attribute__((constructor)) static void allocate(void)
{
	early_small = malloc(EARLY_SMALL);
	early_large = calloc(1, EARLY_LARGE);
	memset(early_small, 1, EARLY_SMALL);
	memset(early_large, 1, EARLY_LARGE);
}

__attribute__((destructor)) static void release(void)
{
	free(early_small);
	free(early_large);
}
