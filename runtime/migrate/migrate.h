/* SPDX-License-Identifier: MIT */
/*
 * Migration: a request goes in as ranges, comes out of the batcher as batches
 * of pieces, is carried out by an engine, and completes once.
 *
 *   submitter --ranges--> request --pieces--> queue --batches--> engine
 *                            ^                                     |
 *                            +------- counts, completion <---------+
 *
 * request.c  a request's life: validation, counts, completion, waiting
 * batcher.c  ranges to pieces: sorted, coalesced, split at granules, ordered
 *            by target node
 * worker.c   the one thread that feeds the engine and reaps what is done,
 *            keeping a bounded number of batches in flight
 * engine_*.c the mechanisms, behind engine.h
 *
 * Locking is described in each file; the order is: queue lock, then a
 * request's lock.
 */
#ifndef FERRY_MIGRATE_H
#define FERRY_MIGRATE_H

#include <stdint.h>

#include <ferry/ferry.h>

struct topology;

/* Where the engine in use, and why, can be read; both static strings. */
const char *migrate_engine_name(void);
const char *migrate_engine_why(void);

/* Requests and counts since the start of the process. */
void migrate_stats(uint64_t *requests, uint64_t *completed,
		   struct ferry_result *total);

/* For pthread_atfork(3): the child starts with no requests and no worker. */
void migrate_fork_prepare(void);
void migrate_fork_parent(void);
void migrate_fork_child(void);

#endif /* FERRY_MIGRATE_H */
