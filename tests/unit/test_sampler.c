/* SPDX-License-Identifier: MIT */
/*
 * Proves that a sampler tells what another thread accesses meanwhile and
 * nothing else: reads and writes, in small and huge pages, with several spans
 * and holes in them, though that thread's CPU holds all translations; and that what it
 * says to cost is what it costs. Each sampler that can be opened; skipped where none can.
 * A thread of its own accesses; the rest is the main thread's.
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

/* How a range is watched: as a granule, if a huge page maps it, or as a block. */
static size_t add_sighting(struct sighting *sighting, uintptr_t at,
			   const struct sample *of)
{
	bool huge = of->huge && at % GRANULE_BYTES == 0;

	if (!of->present || (of->huge && !huge))
		return 0;
	*sighting = (struct sighting){.start = at,
				      .end = at + (huge ? GRANULE_BYTES : BLOCK_BYTES)};
	return 1;
}

/* What a sampler that sees accesses saw, as a sample of those blocks. */
static void note_sightings(const struct sighting *sighting, size_t n, struct sample **of)
{
	for (size_t i = 0; i < n; i++) {
		size_t blocks = (sighting[i].end - sighting[i].start) / BLOCK_BYTES;

		if (sighting[i].seconds <= 0)
			continue;
		for (size_t k = 0; k < blocks; k++) {
			of[i][k].watched = 1;
			of[i][k].accessed = sighting[i].accesses > 0;
		}
	}
}

/* A sample by either kind of sampler. */
static int take_sample(const struct span *span, size_t n, uint64_t window_ns)
{
	static struct sighting sighting[BLOCKS];
	static struct sample *of[BLOCKS];
	struct sample *next = sample;
	size_t count = 0, most;
	int err;

	if (sampler->sample)
		return sampler->sample(span, n, window_ns, sample);
	err = sampler->count(span, n, sample);
	for (size_t k = 0; k < n && !err; k++)
		for (uintptr_t at = span[k].start; at < span[k].end; at += BLOCK_BYTES) {
			of[count] = next;
			count += add_sighting(&sighting[count], at, next++);
		}
	for (size_t i = 0; i < count && !err; i += most) {
		most = count - i < SIGHTINGS_MOST ? count - i : SIGHTINGS_MOST;
		err = sampler->watch(sighting + i, most, window_ns);
		note_sightings(sighting + i, most, of + i);
	}
	return err;
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
	assert_int_equal(take_sample(span, n, WINDOW_NS), 0);
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

/* With all of the memory accessed, what is affordable costs no more than was said. */
static void stays_in_budget(void **state)
{
	char *mem = map(false);
	const uint64_t budget = 20000000;
	uint64_t before, spent = 0;
	pthread_t thread;

	(void)state;
	if (!sampler->affordable)
		skip();
	toucher.mem = mem;
	toucher.first = 0;
	toucher.step = 1;
	atomic_store(&toucher.stop, false);
	assert_int_equal(pthread_create(&thread, NULL, touch, NULL), 0);
	/* The first times it learns what that costs. */
	for (int i = 0; i < 20; i++) {
		struct sighting sighting[BLOCKS];
		size_t n = sampler->affordable(budget);

		if (n > BLOCKS)
			n = BLOCKS;
		for (size_t k = 0; k < n; k++)
			sighting[k] = (struct sighting){
				.start = (uintptr_t)mem + k * BLOCK_BYTES,
				.end = (uintptr_t)mem + (k + 1) * BLOCK_BYTES};
		before = sampler->cost();
		assert_int_equal(sampler->watch(sighting, n, WINDOW_NS / 100), 0);
		if (i >= 10)
			spent += sampler->cost() - before;
	}
	atomic_store(&toucher.stop, true);
	pthread_join(thread, NULL);
	assert_true(spent < 2 * 10 * budget);
	munmap(mem, MEMORY_BYTES);
}

/* No page is out for longer than a fifth of a second, whatever is asked for. */
static void windows_end(void **state)
{
	char *mem = map(false);
	struct sighting sighting = {.start = (uintptr_t)mem,
				    .end = (uintptr_t)mem + BLOCK_BYTES};

	(void)state;
	if (!sampler->watch)
		skip();
	assert_int_equal(sampler->watch(&sighting, 1, UINT64_C(86400) * 1000000000), 0);
	assert_true(sighting.accesses == 0);
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
		cmocka_unit_test(windows_end),     cmocka_unit_test(opens_again),
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
