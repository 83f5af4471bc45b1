/* SPDX-License-Identifier: MIT */
/*
 * Proves with each engine, through libferry: every outcome of a migration is
 * reported right, the counts add up to the pages, pages are where they should
 * be by the kernel's view, and data is unharmed. Single-threaded, with child
 * processes.
 */
#include "api_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { SEED = 77, PAGES = 2000 };

static void engine_is_the_one_demanded(void)
{
	const char *why = NULL, *name = ferry_engine(&why);

	KT_EXPECT(api_engine_is(name), "the engine is %s", name);
	KT_EXPECT(why && *why, "no reason given");
	printf("     %s: %s\n", name, why);
}

/* There and back; what is there already is not moved again. */
static void moves(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);

	for (int i = 0; i < 2; i++) {
		API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = PAGES);
		KT_EXPECT_ON(mem, len, kt.hbm);
		KT_EXPECT_DATA(mem, len, SEED);
		API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .already = PAGES);
		API_EXPECT(api_migrate_async(mem, len, kt.ddr, 0), .moved = PAGES);
		KT_EXPECT_ON(mem, len, kt.ddr);
		KT_EXPECT_DATA(mem, len, SEED);
		API_EXPECT(api_migrate_async(mem, len, kt.ddr, 0), .already = PAGES);
	}
	API_EXPECT(api_migrate(mem + kt.page - 1, 2, kt.hbm, 0), .moved = 2);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), 2);
	API_EXPECT(api_migrate(mem, 0, kt.hbm, 0), .moved = 0);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* The node with or without CPUs that is nearest to a node. */
static int nearest(int from, bool with_cpus)
{
	static bool memory[KT_MAX_NODE], cpu[KT_MAX_NODE];
	char path[80], distances[1024], *p = distances;
	int best = -1;
	long least = 0;

	kt_node_list("/sys/devices/system/node/has_memory", NULL, memory);
	kt_node_list("/sys/devices/system/node/has_cpu", NULL, cpu);
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/distance", from);
	KT_REQUIRE(kt_read_file(path, distances, sizeof(distances)), "%s: %m", path);
	/* A distance for each node, in order; here they have no gaps. */
	for (int i = 0; i < KT_MAX_NODE && memory[i]; i++) {
		long distance = strtol(p, &p, 10);

		if (cpu[i] == with_cpus && (best < 0 || distance < least)) {
			best = i;
			least = distance;
		}
	}
	return best;
}

