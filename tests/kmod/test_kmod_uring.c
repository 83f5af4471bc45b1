/* SPDX-License-Identifier: MIT */
/*
 * Proves the module's requests as io_uring commands: results, per-range results
 * and errors are those of the ioctl; the submitter does not wait for the work;
 * many are in flight together, in chains, from a polling thread; and cancelled
 * ones end. Single-threaded, but for io_uring's own workers.
 */
#include "kmod_test.h"
#include "kmod_uring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>

enum { SEED = 53 };

static void migrate(void)
{
	size_t len = 700 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct kt_request req;
	struct io_uring ring;

	kt_ring_init(&ring, 8, 0);
	kt_request_init(&req, mem, len, kt.hbm);
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg), 700);
	KT_EXPECT_RESULT(&req.result, .moved = 700);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg), 0);
	KT_EXPECT_RESULT(&req.result, .already = 700);

	/* The upper half becomes holes, and is populated on the way back. */
	madvise(mem + len / 2, len / 2, MADV_DONTNEED);
	kt_request_init(&req, mem, len, kt.ddr);
	req.range.flags = FERRY_RANGE_POPULATE;
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg), 700);
	KT_EXPECT_RESULT(&req.result, .moved = 350, .populated = 350);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_DATA(mem, len / 2, SEED);
	KT_EXPECT_EQ(mem[len / 2] | mem[len - 1], 0);
	io_uring_queue_exit(&ring);
}

static void query(void)
{
	size_t len = 128 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	int expected[128];
	__s16 out[128];
	struct ferry_ioc_query q = {
		.size = sizeof(q),
		.addr = (uintptr_t)mem,
		.len = len,
		.out = (uintptr_t)out,
		.out_bytes = sizeof(out),
	};
	struct io_uring ring;

	kt_ring_init(&ring, 8, 0);
	kt_migrate(mem, len / 2, kt.hbm, 0, NULL);
	madvise(mem + 10 * kt.page, kt.page, MADV_DONTNEED);
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_QUERY, &q), 0);
	kt_nodes(mem, len, expected);
	for (int i = 0; i < 128; i++)
		KT_EXPECT_EQ(out[i], expected[i] < 0 ? FERRY_QUERY_HOLE : expected[i]);
	q.out_bytes--;
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_QUERY, &q), -ENOSPC);
	io_uring_queue_exit(&ring);
}

static void errors(void)
{
	size_t len = 8 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_uring_cmd reserved = {.reserved = 1};
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	struct kt_request req, untouched;

	kt_ring_init(&ring, 8, 0);
	kt_request_init(&req, mem, len, kt.hbm);
	memset(&req.result, 0xa5, sizeof(req.result));
	untouched = req;
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, NULL), -EFAULT);
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_QUERY, NULL), -EFAULT);
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, 0, &req.arg), -EOPNOTSUPP);
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_INFO, &req.arg), -EOPNOTSUPP);
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, _IO(FERRY_IOC_TYPE, 2), &req.arg),
		     -EOPNOTSUPP);

	sqe = kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg, 0);
	reserved.arg = (uintptr_t)&req.arg;
	memcpy(sqe->cmd, &reserved, sizeof(reserved));
	io_uring_submit(&ring);
	KT_EXPECT_EQ(kt_ring_wait(&ring, NULL), -EINVAL);

	req.arg.flags = 1u << 31;
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg), -EINVAL);
	req.arg.flags = 0;
	req.range.node = 999;
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg), -ENODEV);
	req.range.node = kt.hbm;
	KT_EXPECT(!memcmp(&req, &untouched, sizeof(req)),
		  "a refused request was written to");
	KT_EXPECT_ON(mem, len, kt.ddr);

	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg), 8);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
	io_uring_queue_exit(&ring);
}

/* Submitting 64 MiB takes a fraction of moving it, and is not done at once. */
static void submit_does_not_block(void)
{
	const size_t len = 64ul << 20;
	uint64_t sync, submit = UINT64_MAX;
	struct io_uring_cqe *cqe;
	struct kt_request req;
	struct io_uring ring;
	bool early = false;
	uint64_t start;
	char *mem;

	mem = kt_alloc_on(len, kt.ddr, SEED);
	kt_ring_init(&ring, 8, 0);
	start = kt_now_us();
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, NULL), len / kt.page);
	sync = kt_now_us() - start;
	for (int i = 0; i < 3; i++) {
		uint64_t took;

		kt_request_init(&req, mem, len, i % 2 ? kt.hbm : kt.ddr);
		kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg, 0);
		start = kt_now_us();
		io_uring_submit(&ring);
		took = kt_now_us() - start;
		submit = took < submit ? took : submit;
		early |= io_uring_peek_cqe(&ring, &cqe) == -EAGAIN;
		KT_EXPECT_EQ(kt_ring_wait(&ring, NULL), len / kt.page);
	}
	printf("    ioctl %llu us, submit %llu us\n", (unsigned long long)sync,
	       (unsigned long long)submit);
	KT_EXPECT(submit < sync / 4, "the submitter waited");
	KT_EXPECT(early, "every request was done when submit returned");
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);
	io_uring_queue_exit(&ring);
}

