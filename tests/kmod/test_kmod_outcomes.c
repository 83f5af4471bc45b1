/* SPDX-License-Identifier: MIT */
/*
 * Proves the counts of a migration of plain private anonymous memory: moved,
 * already, populated, hole and nomem, alone and mixed, over several VMAs and
 * gaps, whatever their protection; that the counts add up, the return value is
 * moved + populated, the kernel agrees where each page is, and the data and the
 * mappings are as before. Pinned and shared pages: test_kmod_busy; other kinds
 * of mappings: test_kmod_kinds. Single-threaded.
 */
#include "kmod_test.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { SEED = 11, PAGES = 256 };

static void moved_and_already(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res;

	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), PAGES);
	KT_EXPECT_RESULT(&res, .moved = PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);

	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .already = PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);

	/* A third goes back; then the whole does, some of it being there. */
	KT_EXPECT_EQ(kt_migrate(mem + 10 * kt.page, 80 * kt.page, kt.ddr, 0, &res), 80);
	KT_EXPECT_RESULT(&res, .moved = 80);
	KT_EXPECT_EQ(kt_on(mem, len, kt.ddr), 80);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.ddr, 0, &res), PAGES - 80);
	KT_EXPECT_RESULT(&res, .moved = PAGES - 80, .already = 80);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* Ranges longer than a chunk, beginning and ending inside one. */
static void many_chunks(void)
{
	size_t len = 3 * KT_HUGE + 5 * kt.page;
	char *mem = kt_alloc(len + KT_HUGE), *at = mem + 3 * kt.page;
	struct ferry_ioc_result res;

	kt_fill_on(at, len, kt.ddr, SEED);
	KT_EXPECT_EQ(kt_migrate(at, len, kt.hbm, 0, &res), len / kt.page);
	KT_EXPECT_RESULT(&res, .moved = len / kt.page);
	KT_EXPECT_ON(at, len, kt.hbm);
	KT_EXPECT_DATA(at, len, SEED);
	/* The neighbours were not touched. */
	KT_EXPECT_EQ(kt_on(mem, len + KT_HUGE, kt.hbm), len / kt.page);
	KT_EXPECT_EQ(kt_on(mem, len + KT_HUGE, kt.ddr), 0);
}

static void populated(void)
{
	size_t len = 600 * kt.page;
	char *mem = kt_alloc(len);
	struct ferry_ioc_result res;

	/* Without the flag a hole stays one. */
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .hole = 600);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm) + kt_on(mem, len, kt.ddr), 0);

	kt_fill_on(mem, 100 * kt.page, kt.ddr, SEED);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res), 600);
	KT_EXPECT_RESULT(&res, .moved = 100, .populated = 500);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, 100 * kt.page, SEED);
	for (size_t i = 100 * kt.page; i < len; i += sizeof(long))
		if (*(long *)(mem + i)) {
			KT_EXPECT(false, "populated byte %zu is not 0", i);
			break;
		}
	kt_fill(mem, len, SEED + 1);
	KT_EXPECT_DATA(mem, len, SEED + 1);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res), 0);
	KT_EXPECT_RESULT(&res, .already = 600);
	KT_EXPECT_DATA(mem, len, SEED + 1);

	/* Populated memory is ordinary memory: it is given back and comes anew. */
	madvise(mem, len, MADV_DONTNEED);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.ddr, FERRY_RANGE_POPULATE, &res), 600);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_EQ(mem[0], 0);
}

/* A fresh mapping of which not even page tables exist. */
static void populated_afresh(void)
{
	size_t len = KT_HUGE + KT_HUGE / 2;
	char *mem = kt_alloc(len);
	struct ferry_ioc_result res;

	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res),
		     len / kt.page);
	KT_EXPECT_RESULT(&res, .populated = len / kt.page);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_EQ(kt_smaps(mem, len, "Rss"), len / 1024);
}

