/* SPDX-License-Identifier: MIT */
/*
 * Proves which pages stay because others hold them: pinned by a pipe or by
 * io_uring, shared with another process after fork, merged by KSM. They are
 * counted as busy, are where they were, and move once let go; sharers are moved
 * only with FERRY_MIGRATE_SHARED and CAP_SYS_NICE, and copy-on-write holds on
 * both sides. Single-threaded, with child processes.
 */
#include "kmod_test.h"
#include "kmod_uring.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum { SEED = 23, PAGES = 64 };

/* Tries until nothing is busy or a second has passed: pins end a bit late. */
static long migrate_freed(char *mem, size_t len, int node, struct ferry_ioc_result *res)
{
	long ret, sum = 0;

	for (int i = 0; i < 100; i++) {
		ret = kt_migrate(mem, len, node, 0, res);
		sum += ret;
		if (ret < 0 || !res->busy)
			break;
		usleep(10000);
	}
	return ret < 0 ? ret : sum;
}

/* Pages that sit in a pipe are pinned; what is read from it is what was put in. */
static void pinned_by_pipe(void)
{
	size_t len = PAGES * kt.page, held = 8 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED), *copy = kt_alloc(held);
	struct iovec iov = {.iov_base = mem + 16 * kt.page, .iov_len = held};
	struct ferry_ioc_result res;
	int fd[2];

	KT_REQUIRE(pipe(fd) == 0, "pipe: %m");
	KT_REQUIRE(vmsplice(fd[1], &iov, 1, 0) == (ssize_t)held, "vmsplice: %m");
	for (int i = 0; i < 2; i++) {
		KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), i ? 0 : PAGES - 8);
		if (i)
			KT_EXPECT_RESULT(&res, .already = PAGES - 8, .busy = 8);
		else
			KT_EXPECT_RESULT(&res, .moved = PAGES - 8, .busy = 8);
		KT_EXPECT_ON(iov.iov_base, held, kt.ddr);
		KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), PAGES - 8);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	/* The pipe holds the page itself: it sees a write that comes later. */
	mem[16 * kt.page] ^= 1;
	KT_REQUIRE(read(fd[0], copy, held) == (ssize_t)held, "read: %m");
	KT_EXPECT(!memcmp(copy, mem + 16 * kt.page, held), "the pipe lost its pages");
	mem[16 * kt.page] ^= 1;

	KT_EXPECT_EQ(migrate_freed(mem, len, kt.hbm, &res), 8);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* The pages made ready for those that then stay are free again, each time. */
static void staying_leaks_nothing(void)
{
	enum { ROUNDS = 300 };
	size_t len = PAGES * kt.page, before, after; /* a leak would come to 75 MiB */
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct iovec iov = {.iov_base = mem, .iov_len = len};
	struct ferry_ioc_result res;
	int fd[2];

	KT_REQUIRE(pipe(fd) == 0 && fcntl(fd[1], F_SETPIPE_SZ, len) >= 0, "pipe: %m");
	KT_REQUIRE(vmsplice(fd[1], &iov, 1, 0) == (ssize_t)len, "vmsplice: %m");
	before = kt_free_or_other();
	for (int i = 0; i < ROUNDS && !kt_failures(); i++) {
		KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 0);
		KT_EXPECT_RESULT(&res, .busy = PAGES);
	}
	after = kt_free_or_other();
	KT_EXPECT(after + ROUNDS / 16 * len > before, "%zu kB are gone",
		  (before - after) / 1024);
	close(fd[0]);
	close(fd[1]);
	/* Nor did the pages themselves gain holders. */
	KT_EXPECT_EQ(migrate_freed(mem, len, kt.hbm, &res), PAGES);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* A buffer registered with io_uring stays, and what it receives is seen. */
