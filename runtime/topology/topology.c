/* SPDX-License-Identifier: MIT */
/*
 * Reads nodes and their attributes from sysfs and sorts them into tiers.
 *
 * No stdio streams and no allocation: the preload library calls topology_read()
 * before libc's constructors have run. A topology never changes once it is
 * read; topology_get()'s is published with a release store.
 */
#include "topology/topology.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define NO_DISTANCE 256 /* beyond what SLIT can say */

/* ---- files --------------------------------------------------------------- */

/*
 * Reads a file below @dir, named by a format, as a string without the newline
 * at its end. Returns its length or -errno.
 */
__attribute__((format(printf, 4, 5))) static int
read_text(int dir, char *text, size_t size, const char *format, ...)
{
	char path[64];
	size_t used = 0;
	va_list args;
	int fd;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (used < size - 1) {
		ssize_t n = read(fd, text + used, size - 1 - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	close(fd);
	while (used && text[used - 1] == '\n')
		used--;
	text[used] = '\0';
	return (int)used;
}

/* A list such as "0,2-3"; empty when the file is not there. */
static struct node_set read_list(int dir, const char *file)
{
	struct node_set list = {0};
	char text[NODE_SET_TEXT_SIZE];

	if (read_text(dir, text, sizeof(text), "%s", file) > 0)
		node_set_parse(&list, text, &list);
	return list;
}

/* A line "Node 1 @key:  123 kB" of a node's meminfo, in bytes; 0: not there. */
static uint64_t read_meminfo(int dir, int node, const char *key)
{
	char text[4096];
	const char *found;

	if (read_text(dir, text, sizeof(text), "node%d/meminfo", node) <= 0)
		return 0;
	found = strstr(text, key);
	return found ? strtoull(found + strlen(key), NULL, 10) * 1024 : 0;
}

static bool has_cpus(int dir, int node)
{
	char text[NODE_SET_TEXT_SIZE]; /* a read of one byte would give nothing */

	return read_text(dir, text, sizeof(text), "node%d/cpulist", node) > 0;
}

/* An attribute that HMAT gave for a node; 0: not told. */
static uint64_t read_hmat(int dir, const struct node_info *node, const char *attribute)
{
	char text[32];

	if (read_text(dir, text, sizeof(text), "node%d/access%d/initiators/%s", node->id,
		      node->hmat_class, attribute) <= 0)
		return 0;
	return strtoull(text, NULL, 10);
}

/* ---- nodes --------------------------------------------------------------- */

static bool has_class(int dir, int node, int hmat_class)
{
	char path[64];

	snprintf(path, sizeof(path), "node%d/access%d/initiators", node, hmat_class);
	return !faccessat(dir, path, F_OK, 0);
}

static void read_performance(int dir, struct node_info *node)
{
	for (node->hmat_class = 1; node->hmat_class >= 0; node->hmat_class--) {
		if (!has_class(dir, node->id, node->hmat_class))
			continue;
		node->read_mbps = read_hmat(dir, node, "read_bandwidth");
		node->write_mbps = read_hmat(dir, node, "write_bandwidth");
		node->read_ns = (uint32_t)read_hmat(dir, node, "read_latency");
		node->write_ns = (uint32_t)read_hmat(dir, node, "write_latency");
		if (node->read_mbps || node->read_ns)
			return;
	}
}

static void read_nodes(struct topology *t, int dir, const struct node_set *online)
{
	for (int id = node_set_next(online, 0); id >= 0;
	     id = node_set_next(online, id + 1)) {
		struct node_info *node = &t->node[t->node_count];
		uint64_t total = read_meminfo(dir, id, "MemTotal:");

		if (!total)
			continue;
		*node = (struct node_info){
			.id = id,
			.tier = -1,
			.has_cpu = has_cpus(dir, id),
			.nearest_cpu_node = -1,
			.total_bytes = total,
		};
		read_performance(dir, node);
		node_set_add(&t->memory, id);
		t->node_count++;
	}
}

/* A kernel without NUMA, or without sysfs: all memory is one node. */
static void assume_one_node(struct topology *t)
{
	struct sysinfo info = {0};

	sysinfo(&info);
	t->node_count = 1;
	t->node[0] = (struct node_info){
		.tier = -1,
		.has_cpu = true,
		.hmat_class = -1,
		.total_bytes = (uint64_t)info.totalram * info.mem_unit,
	};
	node_set_add(&t->memory, 0);
}

/* ---- tiers --------------------------------------------------------------- */

static void set_tier(struct topology *t, struct node_info *node, enum ferry_tier tier)
{
	node->tier = (int)tier;
	node_set_add(&t->tier[tier], node->id);
}

/* The bandwidth of the slowest node with CPUs; 0: HMAT does not tell it. */
static uint64_t ddr_bandwidth(const struct topology *t)
{
	uint64_t slowest = 0;

	for (int i = 0; i < t->node_count; i++) {
		const struct node_info *node = &t->node[i];

		if (node->has_cpu && node->read_mbps &&
		    (!slowest || node->read_mbps < slowest))
			slowest = node->read_mbps;
	}
	return slowest;
}

static bool any_has_cpu(const struct topology *t)
{
	for (int i = 0; i < t->node_count; i++)
		if (t->node[i].has_cpu)
			return true;
	return false;
}

static void find_hbm(struct topology *t)
{
	uint64_t ddr = ddr_bandwidth(t);
	bool cpus = any_has_cpu(t);

	for (int i = 0; i < t->node_count; i++) {
		struct node_info *node = &t->node[i];

		if (ddr ? node->read_mbps >= ddr * HBM_BANDWIDTH_RATIO
			: cpus && !node->has_cpu) {
			set_tier(t, node, FERRY_TIER_HBM);
			t->hbm_source = ddr ? HBM_HMAT : HBM_MEMORY_ONLY;
		}
	}
}

/* Takes the nodes that FERRY_HBM_NODES names for HBM. */
static int override_hbm(struct topology *t, const char *text, char *error, size_t size)
{
	char memory[NODE_SET_TEXT_SIZE];
	struct node_set hbm = {0};
	int err = *text ? node_set_parse(&hbm, text, &t->memory) : 0;

	node_set_format(&t->memory, memory, sizeof(memory));
	if (err) {
		snprintf(error, size,
			 "FERRY_HBM_NODES=\"%s\" is not a list of nodes; allowed are "
			 "lists such "
			 "as \"1\", \"2-3\", \"1,3\", \"!0\" (all but 0) of the nodes "
			 "%s, or an "
			 "empty value for no HBM",
			 text, memory);
		return -EINVAL;
	}
	if (!node_set_is_subset(&hbm, &t->memory)) {
		snprintf(error, size,
			 "FERRY_HBM_NODES=\"%s\" names a node that does not exist or has "
			 "no "
			 "memory; nodes with memory are %s",
			 text, memory);
		return -EINVAL;
	}
	if (node_set_is_subset(&t->memory, &hbm)) {
		snprintf(error, size,
			 "FERRY_HBM_NODES=\"%s\" leaves no node for DDR; name at most "
			 "all but "
			 "one of the nodes %s",
			 text, memory);
		return -EINVAL;
	}
	if (*text && !node_set_count(&hbm)) {
		snprintf(error, size,
			 "FERRY_HBM_NODES=\"%s\" names no node; name some of the nodes "
			 "%s, or "
			 "give an empty value for no HBM",
			 text, memory);
		return -EINVAL;
	}
	for (int i = 0; i < t->node_count; i++)
		if (node_set_has(&hbm, t->node[i].id)) {
			set_tier(t, &t->node[i], FERRY_TIER_HBM);
			t->hbm_source = HBM_OVERRIDE;
		}
	return 0;
}

/* After HBM is known. */
static void find_ddr(struct topology *t)
{
	for (int i = 0; i < t->node_count; i++)
		if (t->node[i].tier < 0 && t->node[i].has_cpu)
			set_tier(t, &t->node[i], FERRY_TIER_DDR);
	if (node_set_count(&t->tier[FERRY_TIER_DDR]))
		return;
	for (int i = 0; i < t->node_count; i++)
		if (t->node[i].tier < 0)
			set_tier(t, &t->node[i], FERRY_TIER_DDR);
}

/* ---- distances ----------------------------------------------------------- */

/* Distances from one node to all others, by index. */
struct distances {
	uint16_t to[FERRY_MAX_NODES];
};

/* sysfs lists the distances to the nodes that are online, by ascending index. */
static void read_distances(struct distances *d, int dir, int from,
			   const struct node_set *online)
{
	char text[NODE_SET_TEXT_SIZE + 1];
	const char *p = text;

	for (int id = 0; id < FERRY_MAX_NODES; id++)
		d->to[id] = id == from ? 0 : NO_DISTANCE;
	if (read_text(dir, text, sizeof(text), "node%d/distance", from) <= 0)
		return;
	for (int id = node_set_next(online, 0); id >= 0;
	     id = node_set_next(online, id + 1)) {
		char *end;
		unsigned long value = strtoul(p, &end, 10);

		if (end == p)
			return;
		d->to[id] = value < NO_DISTANCE ? (uint16_t)value : NO_DISTANCE;
		p = end;
	}
}

/* Whether HMAT calls @from one of the best initiators for @node's memory. */
static bool is_initiator(int dir, const struct node_info *node, int from)
{
	char path[64];

	if (node->hmat_class < 0)
		return false;
	snprintf(path, sizeof(path), "node%d/access%d/initiators/node%d", node->id,
		 node->hmat_class, from);
	return !faccessat(dir, path, F_OK, 0);
}

static int find_nearest(const struct topology *t, int dir, enum ferry_tier tier, int from,
			const struct distances *d)
{
	const struct node_info *best = NULL;

	for (int i = 0; i < t->node_count; i++) {
		const struct node_info *node = &t->node[i];

		if (node->tier != (int)tier)
			continue;
		if (!best || d->to[node->id] < d->to[best->id] ||
		    (d->to[node->id] == d->to[best->id] &&
		     !is_initiator(dir, best, from) && is_initiator(dir, node, from)))
			best = node;
	}
	return best ? best->id : -1;
}

/* Offers the CPUs of @from to each node that has none nearer. */
static void offer_cpus(struct topology *t, int dir, int from, const struct distances *d)
{
	for (int i = 0; i < t->node_count; i++) {
		struct node_info *node = &t->node[i];
		int distance = d->to[node->id];

		if (node->nearest_cpu_node == node->id && from != node->id)
			continue;
		if (from == node->id || node->nearest_cpu_node < 0 ||
		    distance < node->cpu_distance ||
		    (distance == node->cpu_distance &&
		     !is_initiator(dir, node, node->nearest_cpu_node) &&
		     is_initiator(dir, node, from))) {
			node->nearest_cpu_node = from;
			node->cpu_distance = distance;
		}
	}
}

static void find_neighbours(struct topology *t, int dir, const struct node_set *online)
{
	for (int from = node_set_next(online, 0); from >= 0;
	     from = node_set_next(online, from + 1)) {
		const struct node_info *node = topology_node(t, from);
		struct distances d;

		read_distances(&d, dir, from, online);
		for (int tier = 0; tier < FERRY_TIER_COUNT; tier++)
			t->nearest[tier][from] = (int16_t)find_nearest(
				t, dir, (enum ferry_tier)tier, from, &d);
		if (node ? node->has_cpu : has_cpus(dir, from))
			offer_cpus(t, dir, from, &d);
	}
	for (int i = 0; i < t->node_count; i++)
		if (t->node[i].cpu_distance == NO_DISTANCE)
			t->node[i].cpu_distance = 0;
}

/* ---- the whole ----------------------------------------------------------- */

int topology_read(struct topology *out, const char *sysfs, const char *hbm_nodes,
		  char *error, size_t error_size)
{
	int dir = open(sysfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct node_set online = {0};
	int err = 0;

	memset(out, 0, sizeof(*out));
	if (dir >= 0) {
		online = read_list(dir, "online");
		read_nodes(out, dir, &online);
	}
	if (!out->node_count)
		assume_one_node(out);

	if (hbm_nodes)
		err = override_hbm(out, hbm_nodes, error, error_size);
	else
		find_hbm(out);
	if (!err) {
		find_ddr(out);
		find_neighbours(out, dir, &online);
	}
	if (dir >= 0)
		close(dir);
	return err;
}

const struct node_info *topology_node(const struct topology *topology, int id)
{
	for (int i = 0; i < topology->node_count; i++)
		if (topology->node[i].id == id)
			return &topology->node[i];
	return NULL;
}

int topology_nearest(const struct topology *topology, enum ferry_tier tier, int from)
{
	const struct node_set *nodes = &topology->tier[tier];
	int nearest = -1;

	if (from >= 0 && from < FERRY_MAX_NODES)
		nearest = topology->nearest[tier][from];
	/* Of a node that was not online nothing is known. */
	return node_set_has(nodes, nearest) ? nearest : node_set_next(nodes, 0);
}

void topology_tier_info(const struct topology *topology, enum ferry_tier tier,
			struct ferry_tier_info *info)
{
	bool all_known = true;

	memset(info, 0, sizeof(*info));
	for (int i = 0; i < topology->node_count; i++) {
		const struct node_info *node = &topology->node[i];

		if (node->tier != (int)tier)
			continue;
		info->node_count++;
		info->total_bytes += node->total_bytes;
		info->free_bytes += topology_free_bytes(node->id);
		info->bandwidth_mbps += node->read_mbps;
		all_known = all_known && node->read_mbps;
		if (node->read_ns &&
		    (!info->latency_ns || node->read_ns < info->latency_ns))
			info->latency_ns = node->read_ns;
	}
	/* A sum over some of the nodes would be misleading. */
	if (!all_known)
		info->bandwidth_mbps = 0;
	memcpy(info->nodes, topology->tier[tier].word, sizeof(info->nodes));
}

/* ---- this process's and this moment's ------------------------------------ */

static struct topology own;
static char own_error[512];
static _Atomic(const struct topology *) current;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_own(void)
{
	if (!topology_read(&own, TOPOLOGY_SYSFS, getenv("FERRY_HBM_NODES"), own_error,
			   sizeof(own_error)))
		atomic_store_explicit(&current, &own, memory_order_release);
}

const struct topology *topology_get(const char **error)
{
	const struct topology *topology =
		atomic_load_explicit(&current, memory_order_acquire);

	if (!topology) {
		pthread_once(&once, read_own);
		topology = atomic_load_explicit(&current, memory_order_acquire);
	}
	if (!topology && error)
		*error = own_error;
	return topology;
}

void topology_set(const struct topology *topology)
{
	atomic_store_explicit(&current, topology, memory_order_release);
}

int topology_current_node(void)
{
	unsigned int cpu, node;

	return getcpu(&cpu, &node) ? 0 : (int)node;
}

uint64_t topology_free_bytes(int node)
{
	int dir = open(TOPOLOGY_SYSFS, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct sysinfo info;
	uint64_t bytes;

	if (dir >= 0) {
		bytes = read_meminfo(dir, node, "MemFree:");
		close(dir);
		return bytes;
	}
	if (node || sysinfo(&info))
		return 0;
	return (uint64_t)info.freeram * info.mem_unit;
}
