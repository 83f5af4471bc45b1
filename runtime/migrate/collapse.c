/* SPDX-License-Identifier: MIT */
/* Huge pages out of small ones (collapse.h). */
#include "migrate/collapse.h"

#include <errno.h>
#include <sys/mman.h>

#include "heap/huge.h"
#include "heap/region.h"
#include "migrate/page.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

static enum huge_system setting;

void collapse_open(void)
{
	setting = huge_system();
}

bool collapse_allowed(uintptr_t granule)
{
	return setting == HUGE_SYSTEM_ALWAYS ||
	       (setting == HUGE_SYSTEM_MADVISE && region_of((void *)granule) >= 0);
}

bool collapse_advised(uintptr_t granule)
{
	/* Less than a huge page, so that nothing but the mapping is checked. */
	return !madvise((void *)granule, PAGE_BYTES, MADV_COLLAPSE);
}

void collapse(uintptr_t addr, size_t len)
{
	/* It ends at some failures: the rest is tried one by one. */
	if (!madvise((void *)addr, len, MADV_COLLAPSE) || len == GRANULE_BYTES)
		return;
	for (size_t at = 0; at < len; at += GRANULE_BYTES)
		madvise((void *)(addr + at), GRANULE_BYTES, MADV_COLLAPSE);
}

bool collapse_available(void)
{
	/* Of no length, so that nothing but the advice is checked. */
	return !madvise(NULL, 0, MADV_COLLAPSE);
}

int collapse_one(uintptr_t granule)
{
	return madvise((void *)granule, GRANULE_BYTES, MADV_COLLAPSE) ? -errno : 0;
}