static void pinned_by_uring(void)
{
	size_t len = PAGES * kt.page, held = 16 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED), *buffer = mem + 8 * kt.page;
	struct iovec iov = {.iov_base = buffer, .iov_len = held};
	struct ferry_ioc_result res;
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	int fd = memfd_create("source", MFD_CLOEXEC);

	kt_ring_init(&ring, 8, 0);
	KT_REQUIRE(io_uring_register_buffers(&ring, &iov, 1) == 0, "register_buffers");
	kt_migrate(mem, len, kt.hbm, 0, &res);
	KT_EXPECT_RESULT(&res, .moved = PAGES - 16, .busy = 16);
	KT_EXPECT_ON(buffer, held, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);

	kt_fill(mem, kt.page, SEED + 1);
	KT_REQUIRE(pwrite(fd, mem, kt.page, 0) == (ssize_t)kt.page, "pwrite: %m");
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read_fixed(sqe, fd, buffer, (unsigned int)kt.page, 0, 0);
	io_uring_submit(&ring);
	KT_EXPECT_EQ(kt_ring_wait(&ring, NULL), kt.page);
	KT_EXPECT_DATA(buffer, kt.page, SEED + 1);

	io_uring_unregister_buffers(&ring);
	KT_EXPECT_EQ(migrate_freed(mem, len, kt.hbm, &res), 16);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(buffer, kt.page, SEED + 1);
	io_uring_queue_exit(&ring);
}

/* A child that shares @mem; it looks when told to, and then writes to it. */
struct sharer {
	struct kt_event look, looked;
	pid_t pid;
};

static void sharer_start(struct sharer *s, char *mem, size_t len, int node_then)
{
	kt_event_init(&s->look);
	kt_event_init(&s->looked);
	s->pid = kt_fork();
	if (s->pid)
		return;
	kt_event_wait(&s->look);
	KT_EXPECT_ON(mem, len, node_then);
	KT_EXPECT_DATA(mem, len, SEED);
	kt_fill(mem, len / 2, SEED + 1); /* copy on write: the parent must not see it */
	KT_EXPECT_DATA(mem, len / 2, SEED + 1);
	kt_event_post(&s->looked);
	kt_event_wait(&s->look);
	KT_EXPECT_DATA(mem, len / 2, SEED + 1);
	kt_child_end();
}

static void sharer_look(struct sharer *s)
{
	kt_event_post(&s->look);
	kt_event_wait(&s->looked);
}

static void sharer_end(struct sharer *s)
{
	kt_event_post(&s->look);
	KT_EXPECT_EQ(kt_wait(s->pid), 0);
}

/* Pages shared after fork stay; those written since are one's own and move. */
static void shared_after_fork(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res;
	struct sharer child;

	sharer_start(&child, mem, len, kt.ddr);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .busy = PAGES);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);

	kt_fill_on(mem, 16 * kt.page, kt.ddr, SEED);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 16);
	KT_EXPECT_RESULT(&res, .moved = 16, .busy = PAGES - 16);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), 16);

	/* The child has written the first half: those are the parent's alone. */
	sharer_look(&child);
	KT_EXPECT_DATA(mem, len, SEED);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), PAGES / 2 - 16);
	KT_EXPECT_RESULT(&res, .already = 16, .moved = PAGES / 2 - 16, .busy = PAGES / 2);

	sharer_end(&child);
	KT_EXPECT_EQ(migrate_freed(mem, len, kt.hbm, &res), PAGES / 2);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* The child's side: it opened the device itself and is refused as well. */
static void shared_with_parent(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res;
	pid_t pid = kt_fork();

	if (pid == 0) {
		kt.fd = kt_open();
		KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 0);
		KT_EXPECT_RESULT(&res, .busy = PAGES);
		KT_EXPECT_ON(mem, len, kt.ddr);
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_wait(pid), 0);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);
}

static long migrate_shared(char *mem, size_t len, int node, struct ferry_ioc_result *res)
{
	struct ferry_ioc_range range = {.addr = (uintptr_t)mem, .len = len, .node = node};

	memset(res, 0xa5, sizeof(*res));
	return kt_migrate_batch(FERRY_MIGRATE_SHARED, &range, 1, res);
}

