/* SPDX-License-Identifier: MIT */
/*
 * Proves what FERRY_MIGRATE_EXCHANGE promises: with HBM full to less than a
 * chunk and DDR down to its watermarks, many times more than is free changes
 * places, while threads write to it; the same batch without the flag runs out
 * of memory. Also that an exchange without need counts as any batch does, that
 * one without a way out ends with nomem, that a signal ends it, and which
 * targets are refused.
 *
 * The kernel says where pages are. Writers touch memory of their own only; what
 * they share with the main thread is atomic.
 */
#include "kmod_test.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>

enum { SEED = 211, PAGES = 256 };

/* ---- without need --------------------------------------------------------- */

static void counts(void)
{
	size_t part = PAGES * kt.page;
	char *mem = kt_alloc(5 * part);
	struct ferry_ioc_result res[5];
	struct ferry_ioc_range range[5] = {
		{.addr = (uintptr_t)mem, .len = part, .node = kt.hbm},
		{.addr = (uintptr_t)mem + part, .len = part, .node = kt.ddr},
		{.addr = (uintptr_t)mem + 2 * part, .len = part, .node = kt.ddr},
		{.addr = (uintptr_t)mem + 3 * part,
		 .len = part,
		 .node = kt.hbm,
		 .flags = FERRY_RANGE_POPULATE},
		{.addr = (uintptr_t)mem + 4 * part, .len = part, .node = kt.hbm},
	};

	kt_fill_on(mem, part, kt.ddr, SEED);
	kt_fill_on(mem + part, part, kt.hbm, SEED);
	kt_fill_on(mem + 2 * part, part, kt.ddr, SEED);
	memset(res, 0xa5, sizeof(res));
	KT_EXPECT_EQ(kt_migrate_batch(FERRY_MIGRATE_EXCHANGE, range, 5, res), 3 * PAGES);
	KT_EXPECT_RESULT(&res[0], .moved = PAGES);
	KT_EXPECT_RESULT(&res[1], .moved = PAGES);
	KT_EXPECT_RESULT(&res[2], .already = PAGES);
	KT_EXPECT_RESULT(&res[3], .populated = PAGES);
	KT_EXPECT_RESULT(&res[4], .hole = PAGES);
	KT_EXPECT_ON(mem, part, kt.hbm);
	KT_EXPECT_ON(mem + part, 2 * part, kt.ddr);
	KT_EXPECT_ON(mem + 3 * part, part, kt.hbm);
	for (size_t i = 0; i < 3; i++)
		KT_EXPECT_DATA(mem + i * part, part, SEED);
}