/* FERRY_NODE_DDR and _HBM are the nearest to the calling thread's CPU. */
static void nearest_of_tier(void)
{
	size_t len = 16 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_result r;
	cpu_set_t all;

	KT_REQUIRE(!sched_getaffinity(0, sizeof(all), &all), "sched_getaffinity: %m");
	for (int i = 0; i < CPU_SETSIZE; i++) {
		unsigned int cpu, node;
		cpu_set_t one;

		if (!CPU_ISSET(i, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		KT_REQUIRE(!sched_setaffinity(0, sizeof(one), &one),
			   "sched_setaffinity: %m");
		KT_REQUIRE(!getcpu(&cpu, &node), "getcpu: %m");
		r = api_migrate_async(mem, len, FERRY_NODE_HBM, 0);
		API_EXPECT_SUM(r, len);
		KT_EXPECT_ON(mem, len, nearest((int)node, false));
		r = api_migrate(mem, len, FERRY_NODE_DDR, 0);
		API_EXPECT_SUM(r, len);
		KT_EXPECT_ON(mem, len, nearest((int)node, true));
	}
	KT_EXPECT_DATA(mem, len, SEED);
}

/* Several targets and overlaps in one batch. */
static void batch(void)
{
	size_t p = kt.page, len = PAGES * p;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_range range[] = {
		{mem, len, kt.hbm, 0},
		{mem + 100 * p, 300 * p, kt.ddr, 0},
		{mem + 200 * p, 10 * p, kt.hbm, 0},
		{mem + 1990 * p, 10 * p, kt.hbm, 0},
	};
	struct ferry_result result;

	KT_EXPECT_EQ(ferry_migrate(range, 4, &result, sizeof(result)), 0);
	API_EXPECT(result, .moved = PAGES - 290, .already = 290);
	KT_EXPECT_ON(mem, 100 * p, kt.hbm);
	KT_EXPECT_ON(mem + 100 * p, 100 * p, kt.ddr);
	KT_EXPECT_ON(mem + 200 * p, 10 * p, kt.hbm);
	KT_EXPECT_ON(mem + 210 * p, 190 * p, kt.ddr);
	KT_EXPECT_ON(mem + 400 * p, 1600 * p, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

/*
 * A reservation of 64 pages: 8 of anonymous memory, 8 nothing, 8 of a file, 8 shared,
 * 8 read-only anonymous, 8 of a private file with copies of its own, 16 untouched.
 */
static char *patchwork(void)
{
	const int fixed = MAP_FIXED | MAP_PRIVATE;
	size_t p = kt.page, part = 8 * p;
	char *mem = kt_alloc(64 * p);
	int fd = memfd_create("file", MFD_CLOEXEC);

	KT_REQUIRE(fd >= 0 && !ftruncate(fd, (off_t)part), "memfd: %m");
	kt_fill_on(mem, part, kt.ddr, SEED);
	munmap(mem + part, part);
	KT_REQUIRE(mmap(mem + 2 * part, part, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED &&
			   mmap(mem + 3 * part, part, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS, -1,
				0) != MAP_FAILED &&
			   mmap(mem + 5 * part, part, PROT_READ | PROT_WRITE, fixed, fd,
				0) != MAP_FAILED,
		   "mmap: %m");
	close(fd);
	kt_fill_on(mem + 2 * part, 4 * part, kt.ddr, SEED + 1);
	KT_REQUIRE(!mprotect(mem + 4 * part, part, PROT_READ), "mprotect: %m");
	return mem;
}

static void several_mappings(void)
{
	size_t part = 8 * kt.page;
	char *mem = patchwork();

	API_EXPECT(api_migrate(mem, 8 * part, kt.hbm, 0), .moved = 16, .hole = 24,
		   .unsupported = 24);
	KT_EXPECT_ON(mem, part, kt.hbm);
	KT_EXPECT_ON(mem + 4 * part, part, kt.hbm);
	KT_EXPECT_ON(mem + 2 * part, 2 * part, kt.ddr);
	KT_EXPECT_ON(mem + 5 * part, part, kt.ddr);
	KT_EXPECT_EQ(kt_on(mem + 6 * part, 2 * part, kt.ddr), 0);
	KT_EXPECT_EQ(kt_on(mem + 6 * part, 2 * part, kt.hbm), 0);
	api_expect_query(mem, 8 * part);
	KT_EXPECT_DATA(mem, part, SEED);
	KT_EXPECT_DATA(mem + 2 * part, 4 * part, SEED + 1);

	/* Populating fills the untouched end, and nothing else. */
	API_EXPECT(api_migrate(mem, 8 * part, kt.hbm, FERRY_POPULATE), .already = 16,
		   .populated = 16, .hole = 8, .unsupported = 24);
	KT_EXPECT_ON(mem + 6 * part, 2 * part, kt.hbm);
	KT_EXPECT_DATA(mem, part, SEED);
	KT_EXPECT_DATA(mem + 2 * part, 4 * part, SEED + 1);
	for (size_t i = 0; i < 2 * part; i++)
		KT_REQUIRE(!mem[6 * part + i], "populated memory is not zero");
}

/* The kernel's special mappings and the stack. */
static void special_mappings(void)
{
	static const char *const names[] = {"[vdso]", "[vvar]"};
	char on_stack[1];
	struct ferry_result r;
	size_t len;

	for (int i = 0; i < 2; i++) {
		void *map = kt_find_map(names[i], &len);

		if (map)
			API_EXPECT(api_migrate(map, len, kt.hbm, FERRY_POPULATE),
				   .unsupported = len / kt.page);
	}
	on_stack[0] = 1;
	r = api_migrate(on_stack, 1, kt.hbm, 0);
	API_EXPECT_SUM(r, kt.page);
	KT_EXPECT_EQ(r.moved + r.already + r.busy, 1);
}

static void holes(void)
{
	size_t p = kt.page, len = PAGES * p;
	char *mem = kt_alloc(len);
	volatile char zero;

	/* Every fourth page is read: the zero page. Every fourth is written. */
	for (size_t i = 0; i < PAGES; i += 4) {
		zero = mem[i * p];
		mem[(i + 1) * p] = 1;
	}
	(void)zero;
	API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = PAGES / 4,
		   .hole = PAGES / 4 * 3);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), PAGES / 4);
	api_expect_query(mem, len);
	API_EXPECT(api_migrate(mem, len, kt.ddr, FERRY_POPULATE), .moved = PAGES / 4,
		   .populated = PAGES / 4 * 3);
	KT_EXPECT_ON(mem, len, kt.ddr);
	for (size_t i = 0; i < PAGES; i++)
		KT_EXPECT_EQ(mem[i * p], i % 4 == 1);
}

/* Holes of a mapping whose own policy says otherwise; the thread's policy stays. */
static void populate_against_policies(void)
{
	size_t len = PAGES * kt.page;
	unsigned long want = 1UL << kt.ddr, nodes[KT_MAX_NODE / 64] = {0};
	char *mem = kt_alloc(len), *other = kt_alloc(len);
	int mode = -1;

	KT_REQUIRE(!syscall(SYS_mbind, mem, len, MPOL_BIND, &want, 64, 0), "mbind: %m");
	want |= 1UL << kt.hbm;
	KT_REQUIRE(!syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &want, 64),
		   "set_mempolicy: %m");
	API_EXPECT(api_migrate(mem, len, kt.hbm, FERRY_POPULATE), .populated = PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	API_EXPECT(api_migrate_async(other, len, kt.hbm, FERRY_POPULATE),
		   .populated = PAGES);
	KT_EXPECT_ON(other, len, kt.hbm);
	KT_REQUIRE(!syscall(SYS_get_mempolicy, &mode, nodes, KT_MAX_NODE + 1, NULL, 0),
		   "get_mempolicy: %m");
	KT_EXPECT_EQ(mode, MPOL_INTERLEAVE);
	KT_EXPECT_EQ(nodes[0], want);
}

/* Pages in a pipe stay and are busy, wherever in the range; later they move. */
static void pinned(void)
{
	size_t p = kt.page, len = PAGES * p;
	char *mem = kt_alloc_on(len, kt.ddr, SEED), *copy = kt_alloc(8 * p);
	struct iovec iov[] = {{mem, 2 * p}, {mem + 700 * p, 5 * p}, {mem + 1999 * p, p}};
	struct ferry_result r;
	int fd[2];

	KT_REQUIRE(!pipe(fd) && vmsplice(fd[1], iov, 3, 0) == (ssize_t)(8 * p),
		   "vmsplice: %m");
	API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = PAGES - 8, .busy = 8);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), PAGES - 8);
	KT_EXPECT_ON(mem + 700 * p, 5 * p, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);
	KT_REQUIRE(read(fd[0], copy, 8 * p) == (ssize_t)(8 * p), "read: %m");
	for (int i = 0; i < 100; i++) {
		r = api_migrate_async(mem, len, kt.hbm, 0);
		if (!r.busy)
			break;
		usleep(10000);
	}
	API_EXPECT_SUM(r, len);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* What a child shares stays and is busy; what either has copied moves. */
