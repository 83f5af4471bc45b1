/* SPDX-License-Identifier: MIT */
/*
 * Proves the allocation functions of ferry.h: what they return, that memory is
 * zeroed, kept, aligned and given back to the kernel, from many threads and over
 * fork. On which nodes it is is test_alloc_nodes's business.
 */
#include "alloc_test.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

/* With a sanitizer the program's size is not its own, nor what is freed free at once. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static size_t resident(void)
{
	unsigned long size, pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu %lu", &size, &pages), 2);
	fclose(file);
	return pages * PAGE;
}

static bool is_zero(const char *addr, size_t size)
{
	return !size || (!*addr && !memcmp(addr, addr + 1, size - 1));
}

static const unsigned int placements[] = {FERRY_ANY, FERRY_DDR, FERRY_HBM,
					  FERRY_INTERLEAVE};
#define PLACEMENTS (sizeof(placements) / sizeof(placements[0]))

/* ---- on any machine ------------------------------------------------------ */

static void sizes_of_all_kinds(void **state)
{
	static const size_t sizes[] = {0,           1,       8,           100, 4096,
				       14336,       14337,   100000,      MIB, 2 * MIB,
				       2 * MIB + 1, 9 * MIB, 33 * MIB + 5};

	(void)state;
	for (size_t p = 0; p < PLACEMENTS; p++)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			char *a = ferry_malloc(sizes[i], placements[p]);
			char *b = ferry_malloc(sizes[i], placements[p] | FERRY_ZERO);

			assert_non_null(a);
			assert_non_null(b);
			assert_ptr_not_equal(a, b);
			assert_true(ferry_usable_size(a) >= sizes[i]);
			assert_true(is_zero(b, sizes[i]));
			memset(a, 0xa5, ferry_usable_size(a));
			memset(b, 0x5a, ferry_usable_size(b));
			if (sizes[i])
				assert_true(a[0] == (char)0xa5 &&
					    a[sizes[i] - 1] == (char)0xa5);
			ferry_free(a);
			ferry_free(b);
			/* what was dirty comes back clean */
			b = ferry_malloc(sizes[i], placements[p] | FERRY_ZERO);
			assert_true(is_zero(b, sizes[i]));
			ferry_free(b);
		}
	ferry_free(NULL);
	assert_int_equal(ferry_usable_size(NULL), 0);
}

static void bad_arguments(void **state)
{
	static const unsigned int bad[] = {
		4,
		255,
		1 << 10,
		1U << 31,
		FERRY_ANY | FERRY_STRICT,
		FERRY_INTERLEAVE | FERRY_STRICT,
	};
	static const size_t bad_alignments[] = {0, 1, 2, 4, 7, 12, 24, 3 * 4096};
	void *out = &out;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		errno = 0;
		assert_null(ferry_malloc(10, bad[i]));
		assert_int_equal(errno, EINVAL);
		errno = 0;
		assert_int_equal(ferry_posix_memalign(&out, 64, 10, bad[i]), EINVAL);
		assert_int_equal(errno, 0);
	}
	for (size_t i = 0; i < sizeof(bad_alignments) / sizeof(size_t); i++)
		assert_int_equal(
			ferry_posix_memalign(&out, bad_alignments[i], 10, FERRY_DDR),
			EINVAL);
	errno = 0;
	assert_null(ferry_malloc(SIZE_MAX, FERRY_HBM));
	assert_int_equal(errno, ENOMEM);
	assert_null(ferry_malloc((size_t)PTRDIFF_MAX + 1, FERRY_DDR));
	assert_null(ferry_malloc((size_t)1 << 60, FERRY_DDR | FERRY_STRICT));
	assert_int_equal(ferry_posix_memalign(&out, 64, SIZE_MAX - 10, FERRY_DDR),
			 ENOMEM);
	assert_int_equal(ferry_posix_memalign(&out, (size_t)1 << 62, 10, FERRY_DDR),
			 ENOMEM);
	assert_ptr_equal(out, &out);
}

