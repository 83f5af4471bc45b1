/* SPDX-License-Identifier: MIT */
/* jemalloc's own mappings: see metadata.h. No state. */
#include "heap/metadata.h"

#include <errno.h>
#include <sys/mman.h>

/*
 * With regions, what is left to be mapped is metadata: aligned blocks of a huge
 * page's size, of which some pages are touched. In huge pages they would be
 * some MiB in each process.
 */
void *metadata_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *mapped = mmap(addr, len, prot, flags, fd, offset);
	int saved = errno;

	if (mapped != MAP_FAILED) {
		madvise(mapped, len, MADV_NOHUGEPAGE);
		errno = saved; /* not every kernel has huge pages */
	}
	return mapped;
}
