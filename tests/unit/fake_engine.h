/* SPDX-License-Identifier: MIT */
/*
 * An engine that moves nothing: it remembers which page went where, and in what
 * order, and checks what the worker promises it. Batches finish in random
 * order on a thread of its own. All functions may be called from any thread.
 */
#ifndef FERRY_FAKE_ENGINE_H
#define FERRY_FAKE_ENGINE_H

#include "migrate/engine.h"

/* Addresses given to it must be of these pages. */
#define FAKE_BASE  ((uintptr_t)1 << 40)
#define FAKE_PAGES ((size_t)1 << 16)

extern const struct engine fake_engine;

enum fake_mode {
	FAKE_ASYNC,
	FAKE_RELUCTANT, /* start() often says -EAGAIN */
	FAKE_SYNC,      /* start() says -EOPNOTSUPP */
};

void fake_set_mode(enum fake_mode mode);
/* While it is closed nothing finishes. */
void fake_set_gate(bool open);
/* The node that a page was last moved to; -1: none. */
int fake_node(uintptr_t addr);
/* Most batches in flight so far, and promises that were broken. */
unsigned int fake_most_in_flight(void);
unsigned int fake_broken_promises(void);
/* Around fork(2), so that its state is in order in the child. */
void fake_lock(void);
void fake_unlock(void);

#endif /* FERRY_FAKE_ENGINE_H */