/* Reading an untouched page maps the zero page, which is a hole. */
static void zero_page(void)
{
	size_t len = 64 * kt.page;
	volatile char *mem = kt_alloc(len);
	struct ferry_ioc_result res;
	int sum = 0;

	for (size_t i = 0; i < len; i += kt.page)
		sum += mem[i];
	KT_EXPECT_EQ(sum, 0);
	KT_EXPECT_EQ(kt_migrate((void *)mem, len, kt.hbm, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .hole = 64);
	for (size_t i = 0; i < len; i += kt.page)
		sum += mem[i];
	KT_EXPECT_EQ(sum, 0);

	KT_EXPECT_EQ(kt_migrate((void *)mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res),
		     64);
	KT_EXPECT_RESULT(&res, .populated = 64);
	KT_EXPECT_ON((void *)mem, len, kt.hbm);
	kt_fill((void *)mem, len, SEED);
	KT_EXPECT_DATA((void *)mem, len, SEED);
}

/* A large reservation of which little is used must be cheap and right. */
static void sparse(void)
{
	const size_t len = 4ul << 30;
	size_t used = 16 * kt.page, at[] = {0, 1ul << 30, len - 16 * kt.page};
	char *mem = kt_alloc(len);
	struct ferry_ioc_result res;
	uint64_t start;

	if (kt.info.max_bytes < len)
		kt_skip("a request is limited to less than 4 GiB");
	for (int i = 0; i < 3; i++)
		kt_fill_on(mem + at[i], used, kt.ddr, SEED + (uint64_t)i);
	start = kt_now_us();
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 48);
	KT_EXPECT(kt_now_us() - start < 5000000ULL * kt_slowness(), "took %llu ms",
		  (unsigned long long)(kt_now_us() - start) / 1000);
	KT_EXPECT_RESULT(&res, .moved = 48, .hole = len / kt.page - 48);
	for (int i = 0; i < 3; i++) {
		KT_EXPECT_ON(mem + at[i], used, kt.hbm);
		KT_EXPECT_DATA(mem + at[i], used, SEED + (uint64_t)i);
	}
	KT_EXPECT_EQ(kt_smaps(mem, len, "Rss"), 48 * kt.page / 1024);
}

/* kt_on() of PROT_NONE memory, of which 6.1's move_pages(2) says nothing. */
static size_t on_closed(char *mem, size_t len, int node)
{
	size_t on;

	mprotect(mem, len, PROT_READ);
	on = kt_on(mem, len, node);
	mprotect(mem, len, PROT_NONE);
	return on;
}

/*
 * One range over VMAs of several protections and gaps:
 * page  0 used, 8 never touched, 16 gap, 24 read-only, 32 no access, 40 used
 */
static void several_vmas(void)
{
	size_t part = 8 * kt.page, len = 6 * part;
	char *mem = kt_alloc(len);
	struct ferry_ioc_result res;
	char perms[5];

	kt_fill_on(mem, part, kt.ddr, SEED);
	kt_fill_on(mem + 3 * part, 3 * part, kt.ddr, SEED);
	munmap(mem + 2 * part, part);
	mprotect(mem + 3 * part, part, PROT_READ);
	mprotect(mem + 4 * part, part, PROT_NONE);

	for (int round = 0; round < 4; round++) {
		int to = round % 2 ? kt.ddr : kt.hbm;
		unsigned int flags = round < 2 ? 0 : FERRY_RANGE_POPULATE;
		long ret = kt_migrate(mem, len, to, flags, &res);

		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_SUM(&res, len);
		KT_EXPECT_EQ(ret, res.moved + res.populated);
		if (round == 2) {
			KT_EXPECT_EQ(res.populated, 8);
			KT_EXPECT_EQ(res.hole, 8);
		} else {
			KT_EXPECT_EQ(res.populated, 0);
			KT_EXPECT_EQ(res.hole, round < 2 ? 16 : 8);
		}
		KT_EXPECT_ON(mem, part, to);
		KT_EXPECT_ON(mem + 5 * part, part, to);
		kt_perms(mem + 2 * part, perms);
		KT_EXPECT(perms[0] == 0, "the gap is mapped %s", perms);
		kt_perms(mem + 3 * part, perms);
		KT_EXPECT(!strcmp(perms, "r--p"), "read-only became %s", perms);
		KT_EXPECT(!kt_writable(mem + 3 * part), "read-only memory is writable");
		kt_perms(mem + 4 * part, perms);
		KT_EXPECT(!strcmp(perms, "---p"), "no access became %s", perms);
		KT_EXPECT(!kt_readable(mem + 4 * part), "no-access memory is readable");
		KT_EXPECT_EQ(kt_on(mem, 4 * part, to) +
				     on_closed(mem + 4 * part, part, to) +
				     kt_on(mem + 5 * part, part, to),
			     res.moved + res.populated + res.already);
	}
	mprotect(mem + 3 * part, 2 * part, PROT_READ | PROT_WRITE);
	KT_EXPECT_DATA(mem, part, SEED);
	KT_EXPECT_DATA(mem + 3 * part, 3 * part, SEED);
	kt_fill(mem + 3 * part, 3 * part, SEED + 1);
	KT_EXPECT_DATA(mem + 3 * part, 3 * part, SEED + 1);
}

