/* SPDX-License-Identifier: MIT */
/*
 * FERRY_STAY (stay.h). mbind(2) wants a range without gaps and would give file
 * mappings a policy too, so it is called for each mapping of private anonymous
 * memory in a run of pieces; the kernel merges neighbours with equal policies.
 */
#include "migrate/stay.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "heap/region.h"
#include "migrate/mapping.h"
#include "topology/topology.h"

#ifndef MPOL_PREFERRED_MANY
#define MPOL_PREFERRED_MANY 5 /* Linux 5.15 */
#endif

/* The nodes of @node's tier; itself if it is of none. */
static struct node_set tier_of(int node)
{
	const struct topology *topology = topology_get(NULL);
	struct node_set alone = {0};

	for (int tier = 0; topology && tier < FERRY_TIER_COUNT; tier++)
		if (node_set_has(&topology->tier[tier], node))
			return topology->tier[tier];
	node_set_add(&alone, node);
	return alone;
}

static int prefer(uintptr_t start, uintptr_t end, int node, const struct node_set *tier)
{
	struct node_set alone = {0};

	if (!syscall(SYS_mbind, start, end - start, MPOL_PREFERRED_MANY, tier->word,
		     FERRY_MAX_NODES + 1, 0))
		return 0;
	/* Without NUMA nothing takes pages away either. */
	if (errno == ENOSYS)
		return 0;
	if (errno != EINVAL)
		return -errno;
	node_set_add(&alone, node);
	if (syscall(SYS_mbind, start, end - start, MPOL_PREFERRED, alone.word,
		    FERRY_MAX_NODES + 1, 0))
		return -errno;
	return 0;
}

static int stay(struct mapping_reader *reader, uintptr_t start, uintptr_t end, int node)
{
	struct node_set tier = tier_of(node);
	struct mapping mapping;
	int found, err, first_err = 0;

	while (start < end && (found = mapping_find(reader, start, &mapping)) != 0) {
		if (found < 0)
			return found;
		if (mapping.start >= end)
			break;
		if (mapping.start > start)
			start = mapping.start;
		if (mapping.end > end)
			mapping.end = end;
		if (mapping.anonymous && region_of((void *)start) < 0) {
			err = prefer(start, mapping.end, node, &tier);
			if (err && !first_err)
				first_err = err;
		}
		start = mapping.end;
	}
	return first_err;
}

static void note(struct batch *batch, int err)
{
	if (err && !batch->result.error)
		batch->result.error = err;
}

void stay_apply(struct batch *batch)
{
	struct mapping_reader reader = {.maps.fd = -1};
	size_t i = 0;

	while (i < batch->count) {
		const struct piece *piece = &batch->piece[i++];
		uintptr_t end = piece->addr + piece->len;

		if (!(piece->flags & FERRY_STAY))
			continue;
		while (i < batch->count && batch->piece[i].addr == end &&
		       batch->piece[i].flags & FERRY_STAY)
			end += batch->piece[i++].len;
		if (reader.maps.fd < 0) {
			int err = mapping_open(&reader, false);

			if (err) {
				note(batch, err);
				return;
			}
		}
		note(batch, stay(&reader, piece->addr, end, piece->node));
	}
	if (reader.maps.fd >= 0)
		mapping_close(&reader);
}
