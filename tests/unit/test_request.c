/* SPDX-License-Identifier: MIT */
/*
 * Requests and the worker, on an engine that moves nothing: checks of
 * arguments, waiting, descriptors, freeing in flight, order of requests for
 * the same pages, bounds, fork; many threads at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fake_engine.h"
#include "migrate/migrate.h"
#include "migrate/worker.h"

#define MIB ((size_t)1 << 20)

/* Threads are started in forked children here. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

static struct ferry_range at(size_t page, size_t pages, int node)
{
	return (struct ferry_range){(void *)(FAKE_BASE + page * PAGE_BYTES),
				    pages * PAGE_BYTES, node, 0};
}

static ferry_request *submit(const struct ferry_range *range, size_t n)
{
	ferry_request *request;
	struct plan plan;

	if (plan_make(&plan, range, n) || request_make(&request, &plan) ||
	    worker_submit(&fake_engine, request))
		abort();
	return request;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1 && p.revents == POLLIN;
}

/* ---- checks of arguments ------------------------------------------------ */

/* DDR nodes 0 and 1, HBM nodes 4 and 6; node 7 has no memory. */
static struct topology topology_of_test(void)
{
	static const struct {
		int id, tier;
	} node[] = {{0, FERRY_TIER_DDR},
		    {1, FERRY_TIER_DDR},
		    {4, FERRY_TIER_HBM},
		    {6, FERRY_TIER_HBM}};
	struct topology topology = {.node_count = 4};

	for (size_t i = 0; i < 4; i++) {
		topology.node[i].id = node[i].id;
		topology.node[i].tier = node[i].tier;
		node_set_add(&topology.memory, node[i].id);
		node_set_add(&topology.tier[node[i].tier], node[i].id);
	}
	topology.nearest[FERRY_TIER_DDR][1] = 1;
	topology.nearest[FERRY_TIER_HBM][0] = 4;
	topology.nearest[FERRY_TIER_HBM][1] = 6;
	return topology;
}

static void checks(void **state)
{
	const struct {
		struct ferry_range range;
		int here, want; /* the node, or -errno */
	} cases[] = {
		{{(void *)1, 1, 0, 0}, 0, 0},
		{{(void *)1, 0, 4, FERRY_POPULATE | FERRY_STAY}, 0, 4},
		{{(void *)1, 1, 0, 4}, 0, -EINVAL},
		{{(void *)1, 1, 0, 0x80000000}, 0, -EINVAL},
		{{(void *)4096, SIZE_MAX - 4096, 0, 0}, 0, -EINVAL},
		{{(void *)UINTPTR_MAX, 1, 0, 0}, 0, -EINVAL},
		{{(void *)(UINTPTR_MAX - 4096), 1, 0, 0}, 0, -EINVAL},
		{{(void *)(UINTPTR_MAX - 8191), 4095, 0, 0}, 0, 0},
		{{NULL, 1, 7, 0}, 0, -ENODEV},
		{{NULL, 1, FERRY_MAX_NODES, 0}, 0, -ENODEV},
		{{NULL, 1, INT32_MAX, 0}, 0, -ENODEV},
		{{NULL, 1, -1, 0}, 0, -ENODEV},
		{{NULL, 1, -4, 0}, 0, -ENODEV},
		{{NULL, 1, 6, 0}, 0, -EACCES},
		{{NULL, 0, 6, 0}, 0, -EACCES},
		{{NULL, 1, FERRY_NODE_DDR, 0}, 0, 0},
		{{NULL, 1, FERRY_NODE_DDR, 0}, 1, 1},
		{{NULL, 1, FERRY_NODE_HBM, 0}, 0, 4},
		{{NULL, 1, FERRY_NODE_HBM, 0}, 1, -EACCES},
	};
	struct topology topology = topology_of_test();
	struct node_set allowed = {{1 << 0 | 1 << 1 | 1 << 4 | 1 << 7}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* Behind a good range, so that all are looked at. */
		struct ferry_range in[2] = {at(0, 1, 0), cases[i].range}, out[2];
		int err = ranges_resolve(out, in, 2, &topology, &allowed, cases[i].here);

		if (cases[i].want < 0) {
			assert_int_equal(err, cases[i].want);
		} else {
			assert_int_equal(err, 0);
			assert_int_equal(out[1].node, cases[i].want);
		}
	}
	topology.tier[FERRY_TIER_HBM] = (struct node_set){{0}};
	assert_int_equal(ranges_resolve(&(struct ferry_range){0},
					&(struct ferry_range){NULL, 1, FERRY_NODE_HBM, 0},
					1, &topology, &allowed, 0),
			 -ENODEV);
}

