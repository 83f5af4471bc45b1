/* SPDX-License-Identifier: MIT */
/*
 * Proves what the parameter whole_huge does on kernels whose migrate_vma takes huge
 * pages (Linux 6.19): they move as they are, there and back, with writers at work,
 * alone and among small pages, and in an exchange; those that are pinned, shared or
 * covered in part stay, as do those for which the target has no huge page, unless
 * they may be split. The kernel says where pages are and which are huge. Elsewhere
 * the parameter does not exist, and the test is skipped.
 */
#include "kmod_param.h"
#include "kmod_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum { SEED = 811, HUGE_PAGES = 8, PAGES = KT_HUGE / 4096 };

static void begin(void)
{
	if (access("/sys/module/ferry/parameters/whole_huge", F_OK) != 0)
		kt_skip("this kernel's migrate_vma takes no huge pages");
	kt_param_reset();
	kt_ferry_set("chunk_bytes", "2097152");
	kt_ferry_set("whole_huge", "1");
}

static void end(void)
{
	kt_ferry_set("whole_huge", "0");
	kt_param_reset();
}

static void there_and_back(void)
{
	const size_t len = HUGE_PAGES * KT_HUGE;
	struct ferry_ioc_info info = {.size = sizeof(info)};
	struct ferry_ioc_result res;
	size_t before;
	char *mem;

	begin();
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, &info), 0);
	KT_EXPECT(info.features & FERRY_FEATURE_WHOLE_HUGE, "the feature is not told of");
	before = kt_free_or_other();
	mem = kt_huge_on(HUGE_PAGES, kt.ddr, SEED);
	for (int i = 0; i < 10; i++) {
		int to = i % 2 ? kt.ddr : kt.hbm;

		KT_EXPECT_EQ(kt_migrate(mem, len, to, 0, &res), len / kt.page);
		KT_EXPECT_RESULT(&res, .moved = len / kt.page);
		KT_EXPECT_ON(mem, len, to);
		KT_EXPECT_EQ(kt_huge_in(mem, len), HUGE_PAGES);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.ddr, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .already = len / kt.page);
	munmap(mem, len);
	KT_EXPECT(kt_free_or_other() + len / 2 > before, "memory is gone");
	end();
}

/* Of a huge page that the range does not cover nothing moves. */
static void part(void)
{
	const size_t len = 3 * KT_HUGE;
	struct ferry_ioc_result res;
	char *mem;

	begin();
	mem = kt_huge_on(3, kt.ddr, SEED);
	KT_EXPECT_EQ(kt_migrate(mem + kt.page, len - 2 * kt.page, kt.hbm, 0, &res),
		     PAGES);
	KT_EXPECT_RESULT(&res, .moved = PAGES, .huge = 2 * (PAGES - 1));
	KT_EXPECT_ON(mem, KT_HUGE, kt.ddr);
	KT_EXPECT_ON(mem + KT_HUGE, KT_HUGE, kt.hbm);
	KT_EXPECT_ON(mem + 2 * KT_HUGE, KT_HUGE, kt.ddr);
	KT_EXPECT_EQ(kt_huge_in(mem, len), 3);
	KT_EXPECT_DATA(mem, len, SEED);
	end();
}

static void pinned(void)
{
	struct iovec iov = {.iov_len = 1};
	struct ferry_ioc_result res;
	char *mem;
	int fd[2];

	begin();
	mem = kt_huge_on(2, kt.ddr, SEED);
	iov.iov_base = mem + 5 * kt.page;
	KT_REQUIRE(pipe(fd) == 0, "pipe: %m");
	KT_REQUIRE(vmsplice(fd[1], &iov, 1, 0) == 1, "vmsplice: %m");
	KT_EXPECT_EQ(kt_migrate(mem, 2 * KT_HUGE, kt.hbm, 0, &res), PAGES);
	KT_EXPECT_RESULT(&res, .moved = PAGES, .busy = PAGES);
	KT_EXPECT_ON(mem, KT_HUGE, kt.ddr);
	KT_EXPECT_ON(mem + KT_HUGE, KT_HUGE, kt.hbm);
	KT_EXPECT_EQ(kt_huge_in(mem, 2 * KT_HUGE), 2);
	close(fd[0]);
	close(fd[1]);
	KT_EXPECT_EQ(kt_migrate(mem, KT_HUGE, kt.hbm, 0, &res), PAGES);
	KT_EXPECT_EQ(kt_huge_in(mem, 2 * KT_HUGE), 2);
	KT_EXPECT_DATA(mem, 2 * KT_HUGE, SEED);
	end();
}

