/* SPDX-License-Identifier: MIT */
/* Cases of test_hint_faults: processes begin and end, and look into each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/handler.h"
#include "fault/uffd.h"
#include "fault_process.h"
#include "hint_fault_test.h"
#include "trap_test.h"

/* ---- other processes ----------------------------------------------------- */

/* Another process that reads the memory finds the data. */
void process_vm_readv_by_another(void **state)
{
	char *mem = with_trap(), *copy = pages_map(SIZE, false);
	pid_t parent = getpid(), child;

	(void)state;
	/* Not fork(2), which would put it back. */
	child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!child) {
		struct iovec to = {copy, SIZE}, from = {mem, SIZE};

		_exit(process_vm_readv(parent, &to, 1, &from, 1, 0) != (ssize_t)SIZE ||
		      !pattern_is_in(copy, SIZE, SEED));
	}
	assert_child_ok(child);
	assert_whole(mem);
	munmap(mem, SIZE);
	munmap(copy, SIZE);
}

/* Who reads all of the memory, the shadow too, does not wait for ever. */
void a_debugger_reads_everything(void **state)
{
	char *mem = with_trap(), *huge = with_huge_trap();
	pid_t parent = getpid(), child;

	(void)state;
	child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!child)
		_exit(read_all_memory(parent));
	assert_child_ok(child);
	assert_whole(mem);
	if (huge) {
		assert_true(pattern_is_in(huge, GRANULE_BYTES, SEED));
		munmap(huge, GRANULE_BYTES);
	}
	munmap(mem, SIZE);
	/* and the shadow, which it has read too, serves again */
	huge = with_huge_trap();
	if (huge) {
		assert_true(pattern_is_in(huge, GRANULE_BYTES, SEED));
		assert_true(page_is_huge(huge));
		munmap(huge, GRANULE_BYTES);
	}
	mem = with_trap();
	assert_whole(mem);
	munmap(mem, SIZE);
}

/* A child with a handler of its own and a page that is out. */
static pid_t fork_with_trap(char **mem)
{
	pid_t child = fork();

	if (!child) {
		alarm(60);
		if (traps_start())
			_exit(90);
		*mem = with_trap();
	}
	return child;
}

/* A process with a page that is out can dump core. */
void a_core_dump_ends(void **state)
{
	const char *folder = core_folder();
	char *mem;
	pid_t child = fork_with_trap(&mem);

	(void)state;
	if (!child)
		dump_core(folder);
	assert_core_dumped(child, folder);
}

/* ---- processes begin and end --------------------------------------------- */

/* fork(2) finds all pages in their places, and the child has no handler. */
void fork_puts_back(void **state)
{
	char *mem = with_trap(), *huge = with_huge_trap();
	unsigned int before = traps_untouched();
	pid_t child = fork();

	(void)state;
	if (!child) {
		bool right = page_is_there(mem + OUT) && pattern_is_in(mem, SIZE, SEED) &&
			     (!huge || pattern_is_in(huge, GRANULE_BYTES, SEED));

		memset(mem, 0, SIZE);
		_exit(!right || handler_is_running());
	}
	assert_true(traps_untouched() > before);
	assert_true(page_is_there(mem + OUT));
	assert_child_ok(child);
	assert_whole(mem);
	munmap(mem, SIZE);
	if (huge)
		munmap(huge, GRANULE_BYTES);
}

/* A forked child, and its child, have handlers of their own. */
void a_child_starts_its_own(void **state)
{
	char *mem, *other = pages_map(SIZE, false);
	pid_t child;

	(void)state;
	pattern_fill(other, SIZE, SEED);
	child = fork_with_trap(&mem);
	if (!child) {
		assert_whole(mem);
		assert_int_equal(traps_set(mem + OUT, PAGE), 0);
		/* and its child's too */
		child = fork_with_trap(&other);
		if (!child) {
			assert_whole(mem);
			assert_whole(other);
			_exit(0);
		}
		assert_child_ok(child);
		assert_whole(mem);
		_exit(0);
	}
	assert_child_ok(child);
	munmap(other, SIZE);
}