static void checks_of_this_machine(void **state)
{
	struct ferry_range here = at(0, 1, FERRY_NODE_DDR), nowhere = at(0, 1, 1000);
	const struct topology *topology = topology_get(NULL);
	struct plan plan;

	(void)state;
	assert_int_equal(ranges_plan(&plan, &here, 1, topology), 0);
	plan_sort(&plan);
	assert_int_equal(plan.count, 1);
	assert_true(node_set_has(&topology->memory, plan.part[0].node));
	plan_free(&plan);
	assert_int_equal(ranges_plan(&plan, &nowhere, 1, topology), -ENODEV);
	assert_int_equal(ranges_plan(&plan, NULL, 1, topology), -EINVAL);
	assert_int_equal(ranges_plan(&plan, NULL, 0, topology), 0);
	plan_free(&plan);
}

/* ---- one request -------------------------------------------------------- */

static void completes(void **state)
{
	/* 100 MiB with a hole in the middle, and a page twice. */
	struct ferry_range r[] = {at(100, 12800, 1), at(20000, 12800, 1), at(100, 1, 1)};
	ferry_request *request = submit(r, 3);

	(void)state;
	assert_int_equal(request_wait(request, -1), 0);
	assert_int_equal(request->result.moved, 25600);
	assert_int_equal(result_pages(&request->result), 25600);
	assert_int_equal(request->result.error, 0);
	assert_int_equal(fake_node(FAKE_BASE + 99 * PAGE_BYTES), -1);
	assert_int_equal(fake_node(FAKE_BASE + 100 * PAGE_BYTES), 1);
	assert_int_equal(fake_node(FAKE_BASE + 12899 * PAGE_BYTES), 1);
	assert_int_equal(fake_node(FAKE_BASE + 12900 * PAGE_BYTES), -1);
	request_put(request);
}

static void empty_completes(void **state)
{
	ferry_request *request = submit(NULL, 0);

	(void)state;
	assert_int_equal(request_wait(request, -1), 0);
	assert_int_equal(result_pages(&request->result), 0);
	assert_true(readable(request_fd(request)));
	request_put(request);
}

static void wait_times_out(void **state)
{
	struct ferry_range r = at(0, 1, 2);
	ferry_request *request;
	double begin;

	(void)state;
	fake_set_gate(false);
	request = submit(&r, 1);
	assert_int_equal(request_wait(request, 0), -ETIMEDOUT);
	begin = now();
	assert_int_equal(request_wait(request, 50), -ETIMEDOUT);
	assert_true(now() - begin >= 0.05);
	fake_set_gate(true);
	assert_int_equal(request_wait(request, 10000), 0);
	assert_int_equal(request_wait(request, 0), 0);
	request_put(request);
}

