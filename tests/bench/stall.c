/* SPDX-License-Identifier: MIT */
/*
 * How long an access waits for memory that is being moved, by one way of moving
 * it against others in turns.
 *
 * While the main thread moves the memory to a node, a second thread reads one
 * word after the other from pages all over it and takes the time of each read.
 * Prints a line a move: SUBJECT DIRECTION READS P50 P99 P99.9 MAX WAITED MOVE
 * ON-TARGET; times are in nanoseconds by CLOCK_MONOTONIC. WAITED is the sum of
 * all that took longer than SLOW: what the application loses. Reads are few or
 * many depending on how fast the move is, and percentiles are of all of them,
 * so WAITED and MAX are what subjects of different speed are compared by.
 */
#include "subjects.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A read that takes longer waited for something. */
#define SLOW 20000

/* Times are counted in 16 steps for each doubling. */
enum { STEPS = 16, BUCKETS = 64 * STEPS };

/* The main thread owns all but @stop while there is no reader. */
struct reader {
	const char *mem;
	size_t bytes;
	uint64_t bucket[BUCKETS], reads, max, waited;
	atomic_bool stop, begun;
};

static unsigned int bucket_of(uint64_t ns)
{
	unsigned int log = 0;

	if (ns < STEPS)
		return (unsigned int)ns;
	while (ns >> (log + 1) >= STEPS)
		log++;
	return log * STEPS + (unsigned int)(ns >> log);
}

/* The least time of a bucket */
static uint64_t bucket_ns(unsigned int bucket)
{
	if (bucket < 2 * STEPS)
		return bucket;
	return (uint64_t)(bucket % STEPS + STEPS) << (bucket / STEPS - 1);
}

static void *read_on(void *arg)
{
	struct reader *reader = arg;
	const size_t pages = reader->bytes / PAGE;
	uint64_t random = 88172645463325252u;

	atomic_store(&reader->begun, true);
	while (!atomic_load_explicit(&reader->stop, memory_order_relaxed)) {
		uint64_t start, took;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		start = now_ns();
		(void)*(volatile const uint64_t *)(reader->mem + random % pages * PAGE);
		took = now_ns() - start;
		reader->bucket[bucket_of(took)]++;
		reader->reads++;
		reader->max = took > reader->max ? took : reader->max;
		reader->waited += took > SLOW ? took : 0;
	}
	return NULL;
}

static uint64_t percentile(const struct reader *reader, double part)
{
	uint64_t below = 0, wanted = (uint64_t)((double)reader->reads * part);
	unsigned int i = 0;

	for (; i < BUCKETS - 1; i++) {
		below += reader->bucket[i];
		if (below > wanted)
			break;
	}
	return bucket_ns(i);
}

static void measure(struct bench *bench, const struct subject *subject, int node)
{
	static struct reader reader;
	pthread_t thread;
	uint64_t took;

	memset(&reader, 0, sizeof(reader));
	reader.mem = bench->mem;
	reader.bytes = bench->bytes;
	if (pthread_create(&thread, NULL, read_on, &reader))
		die("pthread_create");
	while (!atomic_load(&reader.begun))
		;
	took = now_ns();
	subject->move(bench, node);
	took = now_ns() - took;
	atomic_store(&reader.stop, true);
	pthread_join(thread, NULL);
	printf("%s %d %llu %llu %llu %llu %llu %llu %llu %zu\n", subject->name, node,
	       (unsigned long long)reader.reads,
	       (unsigned long long)percentile(&reader, 0.5),
	       (unsigned long long)percentile(&reader, 0.99),
	       (unsigned long long)percentile(&reader, 0.999),
	       (unsigned long long)reader.max, (unsigned long long)reader.waited,
	       (unsigned long long)took, pages_on(bench, subject, node));
}

int main(int argc, char **argv)
{
	struct bench_task task = {
		.bench = {.bytes = (size_t)256 << 20, .call_bytes = HUGE},
		.subjects = "ioctl,io_uring,libferry,move_pages",
		.rounds = 3,
		.to = 1,
	};

	bench_options(
		&task, argc, argv, "h",
		"usage: bench_stall [--bytes N] [--call-pages N] [--rounds N] [--huge]\n"
		"                   [--subjects LIST] [--from NODE] [--to NODE]\n");
	bench_open(&task.bench, task.from);
	bench_rounds(&task, measure);
	return 0;
}
