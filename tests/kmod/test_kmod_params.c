/* SPDX-License-Identifier: MIT */
/*
 * Proves that the module's parameters refuse what is out of bounds, with a line
 * in the kernel's log, and that those within do what ferry(4) says: the chunk
 * bounds what is migrated at a time, workers copy or do not, and batches beyond
 * the limit wait, until a signal or a cancellation takes them out of the queue.
 * A waiter is one of this process' threads; all else is the main thread.
 */
#include "kmod_test.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "kmod_param.h"
#include "kmod_uring.h"

enum { SEED = 137 };

static const struct {
	const char *name;
	const char *good[3];
	const char *bad[5];
} bounds[] = {
	{"workers", {"0", "1", "32"}, {"33", "-1", "4294967296", "many", "1 2"}},
	{"chunk_bytes",
	 {"65536", "1048576", "2097152"},
	 {"0", "32768", "4194304", "65537", "1000000"}},
	{"max_in_flight", {"1", "2", "1024"}, {"0", "1025", "-1", "1x", "4294967297"}},
	{"copy_threshold",
	 {"4096", "123456", "2097152"},
	 {"0", "4095", "2097153", "-4096", "4 KiB"}},
	{"dma_channels", {"0", "1", "64"}, {"65", "-1", "1000000000000", "x", "0x41"}},
};

static bool log_has(const char *text)
{
	static char log[1 << 20];
	int len = klogctl(3 /* SYSLOG_ACTION_READ_ALL */, log, sizeof(log) - 1);

	if (len < 0)
		return false;
	log[len] = 0;
	return strstr(log, text);
}

static void out_of_bounds(void)
{
	kt_param_reset();
	for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
		const char *name = bounds[i].name;
		long old = kt_param_number("ferry", name);
		char line[64];

		for (int k = 0; k < 5; k++) {
			KT_EXPECT(kt_param_set("ferry", name, bounds[i].bad[k]) == -1 &&
					  errno == EINVAL,
				  "%s=%s was not refused", name, bounds[i].bad[k]);
			KT_EXPECT_EQ(kt_param_number("ferry", name), old);
		}
		snprintf(line, sizeof(line), "ferry: %s has to be a ", name);
		KT_EXPECT(log_has(line), "no line '%s' in the log", line);
		for (int k = 0; k < 3; k++) {
			kt_ferry_set(name, bounds[i].good[k]);
			KT_EXPECT_EQ(kt_param_number("ferry", name),
				     strtol(bounds[i].good[k], NULL, 10));
		}
	}
	kt_param_reset();
}

static void info_tells(void)
{
	struct ferry_ioc_info info = {.size = sizeof(info)};

	kt_param_reset();
	kt_ferry_set("chunk_bytes", "131072");
	kt_ferry_set("max_in_flight", "3");
	kt_ferry_set("workers", "0");
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, &info), 0);
	KT_EXPECT_EQ(info.chunk_bytes, 131072);
	KT_EXPECT_EQ(info.max_in_flight, 3);
	KT_EXPECT(!(info.features & FERRY_FEATURE_COPY_PARALLEL), "offered");
	kt_ferry_set("workers", "1");
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, &info), 0);
	KT_EXPECT(info.features & FERRY_FEATURE_COPY_PARALLEL, "not offered");
	kt_param_reset();
}

static void chunk_bounds(void)
{
	static const size_t chunk[] = {65536, 262144, 2097152};
	const size_t len = 4ul << 20;
	char *mem = kt_alloc_huge(len); /* aligned, so the chunks can be counted */

	madvise(mem, len, MADV_NOHUGEPAGE);
	kt_fill_on(mem, len, kt.ddr, SEED);
	kt_param_reset();
	for (size_t i = 0; i < 3; i++) {
		const int node = i % 2 ? kt.ddr : kt.hbm;
		char text[32];
		long old;

		snprintf(text, sizeof(text), "%zu", chunk[i]);
		kt_ferry_set("chunk_bytes", text);
		old = kt_stat("chunks");
		KT_EXPECT_EQ(kt_migrate(mem, len, node, 0, NULL), len / kt.page);
		KT_EXPECT_EQ(kt_stat("chunks") - old, len / chunk[i]);
		KT_EXPECT_ON(mem, len, node);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	kt_param_reset();
}

/* ---- workers -------------------------------------------------------------- */

#define TRACE "/sys/kernel/tracing/instances/ferry_params"

static void parallel_move(void *mem, size_t len, int node)
{
	struct kt_request req;

	kt_request_init(&req, mem, len, node);
	req.arg.copy_mode = FERRY_COPY_PARALLEL;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &req.arg), len / kt.page);
}

