/* SPDX-License-Identifier: MIT */
/*
 * The worker (worker.h).
 *
 * The queue's lock guards the queue and the start of the thread. All else in
 * `worker` belongs to the worker thread once it runs. The thread never ends:
 * at exit the kernel ends it and cancels what is in flight, and the library
 * cannot be unloaded (-z nodelete), so that it never runs in unmapped code.
 */
#include "migrate/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migrate/migrate.h"
#include "migrate/stay.h"
#include "os/thread.h"

static struct {
	pthread_mutex_t lock;
	struct ferry_request *first, **last; /* submitted, not taken yet */
	bool running;
	int wake_fd; /* eventfd: something was put into an empty queue */
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .last = &queue.first, .wake_fd = -1};

static struct {
	const struct engine *engine;
	unsigned int limit;                  /* batches in flight at most */
	struct ferry_request *first, **last; /* taken, plan not used up */

	struct batch batch[MAX_IN_FLIGHT];
	struct batch *in_flight[MAX_IN_FLIGHT];
	unsigned int in_flight_count;
	struct batch *idle[MAX_IN_FLIGHT];
	unsigned int idle_count;
	struct batch *next; /* cut off, cannot be started yet */
} worker;

/* ---- batches ------------------------------------------------------------ */

static void finish_if_done(struct ferry_request *request)
{
	if (request->in_flight || request->plan.next < request->plan.count)
		return;
	migrate_count_completed(&request->result);
	request_complete(request);
}

static void batch_finished(struct batch *batch)
{
	struct ferry_request *request = batch->request;

	result_add(&request->result, &batch->result);
	worker.idle[worker.idle_count++] = batch;
	request->in_flight--;
	finish_if_done(request);
}

static void reap(void)
{
	struct batch *batch;

	while (worker.in_flight_count && (batch = worker.engine->reap())) {
		unsigned int i = 0;

		while (worker.in_flight[i] != batch)
			i++;
		worker.in_flight[i] = worker.in_flight[--worker.in_flight_count];
		batch_finished(batch);
	}
}

static bool overlaps_in_flight(const struct batch *batch)
{
	for (unsigned int i = 0; i < worker.in_flight_count; i++)
		if (batch_overlaps(batch, worker.in_flight[i]))
			return true;
	return false;
}

/* Cuts the next batch off the first request that has one. */
static struct batch *next_batch(void)
{
	while (worker.first) {
		struct ferry_request *request = worker.first;
		struct batch *batch = worker.idle[worker.idle_count - 1];
		bool more = plan_next(&request->plan, batch);

		if (more) {
			worker.idle_count--;
			batch->request = request;
			request->in_flight++;
		}
		if (request->plan.next == request->plan.count) {
			worker.first = request->next;
			if (!worker.first)
				worker.last = &worker.first;
		}
		if (more)
			return batch;
		finish_if_done(request);
	}
	return NULL;
}

/* Gives a batch to the engine. false: not now. */
static bool start(struct batch *batch)
{
	int err = -EOPNOTSUPP;

	if (overlaps_in_flight(batch))
		return false;
	stay_apply(batch);
	if (worker.engine->start)
		err = worker.engine->start(batch);
	if (err == -EAGAIN && worker.in_flight_count)
		return false;
	if (err) {
		worker.engine->move(batch);
		batch_finished(batch);
		return true;
	}
	worker.in_flight[worker.in_flight_count++] = batch;
	return true;
}

static void start_what_can(void)
{
	while (worker.in_flight_count < worker.limit) {
		if (!worker.next)
			worker.next = next_batch();
		if (!worker.next || !start(worker.next))
			return;
		worker.next = NULL;
	}
}

/* ---- the thread --------------------------------------------------------- */

static void take_requests(void)
{
	pthread_mutex_lock(&queue.lock);
	if (queue.first) {
		*worker.last = queue.first;
		worker.last = queue.last;
		queue.first = NULL;
		queue.last = &queue.first;
	}
	pthread_mutex_unlock(&queue.lock);
}

/* Sleeps until there is a submission or, with batches in flight, a completion. */
static void wait_for_work(void)
{
	struct pollfd fd[2] = {{.fd = queue.wake_fd, .events = POLLIN},
			       {.fd = -1, .events = POLLIN}};
	uint64_t count;

	if (worker.in_flight_count)
		fd[1].fd = worker.engine->wait_fd();
	if (poll(fd, 2, -1) > 0 && fd[0].revents)
		(void)!read(queue.wake_fd, &count, sizeof(count));
}

static void *worker_main(void *unused)
{
	(void)unused;
	pthread_setname_np(pthread_self(), "ferry-worker");
	for (;;) {
		take_requests();
		start_what_can();
		/* Nothing in flight now means that nothing is left to start. */
		wait_for_work();
		reap();
	}
	return NULL;
}

unsigned int worker_limit(void)
{
	cpu_set_t set;

	/* Fails on machines with more CPUs than the set holds: then there are enough. */
	if (sched_getaffinity(0, sizeof(set), &set) || CPU_COUNT(&set) > MAX_IN_FLIGHT)
		return MAX_IN_FLIGHT;
	return (unsigned int)CPU_COUNT(&set);
}

static void worker_reset(const struct engine *engine)
{
	worker.engine = engine;
	worker.limit = worker_limit();
	worker.first = NULL;
	worker.last = &worker.first;
	worker.next = NULL;
	worker.in_flight_count = 0;
	worker.idle_count = 0;
	for (unsigned int i = 0; i < MAX_IN_FLIGHT; i++)
		worker.idle[worker.idle_count++] = &worker.batch[i];
}

/* With the queue's lock held. */
static int worker_start(const struct engine *engine)
{
	int err;

	queue.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue.wake_fd < 0)
		return -errno;
	worker_reset(engine);
	err = thread_start(worker_main, NULL);
	if (err) {
		close(queue.wake_fd);
		queue.wake_fd = -1;
		return err;
	}
	queue.running = true;
	return 0;
}

/* ---- submitters --------------------------------------------------------- */

int worker_submit(const struct engine *engine, struct ferry_request *request)
{
	uint64_t one = 1;
	int err = 0;

	pthread_mutex_lock(&queue.lock);
	if (!queue.running)
		err = worker_start(engine);
	if (!err) {
		request_get(request);
		request->next = NULL;
		*queue.last = request;
		queue.last = &request->next;
		migrate_count_submitted();
		(void)!write(queue.wake_fd, &one, sizeof(one));
	}
	pthread_mutex_unlock(&queue.lock);
	return err;
}

void worker_run(const struct engine *engine, struct plan *plan,
		struct ferry_result *result)
{
	struct batch batch = {.count = 0};

	*result = (struct ferry_result){0};
	migrate_count_submitted();
	while (plan_next(plan, &batch)) {
		stay_apply(&batch);
		engine->move(&batch);
		result_add(result, &batch.result);
	}
	migrate_count_completed(result);
}

/* ---- fork --------------------------------------------------------------- */

void worker_fork_prepare(void)
{
	pthread_mutex_lock(&queue.lock);
}

void worker_fork_parent(void)
{
	pthread_mutex_unlock(&queue.lock);
}

void worker_fork_child(void)
{
	if (queue.wake_fd >= 0)
		close(queue.wake_fd);
	queue.wake_fd = -1;
	queue.running = false;
	queue.first = NULL;
	queue.last = &queue.first;
	request_forget_all();
	pthread_mutex_unlock(&queue.lock);
}