static void fd_tells(void **state)
{
	struct ferry_range r = at(0, 1, 3);
	ferry_request *request;
	struct pollfd p;
	int fd;

	(void)state;
	fake_set_gate(false);
	request = submit(&r, 1);
	fd = request_fd(request);
	assert_true(fd >= 0);
	assert_int_equal(request_fd(request), fd);
	assert_false(readable(fd));
	fake_set_gate(true);
	p = (struct pollfd){.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_true(request_is_complete(request));
	assert_true(readable(fd));
	request_put(request);
	/* The worker, which has just written to it, lets go of it too. */
	while (fcntl(fd, F_GETFD) != -1)
		sched_yield();
}

/* The descriptor is asked for while the request completes. */
static void fd_races_completion(void **state)
{
	(void)state;
	for (int i = 0; i < 3000; i++) {
		struct ferry_range r = at(0, 1, i % 3);
		ferry_request *request = submit(&r, 1);
		struct pollfd p = {.events = POLLIN};

		for (volatile int k = 0; k < i % 64 * 50; k++)
			;
		p.fd = request_fd(request);
		assert_int_equal(poll(&p, 1, 10000), 1);
		assert_int_equal(request_wait(request, 0), 0);
		request_put(request);
	}
}

static void freed_in_flight(void **state)
{
	struct ferry_range r = at(7, 20000, 9);
	ferry_request *last;

	(void)state;
	fake_set_gate(false);
	for (int i = 0; i < 10; i++)
		request_put(submit(&r, 1));
	fake_set_gate(true);
	last = submit(&r, 1);
	assert_int_equal(request_wait(last, -1), 0);
	/* The ten before it were carried out. */
	assert_int_equal(last->result.already, 20000);
	request_put(last);
}

/* ---- the worker --------------------------------------------------------- */

/* Of requests for the same page the one submitted last decides. */
static void order(void **state)
{
	ferry_request *request[50];

	(void)state;
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 50; i++) {
			struct ferry_range r[] = {at((size_t)i * 10, 3000, i),
						  at(40000, 1, i)};

			request[i] = submit(r, 2);
		}
		for (int i = 0; i < 50; i++) {
			assert_int_equal(request_wait(request[i], -1), 0);
			request_put(request[i]);
		}
		assert_int_equal(fake_node(FAKE_BASE + 40000 * PAGE_BYTES), 49);
		for (size_t i = 0; i < 49; i++)
			assert_int_equal(fake_node(FAKE_BASE + i * 10 * PAGE_BYTES), i);
	}
	assert_int_equal(fake_broken_promises(), 0);
}

static unsigned int expected_in_flight(void)
{
	cpu_set_t set;

	sched_getaffinity(0, sizeof(set), &set);
	return CPU_COUNT(&set) < MAX_IN_FLIGHT ? (unsigned int)CPU_COUNT(&set)
					       : MAX_IN_FLIGHT;
}

static void bounded_in_flight(void **state)
{
	struct ferry_range r = at(0, FAKE_PAGES, 5);
	ferry_request *request;

	(void)state;
	fake_set_mode(FAKE_ASYNC);
	fake_set_gate(false);
	request = submit(&r, 1);
	while (fake_most_in_flight() < expected_in_flight())
		sched_yield();
	usleep(20000);
	assert_int_equal(fake_most_in_flight(), expected_in_flight());
	fake_set_gate(true);
	assert_int_equal(request_wait(request, -1), 0);
	assert_int_equal(request->result.moved + request->result.already, FAKE_PAGES);
	assert_int_equal(fake_most_in_flight(), expected_in_flight());
	request_put(request);
	assert_int_equal(fake_broken_promises(), 0);
}

static void synchronous_form(void **state)
{
	struct ferry_range r[] = {at(500, 30000, 6), at(40, 3, 7)};
	uint64_t requests[2], completed[2];
	struct ferry_result total[2], result;
	struct plan plan;

	(void)state;
	migrate_stats(&requests[0], &completed[0], &total[0]);
	assert_int_equal(plan_make(&plan, r, 2), 0);
	worker_run(&fake_engine, &plan, &result);
	plan_free(&plan);
	migrate_stats(&requests[1], &completed[1], &total[1]);
	assert_int_equal(result_pages(&result), 30003);
	assert_int_equal(fake_node(FAKE_BASE + 30499 * PAGE_BYTES), 6);
	assert_int_equal(fake_node(FAKE_BASE + 42 * PAGE_BYTES), 7);
	assert_int_equal(requests[1] - requests[0], 1);
	assert_int_equal(completed[1] - completed[0], 1);
	assert_int_equal(result_pages(&total[1]) - result_pages(&total[0]), 30003);
}

