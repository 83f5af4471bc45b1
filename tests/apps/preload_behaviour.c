/* SPDX-License-Identifier: MIT */
/* The malloc family and mmap under libferry-preload.so, over threads, fork, vfork,
 * spawn and dlopen: see preload_checks.h. */
#include "preload_checks.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "early.h"

#define PAGE ((size_t)4096)

const char *plugin;

static size_t large_number(void)
{
	return (size_t)hide((void *)((size_t)PTRDIFF_MAX + 1));
}

/* ---- the malloc family, under any policy --------------------------------- */

void every_function_is_ours(void **state)
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

void edges_of_malloc(void **state)
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

void aligned_forms(void **state)
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

void contents_stay(void **state)
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

void memory_goes_back(void **state)
{
	size_t before = resident();
	void *ptr = touched(malloc(128 * MIB), 128 * MIB);

	(void)state;
	assert_true(resident() > before + 120 * MIB);
	free(ptr);
	assert_true(resident() < before + 8 * MIB);
}

/*
 * Medium-sized blocks that come and go: their pages are used again, and not given
 * back and faulted in anew each time some MiB of them are free.
 */
void medium_blocks_keep_their_pages(void **state)
{
	enum { BLOCKS = 64, TURNS = 60000 };
	static unsigned char *block[BLOCKS];
	struct rusage before, after;
	unsigned int seed = 3;

	(void)state;
	getrusage(RUSAGE_SELF, &before);
	for (int i = 0; i < TURNS; i++) {
		int slot = rand_r(&seed) % BLOCKS;
		size_t size = (size_t)64 << (10 + rand_r(&seed) % 7);

		free(block[slot]);
		block[slot] = hide(malloc(size));
		for (size_t at = 0; at < size; at += size / 8)
			block[slot][at] = 1;
	}
	getrusage(RUSAGE_SELF, &after);
	for (int i = 0; i < BLOCKS; i++) {
		free(block[i]);
		block[i] = NULL;
	}
	/* of eight pages touched in each turn */
	assert_in_range(after.ru_minflt - before.ru_minflt, 1, TURNS / 4);
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

void mmap_like_the_kernels(void **state)
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

void forks_between_threads(void **state)
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

void plugins(void **state)
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
