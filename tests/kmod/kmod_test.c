/* SPDX-License-Identifier: MIT */
/*
 * The runner, expectations, processes and device calls of kmod_test.h. Only
 * the failure count is shared between threads; it is atomic.
 */
#include "kmod_test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <linux/mempolicy.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define CASE_SECONDS 60 /* a case that takes longer hangs; long runs have more */

struct kt_env kt = {.fd = -1};
static atomic_int failures;

/* ---- expectations ------------------------------------------------------- */

bool kt_expect(bool ok, const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	char text[512];
	va_list ap;

	if (ok)
		return true;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* A broken loop must not bury the first failures. */
	if (atomic_fetch_add(&failures, 1) < 20)
		printf("    %s:%d: %s\n", base ? base + 1 : file, line, text);
	fflush(stdout);
	return false;
}

void kt_skip(const char *fmt, ...)
{
	va_list ap;

	printf("    ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	_exit(failures ? 1 : KT_SKIP);
}

int kt_failures(void)
{
	return atomic_load(&failures);
}

void kt_die(void)
{
	fflush(stdout);
	_exit(1);
}

uint64_t kt_sum(const struct ferry_ioc_result *r)
{
	return r->moved + r->populated + r->already + r->busy + r->nomem + r->hole +
	       r->unsupported + r->huge;
}

void kt_expect_result(const struct ferry_ioc_result *a, const struct ferry_ioc_result *e,
		      const char *file, int line)
{
	const struct {
		const char *name;
		long long actual, expected;
	} field[] = {
		{"error", a->error, e->error},
		{"reserved", a->reserved, e->reserved},
		{"moved", (long long)a->moved, (long long)e->moved},
		{"populated", (long long)a->populated, (long long)e->populated},
		{"already", (long long)a->already, (long long)e->already},
		{"busy", (long long)a->busy, (long long)e->busy},
		{"nomem", (long long)a->nomem, (long long)e->nomem},
		{"hole", (long long)a->hole, (long long)e->hole},
		{"unsupported", (long long)a->unsupported, (long long)e->unsupported},
		{"huge", (long long)a->huge, (long long)e->huge},
		{"dma_fallback", (long long)a->dma_fallback, (long long)e->dma_fallback},
	};

	for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++)
		kt_expect(field[i].actual == field[i].expected, file, line,
			  "result.%s is %lld, expected %lld", field[i].name,
			  field[i].actual, field[i].expected);
}

/* ---- the runner --------------------------------------------------------- */

/* Finds a node with CPUs and another with memory, best one without CPUs. */
static bool find_nodes(void)
{
	static bool memory[KT_MAX_NODE], cpu[KT_MAX_NODE];

	kt.ddr = kt.hbm = -1;
	if (!kt_node_list("/sys/devices/system/node/has_memory", NULL, memory) ||
	    !kt_node_list("/sys/devices/system/node/has_cpu", NULL, cpu))
		return false;
	for (int i = 0; i < KT_MAX_NODE; i++) {
		if (!memory[i])
			continue;
		if (kt.ddr < 0 && cpu[i])
			kt.ddr = i;
		else if (kt.hbm < 0 || (cpu[kt.hbm] && !cpu[i]))
			kt.hbm = i;
	}
	return kt.ddr >= 0 && kt.hbm >= 0;
}

static void get_info(void)
{
	memset(&kt.info, 0, sizeof(kt.info));
	kt.info.size = sizeof(kt.info);
	KT_REQUIRE(kt_ioctl(kt.fd, FERRY_IOC_INFO, &kt.info) == 0, "FERRY_IOC_INFO: %m");
}

static _Noreturn void run_child(const struct kt_case *c)
{
	/*
	 * Any policy but the default keeps NUMA balancing away from our pages;
	 * MPOL_LOCAL is the default in all else.
	 */
	KT_REQUIRE(syscall(SYS_set_mempolicy, MPOL_LOCAL, NULL, 0) == 0,
		   "set_mempolicy: %m");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(CASE_SECONDS * kt_slowness() * (getenv("FERRY_TEST_ROUNDS") ? 10 : 1));
	if (!c->no_device) {
		kt.fd = kt_open();
		KT_REQUIRE(kt.fd >= 0, "%s: %m", FERRY_DEVICE_PATH);
		get_info();
	}
	c->run();
	kt_child_end();
}

static int run_case(const struct kt_case *c)
{
	uint64_t start = kt_now_us();
	pid_t pid = fork();
	const char *verdict;
	int status;

	if (pid == 0)
		run_child(c);
	status = pid < 0 ? 1 : kt_wait(pid);
	verdict = status == 0 ? "ok  " : status == KT_SKIP ? "skip" : "FAIL";
	printf("%s %s (%llu ms)%s\n", verdict, c->name,
	       (unsigned long long)(kt_now_us() - start) / 1000,
	       status == 128 + SIGALRM ? ": hung"
	       : status > 128          ? ": killed by a signal"
				       : "");
	return status;
}

static bool wanted(const struct kt_case *c, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], c->name))
			return true;
	return argc < 2;
}

