/* SPDX-License-Identifier: MIT */
/* Cases of test_first_touch: processes begin and end, and look into each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/first_touch.h"
#include "fault_memory.h"
#include "fault_process.h"
#include "first_touch_test.h"

/* A child that has started anew, with memory. */
static pid_t fork_with_memory(char **mem)
{
	pid_t child = fork();
	const char *why;

	if (child)
		return child;
	alarm(60);
	if (first_touch_start(filling_threads, &why))
		_exit(90);
	*mem = fault_fresh();
	return 0;
}

/* What a child finds of its parent's memory: data, and zeros that the kernel fills. */
static int see_as_child(char *mem)
{
	size_t there = pages_there(mem, SIZE);

	if (!all_are(mem, PAGE, 6) || mem[GRANULE_BYTES] != 0)
		return 1;
	mem[GRANULE_BYTES] = 7;
	mem[0] = 8;
	if (pages_there(mem, SIZE) != there + 1)
		return 2;
	return first_touch_add((uintptr_t)mem, SIZE) != -ESRCH;
}

void forked(void **state)
{
	char *mem = fault_fresh();
	pid_t child;

	(void)state;
	memset(mem, 6, PAGE);
	child = fork();
	if (!child)
		_exit(see_as_child(mem));
	assert_child_ok(child);
	/* The parent's is filled as before. */
	assert_true(all_are(mem, PAGE, 6));
	mem[GRANULE_BYTES] = 1;
	assert_int_equal(pages_there(mem, SIZE), 2 * BLOCK_BYTES / PAGE);
	munmap(mem, SIZE);
}

void cloned(void **state)
{
	char *mem = fault_fresh();
	pid_t child;

	(void)state;
	memset(mem, 6, PAGE);
	child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!child)
		_exit(see_as_child(mem));
	assert_child_ok(child);
	assert_true(all_are(mem, PAGE, 6));
	munmap(mem, SIZE);
}

static sem_t touches;

static void *touch_all_the_time(void *mem)
{
	sem_post(&touches);
	for (;;) {
		madvise(mem, SIZE, MADV_DONTNEED);
		for (size_t at = 0; at < SIZE; at += PAGE)
			((volatile char *)mem)[at] = 1;
	}
	return NULL;
}

/* Once it has begun: what forks meanwhile would copy locks that it takes, ASan's too. */
static void start_touching(char *mem)
{
	pthread_t thread;

	sem_init(&touches, 0, 0);
	if (pthread_create(&thread, NULL, touch_all_the_time, mem))
		_exit(91);
	while (sem_wait(&touches))
		;
}

/* While threads fault. */
void a_child_starts_its_own(void **state)
{
	char *mem;
	pid_t child = fork_with_memory(&mem);

	(void)state;
	if (!child) {
		start_touching(mem);
		for (int i = 0; i < 30; i++) {
			char *own;

			child = i % 3 ? fork() : fork_with_memory(&own);
			if (!child) {
				if (i % 3 == 0) {
					memset(own, 1, SIZE);
					_exit(!all_are(own, SIZE, 1));
				}
				memset(mem, 2, SIZE);
				_exit(!all_are(mem, SIZE, 2));
			}
			assert_child_ok(child);
		}
		_exit(0);
	}
	assert_child_ok(child);
}

void vfork_and_spawn(void **state)
{
	char *mem = fault_fresh();
	char *const argv[] = {(char *)"true", NULL};
	pid_t child = vfork();

	(void)state;
	if (!child) {
		*(volatile char *)(mem + GRANULE_BYTES) = 1;
		_exit(0);
	}
	assert_child_ok(child);
	assert_int_equal(mem[GRANULE_BYTES], 1);
	assert_int_equal(pages_there(mem, SIZE), BLOCK_BYTES / PAGE);
	/* the name of the program is in it */
	strcpy(mem, "/bin/true");
	assert_int_equal(posix_spawn(&child, mem, NULL, NULL, argv, NULL), 0);
	assert_child_ok(child);
	munmap(mem, SIZE);
}

void exec_from_it(void **state)
{
	char *mem;
	pid_t child = fork_with_memory(&mem);

	(void)state;
	if (!child) {
		/* ends in a page that was never touched */
		char **argv = (char **)(mem + BLOCK_BYTES - 3 * sizeof(char *));

		argv[0] = strcpy(mem + 100, "/bin/sh");
		argv[1] = strcpy(mem + 200, "-c");
		argv[2] = strcpy(mem + 300, "exit 0");
		execv(argv[0], argv);
		_exit(2);
	}
	assert_child_ok(child);
}

void exits(void **state)
{
	(void)state;
	for (int way = 0; way < 5; way++) {
		char *mem;
		pid_t child = fork_with_memory(&mem);
		int status;

		if (!child) {
			start_touching(mem);
			usleep(20000);
			if (way == 0)
				_exit(0);
			if (way == 1)
				quick_exit(0);
			if (way == 2)
				kill(getpid(), SIGKILL);
			if (way == 3)
				execl("/bin/true", "true", (char *)NULL);
			syscall(SYS_exit, 0); /* this thread alone */
		}
		if (way == 4) {
			usleep(100000);
			kill(child, SIGTERM);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, way == 2 ? SIGKILL : way == 4 ? SIGTERM : 0);
	}
}

/* The memory of a process that ended, and with it the threads that fill. */
static int outlive(void *arg)
{
	char *mem = arg;
	pid_t parent = getppid();

	mem[0] = 1;
	kill(parent, SIGKILL);
	while (getppid() == parent)
		usleep(1000);
	for (size_t at = 0; at < SIZE; at += PAGE)
		((volatile char *)mem)[at] += 1;
	_exit(mem[0] != 2 || mem[SIZE - PAGE] != 1);
}

