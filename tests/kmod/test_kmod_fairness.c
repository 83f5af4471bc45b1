/* SPDX-License-Identifier: MIT */
/*
 * Proves that a process with endless batches in flight does not starve another:
 * the other's small requests, by ioctl and by io_uring, all complete meanwhile,
 * each in a time that has nothing to do with the length of the queue. How much
 * slower they are is not for a test to say.
 *
 * Two processes, each single-threaded but for io_uring's workers; they share a
 * page of counters.
 */
#include "kmod_test.h"
#include "kmod_uring.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>

/* The hog's queue takes seconds to work off; a request of the other, a moment. */
enum { SEED = 137, FLIGHT = 64, SMALL = 16, REQUESTS = 40, LIMIT_MS = 2000 };
static const size_t hog_len = 128ul << 20;

/* Keeps FLIGHT requests in flight, of which each moves all of the memory. */
static _Noreturn void hog(_Atomic uint64_t *moved)
{
	static struct kt_request req[FLIGHT];
	static struct io_uring ring;
	char *mem;

	kt.fd = kt_open();
	mem = kt_alloc_on(hog_len, kt.ddr, SEED);
	kt_ring_init(&ring, FLIGHT, 0);
	for (size_t i = 0; i < FLIGHT; i++) {
		kt_request_init(&req[i], mem, hog_len, i % 2 ? kt.ddr : kt.hbm);
		kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req[i].arg, i);
	}
	io_uring_submit(&ring);
	for (;;) {
		struct io_uring_cqe *cqe;
		uint64_t i;

		if (io_uring_wait_cqe(&ring, &cqe) < 0)
			continue;
		i = cqe->user_data;
		if (cqe->res > 0)
			atomic_fetch_add(moved, (uint64_t)cqe->res);
		io_uring_cqe_seen(&ring, cqe);
		kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req[i].arg, i);
		io_uring_submit(&ring);
	}
}

/* What a small request takes at most, in microseconds; a half by io_uring */
static uint64_t worst(struct io_uring *ring, char *mem)
{
	const size_t len = SMALL * kt.page;
	uint64_t most = 0;

	for (int i = 0; i < REQUESTS && !kt_failures(); i++) {
		int node = i % 2 ? kt.ddr : kt.hbm;
		struct kt_request req;
		uint64_t start, took;
		long ret;

		kt_request_init(&req, mem, len, node);
		start = kt_now_us();
		if (i % 4 < 2)
			ret = kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &req.arg);
		else
			ret = kt_ring_call(ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg);
		took = kt_now_us() - start;
		most = took > most ? took : most;
		KT_EXPECT_EQ(ret, SMALL);
		KT_EXPECT_ON(mem, len, node);
	}
	KT_EXPECT_DATA(mem, len, SEED);
	return most;
}

static void beside_a_hog(void)
{
	char *mem = kt_alloc_on(SMALL * kt.page, kt.ddr, SEED);
	_Atomic uint64_t *moved = mmap(NULL, kt.page, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t alone, beside, before;
	struct io_uring ring;
	pid_t pid;

	KT_REQUIRE(moved != MAP_FAILED, "mmap: %m");
	kt_ring_init(&ring, 8, 0);
	alone = worst(&ring, mem);
	pid = kt_fork();
	if (pid == 0) {
		munmap(mem, SMALL * kt.page); /* shared, it would not move */
		hog(moved);
	}
	while (!atomic_load(moved))
		usleep(10000);
	before = atomic_load(moved);
	beside = worst(&ring, mem);
	/* Its requests are long: so it may take a while until one more is done. */
	while (atomic_load(moved) == before)
		usleep(10000);
	kill(pid, SIGKILL);
	KT_EXPECT_EQ(kt_wait(pid), 128 + SIGKILL);
	printf("    at most %llu us alone, %llu us beside endless batches\n",
	       (unsigned long long)alone, (unsigned long long)beside);
	KT_EXPECT(beside < (LIMIT_MS * 1000ULL + alone) * kt_slowness(),
		  "a small request took %llu us", (unsigned long long)beside);
	io_uring_queue_exit(&ring);
}

static const struct kt_case cases[] = {
	KT_CASE(beside_a_hog),
};

KT_MAIN(cases)