int kt_main(int argc, char **argv, const struct kt_case *cases, size_t nr)
{
	size_t ran = 0, failed = 0, skipped = 0;
	int fd;

	setvbuf(stdout, NULL, _IOLBF, 0);
	kt.page = (size_t)sysconf(_SC_PAGESIZE);
	fd = kt_open();
	if (fd < 0) {
		printf("skip: %s: %m\n", FERRY_DEVICE_PATH);
		return KT_SKIP;
	}
	close(fd);
	if (!find_nodes()) {
		printf("skip: two nodes with memory are needed\n");
		return KT_SKIP;
	}
	for (size_t i = 0; i < nr; i++) {
		int status;

		if (!wanted(&cases[i], argc, argv))
			continue;
		status = run_case(&cases[i]);
		ran++;
		skipped += status == KT_SKIP;
		failed += status != 0 && status != KT_SKIP;
	}
	if (!ran)
		printf("no case of that name\n");
	if (ran && skipped == ran)
		return KT_SKIP;
	return ran && !failed ? 0 : 1;
}

/* ---- the device --------------------------------------------------------- */

int kt_open(void)
{
	return open(FERRY_DEVICE_PATH, O_RDWR | O_CLOEXEC);
}

long kt_ioctl(int fd, unsigned int nr, void *arg)
{
	long ret = ioctl(fd, nr, arg);

	return ret < 0 ? -errno : ret;
}

void kt_request_init(struct kt_request *req, void *addr, size_t len, int node)
{
	memset(req, 0, sizeof(*req));
	req->range.addr = (uintptr_t)addr;
	req->range.len = len;
	req->range.node = node;
	req->arg.size = sizeof(req->arg);
	req->arg.nr_ranges = 1;
	req->arg.ranges = (uintptr_t)&req->range;
	req->arg.range_size = sizeof(req->range);
	req->arg.results = (uintptr_t)&req->result;
	req->arg.result_size = sizeof(req->result);
}

long kt_migrate_batch(unsigned int flags, const struct ferry_ioc_range *ranges,
		      unsigned int nr, struct ferry_ioc_result *res)
{
	struct ferry_ioc_migrate arg = {
		.size = sizeof(arg),
		.flags = flags,
		.nr_ranges = nr,
		.ranges = (uintptr_t)ranges,
		.range_size = sizeof(*ranges),
		.results = (uintptr_t)res,
		.result_size = res ? sizeof(*res) : 0,
	};

	return kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &arg);
}

long kt_migrate(void *addr, size_t len, int node, unsigned int range_flags,
		struct ferry_ioc_result *res)
{
	struct ferry_ioc_range range = {
		.addr = (uintptr_t)addr,
		.len = len,
		.node = node,
		.flags = range_flags,
	};

	if (res)
		memset(res, 0xa5, sizeof(*res));
	return kt_migrate_batch(0, &range, 1, res);
}

/* ---- processes and time -------------------------------------------------- */

pid_t kt_fork(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	KT_REQUIRE(pid >= 0, "fork: %m");
	if (pid == 0) {
		atomic_store(&failures, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	}
	return pid;
}

void kt_child_end(void)
{
	fflush(stdout);
	_exit(atomic_load(&failures) ? 1 : 0);
}

int kt_wait(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 1;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void kt_event_init(struct kt_event *event)
{
	KT_REQUIRE(pipe2(event->fd, O_CLOEXEC) == 0, "pipe: %m");
}

void kt_event_post(struct kt_event *event)
{
	KT_REQUIRE(write(event->fd[1], "", 1) == 1, "pipe: %m");
}

void kt_event_wait(struct kt_event *event)
{
	char byte;
	ssize_t n;

	do
		n = read(event->fd[0], &byte, 1);
	while (n < 0 && errno == EINTR);
	KT_REQUIRE(n == 1, "pipe: %m");
}

uint64_t kt_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

unsigned int kt_slowness(void)
{
	const char *kernel = getenv("FERRY_GUEST_KERNEL");

	return kernel && (!strcmp(kernel, "debug") || !strcmp(kernel, "kcsan")) ? 10 : 1;
}

/* Pages that are free, but in the lists of CPUs; from 6.7 on that may be many. */
static size_t in_lists_of_cpus(void)
{
	FILE *file = fopen("/proc/zoneinfo", "re");
	unsigned long count;
	size_t sum = 0;
	char line[256];

	KT_REQUIRE(file, "/proc/zoneinfo: %m");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, " count: %lu", &count) == 1)
			sum += count;
	fclose(file);
	return sum;
}

size_t kt_free_or_other(void)
{
	static const char *const key[] = {"MemFree", "Buffers", "Cached", "Slab"};
	size_t sum = in_lists_of_cpus() * kt.page;

	for (size_t i = 0; i < sizeof(key) / sizeof(key[0]); i++)
		sum += (size_t)kt_file_key("/proc/meminfo", key[i]) * 1024;
	return sum;
}

unsigned int kt_rounds(unsigned int standard)
{
	const char *text = getenv("FERRY_TEST_ROUNDS");
	long rounds = text ? strtol(text, NULL, 10) : 0;

	return rounds > 0 ? (unsigned int)rounds : standard;
}
