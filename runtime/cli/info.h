/* SPDX-License-Identifier: MIT */
/*
 * What `ferry info` shows: gathered once, then written as text or as JSON. One
 * thread.
 */
#ifndef FERRY_INFO_H
#define FERRY_INFO_H

#include "cli/probe.h"
#include "heap/huge.h"
#include "heap/interleave.h"
#include "policy/ledger.h"
#include "topology/topology.h"

/* Something that is missing, and what to do about it. */
struct advice {
	const char *about;
	char text[256];
};

#define MAX_ADVICE 16

/* Who shares HBM by weight. */
struct info_ledger {
	int error;    /* -errno of reading it; -ENOENT: nobody ever did */
	size_t count; /* processes; of these, those shown: */
	size_t shown;
	uint64_t total; /* bytes that they share */
	struct ledger_entry entry[256];
};

struct info {
	const struct topology *topology;
	struct probe probe;
	const char *engine, *engine_why;
	const char *huge_engine, *huge_engine_why; /* what moves huge pages */
	const char *small_granules,
		*small_granules_why;             /* and small ones that fill 2 MiB */
	const char *huge_split, *huge_split_why; /* whether `auto` splits them */
	const char *sampler, *sampler_why;
	const char *filling, *filling_why; /* who fills what is touched */
	unsigned int manage;               /* MANAGE_*, as FERRY_MANAGE says */
	enum huge_mode huge;               /* as FERRY_HUGE asks */
	struct interleave interleave;
	struct info_ledger ledger;
	struct advice advice[MAX_ADVICE];
	int advice_count;
};

/* Fills in @advice from the rest. */
void info_advise(struct info *info);

/* What the process with this entry gets now. */
uint64_t info_share(const struct info_ledger *ledger, size_t entry);

/* Where the knowledge comes from; one word. */
const char *info_hbm_source(enum hbm_source source);
const char *info_tier(int tier); /* NULL: none */
const char *info_interleave(enum interleave_how how);
const char *info_huge(enum huge_system system);

/* The name of the feature with this bit in ferry_ioc_info.features, or NULL. */
const char *info_feature(int bit);

void info_text(const struct info *info);
/* 0 or -ENOMEM. */
int info_json(const struct info *info);

#endif /* FERRY_INFO_H */
