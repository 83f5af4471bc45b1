/* SPDX-License-Identifier: MIT */
/*
 * Proves that tiers, neighbours and attributes are read right from sysfs: trees
 * as the kernel makes them for machines that are not at hand are built in a
 * temporary directory. The last test reads this machine and asks libnuma.
 * One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <numa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "topology/topology.h"

#define GB (UINT64_C(1) << 30)

static char root[] = "/tmp/ferry-test-XXXXXX";
static struct topology topology;
static char error[512];

/* ---- the trees ----------------------------------------------------------- */

/* Writes @text into a file below the tree and makes the directories before it. */
static void put(const char *text, const char *format, ...)
{
	char path[256];
	va_list args;
	FILE *file;
	int used = snprintf(path, sizeof(path), "%s/", root);

	va_start(args, format);
	vsnprintf(path + used, sizeof(path) - (size_t)used, format, args);
	va_end(args);
	for (char *slash = path + used; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "%s\n", text);
	fclose(file);
}

static void put_number(uint64_t number, int node, int hmat_class, const char *attribute)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
	put(text, "node%d/access%d/initiators/%s", node, hmat_class, attribute);
}

static void add_node(int node, uint64_t bytes, const char *cpulist, const char *distance)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "Node %d MemTotal:       %llu kB\nNode %d MemFree:        4 kB\n"
		 "Node %d MemUsed:        8 kB",
		 node, (unsigned long long)bytes / 1024, node, node);
	put(text, "node%d/meminfo", node);
	put(cpulist, "node%d/cpulist", node);
	put(distance, "node%d/distance", node);
}

static void add_hmat(int node, int hmat_class, uint64_t mbps, uint32_t ns, int initiator)
{
	put_number(mbps, node, hmat_class, "read_bandwidth");
	put_number(mbps + 1, node, hmat_class, "write_bandwidth");
	put_number(ns, node, hmat_class, "read_latency");
	put_number(ns + 1, node, hmat_class, "write_latency");
	put("", "node%d/access%d/initiators/node%d", node, hmat_class, initiator);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	(void)state;
	strcpy(root + strlen(root) - 6, "XXXXXX");
	memset(&topology, 0xaa, sizeof(topology));
	error[0] = '\0';
	return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void read_tree(const char *hbm_nodes)
{
	assert_int_equal(topology_read(&topology, root, hbm_nodes, error, sizeof(error)),
			 0);
}

static void assert_tiers(const char *ddr, const char *hbm, enum hbm_source source)
{
	char text[NODE_SET_TEXT_SIZE];

	node_set_format(&topology.tier[FERRY_TIER_DDR], text, sizeof(text));
	assert_string_equal(text, ddr);
	node_set_format(&topology.tier[FERRY_TIER_HBM], text, sizeof(text));
	assert_string_equal(text, hbm);
	assert_int_equal(topology.hbm_source, source);
	for (int i = 0; i < topology.node_count; i++)
		for (int tier = 0; tier < FERRY_TIER_COUNT; tier++)
			assert_int_equal(
				node_set_has(&topology.tier[tier], topology.node[i].id),
				topology.node[i].tier == tier);
}

/* ---- machines ------------------------------------------------------------ */

/* The two-node guest: DDR with CPUs, HBM without. */
static void put_two(uint64_t hbm_mbps)
{
	put("0-1", "online");
	add_node(0, 2 * GB, "0-1", "10 20");
	add_hmat(0, 0, 204800, 100, 0);
	add_hmat(0, 1, 204800, 100, 0);
	add_node(1, 1 * GB, "", "20 10");
	add_hmat(1, 0, hbm_mbps, 120, 0);
	add_hmat(1, 1, hbm_mbps, 120, 0);
}

static void two_nodes(void **state)
{
	const struct node_info *hbm;

	(void)state;
	put_two(819200);
	read_tree(NULL);
	assert_int_equal(topology.node_count, 2);
	assert_tiers("0", "1", HBM_HMAT);
	hbm = topology_node(&topology, 1);
	assert_non_null(hbm);
	assert_false(hbm->has_cpu);
	assert_int_equal(hbm->hmat_class, 1);
	assert_int_equal(hbm->nearest_cpu_node, 0);
	assert_int_equal(hbm->cpu_distance, 20);
	assert_int_equal(hbm->total_bytes, 1 * GB);
	assert_int_equal(hbm->read_mbps, 819200);
	assert_int_equal(hbm->write_mbps, 819201);
	assert_int_equal(hbm->read_ns, 120);
	assert_int_equal(hbm->write_ns, 121);
	assert_true(topology_node(&topology, 0)->has_cpu);
	assert_int_equal(topology_node(&topology, 0)->nearest_cpu_node, 0);
	assert_null(topology_node(&topology, 2));
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 0), 1);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_DDR, 1), 0);
	/* from a node nobody knows: the lowest */
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 7), 1);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, -1), 1);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, FERRY_MAX_NODES), 1);
}

