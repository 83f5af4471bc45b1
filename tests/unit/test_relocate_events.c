/* SPDX-License-Identifier: MIT */
/*
 * Proves of relocation that data is kept while the program unmaps, discards, moves,
 * protects, locks and inherits its memory, or is killed. small_...: the same of small
 * pages, which nobody may unmap or move elsewhere.
 */
#include "relocate_test.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* The child sees all of it, whenever it is made. */
static void forks_beside(char *mem, pthread_t thread)
{
	for (int i = 0; another(i, 60); i++) {
		int status;
		pid_t pid;

		windows_hold();
		pid = fork();
		if (!pid)
			_exit(wrong(mem, 0, LEN) > 0);
		windows_release();
		CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && !status);
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, LEN));
}

static void forks(void)
{
	char *mem = map_granules();

	forks_beside(mem, start_moving(mem));
}

static void small_forks(void)
{
	char *mem = map_small();

	forks_beside(mem, start_moving_small(mem));
}

/* Writes what is there, or else what a child has seen would not be moved again. */
static void make_exclusive(char *mem)
{
	for (size_t at = 0; at < GRANULES * WORDS; at += PAGE_BYTES / sizeof(uint64_t))
		((volatile uint64_t *)mem)[at] = pattern(at);
}

/* So does one that no fork handler knows of, where the kernel tells of it. */
static void raw_clones_beside(char *mem, pthread_t thread)
{
	for (int i = 0; another(i, 60); i++) {
		pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
		int status;

		if (!pid)
			_exit(wrong(mem, 0, LEN) > 0);
		CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && !status);
		make_exclusive(mem);
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, LEN));
}

static void raw_clones(void)
{
	char *mem = map_granules();

	if (!relocate_sees_forks())
		_exit(77);
	raw_clones_beside(mem, start_moving(mem));
}

static void small_raw_clones(void)
{
	char *mem = map_small();

	if (!relocate_sees_forks())
		_exit(77);
	raw_clones_beside(mem, start_moving_small(mem));
}

/* What is discarded reads as zeros and stays so. */
static void discards_beside(char *mem, pthread_t thread)
{
	const size_t part = 64 * PAGE_BYTES;

	for (int i = 0; another(i, 400); i++) {
		char *at = mem + GRANULE_BYTES + (size_t)(i % 8) * part;

		if (i % 3)
			usleep(100);
		CHECK(!madvise(at, part, MADV_DONTNEED));
		for (size_t k = 0; k < part; k += PAGE_BYTES)
			CHECK(at[k] == 0);
		for (size_t k = 0; k < part / sizeof(uint64_t); k++)
			((uint64_t *)at)[k] =
				pattern((size_t)(at - mem) / sizeof(uint64_t) + k);
		CHECK(!wrong(mem, 0, LEN));
		if (i % 8 == 7) {
			/* A granule that can be moved again */
			CHECK(!madvise(mem + GRANULE_BYTES, GRANULE_BYTES,
				       MADV_DONTNEED));
			for (size_t k = WORDS; k < 2 * WORDS; k++)
				((uint64_t *)mem)[k] = pattern(k);
		}
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, LEN));
}

static void discards(void)
{
	char *mem = map_granules();

	discards_beside(mem, start_moving(mem));
}

static void small_discards(void)
{
	char *mem = map_small();

	discards_beside(mem, start_moving_small(mem));
}

/* Other memory takes the place of what is unmapped, at once. */
static void unmaps(void)
{
	char *mem = map_granules();
	pthread_t thread = start_moving(mem);

	for (int i = 0; another(i, 300); i++) {
		char *at = mem + (size_t)(i % GRANULES) * GRANULE_BYTES;
		size_t offset = i % 2 ? 16 * PAGE_BYTES : 0;
		size_t len = GRANULE_BYTES - 2 * offset;

		if (i % 3)
			usleep(200);
		CHECK(mmap(at + offset, len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			   0) == at + offset);
		madvise(at + offset, len, MADV_HUGEPAGE);
		CHECK(at[offset] == 0 && at[offset + len - 1] == 0);
		for (size_t k = 0; k < len / sizeof(uint64_t); k++)
			((uint64_t *)(at + offset))[k] = pattern(
				(size_t)(at + offset - mem) / sizeof(uint64_t) + k);
		CHECK(!wrong(mem, 0, LEN));
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, LEN));
}

/*
 * Memory that comes up in a gap of a run is not registered, and must not be taken out:
 * this thread would not wait for it.
 */
static void gaps(void)
{
	char *mem = map_granules(), *gap = mem + GRANULE_BYTES;
	pthread_t thread;

	CHECK(!munmap(gap, GRANULE_BYTES));
	thread = start_moving(mem);
	for (int i = 0; another(i, 300); i++) {
		CHECK(mmap(gap, GRANULE_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == gap);
		madvise(gap, GRANULE_BYTES, MADV_HUGEPAGE);
		for (size_t k = 0; k < WORDS; k++)
			((uint64_t *)gap)[k] = pattern(WORDS + k);
		for (int k = 0; k < 5; k++)
			CHECK(!wrong(gap, GRANULE_BYTES, GRANULE_BYTES));
		CHECK(!munmap(gap, GRANULE_BYTES));
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, GRANULE_BYTES));
	CHECK(!wrong(gap + GRANULE_BYTES, 2 * GRANULE_BYTES, 2 * GRANULE_BYTES));
}

