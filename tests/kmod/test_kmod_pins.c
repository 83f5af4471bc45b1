/* SPDX-License-Identifier: MIT */
/*
 * Proves that pages under direct I/O stay while the device may still access them,
 * are counted as busy, hold the right data, and move once the I/O is done: reads
 * and writes with O_DIRECT, with and without buffers that io_uring keeps pinned.
 * The disk moves its data late, so that a page that moved too early would show.
 * Other pins: test_kmod_busy. A mover thread in the last case only.
 */
#include "kmod_disk.h"
#include "kmod_test.h"
#include "kmod_uring.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum {
	SEED = 101,
	NR = 24,                /* requests in flight */
	PART = KT_DISK_AT_MOST, /* bytes of each */
	LEN = NR * PART,
};

static int disk_open(void)
{
	int fd = open(KT_DISK, O_RDWR | O_DIRECT | O_CLOEXEC);

	KT_REQUIRE(fd >= 0, "%s: %m", KT_DISK);
	return fd;
}

/* Reads or writes the whole buffer, in requests that are in flight together. */
static void start(struct io_uring *ring, int disk, char *mem, bool write, bool fixed)
{
	for (size_t i = 0; i < NR; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
		char *at = mem + i * PART;

		if (fixed && write)
			io_uring_prep_write_fixed(sqe, disk, at, PART, i * PART, 0);
		else if (fixed)
			io_uring_prep_read_fixed(sqe, disk, at, PART, i * PART, 0);
		else if (write)
			io_uring_prep_write(sqe, disk, at, PART, i * PART);
		else
			io_uring_prep_read(sqe, disk, at, PART, i * PART);
	}
	KT_REQUIRE(io_uring_submit(ring) == NR, "io_uring_submit failed");
}

/* Moves the buffer until all I/O has ended. What stays is what is busy. */
static void move_in_flight(struct io_uring *ring, char *mem, bool fixed)
{
	struct ferry_ioc_result res;
	uint64_t most = 0, moves = 0;
	struct io_uring_cqe *cqe;
	int done = 0;

	while (done < NR && !kt_failures()) {
		long ret = kt_migrate(mem, LEN, kt.hbm, 0, &res);

		KT_EXPECT_EQ(ret, res.moved);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_EQ(res.moved + res.already + res.busy, LEN / kt.page);
		KT_EXPECT_EQ(kt_on(mem, LEN, kt.hbm), res.moved + res.already);
		KT_EXPECT_EQ(kt_on(mem, LEN, kt.ddr), res.busy);
		if (fixed)
			KT_EXPECT_EQ(res.busy, LEN / kt.page);
		most = res.busy > most ? res.busy : most;
		moves++;
		while (io_uring_peek_cqe(ring, &cqe) == 0) {
			KT_EXPECT_EQ(cqe->res, PART);
			io_uring_cqe_seen(ring, cqe);
			done++;
		}
		usleep(2000);
	}
	printf("    %llu requests meanwhile, at most %llu of %zu pages busy\n",
	       (unsigned long long)moves, (unsigned long long)most, LEN / kt.page);
	KT_EXPECT(most >= LEN / kt.page / 2, "most pages were not in flight");
}

/*
 * What a CPU has activated lately it holds in a batch of its own, for ever if it stays
 * idle: to unmap something on it has it let go.
 */
static void empty_batches(void)
{
	cpu_set_t all, one;

	KT_REQUIRE(!sched_getaffinity(0, sizeof(all), &all), "sched_getaffinity: %m");
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		char *page;

		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		KT_REQUIRE(!sched_setaffinity(0, sizeof(one), &one),
			   "sched_setaffinity: %m");
		page = kt_alloc(kt.page);
		*page = 1;
		munmap(page, kt.page);
	}
	sched_setaffinity(0, sizeof(all), &all);
}

/* All of it moves, once those that let go late have done so. */
static void expect_movable(char *mem)
{
	struct ferry_ioc_result res;

	for (int i = 0; i < 100; i++) {
		empty_batches();
		kt_migrate(mem, LEN, kt.hbm, 0, &res);
		if (!res.busy)
			break;
		usleep(10000);
	}
	KT_EXPECT_EQ(res.busy, 0);
	KT_EXPECT_ON(mem, LEN, kt.hbm);
}

