/* SPDX-License-Identifier: MIT */
/*
 * Allocation workloads for tests/bench/malloc.py. Which malloc serves them is
 * decided by LD_PRELOAD: this program knows nothing of Ferry.
 *
 * Usage: bench_malloc CASE. Each case does a fixed amount of work and prints the
 * nanoseconds that it took and the KiB that the process had at most (the kernel's
 * VmHWM; getrusage(2) would count what the process was before exec, too). Blocks are
 * written when they are allocated and checked when they are freed, so that none is handed
 * out twice.
 *
 *   larson   a server: threads replace random blocks of 8 to 1,000 bytes, and
 *            pass their blocks on to a thread that begins anew (Larson and
 *            Krishnan, "Memory Allocation for Long-Running Server Applications")
 *   xfree    one thread allocates, another frees: no free is local
 *   mix      sizes as programs have them, most small and some large, that live
 *            shortly or long
 *   thrash   each thread writes to a small block again and again: slow where
 *            blocks of two threads share a cache line
 *   large    blocks of 64 KiB to 4 MiB, touched a little: the page allocator
 *
 * Threads: all state belongs to one thread at a time; what passes between
 * threads does so by pthread_join() or through `struct pipe`.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS = 2 };

struct block {
	unsigned char *at;
	size_t size;
	unsigned char mark;
};

static void die(const char *what)
{
	fprintf(stderr, "bench_malloc: %s\n", what);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* xorshift64: the same numbers in each run, and next to no time */
static uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void take(struct block *block, size_t size, unsigned char mark)
{
	block->at = malloc(size);
	if (!block->at)
		die("out of memory");
	block->size = size;
	block->mark = mark;
	block->at[0] = block->at[size - 1] = mark;
}

static void give(struct block *block)
{
	if (!block->at)
		return;
	if (block->at[0] != block->mark || block->at[block->size - 1] != block->mark)
		die("a block has changed");
	free(block->at);
	block->at = NULL;
}

static void run_threads(void *(*fn)(void *), void *arg, size_t arg_size)
{
	pthread_t thread[THREADS];

	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, fn, (char *)arg + i * arg_size))
			die("pthread_create");
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
}

/* ---- larson -------------------------------------------------------------- */

enum { LARSON_BLOCKS = 5000, LARSON_OPS = 250000, LARSON_GENERATIONS = 24 };

struct larson {
	struct block block[LARSON_BLOCKS];
	uint64_t seed;
};

static void *larson_thread(void *arg)
{
	struct larson *larson = arg;

	for (int i = 0; i < LARSON_OPS; i++) {
		uint64_t random = draw(&larson->seed);
		struct block *block = &larson->block[random % LARSON_BLOCKS];

		give(block);
		take(block, 8 + (random >> 32) % 993, (unsigned char)(random >> 24));
	}
	return NULL;
}

static void larson(void)
{
	static struct larson part[THREADS];

	for (int i = 0; i < THREADS; i++)
		part[i].seed = 88172645463325252U + (uint64_t)i;
	for (int i = 0; i < LARSON_GENERATIONS; i++)
		run_threads(larson_thread, part, sizeof(part[0]));
	for (int i = 0; i < THREADS; i++)
		for (int b = 0; b < LARSON_BLOCKS; b++)
			give(&part[i].block[b]);
}

/* ---- xfree --------------------------------------------------------------- */

enum { PIPE_SLOTS = 64, XFREE_BATCH = 100, XFREE_BATCHES = 60000 };

/* One writer, one reader: each slot is the writer's until `full` says otherwise. */
struct pipe {
	struct {
		_Atomic bool full;
		struct block block[XFREE_BATCH];
	} slot[PIPE_SLOTS];
};

static void wait_for(const _Atomic bool *flag, bool value)
{
	const struct timespec moment = {.tv_nsec = 20000};

	while (atomic_load_explicit(flag, memory_order_acquire) != value)
		nanosleep(&moment, NULL);
}

static void *xfree_reader(void *arg)
{
	struct pipe *pipe = arg;

	for (int i = 0; i < XFREE_BATCHES; i++) {
		_Atomic bool *full = &pipe->slot[i % PIPE_SLOTS].full;

		wait_for(full, true);
		for (int b = 0; b < XFREE_BATCH; b++)
			give(&pipe->slot[i % PIPE_SLOTS].block[b]);
		atomic_store_explicit(full, false, memory_order_release);
	}
	return NULL;
}

