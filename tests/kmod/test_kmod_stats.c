/* SPDX-License-Identifier: MIT */
/*
 * Proves that the counters in sysfs agree with the results that callers get,
 * for each outcome, and are readable by all; that requests in flight are
 * counted while they are and not afterwards; and that the tracepoints, switched
 * on through tracefs, show a batch with its chunks. Single-threaded.
 */
#include "kmod_param.h"
#include "kmod_test.h"
#include "kmod_uring.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define STATS  "/sys/class/misc/ferry/stats/"
#define EVENTS "/sys/kernel/tracing/instances/ferry_test"

enum { SEED = 103 };

struct stats {
	long batches, in_flight, chunks, moved, populated, already, busy, nomem, hole;
	long unsupported, huge, copy_bytes, copy_ns, stall_ns, stall_max_ns;
};

static long stat_value(const char *name)
{
	char path[256], text[64];

	snprintf(path, sizeof(path), STATS "%s", name);
	KT_REQUIRE(kt_read_file(path, text, sizeof(text)), "%s: %m", path);
	return strtol(text, NULL, 10);
}

static struct stats stats_now(void)
{
	return (struct stats){
#define STAT(name) .name = stat_value(#name)
		STAT(batches),   STAT(in_flight),   STAT(chunks),       STAT(moved),
		STAT(populated), STAT(already),     STAT(busy),         STAT(nomem),
		STAT(hole),      STAT(unsupported), STAT(huge),         STAT(copy_bytes),
		STAT(copy_ns),   STAT(stall_ns),    STAT(stall_max_ns),
#undef STAT
	};
}

static void expect_agreement(const struct stats *old, const struct ferry_ioc_result *res,
			     size_t nr)
{
	struct ferry_ioc_result sum = {0};
	struct stats now = stats_now();

	for (size_t i = 0; i < nr; i++) {
		sum.moved += res[i].moved;
		sum.populated += res[i].populated;
		sum.already += res[i].already;
		sum.busy += res[i].busy;
		sum.nomem += res[i].nomem;
		sum.hole += res[i].hole;
		sum.unsupported += res[i].unsupported;
		sum.huge += res[i].huge;
	}
	KT_EXPECT_EQ(now.moved - old->moved, sum.moved);
	KT_EXPECT_EQ(now.populated - old->populated, sum.populated);
	KT_EXPECT_EQ(now.already - old->already, sum.already);
	KT_EXPECT_EQ(now.busy - old->busy, sum.busy);
	KT_EXPECT_EQ(now.nomem - old->nomem, sum.nomem);
	KT_EXPECT_EQ(now.hole - old->hole, sum.hole);
	KT_EXPECT_EQ(now.unsupported - old->unsupported, sum.unsupported);
	KT_EXPECT_EQ(now.huge - old->huge, sum.huge);
}

/* A batch in which every outcome occurs but nomem. */
static void outcomes(void)
{
	const size_t page = kt.page, part = 64 * page;
	char *mem = kt_alloc_on(part, kt.ddr, SEED),
	     *away = kt_alloc_on(part, kt.hbm, SEED);
	char *none = kt_alloc(part), *fill = kt_alloc(part),
	     *huge = kt_alloc_huge(KT_HUGE);
	char *shared = kt_alloc_on(part, kt.ddr, SEED);
	char *other = mmap(NULL, part, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			   -1, 0);
	struct kt_event end;
	struct ferry_ioc_range range[7];
	struct ferry_ioc_result res[7];
	struct stats old;
	pid_t pid;

	KT_REQUIRE(other != MAP_FAILED, "mmap: %m");
	kt_fill(other, part, SEED);
	kt_fill_on(huge, KT_HUGE, kt.ddr, SEED);
	kt_event_init(&end);
	pid = kt_fork(); /* shares all, so make copies of all but `shared` */
	if (pid == 0) {
		kt_event_wait(&end);
		kt_child_end();
	}
	kt_fill_on(mem, part, kt.ddr, SEED + 1);

	for (size_t i = 0; i < 7; i++)
		range[i] = (struct ferry_ioc_range){
			.addr = (uintptr_t)(char *[]){mem, away, none, fill, huge, shared,
						      other}[i],
			.len = i == 4 ? KT_HUGE : part,
			.node = kt.hbm,
			.flags = i == 3 ? FERRY_RANGE_POPULATE : 0,
		};
	old = stats_now();
	KT_EXPECT(kt_migrate_batch(0, range, 7, res) > 0, "nothing moved");
	expect_agreement(&old, res, 7);
	/* So that the agreement is of something. */
	KT_EXPECT_EQ(res[0].moved, 64);
	KT_EXPECT_EQ(res[1].already + res[1].busy, 64);
	KT_EXPECT_EQ(res[2].hole, 64);
	KT_EXPECT_EQ(res[3].populated, 64);
	if (kt_smaps(huge, KT_HUGE, "AnonHugePages"))
		KT_EXPECT_EQ(res[4].huge, 512);
	KT_EXPECT_EQ(res[5].busy, 64);
	KT_EXPECT_EQ(res[6].unsupported, 64);

	kt_event_post(&end);
	KT_EXPECT_EQ(kt_wait(pid), 0);
}

