/* SPDX-License-Identifier: MIT */
/*
 * Times one way of moving memory between two nodes, against others in turns.
 *
 * Prints a line a measurement: SUBJECT DIRECTION NANOSECONDS PAGES. What the
 * numbers mean is for the caller (tests/bench/run) to say. The clock is
 * CLOCK_MONOTONIC: wall time, or guest instructions where the guest counts
 * them. The busy thread works on memory of its own; what it costs is that this
 * process then runs on another CPU too, so that every unmapping must reach it.
 *
 * A subject that leaves a page behind has not done the work: the kernel is
 * asked after every move, and the page count printed is the kernel's.
 */
#include "subjects.h"

#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void check_data(const struct bench *bench)
{
	for (size_t at = 0; at < bench->bytes; at += PAGE)
		if (*(const uint64_t *)(bench->mem + at) != at * 0x9e3779b97f4a7c15U) {
			fprintf(stderr, "bench_migrate: data at offset %zu is wrong\n",
				at);
			exit(1);
		}
}

static void measure(struct bench *bench, const struct subject *subject, int node)
{
	uint64_t start = now_ns(), end;
	size_t on;

	subject->move(bench, node);
	end = now_ns();
	on = pages_on(bench, node);
	check_data(bench);
	printf("%s %d %llu %zu\n", subject->name, node, (unsigned long long)(end - start),
	       on);
}

static void *spin(void *stop)
{
	volatile uint64_t work = 0;

	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED))
		work++;
	return NULL;
}

static void usage(void)
{
	fputs("usage: bench_migrate [--bytes N] [--call-pages N] [--huge|--advised] "
	      "[--busy]\n"
	      "                     [--rounds N] [--subjects LIST] [--from NODE] [--to "
	      "NODE]\n"
	      "subjects:",
	      stderr);
	for (size_t i = 0; i < nr_subjects; i++)
		fprintf(stderr, " %s", subjects[i].name);
	fputc('\n', stderr);
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
		{"bytes", required_argument, NULL, 'b'},
		{"call-pages", required_argument, NULL, 'c'},
		{"huge", no_argument, NULL, 'h'},
		{"advised", no_argument, NULL, 'a'},
		{"busy", no_argument, NULL, 'y'},
		{"rounds", required_argument, NULL, 'r'},
		{"subjects", required_argument, NULL, 's'},
		{"from", required_argument, NULL, 'f'},
		{"to", required_argument, NULL, 't'},
		{0},
	};
	struct bench bench = {.bytes = (size_t)64 << 20, .call_bytes = HUGE};
	const char *wanted = "ioctl,io_uring,libferry,move_pages,mbind";
	unsigned long rounds = 5;
	int from = 0, to = 1, option;
	bool busy = false, stop = false;
	pthread_t spinner;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'b':
			bench.bytes = number(optarg) & ~(HUGE - 1);
			break;
		case 'c':
			bench.call_bytes = number(optarg) * PAGE;
			break;
		case 'h':
			bench.huge = true;
			break;
		case 'a':
			bench.advised = true;
			break;
		case 'y':
			busy = true;
			break;
		case 'r':
			rounds = number(optarg);
			break;
		case 's':
			wanted = optarg;
			break;
		case 'f':
			from = (int)number(optarg);
			break;
		case 't':
			to = (int)number(optarg);
			break;
		default:
			usage();
		}
	}
	if (optind < argc || !bench.bytes || !bench.call_bytes)
		usage();

	bench_open(&bench, from);
	if (busy && pthread_create(&spinner, NULL, spin, &stop))
		die("pthread_create");

	bench_rounds(&bench, wanted, rounds, from, to, measure);

	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	if (busy)
		pthread_join(spinner, NULL);
	return 0;
}
