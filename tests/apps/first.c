/* SPDX-License-Identifier: MIT */
/*
 * A library whose constructor comes before all others', as the preload
 * library's otherwise does (both ask for it; the last one loaded gets it), and
 * allocates.
 */
#include <stdlib.h>

__attribute__((constructor)) static void allocate(void)
{
	void *volatile ptr = malloc(100);

	free(ptr);
}
