/* SPDX-License-Identifier: MIT */
/*
 * Proves that a program under libferry-preload.so has a complete malloc family
 * and an mmap that behave as the C library's, over threads, fork, vfork, spawn
 * and dlopen; and, where there is an HBM node, that memory is where each policy
 * says. Usage: preload_checks LIBRARY PLUGIN, which runs itself again under
 * LIBRARY in several environments.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "early.h"
#include "where.h"

#define PAGE WHERE_PAGE
#define MIB  ((size_t)1 << 20)

static const char *library, *plugin;

/* What the compiler knows of malloc must not keep calls from being made. */
static void *hide(void *ptr)
{
	__asm__ volatile("" : "+r"(ptr));
	return ptr;
}

static size_t large_number(void)
{
	return (size_t)hide((void *)((size_t)PTRDIFF_MAX + 1));
}

static void *touched(void *ptr, size_t size)
{
	assert_non_null(ptr);
	memset(ptr, 1, size);
	return hide(ptr);
}

static void need_hbm(void)
{
	if (!machine_has_hbm())
		skip();
}

static void *map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
}

/* ---- the malloc family, under any policy --------------------------------- */

static void every_function_is_ours(void **state)
{
	static const char *const names[] = {
		"malloc", "calloc",         "realloc",       "reallocarray",
		"free",   "posix_memalign", "aligned_alloc", "memalign",
		"valloc", "pvalloc",        "mmap",          "malloc_usable_size",
		"mmap64", "munmap",         "mremap",
	};
	Dl_info info;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		void *function = dlsym(RTLD_DEFAULT, names[i]);

		assert_non_null(function);
		assert_int_not_equal(dladdr(function, &info), 0);
		assert_non_null(strstr(info.dli_fname, "libferry-preload.so"));
	}
}

static void edges_of_malloc(void **state)
{
	void *a = hide(malloc(0)), *b = hide(malloc(0)), *out = &out;
	char *ptr;

	(void)state;
	assert_non_null(a);
	assert_non_null(b);
	assert_ptr_not_equal(a, b);
	free(a);
	free(b);
	free(hide(NULL));

	errno = 0;
	assert_null(hide(malloc(large_number())));
	assert_int_equal(errno, ENOMEM);
	errno = 0;
	assert_null(hide(calloc(large_number() / 2, 4)));
	assert_int_equal(errno, ENOMEM);
	errno = 0;
	assert_null(hide(calloc(1, large_number())));
	assert_int_equal(errno, ENOMEM);
	ptr = touched(malloc(100), 100);
	errno = 0;
	assert_null(hide(realloc(hide(ptr), large_number())));
	assert_int_equal(errno, ENOMEM);
	errno = 0;
	assert_null(hide(reallocarray(hide(ptr), large_number() / 2, 4)));
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(ptr[99], 1);
	ptr = reallocarray(ptr, 1000, 1000);
	assert_int_equal(ptr[99], 1);
	free(ptr);

	errno = 0;
	assert_int_equal(posix_memalign(&out, 3, 10), EINVAL);
	assert_int_equal(posix_memalign(&out, sizeof(void *) / 2, 10), EINVAL);
	assert_int_equal(posix_memalign(&out, 64, large_number()), ENOMEM);
	assert_int_equal(errno, 0);
	assert_ptr_equal(out, &out);
	assert_null(hide(pvalloc(SIZE_MAX)));
	assert_int_equal(malloc_usable_size(hide(NULL)), 0);

	ptr = touched(malloc(64 * MIB), 64 * MIB);
	errno = 4321;
	free(ptr);
	assert_int_equal(errno, 4321);
}

static void aligned_forms(void **state)
{
	(void)state;
	for (size_t alignment = 8; alignment <= 8 * MIB; alignment *= 2) {
		void *all[3] = {NULL, memalign(alignment, 100),
				aligned_alloc(alignment, 2 * alignment)};

		assert_int_equal(posix_memalign(&all[0], alignment, 3 * MIB), 0);
		for (int i = 0; i < 3; i++) {
			assert_non_null(all[i]);
			assert_int_equal((uintptr_t)all[i] % alignment, 0);
		}
		memset(all[0], 1, 3 * MIB);
		for (int i = 0; i < 3; i++)
			free(all[i]);
		/* also of nothing */
		all[0] = hide(memalign(alignment, 0));
		all[1] = hide(aligned_alloc(alignment, 0));
		assert_int_equal(posix_memalign(&all[2], alignment, 0), 0);
		for (int i = 0; i < 3; i++) {
			assert_int_equal((uintptr_t)all[i] % alignment, 0);
			free(all[i]);
		}
	}
	errno = 0;
	assert_null(hide(aligned_alloc(large_number() / 3, 100)));
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_null(hide(memalign(large_number() + 1, 100)));
	assert_int_equal(errno, EINVAL);
	for (size_t size = 0; size < 20000; size += 999) {
		void *v = valloc(size), *p = pvalloc(size);

		assert_int_equal((uintptr_t)v % PAGE, 0);
		assert_int_equal((uintptr_t)p % PAGE, 0);
		assert_true(malloc_usable_size(p) >= (size + PAGE - 1) / PAGE * PAGE);
		free(v);
		free(p);
	}
}

