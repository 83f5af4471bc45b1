/* SPDX-License-Identifier: MIT */
/*
 * The worker: the one thread that takes requests from the queue, feeds their
 * batches to the engine and completes them.
 *
 * Requests begin in the order of submission. Up to MAX_IN_FLIGHT batches, of
 * one request or several, are under way at once; a batch that names a page of
 * one under way waits for it, so that of two requests for the same page the
 * later submitted is carried out last.
 */
#ifndef FERRY_WORKER_H
#define FERRY_WORKER_H

#include "migrate/request.h"

/*
 * Each batch in flight occupies a CPU, since moving pages is mostly copying
 * and page-table work, and the application wants its CPUs itself. Four come
 * near what one process can have moved: beyond it they wait for each other at
 * the nodes' LRU and free-list locks. Never more than CPUs that the process
 * may run on.
 */
#define MAX_IN_FLIGHT 4
unsigned int worker_limit(void);

/*
 * Queues a request; takes a reference of its own. The first call starts the
 * thread, with all signals blocked; @engine must be ready and the same for all
 * calls until worker_fork_child(). 0, or -errno with nothing submitted
 * (-EAGAIN, -EMFILE, -ENFILE, -ENOMEM).
 */
int worker_submit(const struct engine *engine, struct ferry_request *request);

/* The synchronous form: carries a plan out on the calling thread. */
void worker_run(const struct engine *engine, struct plan *plan,
		struct ferry_result *result);

/*
 * Around fork(2): the queue stays locked meanwhile. The child has no worker and
 * an empty queue, and starts its own at its first submission.
 */
void worker_fork_prepare(void);
void worker_fork_parent(void);
void worker_fork_child(void);

#endif /* FERRY_WORKER_H */
