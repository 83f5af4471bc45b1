/* SPDX-License-Identifier: MIT */
/* `ferry info`: options, and the names that both forms of output use. One thread. */
#include "cli/info.h"
#include "cli/cli.h"
#include "fault/sampler.h"
#include "policy/budget.h"
#include "policy/filling.h"
#include "policy/skew.h"
#include "migrate/migrate.h"
#include "config/config.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] = "Usage: ferry info [--json]\n";

static const char help[] =
	"\n"
	"Shows the tiers and nodes of this machine, their capacity, bandwidth and "
	"latency;\n"
	"the module, the engine that moves pages, and what the kernel offers to this "
	"user;\n"
	"and for each thing that is missing what to do about it.\n"
	"\n"
	"Options:\n"
	"  --json        write one JSON object; ferry(1) describes its keys\n"
	"  -h, --help    show this text\n";

const char *info_hbm_source(enum hbm_source source)
{
	static const char *const names[] = {
		[HBM_NONE] = "none",
		[HBM_OVERRIDE] = "override",
		[HBM_HMAT] = "hmat",
		[HBM_MEMORY_ONLY] = "assumed",
	};

	return names[source];
}

const char *info_tier(int tier)
{
	static const char *const names[] = {
		[FERRY_TIER_DDR] = "ddr", [FERRY_TIER_HBM] = "hbm"};

	return tier < 0 ? NULL : names[tier];
}

const char *info_interleave(enum interleave_how how)
{
	static const char *const names[] = {
		[INTERLEAVE_PAGES] = "pages",
		[INTERLEAVE_WEIGHTS] = "weights",
		[INTERLEAVE_STRIPES] = "stripes",
	};

	return names[how];
}

const char *info_huge(enum huge_system system)
{
	static const char *const names[] = {
		[HUGE_SYSTEM_NONE] = "none",
		[HUGE_SYSTEM_NEVER] = "never",
		[HUGE_SYSTEM_MADVISE] = "madvise",
		[HUGE_SYSTEM_ALWAYS] = "always",
	};

	return names[system];
}

const char *info_feature(int bit)
{
	static const char *const names[] = {"migrate",  "query",         "uring",
					    "populate", "batched-flush", "scan",
					    "held",     "copy-parallel", "copy-dma",
					    "exchange", "split-huge",    "whole-huge"};

	return bit < (int)(sizeof(names) / sizeof(names[0])) ? names[bit] : NULL;
}

uint64_t info_share(const struct info_ledger *ledger, size_t entry)
{
	struct ledger_entry others[sizeof(ledger->entry) / sizeof(ledger->entry[0])];
	size_t n = 0;

	for (size_t i = 0; i < ledger->shown; i++)
		if (i != entry)
			others[n++] = ledger->entry[i];
	return ledger_divide(ledger->total, ledger->entry[entry].weight, others, n);
}

static int order(const void *a, const void *b)
{
	const struct ledger_entry *one = a, *other = b;

	return (one->pid > other->pid) - (one->pid < other->pid);
}

static void read_ledger(struct info *info, const struct config *config)
{
	struct info_ledger *ledger = &info->ledger;
	const size_t most = sizeof(ledger->entry) / sizeof(ledger->entry[0]);
	/* Who only looks does not take part. */
	static struct config onlooker;
	ssize_t n;

	onlooker = *config;
	onlooker.hbm_weight = 0;
	budget_init(&onlooker, info->topology, NULL);
	ledger->total = budget_total();
	n = ledger_read(LEDGER_PATH, ledger->entry, most);
	ledger->error = n < 0 ? (int)n : 0;
	ledger->count = n < 0 ? 0 : (size_t)n;
	ledger->shown = ledger->count < most ? ledger->count : most;
	qsort(ledger->entry, ledger->shown, sizeof(ledger->entry[0]), order);
}

int info_command(int argc, char *argv[])
{
	static const struct option options[] = {
		{"json", no_argument, NULL, LONG_OPTION},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	static struct info info;
	const struct config *config;
	const char *error;
	bool json = false;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (option) {
		case LONG_OPTION:
			json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			fputs(help, stdout);
			return 0;
		default:
			return bad_option("info", usage, option, argv[optind - 1]);
		}
	}
	if (optind < argc) {
		fail(EXIT_USAGE, "info", "unexpected argument \"%s\"", argv[optind]);
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	config = config_get(&error);
	if (!config)
		return fail(EXIT_USAGE, "info", "%s", error);
	info.topology = topology_get(&error);
	if (!info.topology)
		return fail(EXIT_USAGE, "info", "%s", error);
	probe_all(&info.probe);
	info.engine = migrate_engine_name(config->engine, &info.engine_why);
	info.huge_engine =
		migrate_huge_engine_name(config->engine, &info.huge_engine_why);
	info.small_granules =
		migrate_small_granules(config->engine, &info.small_granules_why);
	info.sampler = sampler_name(config->sampler, &info.sampler_why);
	info.huge_split =
		skew_available(info.sampler, &info.huge_split_why) ? "yes" : "no";
	info.filling = filling_name(config, &info.filling_why);
	info.manage = config->manage;
	info.huge = config->huge;
	info.interleave = interleave_choose(info.topology, INTERLEAVE_SYSFS);
	read_ledger(&info, config);
	info_advise(&info);
	if (!json) {
		info_text(&info);
		return 0;
	}
	if (info_json(&info))
		return fail(1, "info", "%s", "out of memory");
	return 0;
}
