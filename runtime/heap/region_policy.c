/* SPDX-License-Identifier: MIT */
/* Memory policies of regions: see region_policy.h, which also has the threading rule. */
#include "heap/region_policy.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MPOL_WEIGHTED_INTERLEAVE
#define MPOL_WEIGHTED_INTERLEAVE 6 /* Linux 6.9 */
#endif

static struct policy {
	int mode;
	struct node_set nodes;
} policies[REGION_PLACED];
static bool has_policy;
static struct interleave interleaved;

struct interleave region_policy_init(const struct topology *topology)
{
	const struct node_set *ddr = &topology->tier[FERRY_TIER_DDR];
	const struct node_set *hbm = &topology->tier[FERRY_TIER_HBM];
	struct policy *both = &policies[REGION_INTERLEAVE];

	has_policy = node_set_count(hbm) != 0;
	interleaved = interleave_choose(topology, INTERLEAVE_SYSFS);
	policies[REGION_DDR] = (struct policy){MPOL_PREFERRED_MANY, *ddr};
	policies[REGION_AUTO] = (struct policy){MPOL_PREFERRED_MANY, *ddr};
	policies[REGION_HBM] = (struct policy){MPOL_PREFERRED_MANY, *hbm};
	both->mode = interleaved.how == INTERLEAVE_WEIGHTS ? MPOL_WEIGHTED_INTERLEAVE
							   : MPOL_INTERLEAVE;
	for (size_t i = 0; i < NODE_SET_WORDS; i++)
		both->nodes.word[i] = ddr->word[i] | hbm->word[i];
	return interleaved;
}

bool region_has_policy(void)
{
	return has_policy;
}

static int set_policy(uintptr_t addr, size_t len, int mode, const struct node_set *nodes,
		      unsigned int flags)
{
	/* The kernel takes one bit less than it is told of. */
	if (syscall(SYS_mbind, addr, len, mode, nodes->word, FERRY_MAX_NODES + 1, flags))
		return -errno;
	return 0;
}

int region_apply_policy(void *addr, size_t len, enum region_kind kind, unsigned int flags)
{
	if (!has_policy || kind == REGION_METADATA)
		return 0;
	return set_policy((uintptr_t)addr, len, policies[kind].mode,
			  &policies[kind].nodes, flags);
}

int region_policy_try(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	void *page = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err = 0;

	if (page == MAP_FAILED)
		return 0; /* no memory is not the policies' fault */
	for (int kind = 0; !err && kind < REGION_PLACED; kind++)
		err = region_apply_policy(page, size, (enum region_kind)kind, 0);
	munmap(page, size);
	if (err)
		has_policy = false;
	return err;
}

bool region_is_striped(enum region_kind kind)
{
	return has_policy && kind == REGION_INTERLEAVE &&
	       interleaved.how == INTERLEAVE_STRIPES;
}

/* A stripe goes over the nodes of its tier, of which there may be several. */
int region_apply_stripes(uintptr_t start, uintptr_t end, size_t size)
{
	uintptr_t next;
	int err = 0;

	for (; start < end && !err; start = next) {
		bool hbm = interleave_stripe(&interleaved, start, size, &next);

		if (next > end)
			next = end;
		err = set_policy(start, next - start, MPOL_INTERLEAVE,
				 &policies[hbm ? REGION_HBM : REGION_DDR].nodes, 0);
	}
	return err;
}