static void contents_stay(void **state)
{
	unsigned char *ptr = NULL;
	size_t old_size = 0;

	(void)state;
	for (size_t size = 1; size < 20 * MIB; size = size * 2 + 1) {
		ptr = realloc(ptr, size);
		assert_non_null(ptr);
		for (size_t i = 0; i < old_size; i += 1 + old_size / 100)
			assert_int_equal(ptr[i], (unsigned char)(i * 7));
		for (size_t i = 0; i < size; i++)
			ptr[i] = (unsigned char)(i * 7);
		old_size = size;
	}
	for (size_t size = old_size; size; size /= 3) {
		ptr = realloc(ptr, size);
		for (size_t i = 0; i < size; i += 1 + size / 100)
			assert_int_equal(ptr[i], (unsigned char)(i * 7));
	}
	free(ptr);
	for (size_t size = 1; size < 10 * MIB; size = size * 3) {
		unsigned char *zeros;

		free(touched(malloc(size), size));
		zeros = calloc(1, size);
		for (size_t i = 0; i < size; i++)
			assert_int_equal(zeros[i], 0);
		free(zeros);
	}
}

static size_t resident(void)
{
	unsigned long size, pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu %lu", &size, &pages), 2);
	fclose(file);
	return pages * PAGE;
}

static void memory_goes_back(void **state)
{
	size_t before = resident();
	void *ptr = touched(malloc(128 * MIB), 128 * MIB);

	(void)state;
	assert_true(resident() > before + 120 * MIB);
	free(ptr);
	assert_true(resident() < before + 8 * MIB);
}

/* ---- mmap, under any policy ---------------------------------------------- */

/* The same call straight to the kernel has the same outcome. */
static void assert_like_kernel(void *addr, size_t len, int prot, int flags, int fd)
{
	void *theirs, *ours;
	int their_errno, our_errno;

	errno = 0;
	theirs = (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, 0L);
	their_errno = errno;
	if (theirs != MAP_FAILED)
		syscall(SYS_munmap, theirs, len);
	errno = 0;
	ours = mmap(addr, len, prot, flags, fd, 0);
	our_errno = errno;
	assert_int_equal(ours == MAP_FAILED, theirs == MAP_FAILED);
	assert_int_equal(our_errno, their_errno);
	if (ours != MAP_FAILED)
		assert_int_equal(munmap(ours, len), 0);
}

static void mmap_like_the_kernels(void **state)
{
	const int rw = PROT_READ | PROT_WRITE, anon = MAP_PRIVATE | MAP_ANONYMOUS;
	char *ptr;

	(void)state;
	assert_like_kernel(NULL, 0, rw, anon, -1);
	assert_like_kernel(NULL, 2 * MIB, rw, anon, -1);
	assert_like_kernel(NULL, 2 * MIB + 1, rw, anon, -1);
	assert_like_kernel(NULL, SIZE_MAX, rw, anon, -1);
	assert_like_kernel(NULL, (size_t)1 << 60, rw, anon, -1);
	assert_like_kernel(NULL, 2 * MIB, rw, MAP_PRIVATE, 999);
	assert_like_kernel(NULL, 2 * MIB, rw, MAP_ANONYMOUS, -1);
	assert_like_kernel((void *)123, 2 * MIB, rw, anon | MAP_FIXED, -1);
	assert_like_kernel(NULL, 2 * MIB, PROT_NONE, anon | MAP_NORESERVE, -1);
	assert_like_kernel(NULL, 2 * MIB, rw, anon | MAP_STACK, -1);
	assert_like_kernel(NULL, 2 * MIB, rw, anon | MAP_POPULATE, -1);
	assert_like_kernel(NULL, 2 * MIB, rw, MAP_SHARED | MAP_ANONYMOUS, -1);

	errno = 0;
	assert_int_equal(munmap((void *)123, PAGE), -1);
	assert_int_equal(errno, EINVAL);
	ptr = map(4 * MIB);
	errno = 0;
	assert_ptr_equal(mremap(ptr, 4 * MIB, 0, 0), MAP_FAILED);
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_ptr_equal(mremap(ptr + 1, 4 * MIB, 8 * MIB, MREMAP_MAYMOVE), MAP_FAILED);
	assert_int_equal(errno, EINVAL);

	/* growing, moving, replacing and cutting keep what they have to keep */
	memset(ptr, 5, 4 * MIB);
	ptr = mremap(ptr, 4 * MIB, 64 * MIB, MREMAP_MAYMOVE);
	assert_true(ptr != MAP_FAILED && ptr[4 * MIB - 1] == 5 && ptr[4 * MIB] == 0);
	assert_ptr_equal(mmap(ptr + MIB, MIB, rw, anon | MAP_FIXED, -1, 0), ptr + MIB);
	assert_true(ptr[MIB - 1] == 5 && ptr[MIB] == 0 && ptr[2 * MIB] == 5);
	assert_int_equal(munmap(ptr + 3 * MIB, 61 * MIB), 0);
	assert_int_equal(ptr[3 * MIB - 1], 5);
	assert_int_equal(munmap(ptr, 3 * MIB), 0);
}

