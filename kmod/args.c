// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copying and checking what the caller passes in. A struct or an array element
 * may be shorter than the one known here (the rest is zero) or longer (the rest
 * must be zero, else E2BIG).
 *
 * Everything is copied once and checked in the copy, before anything is done,
 * so that a refused request changes nothing.
 *
 * Locking: none held, since copying may fault.
 */
#include <linux/capability.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "ferry.h"

#define RANGE_FLAGS FERRY_RANGE_POPULATE
#define MIGRATE_FLAGS (FERRY_MIGRATE_SHARED | FERRY_MIGRATE_EXCHANGE | \
		       FERRY_MIGRATE_SPLIT_HUGE)

/**
 * ferry_copy_struct() - copy a struct that begins with its size
 * @dst: where to, at least 4 bytes
 * @size: size of the struct known here
 * @src: where from
 *
 * Return: 0, -EFAULT, -EINVAL (size too small to hold itself) or -E2BIG.
 */
int ferry_copy_struct(void *dst, size_t size, const void __user *src)
{
	u32 usize;
	int err;

	if (get_user(usize, (const u32 __user *)src))
		return -EFAULT;
	if (usize < sizeof(usize))
		return -EINVAL;
	if (usize > PAGE_SIZE)
		return -E2BIG;
	err = copy_struct_from_user(dst, size, src, usize);
	/* Whatever another thread made of it meanwhile */
	*(u32 *)dst = usize;
	return err;
}

/* Untag and check the addresses of a range. */
static int check_extent(u64 *addr, u64 len)
{
	u64 start = untagged_addr(*addr), end;

	if (!len || !IS_ALIGNED(start, PAGE_SIZE) || !IS_ALIGNED(len, PAGE_SIZE))
		return -EINVAL;
	if (check_add_overflow(start, len, &end) || end > TASK_SIZE_MAX)
		return -EINVAL;
	*addr = start;
	return 0;
}

static int check_node(s32 *node, const nodemask_t *allowed)
{
	if (*node < 0 || *node >= MAX_NUMNODES)
		return -ENODEV;
	*node = array_index_nospec(*node, MAX_NUMNODES);
	if (!node_state(*node, N_MEMORY))
		return -ENODEV;
	return node_isset(*node, *allowed) ? 0 : -EACCES;
}

/* An exchange is between two nodes. */
static int check_exchange(const struct ferry_batch *batch)
{
	s32 other = batch->ranges[0].node;
	u32 i;

	for (i = 1; i < batch->args.nr_ranges; i++) {
		const s32 node = batch->ranges[i].node;

		if (node == batch->ranges[0].node || node == other)
			continue;
		if (other != batch->ranges[0].node)
			return -EINVAL;
		other = node;
	}
	return 0;
}

static int check_ranges(struct ferry_batch *batch)
{
	nodemask_t allowed;
	u32 i;

	batch->bytes = 0;
	ferry_allowed_nodes(&allowed);
	for (i = 0; i < batch->args.nr_ranges; i++) {
		struct ferry_ioc_range *range = &batch->ranges[i];
		int err;

		if (range->flags & ~RANGE_FLAGS)
			return -EINVAL;
		err = check_extent(&range->addr, range->len);
		if (err)
			return err;
		if (range->len > FERRY_MAX_BYTES - batch->bytes)
			return -EINVAL;
		batch->bytes += range->len;
		err = check_node(&range->node, &allowed);
		if (err)
			return err;
	}
	if (batch->args.flags & FERRY_MIGRATE_EXCHANGE)
		return check_exchange(batch);
	return 0;
}

static int copy_ranges(struct ferry_batch *batch)
{
	const void __user *src = u64_to_user_ptr(batch->args.ranges);
	const u32 size = batch->args.range_size, nr = batch->args.nr_ranges;
	u32 i;

	if (size == sizeof(*batch->ranges)) {
		if (copy_from_user(batch->ranges, src, array_size(nr, size)))
			return -EFAULT;
		return 0;
	}
	for (i = 0; i < nr; i++, src += size) {
		int err = copy_struct_from_user(&batch->ranges[i],
						sizeof(*batch->ranges), src,
						size);

		if (err)
			return err;
		cond_resched();
	}
	return 0;
}

