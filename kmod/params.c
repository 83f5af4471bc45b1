// SPDX-License-Identifier: GPL-2.0-only
/*
 * Module parameters that are numbers with bounds. A value out of bounds is
 * refused, when the module is loaded as when it is written in sysfs.
 *
 * Locking: the kernel's lock of the module's parameters is held by whoever
 * sets one; readers take what they see.
 */
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/sysfs.h>

#include "ferry.h"

static int set_bounded(const char *text, const struct kernel_param *kp)
{
	struct ferry_param *param = kp->arg;
	unsigned int value;
	int err;

	err = kstrtouint(text, 0, &value);
	if (err || value < param->min || value > param->max ||
	    (param->power_of_two && !is_power_of_2(value))) {
		pr_err("ferry: %s has to be a %s from %u to %u\n", kp->name,
		       param->power_of_two ? "power of two" : "number",
		       param->min, param->max);
		return -EINVAL;
	}
	WRITE_ONCE(param->value, value);
	if (param->changed)
		param->changed();
	return 0;
}

static int get_bounded(char *text, const struct kernel_param *kp)
{
	return sysfs_emit(text, "%u\n", ferry_param(kp->arg));
}

const struct kernel_param_ops ferry_param_ops = {
	.set = set_bounded,
	.get = get_bounded,
};
