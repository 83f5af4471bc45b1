/* SPDX-License-Identifier: MIT */
/*
 * How long a small request of a process takes, alone and beside another process
 * (the hog) that keeps IN_FLIGHT large ones going, by the module's and by the
 * kernel's own call.
 *
 * Prints a line for each series of requests: SUBJECT alone|beside P50 P99 MAX
 * REQUESTS MOVED HOG; times are in nanoseconds by CLOCK_MONOTONIC, MOVED are the
 * requests after which the kernel said that all pages were there, HOG the bytes
 * that the hog had moved meanwhile.
 *
 * The main thread is the only one of its process. The hog's threads have memory
 * of their own each and share a counter with it.
 */
#include "subjects.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ferry/ferry_ioctl.h>

/* As many as move_uring() keeps in flight */
#define IN_FLIGHT 8

enum { SMALL = 16, MAX_REQUESTS = 100000 };

/* The small requests of a subject, and who moves endlessly beside them */
struct pair {
	const char *subject, *hog;
};

static const struct pair pairs[] = {
	{"ioctl", "io_uring"},
	{"io_uring", "io_uring"},
	{"move_pages", "move_pages"},
};

/* Bytes that the hog has moved; in memory that both processes map */
static _Atomic uint64_t *hog_bytes;

/* What a thread of the hog moves; the memory is its own. */
struct hog {
	struct bench bench;
	const struct subject *subject;
	int from, to;
};

static void *move_on(void *arg)
{
	struct hog *hog = arg;

	for (;;) {
		hog->subject->move(&hog->bench, hog->to);
		atomic_fetch_add(hog_bytes, hog->bench.bytes);
		hog->subject->move(&hog->bench, hog->from);
		atomic_fetch_add(hog_bytes, hog->bench.bytes);
	}
	return NULL;
}

/* io_uring's calls are in flight together; of the others, each has its thread. */
static _Noreturn void hog_run(const struct hog *wanted)
{
	const bool async = !strcmp(wanted->subject->name, "io_uring");
	static struct hog part[IN_FLIGHT];
	struct hog whole = *wanted;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_open(&whole.bench, whole.from);
	if (async)
		move_on(&whole);
	for (size_t i = 0; i < IN_FLIGHT; i++) {
		pthread_t thread;

		part[i] = whole;
		part[i].bench.bytes = whole.bench.bytes / IN_FLIGHT;
		part[i].bench.mem += i * part[i].bench.bytes;
		if (pthread_create(&thread, NULL, move_on, &part[i]))
			die("pthread_create");
	}
	for (;;)
		pause();
}

/* Returns the hog's process when it has begun to move. */
static pid_t hog_start(const struct bench *bench, const struct hog *hog)
{
	pid_t pid;

	atomic_store(hog_bytes, 0);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		munmap(bench->mem, bench->bytes); /* shared, it would not move */
		hog_run(hog);
	}
	while (!atomic_load(hog_bytes)) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			exit(1); /* it has said why */
		usleep(10000);
	}
	return pid;
}

static void hog_end(pid_t pid)
{
	kill(pid, SIGKILL);
	if (waitpid(pid, NULL, 0) < 0)
		die("waitpid");
}

static int by_size(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Makes @requests, and then more until the hog is known to have moved something. */
static void measure(struct bench *bench, const struct subject *subject, bool beside,
		    size_t requests, int from, int to)
{
	static uint64_t took[MAX_REQUESTS];
	const uint64_t before = atomic_load(hog_bytes);
	size_t n = 0, moved = 0;

	while (n < requests ||
	       (beside && atomic_load(hog_bytes) == before && n < MAX_REQUESTS)) {
		const int node = n % 2 ? from : to;
		const uint64_t start = now_ns();

		subject->move(bench, node);
		took[n++] = now_ns() - start;
		moved += pages_on(bench, subject, node) == SMALL;
	}
	qsort(took, n, sizeof(*took), by_size);
	printf("%s %s %llu %llu %llu %zu %zu %llu\n", subject->name,
	       beside ? "beside" : "alone", (unsigned long long)took[n / 2],
	       (unsigned long long)took[n * 99 / 100], (unsigned long long)took[n - 1], n,
	       moved, (unsigned long long)(atomic_load(hog_bytes) - before));
	fflush(stdout);
}

static void usage(void)
{
	fputs("usage: bench_fairness [--hog-bytes N] [--call-pages N] [--requests N]\n"
	      "                      [--rounds N] [--from NODE] [--to NODE]\n",
	      stderr);
	exit(2);
}

static unsigned long number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (end == text || *end)
		usage();
	return value;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"hog-bytes", required_argument, NULL, 'b'},
		{"call-pages", required_argument, NULL, 'c'},
		{"requests", required_argument, NULL, 'n'},
		{"rounds", required_argument, NULL, 'r'},
		{"from", required_argument, NULL, 'f'},
		{"to", required_argument, NULL, 't'},
		{0},
	};
	struct bench bench = {.bytes = SMALL * PAGE, .call_bytes = SMALL * PAGE};
	struct hog hog = {
		.bench = {.bytes = (size_t)512 << 20, .call_bytes = (size_t)16 << 20},
		.to = 1};
	unsigned long requests = 200, rounds = 3;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'b':
			hog.bench.bytes = number(optarg) & ~(IN_FLIGHT * HUGE - 1);
			break;
		case 'c':
			hog.bench.call_bytes = number(optarg) * PAGE;
			break;
		case 'n':
			requests = number(optarg);
			break;
		case 'r':
			rounds = number(optarg);
			break;
		case 'f':
			hog.from = (int)number(optarg);
			break;
		case 't':
			hog.to = (int)number(optarg);
			break;
		default:
			usage();
		}
	}
	/* A call of a thread must not reach into the memory of another. */
	if (optind < argc || !requests || requests > MAX_REQUESTS || !hog.bench.bytes ||
	    !hog.bench.call_bytes || hog.bench.bytes / IN_FLIGHT % hog.bench.call_bytes)
		usage();

	hog_bytes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			 -1, 0);
	if (hog_bytes == MAP_FAILED)
		die("mmap");
	bench_open(&bench, hog.from);
	if (bench.device < 0) {
		errno = ENODEV;
		die(FERRY_DEVICE_PATH);
	}
	for (unsigned long round = 0; round < rounds; round++)
		for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
			const struct subject *subject = bench_subject(pairs[i].subject);
			pid_t pid;

			measure(&bench, subject, false, requests, hog.from, hog.to);
			hog.subject = bench_subject(pairs[i].hog);
			pid = hog_start(&bench, &hog);
			measure(&bench, subject, true, requests, hog.from, hog.to);
			hog_end(pid);
		}
	return 0;
}
