/* SPDX-License-Identifier: MIT */
/* See relocate_test.h. */
#include "relocate_test.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "migrate/collapse.h"

struct beside beside;

/* Threads are started in forked children here. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

uint64_t pattern(size_t i)
{
	return i * 0x9e3779b97f4a7c15u + 1;
}

static char *map(bool huge)
{
	char *mem = mmap(NULL, LEN + 3 * GRANULE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(mem != MAP_FAILED);
	CHECK(!madvise(mem, LEN + 3 * GRANULE_BYTES,
		       huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
	mem = (char *)granule_end((uintptr_t)mem + GRANULE_BYTES);
	for (size_t i = 0; i < GRANULES * WORDS; i++)
		((uint64_t *)mem)[i] = pattern(i);
	CHECK(!madvise(mem, LEN, MADV_HUGEPAGE));
	for (size_t i = 0; i < GRANULES; i++)
		CHECK(relocate_is_huge((uintptr_t)mem + i * GRANULE_BYTES) == huge);
	return mem;
}

char *map_granules(void)
{
	return map(true);
}

char *map_small(void)
{
	if (!relocate_can_small())
		_exit(77);
	return map(false);
}

void split(char *granule)
{
	/* Others may read and write it meanwhile. */
	CHECK(!mprotect(granule, PAGE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC));
	CHECK(!mprotect(granule, PAGE_BYTES, PROT_READ | PROT_WRITE));
}

size_t wrong(const char *mem, size_t offset, size_t len)
{
	const uint64_t *word = (const uint64_t *)mem;
	size_t bad = 0;

	for (size_t i = 0; i < len / sizeof(*word); i++)
		bad += word[i] != pattern(offset / sizeof(*word) + i);
	return bad;
}

uint32_t move(char *mem, size_t n)
{
	const int16_t from[WINDOW_GRANULES] = {0};

	return relocate_run((uintptr_t)mem, n, from, 0);
}

uint32_t move_small(char *mem, size_t n)
{
	/* Pages that have just come are held by the CPU's list until then. */
	(void)collapse_advised((uintptr_t)mem);
	return relocate_run((uintptr_t)mem, n, NULL, 0);
}

uint64_t frame(const char *mem)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	CHECK(pread(fd, &entry, 8, (off_t)((uintptr_t)mem / PAGE_BYTES * 8)) == 8);
	close(fd);
	return entry & ((UINT64_C(1) << 55) - 1);
}

static void *move_all_the_time(void *unused)
{
	while (!atomic_load(&beside.stop))
		beside.rounds += move(beside.mem, GRANULES) != 0;
	return unused;
}

static void *move_small_all_the_time(void *unused)
{
	while (!atomic_load(&beside.stop)) {
		for (size_t at = 0; at < LEN; at += GRANULE_BYTES)
			if (relocate_is_huge((uintptr_t)beside.mem + at))
				split(beside.mem + at);
		beside.rounds += move_small(beside.mem, GRANULES) != 0;
	}
	return unused;
}

static pthread_t start(void *(*run)(void *), char *mem)
{
	pthread_t thread;

	beside.mem = mem;
	CHECK(!pthread_create(&thread, NULL, run, NULL));
	while (!beside.rounds)
		sched_yield();
	return thread;
}

pthread_t start_moving(char *mem)
{
	return start(move_all_the_time, mem);
}

pthread_t start_moving_small(char *mem)
{
	return start(move_small_all_the_time, mem);
}

void end_moving(pthread_t thread)
{
	atomic_store(&beside.stop, true);
	pthread_join(thread, NULL);
}

bool another(int round, int rounds)
{
	static time_t begun;

	if (!round)
		begun = time(NULL);
	return round < rounds && time(NULL) < begun + 3;
}

void run_case(void (*test)(void))
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

/* Whether it can be had is found out in a process of its own too. */
bool relocate_available(void)
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