static void shared_with_child(void)
{
	size_t p = kt.page, len = PAGES * p;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct kt_event ready, done;
	pid_t pid;

	kt_event_init(&ready);
	kt_event_init(&done);
	pid = kt_fork();
	if (pid == 0) {
		mem[100 * p]++;
		kt_event_post(&ready);
		kt_event_wait(&done);
		mem[100 * p]--;
		KT_EXPECT_DATA(mem, len, SEED);
		kt_child_end();
	}
	kt_event_wait(&ready);
	API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = 1, .busy = PAGES - 1);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), 1);
	KT_EXPECT_DATA(mem, len, SEED);
	kt_event_post(&done);
	KT_EXPECT_EQ(kt_wait(pid), 0);
	API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = PAGES - 1, .already = 1);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* Takes all memory of a node but about @leave bytes, in huge pages. */
static void occupy(int node, size_t leave)
{
	unsigned long nodes[KT_MAX_NODE / 64] = {0};
	char path[80];
	size_t len;
	void *mem;
	long free_kb;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	free_kb = kt_file_key(path, "MemFree:");
	KT_REQUIRE(free_kb > 0, "no MemFree in %s", path);
	if ((size_t)free_kb * 1024 < leave + KT_HUGE)
		return;
	len = ((size_t)free_kb * 1024 - leave) & ~(KT_HUGE - 1);
	mem = kt_alloc_huge(len);
	nodes[node / 64] = 1UL << node % 64;
	KT_REQUIRE(
		!syscall(SYS_mbind, mem, len, MPOL_PREFERRED, nodes, KT_MAX_NODE + 1, 0),
		"mbind: %m");
	KT_REQUIRE(!madvise(mem, len, 23 /* MADV_POPULATE_WRITE */), "populating: %m");
}