/* ---- threads, processes, libraries, under any policy --------------------- */

static volatile bool stop;

static void *churn(void *argument)
{
	unsigned int seed = (unsigned int)(uintptr_t)argument;

	while (!stop) {
		size_t size =
			1 + (size_t)rand_r(&seed) % (rand_r(&seed) % 32 ? 3000 : 3 * MIB);
		unsigned char *ptr = hide(malloc(size));
		unsigned char *mapped = rand_r(&seed) % 32 ? NULL : map(2 * MIB);

		if (!ptr || mapped == MAP_FAILED)
			return "no memory";
		ptr[0] = ptr[size - 1] = (unsigned char)seed;
		if (mapped) {
			mapped[0] = 1;
			munmap(mapped, 2 * MIB);
		}
		if (ptr[0] != (unsigned char)seed)
			return "memory of two at once";
		free(ptr);
	}
	return NULL;
}

static void work_in_child(void)
{
	for (int i = 0; i < 20; i++) {
		char *ptr = hide(malloc((size_t)i * 100000 + 1)), *mapped = map(2 * MIB);

		if (!ptr || mapped == MAP_FAILED)
			_exit(1);
		ptr[0] = mapped[0] = 1;
		free(ptr);
		munmap(mapped, 2 * MIB);
	}
}

static void wait_for(pid_t child)
{
	int status;

	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void forks_between_threads(void **state)
{
	char *const arguments[] = {(char *)"true", NULL};
	pthread_t thread[4];
	pid_t child;

	(void)state;
	stop = false;
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, churn, (void *)(i + 1)),
				 0);
	for (int i = 0; i < 10; i++) {
		child = fork();
		if (!child) {
			work_in_child();
			_exit(0);
		}
		wait_for(child);
		child = vfork();
		if (!child) {
			execvp("true", arguments);
			_exit(127);
		}
		wait_for(child);
		assert_int_equal(
			posix_spawnp(&child, "true", NULL, NULL, arguments, environ), 0);
		wait_for(child);
	}
	stop = true;
	for (size_t i = 0; i < 4; i++) {
		void *complaint;

		assert_int_equal(pthread_join(thread[i], &complaint), 0);
		assert_null(complaint);
	}
}

static void *load_and_unload(void *unused)
{
	(void)unused;
	for (int i = 0; i < 10; i++) {
		void *handle = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
		char **large = handle ? (char **)dlsym(handle, "early_large") : NULL;

		if (!large || (*large)[EARLY_LARGE - 1] != 1)
			return "the plugin was not loaded";
		dlclose(handle);
	}
	return NULL;
}

static void plugins(void **state)
{
	pthread_t thread[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, load_and_unload, NULL),
				 0);
	for (int i = 0; i < 3; i++) {
		void *complaint;

		assert_int_equal(pthread_join(thread[i], &complaint), 0);
		assert_null(complaint);
	}
}

/* ---- FERRY_POLICY=hbm ---------------------------------------------------- */

static void all_of_it_in_hbm(void **state)
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

static void of_other_threads_too(void **state)
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

static void mappings_in_hbm(void **state)
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

static void all_of_it_in_ddr(void **state)
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

static void all_of_it_interleaved(void **state)
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

static void divided_by_size(void **state)
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

