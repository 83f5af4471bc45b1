/* SPDX-License-Identifier: MIT */
/* The ways of moving memory, and the memory itself; see subjects.h. No state. */
#include "subjects.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include <ferry/ferry.h>
#include <ferry/ferry_ioctl.h>

#define URING_DEPTH 8

void die(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- subjects: each moves all of bench->mem to @node ---- */

static void fill_batch(struct ferry_ioc_migrate *batch, struct ferry_ioc_range *range)
{
	*batch = (struct ferry_ioc_migrate){
		.size = sizeof(*batch),
		.nr_ranges = 1,
		.ranges = (uintptr_t)range,
		.range_size = sizeof(*range),
	};
}

static void move_ioctl(struct bench *bench, int node)
{
	for (size_t at = 0; at < bench->bytes; at += bench->call_bytes) {
		struct ferry_ioc_range range = {.addr = (uintptr_t)bench->mem + at,
						.len = bench->call_bytes,
						.node = node};
		struct ferry_ioc_migrate batch;

		fill_batch(&batch, &range);
		if (ioctl(bench->device, FERRY_IOC_MIGRATE, &batch) < 0)
			die("FERRY_IOC_MIGRATE");
	}
}

/*
 * Keeps up to URING_DEPTH calls in flight, and wakes up when half of them are
 * done; slot i is the user data of its SQE.
 */
static void move_uring(struct bench *bench, int node)
{
	struct ferry_ioc_range range[URING_DEPTH];
	struct ferry_ioc_migrate batch[URING_DEPTH];
	size_t at = 0, in_flight = 0;
	unsigned int free_slots = (1U << URING_DEPTH) - 1;

	while (at < bench->bytes || in_flight > 0) {
		while (at < bench->bytes && free_slots) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&bench->ring);
			struct ferry_uring_cmd cmd = {0};
			int slot = __builtin_ctz(free_slots);

			range[slot] = (struct ferry_ioc_range){
				.addr = (uintptr_t)bench->mem + at,
				.len = bench->call_bytes,
				.node = node};
			fill_batch(&batch[slot], &range[slot]);
			cmd.arg = (uintptr_t)&batch[slot];
			io_uring_prep_rw(IORING_OP_URING_CMD, sqe, bench->device, NULL, 0,
					 0);
			sqe->cmd_op = FERRY_IOC_MIGRATE;
			/* As the library: it would be sent there anyway. */
			sqe->flags = IOSQE_ASYNC;
			memcpy(sqe->cmd, &cmd, sizeof(cmd));
			io_uring_sqe_set_data64(sqe, slot);
			free_slots &= ~(1U << slot);
			at += bench->call_bytes;
			in_flight++;
		}
		if (io_uring_submit_and_wait(&bench->ring, (in_flight + 1) / 2) < 0)
			die("io_uring_submit_and_wait");

		struct io_uring_cqe *cqe;

		while (io_uring_peek_cqe(&bench->ring, &cqe) == 0) {
			if (cqe->res < 0) {
				errno = -cqe->res;
				die("IORING_OP_URING_CMD");
			}
			free_slots |= 1U << io_uring_cqe_get_data64(cqe);
			in_flight--;
			io_uring_cqe_seen(&bench->ring, cqe);
		}
	}
}

/* Huge pages by their heads: move_pages(2) moves the whole page for any part. */
static void move_move_pages(struct bench *bench, int node)
{
	size_t step = bench->huge ? HUGE : PAGE;
	size_t per_call = bench->call_bytes / step;
	void **pages;
	int *nodes, *status;

	if (per_call == 0)
		per_call = 1;
	pages = calloc(per_call, sizeof(*pages));
	nodes = calloc(per_call, sizeof(*nodes));
	status = calloc(per_call, sizeof(*status));
	if (!pages || !nodes || !status)
		die("calloc");
	for (size_t i = 0; i < per_call; i++)
		nodes[i] = node;
	for (size_t at = 0; at < bench->bytes; at += per_call * step) {
		for (size_t i = 0; i < per_call; i++)
			pages[i] = bench->mem + at + i * step;
		if (move_pages(0, per_call, pages, nodes, status, MPOL_MF_MOVE) < 0)
			die("move_pages");
	}
	free(pages);
	free(nodes);
	free(status);
}

