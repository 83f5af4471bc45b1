/* SPDX-License-Identifier: MIT */
/*
 * Proves of relocation, on one node, where a granule moves to another page of
 * it: data and huge pages are kept, with writers running and while the program
 * unmaps, discards, moves, protects, locks and inherits its memory; what cannot
 * be moved stays; small pages that fill a granule can be made a huge one. Each case is a
 * process of its own; its copiers are its own threads. That a page is another is read in
 * /proc/self/pagemap, as root only.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fault/uffd.h"
#include "migrate/collapse.h"
#include "migrate/page.h"
#include "migrate/relocate.h"

#include "forgotten_move.h"

#define CHECK(what)                                                                      \
	do {                                                                             \
		if (!(what)) {                                                           \
			fprintf(stderr, "line %d: %s\n", __LINE__, #what);               \
			_exit(1);                                                        \
		}                                                                        \
	} while (0)

#define GRANULES 4
#define LEN      (GRANULES * GRANULE_BYTES)
#define WORDS    (GRANULE_BYTES / sizeof(uint64_t))

static uint64_t pattern(size_t i)
{
	return i * 0x9e3779b97f4a7c15u + 1;
}

/* Granules of huge pages in the middle of a larger mapping, filled. */
static char *map(void)
{
	char *mem = mmap(NULL, LEN + 3 * GRANULE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(mem != MAP_FAILED);
	CHECK(!madvise(mem, LEN + 3 * GRANULE_BYTES, MADV_HUGEPAGE));
	mem = (char *)granule_end((uintptr_t)mem + GRANULE_BYTES);
	for (size_t i = 0; i < GRANULES * WORDS; i++)
		((uint64_t *)mem)[i] = pattern(i);
	for (size_t i = 0; i < GRANULES; i++)
		CHECK(relocate_is_huge((uintptr_t)mem + i * GRANULE_BYTES));
	return mem;
}

static size_t wrong(const char *mem, size_t offset, size_t len)
{
	const uint64_t *word = (const uint64_t *)mem;
	size_t bad = 0;

	for (size_t i = 0; i < len / sizeof(*word); i++)
		bad += word[i] != pattern(offset / sizeof(*word) + i);
	return bad;
}

static uint32_t move(char *mem, size_t n)
{
	const int16_t from[WINDOW_GRANULES] = {0};

	return relocate_window((uintptr_t)mem, n, from, 0);
}

/* The page frame, 0 for those that may not see it. */
static uint64_t frame(const char *mem)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	CHECK(pread(fd, &entry, 8, (off_t)((uintptr_t)mem / PAGE_BYTES * 8)) == 8);
	close(fd);
	return entry & ((UINT64_C(1) << 55) - 1);
}

static int vmas(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	int n = 0, c;

	CHECK(file);
	while ((c = getc(file)) != EOF)
		n += c == '\n';
	fclose(file);
	return n;
}

static void moves(void)
{
	char *mem = map();
	int before = vmas();

	for (int i = 0; i < 20; i++) {
		uint64_t was = frame(mem);

		CHECK(move(mem, GRANULES) == (1U << GRANULES) - 1);
		CHECK(!was || frame(mem) != was);
		CHECK(!wrong(mem, 0, LEN));
		for (size_t k = 0; k < GRANULES; k++)
			CHECK(relocate_is_huge((uintptr_t)mem + k * GRANULE_BYTES));
	}
	CHECK(vmas() == before);
}

/* Nothing is lost that was moved, out or back, while the kernel says that it was not. */
static void forgotten(void)
{
	char *mem = map();

	for (unsigned int nth = 1; nth <= 2; nth++) {
		forget_move(nth);
		move(mem, 1);
		CHECK(!wrong(mem, 0, LEN));
	}
}

/* ---- beside it ----------------------------------------------------------- */

static struct {
	char *mem;
	atomic_bool stop;
	atomic_uint_fast64_t rounds;
} beside;

static void *count_up(void *unused)
{
	while (!atomic_load(&beside.stop)) {
		for (size_t at = 0; at < LEN; at += PAGE_BYTES)
			atomic_fetch_add((_Atomic uint64_t *)(beside.mem + at), 1);
		beside.rounds++;
	}
	return unused;
}

static void writers(void)
{
	pthread_t thread;

	beside.mem = map();
	CHECK(!pthread_create(&thread, NULL, count_up, NULL));
	/* On a busy machine the thread may come late. */
	for (int i = 0; i < 100 || !beside.rounds; i++)
		CHECK(move(beside.mem, GRANULES) == (1U << GRANULES) - 1);
	atomic_store(&beside.stop, true);
	pthread_join(thread, NULL);
	for (size_t at = 0; at < LEN; at += PAGE_BYTES)
		CHECK(*(uint64_t *)(beside.mem + at) ==
		      pattern(at / sizeof(uint64_t)) + beside.rounds);
}

static void *move_all_the_time(void *unused)
{
	while (!atomic_load(&beside.stop))
		beside.rounds += move(beside.mem, GRANULES) != 0;
	return unused;
}

