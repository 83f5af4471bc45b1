/* SPDX-License-Identifier: MIT */
/*
 * The module's requests as io_uring commands, for the tests that need them.
 * A ring belongs to the thread that uses it.
 */
#ifndef KMOD_URING_H
#define KMOD_URING_H

#include <liburing.h>
#include <string.h>

#include "kmod_test.h"

static inline void kt_ring_init(struct io_uring *ring, unsigned int entries,
				unsigned int flags)
{
	int ret = io_uring_queue_init(entries, ring, flags);

	KT_REQUIRE(ret == 0, "io_uring_queue_init: %s", strerror(-ret));
}

/* Queues a command with @arg, and @data for its completion. */
static inline struct io_uring_sqe *kt_ring_cmd(struct io_uring *ring, int fd,
					       unsigned int op, const void *arg,
					       uint64_t data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct ferry_uring_cmd cmd = {.arg = (uintptr_t)arg};

	KT_REQUIRE(sqe, "the submission queue is full");
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, NULL, 0, 0);
	sqe->cmd_op = op;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	sqe->user_data = data;
	return sqe;
}

/* Waits for one completion: its result, and its data in *@data if not NULL. */
static inline int kt_ring_wait(struct io_uring *ring, uint64_t *data)
{
	struct __kernel_timespec limit = {.tv_sec = 30 * kt_slowness()};
	struct io_uring_cqe *cqe;
	int ret;

	do
		ret = io_uring_wait_cqe_timeout(ring, &cqe, &limit);
	while (ret == -EINTR);
	KT_REQUIRE(ret == 0, "no completion: %s", strerror(-ret));
	if (data)
		*data = cqe->user_data;
	ret = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return ret;
}

/* Submits one command and waits for it. */
static inline int kt_ring_call(struct io_uring *ring, int fd, unsigned int op,
			       const void *arg)
{
	kt_ring_cmd(ring, fd, op, arg, 0);
	KT_REQUIRE(io_uring_submit(ring) == 1, "io_uring_submit failed");
	return kt_ring_wait(ring, NULL);
}

#endif /* KMOD_URING_H */
