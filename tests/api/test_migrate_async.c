/* SPDX-License-Identifier: MIT */
/*
 * Proves with each engine, through libferry: requests in flight do not harm
 * memory that threads write, that is unmapped, or whose process forks or ends;
 * they complete in order and tell so; pages that are to stay do; io_uring is
 * not needed. Several threads.
 */
#include "api_test.h"

#include <dirent.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum {
	SEED = 31,
	PAGES = 4096,
	/* move_pages(2) of Linux 6.1 interrupts all CPUs for each page. */
	WRITTEN_PAGES = 256,
};

/* ---- threads beside a migration ----------------------------------------- */

struct counting {
	_Atomic uint64_t *counter; /* one in each page */
	size_t pages;
	atomic_bool stop;
	uint64_t rounds;
};

static void *count_up(void *arg)
{
	struct counting *c = arg;
	size_t stride = kt.page / sizeof(*c->counter);

	while (!atomic_load(&c->stop)) {
		for (size_t i = 0; i < c->pages; i++)
			atomic_fetch_add(&c->counter[i * stride], 1);
		c->rounds++;
	}
	return NULL;
}

/* Not one increment of another thread is lost while the pages go to and fro. */
static void writer_beside(void)
{
	size_t len = WRITTEN_PAGES * kt.page, bad = 0,
	       stride = kt.page / sizeof(uint64_t);
	unsigned int rounds = kt_rounds(6);
	struct counting c = {.pages = WRITTEN_PAGES};
	uint64_t moved = 0;
	pthread_t thread;

	c.counter = kt_alloc(len);
	kt_fill_on((void *)c.counter, len, kt.ddr, SEED);
	for (size_t i = 0; i < WRITTEN_PAGES; i++)
		c.counter[i * stride] = i;
	KT_REQUIRE(!pthread_create(&thread, NULL, count_up, &c), "pthread_create");
	for (unsigned int i = 0; i < rounds; i++) {
		struct ferry_result r = api_migrate_async((void *)c.counter, len,
							  i % 2 ? kt.ddr : kt.hbm, 0);

		API_EXPECT_SUM(r, len);
		KT_EXPECT(r.busy < WRITTEN_PAGES / 10, "%lu pages are busy",
			  (long)r.busy);
		moved += r.moved;
	}
	atomic_store(&c.stop, true);
	pthread_join(thread, NULL);
	for (size_t i = 0; i < WRITTEN_PAGES; i++)
		bad += c.counter[i * stride] != i + c.rounds;
	KT_EXPECT_EQ(bad, 0);
	KT_EXPECT(moved > rounds * WRITTEN_PAGES / 2, "only %lu moved", (long)moved);
}

/* Requests of many threads, each for pages of its own and some for all. */
struct submitter {
	pthread_t thread;
	char *own, *common;
	unsigned int seed;
};

static void *submit_many(void *arg)
{
	struct submitter *s = arg;
	size_t len = 300 * kt.page;

	for (unsigned int i = 0; i < kt_rounds(12); i++) {
		int node = rand_r(&s->seed) % 2 ? kt.hbm : kt.ddr;
		struct ferry_range range[] = {{s->own, len, node, 0},
					      {s->common, len, node, 0}};
		struct ferry_result r;
		ferry_request *request;
		struct pollfd p;

		KT_EXPECT_EQ(ferry_submit(range, 2, &request), 0);
		p = (struct pollfd){.fd = ferry_request_fd(request), .events = POLLIN};
		KT_EXPECT_EQ(poll(&p, 1, 60000), 1);
		KT_EXPECT_EQ(ferry_request_wait(request, 0), 0);
		KT_EXPECT_EQ(ferry_request_result(request, &r, sizeof(r)), 0);
		ferry_request_free(request);
		API_EXPECT_SUM(r, 2 * len);
		KT_EXPECT_DATA(s->own, len, SEED);
	}
	return NULL;
}

static void many_submitters(void)
{
	size_t len = 300 * kt.page;
	char *common = kt_alloc_on(len, kt.ddr, SEED);
	struct submitter s[6];

	for (unsigned int i = 0; i < 6; i++) {
		s[i] = (struct submitter){.own = kt_alloc_on(len, kt.ddr, SEED),
					  .common = common,
					  .seed = i};
		KT_REQUIRE(!pthread_create(&s[i].thread, NULL, submit_many, &s[i]),
			   "pthread_create");
	}
	for (int i = 0; i < 6; i++)
		pthread_join(s[i].thread, NULL);
	KT_EXPECT_DATA(common, len, SEED);
}