static void limit_holds(void **state)
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

/* ---- environments -------------------------------------------------------- */

#define GENERAL                                                                          \
	cmocka_unit_test(every_function_is_ours), cmocka_unit_test(edges_of_malloc),     \
		cmocka_unit_test(aligned_forms), cmocka_unit_test(contents_stay),        \
		cmocka_unit_test(memory_goes_back),                                      \
		cmocka_unit_test(mmap_like_the_kernels),                                 \
		cmocka_unit_test(forks_between_threads), cmocka_unit_test(plugins)

static const struct CMUnitTest with_hbm[] = {
	GENERAL,
	cmocka_unit_test(all_of_it_in_hbm),
	cmocka_unit_test(of_other_threads_too),
	cmocka_unit_test(mappings_in_hbm),
};
static const struct CMUnitTest with_ddr[] = {GENERAL, cmocka_unit_test(all_of_it_in_ddr)};
static const struct CMUnitTest with_interleave[] = {
	cmocka_unit_test(all_of_it_interleaved)};
static const struct CMUnitTest with_threshold[] = {GENERAL,
						   cmocka_unit_test(divided_by_size)};
static const struct CMUnitTest with_small_threshold[] = {
	cmocka_unit_test(contents_stay), cmocka_unit_test(divided_by_size)};
/* Before the others leave memory in the arenas, which counts. */
static const struct CMUnitTest with_limit[] = {cmocka_unit_test(limit_holds), GENERAL};
static const struct CMUnitTest with_little[] = {
	cmocka_unit_test(edges_of_malloc), cmocka_unit_test(aligned_forms),
	cmocka_unit_test(contents_stay), cmocka_unit_test(forks_between_threads)};

#define TESTS(name) name, sizeof(name) / sizeof((name)[0])

static const struct {
	const char *name;
	const struct CMUnitTest *tests;
	size_t count;
	const char *variables[4];
} groups[] = {
	{"hbm", TESTS(with_hbm), {"FERRY_POLICY=hbm"}},
	{"ddr", TESTS(with_ddr), {NULL}},
	{"interleave", TESTS(with_interleave), {"FERRY_POLICY=interleave"}},
	{"threshold",
	 TESTS(with_threshold),
	 {"FERRY_POLICY=threshold", "FERRY_MIN_SIZE=1048576"}},
	{"threshold of 16K",
	 TESTS(with_small_threshold),
	 {"FERRY_POLICY=threshold", "FERRY_MIN_SIZE=16384"}},
	{"threshold of 100000",
	 TESTS(with_small_threshold),
	 {"FERRY_POLICY=threshold", "FERRY_MIN_SIZE=100000"}},
	{"limit", TESTS(with_limit), {"FERRY_POLICY=hbm", "FERRY_HBM_LIMIT=64M"}},
	{"no HBM at all", TESTS(with_little), {"FERRY_POLICY=hbm", "FERRY_HBM_LIMIT=0"}},
	{"MALLOC_CONF",
	 TESTS(with_little),
	 {"FERRY_POLICY=threshold",
	  "MALLOC_CONF=retain:true,percpu_arena:percpu,oversize_threshold:0,"
	  "narenas:2,dirty_decay_ms:0"}},
};
#define GROUPS (sizeof(groups) / sizeof(groups[0]))

/* Whether @group, run by this program under the library, passes. */
static bool run_group(size_t group)
{
	char index[16], preload[4096];
	pid_t child = fork();
	int status;

	if (!child) {
		snprintf(index, sizeof(index), "%zu", group);
		snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", library);
		putenv(preload);
		putenv((char *)"FERRY_SAID_NO_HBM=1");
		for (size_t v = 0; groups[group].variables[v]; v++)
			putenv((char *)groups[group].variables[v]);
		execl("/proc/self/exe", "preload_checks", library, plugin, index, NULL);
		_exit(127);
	}
	return waitpid(child, &status, 0) == child && !status;
}

int main(int argc, char **argv)
{
	int failed = 0;

	if (argc < 3)
		return 2;
	library = argv[1];
	plugin = argv[2];
	if (argc == 4) {
		size_t group = strtoul(argv[3], NULL, 10);

		return _cmocka_run_group_tests(groups[group].name, groups[group].tests,
					       groups[group].count, NULL, NULL);
	}
	/* Children inherit it. A huge page at each touch would take minutes. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	for (size_t group = 0; group < GROUPS; group++)
		if (!run_group(group)) {
			fprintf(stderr, "FAILED with %s\n", groups[group].name);
			failed = 1;
		}
	return failed;
}