/* A memory-only node that is no faster, or slower, is CXL or the like. */
static void slow_memory_is_not_hbm(void **state)
{
	static const uint64_t mbps[] = {204800, 100000, 300000};

	(void)state;
	for (size_t i = 0; i < sizeof(mbps) / sizeof(mbps[0]); i++) {
		put_two(mbps[i]);
		read_tree(NULL);
		assert_tiers("0", "", HBM_NONE);
		assert_int_equal(topology_node(&topology, 1)->tier, -1);
		assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 0), -1);
		assert_int_equal(topology_nearest(&topology, FERRY_TIER_DDR, 1), 0);
	}
}

/* Xeon Max, two sockets, SNC4: 0-7 DDR with CPUs, 8-15 HBM; @beside[d] is the
 * HBM node next to DDR node d. */
static void put_xeon_max(const int beside[8])
{
	int home[16]; /* the DDR node that a node sits at */

	for (int ddr = 0; ddr < 8; ddr++) {
		home[ddr] = ddr;
		home[beside[ddr]] = ddr;
	}
	put("0-15", "online");
	for (int from = 0; from < 16; from++) {
		char distance[128] = "", cpus[32] = "";

		for (int to = 0; to < 16; to++) {
			int value = home[from] == home[to]           ? 10
				    : home[from] / 4 == home[to] / 4 ? 12
								     : 21;
			/* Intel's firmware: 13, 14, 23 towards HBM */
			if (to != from && to >= 8)
				value += value == 10 ? 3 : 2;
			snprintf(distance + strlen(distance), 8, "%s%d", to ? " " : "",
				 value);
		}
		if (from < 8)
			snprintf(cpus, sizeof(cpus), "%d-%d", from * 14, from * 14 + 13);
		add_node(from, from < 8 ? 64 * GB : 16 * GB, cpus, distance);
		add_hmat(from, 0, from < 8 ? 76800 : 409600, from < 8 ? 100 : 120,
			 home[from]);
	}
}

static void check_xeon_max(const int beside[8])
{
	put_xeon_max(beside);
	read_tree(NULL);
	assert_int_equal(topology.node_count, 16);
	assert_tiers("0-7", "8-15", HBM_HMAT);
	for (int ddr = 0; ddr < 8; ddr++) {
		int hbm = beside[ddr];

		assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, ddr), hbm);
		assert_int_equal(topology_nearest(&topology, FERRY_TIER_DDR, ddr), ddr);
		assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, hbm), hbm);
		assert_int_equal(topology_nearest(&topology, FERRY_TIER_DDR, hbm), ddr);
		assert_int_equal(topology_node(&topology, hbm)->nearest_cpu_node, ddr);
		assert_int_equal(topology_node(&topology, ddr)->nearest_cpu_node, ddr);
	}
	assert_int_equal(topology_node(&topology, 8)->hmat_class, 0);
}