static void xfree(void)
{
	static struct pipe pipe;
	uint64_t seed = 2463534242U;
	pthread_t reader;

	if (pthread_create(&reader, NULL, xfree_reader, &pipe))
		die("pthread_create");
	for (int i = 0; i < XFREE_BATCHES; i++) {
		_Atomic bool *full = &pipe.slot[i % PIPE_SLOTS].full;

		wait_for(full, false);
		for (int b = 0; b < XFREE_BATCH; b++)
			take(&pipe.slot[i % PIPE_SLOTS].block[b], 16 + draw(&seed) % 240,
			     (unsigned char)b);
		atomic_store_explicit(full, true, memory_order_release);
	}
	pthread_join(reader, NULL);
}

/* ---- mix ----------------------------------------------------------------- */

enum { MIX_SHORT = 256, MIX_LONG = 16384, MIX_OPS = 4000000 };

/* Half of all are below 64 bytes; each doubling of the size is half as frequent. */
static size_t mix_size(uint64_t random)
{
	int doublings = __builtin_ctzll(random | 1U << 13);

	return 16 + (random >> 32) % ((size_t)48 << doublings);
}

static void *mix_thread(void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct block *live = calloc(MIX_SHORT + MIX_LONG, sizeof(*live));

	if (!live)
		die("out of memory");
	for (int i = 0; i < MIX_OPS; i++) {
		uint64_t random = draw(&seed);
		size_t slots = random % 16 ? MIX_SHORT : MIX_SHORT + MIX_LONG;
		struct block *block = &live[(random >> 8) % slots];

		give(block);
		take(block, mix_size(random >> 20), (unsigned char)i);
	}
	for (int i = 0; i < MIX_SHORT + MIX_LONG; i++)
		give(&live[i]);
	free(live);
	return NULL;
}

static void mix(void)
{
	uint64_t seed[THREADS];

	for (int i = 0; i < THREADS; i++)
		seed[i] = 1181783497276652981U + (uint64_t)i;
	run_threads(mix_thread, seed, sizeof(seed[0]));
}

/* ---- thrash -------------------------------------------------------------- */

enum { THRASH_BYTES = 8, THRASH_OPS = 400000, THRASH_WRITES = 400 };

static void *thrash_thread(void *arg)
{
	(void)arg;
	for (int i = 0; i < THRASH_OPS; i++) {
		volatile unsigned char *block = malloc(THRASH_BYTES);

		if (!block)
			die("out of memory");
		for (int w = 0; w < THRASH_WRITES; w++)
			block[w % THRASH_BYTES]++;
		free((void *)block);
	}
	return NULL;
}

static void thrash(void)
{
	run_threads(thrash_thread, NULL, 0);
}

/* ---- large --------------------------------------------------------------- */

enum { LARGE_BLOCKS = 64, LARGE_OPS = 60000 };

static void large(void)
{
	static struct block live[LARGE_BLOCKS];
	uint64_t seed = 362436069U;

	for (int i = 0; i < LARGE_OPS; i++) {
		uint64_t random = draw(&seed);
		struct block *block = &live[random % LARGE_BLOCKS];

		give(block);
		take(block, (size_t)64 << (10 + (random >> 16) % 7), (unsigned char)i);
		for (size_t at = 0; at < block->size; at += block->size / 8)
			block->at[at] = block->mark;
	}
	for (int i = 0; i < LARGE_BLOCKS; i++)
		give(&live[i]);
}

static unsigned long peak_kib(void)
{
	unsigned long kib = 0;
	char line[128];
	FILE *status = fopen("/proc/self/status", "r");

	if (!status)
		die("/proc/self/status cannot be read");
	while (!kib && fgets(line, sizeof(line), status))
		if (!strncmp(line, "VmHWM:", 6))
			kib = strtoul(line + 6, NULL, 10);
	fclose(status);
	return kib;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {
		{"larson", larson}, {"xfree", xfree}, {"mix", mix},
		{"thrash", thrash}, {"large", large},
	};

	for (size_t i = 0; argc == 2 && i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t begin;

		if (strcmp(argv[1], cases[i].name) != 0)
			continue;
		begin = now();
		cases[i].run();
		begin = now() - begin;
		printf("%llu %lu\n", (unsigned long long)begin, peak_kib());
		return 0;
	}
	fprintf(stderr, "Usage: bench_malloc larson|xfree|mix|thrash|large\n");
	return 2;
}