static void alignments(void **state)
{
	(void)state;
	for (size_t p = 0; p < PLACEMENTS; p++)
		for (size_t alignment = sizeof(void *); alignment <= 16 * MIB;
		     alignment *= 2) {
			void *small = NULL, *large = NULL;

			assert_int_equal(ferry_posix_memalign(&small, alignment, 10,
							      placements[p]),
					 0);
			assert_int_equal(ferry_posix_memalign(&large, alignment,
							      3 * MIB + 1, placements[p]),
					 0);
			assert_int_equal((uintptr_t)small % alignment, 0);
			assert_int_equal((uintptr_t)large % alignment, 0);
			memset(large, 1, 3 * MIB + 1);
			ferry_free(small);
			ferry_free(large);
		}
}

static void realloc_keeps(void **state)
{
	char *ptr;

	(void)state;
	for (size_t p = 0; p < PLACEMENTS; p++) {
		ptr = ferry_malloc(16, placements[p]);
		memset(ptr, 7, 16);
		for (size_t size = 16; size < 64 * MIB; size = size * 3 + 5) {
			size_t next = size * 3 + 5;

			ptr = ferry_realloc(ptr, next);
			assert_non_null(ptr);
			assert_true(ptr[0] == 7 && ptr[size - 1] == 7);
			memset(ptr, 7, next);
		}
		errno = 0;
		assert_null(ferry_realloc(ptr, SIZE_MAX / 2));
		assert_int_equal(errno, ENOMEM);
		assert_int_equal(ptr[1000], 7);
		ptr = ferry_realloc(ptr, 100);
		assert_true(ptr[0] == 7 && ptr[99] == 7);
		ferry_free(ptr);
	}
	ptr = ferry_realloc(NULL, 5);
	assert_non_null(ptr);
	ptr = ferry_realloc(ptr, 0);
	assert_non_null(ptr);
	ferry_free(ptr);
}

static void free_leaves_errno(void **state)
{
	void *ptr = ferry_malloc(64 * MIB, FERRY_HBM);

	(void)state;
	memset(ptr, 1, 64 * MIB);
	errno = 4321;
	ferry_free(ptr);
	assert_int_equal(errno, 4321);
}

static void large_memory_goes_back_at_once(void **state)
{
	size_t before = resident();

	(void)state;
	if (SANITIZED)
		skip();
	for (int i = 0; i < 3; i++) {
		char *ptr = ferry_malloc(128 * MIB, FERRY_HBM);

		memset(ptr, 1, 128 * MIB);
		assert_true(resident() > before + 120 * MIB);
		ferry_free(ptr);
		assert_true(resident() < before + 8 * MIB);
	}
}

