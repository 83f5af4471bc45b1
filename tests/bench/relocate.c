/* SPDX-License-Identifier: MIT */
/*
 * Times relocating huge pages, and small ones that become huge by it, against a
 * plain copy of the same bytes by the same streaming stores, in turns. On a machine with
 * one node too: a granule is then moved to another page of that node, which is the same
 * work.
 *
 * Prints a line a measurement: SUBJECT COPIERS NANOSECONDS. Each copier, or
 * copying thread, has a share of the granules. Pages that are moved are used
 * for what is moved next, as they are when as much moves one way as the other.
 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "migrate/collapse.h"
#include "migrate/page.h"
#include "migrate/relocate.h"
#include "migrate/staging.h"
#include "migrate/stream_copy.h"
#include "os/thread.h"

#define MOST_COPIERS  2
#define MOST_TRIES    100
#define TURN_GRANULES ((size_t)64)

static struct {
	char *mem, *other; /* relocated; copied to */
	size_t granules;
	stream_copy_fn *copy;
} bench;

static void die(const char *what)
{
	fprintf(stderr, "bench_relocate: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void fill(char *mem, size_t len)
{
	for (size_t i = 0; i < len / sizeof(uint64_t); i++)
		((uint64_t *)mem)[i] = i;
}

static char *map(size_t len)
{
	char *mem = mmap(NULL, len + GRANULE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		die("mmap");
	mem = (char *)granule_end((uintptr_t)mem - 1);
	if (madvise(mem, len, MADV_HUGEPAGE))
		die("madvise");
	fill(mem, len);
	return mem;
}

/* The same memory, of small pages that may become huge */
static void make_small(char *mem, size_t len)
{
	if (madvise(mem, len, MADV_DONTNEED) || madvise(mem, len, MADV_NOHUGEPAGE))
		die("madvise");
	fill(mem, len);
	if (madvise(mem, len, MADV_HUGEPAGE))
		die("madvise");
}

/* By what the kernel maps it with now: khugepaged may have made it huge meanwhile. */
static bool relocate_again(uintptr_t granule)
{
	static const int16_t from[1] = {0};

	return relocate_run(granule, 1, relocate_is_huge(granule) ? from : NULL, 0) == 1;
}

/* Again what the kernel has left for something of its own: a page was locked, say. */
static void relocate(size_t i, size_t n, const int16_t *from)
{
	const uintptr_t start = (uintptr_t)bench.mem + i * GRANULE_BYTES;
	uint32_t there = relocate_run(start, n, from, 0);

	for (size_t k = 0, tries = 0; k < n && tries < MOST_TRIES;) {
		if (there >> k & 1 || relocate_again(start + k * GRANULE_BYTES)) {
			k++;
			continue;
		}
		if (++tries < MOST_TRIES)
			continue;
		fprintf(stderr, "bench_relocate: a granule stayed\n");
		exit(1);
	}
}

static void relocate_share(size_t first, size_t end)
{
	const int16_t from[WINDOW_GRANULES] = {0};

	for (size_t i = first, n; i < end; i += n) {
		n = end - i < WINDOW_GRANULES ? end - i : WINDOW_GRANULES;
		relocate(i, n, from);
	}
}

/* Fills the pool of huge pages, as far as it goes. */
static void fill_pool(void)
{
	struct slot *slot[STAGING_KEPT];
	size_t n = 0;

	while (n < STAGING_KEPT && (slot[n] = staging_filled(0)))
		n++;
	while (n > 0)
		staging_put(slot[--n]);
}

/* Moves the granules [i, i + n), which small pages map. */
static void relocate_small(size_t i, size_t n)
{
	const int16_t from[WINDOW_GRANULES] = {0};

	if (!relocate_takes_small())
		collapse((uintptr_t)bench.mem + i * GRANULE_BYTES, n * GRANULE_BYTES);
	relocate(i, n, relocate_takes_small() ? NULL : from);
}

static void relocate_small_share(size_t first, size_t end)
{
	for (size_t i = first, n; i < end; i += n) {
		n = end - i < WINDOW_GRANULES ? end - i : WINDOW_GRANULES;
		relocate_small(i, n);
	}
}

static void copy_share(size_t first, size_t end)
{
	for (size_t i = first; i < end; i++)
		bench.copy(bench.other + i * GRANULE_BYTES, bench.mem + i * GRANULE_BYTES,
			   GRANULE_BYTES);
}

struct share {
	pthread_t thread;
	void (*work)(size_t first, size_t end);
	size_t first, end;
};

static void *run_share(void *arg)
{
	struct share *share = arg;

	share->work(share->first, share->end);
	return NULL;
}

static void print(const char *name, unsigned int copiers, uint64_t ns)
{
	printf("%s %u %llu\n", name, copiers, (unsigned long long)ns);
}

/* Nanoseconds of some work on the granules [first, end), which copiers share. */
static uint64_t time_work(void (*work)(size_t, size_t), unsigned int copiers,
			  size_t first, size_t end)
{
	struct share share[MOST_COPIERS];
	uint64_t begin = clock_ns(CLOCK_MONOTONIC);

	for (unsigned int i = 0; i < copiers; i++) {
		share[i].work = work;
		share[i].first = first + (end - first) * i / copiers;
		share[i].end = first + (end - first) * (i + 1) / copiers;
		if (pthread_create(&share[i].thread, NULL, run_share, &share[i]))
			die("pthread_create");
	}
	for (unsigned int i = 0; i < copiers; i++)
		pthread_join(share[i].thread, NULL);
	return clock_ns(CLOCK_MONOTONIC) - begin;
}

/* In turns of a few milliseconds, so that both meet what the machine does besides. */
static void measure_beside_copy(unsigned int copiers)
{
	uint64_t relocating = 0, copying = 0;

	for (size_t i = 0, end; i < bench.granules; i = end) {
		end = i + TURN_GRANULES < bench.granules ? i + TURN_GRANULES
							 : bench.granules;
		relocating += time_work(relocate_share, copiers, i, end);
		copying += time_work(copy_share, copiers, i, end);
	}
	print("relocate", copiers, relocating);
	print("copy", copiers, copying);
}

/*
 * The huge pages that small ones become are in the pool before, as those are that a copy
 * is made to; what it takes to have them come up is not counted.
 */
static void measure_small(void)
{
	uint64_t ns = 0;

	for (size_t i = 0, n; i < bench.granules; i += n) {
		uint64_t begin;

		n = bench.granules - i < STAGING_KEPT ? bench.granules - i : STAGING_KEPT;
		fill_pool();
		begin = clock_ns(CLOCK_MONOTONIC);
		relocate_small(i, n);
		ns += clock_ns(CLOCK_MONOTONIC) - begin;
	}
	print("relocate-4k", 1, ns);
}

int main(int argc, char **argv)
{
	unsigned int rounds;
	const char *why;
	size_t len;

	if (argc != 3) {
		fprintf(stderr, "usage: bench_relocate MIB ROUNDS\n");
		return 2;
	}
	bench.granules = strtoul(argv[1], NULL, 10) / 2;
	rounds = (unsigned int)strtoul(argv[2], NULL, 10);
	len = bench.granules * GRANULE_BYTES;
	if (relocate_open(&why)) {
		fprintf(stderr, "bench_relocate: %s\n", why);
		return 1;
	}
	bench.copy = stream_copy_best()->copy;
	bench.mem = map(len);
	bench.other = map(len);
	for (unsigned int round = 0; round < rounds; round++) {
		for (unsigned int n = 1; n <= MOST_COPIERS; n++)
			measure_beside_copy(n);
		make_small(bench.mem, len);
		measure_small();
		make_small(bench.mem, len);
		print("relocate-4k-cleared", 1,
		      time_work(relocate_small_share, 1, 0, bench.granules));
	}
	for (size_t i = 0; i < len / sizeof(uint64_t); i++)
		if (((uint64_t *)bench.mem)[i] != i) {
			fprintf(stderr, "bench_relocate: data at word %zu is wrong\n", i);
			return 1;
		}
	return 0;
}