/* Memory that cannot be written is not given pages behind its owner's back. */
static void populate_protected(void)
{
	const int prot[] = {PROT_READ, PROT_NONE};
	size_t len = 32 * kt.page;

	for (int i = 0; i < 2; i++) {
		char *mem = kt_alloc(len);
		struct ferry_ioc_result res;

		mprotect(mem, len, prot[i]);
		KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res),
			     res.populated);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_EQ(res.populated + res.hole, 32);
		KT_EXPECT_EQ(kt_readable(mem), prot[i] == PROT_READ);
		KT_EXPECT(!kt_writable(mem), "protection %d: writable", prot[i]);
		mprotect(mem, len, PROT_READ | PROT_WRITE);
		KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), res.populated);
		for (size_t k = 0; k < len; k += sizeof(long))
			if (*(long *)(mem + k)) {
				KT_EXPECT(false, "byte %zu is not 0", k);
				break;
			}
	}
}

/* Several ranges with targets of their own, a repeated one, and flags. */
static void batch(void)
{
	size_t part = 32 * kt.page;
	char *mem = kt_alloc(4 * part);
	struct ferry_ioc_result res[5];
	struct ferry_ioc_range range[5] = {
		{.addr = (uintptr_t)mem, .len = part, .node = kt.hbm},
		{.addr = (uintptr_t)mem + part, .len = part, .node = kt.ddr},
		{.addr = (uintptr_t)mem + 2 * part,
		 .len = part,
		 .node = kt.hbm,
		 .flags = FERRY_RANGE_POPULATE},
		{.addr = (uintptr_t)mem, .len = 2 * part, .node = kt.hbm},
		{.addr = (uintptr_t)mem + 3 * part, .len = part, .node = kt.hbm},
	};

	kt_fill_on(mem, part, kt.ddr, SEED);
	kt_fill_on(mem + part, part, kt.hbm, SEED);
	memset(res, 0xa5, sizeof(res));
	KT_EXPECT_EQ(kt_migrate_batch(0, range, 5, res), 4 * 32);
	KT_EXPECT_RESULT(&res[0], .moved = 32);
	KT_EXPECT_RESULT(&res[1], .moved = 32);
	KT_EXPECT_RESULT(&res[2], .populated = 32);
	KT_EXPECT_RESULT(&res[3], .already = 32, .moved = 32);
	KT_EXPECT_RESULT(&res[4], .hole = 32);
	KT_EXPECT_ON(mem, 3 * part, kt.hbm);
	KT_EXPECT_DATA(mem, part, SEED);
	KT_EXPECT_DATA(mem + part, part, SEED);
}

