/* SPDX-License-Identifier: MIT */
/* Interleaving by bandwidth: see interleave.h. No state. */
#include "heap/interleave.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "heap/region.h"

/* The most parts that bandwidths are rounded to. */
#define PARTS_MOST 8

/* Stripes of memory that is striped together, about. */
#define STRIPES ((size_t)256)

/* A node's weight as the kernel has it; 0: it has none. */
static unsigned int weight_of(const char *sysfs, int node)
{
	char path[256], text[16];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "%s/node%d", sysfs, node);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[len > 0 ? len : 0] = '\0';
	return (unsigned int)strtoul(text, NULL, 10);
}

/*
 * Whether the nodes have weights that are not all the same: as they come, before
 * anybody sets them, they are all 1.
 */
static bool read_weights(const struct topology *topology, const char *sysfs,
			 struct interleave *out)
{
	unsigned int first = 0;
	bool differ = false;

	*out = (struct interleave){.how = INTERLEAVE_WEIGHTS};
	for (int i = 0; i < topology->node_count; i++) {
		const struct node_info *node = &topology->node[i];
		unsigned int weight;

		if (node->tier < 0)
			continue;
		weight = weight_of(sysfs, node->id);
		if (!weight)
			return false;
		differ |= first && weight != first;
		first = weight;
		out->parts += weight;
		out->hbm += node->tier == FERRY_TIER_HBM ? weight : 0;
	}
	return differ;
}

static uint64_t bandwidth_of(const struct topology *topology, enum ferry_tier tier)
{
	uint64_t sum = 0;

	for (int i = 0; i < topology->node_count; i++)
		if (topology->node[i].tier == (int)tier) {
			if (!topology->node[i].read_mbps)
				return 0;
			sum += topology->node[i].read_mbps;
		}
	return sum;
}

/* The parts that come nearest to a share of HBM; each tier gets one at least. */
static void round_to_parts(struct interleave *out, double share)
{
	double best = 2;

	for (unsigned int parts = 2; parts <= PARTS_MOST; parts++)
		for (unsigned int hbm = 1; hbm < parts; hbm++) {
			double off = (double)hbm / parts - share;

			off = off < 0 ? -off : off;
			if (off < best - 0.005) {
				best = off;
				out->hbm = hbm;
				out->parts = parts;
			}
		}
}

struct interleave interleave_choose(const struct topology *topology, const char *sysfs)
{
	unsigned int hbm = (unsigned int)node_set_count(&topology->tier[FERRY_TIER_HBM]);
	unsigned int all =
		hbm + (unsigned int)node_set_count(&topology->tier[FERRY_TIER_DDR]);
	uint64_t fast = bandwidth_of(topology, FERRY_TIER_HBM);
	uint64_t slow = bandwidth_of(topology, FERRY_TIER_DDR);
	struct interleave in_turn = {INTERLEAVE_PAGES, hbm, all}, found;

	if (!hbm)
		return in_turn;
	if (read_weights(topology, sysfs, &found))
		return found;
	if (!fast || !slow)
		return in_turn;
	found.how = INTERLEAVE_STRIPES;
	round_to_parts(&found, (double)fast / (double)(fast + slow));
	/* Pages in turn come to the same. */
	if (found.hbm * all == hbm * found.parts)
		return in_turn;
	return found;
}

bool interleave_stripe(const struct interleave *interleave, uintptr_t addr, size_t size,
		       uintptr_t *end)
{
	size_t length = GRANULE_SIZE;

	while (length < size / STRIPES)
		length *= 2;
	*end = (addr / length + 1) * length;
	return addr / length % interleave->parts < interleave->hbm;
}