static void move_mbind(struct bench *bench, int node)
{
	unsigned long mask = 1UL << node;

	for (size_t at = 0; at < bench->bytes; at += bench->call_bytes)
		if (mbind(bench->mem + at, bench->call_bytes, MPOL_PREFERRED, &mask, 64,
			  MPOL_MF_MOVE) < 0)
			die("mbind");
}

/* The library as its users call it: one request for everything. */
static void move_libferry(struct bench *bench, int node)
{
	struct ferry_range range = {
		.addr = bench->mem, .len = bench->bytes, .node = node};
	int error = ferry_migrate(&range, 1, NULL, 0);

	if (error) {
		errno = -error;
		die("ferry_migrate");
	}
}

/* Nothing is moved: the memory is copied to the other node, or from there. */
static void copy_plainly(struct bench *bench, int node)
{
	if (node == bench->copy_node)
		memcpy(bench->copy, bench->mem, bench->bytes);
	else
		memcpy(bench->mem, bench->copy, bench->bytes);
}

static const struct subject subjects[] = {
	{.name = "ioctl", .needs_module = true, .move = move_ioctl},
	{.name = "io_uring", .needs_module = true, .move = move_uring},
	{.name = "libferry", .move = move_libferry},
	{.name = "move_pages", .move = move_move_pages},
	{.name = "mbind", .move = move_mbind},
	{.name = "copy", .is_copy = true, .move = copy_plainly},
};
static const size_t nr_subjects = sizeof(subjects) / sizeof(subjects[0]);

const struct subject *bench_subject(const char *name)
{
	for (size_t i = 0; i < nr_subjects; i++)
		if (strcmp(subjects[i].name, name) == 0)
			return &subjects[i];
	abort();
}

/* ---- time and memory ---- */

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + ts.tv_nsec;
}

/* Is @name in @list, which has commas between its words? */
static bool listed(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = list; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, name, length) == 0 && (at[length] == ',' || !at[length]))
			return true;
	}
	return false;
}