/* Of requests for the same pages the last one submitted decides. */
static void last_request_decides(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	ferry_request *request[8];

	for (int i = 0; i < 8; i++)
		request[i] = api_submit(mem + (size_t)i * kt.page, len - 8 * kt.page,
					i % 2 ? kt.ddr : kt.hbm, 0);
	for (int i = 0; i < 8; i++) {
		KT_EXPECT_EQ(ferry_request_wait(request[i], -1), 0);
		ferry_request_free(request[i]);
	}
	KT_EXPECT_ON(mem + 7 * kt.page, len - 8 * kt.page, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* ---- what may happen to a process meanwhile ------------------------------ */

static void unmapped_meanwhile(void)
{
	size_t len = PAGES * kt.page;

	for (unsigned int i = 0; i < kt_rounds(6); i++) {
		char *mem = kt_alloc_on(len, kt.ddr, SEED);
		ferry_request *request;
		struct ferry_result r;

		kt_fill(mem + len / 4 * 3, len / 4, SEED + 1);
		request = api_submit(mem, len, kt.hbm, 0);
		usleep(1000 * i);
		munmap(mem + len / 4, len / 2);
		KT_EXPECT_DATA(mem, len / 4, SEED);
		KT_EXPECT_EQ(ferry_request_wait(request, -1), 0);
		KT_EXPECT_EQ(ferry_request_result(request, &r, sizeof(r)), 0);
		ferry_request_free(request);
		API_EXPECT_SUM(r, len);
		KT_EXPECT_DATA(mem, len / 4, SEED);
		KT_EXPECT_DATA(mem + len / 4 * 3, len / 4, SEED + 1);
		munmap(mem, len);
	}
}

/* The child has the data and can migrate; the parent's request goes on. */
static void fork_meanwhile(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);

	for (unsigned int i = 0; i < kt_rounds(6); i++) {
		ferry_request *request = api_submit(mem, len, i % 2 ? kt.ddr : kt.hbm, 0);
		struct ferry_result r;
		pid_t pid;

		usleep(1000 * i);
		pid = kt_fork();
		if (pid == 0) {
			char *own = kt_alloc_on(len / 8, kt.ddr, SEED + 1);
			struct ferry_stats stats;

			KT_EXPECT_DATA(mem, len, SEED);
			ferry_request_free(request);
			KT_EXPECT_EQ(ferry_stats(&stats, sizeof(stats)), 0);
			KT_EXPECT_EQ(stats.requests, 0);
			API_EXPECT(api_migrate(own, len / 8, kt.hbm, 0),
				   .moved = PAGES / 8);
			API_EXPECT(api_migrate_async(own, len / 8, kt.ddr, 0),
				   .moved = PAGES / 8);
			KT_EXPECT_ON(own, len / 8, kt.ddr);
			KT_EXPECT_DATA(own, len / 8, SEED + 1);
			api_expect_query(own, len / 8);
			kt_child_end();
		}
		KT_EXPECT_EQ(ferry_request_wait(request, -1), 0);
		KT_EXPECT_EQ(ferry_request_result(request, &r, sizeof(r)), 0);
		ferry_request_free(request);
		API_EXPECT_SUM(r, len);
		KT_EXPECT_EQ(kt_wait(pid), 0);
		KT_EXPECT_DATA(mem, len, SEED);
	}
}

/* By return from main's exit(), and killed. */
static void exit_meanwhile(void)
{
	size_t len = PAGES * kt.page;

	for (int i = 0; i < 8; i++) {
		pid_t pid = kt_fork();

		if (pid == 0) {
			char *mem = kt_alloc_on(len, kt.ddr, SEED);

			for (int k = 0; k < 20; k++)
				api_submit(mem, len, k % 2 ? kt.ddr : kt.hbm, 0);
			usleep(2000 * (useconds_t)i);
			if (i % 2)
				kill(getpid(), SIGKILL);
			exit(kt_failures() ? 1 : 0);
		}
		KT_EXPECT_EQ(kt_wait(pid), i % 2 ? 128 + SIGKILL : 0);
	}
}

static atomic_int signals;

static void count_signal(int signal)
{
	(void)signal;
	atomic_fetch_add(&signals, 1);
}

/* Signals interrupt the kernel's work; the pages are moved and counted all the same. */
static void signals_meanwhile(void)
{
	const struct itimerspec often = {{0, 3000000}, {0, 3000000}},
				never = {{0, 0}, {0, 0}};
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct sigaction action = {.sa_handler = count_signal};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	timer_t timer;

	sigaction(SIGUSR1, &action, NULL);
	KT_REQUIRE(!timer_create(CLOCK_MONOTONIC, &event, &timer), "timer_create: %m");
	for (int i = 0; i < 8; i++) {
		struct ferry_result r;

		timer_settime(timer, 0, &often, NULL);
		r = i % 4 < 2 ? api_migrate(mem, len, i % 2 ? kt.ddr : kt.hbm, 0)
			      : api_migrate_async(mem, len, i % 2 ? kt.ddr : kt.hbm, 0);
		timer_settime(timer, 0, &never, NULL);
		API_EXPECT(r, .moved = PAGES);
		KT_EXPECT_ON(mem, len, i % 2 ? kt.ddr : kt.hbm);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	KT_EXPECT(signals > 8, "only %d signals came", signals);
}

/* ---- FERRY_STAY --------------------------------------------------------- */

static int policy_at(void *addr, unsigned long *nodes)
{
	unsigned long mask[KT_MAX_NODE / 64] = {0};
	int mode = -1;

	syscall(SYS_get_mempolicy, &mode, mask, KT_MAX_NODE + 1, addr, MPOL_F_ADDR);
	*nodes = mask[0];
	return mode;
}

static void stay_sets_policy(void)
{
	size_t p = kt.page, len = 1500 * p;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_range range[] = {{mem, len, kt.hbm, 0},
				      {mem + 100 * p, 1200 * p, kt.hbm, FERRY_STAY}};
	unsigned long nodes;

	KT_EXPECT_EQ(ferry_migrate(range, 2, NULL, 0), 0);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_EQ(policy_at(mem + 99 * p, &nodes), MPOL_DEFAULT);
	KT_EXPECT_EQ(policy_at(mem + 100 * p, &nodes), 5 /* MPOL_PREFERRED_MANY */);
	KT_EXPECT_EQ(nodes, 1UL << kt.hbm);
	KT_EXPECT_EQ(policy_at(mem + 1299 * p, &nodes), 5);
	KT_EXPECT_EQ(policy_at(mem + 1300 * p, &nodes), MPOL_DEFAULT);

	/* Across gaps and file mappings, which are left as they are. */
	munmap(mem + 200 * p, 10 * p);
	KT_REQUIRE(mmap(mem + 300 * p, 10 * p, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED,
		   "mmap: %m");
	API_EXPECT(api_migrate_async(mem, len, kt.ddr, FERRY_STAY), .moved = 1480,
		   .hole = 10, .unsupported = 10);
	KT_EXPECT_EQ(policy_at(mem, &nodes), 5);
	KT_EXPECT_EQ(nodes, 1UL << kt.ddr);
	KT_EXPECT_EQ(policy_at(mem + 250 * p, &nodes), 5);
	KT_EXPECT_EQ(policy_at(mem + 1499 * p, &nodes), 5);
	KT_EXPECT_EQ(policy_at(mem + 300 * p, &nodes), MPOL_DEFAULT);
}

/* The heap's memory moves too, but its policy belongs to the region. */
static void stay_leaves_heap_alone(void)
{
	size_t len = PAGES * kt.page;
	unsigned long before, after;
	char *mem = NULL;
	int mode;

	KT_REQUIRE(!ferry_posix_memalign((void **)&mem, kt.page, len, FERRY_DDR),
		   "no memory");
	kt_fill(mem, len, SEED);
	mode = policy_at(mem, &before);
	API_EXPECT(api_migrate(mem, len, kt.hbm, FERRY_STAY), .moved = PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
	KT_EXPECT_EQ(policy_at(mem, &after), mode);
	KT_EXPECT_EQ(after, before);
	ferry_free(mem);
}

/* Reads all of it, a cache line at a time. */
static void use(const volatile char *mem, size_t len)
{
	for (size_t i = 0; i < len; i += 64)
		(void)mem[i];
}

/*
 * With the kernel's NUMA balancing on, pages that are to stay in HBM do, while
 * a thread uses them: for twice as long as it takes until half of those beside
 * them are taken away, else this shows nothing.
 */
static void stay_against_balancing(void)
{
	size_t len = PAGES * kt.page, left = PAGES;
	const char *stay = kt_alloc_on(len, kt.ddr, SEED);
	const char *go = kt_alloc_on(len, kt.ddr, SEED);
	uint64_t began = kt_now_us(), end = began + 25 * 1000000;

	if (!kt_write_file("/proc/sys/kernel/numa_balancing", "1"))
		kt_skip("no NUMA balancing in this kernel");
	KT_REQUIRE(!syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0),
		   "set_mempolicy: %m");
	API_EXPECT(api_migrate((void *)stay, len, kt.hbm, FERRY_STAY), .moved = PAGES);
	API_EXPECT(api_migrate((void *)go, len, kt.hbm, 0), .moved = PAGES);
	while (kt_now_us() < end) {
		use(stay, len);
		use(go, len);
		if (left < PAGES / 2)
			continue;
		left = kt_on(go, len, kt.hbm);
		if (left < PAGES / 2)
			end = began + 2 * (kt_now_us() - began);
	}
	KT_EXPECT_ON((void *)stay, len, kt.hbm);
	KT_EXPECT(left < PAGES / 2, "balancing takes too little, so this shows nothing");
	printf("     %zu of %d pages without FERRY_STAY were left in HBM after %d ms\n",
	       left, PAGES, (int)((end - began) / 2000));
}

/* ---- the library -------------------------------------------------------- */

/* Makes io_uring_setup(2) fail with EPERM, as container runtimes do. */
static void forbid_io_uring(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

	KT_REQUIRE(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
			   !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program),
		   "seccomp: %m");
}

static void without_io_uring(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	const char *why;

	forbid_io_uring();
	KT_EXPECT(api_engine_is(ferry_engine(&why)), "another engine: %s", why);
	if (api_engine_is("kmod"))
		KT_EXPECT(strstr(why, "io_uring is not allowed"), "why: %s", why);
	API_EXPECT(api_migrate_async(mem, len, kt.hbm, 0), .moved = PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* Threads of this process with that name; kernel threads of io_uring's too. */
static int threads_named(const char *prefix)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	int n = 0;

	KT_REQUIRE(dir, "/proc/self/task: %m");
	while ((entry = readdir(dir))) {
		char path[300], name[32] = "";

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		if (kt_read_file(path, name, sizeof(name)) &&
		    !strncmp(name, prefix, strlen(prefix)))
			n++;
	}
	closedir(dir);
	return n;
}

/* One worker, from the first submission on, which no signal reaches. */
static void one_worker(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);

	KT_EXPECT_EQ(threads_named("ferry-worker"), 0);
	api_migrate(mem, len, kt.hbm, 0);
	KT_EXPECT_EQ(threads_named("ferry-worker"), 0);
	for (int i = 0; i < 4; i++)
		api_migrate_async(mem, len, i % 2 ? kt.hbm : kt.ddr, 0);
	KT_EXPECT_EQ(threads_named("ferry-worker"), 1);
	/* io-wq's threads carry the batches out; four at most. */
	KT_EXPECT(threads_named("iou-wrk") <= 4, "%d threads of io-wq",
		  threads_named("iou-wrk"));
	if (api_engine_is("kmod"))
		KT_EXPECT(threads_named("iou-wrk") > 0, "no thread of io-wq");
	else
		KT_EXPECT_EQ(threads_named("iou-wrk"), 0);
}

static const struct kt_case cases[] = {
	API_CASE(writer_beside),          API_CASE(many_submitters),
	API_CASE(last_request_decides),   API_CASE(unmapped_meanwhile),
	API_CASE(fork_meanwhile),         API_CASE(exit_meanwhile),
	API_CASE(signals_meanwhile),      API_CASE(stay_sets_policy),
	API_CASE(stay_leaves_heap_alone), API_CASE(stay_against_balancing),
	API_CASE(without_io_uring),       API_CASE(one_worker),
};

int main(int argc, char **argv)
{
	return api_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