/* Has a worker of ferry.ko begun to work since the trace was emptied? */
static bool worker_seen(void)
{
	FILE *trace = fopen(TRACE "/trace", "re");
	char line[512];
	bool seen = false;

	KT_REQUIRE(trace, "the trace: %m");
	while (!seen && fgets(line, sizeof(line), trace))
		seen = strstr(line, "help [ferry]");
	fclose(trace);
	return seen;
}

static void workers_copy(void)
{
	const size_t len = 8ul << 20;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	bool seen = false;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		kt_skip("one CPU only");
	kt_param_reset();
	rmdir(TRACE);
	if (mkdir(TRACE, 0700) != 0 ||
	    !kt_write_file(TRACE "/events/workqueue/workqueue_execute_start/enable", "1"))
		kt_skip("no tracing of workqueues");
	kt_ferry_set("workers", "0");
	parallel_move(mem, len, kt.hbm);
	KT_EXPECT(!worker_seen(), "a worker copied though there are none");
	kt_ferry_set("workers", "1");
	for (int i = 0; i < 100 && !seen; i++) {
		parallel_move(mem, len, i % 2 ? kt.hbm : kt.ddr);
		seen = worker_seen();
	}
	KT_EXPECT(seen, "no worker has copied");
	KT_EXPECT_DATA(mem, len, SEED);
	kt_write_file(TRACE "/events/enable", "0");
	rmdir(TRACE);
	kt_param_reset();
}

/* ---- batches in flight ---------------------------------------------------- */

/*
 * A batch that takes long, in the background. It ends when it is told to: it
 * works on the same memory many times over.
 */
struct long_batch {
	struct kt_request *req; /* its range and result are arrays */
	struct ferry_ioc_range *ranges;
	char *mem;
	pthread_t thread;
	atomic_bool ended;
	long ret;
};

enum { LONG_RANGES = 60000, LONG_PAGES = 64 };

static void *carry_out(void *arg)
{
	struct long_batch *b = arg;

	b->ret = kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &b->req->arg);
	atomic_store(&b->ended, true);
	return NULL;
}

static void on_signal(int sig)
{
	(void)sig;
}

static void long_batch_begin(struct long_batch *b)
{
	struct sigaction action = {.sa_handler = on_signal};

	*b = (struct long_batch){
		.req = calloc(1, sizeof(*b->req)),
		.ranges = calloc(LONG_RANGES, sizeof(*b->ranges)),
		.mem = kt_alloc_on(LONG_PAGES * kt.page, kt.ddr, SEED),
	};
	KT_REQUIRE(b->req && b->ranges, "calloc: %m");
	sigaction(SIGUSR1, &action, NULL); /* without SA_RESTART */
	kt_request_init(b->req, b->mem, LONG_PAGES * kt.page, kt.hbm);
	for (int i = 0; i < LONG_RANGES; i++) {
		b->ranges[i] = b->req->range;
		b->ranges[i].node = i % 2 ? kt.ddr : kt.hbm;
	}
	b->req->arg.nr_ranges = LONG_RANGES;
	b->req->arg.ranges = (uintptr_t)b->ranges;
	b->req->arg.results = 0;
	b->req->arg.result_size = 0;
	KT_REQUIRE(pthread_create(&b->thread, NULL, carry_out, b) == 0, "pthread_create");
	/* Ended by a signal before anything has moved, it would return -EINTR. */
	for (int i = 0; i < 1000 && !kt_on(b->mem, LONG_PAGES * kt.page, kt.hbm); i++)
		usleep(10000);
	KT_REQUIRE(kt_stat("in_flight") == 1, "the long batch has not begun");
}

static void long_batch_end(struct long_batch *b)
{
	KT_EXPECT(!atomic_load(&b->ended), "the long batch was too short");
	while (!atomic_load(&b->ended)) {
		pthread_kill(b->thread, SIGUSR1);
		usleep(10000);
	}
	pthread_join(b->thread, NULL);
	KT_EXPECT(b->ret > 0, "the long batch returned %ld", b->ret);
	KT_EXPECT_DATA(b->mem, LONG_PAGES * kt.page, SEED);
}

static void *wait_for_turn(void *arg)
{
	long *ret = arg;
	char *mem = kt_alloc_on(kt.page, kt.ddr, SEED);

	*ret = kt_migrate(mem, kt.page, kt.hbm, 0, NULL);
	return NULL;
}