enum { MANY = 64, MANY_PAGES = 16 };

/*
 * A command's place in the submission queue is taken by others long before a
 * worker comes to the command: each must be carried out as it was submitted.
 */
static void places_taken_anew(void)
{
	size_t part = MANY_PAGES * kt.page, len = MANY * part;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct kt_request *req = calloc(MANY, sizeof(*req));
	struct io_uring ring;
	uint64_t data;

	KT_REQUIRE(req, "calloc");
	kt_ring_init(&ring, 2, 0);
	for (int round = 0; round < 8; round++) {
		int to = round % 2 ? kt.ddr : kt.hbm;

		for (size_t i = 0; i < MANY; i++) {
			struct io_uring_sqe *sqe;

			kt_request_init(&req[i], mem + i * part, part, to);
			sqe = kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req[i].arg,
					  i);
			if (i % 4 == 0)
				sqe->flags |= IOSQE_ASYNC;
			KT_REQUIRE(io_uring_submit(&ring) == 1, "io_uring_submit failed");
		}
		for (int i = 0; i < MANY; i++)
			KT_EXPECT_EQ(kt_ring_wait(&ring, &data), MANY_PAGES);
		for (size_t i = 0; i < MANY; i++)
			KT_EXPECT_RESULT(&req[i].result, .moved = MANY_PAGES);
		KT_EXPECT_ON(mem, len, to);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	free(req);
	io_uring_queue_exit(&ring);
}

/* Many at a time, each completing once with its own count. */
static void many(unsigned int ring_flags)
{
	size_t part = MANY_PAGES * kt.page, len = MANY * part;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct kt_request *req = calloc(MANY, sizeof(*req));
	struct io_uring ring;

	KT_REQUIRE(req, "calloc");
	kt_ring_init(&ring, MANY, ring_flags);
	for (int round = 0; round < 4; round++) {
		int to = round % 2 ? kt.ddr : kt.hbm;
		uint64_t seen = 0, data;

		for (size_t i = 0; i < MANY; i++) {
			kt_request_init(&req[i], mem + i * part, part, to);
			kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req[i].arg, i);
		}
		KT_EXPECT_EQ(io_uring_submit(&ring), MANY);
		for (int i = 0; i < MANY; i++) {
			KT_EXPECT_EQ(kt_ring_wait(&ring, &data), MANY_PAGES);
			KT_EXPECT_RESULT(&req[data].result, .moved = MANY_PAGES);
			KT_EXPECT(!(seen >> data & 1), "request %d completed twice",
				  (int)data);
			seen |= 1ull << data;
		}
		KT_EXPECT(seen == ~0ull, "not all completed");
		KT_EXPECT_ON(mem, len, to);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	io_uring_queue_exit(&ring);
}

static void many_in_flight(void)
{
	many(0);
}

static void polled_submission(void)
{
	many(IORING_SETUP_SQPOLL);
}

static void chain_once(char *mem, size_t len)
{
	struct kt_request there, back, wrong;
	struct io_uring ring;
	uint64_t data;

	kt_ring_init(&ring, 8, 0);
	kt_request_init(&there, mem, len, kt.hbm);
	kt_request_init(&back, mem, len, kt.ddr);
	kt_request_init(&wrong, mem, len, 999);
	kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &there.arg, 1)->flags |=
		IOSQE_IO_LINK;
	kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &back.arg, 2)->flags |=
		IOSQE_IO_LINK;
	kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &wrong.arg, 3)->flags |=
		IOSQE_IO_LINK;
	kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &there.arg, 4);
	io_uring_submit(&ring);
	for (uint64_t i = 1; i <= 4; i++) {
		int res = kt_ring_wait(&ring, &data);

		KT_EXPECT_EQ(data, i);
		KT_EXPECT_EQ(res, i <= 2 ? 64 : i == 3 ? -ENODEV : -ECANCELED);
	}
	KT_EXPECT_ON(mem, len, kt.ddr);
	io_uring_queue_exit(&ring);
}

