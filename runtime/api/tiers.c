/* SPDX-License-Identifier: MIT */
/* What ferry.h tells of the tiers. The topology is read once; free memory anew. */
#include <errno.h>
#include <string.h>

#include <ferry/ferry.h>

#include "api/runtime.h"

/* Bandwidths add up; the latency is that of the nearest. */
static void add_node(struct ferry_tier_info *info, const struct node_info *node)
{
	info->total_bytes += node->total_bytes;
	info->free_bytes += topology_free_bytes(node->id);
	info->bandwidth_mbps += node->read_mbps;
	if (node->read_ns && (!info->latency_ns || node->read_ns < info->latency_ns))
		info->latency_ns = node->read_ns;
	info->node_count++;
	info->nodes[node->id / 64] |= UINT64_C(1) << (node->id % 64);
}

int ferry_tier_info(enum ferry_tier tier, struct ferry_tier_info *info, size_t size)
{
	const struct runtime *runtime = runtime_get();
	struct ferry_tier_info found = {0};

	if (!runtime || (unsigned int)tier >= FERRY_TIER_COUNT || !size)
		return -EINVAL;
	for (int i = 0; i < runtime->topology->node_count; i++)
		if (runtime->topology->node[i].tier == (int)tier)
			add_node(&found, &runtime->topology->node[i]);
	memset(info, 0, size);
	memcpy(info, &found, size < sizeof(found) ? size : sizeof(found));
	return found.node_count ? 0 : -ENODEV;
}