/* Holes need no memory elsewhere: more of them than the target has pages. */
static void no_memory(void)
{
	const size_t len = kt_node_free(kt.hbm) + (64ul << 20);
	struct stats old = stats_now();
	struct ferry_ioc_result res;

	kt_migrate(kt_alloc(len), len, kt.hbm, FERRY_RANGE_POPULATE, &res);
	KT_EXPECT(res.populated > 0, "nothing came up");
	KT_EXPECT(res.nomem > 0, "all of it found memory");
	expect_agreement(&old, &res, 1);
}

static void work(void)
{
	const size_t len = 3 * KT_HUGE;
	char *mem = kt_alloc_huge(len);
	struct stats old, now;
	long held;

	madvise(mem, len, MADV_NOHUGEPAGE);
	kt_fill_on(mem, len, kt.ddr, SEED);
	kt_ferry_set("chunk_bytes", "2097152");
	old = stats_now();
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, NULL), len / kt.page);
	now = stats_now();
	kt_param_reset();
	KT_EXPECT_EQ(now.batches - old.batches, 1);
	KT_EXPECT_EQ(now.chunks - old.chunks, 3);
	KT_EXPECT_EQ(now.copy_bytes - old.copy_bytes, len);
	held = now.stall_ns - old.stall_ns;
	KT_EXPECT(now.copy_ns > old.copy_ns, "copying took no time");
	KT_EXPECT(now.copy_ns - old.copy_ns < held,
		  "copying took longer than the lock was held");
	KT_EXPECT(now.stall_max_ns >= held / 3,
		  "the longest of three is below their mean");
	KT_EXPECT(now.stall_max_ns <= now.stall_ns, "the longest is above the sum");

	/* Nothing to do is a batch, too; a refused one is not. */
	old = now;
	kt_migrate(mem, len, kt.hbm, 0, NULL);
	KT_EXPECT_EQ(kt_migrate(mem + 1, len, kt.hbm, 0, NULL), -22);
	now = stats_now();
	KT_EXPECT_EQ(now.batches - old.batches, 1);
	KT_EXPECT_EQ(now.moved - old.moved, 0);
	KT_EXPECT_EQ(now.copy_bytes - old.copy_bytes, 0);
	KT_EXPECT_EQ(now.in_flight, 0);
}

static void in_flight(void)
{
	const size_t len = 64ul << 20;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct io_uring ring;
	struct kt_request req;
	long seen = 0;

	KT_EXPECT_EQ(stat_value("in_flight"), 0);
	kt_ring_init(&ring, 4, 0);
	kt_request_init(&req, mem, len, kt.hbm);
	kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg, 0);
	io_uring_submit(&ring);
	while (!seen && io_uring_cq_ready(&ring) == 0)
		seen = stat_value("in_flight");
	KT_EXPECT_EQ(seen, 1);
	kt_ring_wait(&ring, NULL);
	KT_EXPECT_EQ(stat_value("in_flight"), 0);
	io_uring_queue_exit(&ring);
}

static void readable_by_all(void)
{
	pid_t pid = kt_fork();

	if (pid == 0) {
		KT_REQUIRE(setgid(65534) == 0 && setuid(65534) == 0, "setuid: %m");
		KT_EXPECT(stat_value("batches") >= 0, "no count");
		KT_EXPECT(!kt_write_file(STATS "batches", "0"), "anyone may write it");
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_wait(pid), 0);
}