/* More than the target has room for: the rest stays, in order and unharmed. */
static void target_full(void)
{
	size_t len = 128 << 20;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_result r;

	occupy(kt.hbm, 48 << 20);
	for (int i = 0; i < 2; i++) {
		r = i ? api_migrate(mem, len, kt.hbm, 0)
		      : api_migrate_async(mem, len, kt.hbm, 0);
		API_EXPECT_SUM(r, len);
		KT_EXPECT(r.nomem > 0, "all had room");
		KT_EXPECT(i || r.moved > 0, "nothing moved");
		KT_EXPECT_EQ(r.nomem + r.moved + r.already, len / kt.page);
		KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), r.moved + r.already);
		KT_EXPECT_EQ(kt_on(mem, len, kt.ddr), r.nomem);
		KT_EXPECT_DATA(mem, len, SEED);
		printf("     %lu moved, %lu had no room\n", (long)r.moved, (long)r.nomem);
	}
}

/* Wrong arguments are refused before anything is done. */
static void refused(void)
{
	size_t len = 16 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	const struct {
		struct ferry_range range;
		int err;
	} cases[] = {
		{{mem, len, kt.hbm, 4}, -EINVAL},
		{{mem, SIZE_MAX - 4096, kt.hbm, 0}, -EINVAL},
		{{(void *)(UINTPTR_MAX - 5), 5, kt.hbm, 0}, -EINVAL},
		{{mem, len, -1, 0}, -ENODEV},
		{{mem, len, 63, 0}, -ENODEV},
		{{mem, len, 5000, 0}, -ENODEV},
	};
	struct ferry_result result;
	ferry_request *request = NULL;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ferry_range batch[] = {{mem, len, kt.hbm, 0}, cases[i].range};

		KT_EXPECT_EQ(ferry_migrate(batch, 2, &result, sizeof(result)),
			     cases[i].err);
		KT_EXPECT_EQ(ferry_submit(batch, 2, &request), cases[i].err);
		KT_EXPECT(!request, "a request was made");
	}
	KT_EXPECT_EQ(ferry_migrate(NULL, 1, &result, sizeof(result)), -EINVAL);
	KT_EXPECT_EQ(ferry_migrate(NULL, 0, &result, 0), -EINVAL);
	KT_EXPECT_EQ(ferry_migrate(NULL, 0, NULL, 0), 0);
	KT_EXPECT_EQ(ferry_submit(NULL, 0, NULL), -EINVAL);
	KT_EXPECT_EQ(ferry_query_pages(mem, SIZE_MAX, NULL), -EINVAL);
	KT_EXPECT_EQ(ferry_query_pages(mem, len, NULL), -EINVAL);
	KT_EXPECT_EQ(ferry_query(mem, SIZE_MAX, NULL, 0), -EINVAL);
	KT_EXPECT_EQ(ferry_stats(NULL, 1), -EINVAL);
	KT_EXPECT_ON(mem, len, kt.ddr);
}

/* Memory that no process has is holes, not an error. */
static void no_such_memory(void)
{
	size_t len = 4 << 20, pages = len / kt.page;
	void *kernel = (void *)0xffff800000000000, *beyond = (void *)0x7fffffe00000;
	void *between = (void *)0x800000000000;

	API_EXPECT(api_migrate(kernel, len, kt.hbm, FERRY_POPULATE), .hole = pages);
	API_EXPECT(api_migrate(between, len, kt.hbm, FERRY_POPULATE | FERRY_STAY),
		   .hole = pages);
	API_EXPECT(api_migrate(beyond, len, kt.hbm, FERRY_POPULATE), .hole = pages);
	api_expect_query(kernel, len);
	api_expect_query(between, len);
	api_expect_query(NULL, len);
}

#define CPUSET "/sys/fs/cgroup/ferry-api"

static void outside_cpuset(void)
{
	size_t len = 16 * kt.page;
	char *mem = kt_alloc_on(len, kt.hbm, SEED), text[16];
	struct ferry_range range[] = {{mem, len / 2, kt.ddr, 0}, {mem, len, kt.hbm, 0}};
	ferry_request *request;
	pid_t pid;

	snprintf(text, sizeof(text), "%d", kt.ddr);
	if (access("/sys/fs/cgroup/cgroup.controllers", R_OK) ||
	    !kt_write_file("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset") ||
	    (mkdir(CPUSET, 0755) && errno != EEXIST) ||
	    !kt_write_file(CPUSET "/cpuset.mems", text))
		kt_skip("no cpuset in cgroup2: %m");
	pid = kt_fork();
	if (pid == 0) {
		KT_REQUIRE(kt_write_file(CPUSET "/cgroup.procs", "0"), "joining: %m");
		kt_fill_on(mem, len, kt.ddr, SEED); /* its own copies */
		KT_EXPECT_EQ(ferry_migrate(range, 2, NULL, 0), -EACCES);
		KT_EXPECT_EQ(ferry_submit(range, 2, &request), -EACCES);
		KT_EXPECT_ON(mem, len, kt.ddr);
		range[1].node = FERRY_NODE_HBM;
		KT_EXPECT_EQ(ferry_migrate(range, 2, NULL, 0), -EACCES);
		KT_EXPECT_EQ(ferry_migrate(range, 1, NULL, 0), 0);
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_wait(pid), 0);
	rmdir(CPUSET);
}