/* A child made past the fork handlers finds the data, and can use the library. */
void raw_clone(void **state)
{
	char *mem = with_trap(), *huge = with_huge_trap();
	pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	(void)state;
	if (!child) {
		/* as the library's munmap(2), which must not look for a thread here */
		handler_hold(mem, SIZE);
		handler_let_go();
		_exit(!pattern_is_in(mem, SIZE, SEED) ||
		      (huge && !pattern_is_in(huge, GRANULE_BYTES, SEED)));
	}
	assert_child_ok(child);
	/* It was out all the time. */
	assert_false(page_is_there(mem + OUT));
	assert_whole(mem);
	if (huge) {
		assert_true(pattern_is_in(huge, GRANULE_BYTES, SEED));
		munmap(huge, GRANULE_BYTES);
	}
	munmap(mem, SIZE);
}

/* A child in the same memory is served; posix_spawn(3) reads its arguments. */
void vfork_and_spawn(void **state)
{
	char *mem = with_trap();
	char *const argv[] = {(char *)"true", NULL};
	volatile bool right = false;
	pid_t child = vfork();

	(void)state;
	if (!child) {
		right = *(volatile uint64_t *)(mem + OUT) != 0;
		_exit(!right);
	}
	assert_child_ok(child);
	assert_whole(mem);
	/* the name of the program and its arguments are in it */
	strcpy(mem + OUT, "/bin/true");
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_int_equal(posix_spawn(&child, mem + OUT, NULL, NULL, argv, NULL), 0);
	assert_child_ok(child);
	munmap(mem, SIZE);
}

/* execve(2) reads its arguments from a page that is out. */
void exec_from_it(void **state)
{
	char *mem;
	pid_t child = fork_with_trap(&mem);

	(void)state;
	if (!child) {
		char **argv = (char **)(mem + OUT);

		argv[0] = strcpy(mem + OUT + 512, "/bin/sh");
		argv[1] = strcpy(mem + OUT + 600, "-c");
		argv[2] = strcpy(mem + OUT + 700, "exit 0");
		argv[3] = NULL;
		if (traps_set(mem + OUT, PAGE))
			_exit(1);
		execv(mem + OUT + 512, argv);
		_exit(2);
	}
	assert_child_ok(child);
}

static void *write_all_the_time(void *mem)
{
	for (;;)
		memset((char *)mem + OUT, 1, PAGE);
	return NULL;
}

static char *always_out;

static uintptr_t pick_it(uint64_t random)
{
	(void)random;
	return (uintptr_t)always_out + OUT;
}

/* A process that ends in any way ends, though threads fault all the time. */
void process_exit(void **state)
{
	(void)state;
	for (int way = 0; way < 4; way++) {
		char *mem;
		pid_t child = fork_with_trap(&mem);
		pthread_t thread;
		int status;

		if (!child) {
			pthread_create(&thread, NULL, write_all_the_time, mem);
			always_out = mem;
			traps_shower(pick_it);
			usleep(20000);
			if (way == 0)
				_exit(0);
			if (way == 1)
				quick_exit(0);
			if (way == 2)
				kill(getpid(), SIGKILL);
			syscall(SYS_exit, 0); /* this thread alone */
		}
		if (way == 3) {
			usleep(100000);
			kill(child, SIGTERM);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, way < 2 ? 0 : way == 2 ? SIGKILL : SIGTERM);
	}
}

/* A program that closes all descriptors loses no page. */
void descriptors_closed(void **state)
{
	char *mem;
	pid_t child = fork_with_trap(&mem);

	(void)state;
	if (!child) {
		bool right;

		syscall(SYS_close_range, 3, ~0U, 0);
		right = *(volatile uint64_t *)(mem + OUT) != 0 &&
			pattern_is_in(mem, SIZE, SEED);
		_exit(!right || traps_set(mem + OUT, PAGE) || fork() == -1);
	}
	assert_child_ok(child);
}

/* When the handler is stopped everything is back; it can be started again. */
void stop_and_start(void **state)
{
	char *mem = with_trap();

	(void)state;
	handler_stop();
	assert_false(handler_is_running());
	assert_whole(mem);
	assert_int_equal(traps_start(), 0);
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_whole(mem);
	munmap(mem, SIZE);
}