static void xeon_max(void **state)
{
	static const int straight[8] = {8, 9, 10, 11, 12, 13, 14, 15};
	static const int mixed[8] = {11, 8, 15, 9, 14, 10, 13, 12};

	(void)state;
	check_xeon_max(straight);
	teardown(state);
	setup(state);
	check_xeon_max(mixed);
}

/* SLIT says the same for all HBM nodes; HMAT's initiators tell them apart. */
static void initiators_break_ties(void **state)
{
	(void)state;
	put("0-3", "online");
	add_node(0, 4 * GB, "0", "10 20 20 20");
	add_node(1, 4 * GB, "1", "20 10 20 20");
	add_node(2, 1 * GB, "", "20 20 10 20");
	add_node(3, 1 * GB, "", "20 20 20 10");
	add_hmat(0, 1, 100000, 100, 0);
	add_hmat(1, 1, 100000, 100, 1);
	add_hmat(2, 1, 400000, 100, 1);
	add_hmat(3, 1, 400000, 100, 0);
	read_tree(NULL);
	assert_tiers("0-1", "2-3", HBM_HMAT);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 0), 3);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 1), 2);
	assert_int_equal(topology_node(&topology, 2)->nearest_cpu_node, 1);
	assert_int_equal(topology_node(&topology, 3)->nearest_cpu_node, 0);
	/* A tie that nothing breaks: the lower index. */
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_DDR, 2), 0);
}

/* Knights Landing in flat mode has no HMAT. */
static void knights_landing(void **state)
{
	(void)state;
	put("0-1", "online");
	add_node(0, 96 * GB, "0-271", "10 31");
	add_node(1, 16 * GB, "", "31 10");
	read_tree(NULL);
	assert_tiers("0", "1", HBM_MEMORY_ONLY);
	assert_int_equal(topology_node(&topology, 1)->hmat_class, -1);
	assert_int_equal(topology_node(&topology, 1)->read_mbps, 0);
	assert_int_equal(topology_node(&topology, 1)->cpu_distance, 31);
}

/* DDR, HBM and CXL side by side; the CXL node has no HMAT entry, or a slow one. */
static void three_kinds(void **state)
{
	(void)state;
	put("0-2", "online");
	add_node(0, 64 * GB, "0-7", "10 20 13");
	add_node(1, 512 * GB, "", "20 10 25");
	add_node(2, 16 * GB, "", "13 25 10");
	add_hmat(0, 1, 300000, 100, 0);
	add_hmat(2, 1, 1600000, 120, 0);
	read_tree(NULL);
	assert_tiers("0", "2", HBM_HMAT);
	assert_int_equal(topology_node(&topology, 1)->tier, -1);
	add_hmat(1, 1, 60000, 250, 0);
	read_tree(NULL);
	assert_tiers("0", "2", HBM_HMAT);
	assert_int_equal(topology_node(&topology, 1)->tier, -1);
}

/* An accelerator is the nearest initiator of all (class 0), a CPU's view is class 1. */
static void cpus_view_goes_first(void **state)
{
	(void)state;
	put_two(204800);
	put_number(9000000, 1, 0, "read_bandwidth");
	read_tree(NULL);
	assert_tiers("0", "", HBM_NONE);
	assert_int_equal(topology_node(&topology, 1)->read_mbps, 204800);
}

/* CPUs on the HBM nodes too: bandwidth decides. */
static void hbm_with_cpus(void **state)
{
	(void)state;
	put_two(819200);
	add_node(1, 1 * GB, "2-3", "20 10");
	read_tree(NULL);
	assert_tiers("0", "1", HBM_HMAT);
	assert_int_equal(topology_node(&topology, 1)->nearest_cpu_node, 1);
}