/*
 * A chain keeps its order, and a refused link ends it. Often, for a link is carried out
 * by another thread if what it follows has been completed soon.
 */
static void chain(void)
{
	enum { TIMES = 100 };
	size_t len = 64 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);

	for (int i = 0; i < TIMES; i++)
		chain_once(mem, len);
	KT_EXPECT_DATA(mem, len, SEED);
}

/*
 * A link whose SQE has another command by then is carried out as it was, or not at all:
 * as it was for certain with IOSQE_ASYNC in @flags.
 */
static void overwritten(unsigned int flags)
{
	enum { TIMES = 100, ENTRIES = 4 };
	const size_t len = 64 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct kt_request there, back;
	struct io_uring ring;
	uint64_t data;
	int late = 0;

	kt_ring_init(&ring, ENTRIES, 0);
	for (int n = 0; n < TIMES; n++) {
		bool missed = false;

		kt_request_init(&there, mem, len, kt.hbm);
		kt_request_init(&back, mem, len, kt.ddr);
		kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &there.arg, 1)->flags |=
			IOSQE_IO_LINK;
		kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &back.arg, 2)->flags |=
			flags;
		io_uring_submit(&ring);
		for (int i = 0; i < ENTRIES; i++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

			io_uring_prep_nop(sqe);
			sqe->user_data = 3;
		}
		io_uring_submit(&ring);
		for (int left = 2 + ENTRIES; left > 0; left--) {
			int res = kt_ring_wait(&ring, &data);

			missed |= data == 2 && res == -EAGAIN;
			if (data == 1 || (data == 2 && !missed))
				KT_EXPECT_EQ(res, 64);
		}
		late += missed;
		KT_EXPECT_ON(mem, len, missed ? kt.hbm : kt.ddr);
		KT_EXPECT(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &back.arg) >= 0,
			  "moving back: %m");
	}
	printf("    %d of %d came too late\n", late, (int)TIMES);
	KT_EXPECT(!flags || !late, "too late with IOSQE_ASYNC");
	KT_EXPECT_DATA(mem, len, SEED);
	io_uring_queue_exit(&ring);
}

static void chain_overwritten(void)
{
	overwritten(0);
	overwritten(IOSQE_ASYNC);
}

/* Cancelled requests end soon, done, in part, or not begun. */
static void cancel(void)
{
	enum { NR = 16, CANCEL = 99 };
	const size_t part = 2 * KT_HUGE, len = NR * part;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct kt_request req[NR];
	struct io_uring ring;
	struct io_uring_sqe *sqe;
	size_t moved = 0;
	uint64_t data;
	int done = 0;

	kt_ring_init(&ring, 2 * NR, 0);
	for (size_t i = 0; i < NR; i++) {
		kt_request_init(&req[i], mem + i * part, part, kt.hbm);
		kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req[i].arg, i);
	}
	io_uring_submit(&ring);
	for (size_t i = 0; i < NR; i++) {
		sqe = io_uring_get_sqe(&ring);
		io_uring_prep_cancel64(sqe, i, 0);
		sqe->user_data = CANCEL;
	}
	io_uring_submit(&ring);
	for (int i = 0; i < 2 * NR; i++) {
		int ret = kt_ring_wait(&ring, &data);

		if (data == CANCEL)
			continue;
		done++;
		KT_EXPECT(ret >= 0 || ret == -EINTR || ret == -ECANCELED,
			  "request %d ended with %d", (int)data, ret);
		if (ret >= 0) {
			KT_EXPECT_EQ(ret, req[data].result.moved);
			moved += (size_t)ret;
		}
	}
	KT_EXPECT_EQ(done, NR);
	printf("    moved %zu of %zu pages\n", moved, len / kt.page);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), moved);
	KT_EXPECT_EQ(kt_on(mem, len, kt.ddr), len / kt.page - moved);
	KT_EXPECT_DATA(mem, len, SEED);
	io_uring_queue_exit(&ring);
}

static const struct kt_case cases[] = {
	KT_CASE(migrate),        KT_CASE(query),
	KT_CASE(errors),         KT_CASE(submit_does_not_block),
	KT_CASE(many_in_flight), KT_CASE(polled_submission),
	KT_CASE(chain),          KT_CASE(chain_overwritten),
	KT_CASE(cancel),         KT_CASE(places_taken_anew),
};

KT_MAIN(cases)
