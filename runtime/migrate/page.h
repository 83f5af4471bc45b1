/* SPDX-License-Identifier: MIT */
/*
 * Sizes of pages, blocks and granules, and rounding to them. Ferry runs on x86-64,
 * where a base page has 4 KiB; the module says so too (ferry_ioc_info).
 */
#ifndef FERRY_PAGE_H
#define FERRY_PAGE_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES    ((size_t)4096)
#define BLOCK_BYTES   ((size_t)64 << 10)
#define GRANULE_BYTES ((size_t)2 << 20)

static inline uintptr_t page_down(uintptr_t addr)
{
	return addr & ~(PAGE_BYTES - 1);
}

/* The first granule boundary above @addr. */
static inline uintptr_t granule_end(uintptr_t addr)
{
	return (addr & ~(GRANULE_BYTES - 1)) + GRANULE_BYTES;
}

#endif /* FERRY_PAGE_H */