/* sysfs lists distances of online nodes only: a column is no index. */
static void holes_in_the_numbering(void **state)
{
	(void)state;
	put("0-7", "possible");
	put("0,3,6", "online");
	add_node(0, 4 * GB, "0-3", "10 40 20");
	add_node(3, 1 * GB, "", "40 10 40");
	add_node(6, 1 * GB, "", "20 40 10");
	read_tree(NULL);
	assert_int_equal(topology.node_count, 3);
	assert_tiers("0", "3,6", HBM_MEMORY_ONLY);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 0), 6);
	assert_int_equal(topology_node(&topology, 3)->cpu_distance, 40);
	assert_int_equal(topology_node(&topology, 6)->cpu_distance, 20);
}

/* A directory may remain, the list of online nodes counts. */
static void offline_nodes(void **state)
{
	(void)state;
	put_two(819200);
	put("0", "online");
	put("10", "node0/distance");
	read_tree(NULL);
	assert_int_equal(topology.node_count, 1);
	assert_tiers("0", "", HBM_NONE);
	assert_int_equal(topology_read(&topology, root, "1", error, sizeof(error)),
			 -EINVAL);
}

/* Node 0 has CPUs and no memory, as on some POWER machines and VMs. */
static void cpus_without_memory(void **state)
{
	(void)state;
	put("0-3", "online");
	add_node(0, 0, "0-3", "10 30 20 20");
	add_node(1, 4 * GB, "4-7", "30 10 20 40");
	add_node(2, 1 * GB, "", "20 20 10 20");
	add_node(3, 1 * GB, "", "20 40 20 10");
	read_tree(NULL);
	assert_int_equal(topology.node_count, 3);
	assert_tiers("1", "2-3", HBM_MEMORY_ONLY);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_DDR, 0), 1);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 0), 2);
	assert_int_equal(topology_node(&topology, 3)->nearest_cpu_node, 0);
}

/* All CPUs are on nodes without memory: nothing to compare with, all is DDR. */
static void memory_without_any_cpus(void **state)
{
	(void)state;
	put("0-2", "online");
	add_node(0, 0, "0-3", "10 20 20");
	add_node(1, 4 * GB, "", "20 10 20");
	add_node(2, 4 * GB, "", "20 20 10");
	read_tree(NULL);
	assert_tiers("1-2", "", HBM_NONE);
	assert_int_equal(topology_node(&topology, 2)->nearest_cpu_node, 0);
}

static void one_node(void **state)
{
	(void)state;
	put("0", "online");
	add_node(0, 8 * GB, "0-3", "10");
	read_tree(NULL);
	assert_int_equal(topology.node_count, 1);
	assert_tiers("0", "", HBM_NONE);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 0), -1);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_DDR, 0), 0);
}

static void no_nodes_at_all(void **state)
{
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "%s/missing", root);
	assert_int_equal(topology_read(&topology, path, NULL, error, sizeof(error)), 0);
	assert_int_equal(topology.node_count, 1);
	assert_tiers("0", "", HBM_NONE);
	assert_true(topology.node[0].has_cpu);
	assert_true(topology.node[0].total_bytes > 0);
	assert_int_equal(topology.node[0].nearest_cpu_node, 0);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_DDR, 0), 0);
	/* the directory is there and empty */
	read_tree(NULL);
	assert_int_equal(topology.node_count, 1);
	assert_tiers("0", "", HBM_NONE);
}

/* ---- FERRY_HBM_NODES ----------------------------------------------------- */

static void override_wins(void **state)
{
	(void)state;
	put_two(819200);
	read_tree("0"); /* against HMAT: what is left is DDR though it has no CPUs */
	assert_tiers("1", "0", HBM_OVERRIDE);
	read_tree("!0");
	assert_tiers("0", "1", HBM_OVERRIDE);
	read_tree("");
	assert_tiers("0", "", HBM_NONE);
	put_two(1000); /* slower, but named */
	read_tree("1");
	assert_tiers("0", "1", HBM_OVERRIDE);
}

