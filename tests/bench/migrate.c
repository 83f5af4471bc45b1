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
	on = pages_on(bench, subject, node);
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

int main(int argc, char **argv)
{
	struct bench_task task = {
		.bench = {.bytes = (size_t)64 << 20, .call_bytes = HUGE},
		.subjects = "ioctl,io_uring,libferry,move_pages,mbind",
		.rounds = 5,
		.to = 1,
	};
	bool stop = false;
	pthread_t spinner = 0;

	bench_options(&task, argc, argv, "hab",
		      "usage: bench_migrate [--bytes N] [--call-pages N] "
		      "[--huge|--advised] [--busy]\n"
		      "                     [--rounds N] [--subjects LIST] [--from NODE] "
		      "[--to NODE]\n");
	bench_open(&task.bench, task.from);
	if (task.busy && pthread_create(&spinner, NULL, spin, &stop))
		die("pthread_create");

	bench_rounds(&task, measure);

	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	if (task.busy)
		pthread_join(spinner, NULL);
	return 0;
}