static char *reserve(const struct bench *bench)
{
	char *raw;

	if (bench->advised) {
		errno = ferry_posix_memalign((void **)&raw, HUGE, bench->bytes,
					     FERRY_DDR);
		if (errno)
			die("ferry_posix_memalign");
		return raw;
	}
	raw = mmap(NULL, bench->bytes + HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (raw == MAP_FAILED)
		die("mmap");
	return (char *)(((uintptr_t)raw + HUGE - 1) & ~(HUGE - 1));
}

static void fill_memory(struct bench *bench, int node)
{
	unsigned long mask = 1UL << node;

	/* Preferred, not default: NUMA balancing must not move it meanwhile. */
	if (mbind(bench->mem, bench->bytes, MPOL_PREFERRED, &mask, 64, 0) < 0)
		die("mbind");
	if (madvise(bench->mem, bench->bytes,
		    bench->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) < 0)
		die("madvise");
	for (size_t at = 0; at < bench->bytes; at += PAGE)
		*(uint64_t *)(bench->mem + at) = at * 0x9e3779b97f4a7c15U;
	if (bench->advised && madvise(bench->mem, bench->bytes, MADV_HUGEPAGE) < 0)
		die("madvise");
}

static void remake_memory(struct bench *bench, int node)
{
	if (madvise(bench->mem, bench->bytes, MADV_DONTNEED) < 0)
		die("madvise");
	fill_memory(bench, node);
}

void bench_open(struct bench *bench, int node)
{
	bench->device = open(FERRY_DEVICE_PATH, O_RDWR | O_CLOEXEC);
	if (io_uring_queue_init(URING_DEPTH, &bench->ring, 0) < 0)
		die("io_uring_queue_init");
	bench->mem = reserve(bench);
	fill_memory(bench, node);
}

static void open_copy(struct bench *bench, int node)
{
	struct bench copy = {.bytes = bench->bytes, .huge = bench->huge};

	copy.mem = reserve(&copy);
	fill_memory(&copy, node);
	bench->copy = copy.mem;
	bench->copy_node = node;
}

static void require(const struct bench *bench, const struct subject *subject)
{
	if (!subject->needs_module || bench->device >= 0)
		return;
	errno = ENODEV;
	die(FERRY_DEVICE_PATH);
}

void bench_rounds(struct bench_task *task,
		  void (*measure)(struct bench *bench, const struct subject *subject,
				  int node))
{
	struct bench *bench = &task->bench;

	/* Each subject takes each place in a round once before any comes twice. */
	for (unsigned long round = 0; round < task->rounds; round++)
		for (size_t i = 0; i < nr_subjects; i++) {
			const struct subject *subject =
				&subjects[(i + round) % nr_subjects];

			if (!listed(task->subjects, subject->name))
				continue;
			require(bench, subject);
			if (subject->is_copy && !bench->copy)
				open_copy(bench, task->to);
			if (bench->advised)
				remake_memory(bench, task->from);
			measure(bench, subject, task->to);
			if (!bench->advised)
				measure(bench, subject, task->from);
		}
}

size_t pages_on(const struct bench *bench, const struct subject *subject, int node)
{
	const char *mem =
		subject->is_copy && node == bench->copy_node ? bench->copy : bench->mem;
	size_t count = bench->bytes / PAGE, on = 0;
	void **pages = calloc(count, sizeof(*pages));
	int *status = calloc(count, sizeof(*status));

	if (!pages || !status)
		die("calloc");
	for (size_t i = 0; i < count; i++)
		pages[i] = (void *)(mem + i * PAGE);
	if (move_pages(0, count, pages, NULL, status, 0) < 0)
		die("move_pages query");
	for (size_t i = 0; i < count; i++)
		on += status[i] == node;
	free(pages);
	free(status);
	return on;
}

/* ---- options ---- */

_Noreturn static void refuse(const char *usage)
{
	fputs(usage, stderr);
	fputs("subjects:", stderr);
	for (size_t i = 0; i < nr_subjects; i++)
		fprintf(stderr, " %s", subjects[i].name);
	fputc('\n', stderr);
	exit(2);
}

static unsigned long number(const char *text, const char *usage)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (end == text || *end)
		refuse(usage);
	return value;
}

static void set_flag(struct bench_task *task, int flag)
{
	task->bench.huge |= flag == 'h';
	task->bench.advised |= flag == 'a';
	task->busy |= flag == 'b';
}

void bench_options(struct bench_task *task, int argc, char **argv, const char *flags,
		   const char *usage)
{
	static const struct option options[] = {
		{"bytes", required_argument, NULL, 'B'},
		{"call-pages", required_argument, NULL, 'C'},
		{"rounds", required_argument, NULL, 'R'},
		{"subjects", required_argument, NULL, 'S'},
		{"from", required_argument, NULL, 'F'},
		{"to", required_argument, NULL, 'T'},
		{"huge", no_argument, NULL, 'h'},
		{"advised", no_argument, NULL, 'a'},
		{"busy", no_argument, NULL, 'b'},
		{0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'B':
			task->bench.bytes = number(optarg, usage) & ~(HUGE - 1);
			break;
		case 'C':
			task->bench.call_bytes = number(optarg, usage) * PAGE;
			break;
		case 'R':
			task->rounds = number(optarg, usage);
			break;
		case 'S':
			task->subjects = optarg;
			break;
		case 'F':
			task->from = (int)number(optarg, usage);
			break;
		case 'T':
			task->to = (int)number(optarg, usage);
			break;
		default:
			if (!strchr(flags, option))
				refuse(usage);
			set_flag(task, option);
		}
	}
	if (optind < argc || !task->bench.bytes || !task->bench.call_bytes)
		refuse(usage);
}