/* A full target is reported and nothing is killed; later the rest moves. */
static void nomem(void)
{
	const size_t len = 16ul << 20, step = 8ul << 20;
	long kills = kt_file_key("/proc/vmstat", "oom_kill");
	size_t room;
	struct ferry_ioc_result res = {0};
	char *mem, *filler;
	uint64_t moved;

	if (kt_node_free(kt.hbm) > 8ul << 30)
		kt_skip("node %d has too much memory to fill", kt.hbm);
	mem = kt_alloc_on(len, kt.ddr, SEED);
	kt_take_node(kt.hbm, 48ul << 20);
	room = (kt_node_free(kt.hbm) + 8 * step) & -step;
	filler = kt_alloc(room);
	for (size_t at = 0; at < room && !res.nomem && !kt_failures(); at += step) {
		KT_EXPECT_EQ(
			kt_migrate(filler + at, step, kt.hbm, FERRY_RANGE_POPULATE, &res),
			res.populated);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_EQ(res.populated + res.nomem, step / kt.page);
	}
	KT_EXPECT(res.nomem > 0, "node %d took more than it has", kt.hbm);

	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), res.moved);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT(res.nomem > 0, "nothing reported as nomem on a full node");
	KT_EXPECT_EQ(res.moved + res.nomem, len / kt.page);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), res.moved);
	KT_EXPECT_EQ(kt_on(mem, len, kt.ddr), res.nomem);
	KT_EXPECT_DATA(mem, len, SEED);
	moved = res.moved;

	munmap(filler, room);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), len / kt.page - moved);
	KT_EXPECT_RESULT(&res, .moved = len / kt.page - moved, .already = moved);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
	KT_EXPECT_EQ(kt_file_key("/proc/vmstat", "oom_kill"), kills);
}

/* What was moved or populated is free again once it is unmapped. */
static void leaks_nothing(void)
{
	enum { ROUNDS = 24 };
	const size_t len = 4ul << 20; /* a leak of all would come to 96 MiB */
	size_t before = kt_free_or_other(), after;

	for (int i = 0; i < ROUNDS; i++) {
		char *mem = kt_alloc_on(len / 2, kt.ddr, SEED);
		char *fresh = kt_alloc(len / 2);

		KT_EXPECT_EQ(kt_migrate(mem, len / 2, kt.hbm, 0, NULL),
			     len / 2 / kt.page);
		KT_EXPECT_EQ(
			kt_migrate(fresh, len / 2, kt.hbm, FERRY_RANGE_POPULATE, NULL),
			len / 2 / kt.page);
		KT_EXPECT_EQ(kt_migrate(fresh, len / 2, kt.ddr, 0, NULL),
			     len / 2 / kt.page);
		KT_EXPECT_DATA(mem, len / 2, SEED);
		munmap(mem, len / 2);
		munmap(fresh, len / 2);
	}
	after = kt_free_or_other();
	KT_EXPECT(after + ROUNDS / 4 * len > before, "%zu kB are gone",
		  (before - after) / 1024);
}

/* Locked memory may move, and stays locked; the books of the system balance. */
static void mlocked(void)
{
	size_t len = 1024 * kt.page;
	long kb = (long)(len / 1024), before = kt_file_key("/proc/meminfo", "Mlocked");
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res;

	KT_REQUIRE(mlock(mem, len) == 0, "mlock: %m");
	KT_EXPECT_EQ(kt_smaps(mem, len, "Locked"), kb);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), res.moved);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.moved + res.busy, len / kt.page);
	KT_EXPECT(res.moved > 0, "no locked page moved");
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), res.moved);
	KT_EXPECT_EQ(kt_smaps(mem, len, "Locked"), kb);
	KT_EXPECT_EQ(kt_smaps(mem, len, "Rss"), kb);
	KT_EXPECT_EQ(kt_file_key("/proc/self/status", "VmLck"), kb);
	KT_EXPECT_DATA(mem, len, SEED);
	/* Per-CPU counters may lag a little. */
	KT_EXPECT(kt_file_key("/proc/meminfo", "Mlocked") - before > kb / 2,
		  "Mlocked is %ld kB, was %ld kB before",
		  kt_file_key("/proc/meminfo", "Mlocked"), before);
	munlock(mem, len);
	munmap(mem, len);
	KT_EXPECT(labs(kt_file_key("/proc/meminfo", "Mlocked") - before) < kb / 2,
		  "Mlocked is %ld kB, was %ld kB before",
		  kt_file_key("/proc/meminfo", "Mlocked"), before);
}

/* Large folios of anonymous memory, of each size that the kernel counts */
static long large_folios(void)
{
	long sum = 0;

	for (size_t kb = 16; kb < KT_HUGE / 1024; kb *= 2) {
		char path[128], text[32];

		snprintf(path, sizeof(path),
			 "/sys/kernel/mm/transparent_hugepage/hugepages-%zukB/stats/"
			 "nr_anon",
			 kb);
		if (kt_read_file(path, text, sizeof(text)))
			sum += strtol(text, NULL, 10);
	}
	return sum;
}

