/* SPDX-License-Identifier: MIT */
/*
 * Proves that a request survives every failure of what it asks the kernel for:
 * slab memory, pages, and copies to and from its caller. The error is the one
 * that the contract names, pages that did not move are counted and where they
 * were, the data is right, and no memory is lost.
 *
 * Needs a kernel that fails on demand (CONFIG_FAULT_INJECTION_DEBUG_FS), as the
 * guest machine's debug kernel does. An ioctl is given each failure in turn by
 * fail-nth of the calling thread, so that none is missed. A worker of io_uring
 * cannot be told that way: there a part of all requests for memory fails that
 * have the module in their call stack.
 *
 * Threads: one writer beside the requests of io_uring, with words of its own.
 */
#include "kmod_test.h"
#include "kmod_uring.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#define DEBUGFS "/sys/kernel/debug/"

enum { SEED = 131 };

/* ---- failures on demand --------------------------------------------------- */

static const char *const capability[] = {"failslab", "fail_page_alloc", "fail_usercopy"};
#define CAPABILITIES (sizeof(capability) / sizeof(capability[0]))

static bool set(const char *name, const char *setting, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "%s/%s", name, setting);
	return kt_write_file(path, value);
}

/* No kind of request is spared, and the kernel's log stays short. */
static void faults_prepare(void)
{
	if (access("/proc/thread-self/fail-nth", W_OK) != 0)
		kt_skip("a kernel without fault injection");
	for (size_t i = 0; i < CAPABILITIES; i++) {
		if (!set(capability[i], "verbose", "0"))
			kt_skip(DEBUGFS "%s: %m", capability[i]);
		set(capability[i], "probability", "0");
	}
	KT_REQUIRE(set("failslab", "ignore-gfp-wait", "N") &&
			   set("fail_page_alloc", "ignore-gfp-wait", "N") &&
			   set("fail_page_alloc", "ignore-gfp-highmem", "N") &&
			   set("fail_page_alloc", "min-order", "0"),
		   "the settings of " DEBUGFS "fail*: %m");
}

/* Where the module's code is, as two texts of hexadecimal numbers */
static void module_extent(char start[32], char end[32])
{
	FILE *file = fopen("/proc/modules", "re");
	unsigned long size = 0, addr = 0;
	char line[512];

	KT_REQUIRE(file, "/proc/modules: %m");
	while (!addr && fgets(line, sizeof(line), file))
		if (sscanf(line, "ferry %lu %*s %*s %*s %lx", &size, &addr) != 2)
			addr = 0;
	fclose(file);
	KT_REQUIRE(addr && size, "ferry's address is not in /proc/modules");
	snprintf(start, 32, "0x%lx", addr);
	snprintf(end, 32, "0x%lx", addr + size);
}

/*
 * From now on a share of the requests for @name fails that this process, and
 * the workers that it gets from now on, make from within the module.
 */
static void faults_on(const char *name, const char *percent)
{
	char start[32], end[32];

	module_extent(start, end);
	KT_REQUIRE(kt_write_file("/proc/self/make-it-fail", "1") &&
			   set(name, "task-filter", "Y") && set(name, "times", "-1") &&
			   set(name, "interval", "1") && set(name, "space", "0") &&
			   set(name, "stacktrace-depth", "32") &&
			   set(name, "require-start", start) &&
			   set(name, "require-end", end) &&
			   set(name, "probability", percent),
		   "the settings of " DEBUGFS "%s: %m", name);
}

static void faults_off(void)
{
	for (size_t i = 0; i < CAPABILITIES; i++)
		KT_EXPECT(set(capability[i], "probability", "0") &&
				  set(capability[i], "require-start", "0") &&
				  set(capability[i], "require-end", "0xffffffffffffffff"),
			  "the settings of " DEBUGFS "%s: %m", capability[i]);
}

/*
 * An ioctl of which the @nth thing that can fail does. Returns what the ioctl
 * does, and in *@failed whether it came so far.
 */
