/* SPDX-License-Identifier: MIT */
/*
 * The summary at exit: what was in use in each region, and on which nodes the
 * kernel had its pages. Written with write(2) to a copy of stderr, since many
 * programs close theirs before the libraries' destructors run. The exiting
 * thread's; the tables are static, for nothing is allocated here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault/first_touch.h"
#include "migrate/numa_maps.h"
#include "policy/auto.h"
#include "policy/budget.h"
#include "policy/ledger.h"
#include "preload/preload.h"
#include "preload/stacks.h"
#include "preload/statics.h"

#define MAPPINGS     REGION_PLACED /* follows the regions in the tables */
#define OWN_FD_LEAST 500           /* out of the way of what programs number themselves */

static int own_fd = -1;

/* Bytes on each node: of the regions, then of recorded mappings. */
static uint64_t resident[MAPPINGS + 1][FERRY_MAX_NODES];

static const char *const names[MAPPINGS + 1] = {
	[REGION_DDR] = "ddr region",
	[REGION_HBM] = "hbm region",
	[REGION_INTERLEAVE] = "interleaved region",
	[REGION_AUTO] = "auto region",
	[MAPPINGS] = "mappings and static arrays, recorded",
};

void summary_init(void)
{
	own_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, OWN_FD_LEAST);
	if (own_fd < 0)
		own_fd = STDERR_FILENO;
}

/* ---- where memory is ----------------------------------------------------- */

static int kind_of(const void *addr)
{
	int kind = region_of(addr);

	if (kind >= 0 && kind != REGION_METADATA)
		return kind;
	return mapping_has(addr) || statics_has(addr) || stacks_has(addr) ? MAPPINGS : -1;
}

/* ---- text ---------------------------------------------------------------- */

struct line {
	char text[1024];
	size_t used;
};

__attribute__((format(printf, 2, 3))) static void add(struct line *line,
						      const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line->text + line->used, sizeof(line->text) - line->used, format,
		      args);
	va_end(args);
	if (n > 0 && (size_t)n < sizeof(line->text) - line->used)
		line->used += (size_t)n;
}

static void add_size(struct line *line, uint64_t bytes)
{
	if (bytes >= UINT64_C(10) << 30)
		add(line, "%.1f GiB", (double)bytes / (1 << 30));
	else if (bytes >= UINT64_C(1) << 20 || !bytes)
		add(line, "%.1f MiB", (double)bytes / (1 << 20));
	else
		add(line, "%.1f KiB", (double)bytes / (1 << 10));
}

static void begin(struct line *line)
{
	line->used = 0;
	add(line, "ferry[%d]: ", (int)getpid());
}