/* Who may move shared pages moves them for all sharers, and they stay shared. */
static void shared_by_privilege(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res;
	struct sharer child;

	sharer_start(&child, mem, len, kt.hbm);
	KT_EXPECT_EQ(migrate_shared(mem, len, kt.hbm, &res), PAGES);
	KT_EXPECT_RESULT(&res, .moved = PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
	KT_EXPECT_EQ(migrate_shared(mem, len, kt.hbm, &res), 0);
	KT_EXPECT_RESULT(&res, .already = PAGES);
	sharer_look(&child);
	KT_EXPECT_DATA(mem, len, SEED);
	kt_fill(mem + len / 2, len / 2, SEED + 2);
	sharer_end(&child);
	KT_EXPECT_DATA(mem, len / 2, SEED);
	KT_EXPECT_DATA(mem + len / 2, len / 2, SEED + 2);
}

/* Without the privilege the whole batch is refused, shared pages or not. */
static void shared_without_privilege(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res, untouched;

	KT_REQUIRE(setgroups(0, NULL) == 0 && setresgid(65534, 65534, 65534) == 0 &&
			   setresuid(65534, 65534, 65534) == 0,
		   "setresuid: %m");
	memset(&untouched, 0xa5, sizeof(untouched));
	KT_EXPECT_EQ(migrate_shared(mem, len, kt.hbm, &res), -EPERM);
	KT_EXPECT(!memcmp(&res, &untouched, sizeof(res)), "a result was written");
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

#define KSM "/sys/kernel/mm/ksm/"

static long ksm_value(const char *file)
{
	char text[64];

	return kt_read_file(file, text, sizeof(text)) ? strtol(text, NULL, 10) : -1;
}

/* KSM has one page behind many addresses: it stays unless moved for all. */
static void ksm(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc(len);
	struct ferry_ioc_result res;
	int node, other;

	if (ksm_value(KSM "run") < 0)
		kt_skip("no KSM in this kernel");
	for (size_t i = 0; i < PAGES; i++)
		kt_fill_on(mem + i * kt.page, kt.page, kt.ddr, SEED);
	KT_REQUIRE(madvise(mem, len, MADV_MERGEABLE) == 0, "MADV_MERGEABLE: %m");
	kt_write_file(KSM "sleep_millisecs", "1");
	kt_write_file(KSM "pages_to_scan", "1000");
	kt_write_file(KSM "run", "1");
	for (int i = 0; i < 500 && ksm_value(KSM "pages_sharing") < PAGES - 1; i++)
		usleep(10000);
	kt_write_file(KSM "run", "0");
	if (ksm_value(KSM "pages_sharing") < PAGES - 1)
		kt_skip("KSM did not merge the pages in 5 s");

	node = kt_on(mem, len, kt.ddr) == PAGES ? kt.ddr : kt.hbm;
	other = node == kt.ddr ? kt.hbm : kt.ddr;
	KT_EXPECT_ON(mem, len, node);
	KT_EXPECT_EQ(kt_migrate(mem, len, other, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .busy = PAGES);
	KT_EXPECT_ON(mem, len, node);

	KT_EXPECT_EQ(migrate_shared(mem, len, other, &res), res.moved);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_SUM(&res, len);
	KT_EXPECT_EQ(kt_on(mem, len, other), res.moved + res.already);
	for (size_t i = 0; i < PAGES; i++)
		KT_EXPECT_DATA(mem + i * kt.page, kt.page, SEED);

	/* A write unmerges one page and no other sees it. */
	kt_fill(mem + kt.page, kt.page, SEED + 1);
	for (size_t i = 0; i < PAGES; i++)
		KT_EXPECT_DATA(mem + i * kt.page, kt.page, i == 1 ? SEED + 1 : SEED);
	kt_write_file(KSM "run", "2"); /* unmerge all */
	kt_write_file(KSM "run", "0");
	for (size_t i = 0; i < PAGES; i++)
		KT_EXPECT_DATA(mem + i * kt.page, kt.page, i == 1 ? SEED + 1 : SEED);
}

static const struct kt_case cases[] = {
	KT_CASE(pinned_by_pipe),           KT_CASE(staying_leaks_nothing),
	KT_CASE(pinned_by_uring),          KT_CASE(shared_after_fork),
	KT_CASE(shared_with_parent),       KT_CASE(shared_by_privilege),
	KT_CASE(shared_without_privilege), KT_CASE(ksm),
};

KT_MAIN(cases)