/* A signal ends the wait, and the first batch does not notice. */
static void signal_ends_waiting(void)
{
	struct long_batch b;
	pthread_t thread;
	long ret = 0;

	kt_param_reset();
	kt_ferry_set("max_in_flight", "1");
	long_batch_begin(&b);
	pthread_create(&thread, NULL, wait_for_turn, &ret);
	usleep(200000);
	KT_EXPECT_EQ(kt_stat("in_flight"), 1);
	KT_EXPECT_EQ(ret, 0);
	/* On a loaded machine it need not wait yet. */
	while (pthread_tryjoin_np(thread, NULL)) {
		pthread_kill(thread, SIGUSR1);
		usleep(10000);
	}
	KT_EXPECT_EQ(ret, -EINTR);
	long_batch_end(&b);
	kt_param_reset();
}

/* A higher limit lets those in who wait. */
static void raising_lets_in(void)
{
	struct long_batch b;
	pthread_t thread;
	long ret = 0;

	kt_param_reset();
	kt_ferry_set("max_in_flight", "1");
	long_batch_begin(&b);
	pthread_create(&thread, NULL, wait_for_turn, &ret);
	usleep(200000);
	KT_EXPECT_EQ(ret, 0);
	kt_ferry_set("max_in_flight", "2");
	pthread_join(thread, NULL);
	KT_EXPECT_EQ(ret, 1);
	long_batch_end(&b);
	kt_param_reset();
}

/* Requests in io_uring wait too; cancelled they leave, the others get done. */
static void uring_waits(void)
{
	enum { NR = 3 };
	struct io_uring ring;
	struct kt_request req[NR];
	struct long_batch b;
	struct io_uring_sqe *sqe;
	uint64_t data;
	int ret;

	kt_param_reset();
	kt_ferry_set("max_in_flight", "1");
	long_batch_begin(&b);
	kt_ring_init(&ring, 8, 0);
	for (int i = 0; i < NR; i++) {
		kt_request_init(&req[i], kt_alloc_on(kt.page, kt.ddr, SEED), kt.page,
				kt.hbm);
		kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req[i].arg, i + 1);
	}
	io_uring_submit(&ring);
	usleep(200000);
	KT_EXPECT_EQ(kt_stat("in_flight"), 1);
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_cancel64(sqe, 1, 0);
	sqe->user_data = 99;
	io_uring_submit(&ring);
	for (int i = 0; i < 2; i++) { /* the cancellation and the cancelled */
		ret = kt_ring_wait(&ring, &data);
		KT_EXPECT(data == 99 ||
				  (data == 1 && (ret == -EINTR || ret == -ECANCELED)),
			  "request %d: %d", (int)data, ret);
	}
	long_batch_end(&b);
	for (int i = 1; i < NR; i++)
		KT_EXPECT_EQ(kt_ring_wait(&ring, &data), 1);
	io_uring_queue_exit(&ring);
	kt_param_reset();
}

/* A killed process does not wait for its turn, nor for its batch. */
static void killed_waiters_leave(void)
{
	pid_t pid;

	kt_param_reset();
	kt_ferry_set("max_in_flight", "1");
	pid = kt_fork();
	if (pid == 0) {
		struct long_batch b;
		pthread_t thread[4];
		long ret[4];

		close(kt.fd);
		kt.fd = kt_open();
		long_batch_begin(&b);
		for (int i = 0; i < 4; i++)
			pthread_create(&thread[i], NULL, wait_for_turn, &ret[i]);
		pause();
	}
	for (int i = 0; i < 1000 && kt_stat("in_flight") < 1; i++)
		usleep(10000);
	usleep(300000);
	kill(pid, SIGKILL);
	/* kt_wait() has the case's alarm behind it. */
	KT_EXPECT_EQ(kt_wait(pid), 128 + SIGKILL);
	KT_EXPECT_EQ(kt_stat("in_flight"), 0);
	kt_param_reset();
}

/* The limit is one process' own. */
static void others_do_not_wait(void)
{
	struct long_batch b;
	pid_t pid;

	kt_param_reset();
	kt_ferry_set("max_in_flight", "1");
	long_batch_begin(&b);
	pid = kt_fork();
	if (pid == 0) {
		char *mem = kt_alloc_on(kt.page, kt.ddr, SEED);

		close(kt.fd);
		kt.fd = kt_open();
		KT_EXPECT_EQ(kt_migrate(mem, kt.page, kt.hbm, 0, NULL), 1);
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_wait(pid), 0);
	long_batch_end(&b);
	kt_param_reset();
}

static const struct kt_case cases[] = {
	KT_CASE(out_of_bounds),       KT_CASE(info_tells),
	KT_CASE(chunk_bounds),        KT_CASE(workers_copy),
	KT_CASE(signal_ends_waiting), KT_CASE(raising_lets_in),
	KT_CASE(uring_waits),         KT_CASE(killed_waiters_leave),
	KT_CASE(others_do_not_wait),
};

KT_MAIN(cases)
