/* SPDX-License-Identifier: MIT */
/*
 * The interface of an engine: a mechanism that moves pieces of memory, and
 * tells where pages are.
 *
 * open() and forget() are called under migrate.c's lock. The worker thread
 * alone calls start(), reap() and wait_fd(); move() and query() may be called
 * from any thread and block. An engine moves pages or leaves them where they
 * are; it never loses one.
 */
#ifndef FERRY_ENGINE_H
#define FERRY_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ferry/ferry.h>

#include "migrate/page.h"

/*
 * A part of a range: page-aligned, not empty, one target. In a batch it lies
 * within one granule, so that a piece is mapped by one huge page or by none.
 */
struct piece {
	uintptr_t addr;
	size_t len; /* bytes */
	int32_t node;
	uint32_t flags; /* FERRY_POPULATE; FERRY_STAY is done before the engine */
};

/*
 * The bounds of a batch, which is one call of an engine: some 10 ms of work,
 * long enough that the price of a call (move_pages(2) drains every CPU's page
 * vectors) does not count, short enough to share a request out among several
 * batches in flight, and to keep tables for each page of one small.
 */
#define BATCH_PIECES 256
#define BATCH_BYTES  ((size_t)32 << 20)
#define BATCH_PAGES  (BATCH_BYTES / PAGE_BYTES)

/* Pieces given to an engine together: same node, ascending, disjoint. */
struct batch {
	struct ferry_request *request; /* NULL for the synchronous form */
	struct ferry_result result;    /* added to by the engine, once for a page */
	void *engine_data;             /* the engine's own, while in flight */
	size_t count;
	struct piece piece[BATCH_PIECES];
};

struct engine {
	const char *name;

	/*
	 * Makes the engine ready in this process. In *why, a static string:
	 * what it found (0), or what is missing (-errno).
	 */
	int (*open)(const char **why);
	/* Lets go of all state, as a forked child must. */
	void (*forget)(void);

	/*
	 * Moves a batch and returns when that is done. What went wrong is in
	 * batch->result.error; pages not worked on because of it are in no count.
	 */
	void (*move)(struct batch *batch);

	/*
	 * Moves two batches, the first @out of a node that the second one's, @in,
	 * goes to, in turns of short pieces: so neither node needs room for a
	 * batch. Otherwise as move(). 0; or -EOPNOTSUPP, also by being NULL, with
	 * nothing done: then they are moved one after the other.
	 */
	int (*exchange)(struct batch *out, struct batch *in);

	/*
	 * Starts a batch without waiting for it; reap() gives it back. 0;
	 * -EAGAIN when it cannot be taken now though others are in flight;
	 * -EOPNOTSUPP when the engine has only move(), which the worker then
	 * calls. NULL means the same as -EOPNOTSUPP, always.
	 */
	int (*start)(struct batch *batch);
	/* The next finished batch, or NULL when none is finished. */
	struct batch *(*reap)(void);
	/* Readable when a batch is finished. */
	int (*wait_fd)(void);

	/*
	 * The node of each page of a page-aligned range, -1 where nothing is.
	 * 0 or -errno.
	 */
	int (*query)(uintptr_t addr, size_t len, int16_t *nodes);
};

extern const struct engine engine_kmod;
extern const struct engine engine_relocate;
extern const struct engine engine_syscall;

/*
 * Has engine_kmod, which is open, give pieces that huge pages map to @engine, which is
 * open too, instead of engine_syscall. Before the first batch; 0 or -errno.
 */
int kmod_give_huge_to(const struct engine *engine);

/* Adds the counts of @more; the first error stays. */
void result_add(struct ferry_result *sum, const struct ferry_result *more);

/* The sum of all counts. */
uint64_t result_pages(const struct ferry_result *result);

/*
 * @result is what a first run over @pages pages came to, @again a later run
 * over the same pages, complete: makes of them what both came to.
 */
void result_rerun(struct ferry_result *result, const struct ferry_result *again,
		  uint64_t pages);

#endif /* FERRY_ENGINE_H */