static void end(struct line *line)
{
	size_t done = 0;

	add(line, "\n");
	while (done < line->used) {
		ssize_t n = write(own_fd, line->text + done, line->used - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		done += (size_t)n;
	}
}

static void print_kind(int kind, uint64_t bytes, uint64_t peak, bool has_nodes)
{
	struct line line;
	bool any = false;

	begin(&line);
	add(&line, "%s: ", names[kind]);
	add_size(&line, bytes);
	add(&line, " in use");
	if (peak) {
		add(&line, ", ");
		add_size(&line, peak);
		add(&line, " at most");
	}
	for (int node = 0; has_nodes && node < FERRY_MAX_NODES; node++) {
		if (!resident[kind][node])
			continue;
		add(&line, any ? ", node %d: " : "; on node %d: ", node);
		add_size(&line, resident[kind][node]);
		any = true;
	}
	end(&line);
}

/* The process's memory that is in huge pages; false: the kernel does not tell. */
static bool read_huge_bytes(uint64_t *bytes)
{
	static const char name[] = "AnonHugePages:";
	static char text[4096];
	int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	const char *found;

	if (fd >= 0)
		close(fd);
	if (len <= 0)
		return false;
	text[len] = '\0';
	found = strstr(text, name);
	if (found)
		*bytes = strtoull(found + sizeof(name) - 1, NULL, 10) << 10;
	return found;
}

static void print_head(const struct region_usage *usage)
{
	const struct config *config = &preload.config;
	struct mapping_usage mappings;
	struct statics_usage statics;
	struct stacks_usage stacks;
	struct line line;
	uint64_t huge;

	mapping_usage(&mappings);
	begin(&line);
	add(&line, "policy %s", config_policy_name(config->policy));
	if (preload.threshold) {
		add(&line, " from ");
		add_size(&line, preload.threshold);
	}
	if (config->hbm_limit != UINT64_MAX) {
		add(&line, ", HBM limit ");
		add_size(&line, config->hbm_limit);
	}
	if (ledger_is_entered()) {
		add(&line, ", HBM by weight %u: ", config->hbm_weight);
		add_size(&line, budget_hbm());
	}
	add(&line, ", meant for HBM but beyond its limit: ");
	add_size(&line, usage->overflow_bytes);
	add(&line, ", mappings placed: %llu (", (unsigned long long)mappings.placed);
	add_size(&line, mappings.placed_bytes);
	statics_usage(&statics);
	if (statics.count) {
		add(&line, "), static arrays placed: %zu (", statics.count);
		add_size(&line, statics.bytes);
	}
	stacks_usage(&stacks);
	if (stacks.placed) {
		add(&line, "), stacks placed: %llu (", (unsigned long long)stacks.placed);
		add_size(&line, stacks.placed_bytes);
	}
	add(&line, "), address space reserved: ");
	add_size(&line, usage->reserved_bytes);
	add(&line, ", huge pages %s", config_huge_name(config->huge));
	if (read_huge_bytes(&huge)) {
		add(&line, ": ");
		add_size(&line, huge);
	}
	end(&line);
}

static void print_auto(void)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
	struct auto_stats stats;
	struct line line;

	auto_stats(&stats);
	begin(&line);
	if (!stats.started) {
		add(&line, "auto: moved nothing: %s", stats.why);
		end(&line);
		return;
	}
	add(&line, "auto: sampler %s, %llu samples of ", stats.sampler,
	    (unsigned long long)stats.samples);
	add_size(&line, stats.managed_bytes);
	add(&line, ", moved to HBM: ");
	add_size(&line, stats.promoted_pages * page_size);
	add(&line, ", to DDR: ");
	add_size(&line, stats.demoted_pages * page_size);
	if (stats.lost)
		add(&line, ", records lost: %llu", (unsigned long long)stats.lost);
	if (stats.split)
		add(&line, ", huge pages split: %llu, made whole again: %llu",
		    (unsigned long long)stats.split, (unsigned long long)stats.whole);
	add(&line, ", CPU time: %.3f s, and %.3f s for moving",
	    (double)stats.cpu_ns / 1e9, (double)stats.move_ns / 1e9);
	end(&line);
}

static void print_first_touch(void)
{
	struct first_touch_stats stats;
	struct line line;

	first_touch_stats(&stats);
	if (!stats.started)
		return;
	begin(&line);
	add(&line, "first touch: %llu faults filled ", (unsigned long long)stats.faults);
	add_size(&line, stats.filled_bytes);
	if (stats.ends)
		add(&line, "; then the kernel, for %s", stats.ends);
	end(&line);
}

static void print_uncounted(void)
{
	struct line line;

	begin(&line);
	add(&line, "on which nodes memory is: not counted, for mappings kept changing");
	end(&line);
}

__attribute__((destructor)) static void print_summary(void)
{
	struct region_usage usage;
	uint64_t placed = 0;
	int err;

	if (!preload.active || own_fd < 0)
		return;
	region_usage(&usage);
	err = numa_maps_count(kind_of, resident, MAPPINGS + 1);
	print_head(&usage);
	if (err == -EAGAIN)
		print_uncounted();
	if (preload.has_auto)
		print_auto();
	print_first_touch();
	for (int kind = 0; kind < REGION_PLACED; kind++) {
		if (usage.peak_bytes[kind])
			print_kind(kind, usage.used_bytes[kind], usage.peak_bytes[kind],
				   !err);
		placed += kind == REGION_DDR ? 0 : usage.charged_bytes[kind];
	}
	if (placed)
		print_kind(MAPPINGS, placed, 0, !err);
}