static void override_of_some(void **state)
{
	static const int beside[8] = {8, 9, 10, 11, 12, 13, 14, 15};

	(void)state;
	put_xeon_max(beside);
	read_tree("8-9,12");
	assert_tiers("0-7", "8-9,12", HBM_OVERRIDE);
	assert_int_equal(topology_node(&topology, 10)->tier, -1);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 1), 9);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 7), 12);
	assert_int_equal(topology_nearest(&topology, FERRY_TIER_HBM, 2), 8);
}

static void wrong_overrides(void **state)
{
	/* the value, what the message must say besides naming it */
	static const char *const cases[][2] = {
		{"2", "0-1"},
		{"0-3", "0-1"},
		{"1024", "0-1"},
		{"all", "DDR"},
		{"0,1", "DDR"},
		{"!all", "no node"},
		{"!0-1", "no node"},
		{"x", "list of nodes"},
		{"+1", "list of nodes"},
		{"1-0", "list of nodes"},
	};

	(void)state;
	put_two(819200);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char value[32];

		assert_int_equal(
			topology_read(&topology, root, cases[i][0], error, sizeof(error)),
			-EINVAL);
		snprintf(value, sizeof(value), "FERRY_HBM_NODES=\"%s\"", cases[i][0]);
		assert_non_null(strstr(error, value));
		assert_non_null(strstr(error, cases[i][1]));
		assert_null(strchr(error, '\n'));
	}
}

/* ---- this machine -------------------------------------------------------- */

static void this_machine_as_libnuma_sees_it(void **state)
{
	const struct topology *own;
	const char *message = "";
	int with_memory = 0;

	(void)state;
	if (numa_available() < 0)
		skip();
	unsetenv("FERRY_HBM_NODES");
	own = topology_get(&message);
	assert_non_null(own);
	assert_ptr_equal(own, topology_get(NULL));
	for (int id = 0; id <= numa_max_node(); id++) {
		const struct node_info *node = topology_node(own, id);
		long long free_bytes, total = numa_node_size64(id, &free_bytes);

		assert_int_equal(node != NULL, total > 0);
		if (!node)
			continue;
		with_memory++;
		assert_int_equal(node->total_bytes, total);
		assert_true(topology_free_bytes(id) <= node->total_bytes);
		assert_true(topology_free_bytes(id) > 0);
		for (int tier = 0; tier < FERRY_TIER_COUNT; tier++) {
			int nearest = topology_nearest(own, (enum ferry_tier)tier, id);

			for (int other = node_set_next(&own->tier[tier], 0); other >= 0;
			     other = node_set_next(&own->tier[tier], other + 1))
				assert_true(numa_distance(id, nearest) <=
					    numa_distance(id, other));
		}
	}
	assert_int_equal(own->node_count, with_memory);
	assert_true(topology_current_node() >= 0);
	assert_int_equal(topology_free_bytes(FERRY_MAX_NODES), 0);
}

static void set_replaces_get(void **state)
{
	(void)state;
	put_two(819200);
	read_tree(NULL);
	topology_set(&topology);
	assert_ptr_equal(topology_get(NULL), &topology);
}

#define in_tree(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		in_tree(two_nodes),
		in_tree(slow_memory_is_not_hbm),
		in_tree(xeon_max),
		in_tree(initiators_break_ties),
		in_tree(knights_landing),
		in_tree(three_kinds),
		in_tree(cpus_view_goes_first),
		in_tree(hbm_with_cpus),
		in_tree(holes_in_the_numbering),
		in_tree(offline_nodes),
		in_tree(cpus_without_memory),
		in_tree(memory_without_any_cpus),
		in_tree(one_node),
		in_tree(no_nodes_at_all),
		in_tree(override_wins),
		in_tree(override_of_some),
		in_tree(wrong_overrides),
		cmocka_unit_test(this_machine_as_libnuma_sees_it),
		in_tree(set_replaces_get),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