void who_outlives_the_threads(void **state)
{
	int fds[2], status;
	char *mem, byte;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	child = fork_with_memory(&mem);
	if (!child) {
		char *stack = fault_map();

		close(fds[0]);
		clone(outlive, stack + SIZE, CLONE_VM | SIGCHLD, mem);
		for (;;)
			pause();
	}
	close(fds[1]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, SIGKILL);
	/* Closed when it has ended, which it would not if it waited for a page. */
	alarm(60);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	alarm(0);
	close(fds[0]);
}

void descriptors_closed(void **state)
{
	char *mem;
	pid_t child = fork_with_memory(&mem);

	(void)state;
	if (!child) {
		syscall(SYS_close_range, 3, ~0U, 0);
		memset(mem, 1, SIZE);
		munmap(mem, SIZE);
		mem = fault_fresh();
		mem[0] = 1;
		_exit(pages_there(mem, SIZE) != BLOCK_BYTES / PAGE);
	}
	assert_child_ok(child);
}

void a_core_dump_ends(void **state)
{
	const char *folder = core_folder();
	char *mem;
	pid_t child = fork_with_memory(&mem);

	(void)state;
	if (!child)
		dump_core(folder);
	assert_core_dumped(child, folder);
}

void read_by_another(void **state)
{
	char *mem = fault_fresh(), *copy = fault_map();
	pid_t parent = getpid(), child;

	(void)state;
	memset(mem, 5, PAGE);
	child = fork();
	if (!child) {
		struct iovec local = {copy, SIZE}, remote = {mem, SIZE};

		if (process_vm_readv(parent, &local, 1, &remote, 1, 0) != (ssize_t)SIZE ||
		    !all_are(copy, PAGE, 5) || !all_are(copy + PAGE, SIZE - PAGE, 0))
			_exit(1);
		memset(copy, 6, SIZE);
		_exit(process_vm_writev(parent, &local, 1, &remote, 1, 0) !=
		      (ssize_t)SIZE);
	}
	assert_child_ok(child);
	assert_true(all_are(mem, SIZE, 6));
	munmap(mem, SIZE);
	munmap(copy, SIZE);
}

/* The bell too, after which memory can still be registered. */
void everything_read(void **state)
{
	char *mem = fault_fresh();
	pid_t parent = getpid(), child = fork();

	(void)state;
	if (!child)
		_exit(read_all_memory(parent));
	assert_child_ok(child);
	memset(mem, 1, SIZE);
	assert_true(all_are(mem, SIZE, 1));
	munmap(mem, SIZE);
	mem = fault_fresh();
	mem[0] = 1;
	assert_int_equal(pages_there(mem, SIZE), BLOCK_BYTES / PAGE);
	munmap(mem, SIZE);
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

#define GROUPS "/sys/fs/cgroup"
#define GROUP  GROUPS "/ferry-first-touch"

/* Touches here and there what would not fit if a block were filled each time. */
static int touch_sparsely(void)
{
	struct first_touch_stats stats;
	const char *why;

	if (!write_file(GROUP "/cgroup.procs", "0"))
		return 1;
	if (first_touch_start(filling_threads, &why))
		return 2;
	for (int i = 0; i < 40; i++) {
		char *mem = fault_map();

		/* until it ends, for that */
		first_touch_add((uintptr_t)mem, SIZE);
		for (size_t at = 0; at < SIZE; at += BLOCK_BYTES)
			mem[at] = 1;
	}
	first_touch_stats(&stats);
	return stats.faults < 10 || !stats.ends ? 3 : 0;
}

/* 20 MiB are touched, of 32 that there may be; in blocks they would be 320. */
void little_memory_left(void **state)
{
	pid_t child;

	(void)state;
	rmdir(GROUP);
	write_file(GROUPS "/cgroup.subtree_control", "+memory");
	if (mkdir(GROUP, 0755) || !write_file(GROUP "/memory.max", "33554432")) {
		rmdir(GROUP);
		skip(); /* no cgroups of ours to make */
	}
	write_file(GROUP "/memory.swap.max", "0");
	child = fork();
	if (!child)
		_exit(touch_sparsely());
	assert_child_ok(child);
	for (int i = 0; i < 100 && rmdir(GROUP); i++)
		usleep(10000);
}

/* In the middle of what several threads touch. */
static int touch_until_it_ends(void)
{
	struct first_touch_stats stats;
	pthread_t thread[4];
	char *mem;

	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, touch_all_the_time, fault_fresh());
	for (int i = 0; i < 400; i++) {
		mem = fault_map();
		if (first_touch_add((uintptr_t)mem, SIZE) == -ESRCH)
			break;
		for (size_t at = 0; at < SIZE; at += 2 * BLOCK_BYTES)
			mem[at] = 1;
		usleep(100);
	}
	first_touch_stats(&stats);
	if (!stats.ends || strcmp(stats.ends, "memory is touched here and there") != 0)
		return 1;
	/* What was registered is the kernel's now, if not at once. */
	for (int i = 0; i < 1000; i++) {
		madvise(mem, SIZE, MADV_DONTNEED);
		mem[0] = 1;
		if (pages_there(mem, SIZE) == 1)
			break;
		usleep(1000);
	}
	memset(mem, 2, SIZE);
	return pages_there(mem, SIZE) != SIZE / PAGE || !all_are(mem, SIZE, 2);
}

void ends_when_it_does_not_pay(void **state)
{
	char *mem;
	pid_t child = fork_with_memory(&mem);

	(void)state;
	if (!child)
		_exit(touch_until_it_ends());
	assert_child_ok(child);
}
