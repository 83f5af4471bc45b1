/* SPDX-License-Identifier: MIT */
/* Memory for tests: see test_pages.h. */
#include "test_pages.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "migrate/page.h"

#define SPACE ((size_t)64 << 30)

/* Address space for all that a test maps. */
static char *reserve(void)
{
	char *space = mmap(NULL, SPACE, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (space == MAP_FAILED)
		abort();
	return (char *)granule_end((uintptr_t)space);
}

char *pages_map(size_t len, bool huge)
{
	/* Each at an address of its own, of which nothing is known yet. */
	static char *next;
	char *mem;

	if (!next)
		next = reserve();
	mem = mmap(next, len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (mem == MAP_FAILED)
		abort();
	next = (char *)granule_end((uintptr_t)mem + len) + GRANULE_BYTES;
	madvise(mem, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return mem;
}