/* Structs that the caller knows shorter or longer than the library. */
static void result_sizes(void)
{
	size_t len = 16 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_range range = {mem, len, kt.hbm, 0};
	struct {
		struct ferry_result result;
		char tail[24], guard;
	} longer;
	struct ferry_result shorter;

	memset(&longer, 0xa5, sizeof(longer));
	memset(&shorter, 0xa5, sizeof(shorter));
	KT_EXPECT_EQ(ferry_migrate(&range, 1, &longer.result, sizeof(longer) - 1 - 7), 0);
	API_EXPECT(longer.result, .moved = 16);
	for (size_t i = 0; i < sizeof(longer.tail); i++)
		KT_EXPECT_EQ(longer.tail[i], 0);
	KT_EXPECT_EQ((unsigned char)longer.guard, 0xa5);
	KT_EXPECT_EQ(ferry_migrate(&range, 1, &shorter, 16), 0);
	KT_EXPECT_EQ(shorter.moved, 0);
	KT_EXPECT_EQ(shorter.populated, 0xa5a5a5a5a5a5a5a5);
}

static void statistics(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_stats stats;

	KT_EXPECT_EQ(ferry_stats(&stats, sizeof(stats)), 0);
	KT_EXPECT_EQ(stats.requests, 0);
	api_migrate(mem, len, kt.hbm, 0);
	api_migrate_async(mem, len, kt.hbm, 0);
	api_migrate_async(kt_alloc(len), len, kt.hbm, 0);
	KT_EXPECT_EQ(ferry_stats(&stats, sizeof(stats)), 0);
	KT_EXPECT_EQ(stats.requests, 3);
	KT_EXPECT_EQ(stats.completed, 3);
	API_EXPECT(stats.total, .moved = PAGES, .already = PAGES, .hole = PAGES);
}

/* Pages of all kinds and both nodes, asked for at odd places. */
static void queries(void)
{
	size_t p = kt.page, len = PAGES * p;
	char *mem = kt_alloc(len), *huge = kt_alloc_huge(4 * KT_HUGE);
	uint64_t count[2];
	int16_t one;

	for (size_t i = 0; i < PAGES; i += 3)
		kt_fill_on(mem + i * p, p, i % 2 ? kt.ddr : kt.hbm, SEED);
	kt_fill_on(huge, KT_HUGE, kt.hbm, SEED);
	kt_fill_on(huge + 2 * KT_HUGE, 7 * p, kt.ddr, SEED);
	api_expect_query(mem, len);
	api_expect_query(huge, 4 * KT_HUGE);
	api_expect_query(huge - 16 * p, KT_HUGE);
	KT_EXPECT_EQ(ferry_query_pages(mem + 5, 1, &one), 0);
	KT_EXPECT_EQ(one, kt.hbm);
	KT_EXPECT_EQ(ferry_query_pages(mem, 0, NULL), 0);
	KT_EXPECT_EQ(ferry_query(mem + p - 1, 2, count, 1), 0);
	KT_EXPECT_EQ(ferry_query(mem, 0, count, 2), 0);
	KT_EXPECT_EQ(count[0] + count[1], 0);
}

static const struct kt_case cases[] = {
	API_CASE(engine_is_the_one_demanded),
	API_CASE(moves),
	API_CASE(nearest_of_tier),
	API_CASE(batch),
	API_CASE(several_mappings),
	API_CASE(special_mappings),
	API_CASE(holes),
	API_CASE(populate_against_policies),
	API_CASE(pinned),
	API_CASE(shared_with_child),
	API_CASE(target_full),
	API_CASE(refused),
	API_CASE(no_such_memory),
	API_CASE(outside_cpuset),
	API_CASE(result_sizes),
	API_CASE(statistics),
	API_CASE(queries),
};

int main(int argc, char **argv)
{
	return api_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