static pthread_t start_moving(char *mem)
{
	pthread_t thread;

	beside.mem = mem;
	CHECK(!pthread_create(&thread, NULL, move_all_the_time, NULL));
	while (!beside.rounds)
		sched_yield();
	return thread;
}

static void end_moving(pthread_t thread)
{
	atomic_store(&beside.stop, true);
	pthread_join(thread, NULL);
}

/* Two copiers that want the same memory. */
static void same_memory(void)
{
	char *mem = map();
	pthread_t thread = start_moving(mem);

	for (int i = 0; i < 100; i++) {
		move(mem + GRANULE_BYTES, 2);
		CHECK(!wrong(mem, 0, LEN));
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, LEN));
}

/* Rounds, but no more than an emulated machine carries out in some seconds. */
static bool another(int round, int rounds)
{
	static time_t begun;

	if (!round)
		begun = time(NULL);
	return round < rounds && time(NULL) < begun + 6;
}

/* The child sees all of it, whenever it is made. */
static void forks(void)
{
	char *mem = map();
	pthread_t thread = start_moving(mem);

	for (int i = 0; another(i, 60); i++) {
		int status;
		pid_t pid;

		relocate_hold();
		pid = fork();
		if (!pid)
			_exit(wrong(mem, 0, LEN) > 0);
		relocate_release();
		CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && !status);
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, LEN));
}

/* Writes what is there, or else what a child has seen would not be moved again. */
static void make_exclusive(char *mem)
{
	for (size_t at = 0; at < GRANULES * WORDS; at += PAGE_BYTES / sizeof(uint64_t))
		((volatile uint64_t *)mem)[at] = pattern(at);
}