static int check_migrate(const struct ferry_ioc_migrate *args)
{
	if (args->flags & ~MIGRATE_FLAGS)
		return -EINVAL;
	if (args->copy_mode > FERRY_COPY_DMA)
		return -EINVAL;
	if (!args->nr_ranges || args->nr_ranges > FERRY_MAX_RANGES)
		return -EINVAL;
	if (!args->range_size || !args->results != !args->result_size)
		return -EINVAL;
	if (args->range_size > PAGE_SIZE || args->result_size > PAGE_SIZE)
		return -E2BIG;
	if ((args->flags & FERRY_MIGRATE_SHARED) && !capable(CAP_SYS_NICE))
		return -EPERM;
	return 0;
}

/**
 * ferry_batch_read() - copy and check a FERRY_IOC_MIGRATE request
 * @batch: filled in; for ferry_batch_free() if this succeeds
 * @src: the caller's struct ferry_ioc_migrate
 *
 * Return: 0 or the errors listed at struct ferry_ioc_migrate.
 */
int ferry_batch_read(struct ferry_batch *batch, const void __user *src)
{
	int err;

	err = ferry_copy_struct(&batch->args, sizeof(batch->args), src);
	if (!err)
		err = check_migrate(&batch->args);
	if (err)
		return err;

	batch->ranges = kvmalloc_array(batch->args.nr_ranges,
				       sizeof(*batch->ranges),
				       GFP_KERNEL_ACCOUNT);
	if (!batch->ranges)
		return -ENOMEM;
	err = copy_ranges(batch);
	if (!err)
		err = check_ranges(batch);
	if (err)
		ferry_batch_free(batch);
	return err;
}

/**
 * ferry_batch_free() - free what ferry_batch_read() allocated
 * @batch: the batch
 */
void ferry_batch_free(struct ferry_batch *batch)
{
	kvfree(batch->ranges);
	batch->ranges = NULL;
}

/**
 * ferry_batch_put_result() - write the result of a range to the caller
 * @batch: the batch
 * @index: index of the range
 * @result: its result
 *
 * Return: 0 (also when the caller wants no results) or -EFAULT.
 */
int ferry_batch_put_result(const struct ferry_batch *batch, u32 index,
			   const struct ferry_ioc_result *result)
{
	const u32 usize = batch->args.result_size;
	const u32 size = min_t(u32, usize, sizeof(*result));
	u8 __user *dst = u64_to_user_ptr(batch->args.results);

	if (!usize)
		return 0;
	dst += (size_t)index * usize;
	if (copy_to_user(dst, result, size) ||
	    clear_user(dst + size, usize - size))
		return -EFAULT;
	return 0;
}

/**
 * ferry_query_read() - copy and check a FERRY_IOC_QUERY request
 * @query: filled in; the address is untagged
 * @src: the caller's struct ferry_ioc_query
 *
 * Whether @out_bytes is enough is left to the one who answers.
 *
 * Return: 0, -E2BIG, -EFAULT or -EINVAL.
 */
int ferry_query_read(struct ferry_ioc_query *query, const void __user *src)
{
	int err;

	err = ferry_copy_struct(query, sizeof(*query), src);
	if (err)
		return err;
	if (query->flags)
		return -EINVAL;

	switch (query->mode) {
	case FERRY_QUERY_PAGES:
	case FERRY_QUERY_HELD:
		if (query->nr_nodes || query->granule_bytes)
			return -EINVAL;
		break;
	case FERRY_QUERY_COUNTS:
		if (!query->nr_nodes || query->nr_nodes > FERRY_MAX_NODES)
			return -EINVAL;
		if (!is_power_of_2(query->granule_bytes) ||
		    query->granule_bytes < PAGE_SIZE ||
		    query->granule_bytes >> PAGE_SHIFT > U32_MAX)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}
	return check_extent(&query->addr, query->len);
}

/**
 * ferry_scan_read() - copy and check a FERRY_IOC_SCAN request
 * @scan: filled in; the address is untagged
 * @src: the caller's struct ferry_ioc_scan
 *
 * Whether @out_bytes is enough is left to the one who answers.
 *
 * Return: 0, -E2BIG, -EFAULT or -EINVAL.
 */
int ferry_scan_read(struct ferry_ioc_scan *scan, const void __user *src)
{
	int err;

	err = ferry_copy_struct(scan, sizeof(*scan), src);
	if (err)
		return err;
	if (scan->flags & ~FERRY_SCAN_PEEK)
		return -EINVAL;
	if (!is_power_of_2(scan->granule_bytes) ||
	    scan->granule_bytes < PAGE_SIZE ||
	    scan->granule_bytes > FERRY_SCAN_GRANULE_MAX)
		return -EINVAL;
	return check_extent(&scan->addr, scan->len);
}
