/* SPDX-License-Identifier: MIT */
/*
 * Times single calls of the module beside moving (migrate.c): filling holes
 * against touching them, and what it costs a thread to submit a batch.
 *
 * Prints a line a measurement: SUBJECT NANOSECONDS PAGES. Filling is timed by
 * the clock, everything counted; submitting by the CPU time of the thread that
 * submits. Both are instructions where the guest counts them.
 */
#include <errno.h>
#include <fcntl.h>
#include <numaif.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <liburing.h>

#include <ferry/ferry.h>
#include <ferry/ferry_ioctl.h>

#define PAGE        ((size_t)4096)
#define RANGES      1000
#define RANGE_PAGES 16 /* a block of 64 KiB */
#define FILL_BYTES  ((size_t)16 << 20)

static int device;

static void die(const char *what)
{
	fprintf(stderr, "bench_calls: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

static char *map(size_t bytes, int node)
{
	unsigned long mask = 1UL << node;
	char *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);

	if (mem == MAP_FAILED)
		die("mmap");
	if (madvise(mem, bytes, MADV_NOHUGEPAGE) < 0)
		die("madvise");
	if (mbind(mem, bytes, MPOL_PREFERRED, &mask, 64, 0) < 0)
		die("mbind");
	return mem;
}

static size_t pages_on(char *mem, size_t count, int node)
{
	void **pages = calloc(count, sizeof(*pages));
	int *status = calloc(count, sizeof(*status));
	size_t on = 0;

	if (!pages || !status)
		die("calloc");
	for (size_t i = 0; i < count; i++)
		pages[i] = mem + i * PAGE;
	if (move_pages(0, count, pages, NULL, status, 0) < 0)
		die("move_pages query");
	for (size_t i = 0; i < count; i++)
		on += status[i] == node;
	free(pages);
	free(status);
	return on;
}

/* ---- filling holes ---- */

static void fill_kmod(char *mem, int node)
{
	struct ferry_ioc_range range = {.addr = (uintptr_t)mem,
					.len = FILL_BYTES,
					.node = node,
					.flags = FERRY_RANGE_POPULATE};
	struct ferry_ioc_migrate batch = {
		.size = sizeof(batch),
		.nr_ranges = 1,
		.ranges = (uintptr_t)&range,
		.range_size = sizeof(range),
	};

	if (ioctl(device, FERRY_IOC_MIGRATE, &batch) < 0)
		die("FERRY_IOC_MIGRATE");
}

static void fill_touch(char *mem, int node)
{
	(void)node;
	for (size_t at = 0; at < FILL_BYTES; at += PAGE)
		((volatile char *)mem)[at] = 1;
}

static void fill(const char *name, void (*how)(char *, int), int node)
{
	char *mem = map(FILL_BYTES, node);
	uint64_t start = clock_ns(CLOCK_MONOTONIC), end;

	how(mem, node);
	end = clock_ns(CLOCK_MONOTONIC);
	printf("%s %llu %zu\n", name, (unsigned long long)(end - start),
	       pages_on(mem, FILL_BYTES / PAGE, node));
	munmap(mem, FILL_BYTES);
}

/* ---- submitting ---- */

/* Each submits all ranges and waits; returns the CPU time of submitting. */

static uint64_t submit_kmod(char *mem, int node)
{
	static struct ferry_ioc_range range[RANGES];
	struct ferry_ioc_migrate batch = {
		.size = sizeof(batch),
		.nr_ranges = RANGES,
		.ranges = (uintptr_t)range,
		.range_size = sizeof(range[0]),
	};
	struct ferry_uring_cmd cmd = {.arg = (uintptr_t)&batch};
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	uint64_t start, ns;

	if (io_uring_queue_init(8, &ring, 0) < 0)
		die("io_uring_queue_init");
	start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (size_t i = 0; i < RANGES; i++)
		range[i] = (struct ferry_ioc_range){.addr = (uintptr_t)mem +
							    2 * i * RANGE_PAGES * PAGE,
						    .len = RANGE_PAGES * PAGE,
						    .node = node};
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, device, NULL, 0, 0);
	sqe->cmd_op = FERRY_IOC_MIGRATE;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	if (io_uring_submit(&ring) != 1)
		die("io_uring_submit");
	ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
	if (io_uring_wait_cqe(&ring, &cqe) < 0 || cqe->res < 0)
		die("IORING_OP_URING_CMD");
	io_uring_queue_exit(&ring);
	return ns;
}

static uint64_t submit_libferry(char *mem, int node)
{
	static struct ferry_range range[RANGES];
	ferry_request *request;
	uint64_t start, ns;
	int error;

	start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (size_t i = 0; i < RANGES; i++)
		range[i] = (struct ferry_range){.addr = mem + 2 * i * RANGE_PAGES * PAGE,
						.len = RANGE_PAGES * PAGE,
						.node = node};
	error = ferry_submit(range, RANGES, &request);
	ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
	if (!error)
		error = ferry_request_wait(request, -1);
	if (error) {
		errno = -error;
		die("ferry_submit");
	}
	ferry_request_free(request);
	return ns;
}

static uint64_t submit_move_pages(char *mem, int node)
{
	static void *pages[RANGES * RANGE_PAGES];
	static int nodes[RANGES * RANGE_PAGES], status[RANGES * RANGE_PAGES];
	const uint64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);

	for (size_t i = 0; i < RANGES * RANGE_PAGES; i++) {
		pages[i] = mem + (i + i / RANGE_PAGES * RANGE_PAGES) * PAGE;
		nodes[i] = node;
	}
	if (move_pages(0, RANGES * RANGE_PAGES, pages, nodes, status, MPOL_MF_MOVE) < 0)
		die("move_pages");
	return clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
}

static void submit(const char *name, uint64_t (*how)(char *, int), char *mem, int to)
{
	uint64_t ns = how(mem, to);

	printf("%s %llu %zu\n", name, (unsigned long long)ns,
	       pages_on(mem, 2 * RANGES * RANGE_PAGES, to));
}

static void submit_all(int rounds, int from, int to)
{
	/* Between two ranges there is one that stays, so that none are joined. */
	const size_t bytes = 2 * RANGES * RANGE_PAGES * PAGE;
	char *mem = map(bytes, from);

	memset(mem, 1, bytes);
	for (int i = 0; i < rounds; i++) {
		submit("kmod", submit_kmod, mem, to);
		submit_move_pages(mem, from);
		submit("libferry", submit_libferry, mem, to);
		submit_move_pages(mem, from);
		submit("move_pages", submit_move_pages, mem, to);
		submit_move_pages(mem, from);
	}
}

int main(int argc, char **argv)
{
	const int from = 0, to = 1;
	int rounds;

	if (argc != 3 ||
	    (strcmp(argv[1], "fill") != 0 && strcmp(argv[1], "submit") != 0) ||
	    (rounds = atoi(argv[2])) < 1) {
		fputs("usage: bench_calls fill|submit ROUNDS\n", stderr);
		return 2;
	}
	device = open(FERRY_DEVICE_PATH, O_RDWR | O_CLOEXEC);
	if (device < 0)
		die(FERRY_DEVICE_PATH);
	if (strcmp(argv[1], "submit") == 0) {
		submit_all(rounds, from, to);
		return 0;
	}
	for (int i = 0; i < rounds; i++) {
		fill("kmod", fill_kmod, to);
		fill("touch", fill_touch, to);
	}
	return 0;
}