/* The next event of this task in the trace, without its time. */
static const char *next_event(FILE *trace, char *line, int size)
{
	char pid[32];

	snprintf(pid, sizeof(pid), "-%d ", (int)getpid());
	while (fgets(line, size, trace)) {
		char *event = strstr(line, ": ");

		if (line[0] == '#' || !strstr(line, pid) || !event)
			continue;
		line[strcspn(line, "\n")] = 0;
		return event + 2;
	}
	return "";
}

static void expect_event(FILE *trace, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void expect_event(FILE *trace, const char *format, ...)
{
	char line[1024], expected[512];
	const char *event = next_event(trace, line, sizeof(line));
	va_list args;

	va_start(args, format);
	vsnprintf(expected, sizeof(expected), format, args);
	va_end(args);
	KT_EXPECT(!strncmp(event, expected, strlen(expected)), "\"%s\", expected \"%s\"",
		  event, expected);
}

static void tracing(const char *on)
{
	KT_REQUIRE(kt_write_file(EVENTS "/events/ferry/enable", on), "ferry/enable: %m");
}

static void tracepoints(void)
{
	const size_t len = 2 * KT_HUGE + 8 * kt.page;
	char *mem = kt_alloc_huge(3 * KT_HUGE), line[1024];
	FILE *trace;
	long ret;

	if (access("/sys/kernel/tracing/instances", W_OK) != 0)
		kt_skip("no tracefs: %m");
	rmdir(EVENTS);
	KT_REQUIRE(mkdir(EVENTS, 0700) == 0, EVENTS ": %m");
	kt_ferry_set("chunk_bytes", "2097152");
	madvise(mem, 3 * KT_HUGE, MADV_NOHUGEPAGE);
	kt_fill_on(mem, KT_HUGE + 8 * kt.page, kt.ddr, SEED);
	kt_fill_on(mem + 2 * KT_HUGE, 4 * kt.page, kt.hbm, SEED);

	kt_migrate(mem, kt.page, kt.hbm, 0, NULL); /* not to be seen */
	tracing("1");
	ret = kt_migrate(mem, len, kt.hbm, 0, NULL);
	tracing("0");
	kt_migrate(mem, kt.page, kt.ddr, 0, NULL); /* nor this */
	kt_param_reset();

	trace = fopen(EVENTS "/trace", "re");
	KT_REQUIRE(trace, "trace: %m");
	expect_event(trace, "batch_begin: ranges=1 flags=0x0 copy_mode=0");
	expect_event(trace, "chunk_begin: addr=%p pages=512 node=%d", (void *)mem,
		     kt.hbm);
	expect_event(
		trace,
		"chunk_end: addr=%p pages=512 node=%d moved=511 populated=0 already=1 "
		"busy=0 nomem=0 hole=0 unsupported=0 huge=0 passes=",
		(void *)mem, kt.hbm);
	expect_event(trace, "chunk_begin: addr=%p pages=512", (void *)(mem + KT_HUGE));
	expect_event(trace,
		     "chunk_end: addr=%p pages=512 node=%d moved=8 populated=0 already=0 "
		     "busy=0 nomem=0 hole=504",
		     (void *)(mem + KT_HUGE), kt.hbm);
	expect_event(trace, "chunk_begin: addr=%p pages=8", (void *)(mem + 2 * KT_HUGE));
	expect_event(trace,
		     "chunk_end: addr=%p pages=8 node=%d moved=0 populated=0 already=4 "
		     "busy=0 nomem=0 hole=4",
		     (void *)(mem + 2 * KT_HUGE), kt.hbm);
	expect_event(trace, "batch_end: ret=%ld", ret);
	KT_EXPECT_EQ(ret, 519);
	KT_EXPECT(!next_event(trace, line, sizeof(line))[0], "one more event: %s", line);
	fclose(trace);
	KT_EXPECT(rmdir(EVENTS) == 0, EVENTS ": %m");
}

static const struct kt_case cases[] = {
	KT_CASE(outcomes),  KT_CASE(no_memory),       KT_CASE(work),
	KT_CASE(in_flight), KT_CASE(readable_by_all), KT_CASE(tracepoints),
};

KT_MAIN(cases)