/* What another process maps stays, without the flag for it. */
static void shared(void)
{
	struct ferry_ioc_result res;
	struct kt_event done;
	pid_t child;
	char *mem;

	begin();
	mem = kt_huge_on(1, kt.ddr, SEED);
	kt_event_init(&done);
	child = kt_fork();
	if (child == 0) {
		kt_event_wait(&done);
		KT_EXPECT_DATA(mem, KT_HUGE, SEED);
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_migrate(mem, KT_HUGE, kt.hbm, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .busy = PAGES);
	KT_EXPECT_ON(mem, KT_HUGE, kt.ddr);
	kt_event_post(&done);
	KT_EXPECT_EQ(kt_wait(child), 0);
	KT_EXPECT_EQ(kt_migrate(mem, KT_HUGE, kt.hbm, 0, &res), PAGES);
	KT_EXPECT_EQ(kt_huge_in(mem, KT_HUGE), 1);
	KT_EXPECT_DATA(mem, KT_HUGE, SEED);
	end();
}

/* No huge page is free on the target: it stays, or moves by small pages. */
static void without_room(void)
{
	const size_t len = 4 * KT_HUGE, bit = 1UL << 20;
	struct ferry_ioc_range range = {.len = len, .node = kt.hbm};
	struct ferry_ioc_result res;
	size_t got = 0;
	char *mem;

	begin();
	mem = kt_huge_on(4, kt.ddr, SEED);
	kt_take_node(kt.hbm, 32UL << 20);
	/* What is left goes in pieces that leave no huge page. */
	while (kt_node_free(kt.hbm) > 8 * bit && got < 64 * bit &&
	       kt_migrate(kt_alloc(bit), bit, kt.hbm, FERRY_RANGE_POPULATE, NULL) > 0)
		got += bit;
	kt_migrate(mem, len, kt.hbm, 0, &res);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.moved + res.nomem, len / kt.page);
	KT_EXPECT_EQ(res.moved % PAGES, 0);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), res.moved);
	KT_EXPECT_EQ(kt_huge_in(mem, len), 4);
	range.addr = (uintptr_t)mem;
	kt_migrate_batch(FERRY_MIGRATE_SPLIT_HUGE, &range, 1, &res);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_SUM(&res, len);
	KT_EXPECT_DATA(mem, len, SEED);
	end();
}

static void exchanged(void)
{
	const size_t len = 4 * KT_HUGE;
	struct ferry_ioc_range range[2] = {{.len = len, .node = kt.hbm},
					   {.len = len, .node = kt.ddr}};
	struct ferry_ioc_result res[2];
	char *cold, *hot;

	begin();
	hot = kt_huge_on(4, kt.ddr, SEED);
	cold = kt_huge_on(4, kt.hbm, SEED + 1);
	range[0].addr = (uintptr_t)hot;
	range[1].addr = (uintptr_t)cold;
	KT_EXPECT_EQ(kt_migrate_batch(FERRY_MIGRATE_EXCHANGE, range, 2, res),
		     2 * len / kt.page);
	KT_EXPECT_ON(hot, len, kt.hbm);
	KT_EXPECT_ON(cold, len, kt.ddr);
	KT_EXPECT_EQ(kt_huge_in(hot, len) + kt_huge_in(cold, len), 8);
	KT_EXPECT_DATA(hot, len, SEED);
	KT_EXPECT_DATA(cold, len, SEED + 1);
	end();
}

/* ---- with writers --------------------------------------------------------------- */

static void with_writers(void)
{
	const size_t len = HUGE_PAGES * KT_HUGE;
	struct ferry_ioc_result res;
	size_t bad, moved = 0;
	char *mem;

	begin();
	mem = kt_huge_on(HUGE_PAGES, kt.ddr, SEED);
	kt_writer_start(mem, len);
	for (unsigned int i = 0; i < kt_rounds(20); i++) {
		kt_migrate(mem, len, i % 2 ? kt.ddr : kt.hbm, 0, &res);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_SUM(&res, len);
		moved += res.moved;
	}
	bad = kt_writer_stop();
	KT_EXPECT(moved > 10 * len / kt.page, "only %zu pages moved", moved);
	KT_EXPECT_EQ(kt_huge_in(mem, len), HUGE_PAGES);
	KT_EXPECT(bad == 0, "%zu pages lost a write", bad);
	end();
}

static const struct kt_case cases[] = {
	KT_CASE(there_and_back), KT_CASE(part),         KT_CASE(pinned),
	KT_CASE(shared),         KT_CASE(without_room), KT_CASE(exchanged),
	KT_CASE(with_writers),
};

KT_MAIN(cases)
