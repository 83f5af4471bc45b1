// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters, in the directory stats of the device in sysfs
 * (/sys/class/misc/ferry/stats), one in a file. Sysfs rather than debugfs: an
 * administrator's monitoring shall read them without being root, where debugfs
 * is not mounted or locked down, and as an interface that stays. They tell no
 * more than /proc/vmstat does.
 *
 * Also makes the tracepoints, which tell of single batches and chunks.
 *
 * Locking: none. Each CPU adds to counters of its own, and a reader adds those
 * up; while requests run the sum is that of no single moment.
 */
#include <linux/device.h>
#include <linux/percpu.h>
#include <linux/sysfs.h>

#include "ferry.h"

#define CREATE_TRACE_POINTS
#include "ferry_trace.h"

DEFINE_PER_CPU(struct ferry_stats, ferry_stats);

/**
 * ferry_stat_max() - raise a counter that tells a maximum
 * @stat: which
 * @value: a value that has occurred
 */
void ferry_stat_max(enum ferry_stat stat, u64 value)
{
	u64 *max = &get_cpu_ptr(&ferry_stats)->value[stat];

	if (value > *max)
		WRITE_ONCE(*max, value);
	put_cpu_ptr(&ferry_stats);
}

/**
 * ferry_stats_range() - count the pages of a range by their outcome
 * @result: what the caller is told of the range
 */
void ferry_stats_range(const struct ferry_ioc_result *result)
{
	ferry_stat_add(FERRY_STAT_MOVED, result->moved);
	ferry_stat_add(FERRY_STAT_POPULATED, result->populated);
	ferry_stat_add(FERRY_STAT_ALREADY, result->already);
	ferry_stat_add(FERRY_STAT_BUSY, result->busy);
	ferry_stat_add(FERRY_STAT_NOMEM, result->nomem);
	ferry_stat_add(FERRY_STAT_HOLE, result->hole);
	ferry_stat_add(FERRY_STAT_UNSUPPORTED, result->unsupported);
	ferry_stat_add(FERRY_STAT_HUGE, result->huge);
}

static u64 total(enum ferry_stat stat)
{
	u64 sum = 0, max = 0;
	int cpu;

	for_each_possible_cpu(cpu) {
		u64 value = READ_ONCE(per_cpu(ferry_stats, cpu).value[stat]);

		sum += value;
		max = max(max, value);
	}
	return stat == FERRY_STAT_STALL_MAX_NS ? max : sum;
}

struct stat_attribute {
	struct device_attribute attr;
	enum ferry_stat stat;
};

static ssize_t show(struct device *dev, struct device_attribute *attr,
		    char *buf)
{
	return sysfs_emit(buf, "%llu\n",
			  total(container_of(attr, struct stat_attribute,
					     attr)->stat));
}

static struct stat_attribute attributes[] = {
#define STAT(_name, _stat) { __ATTR(_name, 0444, show, NULL), _stat }
	STAT(batches, FERRY_STAT_BATCHES),
	STAT(in_flight, FERRY_STAT_IN_FLIGHT),
	STAT(chunks, FERRY_STAT_CHUNKS),
	STAT(moved, FERRY_STAT_MOVED),
	STAT(populated, FERRY_STAT_POPULATED),
	STAT(already, FERRY_STAT_ALREADY),
	STAT(busy, FERRY_STAT_BUSY),
	STAT(nomem, FERRY_STAT_NOMEM),
	STAT(hole, FERRY_STAT_HOLE),
	STAT(unsupported, FERRY_STAT_UNSUPPORTED),
	STAT(huge, FERRY_STAT_HUGE),
	STAT(copy_bytes, FERRY_STAT_COPY_BYTES),
	STAT(copy_ns, FERRY_STAT_COPY_NS),
	STAT(dma_bytes, FERRY_STAT_DMA_BYTES),
	STAT(dma_fallback, FERRY_STAT_DMA_FALLBACK),
	STAT(stall_ns, FERRY_STAT_STALL_NS),
	STAT(stall_max_ns, FERRY_STAT_STALL_MAX_NS),
#undef STAT
};

static struct attribute *files[ARRAY_SIZE(attributes) + 1];

static const struct attribute_group group = {
	.name = "stats",
	.attrs = files,
};

static const struct attribute_group *groups[] = { &group, NULL };

/**
 * ferry_stats_groups() - the counters' files
 *
 * Called once, before the device is registered with them.
 *
 * Return: the groups for the device.
 */
const struct attribute_group **ferry_stats_groups(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(attributes); i++) {
		sysfs_attr_init(&attributes[i].attr.attr);
		files[i] = &attributes[i].attr.attr;
	}
	return groups;
}
