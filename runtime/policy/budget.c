/* SPDX-License-Identifier: MIT */
/*
 * The budget: see budget.h. What was found is kept for a second, in atomics of
 * their own: two threads that look at once find the same.
 */
#include "policy/budget.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "policy/ledger.h"

#define KEEP_NS UINT64_C(1000000000)

static const struct config *config;
static const struct topology *topology;

/* The cgroup's directory, and how much of it is the mount; "": there is none. */
static char cgroup[512];
static size_t cgroup_mount;
static const char *cgroup_file;

static atomic_uint_fast64_t total, found_at;
static atomic_bool bounded; /* by the cgroup */

/* ---- the cpuset ---------------------------------------------------------- */

void budget_allowed(struct node_set *out)
{
	*out = (struct node_set){0};
	/* The kernel wants room for its nodes, and rounds maxnode down by one. */
	if (syscall(SYS_get_mempolicy, NULL, out->word, FERRY_MAX_NODES + 1, NULL,
		    MPOL_F_MEMS_ALLOWED))
		*out = topology->memory; /* a kernel without NUMA */
}

static uint64_t nodes_total(void)
{
	struct node_set allowed;
	uint64_t bytes = 0;

	budget_allowed(&allowed);
	for (int i = 0; i < topology->node_count; i++) {
		const struct node_info *node = &topology->node[i];
		uint64_t spare = 2 * budget_headroom(node->total_bytes);

		if (node->tier == FERRY_TIER_HBM && node_set_has(&allowed, node->id) &&
		    node->total_bytes > spare)
			bytes += node->total_bytes - spare;
	}
	return bytes;
}

/* ---- the cgroup ---------------------------------------------------------- */

/* A file's text, shorter than @size; "" if it cannot be read. */
static void read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? 0 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[len > 0 ? len : 0] = '\0';
}

/*
 * The line of /proc/self/cgroup that limits memory: "0::/path" for version 2,
 * "7:memory:/path" for version 1.
 */
static void find_cgroup(void)
{
	char text[4096], *line, *rest;

	read_text("/proc/self/cgroup", text, sizeof(text));
	cgroup[0] = '\0';
	for (line = strtok_r(text, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest)) {
		const char *path = strchr(line, '/');
		bool first = strstr(line, ":memory:") != NULL;

		if (!path || !(first || !strncmp(line, "0::", 3)))
			continue;
		cgroup_file = first ? "memory.limit_in_bytes" : "memory.max";
		cgroup_mount = strlen(first ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup");
		if ((size_t)snprintf(cgroup, sizeof(cgroup), "%s%s",
				     first ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup",
				     path) >= sizeof(cgroup))
			cgroup[0] = '\0';
		if (first)
			return;
	}
}

/* The least limit from the cgroup up. "max" and what cannot be read is none. */
static uint64_t cgroup_limit(void)
{
	char path[sizeof(cgroup) + 32], directory[sizeof(cgroup)], text[32];
	uint64_t least = UINT64_MAX;
	size_t len;

	memcpy(directory, cgroup, sizeof(directory));
	for (len = strlen(directory); len && len >= cgroup_mount;) {
		snprintf(path, sizeof(path), "%s/%s", directory, cgroup_file);
		read_text(path, text, sizeof(text));
		if (*text >= '0' && *text <= '9' && strtoull(text, NULL, 10) < least)
			least = strtoull(text, NULL, 10);
		while (len && directory[--len] != '/')
			;
		directory[len] = '\0';
	}
	return least;
}

/* ---- together ------------------------------------------------------------ */

static uint64_t least_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t budget_total(void)
{
	struct timespec time;
	uint64_t now, nodes;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
	now = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
	if (found_at && now - found_at < KEEP_NS)
		return total;
	nodes = nodes_total();
	total = least_of(nodes, cgroup_limit());
	bounded = total < nodes;
	found_at = now;
	return total;
}

uint64_t budget_hbm(void)
{
	uint64_t all = budget_total(), limit = bounded ? all : UINT64_MAX;

	if (ledger_is_entered())
		limit = ledger_share(all);
	return least_of(limit, config->hbm_limit);
}

uint64_t budget_hbm_charged(uint64_t charged)
{
	/* The planner of auto tells better what it wants. */
	if (config->policy != POLICY_AUTO)
		ledger_want(charged < LEDGER_LEAST ? charged : UINT64_MAX);
	return budget_hbm();
}

void budget_init(const struct config *used_config, const struct topology *used_topology,
		 void (*say)(const char *format, ...))
{
	int err;

	config = used_config;
	topology = used_topology;
	find_cgroup();
	if (!config->hbm_weight || !node_set_count(&topology->tier[FERRY_TIER_HBM]))
		return;
	err = ledger_enter(LEDGER_PATH, config->hbm_weight, say);
	if (err == -EPERM)
		say("HBM is not shared by weight: " LEDGER_PATH
		    " is no directory that everybody may add to (mode 1777)");
	else if (err)
		say("HBM is not shared by weight: " LEDGER_PATH ": %s", strerror(-err));
}
