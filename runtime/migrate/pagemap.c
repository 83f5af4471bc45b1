/* SPDX-License-Identifier: MIT */
/*
 * Pages of this process (pagemap.h). No shared state, no locking.
 */
#include "migrate/pagemap.h"

#include <errno.h>
#include <linux/types.h>
#include <sys/ioctl.h>

#include "migrate/page.h"

/* include/uapi/linux/fs.h of Linux 6.7; Debian 12's headers are older. */
struct pm_scan_arg {
	__u64 size;
	__u64 flags;
	__u64 start;
	__u64 end;
	__u64 walk_end;
	__u64 vec;
	__u64 vec_len;
	__u64 max_pages;
	__u64 category_inverted;
	__u64 category_mask;
	__u64 category_anyof_mask;
	__u64 return_mask;
};

struct page_region {
	__u64 start;
	__u64 end;
	__u64 categories;
};

#undef PAGEMAP_SCAN
#undef PAGE_IS_PRESENT
#undef PAGE_IS_PFNZERO
#undef PAGE_IS_HUGE
#define PAGEMAP_SCAN    _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_PFNZERO (1 << 5)
#define PAGE_IS_HUGE    (1 << 6)

/* Runs of pages of category @mask, told apart by @categories. */
static int scan(int fd, uintptr_t start, uintptr_t end, uint64_t mask,
		uint64_t categories, struct page_region region[PAGEMAP_RUNS],
		uintptr_t *walked)
{
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)region,
		.vec_len = PAGEMAP_RUNS,
		.category_mask = mask,
		.return_mask = categories,
	};
	int found = ioctl(fd, PAGEMAP_SCAN, &arg);

	if (found < 0)
		return -errno;
	*walked = arg.walk_end;
	return found;
}

int pagemap_huge_runs(int fd, uintptr_t start, uintptr_t end,
		      struct huge_run run[PAGEMAP_RUNS], uintptr_t *walked)
{
	struct page_region region[PAGEMAP_RUNS];
	int found = scan(fd, start, end, PAGE_IS_HUGE, PAGE_IS_HUGE, region, walked);

	for (int i = 0; i < found; i++)
		run[i] = (struct huge_run){region[i].start, region[i].end};
	return found;
}

int pagemap_runs(int fd, uintptr_t start, uintptr_t end,
		 struct page_run run[PAGEMAP_RUNS], uintptr_t *walked)
{
	struct page_region region[PAGEMAP_RUNS];
	int found = scan(fd, start, end, PAGE_IS_PRESENT, PAGE_IS_PRESENT | PAGE_IS_HUGE,
			 region, walked);

	for (int i = 0; i < found; i++)
		run[i] = (struct page_run){region[i].start, region[i].end,
					   region[i].categories & PAGE_IS_HUGE};
	return found;
}

bool pagemap_is_huge(int fd, uintptr_t addr)
{
	struct huge_run run[PAGEMAP_RUNS];
	uintptr_t walked;

	return pagemap_huge_runs(fd, addr, addr + PAGE_BYTES, run, &walked) == 1;
}

bool pagemap_is_full(int fd, uintptr_t start, uintptr_t end)
{
	struct page_region region;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.category_inverted = PAGE_IS_PFNZERO,
		.category_mask = PAGE_IS_PRESENT | PAGE_IS_PFNZERO,
		.return_mask = PAGE_IS_PRESENT,
	};

	return ioctl(fd, PAGEMAP_SCAN, &arg) == 1 && region.start == start &&
	       region.end == end;
}