/* ---- many threads ------------------------------------------------------- */

#define THREADS 8
#define ROUNDS  300

struct shared {
	pthread_barrier_t barrier;
	ferry_request *request;
};

static void *wait_for_shared(void *arg)
{
	struct shared *shared = arg;
	int err = request_wait(shared->request, -1);

	return err || shared->request->result.moved + shared->request->result.already !=
				       50
		       ? shared
		       : NULL;
}

static void many_wait_for_one(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++) {
		struct ferry_range r = at(3, 50, i);
		pthread_t thread[THREADS];
		struct shared shared;
		void *bad;

		fake_set_gate(false);
		shared.request = submit(&r, 1);
		for (int k = 0; k < THREADS; k++)
			pthread_create(&thread[k], NULL, wait_for_shared, &shared);
		fake_set_gate(true);
		for (int k = 0; k < THREADS; k++) {
			pthread_join(thread[k], &bad);
			assert_null(bad);
		}
		request_put(shared.request);
	}
}

/* Each thread has pages of its own and shares one with all others. */
static void *mixed_work(void *arg)
{
	size_t own = (size_t)(uintptr_t)arg * 4000 + 100;
	unsigned int seed = (unsigned int)own;
	uintptr_t bad = 0;

	for (int i = 0; i < ROUNDS; i++) {
		size_t pages = 1 + (size_t)rand_r(&seed) % 1500;
		struct ferry_range r[] = {at(own, pages, i), at(0, 1, rand_r(&seed) % 9)};
		ferry_request *request = submit(r, 2);
		struct pollfd p = {.events = POLLIN};

		switch (rand_r(&seed) % 4) {
		case 0:
			request_put(request);
			continue;
		case 1:
			p.fd = request_fd(request);
			if (poll(&p, 1, 20000) != 1)
				bad++;
			break;
		case 2:
			while (request_wait(request, 0))
				sched_yield();
			break;
		default:
			while (request_wait(request, 1))
				;
		}
		if (request_wait(request, 0) ||
		    result_pages(&request->result) != pages + 1)
			bad++;
		if (fake_node(FAKE_BASE + own * PAGE_BYTES) != i)
			bad++;
		request_put(request);
	}
	return (void *)bad;
}

static void mixed(enum fake_mode mode)
{
	uint64_t requests, completed;
	struct ferry_result total;
	pthread_t thread[THREADS];
	ferry_request *last;

	fake_set_mode(mode);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, mixed_work, (void *)i);
	for (int i = 0; i < THREADS; i++) {
		void *bad;

		pthread_join(thread[i], &bad);
		assert_null(bad);
	}
	last = submit(&(struct ferry_range){(void *)FAKE_BASE, PAGE_BYTES, 1, 0}, 1);
	assert_int_equal(request_wait(last, -1), 0);
	request_put(last);
	migrate_stats(&requests, &completed, &total);
	assert_int_equal(requests, completed);
	assert_int_equal(fake_broken_promises(), 0);
	fake_set_mode(FAKE_ASYNC);
}

static void mixed_async(void **state)
{
	(void)state;
	mixed(FAKE_ASYNC);
}

static void mixed_reluctant(void **state)
{
	(void)state;
	mixed(FAKE_RELUCTANT);
}

static void mixed_sync(void **state)
{
	(void)state;
	mixed(FAKE_SYNC);
}

/* ---- fork --------------------------------------------------------------- */

