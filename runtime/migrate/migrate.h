/* SPDX-License-Identifier: MIT */
/*
 * Migration: ranges come in, are made a plan, cut into batches, carried out by
 * an engine, and a request completes once.
 *
 *   submitter --ranges--> plan --request--> queue --batches--> engine
 *                                  ^                              |
 *                                  +----- counts, completion -----+
 *
 * batcher.c  ranges to a plan (sorted, coalesced, without overlaps: by the worker,
 *            when the first batch is due), and the plan to batches of pieces,
 *            split at granules
 * request.c  checking ranges; a request's life: completion, waiting, freeing
 * worker.c   the one thread that feeds the engine and reaps what is done,
 *            keeping a bounded number of batches in flight
 * stay.c     the memory policy that FERRY_STAY asks for
 * mapping.c  what is mapped where; pagemap.c: what by huge pages
 * engine_*.c the mechanisms, behind engine.h
 * migrate.c  the choice of the engine, statistics, fork
 *
 * Locking is described in each file; the order is: migrate.c's lock, then the
 * queue's, then malloc's. The first choice of an engine registers what is to be
 * done at fork(2): a child starts with no requests, no worker and no engine.
 */
#ifndef FERRY_MIGRATE_H
#define FERRY_MIGRATE_H

#include <stdint.h>

#include <ferry/ferry.h>

#include "migrate/engine.h"
#include "config/config.h"

/*
 * The engine in use, chosen and opened at the first call in a process:
 * @choice as configured, `auto` taking kmod where it can be opened. 0 and
 * *@out; or -ENODEV when one is demanded and cannot be had, said once on
 * stderr. Thread-safe.
 */
int migrate_engine(const struct engine **out, enum engine_choice choice);

/*
 * Name and reason of the choice that migrate_engine() makes; "none" if it
 * fails. Static strings.
 */
const char *migrate_engine_name(enum engine_choice choice, const char **why);

/* As above, of the engine that moves what huge pages map; "none" if there is none. */
const char *migrate_huge_engine_name(enum engine_choice choice, const char **why);

/* As above, of what moves granules that small pages fill; "collapse": see *@why. */
const char *migrate_small_granules(enum engine_choice choice, const char **why);

/* Counting, by whoever submits and completes; atomic. */
void migrate_count_submitted(void);
void migrate_count_completed(const struct ferry_result *result);

/* Requests and counts since the start of the process; a child begins anew. */
void migrate_stats(uint64_t *requests, uint64_t *completed, struct ferry_result *total);

#endif /* FERRY_MIGRATE_H */
