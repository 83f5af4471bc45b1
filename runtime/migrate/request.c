/* SPDX-License-Identifier: MIT */
/*
 * Requests (request.h): checking ranges, completion, waiting. Lock-free: a
 * request is waited for by a futex on its state, and the eventfd and the
 * completion find each other through two sequentially consistent atomics.
 */
#include "migrate/request.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/mempolicy.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum request_state { REQUEST_PENDING, REQUEST_COMPLETE };

/* Grows at each fork, so that a child knows its parent's requests. */
static unsigned int epoch;

/* ---- checking ----------------------------------------------------------- */

static int resolve_node(int node, const struct topology *topology,
			const struct node_set *allowed, int here)
{
	if (node == FERRY_NODE_DDR)
		node = topology_nearest(topology, FERRY_TIER_DDR, here);
	else if (node == FERRY_NODE_HBM)
		node = topology_nearest(topology, FERRY_TIER_HBM, here);
	if (!node_set_has(&topology->memory, node))
		return -ENODEV;
	return node_set_has(allowed, node) ? node : -EACCES;
}

int ranges_resolve(struct ferry_range *out, const struct ferry_range *in, size_t n,
		   const struct topology *topology, const struct node_set *allowed,
		   int here)
{
	int node = -1;

	for (size_t i = 0; i < n; i++) {
		uintptr_t addr = (uintptr_t)in[i].addr;

		if (in[i].flags & ~(uint32_t)(FERRY_POPULATE | FERRY_STAY))
			return -EINVAL;
		/* The last page's end must be an address too. */
		if (in[i].len > UINTPTR_MAX - PAGE_BYTES - addr ||
		    addr > UINTPTR_MAX - PAGE_BYTES)
			return -EINVAL;
		if (!i || in[i].node != in[i - 1].node)
			node = resolve_node(in[i].node, topology, allowed, here);
		if (node < 0)
			return node;
		out[i] = in[i];
		out[i].node = node;
	}
	return 0;
}

/* The nodes that the cpuset allows; all of @topology's on a kernel without NUMA. */
static int allowed_nodes(struct node_set *allowed, const struct topology *topology)
{
	/* The kernel wants room for its nodes, and rounds maxnode down by one. */
	if (!syscall(SYS_get_mempolicy, NULL, allowed->word, FERRY_MAX_NODES + 1, NULL,
		     MPOL_F_MEMS_ALLOWED))
		return 0;
	if (errno != ENOSYS)
		return -errno;
	*allowed = topology->memory;
	return 0;
}

int ranges_plan(struct plan *plan, const struct ferry_range *range, size_t n,
		const struct topology *topology)
{
	struct node_set allowed = {0};
	int err;

	if (n && !range)
		return -EINVAL;
	err = allowed_nodes(&allowed, topology);
	if (err)
		return err;
	err = plan_reserve(plan, n);
	if (err)
		return err;
	err = ranges_resolve(plan->range, range, n, topology, &allowed,
			     topology_current_node());
	if (err)
		plan_free(plan);
	return err;
}

/* ---- life --------------------------------------------------------------- */

int request_make(struct ferry_request **out, struct plan *plan)
{
	struct ferry_request *request = calloc(1, sizeof(*request));

	if (!request) {
		plan_free(plan);
		return -ENOMEM;
	}
	request->plan = *plan;
	request->epoch = epoch;
	atomic_init(&request->state, REQUEST_PENDING);
	atomic_init(&request->fd, -1);
	atomic_init(&request->refs, 1);
	*plan = (struct plan){0};
	*out = request;
	return 0;
}

static void request_destroy(struct ferry_request *request)
{
	int fd = atomic_load(&request->fd);

	if (fd >= 0)
		close(fd);
	free(request);
}

void request_get(struct ferry_request *request)
{
	atomic_fetch_add(&request->refs, 1);
}

void request_put(struct ferry_request *request)
{
	/*
	 * In a child the worker that held the other reference does not exist;
	 * it may have been busy with the plan, which is therefore left alone.
	 */
	bool orphan = request->epoch != epoch;

	if (atomic_fetch_sub(&request->refs, 1) == 1 || orphan)
		request_destroy(request);
}

void request_forget_all(void)
{
	epoch++;
}

/* ---- completion --------------------------------------------------------- */

static long futex(atomic_uint *word, int op, unsigned int value,
		  const struct timespec *deadline)
{
	return syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, deadline, NULL,
		       FUTEX_BITSET_MATCH_ANY);
}

/* Several writes do no harm: the descriptor stays readable. */
static void signal_fd(int fd)
{
	uint64_t one = 1;
	ssize_t written;

	do
		written = write(fd, &one, sizeof(one));
	while (written < 0 && errno == EINTR);
}

bool request_is_complete(struct ferry_request *request)
{
	return atomic_load(&request->state) == REQUEST_COMPLETE;
}

void request_complete(struct ferry_request *request)
{
	int fd;

	plan_free(&request->plan);
	atomic_store(&request->state, REQUEST_COMPLETE);
	futex(&request->state, FUTEX_WAKE_BITSET, INT_MAX, NULL);
	/* request_fd() stores fd before it looks at state: one of us sees the other. */
	fd = atomic_load(&request->fd);
	if (fd >= 0)
		signal_fd(fd);
	request_put(request);
}

int request_fd(struct ferry_request *request)
{
	int fd = atomic_load(&request->fd);
	int none = -1;

	if (fd < 0) {
		fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (fd < 0)
			return -errno;
		if (!atomic_compare_exchange_strong(&request->fd, &none, fd)) {
			close(fd);
			fd = none;
		}
	}
	if (request_is_complete(request))
		signal_fd(fd);
	return fd;
}

static struct timespec deadline_after(int timeout_ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += timeout_ms / 1000;
	t.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (t.tv_nsec >= 1000000000L) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000L;
	}
	return t;
}

int request_wait(struct ferry_request *request, int timeout_ms)
{
	struct timespec deadline = deadline_after(timeout_ms > 0 ? timeout_ms : 0);

	while (!request_is_complete(request)) {
		if (request->epoch != epoch)
			return -ESRCH;
		if (timeout_ms == 0)
			return -ETIMEDOUT;
		if (futex(&request->state, FUTEX_WAIT_BITSET, REQUEST_PENDING,
			  timeout_ms < 0 ? NULL : &deadline) < 0 &&
		    errno == ETIMEDOUT)
			timeout_ms = 0; /* one last look */
	}
	return 0;
}