#define CHILD_CHECK(what)                                                                \
	do {                                                                             \
		if (!(what)) {                                                           \
			fprintf(stderr, "child, line %d: %s\n", __LINE__, #what);        \
			_exit(1);                                                        \
		}                                                                        \
	} while (0)

static void in_child(ferry_request *pending, ferry_request *complete)
{
	struct ferry_range r = at(60000, 30, 3);
	uint64_t requests, completed;
	struct ferry_result total;
	ferry_request *own;

	CHILD_CHECK(request_wait(pending, -1) == -ESRCH);
	request_put(pending);
	CHILD_CHECK(request_wait(complete, 0) == 0);
	request_put(complete);
	migrate_stats(&requests, &completed, &total);
	CHILD_CHECK(requests == 0 && completed == 0 && result_pages(&total) == 0);
	/* The fake engine's state is the parent's: only its synchronous form is sound. */
	fake_set_mode(FAKE_SYNC);
	fake_set_gate(true);
	own = submit(&r, 1);
	CHILD_CHECK(request_wait(own, 20000) == 0);
	CHILD_CHECK(own->result.moved == 30);
	request_put(own);
	_exit(0);
}

static void fork_leaves_parent_alone(void **state)
{
	struct ferry_range r = at(100, 2000, 4), one = at(1, 1, 1);
	const struct engine *unused;

	(void)state;
	migrate_engine(&unused, ENGINE_SYSCALL); /* registers what fork needs */
	for (int i = 0; i < 20; i++) {
		ferry_request *complete = submit(&one, 1), *pending;
		int status;
		pid_t pid;

		r.node = i;
		assert_int_equal(request_wait(complete, -1), 0);
		fake_set_gate(false);
		pending = submit(&r, 1);
		fake_lock();
		pid = fork();
		fake_unlock();
		assert_true(pid >= 0);
		if (!pid)
			in_child(pending, complete);
		fake_set_gate(true);
		assert_int_equal(request_wait(pending, -1), 0);
		assert_int_equal(pending->result.moved, 2000);
		request_put(pending);
		request_put(complete);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
}

/* ---- results ------------------------------------------------------------ */

static void reruns(void **state)
{
	/* A first run was ended half-way; a second found 10 more to move. */
	struct ferry_result first = {.moved = 100, .populated = 7, .busy = 3};
	struct ferry_result second = {
		.moved = 10, .already = 380, .busy = 2, .hole = 100, .unsupported = 20};

	(void)state;
	result_rerun(&first, &second, 512);
	assert_int_equal(first.moved, 110);
	assert_int_equal(first.populated, 7);
	assert_int_equal(first.already, 273);
	assert_int_equal(first.busy, 2);
	assert_int_equal(first.hole, 100);
	assert_int_equal(result_pages(&first), 512);

	/* Brought there twice: counts once. */
	first = (struct ferry_result){.moved = 300};
	second = (struct ferry_result){.moved = 300, .busy = 112, .already = 100};
	result_rerun(&first, &second, 512);
	assert_int_equal(first.moved, 400);
	assert_int_equal(first.already, 0);
	assert_int_equal(result_pages(&first), 512);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checks),
		cmocka_unit_test(checks_of_this_machine),
		cmocka_unit_test(completes),
		cmocka_unit_test(empty_completes),
		cmocka_unit_test(wait_times_out),
		cmocka_unit_test(fd_tells),
		cmocka_unit_test(fd_races_completion),
		cmocka_unit_test(freed_in_flight),
		cmocka_unit_test(order),
		cmocka_unit_test(bounded_in_flight),
		cmocka_unit_test(synchronous_form),
		cmocka_unit_test(many_wait_for_one),
		cmocka_unit_test(mixed_async),
		cmocka_unit_test(mixed_reluctant),
		cmocka_unit_test(mixed_sync),
		cmocka_unit_test(fork_leaves_parent_alone),
		cmocka_unit_test(reruns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