/* One target is an exchange in which nothing comes back. */
static void one_target(void)
{
	size_t len = 3 * KT_HUGE + 5 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_range range = {
		.addr = (uintptr_t)mem, .len = len, .node = kt.hbm};
	struct ferry_ioc_result res;

	KT_EXPECT_EQ(kt_migrate_batch(FERRY_MIGRATE_EXCHANGE, &range, 1, &res),
		     len / kt.page);
	KT_EXPECT_RESULT(&res, .moved = len / kt.page);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

static void three_targets(void)
{
	static bool memory[KT_MAX_NODE];
	char *mem = kt_alloc_on(3 * kt.page, kt.ddr, SEED);
	struct ferry_ioc_range range[3];
	int n = 0;

	KT_REQUIRE(kt_node_list("/sys/devices/system/node/has_memory", NULL, memory),
		   "has_memory: %m");
	for (int i = 0; i < KT_MAX_NODE && n < 3; i++)
		if (memory[i]) {
			range[n] = (struct ferry_ioc_range){.addr = (uintptr_t)mem +
								    (size_t)n * kt.page,
							    .len = kt.page,
							    .node = i};
			n++;
		}
	if (n < 3)
		kt_skip("needs three nodes with memory");
	KT_EXPECT_EQ(kt_migrate_batch(FERRY_MIGRATE_EXCHANGE, range, 3, NULL), -EINVAL);
	KT_EXPECT_ON(mem, 3 * kt.page, kt.ddr);
}

/* ---- full nodes ------------------------------------------------------------ */

/*
 * Keeps the calling thread to one CPU, or not. What the other CPUs' allocators
 * hold back is then out of reach, and does not make a full node roomy.
 */
static void pin(bool on)
{
	cpu_set_t set;

	memset(&set, on ? 0 : 0xff, sizeof(set));
	if (on)
		CPU_SET(0, &set);
	KT_REQUIRE(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity: %m");
}

/* A thread that counts up the first word of each page, over and over. */
struct writer {
	pthread_t thread;
	char *mem;
	size_t pages;
	_Atomic uint64_t rounds;
	_Atomic bool stop;
};

static void *write_on(void *arg)
{
	struct writer *writer = arg;

	pin(false);
	for (; !atomic_load(&writer->stop); atomic_fetch_add(&writer->rounds, 1))
		for (size_t i = 0; i < writer->pages; i++)
			++*(volatile uint64_t *)(writer->mem + i * kt.page);
	return NULL;
}

static void writer_start(struct writer *writer, char *mem, size_t len)
{
	*writer = (struct writer){.mem = mem, .pages = len / kt.page};
	KT_REQUIRE(pthread_create(&writer->thread, NULL, write_on, writer) == 0,
		   "pthread_create");
	while (!atomic_load(&writer->rounds))
		sched_yield();
}

static void writer_end(struct writer *writer)
{
	size_t bad = 0;

	atomic_store(&writer->stop, true);
	pthread_join(writer->thread, NULL);
	for (size_t i = 0; i < writer->pages; i++)
		bad += *(uint64_t *)(writer->mem + i * kt.page) != writer->rounds;
	KT_EXPECT(bad == 0, "%zu of %zu pages lost a write", bad, writer->pages);
	memset(writer->mem, 0, writer->pages * kt.page);
}

/* Sum of a watermark of the zones of a node, in bytes. */
static size_t watermark(int node, const char *name)
{
	FILE *file = fopen("/proc/zoneinfo", "re");
	char line[256], key[32];
	bool here = false;
	long value;
	size_t sum = 0;
	int nid;

	KT_REQUIRE(file, "zoneinfo: %m");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Node %d, zone %31s", &nid, key) == 2)
			here = nid == node;
		else if (here && sscanf(line, " %31s %ld", key, &value) == 2 &&
			 strcmp(key, name) == 0)
			sum += (size_t)value;
	}
	fclose(file);
	return sum * kt.page;
}

/*
 * Takes all of the HBM node, also what reclaiming yields, and gives @spare bytes
 * back. The kernel lives on the other one.
 */
static void fill_hbm(size_t spare)
{
	const size_t len = 64ul << 20;
	struct ferry_ioc_result res;
	char *mem = kt_alloc(len);
	size_t at = 0;
	int full = 0;

	pin(true);
	kt_write_file("/proc/sys/vm/drop_caches", "3");
	kt_take_node(kt.hbm, watermark(kt.hbm, "high") + (8ul << 20));
	for (; at < len && full < 4; at += spare) {
		kt_migrate(mem + at, spare, kt.hbm, FERRY_RANGE_POPULATE, &res);
		full = res.nomem ? full + 1 : 0;
	}
	KT_REQUIRE(full > 0, "node %d took more than it has", kt.hbm);
	munmap(mem, spare);
}

/*
 * Takes the DDR node down to @room bytes above the watermark high: with less,
 * the kernel would be busy with nothing but reclaiming for itself.
 */
static void fill_ddr(size_t room)
{
	const size_t step = 64 * kt.page, len = 64ul << 20;
	const size_t leave = watermark(kt.ddr, "high") + room;
	char *mem = kt_alloc(len);

	kt_take_node(kt.ddr, leave + (8ul << 20));
	for (size_t at = 0; at < len && kt_node_free(kt.ddr) > leave; at += step)
		kt_migrate(mem + at, step, kt.ddr, FERRY_RANGE_POPULATE, NULL);
}

/* Two halves each: one with a pattern, one for the writer. */
struct side {
	char *mem;
	size_t len;
	struct ferry_ioc_result res;
	struct writer writer;
};

static void side_init(struct side *side, size_t len, int node, uint64_t seed)
{
	side->len = len;
	side->mem = kt_alloc_on(len, node, seed);
	memset(side->mem + len / 2, 0, len / 2);
}

static long swap_sides(unsigned int flags, struct side *a, int to_a, struct side *b,
		       int to_b)
{
	struct ferry_ioc_range range[2] = {
		{.addr = (uintptr_t)a->mem, .len = a->len, .node = to_a},
		{.addr = (uintptr_t)b->mem, .len = b->len, .node = to_b},
	};
	struct ferry_ioc_result res[2];
	long ret = kt_migrate_batch(flags, range, 2, res);

	a->res = res[0];
	b->res = res[1];
	return ret;
}

static void expect_side(struct side *side, int node, uint64_t seed)
{
	const size_t pages = side->len / kt.page;

	KT_EXPECT_EQ(side->res.error, 0);
	/*
	 * What one turn frees, others on a machine this full may take before the
	 * next turn does; it still comes to many times what is free.
	 */
	KT_EXPECT(side->res.nomem <= pages / 2, "%llu of %zu pages had no room",
		  (unsigned long long)side->res.nomem, pages);
	/* A page that a writer holds whenever it is tried counts as busy. */
	KT_EXPECT(side->res.busy * 100 <= pages, "%llu pages busy",
		  (unsigned long long)side->res.busy);
	KT_EXPECT_EQ(kt_sum(&side->res), pages);
	KT_EXPECT_EQ(kt_on(side->mem, side->len, node),
		     side->res.moved + side->res.already);
	KT_EXPECT_DATA(side->mem, side->len / 2, seed);
}

static void full_nodes(void)
{
	const size_t len = 12ul << 20, chunk = kt.info.chunk_bytes;
	const long kills = kt_file_key("/proc/vmstat", "oom_kill");
	struct side a, b;

	if (kt_node_free(kt.hbm) + kt_node_free(kt.ddr) > 8ul << 30)
		kt_skip("the nodes have too much memory to fill");
	alarm(240); /* filling both takes its time on a busy machine */
	side_init(&a, len, kt.ddr, SEED);
	side_init(&b, len, kt.hbm, SEED + 1);
	/* The kernel may still be reclaiming when a node seems full: then once more. */
	for (int tries = 0; tries < 5; tries++) {
		fill_hbm(chunk / 2);
		fill_ddr(2 * chunk);
		/* One range after the other ends when there is no more room. */
		swap_sides(0, &a, kt.hbm, &b, kt.ddr);
		if (a.res.error || a.res.nomem > len / 2 / kt.page)
			break;
		swap_sides(0, &b, kt.hbm, &a, kt.ddr);
	}
	KT_EXPECT_EQ(a.res.error, 0);
	KT_EXPECT(a.res.nomem > len / 2 / kt.page, "only %llu pages had no room",
		  (unsigned long long)a.res.nomem);
	KT_EXPECT_EQ(kt_on(a.mem, len, kt.hbm), a.res.moved);
	printf("    without the flag %llu of %zu pages found room\n",
	       (unsigned long long)a.res.moved, len / kt.page);
	/* What has moved fills the node again. */
	swap_sides(0, &b, kt.hbm, &a, kt.ddr);

	for (unsigned int i = 0; i < kt_rounds(2); i++) {
		const int to_a = i % 2 ? kt.ddr : kt.hbm, to_b = i % 2 ? kt.hbm : kt.ddr;

		writer_start(&a.writer, a.mem + len / 2, len / 2);
		writer_start(&b.writer, b.mem + len / 2, len / 2);
		KT_EXPECT_EQ(swap_sides(FERRY_MIGRATE_EXCHANGE, &a, to_a, &b, to_b),
			     a.res.moved + b.res.moved);
		writer_end(&a.writer);
		writer_end(&b.writer);
		expect_side(&a, to_a, SEED);
		expect_side(&b, to_b, SEED + 1);
	}
	KT_EXPECT_EQ(kt_file_key("/proc/vmstat", "oom_kill"), kills);
}

/* With a full target and nothing that leaves it, an exchange has no way out. */
static void no_way_out(void)
{
	const size_t len = 16ul << 20;
	struct side a, b;

	if (kt_node_free(kt.hbm) > 8ul << 30)
		kt_skip("node %d has too much memory to fill", kt.hbm);
	side_init(&a, len, kt.ddr, SEED);
	side_init(&b, 2 * kt.page, kt.hbm, SEED + 1);
	fill_hbm(kt.info.chunk_bytes / 2);
	swap_sides(FERRY_MIGRATE_EXCHANGE, &a, kt.hbm, &b, kt.ddr);
	KT_EXPECT_EQ(a.res.error, 0);
	KT_EXPECT_EQ(a.res.moved + a.res.nomem, len / kt.page);
	KT_EXPECT(a.res.nomem > 0, "a full node had room for all");
	KT_EXPECT_RESULT(&b.res, .moved = 2);
	KT_EXPECT_EQ(kt_on(a.mem, len, kt.hbm), a.res.moved);
	KT_EXPECT_EQ(kt_on(a.mem, len, kt.ddr), a.res.nomem);
	KT_EXPECT_DATA(a.mem, len / 2, SEED);
}

/* ---- signals ---------------------------------------------------------------- */

static volatile sig_atomic_t ticks;

static void tick(int sig)
{
	(void)sig;
	ticks++;
}

static void interrupted(void)
{
	const size_t len = 24ul << 20;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct itimerspec when = {.it_value.tv_nsec = 5000000};
	struct sigaction action = {.sa_handler = tick};
	struct side a, b;
	timer_t timer;
	long ret;

	side_init(&a, len, kt.ddr, SEED);
	side_init(&b, len, kt.hbm, SEED + 1);
	sigaction(SIGUSR1, &action, NULL);
	timer_create(CLOCK_MONOTONIC, &event, &timer);
	timer_settime(timer, 0, &when, NULL);
	ret = swap_sides(FERRY_MIGRATE_EXCHANGE, &a, kt.hbm, &b, kt.ddr);
	KT_EXPECT_EQ(ticks, 1);
	KT_EXPECT_EQ(ret == -EINTR ? 0 : ret, a.res.moved + b.res.moved);
	KT_EXPECT_EQ(kt_on(a.mem, len, kt.hbm), a.res.moved);
	KT_EXPECT_EQ(kt_on(b.mem, len, kt.ddr), b.res.moved);
	if (a.res.error)
		KT_EXPECT(a.res.error == -EINTR || a.res.error == -ECANCELED,
			  "error is %d", a.res.error);
	else
		KT_EXPECT_EQ(a.res.moved, len / kt.page);
	KT_EXPECT_DATA(a.mem, len / 2, SEED);
	KT_EXPECT_DATA(b.mem, len / 2, SEED + 1);
	printf("    the signal came after %ld pages\n", ret);
}

static const struct kt_case cases[] = {
	KT_CASE(counts),     KT_CASE(one_target), KT_CASE(three_targets),
	KT_CASE(full_nodes), KT_CASE(no_way_out), KT_CASE(interrupted),
};

KT_MAIN(cases)
