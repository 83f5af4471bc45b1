/* SPDX-License-Identifier: MIT */
/*
 * The machine's memory: its nodes, what they are good for, and which tier each
 * belongs to.
 *
 * A topology is read once and then never changes, so that it needs no lock;
 * only free memory is read anew. Reading uses plain file reads of sysfs and no
 * allocation, so that the preload library may do it before libc's own
 * constructors have run.
 *
 * A node is HBM when FERRY_HBM_NODES names it. Without that, when HMAT gives
 * it at least HBM_BANDWIDTH_RATIO times the bandwidth of the slowest node with
 * CPUs. Without HMAT, when it has memory and no CPUs, while others have CPUs.
 * DDR are the other nodes with CPUs (where that leaves none, all others).
 * Memory-only nodes that HMAT shows to be no faster than DDR (CXL, say) belong
 * to no tier: Ferry puts nothing there.
 */
#ifndef FERRY_TOPOLOGY_H
#define FERRY_TOPOLOGY_H

#include "topology/node_set.h"

/*
 * HBM has some five times the bandwidth of the DDR beside it (Xeon Max, Knights
 * Landing); nothing that is not HBM reaches twice.
 */
#define HBM_BANDWIDTH_RATIO 2

#define TOPOLOGY_SYSFS "/sys/devices/system/node"

/* Where the knowledge which nodes are HBM comes from. */
enum hbm_source {
	HBM_NONE,        /* there is none */
	HBM_OVERRIDE,    /* FERRY_HBM_NODES */
	HBM_HMAT,        /* bandwidth in HMAT */
	HBM_MEMORY_ONLY, /* no HMAT: memory without CPUs is taken for HBM */
};

struct node_info {
	int id;   /* OS index */
	int tier; /* enum ferry_tier, or -1 */
	bool has_cpu;
	int hmat_class;       /* sysfs's access class the values below are of, -1: none */
	int nearest_cpu_node; /* itself where has_cpu; -1: no node has CPUs */
	int cpu_distance;     /* SLIT distance from there, 0: unknown */
	uint64_t total_bytes;
	/*
	 * From HMAT, seen from the nearest initiator; 0: not told. Class 1 (the
	 * nearest CPU) where there is one, else class 0 (the nearest of any kind).
	 */
	uint64_t read_mbps, write_mbps;
	uint32_t read_ns, write_ns;
};

/* A value without pointers; with 60 KiB too large for most stacks. */
struct topology {
	int node_count;
	struct node_info node[FERRY_MAX_NODES]; /* those with memory, by ascending id */
	struct node_set memory;                 /* all nodes with memory */
	struct node_set tier[FERRY_TIER_COUNT];
	enum hbm_source hbm_source;
	/* topology_nearest() from each online node; 0 in the others */
	int16_t nearest[FERRY_TIER_COUNT][FERRY_MAX_NODES];
};

/*
 * Reads the topology below @sysfs (TOPOLOGY_SYSFS or a copy made for a test).
 * A kernel that knows no nodes has one, 0, of DDR. @hbm_nodes: the value of
 * FERRY_HBM_NODES, or NULL. An empty string means that there is no HBM. Returns 0; or
 * -EINVAL with a message of one line in @error.
 */
int topology_read(struct topology *out, const char *sysfs, const char *hbm_nodes,
		  char *error, size_t error_size);

/*
 * The process's topology: read at the first call with the environment's
 * FERRY_HBM_NODES. NULL if that variable is wrong, with the message in
 * *@error (if not NULL). Thread-safe.
 */
const struct topology *topology_get(const char **error);

/* Sets what topology_get() returns; for the preload library and tests, before
 * any other thread exists. */
void topology_set(const struct topology *topology);

const struct node_info *topology_node(const struct topology *topology, int id);

/*
 * The node of @tier nearest to node @from, by SLIT distance, ties broken by
 * HMAT initiator, then by the lower index; -1 if the tier is empty.
 */
int topology_nearest(const struct topology *topology, enum ferry_tier tier, int from);

/*
 * Describes a tier as ferry_tier_info() does; a tier that does not exist is all
 * zeros. Free memory is read anew.
 */
void topology_tier_info(const struct topology *topology, enum ferry_tier tier,
			struct ferry_tier_info *info);

/* The node of the CPU that the caller runs on (getcpu(2)). */
int topology_current_node(void);

/* Bytes free on a node now; 0 if that cannot be read. */
uint64_t topology_free_bytes(int node);

#endif /* FERRY_TOPOLOGY_H */