static long ioctl_failing(unsigned int nth, unsigned int op, void *arg, bool *failed)
{
	int fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	char text[16] = "", number[16];
	ssize_t n;
	long ret;

	KT_REQUIRE(fd >= 0, "fail-nth: %m");
	snprintf(number, sizeof(number), "%u", nth);
	KT_REQUIRE(write(fd, number, strlen(number)) > 0, "fail-nth: %m");
	ret = kt_ioctl(kt.fd, op, arg);
	/* Reading copies too, as does writing: it may be what fails instead. */
	n = pread(fd, text, sizeof(text) - 1, 0);
	*failed = n > 0 && strtol(text, NULL, 10) == 0;
	do
		n = pwrite(fd, "0", 1, 0);
	while (n < 0 && errno == EFAULT);
	KT_REQUIRE(n == 1, "fail-nth: %m");
	close(fd);
	return ret;
}

/* ---- one failure at a time ------------------------------------------------ */

/* Chunks whole and in part, and a batch of two ranges */
enum { PAGES = 1300 };

/* A failed ioctl is refused as the contract says, or tells what it has done. */
static void expect_told(long ret, const struct ferry_ioc_result res[2], unsigned int nth)
{
	uint64_t done = 0;

	if (ret < 0) {
		KT_EXPECT(ret == -ENOMEM || ret == -EFAULT, "failure %u: returned %ld",
			  nth, ret);
		return;
	}
	for (int i = 0; i < 2; i++) {
		done += res[i].moved + res[i].populated;
		if (res[i].error)
			KT_EXPECT(res[i].error == -ENOMEM || res[i].error == -ECANCELED,
				  "failure %u: range %d ends with %d", nth, i,
				  res[i].error);
		else
			KT_EXPECT_EQ(kt_sum(&res[i]), PAGES / 2);
	}
	/* A result that could not be written leaves ECANCELED of what has moved. */
	KT_EXPECT(res[1].error == -ECANCELED || done == (uint64_t)ret,
		  "failure %u: returned %ld, results tell %llu", nth, ret,
		  (unsigned long long)done);
}

/* Moves a batch with each failure in turn. @flags of the ranges. */
static void each_failure(unsigned int flags)
{
	const size_t len = PAGES * kt.page, half = len / 2;
	bool failed = true;
	unsigned int nth, refused = 0;

	faults_prepare();
	for (nth = 1; failed && nth < 1000 && !kt_failures(); nth++) {
		char *mem = flags ? kt_alloc(len) : kt_alloc_on(len, kt.ddr, SEED);
		struct ferry_ioc_result res[2];
		struct ferry_ioc_range range[2];
		struct ferry_ioc_migrate arg = {
			.size = sizeof(arg),
			.nr_ranges = 2,
			.ranges = (uintptr_t)range,
			.range_size = sizeof(range[0]),
			.results = (uintptr_t)res,
			.result_size = sizeof(res[0]),
		};
		size_t before = kt_on(mem, len, kt.hbm), there;
		long ret;

		memset(res, 0, sizeof(res));
		for (size_t i = 0; i < 2; i++)
			range[i] = (struct ferry_ioc_range){
				.addr = (uintptr_t)mem + i * half,
				.len = half,
				.node = kt.hbm,
				.flags = flags,
			};
		ret = ioctl_failing(nth, FERRY_IOC_MIGRATE, &arg, &failed);
		there = kt_on(mem, len, kt.hbm) - before;
		KT_EXPECT(there == (size_t)(ret < 0 ? 0 : ret),
			  "failure %u: returned %ld, %zu pages have moved", nth, ret,
			  there);
		expect_told(ret, res, nth);
		refused += ret < 0;
		if (!failed)
			KT_EXPECT_EQ(ret, PAGES);

		/* What is left goes the next time. */
		KT_EXPECT_EQ(kt_migrate_batch(0, range, 2, res),
			     PAGES - (ret < 0 ? 0 : ret));
		KT_EXPECT_ON(mem, len, kt.hbm);
		if (flags)
			for (size_t at = 0; at < len; at += 8)
				KT_EXPECT(*(uint64_t *)(mem + at) == 0, "not zero at %zu",
					  at);
		else
			KT_EXPECT_DATA(mem, len, SEED);
		munmap(mem, len);
	}
	printf("    %u failures, %u refused\n", nth - 2, refused);
	/* So that it was not in vain: the batch, the chunk, its pages at least. */
	KT_EXPECT(nth - 2 >= 5 && refused >= 2, "too few failures");
	KT_EXPECT(!failed, "there is no end of failures");
}

