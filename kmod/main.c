// SPDX-License-Identifier: GPL-2.0-only
/*
 * ferry.ko: migrates the caller's own memory between NUMA nodes on request.
 * This file holds the device /dev/ferry, its file operations and the module's
 * life cycle. See ferry.h for the parts and their locks.
 *
 * Locking: struct ferry_file is set up by open and does not change. An open
 * file, and so a request in flight, keeps the module from being unloaded.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "ferry.h"

static int ferry_info(void __user *arg)
{
	struct ferry_ioc_info info = {};
	nodemask_t allowed;
	u32 usize;
	int node, err;

	err = ferry_copy_struct(&info, sizeof(info), arg);
	if (err)
		return err;
	usize = info.size;

	info = (struct ferry_ioc_info){
		.size = sizeof(info),
		.abi = FERRY_ABI_VERSION,
		.features = FERRY_FEATURE_MIGRATE | FERRY_FEATURE_QUERY |
			    FERRY_FEATURE_URING | FERRY_FEATURE_POPULATE |
			    FERRY_FEATURE_SCAN | FERRY_FEATURE_HELD |
			    FERRY_FEATURE_EXCHANGE | FERRY_FEATURE_SPLIT_HUGE,
		.page_size = PAGE_SIZE,
		.chunk_bytes = ferry_chunk_bytes(),
		.max_ranges = FERRY_MAX_RANGES,
		.max_in_flight = ferry_space_limit(),
		.max_bytes = FERRY_MAX_BYTES,
	};
	if (ferry_flush_supported())
		info.features |= FERRY_FEATURE_BATCHED_FLUSH;
	if (ferry_parallel_supported())
		info.features |= FERRY_FEATURE_COPY_PARALLEL;
	if (ferry_dma_available())
		info.features |= FERRY_FEATURE_COPY_DMA;
	if (ferry_whole_enabled())
		info.features |= FERRY_FEATURE_WHOLE_HUGE;
	ferry_allowed_nodes(&allowed);
	for_each_node_mask(node, allowed)
		if (node < FERRY_MAX_NODES)
			info.nodes[node / 64] |= 1ULL << (node % 64);
	strscpy(info.version, FERRY_MODULE_VERSION, sizeof(info.version));

	if (copy_to_user(arg, &info, min_t(u32, usize, sizeof(info))))
		return -EFAULT;
	return 0;
}

/**
 * ferry_request() - carry out a request on the memory of current
 * @file: the open device
 * @op: FERRY_IOC_*
 * @arg: the caller's struct
 *
 * May sleep and fault.
 *
 * Return: what the request returns; -EPERM if another mm opened the device,
 * -ENOTTY if there is no such request.
 */
int ferry_request(struct ferry_file *file, unsigned int op,
		  void __user *arg)
{
	if (!ferry_space_is_current(file->space))
		return -EPERM;
	switch (op) {
	case FERRY_IOC_INFO:
		return ferry_info(arg);
	case FERRY_IOC_MIGRATE:
		return ferry_migrate(file->space, arg);
	case FERRY_IOC_QUERY:
		return ferry_query(arg);
	case FERRY_IOC_SCAN:
		return ferry_scan(arg);
	default:
		return -ENOTTY;
	}
}

static long ferry_ioctl(struct file *file, unsigned int op, unsigned long arg)
{
	return ferry_request(file->private_data, op, (void __user *)arg);
}

static int ferry_open(struct inode *inode, struct file *file)
{
	struct ferry_file *ferry;

	if (!current->mm)
		return -EINVAL;
	ferry = kzalloc(sizeof(*ferry), GFP_KERNEL_ACCOUNT);
	if (!ferry)
		return -ENOMEM;
	ferry->space = ferry_space_get();
	if (!ferry->space) {
		kfree(ferry);
		return -ENOMEM;
	}
	file->private_data = ferry;
	return 0;
}

static int ferry_release(struct inode *inode, struct file *file)
{
	struct ferry_file *ferry = file->private_data;

	ferry_space_put(ferry->space);
	kfree(ferry);
	return 0;
}

static const struct file_operations ferry_fops = {
	.owner = THIS_MODULE,
	.open = ferry_open,
	.release = ferry_release,
	.unlocked_ioctl = ferry_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.uring_cmd = ferry_uring_cmd,
	.llseek = noop_llseek,
};

/* No privilege is needed: a request can do no more than move_pages(2). */
static struct miscdevice ferry_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ferry",
	.mode = 0666,
	.fops = &ferry_fops,
};

static int __init ferry_init(void)
{
	int err;

	ferry_space_init();
	err = ferry_migrate_init();
	if (err)
		return err;
	err = ferry_parallel_start();
	if (err)
		goto out_migrate;
	ferry_device.groups = ferry_stats_groups();
	err = misc_register(&ferry_device);
	if (err)
		goto out_parallel;
	return 0;

out_parallel:
	ferry_parallel_stop();
out_migrate:
	ferry_migrate_exit();
	return err;
}
module_init(ferry_init);

static void __exit ferry_exit(void)
{
	misc_deregister(&ferry_device);
	ferry_parallel_stop();
	ferry_migrate_exit();
}
module_exit(ferry_exit);

MODULE_DESCRIPTION("Moves a process's own memory between NUMA nodes");
MODULE_AUTHOR("The Ferry developers");
MODULE_VERSION(FERRY_MODULE_VERSION);
MODULE_LICENSE("GPL");
