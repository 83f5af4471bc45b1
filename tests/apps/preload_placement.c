/* SPDX-License-Identifier: MIT */
/* Where memory is under each policy, as the kernel tells: see preload_checks.h. */
#include "preload_checks.h"

#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>

#include "early.h"
#include "../where.h"

static void need_hbm(void)
{
	if (!machine_has_hbm())
		skip();
}

/* ---- FERRY_POLICY=hbm ---------------------------------------------------- */

void all_of_it_in_hbm(void **state)
{
	static const size_t sizes[] = {24, 4000, 100000, 3 * MIB, 40 * MIB};
	void *ptr;

	(void)state;
	need_hbm();
	assert_true(all_hbm(early_small, EARLY_SMALL));
	assert_true(all_hbm(early_large, EARLY_LARGE));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		ptr = touched(malloc(sizes[i]), sizes[i]);
		assert_true(all_hbm(ptr, sizes[i]));
		free(ptr);
		ptr = touched(calloc(1, sizes[i]), sizes[i]);
		assert_true(all_hbm(ptr, sizes[i]));
		ptr = touched(realloc(ptr, sizes[i] * 2), sizes[i] * 2);
		assert_true(all_hbm(ptr, sizes[i] * 2));
		free(ptr);
		ptr = touched(memalign(8192, sizes[i]), sizes[i]);
		assert_true(all_hbm(ptr, sizes[i]));
		free(ptr);
	}
}

static void *see_own_memory(void *unused)
{
	char stack[100000];
	void *ptr = malloc(50000);

	(void)unused;
	memset(stack, 1, sizeof(stack));
	memset(ptr, 1, 50000);
	if (!all_hbm(ptr, 50000))
		return "a thread's memory is not in HBM";
	free(ptr);
	return all_ddr(hide(stack), sizeof(stack)) ? NULL : "a stack is not in DDR";
}

void of_other_threads_too(void **state)
{
	(void)state;
	need_hbm();
	for (int i = 0; i < 40; i++) {
		pthread_t thread;
		void *complaint;

		assert_int_equal(pthread_create(&thread, NULL, see_own_memory, NULL), 0);
		assert_int_equal(pthread_join(thread, &complaint), 0);
		assert_null(complaint);
	}
}

void mappings_in_hbm(void **state)
{
	const int rw = PROT_READ | PROT_WRITE, anon = MAP_PRIVATE | MAP_ANONYMOUS;
	char *ptr;

	(void)state;
	need_hbm();
	ptr = touched(map(8 * MIB), 8 * MIB);
	assert_true(all_hbm(ptr, 8 * MIB));
	ptr = touched(mremap(ptr, 8 * MIB, 24 * MIB, MREMAP_MAYMOVE), 24 * MIB);
	assert_true(all_hbm(ptr, 24 * MIB));
	munmap(ptr, 24 * MIB);
	/* populated by the call */
	ptr = mmap(NULL, 4 * MIB, rw, anon | MAP_POPULATE, -1, 0);
	assert_true(all_hbm(ptr, 4 * MIB));
	/* a reservation is committed piece by piece */
	munmap(ptr, 4 * MIB);
	ptr = mmap(NULL, 16 * MIB, PROT_NONE, anon | MAP_NORESERVE, -1, 0);
	assert_ptr_equal(mmap(ptr + MIB, 2 * MIB, rw, anon | MAP_FIXED, -1, 0),
			 ptr + MIB);
	touched(ptr + MIB, 2 * MIB);
	assert_true(all_hbm(ptr + MIB, 2 * MIB));
	munmap(ptr, 16 * MIB);
	/* what is small, shared or a stack is left alone */
	ptr = touched(map(MIB / 2), MIB / 2);
	assert_true(all_ddr(ptr, MIB / 2));
	munmap(ptr, MIB / 2);
	ptr = touched(mmap(NULL, 2 * MIB, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
		      2 * MIB);
	assert_true(all_ddr(ptr, 2 * MIB));
	munmap(ptr, 2 * MIB);
	ptr = touched(mmap(NULL, 2 * MIB, rw, anon | MAP_STACK, -1, 0), 2 * MIB);
	assert_true(all_ddr(ptr, 2 * MIB));
	munmap(ptr, 2 * MIB);
}

/* ---- FERRY_POLICY=ddr, interleave ---------------------------------------- */

void all_of_it_in_ddr(void **state)
{
	void *ptr;

	(void)state;
	need_hbm();
	assert_true(all_ddr(early_large, EARLY_LARGE));
	ptr = touched(malloc(16 * MIB), 16 * MIB);
	assert_true(all_ddr(ptr, 16 * MIB));
	free(ptr);
	ptr = touched(map(16 * MIB), 16 * MIB);
	assert_true(all_ddr(ptr, 16 * MIB));
	munmap(ptr, 16 * MIB);
}

/* Huge pages are interleaved whole. */
static bool both(const void *addr, size_t size)
{
	size_t hbm = bytes_at(addr, size, true), ddr = bytes_at(addr, size, false);

	return hbm + ddr >= size && hbm >= size / 8 && ddr >= size / 8;
}

void all_of_it_interleaved(void **state)
{
	void *ptr;

	(void)state;
	need_hbm();
	ptr = touched(malloc(64 * MIB), 64 * MIB);
	assert_true(both(ptr, 64 * MIB));
	free(ptr);
	ptr = touched(map(64 * MIB), 64 * MIB);
	assert_true(both(ptr, 64 * MIB));
	munmap(ptr, 64 * MIB);
}

/* ---- FERRY_POLICY=threshold ---------------------------------------------- */

/* Sizes around FERRY_MIN_SIZE, allocated and freed again and again. */
static void assert_divided(size_t threshold)
{
	const size_t sizes[] = {100,           threshold / 2, threshold * 3 / 4,
				threshold - 1, threshold,     threshold + 1,
				threshold * 3};
	enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };
	void *ptr[SIZES];

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < SIZES; i++) {
			ptr[i] = touched(round == 1 ? calloc(1, sizes[i])
						    : malloc(sizes[i]),
					 sizes[i]);
			if (sizes[i] >= threshold)
				assert_true(all_hbm(ptr[i], sizes[i]));
			else
				assert_true(all_ddr(ptr[i], sizes[i]));
		}
		for (int i = 0; i < SIZES; i++)
			free(ptr[i]);
	}
}

