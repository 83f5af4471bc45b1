/* SPDX-License-Identifier: MIT */
/* `ferry info` for people: aligned columns. One thread. */
#include "cli/info.h"
#include "config/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CELL 32

/* Every function here that has @out writes a cell's text and returns it. */
typedef char cell[CELL];

static const char *bytes(cell out, uint64_t value)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double shown = (double)value;
	int unit = 0;

	for (; shown >= 1024 && unit < 4; unit++)
		shown /= 1024;
	snprintf(out, CELL, unit ? "%.1f %s" : "%.0f %s", shown, units[unit]);
	return out;
}

static const char *bandwidth(cell out, uint64_t mbps)
{
	snprintf(out, CELL, mbps ? "%.1f GB/s" : "-", (double)mbps / 1000);
	return out;
}

static const char *latency(cell out, uint32_t ns)
{
	snprintf(out, CELL, ns ? "%" PRIu32 " ns" : "-", ns);
	return out;
}

static const char *number(cell out, int value, bool known)
{
	snprintf(out, CELL, known ? "%d" : "-", value);
	return out;
}

static void print_tiers(const struct topology *t)
{
	static const char *const sources[] = {
		[HBM_NONE] = "none found",
		[HBM_OVERRIDE] = "named by FERRY_HBM_NODES",
		[HBM_HMAT] = "found by the bandwidth in the firmware's HMAT",
		[HBM_MEMORY_ONLY] = "assumed: no HMAT, and no CPUs on these nodes",
	};

	printf("%-6s%-12s%11s%11s%14s%10s\n", "tier", "nodes", "total", "free", "read",
	       "latency");
	for (int tier = 0; tier < FERRY_TIER_COUNT; tier++) {
		char nodes[NODE_SET_TEXT_SIZE];
		struct ferry_tier_info info;
		cell total, left, speed, delay;

		topology_tier_info(t, (enum ferry_tier)tier, &info);
		if (!info.node_count)
			continue;
		node_set_format(&t->tier[tier], nodes, sizeof(nodes));
		printf("%-6s%-12s%11s%11s%14s%10s\n", info_tier(tier), nodes,
		       bytes(total, info.total_bytes), bytes(left, info.free_bytes),
		       bandwidth(speed, info.bandwidth_mbps),
		       latency(delay, info.latency_ns));
	}
	printf("HBM: %s\n\n", sources[t->hbm_source]);
}

static void print_nodes(const struct info *info)
{
	printf("%-6s%-6s%-6s%-7s%-10s%11s%11s%14s%14s%10s  %s\n", "node", "tier", "cpus",
	       "near", "distance", "total", "free", "read", "write", "latency", "source");
	for (int i = 0; i < info->topology->node_count; i++) {
		const struct node_info *node = &info->topology->node[i];
		const char *tier = info_tier(node->tier);
		cell id, near, distance, total, left, in, out, delay, source = "-";

		if (node->hmat_class >= 0)
			snprintf(source, CELL, "HMAT class %d", node->hmat_class);
		printf("%-6s%-6s%-6s%-7s%-10s%11s%11s%14s%14s%10s  %s%s\n",
		       number(id, node->id, true), tier ? tier : "-",
		       node->has_cpu ? "yes" : "no",
		       number(near, node->nearest_cpu_node, node->nearest_cpu_node >= 0),
		       number(distance, node->cpu_distance, node->cpu_distance > 0),
		       bytes(total, node->total_bytes),
		       bytes(left, topology_free_bytes(node->id)),
		       bandwidth(in, node->read_mbps), bandwidth(out, node->write_mbps),
		       latency(delay, node->read_ns), source,
		       node_set_has(&info->probe.allowed, node->id)
			       ? ""
			       : ", outside the cpuset");
	}
	putchar('\n');
}

static void print_module(const struct module_probe *module)
{
	static const char *const states[] = {
		[MODULE_READY] = "ready",
		[MODULE_UNSUPPORTED] = "not loaded; this kernel loads no modules",
		[MODULE_NOT_LOADED] = "not loaded",
		[MODULE_NO_NODE] = "loaded, but there is no " FERRY_DEVICE_PATH,
		[MODULE_FORBIDDEN] =
			"loaded, but " FERRY_DEVICE_PATH " may not be opened",
		[MODULE_OTHER_ABI] = "loaded, with another ABI",
		[MODULE_FAILED] = "does not work",
	};
	const struct ferry_ioc_info *info = &module->info;
	cell chunk, most;

	printf("%-14s%s", "module", states[module->state]);
	if (module->state == MODULE_FAILED)
		printf(": %s", strerror(-module->error));
	if (module->state == MODULE_READY || module->state == MODULE_OTHER_ABI) {
		printf(", version %s, ABI %u, chunks of %s, at most %u ranges and %s a "
		       "request\n",
		       info->version, info->abi, bytes(chunk, info->chunk_bytes),
		       info->max_ranges, bytes(most, info->max_bytes));
		printf("%-14sfeatures:", "");
		for (int bit = 0; bit < 64; bit++)
			if ((info->features >> bit & 1) && info_feature(bit))
				printf(" %s", info_feature(bit));
	}
	putchar('\n');
}