static void remap(char *from, char *to, size_t len)
{
	CHECK(mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
}

/* Memory that is moved elsewhere and back has its data there. */
static void remaps(void)
{
	char *mem = map_granules(), *other;
	pthread_t thread = start_moving(mem);

	other = mmap(NULL, GRANULE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(other != MAP_FAILED);
	for (int i = 0; another(i, 300); i++) {
		/* A whole granule, and a part of another */
		size_t offset =
			i % 2 ? 2 * GRANULE_BYTES + 100 * PAGE_BYTES : GRANULE_BYTES;
		size_t len = i % 2 ? 300 * PAGE_BYTES : GRANULE_BYTES;

		if (i % 3)
			usleep(200);
		remap(mem + offset, other, len);
		CHECK(!wrong(other, offset, len));
		remap(other, mem + offset, len);
		CHECK(!wrong(mem, 0, LEN));
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, LEN));
}

/* UFFDIO_MOVE refuses memory that is read-only or locked: data comes back all the same.
 */
static void protects_beside(char *mem, pthread_t thread)
{
	for (int i = 0; another(i, 300); i++) {
		char *at = mem + (size_t)(i % GRANULES) * GRANULE_BYTES;
		size_t len = i % GRANULES == 3 ? 5 * PAGE_BYTES : GRANULE_BYTES;

		if (i % 3)
			usleep(200);
		if (i % 5) {
			CHECK(!mprotect(at, len, PROT_READ));
			CHECK(!wrong(mem, 0, LEN));
			CHECK(!mprotect(at, len, PROT_READ | PROT_WRITE));
		} else {
			CHECK(!mlock(at, len));
			CHECK(!wrong(mem, 0, LEN));
			CHECK(!munlock(at, len));
		}
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, LEN));
}

static void protects(void)
{
	char *mem = map_granules();

	protects_beside(mem, start_moving(mem));
}

static void small_protects(void)
{
	char *mem = map_small();

	protects_beside(mem, start_moving_small(mem));
}

/* Whether all of a granule is locked: it cannot be called cold then. */
static bool is_locked(char *granule)
{
	for (size_t at = 0; at < GRANULE_BYTES; at += PAGE_BYTES)
		if (!madvise(granule + at, PAGE_BYTES, MADV_COLD))
			return false;
	return true;
}

/* What is locked the moment its page table is taken away stays locked. */
static void small_locks(void)
{
	char *mem = map_small();
	pthread_t thread = start_moving_small(mem);

	for (int i = 0; another(i, 300); i++) {
		char *at = mem + (size_t)(i % GRANULES) * GRANULE_BYTES;

		usleep((useconds_t)(i * 37 % 500));
		/* The sanitizers' mlock() does nothing. */
		CHECK(!syscall(SYS_mlock, at, GRANULE_BYTES));
		for (int k = 0; k < 1000 && !is_locked(at); k++)
			usleep(1000);
		CHECK(is_locked(at));
		CHECK(!syscall(SYS_munlock, at, GRANULE_BYTES));
		CHECK(!wrong(mem, 0, LEN));
	}
	end_moving(thread);
}

static void child_killed(void)
{
	map_granules();
	for (int i = 0; i < 10; i++) {
		pid_t pid = fork();
		int status;

		CHECK(pid >= 0);
		if (!pid) {
			const char *why;
			char *own;

			relocate_forget();
			CHECK(!relocate_open(&why));
			own = map_granules();
			start_moving(own);
			usleep((useconds_t)i * 1000);
			kill(getpid(), SIGKILL);
		}
		CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	}
}

CASE(forks)
CASE(small_forks)
CASE(raw_clones)
CASE(small_raw_clones)
CASE(discards)
CASE(small_discards)
CASE(unmaps)
CASE(gaps)
CASE(remaps)
CASE(protects)
CASE(small_protects)
CASE(small_locks)
CASE(child_killed)

/* An argument names the tests to run, as a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forks),
		cmocka_unit_test(test_small_forks),
		cmocka_unit_test(test_raw_clones),
		cmocka_unit_test(test_small_raw_clones),
		cmocka_unit_test(test_discards),
		cmocka_unit_test(test_small_discards),
		cmocka_unit_test(test_unmaps),
		cmocka_unit_test(test_gaps),
		cmocka_unit_test(test_remaps),
		cmocka_unit_test(test_protects),
		cmocka_unit_test(test_small_protects),
		cmocka_unit_test(test_small_locks),
		cmocka_unit_test(test_child_killed),
	};

	if (!relocate_available())
		return 77;
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