static void direct_io(bool write, bool fixed)
{
	char *mem, *other = kt_alloc_on(LEN, kt.ddr, SEED);
	struct iovec iov = {.iov_len = LEN};
	struct io_uring ring;
	int disk;

	kt_disk_make(KT_DISK_THROTTLED);
	disk = disk_open();
	kt_ring_init(&ring, NR, 0);
	if (!write) { /* first, what there is to be read */
		start(&ring, disk, other, true, false);
		for (int i = 0; i < NR; i++)
			KT_EXPECT_EQ(kt_ring_wait(&ring, NULL), PART);
	}
	mem = kt_alloc_on(LEN, kt.ddr, write ? SEED : SEED + 1);
	iov.iov_base = mem;
	if (fixed)
		KT_REQUIRE(io_uring_register_buffers(&ring, &iov, 1) == 0,
			   "register_buffers");

	start(&ring, disk, mem, write, fixed);
	move_in_flight(&ring, mem, fixed);
	if (fixed)
		io_uring_unregister_buffers(&ring);
	expect_movable(mem);
	KT_EXPECT_DATA(mem, LEN, SEED);

	if (write) {
		memset(other, 0, LEN);
		start(&ring, disk, other, false, false);
		for (int i = 0; i < NR; i++)
			KT_EXPECT_EQ(kt_ring_wait(&ring, NULL), PART);
		KT_EXPECT_DATA(other, LEN, SEED);
	}
	io_uring_queue_exit(&ring);
	close(disk);
	kt_disk_remove();
}

static void direct_read(void)
{
	direct_io(false, false);
}

static void direct_write(void)
{
	direct_io(true, false);
}

static void fixed_read(void)
{
	direct_io(false, true);
}

static void fixed_write(void)
{
	direct_io(true, true);
}

/* ---- both at full speed ------------------------------------------------------ */

static struct {
	char *mem;
	atomic_bool stop;
	atomic_ulong moved, busy;
} shared;

static void *mover(void *arg)
{
	(void)arg;
	for (unsigned long i = 0; !atomic_load(&shared.stop); i++) {
		struct ferry_ioc_result res;

		kt_migrate(shared.mem, LEN, i % 2 ? kt.ddr : kt.hbm, 0, &res);
		KT_EXPECT_EQ(res.error, 0);
		KT_EXPECT_SUM(&res, LEN);
		atomic_fetch_add(&shared.moved, res.moved);
		atomic_fetch_add(&shared.busy, res.busy);
	}
	return NULL;
}

/* Each page is written to the disk and read back into another that moves. */
static void direct_io_while_moving(void)
{
	const size_t half = LEN / 2;
	unsigned int rounds = 0;
	pthread_t thread;
	uint64_t began;
	int disk;

	kt_disk_make(KT_DISK_PLAIN);
	disk = disk_open();
	shared.mem = kt_alloc_on(LEN, kt.ddr, SEED);
	KT_REQUIRE(pthread_create(&thread, NULL, mover, NULL) == 0, "no thread");
	began = kt_now_us();
	for (; (kt_now_us() - began < 1500000 || rounds < 4) && !kt_failures();
	     rounds++) {
		kt_fill(shared.mem, half, rounds);
		for (size_t at = 0; at < half; at += PART)
			KT_EXPECT(pwrite(disk, shared.mem + at, PART, (off_t)at) == PART,
				  "pwrite: %m");
		for (size_t at = 0; at < half; at += PART)
			KT_EXPECT(pread(disk, shared.mem + half + at, PART, (off_t)at) ==
					  PART,
				  "pread: %m");
		KT_EXPECT_DATA(shared.mem, half, rounds);
		KT_EXPECT_DATA(shared.mem + half, half, rounds);
	}
	atomic_store(&shared.stop, true);
	pthread_join(thread, NULL);
	printf("    %u rounds, %lu pages moved, %lu busy\n", rounds,
	       atomic_load(&shared.moved), atomic_load(&shared.busy));
	KT_EXPECT(atomic_load(&shared.moved) > 0, "nothing moved");
	close(disk);
	expect_movable(shared.mem);
	kt_disk_remove();
}

static const struct kt_case cases[] = {
	KT_CASE(direct_read), KT_CASE(direct_write),           KT_CASE(fixed_read),
	KT_CASE(fixed_write), KT_CASE(direct_io_while_moving),
};

KT_MAIN(cases)
