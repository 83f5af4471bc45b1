/* SPDX-License-Identifier: MIT */
/*
 * A request's life: checked, submitted, carried out batch by batch, complete,
 * freed.
 *
 * Two hold a reference: the caller, until ferry_request_free(), and the worker,
 * from submission to completion. What the fields' comments give to the worker
 * is the submitter's before request_make() returns and nobody's lock guards
 * it: submission (the queue's lock) hands it over, and `state`, stored with
 * release order, hands `result` back.
 */
#ifndef FERRY_REQUEST_H
#define FERRY_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "migrate/batcher.h"
#include "topology/topology.h"

struct ferry_request {
	struct plan plan;           /* the worker's */
	struct ferry_result result; /* the worker's until complete, then constant */
	unsigned int in_flight;     /* the worker's: batches started, not finished */
	struct ferry_request *next; /* the queue's, then the worker's */

	atomic_uint state; /* enum request_state, a futex */
	atomic_int fd;     /* eventfd, -1: not asked for yet */
	atomic_uint refs;
	unsigned int epoch; /* of the process that submitted it */
};

/*
 * Checks ranges and resolves FERRY_NODE_* into @out[n]. @allowed: nodes of the
 * cpuset; @here: the node that the caller runs on. 0, -EINVAL, -ENODEV or
 * -EACCES as ferry_migrate() documents.
 */
int ranges_resolve(struct ferry_range *out, const struct ferry_range *in, size_t n,
		   const struct topology *topology, const struct node_set *allowed,
		   int here);

/*
 * Checks ranges against this machine and the calling thread, and takes them into
 * @plan, which is left to be sorted by whoever carries it out.
 */
int ranges_plan(struct plan *plan, const struct ferry_range *range, size_t n,
		const struct topology *topology);

/*
 * A new request with the caller's reference, which takes over @plan (in case
 * of failure too). 0 or -ENOMEM.
 */
int request_make(struct ferry_request **out, struct plan *plan);

void request_get(struct ferry_request *request);
void request_put(struct ferry_request *request);

/* The worker's last act: makes result public, wakes waiters, drops its reference. */
void request_complete(struct ferry_request *request);

bool request_is_complete(struct ferry_request *request);
int request_wait(struct ferry_request *request, int timeout_ms);
int request_fd(struct ferry_request *request);

/*
 * In a forked child: requests of the parent that are not complete never will
 * be here. Waiting for one gives -ESRCH, freeing one frees it.
 */
void request_forget_all(void);

#endif /* FERRY_REQUEST_H */