/*
 * Pages that the module has put together go back together when they move again.
 * Locked ones among them must not, and of neither may the system's books keep
 * anything.
 */
static void there_and_back(void)
{
	enum { ROUNDS = 8 };
	size_t len = 8192 * kt.page, part = len / 4, before = kt_free_or_other(), after;
	long locked = kt_file_key("/proc/meminfo", "Mlocked"), large = large_folios();
	char *mem = kt_alloc(len);
	struct ferry_ioc_result res;

	kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, NULL);
	kt_fill(mem, len, SEED);
	KT_REQUIRE(mlock(mem + part, part) == 0, "mlock: %m");
	for (int i = 0; i < ROUNDS; i++) {
		int to = i % 2 ? kt.hbm : kt.ddr;

		kt_migrate(mem, len, to, 0, &res);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_EQ(kt_on(mem, len, to), res.moved + res.already);
		KT_EXPECT(res.moved > 3 * len / 4 / kt.page, "%llu pages moved",
			  (unsigned long long)res.moved);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	KT_EXPECT_EQ(large_folios(), large);
	munlock(mem + part, part);
	munmap(mem, len);
	after = kt_free_or_other();
	KT_EXPECT(after + len > before, "%zu kB are gone", (before - after) / 1024);
	KT_EXPECT(labs(kt_file_key("/proc/meminfo", "Mlocked") - locked) <
			  (long)(part / 2048),
		  "Mlocked is %ld kB, was %ld kB before",
		  kt_file_key("/proc/meminfo", "Mlocked"), locked);
}

static volatile sig_atomic_t ticks;

static void tick(int sig)
{
	(void)sig;
	ticks++;
}

/* A signal may end a batch; what the results say is still what happened. */
static void interrupted(void)
{
	enum { PARTS = 16 };
	size_t part = KT_HUGE / 2, len = PARTS * part, moved = 0;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct sigevent sev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct itimerspec when = {.it_value.tv_nsec = 3000000};
	struct sigaction action = {.sa_handler = tick};
	struct ferry_ioc_range range[PARTS];
	struct ferry_ioc_result res[PARTS];
	bool ended = false;
	timer_t timer;
	long ret;

	for (size_t i = 0; i < PARTS; i++)
		range[i] = (struct ferry_ioc_range){
			.addr = (uintptr_t)mem + i * part, .len = part, .node = kt.hbm};
	sigaction(SIGUSR1, &action, NULL);
	timer_create(CLOCK_MONOTONIC, &sev, &timer);
	timer_settime(timer, 0, &when, NULL);
	ret = kt_migrate_batch(0, range, PARTS, res);
	KT_EXPECT_EQ(ticks, 1);
	if (ret == -EINTR) {
		KT_EXPECT_ON(mem, len, kt.ddr);
		KT_EXPECT_DATA(mem, len, SEED);
		return;
	}
	for (size_t i = 0; i < PARTS; i++) {
		moved += res[i].moved;
		if (ended) {
			KT_EXPECT_RESULT(&res[i], .error = -ECANCELED);
		} else if (res[i].error) {
			KT_EXPECT_EQ(res[i].error,
				     res[i].error == -ECANCELED ? -ECANCELED : -EINTR);
			ended = true;
		} else {
			KT_EXPECT_RESULT(&res[i], .moved = part / kt.page);
		}
	}
	KT_EXPECT_EQ(ret, moved);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), moved);
	KT_EXPECT_EQ(kt_on(mem, len, kt.ddr), len / kt.page - moved);
	KT_EXPECT_DATA(mem, len, SEED);
	printf("    the signal came after %zu of %zu pages\n", moved, len / kt.page);
}

static const struct kt_case cases[] = {
	KT_CASE(moved_and_already),
	KT_CASE(many_chunks),
	KT_CASE(populated),
	KT_CASE(populated_afresh),
	KT_CASE(zero_page),
	KT_CASE(sparse),
	KT_CASE(several_vmas),
	KT_CASE(populate_protected),
	KT_CASE(batch),
	KT_CASE(nomem),
	KT_CASE(leaks_nothing),
	KT_CASE(mlocked),
	KT_CASE(there_and_back),
	KT_CASE(interrupted),
};

KT_MAIN(cases)
