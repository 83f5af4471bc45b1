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

#define NUMA_BALANCING "/proc/sys/kernel/numa_balancing"

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

/*
 * Are so many pages of a side on a node? The kernel may still be compacting, for
 * filling asks for huge pages until there are none; then wait for it.
 */
static void expect_on(const struct side *side, int node, size_t pages)
{
	for (int tries = 0; tries < 100 && kt_on(side->mem, side->len, node) != pages;
	     tries++)
		usleep(100000);
	KT_EXPECT_EQ(kt_on(side->mem, side->len, node), pages);
}

static void expect_side(struct side *side, int node, uint64_t seed)
{
	KT_EXPECT_EQ(side->res.error, 0);
	KT_EXPECT_SUM(&side->res, side->len);
	KT_EXPECT(side->res.moved > side->len / kt.page / 2, "only %llu pages moved",
		  (unsigned long long)side->res.moved);
	expect_on(side, node, side->res.moved + side->res.already);
	KT_EXPECT_DATA(side->mem, side->len / 2, seed);
}

/*
 * All find room: but pages that the kernel held for the moment, or that were left
 * on the wrong side for that reason in the round before, make none for others.
 */
static void expect_room(const struct side *a, const struct side *b)
{
	const uint64_t nomem = a->res.nomem + b->res.nomem;
	const uint64_t stayed =
		a->res.busy + b->res.busy + a->res.already + b->res.already;

	if (stayed)
		printf("    %llu pages stayed\n", (unsigned long long)stayed);
	KT_EXPECT(nomem <= stayed, "%llu pages had no room, %llu stayed",
		  (unsigned long long)nomem, (unsigned long long)stayed);
}

/* Fills the HBM node until @side, on the DDR node, finds no room there. */
static void fill_hbm_for_sure(const struct side *side)
{
	const size_t chunk = kt.info.chunk_bytes;

	/* The kernel may still be reclaiming when a node seems full: then once more. */
	for (int tries = 0; tries < 5; tries++) {
		long moved;

		fill_hbm(chunk / 2);
		moved = kt_migrate(side->mem, side->len, kt.hbm, 0, NULL);
		KT_EXPECT_EQ(kt_migrate(side->mem, side->len, kt.ddr, 0, NULL), moved);
		if ((size_t)moved <= chunk / kt.page)
			return;
	}
	KT_REQUIRE(false, "node %d does not become full", kt.hbm);
}

static void full_nodes(void)
{
	const size_t len = 12ul << 20;
	const unsigned int rounds = kt_rounds(2);
	const long kills = kt_file_key("/proc/vmstat", "oom_kill");
	struct side a, b, *on_ddr = rounds % 2 ? &b : &a;
	char balancing[16];

	if (kt_node_free(kt.hbm) + kt_node_free(kt.ddr) > 8ul << 30)
		kt_skip("the nodes have too much memory to fill");
	alarm(240 * kt_slowness()); /* filling both takes its time on a busy machine */
	/* It brings what the writers touch back to the DDR node. */
	kt_read_file(NUMA_BALANCING, balancing, sizeof(balancing));
	kt_write_file(NUMA_BALANCING, "0");
	side_init(&a, len, kt.ddr, SEED);
	side_init(&b, len, kt.hbm, SEED + 1);
	fill_hbm_for_sure(&a);
	fill_ddr(2ul * kt.info.chunk_bytes);
	/* What is on its target beforehand would make no room for the other. */
	expect_on(&a, kt.ddr, len / kt.page);
	expect_on(&b, kt.hbm, len / kt.page);

	for (unsigned int i = 0; i < rounds; i++) {
		const int to_a = i % 2 ? kt.ddr : kt.hbm, to_b = i % 2 ? kt.hbm : kt.ddr;

		writer_start(&a.writer, a.mem + len / 2, len / 2);
		writer_start(&b.writer, b.mem + len / 2, len / 2);
		KT_EXPECT_EQ(swap_sides(FERRY_MIGRATE_EXCHANGE, &a, to_a, &b, to_b),
			     a.res.moved + b.res.moved);
		writer_end(&a.writer);
		writer_end(&b.writer);
		expect_room(&a, &b);
		expect_side(&a, to_a, SEED);
		expect_side(&b, to_b, SEED + 1);
	}
	/*
	 * Without the flag, the first range ends when there is no more room. What the
	 * kernel has reclaimed meanwhile is filled before.
	 */
	fill_hbm_for_sure(on_ddr);
	swap_sides(0, on_ddr, kt.hbm, on_ddr == &a ? &b : &a, kt.ddr);
	KT_EXPECT_EQ(on_ddr->res.error, 0);
	KT_EXPECT(on_ddr->res.nomem > len / 2 / kt.page, "only %llu pages had no room",
		  (unsigned long long)on_ddr->res.nomem);
	expect_on(on_ddr, kt.hbm, on_ddr->res.moved + on_ddr->res.already);
	printf("    without the flag %llu of %zu pages found room\n",
	       (unsigned long long)on_ddr->res.moved, len / kt.page);
	KT_EXPECT_EQ(kt_file_key("/proc/vmstat", "oom_kill"), kills);
	kt_write_file(NUMA_BALANCING, balancing);
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