/* What grows beyond the threshold moves, in place or not. */
static void assert_grows_across(size_t threshold)
{
	char *ptr = touched(malloc(threshold / 2), threshold / 2);
	size_t size = threshold / 2;

	assert_true(all_ddr(ptr, size));
	while (size < 4 * threshold) {
		size += threshold / 8;
		ptr = realloc(ptr, size);
		assert_true(ptr[0] == 1 && ptr[size - threshold / 8 - 1] == 1);
		memset(ptr, 1, size);
		if (size >= threshold)
			assert_true(all_hbm(ptr, size));
	}
	free(ptr);
}

void divided_by_size(void **state)
{
	size_t threshold = strtoul(getenv("FERRY_MIN_SIZE"), NULL, 10);
	void *ptr;

	(void)state;
	need_hbm();
	assert_true(all_hbm(early_large, EARLY_LARGE));
	if (threshold > EARLY_SMALL)
		assert_true(all_ddr(early_small, EARLY_SMALL));
	assert_divided(threshold);
	assert_grows_across(threshold);
	ptr = touched(memalign(64, threshold), threshold);
	assert_true(all_hbm(ptr, threshold));
	free(ptr);
	ptr = touched(map(threshold), threshold);
	assert_true(all_hbm(ptr, threshold));
	munmap(ptr, threshold);
}

/* ---- FERRY_HBM_LIMIT=64M ------------------------------------------------- */

void limit_holds(void **state)
{
	char *heap, *mapped, *more, *most;

	(void)state;
	need_hbm();
	heap = touched(malloc(30 * MIB), 30 * MIB);
	mapped = touched(map(20 * MIB), 20 * MIB);
	assert_true(all_hbm(heap, 30 * MIB));
	assert_true(all_hbm(mapped, 20 * MIB));
	/* over the limit, whichever way */
	more = touched(map(20 * MIB), 20 * MIB);
	most = touched(malloc(20 * MIB), 20 * MIB);
	assert_true(all_ddr(more, 20 * MIB));
	assert_true(all_ddr(most, 20 * MIB));
	mapped = touched(mremap(mapped, 20 * MIB, 60 * MIB, MREMAP_MAYMOVE), 60 * MIB);
	assert_true(all_hbm(mapped, 20 * MIB));
	assert_true(all_ddr(mapped + 20 * MIB, 40 * MIB));
	/* what is unmapped or freed makes room */
	free(most);
	munmap(more, 20 * MIB);
	munmap(mapped, 60 * MIB);
	mapped = touched(map(20 * MIB), 20 * MIB);
	assert_true(all_hbm(mapped, 20 * MIB));
	assert_ptr_equal(mmap(mapped, 20 * MIB, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 mapped);
	more = touched(malloc(20 * MIB), 20 * MIB);
	assert_true(all_hbm(more, 20 * MIB));
	free(more);
	free(heap);
}