/* So does one that no fork handler knows of, where the kernel tells of it. */
static void raw_clones(void)
{
	char *mem = map();
	pthread_t thread;

	if (!relocate_sees_forks())
		_exit(77);
	thread = start_moving(mem);
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

/* What is discarded reads as zeros and stays so. */
static void discards(void)
{
	const size_t part = 64 * PAGE_BYTES;
	char *mem = map();
	pthread_t thread = start_moving(mem);

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

/* Other memory takes the place of what is unmapped, at once. */
static void unmaps(void)
{
	char *mem = map();
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

static void remap(char *from, char *to, size_t len)
{
	CHECK(mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
}

/* Memory that is moved elsewhere and back has its data there. */
static void remaps(void)
{
	char *mem = map(), *other;
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
static void protects(void)
{
	char *mem = map();
	pthread_t thread = start_moving(mem);

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

static void child_killed(void)
{
	map();
	for (int i = 0; i < 10; i++) {
		pid_t pid = fork();
		int status;

		CHECK(pid >= 0);
		if (!pid) {
			const char *why;
			char *own;

			relocate_forget();
			CHECK(!relocate_open(&why));
			own = map();
			start_moving(own);
			usleep((useconds_t)i * 1000);
			kill(getpid(), SIGKILL);
		}
		CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	}
}

/* ---- what stays ---------------------------------------------------------- */

static void pinned(void)
{
	char *mem = map();
	struct iovec iov = {mem + GRANULE_BYTES + 9 * PAGE_BYTES, PAGE_BYTES};
	uint64_t was = frame(mem + GRANULE_BYTES);
	struct io_uring ring;

	if (io_uring_queue_init(2, &ring, 0))
		_exit(77);
	CHECK(!io_uring_register_buffers(&ring, &iov, 1));
	CHECK(move(mem, GRANULES) == 0xd);
	CHECK(frame(mem + GRANULE_BYTES) == was);
	CHECK(!wrong(mem, 0, LEN));
	CHECK(!io_uring_unregister_buffers(&ring));
	for (int i = 0; i < 1000 && !move(mem + GRANULE_BYTES, 1); i++)
		usleep(1000);
	CHECK(!was || frame(mem + GRANULE_BYTES) != was);
	CHECK(!wrong(mem, 0, LEN));
}

static void shared_with_a_child(void)
{
	char *mem = map();
	int fd[2];
	pid_t pid;

	CHECK(!pipe(fd));
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		char c;

		close(fd[1]);
		(void)!read(fd[0], &c, 1);
		_exit(wrong(mem, 0, LEN) > 0);
	}
	CHECK(move(mem, GRANULES) == 0);
	CHECK(!wrong(mem, 0, LEN));
	close(fd[0]);
	close(fd[1]);
	CHECK(waitpid(pid, &fd[0], 0) == pid && !fd[0]);
}

/* Whole pages of the kernel's choice, and what is registered by somebody else. */
static void left_alone(void)
{
	char *mem = map();
	int other = uffd_open(0);
	uint32_t moved = 0;

	CHECK(!mprotect(mem, GRANULE_BYTES, PROT_READ));
	/* The sanitizers' mlock() does nothing. */
	CHECK(!syscall(SYS_mlock, mem + GRANULE_BYTES, GRANULE_BYTES));
	CHECK(!madvise(mem + 2 * GRANULE_BYTES, GRANULE_BYTES, MADV_DONTNEED));
	/* It is tried again, for the kernel may have no huge page at the moment. */
	for (int i = 0; i < 50 && !moved; i++)
		moved = move(mem, GRANULES);
	CHECK(moved == 0x8);
	CHECK(!wrong(mem, 0, 2 * GRANULE_BYTES));
	CHECK(mem[2 * GRANULE_BYTES] == 0);
	CHECK(!wrong(mem + 3 * GRANULE_BYTES, 3 * GRANULE_BYTES, GRANULE_BYTES));
	CHECK(other >= 0);
	CHECK(!uffd_register(other, (uintptr_t)mem + 3 * GRANULE_BYTES, GRANULE_BYTES));
	CHECK(move(mem + 3 * GRANULE_BYTES, 1) == 0);
	CHECK(!wrong(mem + 3 * GRANULE_BYTES, 3 * GRANULE_BYTES, GRANULE_BYTES));
}

/* A full granule of small pages becomes huge, unless it is held or advised against. */
static void small_pages(void)
{
	char *mem = map(), *held = mem + GRANULE_BYTES, *hole = mem + 2 * GRANULE_BYTES,
	     *against = mem + 3 * GRANULE_BYTES;
	struct iovec iov = {held + 9 * PAGE_BYTES, PAGE_BYTES};
	int fd[2];

	CHECK(!madvise(mem, LEN, MADV_DONTNEED) && !madvise(mem, LEN, MADV_NOHUGEPAGE));
	for (size_t i = 0; i < GRANULES * WORDS; i++)
		((uint64_t *)mem)[i] = pattern(i);
	CHECK(!madvise(mem, LEN - GRANULE_BYTES, MADV_HUGEPAGE));
	CHECK(!pipe(fd) && vmsplice(fd[1], &iov, 1, 0) == (ssize_t)PAGE_BYTES);
	CHECK(!madvise(hole + 5 * PAGE_BYTES, PAGE_BYTES, MADV_DONTNEED));
	for (char *at = mem; at < mem + LEN; at += GRANULE_BYTES) {
		CHECK(!relocate_is_huge((uintptr_t)at));
		CHECK(relocate_is_full((uintptr_t)at) == (at != hole));
	}
	CHECK(hole[5 * PAGE_BYTES] == 0); /* the zero page is a hole too */
	CHECK(!relocate_is_full((uintptr_t)hole));
	/* It is tried again, for the kernel may have no huge page at the moment. */
	for (int i = 0; i < 50 && !relocate_is_huge((uintptr_t)mem); i++)
		collapse((uintptr_t)mem, 2 * GRANULE_BYTES);
	collapse((uintptr_t)against, GRANULE_BYTES);
	CHECK(relocate_is_huge((uintptr_t)mem));
	CHECK(!relocate_is_huge((uintptr_t)held));
	CHECK(!relocate_is_huge((uintptr_t)against));
	CHECK(relocate_is_full((uintptr_t)mem));
	CHECK(move(mem, 1) == 1);
	CHECK(!wrong(mem, 0, 2 * GRANULE_BYTES));
	CHECK(wrong(mem, 0, LEN) == PAGE_BYTES / sizeof(uint64_t));
}

/* ---- running them -------------------------------------------------------- */

static void run(void (*test)(void))
{
	const char *why;
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		alarm(100);
		CHECK(!relocate_open(&why));
		test();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

#define CASE(test)                                                                       \
	static void test_##test(void **state)                                            \
	{                                                                                \
		(void)state;                                                             \
		run(test);                                                               \
	}
CASE(moves)
CASE(forgotten)
CASE(writers)
CASE(same_memory)
CASE(forks)
CASE(raw_clones)
CASE(discards)
CASE(unmaps)
CASE(remaps)
CASE(protects)
CASE(child_killed)
CASE(pinned)
CASE(shared_with_a_child)
CASE(left_alone)
CASE(small_pages)

/* Whether it can be had is found out in a process of its own too. */
static bool available(void)
{
	int status = 1;
	pid_t pid = fork();

	if (!pid) {
		const char *why;

		if (!relocate_open(&why))
			_exit(0);
		printf("skip: %s\n", why);
		fflush(stdout);
		_exit(1);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

/* An argument names the tests to run, as a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_forgotten),
		cmocka_unit_test(test_writers),
		cmocka_unit_test(test_same_memory),
		cmocka_unit_test(test_forks),
		cmocka_unit_test(test_raw_clones),
		cmocka_unit_test(test_discards),
		cmocka_unit_test(test_unmaps),
		cmocka_unit_test(test_remaps),
		cmocka_unit_test(test_protects),
		cmocka_unit_test(test_child_killed),
		cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_shared_with_a_child),
		cmocka_unit_test(test_left_alone),
		cmocka_unit_test(test_small_pages),
	};

	if (!available())
		return 77;
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