static void moving_fails(void)
{
	each_failure(0);
}

static void populating_fails(void)
{
	each_failure(FERRY_RANGE_POPULATE);
}

/* Those that only ask: right or refused. */
static void asking_fails(void)
{
	static int16_t node[PAGES];
	static struct ferry_scan_row row[PAGES];
	const size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_query query = {
		.size = sizeof(query),
		.mode = FERRY_QUERY_PAGES,
		.addr = (uintptr_t)mem,
		.len = len,
		.out = (uintptr_t)node,
		.out_bytes = sizeof(node),
	};
	struct ferry_ioc_scan scan = {
		.size = sizeof(scan),
		.flags = FERRY_SCAN_PEEK,
		.addr = (uintptr_t)mem,
		.len = len,
		.granule_bytes = kt.page,
		.out = (uintptr_t)row,
		.out_bytes = sizeof(row),
	};
	struct ferry_ioc_info info = {.size = sizeof(info)};
	const struct {
		unsigned int op;
		void *arg;
	} ask[] = {{FERRY_IOC_QUERY, &query},
		   {FERRY_IOC_SCAN, &scan},
		   {FERRY_IOC_INFO, &info}};

	faults_prepare();
	for (size_t i = 0; i < sizeof(ask) / sizeof(ask[0]); i++) {
		unsigned int nth, refused = 0;
		bool failed = true;

		for (nth = 1; failed && nth < 1000 && !kt_failures(); nth++) {
			long ret = ioctl_failing(nth, ask[i].op, ask[i].arg, &failed);

			/* Some failures have a way round: then the answer is right. */
			KT_EXPECT(ret == 0 ||
					  (failed && (ret == -ENOMEM || ret == -EFAULT)),
				  "ioctl %zu, failure %u: returned %ld", i, nth, ret);
			refused += ret < 0;
			/* A refused one may have written its struct in part. */
			info.size = sizeof(info);
		}
		KT_EXPECT(!failed && refused > 0, "ioctl %zu: %u failures, %u refused", i,
			  nth - 2, refused);
	}
	for (size_t i = 0; i < PAGES; i++)
		KT_EXPECT(node[i] == kt.ddr && row[i].present == 1,
			  "page %zu: node %d, present %u", i, node[i], row[i].present);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* ---- everything, or a part, fails ----------------------------------------- */

/*
 * Either kind of memory alone. Without pages a request can still be begun, if the
 * slab has room for it; then none of its pages finds a place.
 */
static void nothing_to_be_had(void)
{
	static const char *const kind[] = {"fail_page_alloc", "failslab"};
	const size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);

	faults_prepare();
	for (size_t i = 0; i < 2; i++) {
		struct ferry_ioc_result res;
		long ret;

		faults_on(kind[i], "100");
		ret = kt_migrate(mem, len, kt.hbm, 0, &res);
		faults_off();
		if (i == 0 && ret == 0)
			KT_EXPECT_RESULT(&res, .nomem = PAGES);
		else
			KT_EXPECT_EQ(ret, -ENOMEM);
		KT_EXPECT_ON(mem, len, kt.ddr);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, NULL), PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

enum { FLIGHT = 8, FLIGHT_PAGES = 512, ROUNDS = 40 };

struct writer {
	uint64_t *word; /* one in each page, FLIGHT * FLIGHT_PAGES of them */
	size_t step;    /* words of a page */
	atomic_bool stop;
	uint64_t rounds;
};

static void *write_on(void *arg)
{
	struct writer *w = arg;

	while (!atomic_load(&w->stop)) {
		w->rounds++;
		for (size_t i = 0; i < FLIGHT * FLIGHT_PAGES; i++)
			__atomic_fetch_add(&w->word[i * w->step], 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* What the requests of a storm came to */
struct storm {
	unsigned long refused, nomem, moved;
};

static void storm_round(struct io_uring *ring, struct kt_request req[FLIGHT], char *mem,
			int node, struct storm *sum)
{
	const size_t part = FLIGHT_PAGES * kt.page;

	for (size_t i = 0; i < FLIGHT; i++) {
		kt_request_init(&req[i], mem + i * part, part, node);
		kt_ring_cmd(ring, kt.fd, FERRY_IOC_MIGRATE, &req[i].arg, i);
	}
	KT_REQUIRE(io_uring_submit(ring) == FLIGHT, "io_uring_submit failed");
	for (size_t i = 0; i < FLIGHT; i++) {
		uint64_t which;
		int ret = kt_ring_wait(ring, &which);
		const struct ferry_ioc_result *res = &req[which].result;

		if (ret < 0) {
			KT_EXPECT_EQ(ret, -ENOMEM);
			sum->refused++;
			continue;
		}
		KT_EXPECT_EQ(ret, res->moved);
		KT_EXPECT_EQ(res->error, 0);
		KT_EXPECT_SUM(res, part);
		sum->nomem += res->nomem;
		sum->moved += res->moved;
	}
}

/*
 * Requests of io_uring, of which a part fails, to and fro under a writer. Were
 * the pages of a request that fails lost, the machine would be out of memory by
 * the end.
 */
static void storm(void)
{
	const size_t len = FLIGHT * FLIGHT_PAGES * kt.page;
	static struct kt_request req[FLIGHT];
	struct writer writer = {.step = kt.page / sizeof(uint64_t)};
	size_t before, after;
	struct storm sum = {0};
	struct io_uring ring;
	pthread_t thread;
	char *mem;

	faults_prepare();
	faults_on("failslab", "20"); /* before the ring: its workers inherit it */
	faults_on("fail_page_alloc", "20");
	kt_ring_init(&ring, FLIGHT, 0);
	mem = kt_alloc(len);
	memset(mem, 0, len);
	writer.word = (uint64_t *)mem;
	KT_REQUIRE(pthread_create(&thread, NULL, write_on, &writer) == 0, "no thread");
	storm_round(&ring, req, mem, kt.hbm, &sum);
	before = kt_free_or_other();
	for (int i = 0; i < ROUNDS && !kt_failures(); i++)
		storm_round(&ring, req, mem, i % 2 ? kt.hbm : kt.ddr, &sum);
	after = kt_free_or_other();
	atomic_store(&writer.stop, true);
	pthread_join(thread, NULL);
	faults_off();

	printf("    %lu refused, %lu pages without memory, %lu moved\n", sum.refused,
	       sum.nomem, sum.moved);
	KT_EXPECT(sum.refused > 0 && sum.nomem > 0 && sum.moved > 0,
		  "the storm was none of these");
	KT_EXPECT(after + len * ROUNDS / 20 > before, "%zu MiB are lost",
		  (before - after) >> 20);
	for (size_t i = 0; i < FLIGHT * FLIGHT_PAGES; i++)
		KT_EXPECT(writer.word[i * writer.step] == writer.rounds,
			  "page %zu: %llu of %llu writes", i,
			  (unsigned long long)writer.word[i * writer.step],
			  (unsigned long long)writer.rounds);
	io_uring_queue_exit(&ring);
}

static const struct kt_case cases[] = {
	KT_CASE(moving_fails), KT_CASE(populating_fails),
	KT_CASE(asking_fails), KT_CASE(nothing_to_be_had),
	KT_CASE(storm),
};

KT_MAIN(cases)
