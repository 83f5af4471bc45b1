/* SPDX-License-Identifier: MIT */
/*
 * Proves that a sampler tells what another thread accesses meanwhile and
 * nothing else: reads and writes, in small and huge pages, with several spans
 * and holes in them, though that thread's CPU holds all translations; and that it
 * keeps to its budget. Each sampler that can be opened; skipped where none can. A thread
 * of its own accesses; the rest is the main thread's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "fault/sampler.h"

#define GRANULES      4
#define MEMORY_BYTES  (GRANULES * GRANULE_BYTES)
#define BLOCKS        (MEMORY_BYTES / BLOCK_BYTES)
#define BLOCK_PAGES   (BLOCK_BYTES / PAGE_BYTES)
#define WINDOW_NS     UINT64_C(400000000)
#define GRANULE_BLOCK (GRANULE_BYTES / BLOCK_BYTES)

static const struct sampler *sampler;
static struct sample sample[BLOCKS];

static struct {
	char *mem;
	size_t first, step; /* which blocks are accessed */
	bool write;
	atomic_bool stop;
	atomic_ulong rounds;
} toucher;

static char *map(bool huge)
{
	char *raw = mmap(NULL, MEMORY_BYTES + GRANULE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *mem;

	assert_true(raw != MAP_FAILED);
	mem = (char *)granule_end((uintptr_t)raw - 1);
	madvise(mem, MEMORY_BYTES, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(mem, 1, MEMORY_BYTES);
	return mem;
}

static void *touch(void *unused)
{
	(void)unused;
	while (!atomic_load(&toucher.stop)) {
		for (size_t b = toucher.first; b < BLOCKS; b += toucher.step)
			for (size_t page = 0; page < BLOCK_PAGES; page++) {
				volatile char *at =
					toucher.mem + b * BLOCK_BYTES + page * PAGE_BYTES;
				char byte = *at;

				if (toucher.write)
					*at = byte;
			}
		atomic_fetch_add(&toucher.rounds, 1);
	}
	return NULL;
}

/*
 * Adds a sample of @n spans to what was found accessed before. Whether all blocks that
 * are accessed have been found so by now.
 */
static bool sample_more(const struct span *span, size_t n)
{
	static bool accessed[BLOCKS];
	bool all = true;
	size_t i = 0;

	for (size_t k = 0; k < BLOCKS; k++)
		accessed[k] = sample[k].accessed > 0;
	memset(sample, 0xa5, sizeof(sample));
	assert_int_equal(sampler->sample(span, n, WINDOW_NS, sample), 0);
	for (size_t k = 0; k < n; k++)
		for (uintptr_t at = span[k].start; at < span[k].end;
		     at += BLOCK_BYTES, i++) {
			size_t block = (at - (uintptr_t)toucher.mem) / BLOCK_BYTES;
			bool touched = block >= toucher.first &&
				       (block - toucher.first) % toucher.step == 0;

			if (accessed[i])
				sample[i].accessed = sample[i].watched;
			all &= !touched || sample[i].accessed || !sample[i].present;
		}
	return all;
}

/* Samples @n spans while every step-th block from first on is accessed. */
static void sample_while_touched(char *mem, size_t first, size_t step, bool write,
				 const struct span *span, size_t n)
{
	unsigned long before;
	pthread_t thread;

	toucher.mem = mem;
	toucher.first = first;
	toucher.step = step;
	toucher.write = write;
	atomic_store(&toucher.stop, false);
	before = atomic_load(&toucher.rounds);
	if (sampler->limit)
		sampler->limit(1000); /* all of it is to be watched */
	assert_int_equal(pthread_create(&thread, NULL, touch, NULL), 0);
	while (atomic_load(&toucher.rounds) < before + 2)
		;
	memset(sample, 0, sizeof(sample));
	/* The machine may be too busy for the thread to touch all of it in a window. */
	for (int i = 0; i < 50 && !sample_more(span, n); i++)
		;
	atomic_store(&toucher.stop, true);
	pthread_join(thread, NULL);
}

static void expect(size_t i, uint8_t present, bool accessed, uint8_t huge)
{
	assert_int_equal(sample[i].present, present);
	assert_int_equal(sample[i].huge, huge);
	assert_true(sample[i].watched <= present);
	assert_true(sample[i].watched > 0 || !present);
	assert_int_equal(sample[i].accessed, accessed ? sample[i].watched : 0);
}

static void small_pages(void **state)
{
	char *mem = map(false);
	struct span all = {(uintptr_t)mem, (uintptr_t)mem + MEMORY_BYTES};

	(void)state;
	for (int write = 0; write < 2; write++) {
		sample_while_touched(mem, 3, 5, write, &all, 1);
		for (size_t i = 0; i < BLOCKS; i++)
			expect(i, BLOCK_PAGES, i % 5 == 3, 0);
	}
	munmap(mem, MEMORY_BYTES);
}

static void huge_pages(void **state)
{
	char *mem = map(true);
	struct span all = {(uintptr_t)mem, (uintptr_t)mem + MEMORY_BYTES};

	(void)state;
	sample_while_touched(mem, GRANULE_BLOCK + 7, (size_t)2 * GRANULE_BLOCK, false,
			     &all, 1);
	if (!sample[0].huge)
		print_message("no huge pages here\n");
	else
		for (size_t i = 0; i < BLOCKS; i++)
			expect(i, BLOCK_PAGES, i / GRANULE_BLOCK % 2 == 1, BLOCK_PAGES);
	munmap(mem, MEMORY_BYTES);
}

/* Two spans with a gap, and a hole and an unmapped block in them. */
static void spans_and_holes(void **state)
{
	char *mem = map(false);
	uintptr_t start = (uintptr_t)mem;
	struct span two[2] = {{start, start + 4 * BLOCK_BYTES},
			      {start + 8 * BLOCK_BYTES, start + 12 * BLOCK_BYTES}};

	(void)state;
	madvise(mem + BLOCK_BYTES, BLOCK_BYTES, MADV_DONTNEED);
	madvise(mem + 2 * BLOCK_BYTES, 6 * PAGE_BYTES, MADV_DONTNEED);
	munmap(mem + 9 * BLOCK_BYTES, BLOCK_BYTES);
	sample_while_touched(mem, 11, BLOCKS, true, two, 2);
	expect(0, BLOCK_PAGES, false, 0);
	expect(1, 0, false, 0);
	expect(2, BLOCK_PAGES - 6, false, 0);
	expect(4, BLOCK_PAGES, false, 0);
	expect(5, 0, false, 0);
	expect(7, BLOCK_PAGES, true, 0);
	munmap(mem, MEMORY_BYTES);
}

/* With all of the memory accessed, it costs no more than it may. */
static void stays_in_budget(void **state)
{
	char *mem = map(false);
	struct span all = {(uintptr_t)mem, (uintptr_t)mem + MEMORY_BYTES};
	struct timespec began, now;
	uint64_t before, took, watched = 0;
	pthread_t thread;

	(void)state;
	if (!sampler->limit)
		skip();
	toucher.mem = mem;
	toucher.first = 0;
	toucher.step = 1;
	atomic_store(&toucher.stop, false);
	assert_int_equal(pthread_create(&thread, NULL, touch, NULL), 0);
	sampler->limit(1); /* with 100 ms in the account */
	before = sampler->cost();
	clock_gettime(CLOCK_MONOTONIC, &began);
	do {
		assert_int_equal(sampler->sample(&all, 1, WINDOW_NS / 100, sample), 0);
		for (size_t i = 0; i < BLOCKS; i++)
			watched += sample[i].watched;
		clock_gettime(CLOCK_MONOTONIC, &now);
		took = (uint64_t)(now.tv_sec - began.tv_sec) * 1000000000 +
		       (uint64_t)now.tv_nsec - (uint64_t)began.tv_nsec;
	} while (took < 2000000000);
	atomic_store(&toucher.stop, true);
	pthread_join(thread, NULL);
	assert_true(watched > 0);
	/* What is spent before it can be known is one window's. */
	assert_true(sampler->cost() - before < 2 * (100000000 + took / 100));
	munmap(mem, MEMORY_BYTES);
}

static void opens_again(void **state)
{
	const char *why = NULL;

	(void)state;
	sampler->close();
	sampler->close();
	assert_int_equal(sampler->open(&why), 0);
	assert_non_null(why);
	small_pages(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_pages),     cmocka_unit_test(huge_pages),
		cmocka_unit_test(spans_and_holes), cmocka_unit_test(stays_in_budget),
		cmocka_unit_test(opens_again),
	};
	static const struct sampler *const samplers[] = {&sampler_abit, &sampler_fault};
	int failed = 0, skipped = 0;

	for (size_t i = 0; i < 2; i++) {
		const char *why = NULL;

		sampler = samplers[i];
		if (sampler->open(&why)) {
			printf("skipped: %s: %s\n", sampler->name, why);
			skipped++;
			continue;
		}
		printf("sampler %s: %s\n", sampler->name, why);
		failed |= cmocka_run_group_tests(tests, NULL, NULL);
		sampler->close();
	}
	return skipped == 2 ? 77 : failed;
}
