/* SPDX-License-Identifier: MIT */
/*
 * The interface of an engine: a mechanism that moves pieces of memory.
 *
 * The worker thread alone calls start() and reap(); move() may be called from
 * any thread and blocks. An engine moves pages or leaves them where they are;
 * it never loses one.
 */
#ifndef FERRY_ENGINE_H
#define FERRY_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ferry/ferry.h>

/* A part of a range that the batcher made: it lies within one granule or is
 * made of whole ones, is page-aligned, and has one target. */
struct piece {
	uintptr_t addr;
	size_t len;
	int32_t node;
	uint32_t flags; /* FERRY_POPULATE */
};

/* Pieces that are given to an engine together. */
struct batch {
	struct ferry_request *request; /* NULL for the synchronous form */
	struct piece *piece;
	size_t count;
	struct ferry_result result; /* added up by the engine */
	void *engine_data;	    /* the engine's own, while in flight */
};

struct engine {
	const char *name;

	/*
	 * Makes the engine ready in this process. 0; or -errno, and *why says
	 * in a static string what is missing.
	 */
	int (*open)(const char **why);
	/* Forgets all state, as a forked child must. */
	void (*forget)(void);

	/* Moves a batch and returns when that is done. 0 or -errno. */
	int (*move)(struct batch *batch);

	/*
	 * Starts a batch without waiting for it; reap() gives it back. -EAGAIN:
	 * as many are in flight as the engine takes. NULL for an engine that
	 * has only move(): the worker then calls that.
	 */
	int (*start)(struct batch *batch);
	/*
	 * The next finished batch, or NULL when none is finished. wait_fd()
	 * is readable when one is.
	 */
	struct batch *(*reap)(void);
	int (*wait_fd)(void);
};

extern const struct engine engine_kmod;
extern const struct engine engine_syscall;

#endif /* FERRY_ENGINE_H */
