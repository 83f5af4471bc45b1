/* SPDX-License-Identifier: MIT */
/*
 * The fake engine (fake_engine.h). One lock guards all of it; its thread is
 * started by the first batch and after a fork(2) by the child's first.
 */
#include "fake_engine.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migrate/batcher.h"
#include "migrate/worker.h"

#define SLOTS 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
	enum fake_mode mode;
	bool gate_closed;
	pid_t thread_of; /* the process that has the thread */
	int fd;
	struct batch *started[SLOTS], *finished[SLOTS];
	unsigned int started_count, finished_count, most;
	unsigned int broken;
	unsigned int calls;
	short node[FAKE_PAGES]; /* node + 1 */
} fake;

static size_t page_index(uintptr_t addr)
{
	return (addr - FAKE_BASE) / PAGE_BYTES;
}

/* Every page of it is on its node now. */
static void carry_out(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; i++) {
		const struct piece *p = &batch->piece[i];
		size_t first = page_index(p->addr), pages = p->len / PAGE_BYTES;

		for (size_t k = first; k < first + pages; k++) {
			if (fake.node[k] == p->node + 1)
				batch->result.already++;
			else
				batch->result.moved++;
			fake.node[k] = (short)(p->node + 1);
		}
	}
}

static void *finisher(void *unused)
{
	unsigned int seed = 1;

	(void)unused;
	pthread_mutex_lock(&lock);
	for (;;) {
		unsigned int i;
		uint64_t one = 1;

		while (fake.gate_closed || !fake.started_count)
			pthread_cond_wait(&changed, &lock);
		i = (unsigned int)rand_r(&seed) % fake.started_count;
		carry_out(fake.started[i]);
		fake.finished[fake.finished_count++] = fake.started[i];
		fake.started[i] = fake.started[--fake.started_count];
		if (write(fake.fd, &one, sizeof(one)) != sizeof(one))
			fake.broken++;
		if (rand_r(&seed) % 4 == 0) {
			pthread_mutex_unlock(&lock);
			usleep(20);
			pthread_mutex_lock(&lock);
		}
	}
	return NULL;
}

static void check_promises(const struct batch *batch)
{
	for (unsigned int i = 0; i < fake.started_count; i++)
		if (batch_overlaps(batch, fake.started[i]))
			fake.broken++;
	for (unsigned int i = 0; i < fake.finished_count; i++)
		if (batch_overlaps(batch, fake.finished[i]))
			fake.broken++;
	if (fake.started_count + fake.finished_count >= MAX_IN_FLIGHT || !batch->count)
		fake.broken++;
}

static int fake_start(struct batch *batch)
{
	unsigned int in_flight;
	int err = 0;

	pthread_mutex_lock(&lock);
	if (fake.mode == FAKE_SYNC) {
		err = -EOPNOTSUPP;
	} else if (fake.mode == FAKE_RELUCTANT && fake.calls++ % 3) {
		err = -EAGAIN;
	} else {
		if (fake.thread_of != getpid()) {
			pthread_t thread;

			fake.thread_of = getpid();
			fake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
			pthread_create(&thread, NULL, finisher, NULL);
			pthread_detach(thread);
		}
		check_promises(batch);
		fake.started[fake.started_count++] = batch;
		in_flight = fake.started_count + fake.finished_count;
		if (in_flight > fake.most)
			fake.most = in_flight;
		pthread_cond_broadcast(&changed);
	}
	pthread_mutex_unlock(&lock);
	return err;
}

static struct batch *fake_reap(void)
{
	struct batch *batch = NULL;
	uint64_t count;

	pthread_mutex_lock(&lock);
	if (fake.finished_count)
		batch = fake.finished[--fake.finished_count];
	else if (read(fake.fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		fake.broken++;
	pthread_mutex_unlock(&lock);
	return batch;
}

static int fake_wait_fd(void)
{
	return fake.fd;
}

static void fake_move(struct batch *batch)
{
	pthread_mutex_lock(&lock);
	while (fake.gate_closed)
		pthread_cond_wait(&changed, &lock);
	carry_out(batch);
	pthread_mutex_unlock(&lock);
}

static int fake_open(const char **why)
{
	*why = "a test";
	return 0;
}

static void fake_forget(void)
{
}

static int fake_query(uintptr_t addr, size_t len, int16_t *nodes)
{
	for (; len; addr += PAGE_BYTES, len -= PAGE_BYTES)
		*nodes++ = (int16_t)fake_node(addr);
	return 0;
}

void fake_set_mode(enum fake_mode mode)
{
	pthread_mutex_lock(&lock);
	fake.mode = mode;
	fake.most = 0;
	pthread_mutex_unlock(&lock);
}

void fake_set_gate(bool open)
{
	pthread_mutex_lock(&lock);
	fake.gate_closed = !open;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

int fake_node(uintptr_t addr)
{
	int node;

	pthread_mutex_lock(&lock);
	node = fake.node[page_index(addr)] - 1;
	pthread_mutex_unlock(&lock);
	return node;
}

unsigned int fake_most_in_flight(void)
{
	unsigned int most;

	pthread_mutex_lock(&lock);
	most = fake.most;
	pthread_mutex_unlock(&lock);
	return most;
}

unsigned int fake_broken_promises(void)
{
	unsigned int broken;

	pthread_mutex_lock(&lock);
	broken = fake.broken;
	pthread_mutex_unlock(&lock);
	return broken;
}

void fake_lock(void)
{
	pthread_mutex_lock(&lock);
}

void fake_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

const struct engine fake_engine = {
	.name = "fake",
	.open = fake_open,
	.forget = fake_forget,
	.move = fake_move,
	.start = fake_start,
	.reap = fake_reap,
	.wait_fd = fake_wait_fd,
	.query = fake_query,
};