static void is_not_the_programs_malloc(void **state)
{
	void *own = malloc(100), *ferrys = ferry_malloc(100, FERRY_DDR);
	pid_t child = fork();
	int status;

	(void)state;
	if (!child) {
		fclose(stderr);
		ferry_free(own); /* ends the process */
		_exit(0);
	}
	waitpid(child, &status, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	free(own);
	ferry_free(ferrys);
}

/* ---- threads and fork ---------------------------------------------------- */

#define SLOTS 256

struct shared {
	pthread_mutex_t lock;
	struct {
		unsigned char *ptr;
		size_t size;
	} slot[SLOTS];
};

/* Memory goes from thread to thread: whoever draws a slot frees what is there. */
static void *trade(void *argument)
{
	static struct shared shared = {.lock = PTHREAD_MUTEX_INITIALIZER};
	unsigned int seed = (unsigned int)(uintptr_t)argument;

	for (int i = 0; i < 20000; i++) {
		unsigned int s = (unsigned int)rand_r(&seed) % SLOTS;
		size_t size =
			1 + (size_t)rand_r(&seed) % (rand_r(&seed) % 64 ? 2000 : 3 * MIB);
		unsigned char *mine = ferry_malloc(
			size, placements[(unsigned int)rand_r(&seed) % PLACEMENTS]);
		unsigned char *other;
		size_t other_size;

		if (!mine)
			return "no memory";
		mine[0] = mine[size - 1] = (unsigned char)size;
		pthread_mutex_lock(&shared.lock);
		other = shared.slot[s].ptr;
		other_size = shared.slot[s].size;
		shared.slot[s].ptr = mine;
		shared.slot[s].size = size;
		pthread_mutex_unlock(&shared.lock);
		if (other && (other[0] != (unsigned char)other_size ||
			      other[other_size - 1] != (unsigned char)other_size))
			return "memory of two at once";
		ferry_free(other);
	}
	return NULL;
}

static void threads_and_forks(void **state)
{
	pthread_t thread[6];

	(void)state;
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, trade, (void *)(i + 1)),
				 0);
	for (int i = 0; i < 30; i++) {
		pid_t child = fork();
		int status;

		if (!child) {
			for (size_t p = 0; p < PLACEMENTS; p++) {
				char *ptr = ferry_malloc(MIB, placements[p]);

				if (!ptr)
					_exit(1);
				memset(ptr, 1, MIB);
				ferry_free(ptr);
			}
			_exit(0);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
	for (size_t i = 0; i < 6; i++) {
		void *complaint;

		assert_int_equal(pthread_join(thread[i], &complaint), 0);
		assert_null(complaint);
	}
}

static void *allocate_once(void *unused)
{
	(void)unused;
	for (size_t p = 0; p < PLACEMENTS; p++)
		ferry_free(ferry_malloc(100, placements[p]));
	return NULL;
}

/* Each thread has caches, of which there is a limited number. */
static void threads_come_and_go(void **state)
{
	size_t before;

	(void)state;
	for (int i = 0; i < 200; i++) {
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, allocate_once, NULL), 0);
		pthread_join(thread, NULL);
	}
	before = resident();
	for (int i = 0; i < 2000; i++) {
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, allocate_once, NULL), 0);
		pthread_join(thread, NULL);
	}
	assert_true(SANITIZED || resident() < before + 4 * MIB);
}

/* ---- with an environment of their own ------------------------------------ */

/* FERRY_POLICY=wrong */
static void wrong_environment(void **state)
{
	struct ferry_tier_info info;
	void *out = NULL;

	(void)state;
	errno = 0;
	assert_null(ferry_malloc(10, FERRY_DDR));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(ferry_posix_memalign(&out, 64, 10, FERRY_DDR), EINVAL);
	assert_int_equal(ferry_tier_info(FERRY_TIER_DDR, &info, sizeof(info)), -EINVAL);
}

/* MALLOC_CONF=dirty_decay_ms:0 */
static void small_memory_goes_back(void **state)
{
	static void *ptr[2000];
	size_t before;

	(void)state;
	for (int i = 0; i < 2000; i++)
		ptr[i] = allocated(50000, FERRY_HBM);
	before = resident();
	for (int i = 0; i < 2000; i++)
		ferry_free(ptr[i]);
	assert_true(SANITIZED || resident() < before - 80 * MIB);
}

static const struct special specials[] = {
	{cmocka_unit_test(wrong_environment), {"FERRY_POLICY=wrong"}},
	{cmocka_unit_test(small_memory_goes_back), {"MALLOC_CONF=dirty_decay_ms:0"}},
};
#define SPECIALS (sizeof(specials) / sizeof(specials[0]))

static void with_their_environments(void **state)
{
	(void)state;
	in_environments(specials, SPECIALS);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest *special = named_special(specials, SPECIALS, argc, argv);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_of_all_kinds),
		cmocka_unit_test(bad_arguments),
		cmocka_unit_test(alignments),
		cmocka_unit_test(realloc_keeps),
		cmocka_unit_test(free_leaves_errno),
		cmocka_unit_test(large_memory_goes_back_at_once),
		cmocka_unit_test(is_not_the_programs_malloc),
		cmocka_unit_test(threads_and_forks),
		cmocka_unit_test(threads_come_and_go),
		cmocka_unit_test(with_their_environments),
	};

	setenv("FERRY_SAID_NO_HBM", "1", 1);
	if (special)
		return _cmocka_run_group_tests(argv[1], special, 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