static void print_uffd(const struct uffd_probe *uffd)
{
	static const char *const ways[] = {
		[UFFD_DEVICE] = "by /dev/userfaultfd",
		[UFFD_SYSCALL] = "by the system call",
		[UFFD_USER_ONLY] = "by the system call, not for faults inside the kernel",
	};

	if (uffd->access == UFFD_NONE)
		printf("%-14snot available: %s\n", "userfaultfd", strerror(-uffd->error));
	else
		printf("%-14s%s; UFFDIO_MOVE: %s\n", "userfaultfd", ways[uffd->access],
		       uffd->move ? "yes" : "no");
}

static void print_uring(const struct uring_probe *uring)
{
	if (uring->error)
		printf("%-14snot available: %s\n", "io_uring", strerror(-uring->error));
	else
		printf("%-14savailable; commands for devices: %s\n", "io_uring",
		       uring->uring_cmd ? "yes" : "no");
}

static void print_balancing(int value)
{
	printf("%-14s", "balancing");
	if (value < 0)
		puts("this kernel has no NUMA balancing");
	else if (!value)
		puts("off");
	else if (value & 1)
		printf("on (kernel.numa_balancing=%d): moves memory without a memory "
		       "policy off HBM; "
		       "Ferry's has one\n",
		       value);
	else
		printf("tiering only (kernel.numa_balancing=%d)\n", value);
}

/* What comes of the system's setting and of FERRY_HUGE. */
static const char *huge_outcome(enum huge_system system, enum huge_mode mode)
{
	if (system <= HUGE_SYSTEM_NEVER || mode == HUGE_NEVER)
		return "none";
	if (mode == HUGE_ALWAYS)
		return "all memory that is placed";
	return system == HUGE_SYSTEM_ALWAYS ? "as the system does it"
					    : "allocations of 32 MiB and more";
}

static void print_huge(const struct info *info)
{
	printf("%-14ssystem: %s, FERRY_HUGE=%s: %s\n", "huge pages",
	       info_huge(info->probe.huge), config_huge_name(info->huge),
	       huge_outcome(info->probe.huge, info->huge));
}

static void print_interleave(const struct interleave *interleave)
{
	static const char *const ways[] = {
		[INTERLEAVE_PAGES] = "page by page over all nodes",
		[INTERLEAVE_WEIGHTS] = "page by page by the system's weights",
		[INTERLEAVE_STRIPES] = "by bandwidth, in stripes of 2 MiB and more",
	};

	printf("%-14s%u of %u parts in HBM, %s\n", "interleave", interleave->hbm,
	       interleave->parts, ways[interleave->how]);
}

static void print_ledger(const struct info_ledger *ledger)
{
	cell total, want, share;

	printf("%-14s", "hbm weights");
	if (ledger->error && ledger->error != -ENOENT) {
		printf(LEDGER_PATH " cannot be read: %s\n", strerror(-ledger->error));
		return;
	}
	if (!ledger->count) {
		puts("no process shares HBM by weight");
		return;
	}
	printf("%zu processes share %s\n", ledger->count, bytes(total, ledger->total));
	for (size_t i = 0; i < ledger->shown; i++) {
		const struct ledger_entry *entry = &ledger->entry[i];

		printf("%-14spid %d, uid %u, weight %u: wants %s, gets %s\n", "",
		       (int)entry->pid, (unsigned int)entry->uid, entry->weight,
		       entry->want == UINT64_MAX ? "all it can get"
						 : bytes(want, entry->want),
		       bytes(share, info_share(ledger, i)));
	}
}

static void print_manage(unsigned int manage)
{
	const char *name, *between = "";

	printf("%-14sFERRY_MANAGE=", "managed");
	for (unsigned int bit = 0; (name = config_manage_name(bit)); bit++)
		if (manage >> bit & 1) {
			printf("%s%s", between, name);
			between = ",";
		}
	putchar('\n');
}

void info_text(const struct info *info)
{
	const struct probe *probe = &info->probe;

	printf("Ferry %d.%d.%d on Linux %s\n\n", FERRY_VERSION_MAJOR, FERRY_VERSION_MINOR,
	       FERRY_VERSION_PATCH, probe->kernel.release);
	print_tiers(info->topology);
	print_nodes(info);
	print_module(&probe->module);
	printf("%-14s%s: %s\n", "engine", info->engine, info->engine_why);
	printf("%-14s%s: %s\n", "  huge pages", info->huge_engine, info->huge_engine_why);
	printf("%-14s%s: %s\n", "  small ones", info->small_granules,
	       info->small_granules_why);
	printf("%-14s%s: %s\n", "sampler", info->sampler, info->sampler_why);
	printf("%-14s%s: %s\n", "  huge split", info->huge_split, info->huge_split_why);
	printf("%-14s%s: %s\n", "first touch", info->filling, info->filling_why);
	print_manage(info->manage);
	print_uffd(&probe->uffd);
	print_uring(&probe->uring);
	print_balancing(probe->numa_balancing);
	print_huge(info);
	print_interleave(&info->interleave);
	print_ledger(&info->ledger);
	printf("%-14sseveral preferred nodes: %s\n", "policy",
	       probe->preferred_many ? "yes" : "no");
	if (info->advice_count)
		puts("\nWhat is missing, and what to do");
	for (int i = 0; i < info->advice_count; i++)
		printf("  %-12s%s\n", info->advice[i].about, info->advice[i].text);
}
