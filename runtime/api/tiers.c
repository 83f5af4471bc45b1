/* SPDX-License-Identifier: MIT */
/* What ferry.h tells of the tiers. The topology is read once; free memory anew. */
#include <errno.h>
#include <string.h>

#include <ferry/ferry.h>

#include "api/runtime.h"

int ferry_tier_info(enum ferry_tier tier, struct ferry_tier_info *info, size_t size)
{
	const struct runtime *runtime = runtime_get();
	struct ferry_tier_info found;

	if (!runtime || (unsigned int)tier >= FERRY_TIER_COUNT || !size)
		return -EINVAL;
	topology_tier_info(runtime->topology, tier, &found);
	memset(info, 0, size);
	memcpy(info, &found, size < sizeof(found) ? size : sizeof(found));
	return found.node_count ? 0 : -ENODEV;
}
