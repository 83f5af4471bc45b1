/* SPDX-License-Identifier: MIT */
/*
 * Proves that whatever meets a page that is out of its place finds its data:
 * one case each. Where a page is, is read from the kernel's page tables. The
 * handler is the tests' own (trap_test.h). Skipped without userfaultfd,
 * UFFDIO_MOVE or the events of a fork.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/handler.h"
#include "fault/uffd.h"
#include "os/thread.h"
#include "fault_process.h"
#include "forgotten_move.h"
#include "hint_fault_test.h"
#include "trap_test.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

const char *self;

/* SIZE bytes of which one page in the middle is out. */
char *with_trap(void)
{
	char *mem = pages_map(SIZE, false);

	pattern_fill(mem, SIZE, SEED);
	assert_int_equal(traps_set(mem + 5 * PAGE, PAGE), 0);
	assert_false(page_is_there(mem + 5 * PAGE));
	return mem;
}

void assert_whole(const char *mem)
{
	assert_true(pattern_is_in(mem, SIZE, SEED));
	assert_true(page_is_there(mem + OUT));
}

/* A whole huge page that is out, or NULL where there are none. */
char *with_huge_trap(void)
{
	char *mem = pages_map(GRANULE_BYTES, true);

	pattern_fill(mem, GRANULE_BYTES, SEED);
	if (!page_is_huge(mem)) {
		munmap(mem, GRANULE_BYTES);
		return NULL;
	}
	assert_int_equal(traps_set(mem, GRANULE_BYTES), 0);
	assert_false(page_is_there(mem));
	return mem;
}

bool zeros(const char *mem, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (mem[i])
			return false;
	return true;
}

/* ---- accesses ------------------------------------------------------------ */

/* A page that is read comes back with its data, and the handler is told. */
static void a_read_brings_it_back(void **state)
{
	char *mem = with_trap();
	unsigned int before = traps_touched();

	(void)state;
	assert_whole(mem);
	assert_int_equal(traps_touched(), before + 1);
	munmap(mem, SIZE);
}

/* A write goes to the page itself, not to an empty one. */
static void a_write_brings_it_back(void **state)
{
	char *mem = with_trap();

	(void)state;
	*(volatile char *)(mem + OUT + 8) = 99;
	assert_int_equal(mem[OUT + 8], 99);
	mem[OUT + 8] = 0;
	pattern_fill(mem + OUT, 0, SEED);
	munmap(mem, SIZE);
}

/* A huge page is still one, and right, after it was out. */
static void a_huge_page_comes_back_whole(void **state)
{
	char *mem = with_huge_trap();

	(void)state;
	if (!mem)
		skip();
	assert_true(pattern_is_in(mem, GRANULE_BYTES, SEED));
	assert_true(page_is_huge(mem));
	munmap(mem, GRANULE_BYTES);
}

static void *read_page(void *page)
{
	volatile uint64_t *at = page;

	return (void *)(uintptr_t)*at;
}

/* All threads that wait for one page go on with its data. */
static void many_threads_at_once(void **state)
{
	char *mem = with_trap();
	uint64_t expected;
	pthread_t threads[8];

	(void)state;
	traps_delay(20000000);
	for (int i = 0; i < 8; i++)
		pthread_create(&threads[i], NULL, read_page, mem + OUT);
	for (int i = 0; i < 8; i++) {
		void *value;

		pthread_join(threads[i], &value);
		memcpy(&expected, mem + OUT, sizeof(expected));
		assert_int_equal((uintptr_t)value, expected);
	}
	assert_whole(mem);
	munmap(mem, SIZE);
}

/* ---- mappings ------------------------------------------------------------ */

/* What is discarded while it is out stays discarded; its granule is left alone. */
static void madvise_discards(void **state)
{
	const int advice[] = {MADV_DONTNEED, MADV_FREE};

	(void)state;
	for (int i = 0; i < 2; i++) {
		char *mem = with_trap();
		bool gone;

		assert_int_equal(madvise(mem, SIZE, advice[i]), 0);
		gone = zeros(mem + OUT, PAGE);
		assert_true(gone ||
			    (advice[i] == MADV_FREE && pattern_is_in(mem, SIZE, SEED)));
		mem[OUT] = 9;
		assert_int_equal(mem[OUT], 9);
		/* its granule is left alone from now on */
		assert_int_equal(traps_set(mem + PAGE, PAGE), -EBUSY);
		munmap(mem, SIZE);
	}
}

/* Of a huge page that is out a part is discarded; the rest is there. */
static void madvise_of_a_part_of_a_huge_page(void **state)
{
	char *mem = with_huge_trap();

	(void)state;
	if (!mem)
		skip();
	assert_int_equal(madvise(mem + OUT, SIZE, MADV_DONTNEED), 0);
	assert_true(zeros(mem + OUT, SIZE));
	memset(mem + OUT, 0, SIZE);
	for (size_t at = 0; at < GRANULE_BYTES; at += 8)
		if (at < OUT || at >= OUT + SIZE)
			assert_true(mem[at] || mem[at + 1] || mem[at + 2] || mem[at + 3]);
	munmap(mem, GRANULE_BYTES);
}

/* Other advice, MADV_COLLAPSE among it, loses nothing. */
static void madvise_otherwise(void **state)
{
	const int advice[] = {MADV_WILLNEED,      MADV_COLD,      MADV_PAGEOUT,
			      MADV_POPULATE_READ, MADV_COLLAPSE,  MADV_HUGEPAGE,
			      MADV_NOHUGEPAGE,    MADV_MERGEABLE, MADV_DONTFORK,
			      MADV_DODUMP,        MADV_WIPEONFORK};

	(void)state;
	for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++) {
		char *mem = with_trap();

		madvise(mem, SIZE, advice[i]);
		assert_whole(mem);
		munmap(mem, SIZE);
	}
}

/* A new mapping in the place of a page that is out is empty. */
static void munmap_and_map_again(void **state)
{
	char *mem = with_trap();
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	(void)state;
	assert_int_equal(munmap(mem + OUT, PAGE), 0);
	assert_ptr_equal(mmap(mem + OUT, PAGE, PROT_READ | PROT_WRITE, flags, -1, 0),
			 mem + OUT);
	assert_true(zeros(mem + OUT, PAGE));
	munmap(mem, SIZE);
	/* mapped over in one call */
	mem = with_trap();
	assert_ptr_equal(mmap(mem, SIZE, PROT_READ | PROT_WRITE, flags, -1, 0), mem);
	assert_true(zeros(mem, SIZE));
	munmap(mem, SIZE);
}

/* Of a huge page that is out a part is unmapped; the rest is there. */
static void munmap_of_a_part_of_a_huge_page(void **state)
{
	char *mem = with_huge_trap();

	(void)state;
	if (!mem)
		skip();
	assert_int_equal(munmap(mem + OUT, SIZE), 0);
	assert_true(pattern_is_in(mem, OUT, SEED));
	assert_int_equal(mem[OUT + SIZE + 1] != 0 || mem[OUT + SIZE + 2] != 0, 1);
	assert_true(!zeros(mem + GRANULE_BYTES - PAGE, PAGE));
	munmap(mem, GRANULE_BYTES);
}

/* As the preload library does it. */
static void mremap_under_a_hold(void **state)
{
	char *mem = with_trap(), *to = pages_map(2 * SIZE, false);

	(void)state;
	handler_hold(mem, SIZE);
	assert_ptr_equal(mremap(mem, SIZE, 2 * SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to),
			 to);
	handler_let_go();
	assert_whole(to);
	munmap(to, 2 * SIZE);
}

/* Of the very page, for the kernel takes no range of several mappings. */
static void mremap_behind_its_back(void **state)
{
	char *mem = with_trap(), *other = with_trap(), *to = pages_map(PAGE, false);
	const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;

	(void)state;
	assert_ptr_equal(mremap(mem + OUT, PAGE, PAGE, fixed, to), to);
	assert_memory_equal(to, other + OUT, PAGE);
	/* onto one that is out */
	assert_int_equal(traps_set(other + OUT, PAGE), 0);
	assert_ptr_equal(mremap(to, PAGE, PAGE, fixed, other + OUT), other + OUT);
	assert_whole(other);
	/* leaving the old place mapped */
	assert_int_equal(traps_set(other + OUT, PAGE), 0);
	to = mremap(other + OUT, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	assert_true(to != MAP_FAILED);
	assert_true(zeros(other + OUT, PAGE));
	memcpy(other + OUT, to, PAGE);
	assert_whole(other);
	munmap(mem, SIZE);
	munmap(other, SIZE);
	munmap(to, PAGE);
}

/* Of a huge page that is out a part is moved away; both have their data. */
static void mremap_of_a_part_of_a_huge_page(void **state)
{
	char *mem = with_huge_trap(), *to, *copy;

	(void)state;
	if (!mem)
		skip();
	to = pages_map(SIZE, false);
	copy = pages_map(GRANULE_BYTES, false);
	pattern_fill(copy, GRANULE_BYTES, SEED);
	assert_ptr_equal(mremap(mem + OUT, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to),
			 to);
	assert_memory_equal(to, copy + OUT, SIZE);
	assert_memory_equal(mem, copy, OUT);
	assert_memory_equal(mem + OUT + SIZE, copy + OUT + SIZE,
			    GRANULE_BYTES - OUT - SIZE);
	munmap(to, SIZE);
	munmap(copy, GRANULE_BYTES);
	munmap(mem, GRANULE_BYTES);
}

/* A page that was moved, out or back, while the kernel says that it was not, is there. */
static void a_move_the_kernel_forgets(void **state)
{
	char *mem = pages_map(SIZE, false);

	(void)state;
	pattern_fill(mem, SIZE, SEED);
	forget_move(1);
	assert_int_equal(traps_set(mem + OUT, PAGE), -EEXIST);
	assert_whole(mem);
	munmap(mem, SIZE);
	mem = with_trap();
	forget_move(1);
	assert_whole(mem);
	munmap(mem, SIZE);
}

/* A page whose home is made read-only, inaccessible or locked comes back. */
static void mprotect_and_mlock(void **state)
{
	char *mem = with_trap();

	(void)state;
	assert_int_equal(mprotect(mem, SIZE, PROT_READ), 0);
	assert_whole(mem);
	munmap(mem, SIZE);
	mem = with_trap();
	assert_int_equal(mprotect(mem, SIZE, PROT_NONE), 0);
	handler_hold(mem, SIZE); /* it is called back meanwhile */
	handler_let_go();
	assert_int_equal(mprotect(mem, SIZE, PROT_READ | PROT_WRITE), 0);
	assert_whole(mem);
	munmap(mem, SIZE);
	mem = with_trap();
	/* past the sanitizers, which lock nothing */
	assert_int_equal(syscall(SYS_mlock, mem, SIZE), 0);
	assert_whole(mem);
	assert_int_equal(traps_set(mem + OUT, PAGE), -EINVAL);
	munmap(mem, SIZE);
	/* a huge page of which a part is protected */
	mem = with_huge_trap();
	if (mem) {
		assert_int_equal(mprotect(mem + OUT, SIZE, PROT_READ), 0);
		assert_true(pattern_is_in(mem, GRANULE_BYTES, SEED));
		munmap(mem, GRANULE_BYTES);
	}
}

/* A hold has what it covers put back, and keeps it so. */
static void a_hold_calls_back(void **state)
{
	char *mem = with_trap();

	(void)state;
	/* of something else */
	handler_hold(mem, PAGE);
	assert_false(page_is_there(mem + OUT));
	/* of it, nested */
	handler_hold(mem, SIZE);
	assert_true(page_is_there(mem + OUT));
	assert_int_equal(traps_set(mem + OUT, PAGE), -EBUSY);
	handler_let_go();
	assert_int_equal(traps_set(mem + OUT, PAGE), -EBUSY);
	handler_let_go();
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_whole(mem);
	munmap(mem, SIZE);
}

/* Holes, files, what is out already and unmapped memory are refused. */
static void what_cannot_be_trapped(void **state)
{
	char *mem = pages_map(SIZE, false);
	char *file = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, open(self, O_RDONLY), 0);

	(void)state;
	assert_int_equal(traps_set(mem, PAGE), -ENOENT); /* nothing there yet */
	mem[OUT] = 5;
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_int_equal(traps_set(mem + OUT, PAGE), -EBUSY); /* out already */
	assert_int_equal(mem[OUT], 5);
	mem[OUT] = 0;
	assert_true(zeros(mem, SIZE));
	assert_int_equal(traps_set(file, PAGE), -EINVAL);
	munmap(mem, SIZE);
	assert_true(traps_set(mem, PAGE) < 0);
	munmap(file, PAGE);
}

/* ---- others with a userfaultfd ------------------------------------------- */

/* Who touched a page may go on before the handler has let go of its home. */
static int register_when_free(int fd, char *mem)
{
	int err = -EBUSY;

	for (int i = 0; i < 1000 && err == -EBUSY; i++) {
		err = uffd_register(fd, (uintptr_t)mem, SIZE);
		if (err)
			sleep_ns(1000000);
	}
	return err;
}

/* Whoever comes second with a userfaultfd gets EBUSY. */
static void userfaultfd_of_others(void **state)
{
	int fd = uffd_open(0);
	char *mem = with_trap();

	(void)state;
	/* theirs comes second: as with any two */
	assert_int_equal(uffd_register(fd, (uintptr_t)mem, SIZE), -EBUSY);
	assert_whole(mem);
	/* theirs comes first */
	assert_int_equal(register_when_free(fd, mem), 0);
	assert_int_equal(traps_set(mem + OUT, PAGE), -EBUSY);
	assert_whole(mem);
	assert_int_equal(uffd_unregister(fd, (uintptr_t)mem, SIZE), 0);
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_whole(mem);
	close(fd);
	munmap(mem, SIZE);
}

/* The same of one Ferry for the other. */
static int trap_when_free(int (*trap)(const void *, size_t), const char *page)
{
	int err = -EBUSY;

	for (int i = 0; i < 1000 && err == -EBUSY; i++) {
		err = trap(page, PAGE);
		if (err)
			sleep_ns(1000000);
	}
	return err;
}

/* Two Ferries in one process do not take the same page, also after dlclose(3). */
static void a_second_ferry(void **state)
{
	void *library = dlopen(SECOND_TRAPS, RTLD_NOW | RTLD_LOCAL);
	int (*start)(void) =
		library ? (int (*)(void))dlsym(library, "traps_start") : NULL;
	int (*trap)(const void *, size_t) =
		library ? (int (*)(const void *, size_t))dlsym(library, "traps_set")
			: NULL;
	char *mem = with_trap();

	(void)state;
	assert_non_null(start);
	assert_non_null(trap);
	assert_true(start != traps_start);
	assert_int_equal(start(), 0);
	/* a page is out once, another of it by the other */
	assert_int_equal(trap(mem + OUT, PAGE), -EBUSY);
	assert_int_equal(trap(mem + OUT + PAGE, PAGE), 0);
	assert_false(page_is_there(mem + OUT + PAGE));
	assert_whole(mem);
	assert_int_equal(trap_when_free(trap, mem + OUT), 0);
	assert_int_equal(traps_set(mem + OUT, PAGE), -EBUSY);
	assert_whole(mem);
	munmap(mem, SIZE);
	/* Its thread runs in it. */
	assert_int_equal(dlclose(library), 0);
	mem = with_trap();
	assert_whole(mem);
	munmap(mem, SIZE);
}

/* ---- signals and threads ------------------------------------------------- */

static char *in_handler;
static atomic_int handled;

static void on_signal(int number)
{
	(void)number;
	/* which is out too */
	atomic_fetch_add(&handled, *(volatile uint64_t *)in_handler != 0);
}

/* A thread that waits for a page handles signals meanwhile, that fault too. */
static void signals_during_a_fault(void **state)
{
	struct sigaction action = {.sa_handler = on_signal}, before;
	char *mem = with_trap();
	uint64_t expected = *(uint64_t *)(mem + OUT - PAGE);
	pthread_t thread;
	void *value;

	(void)state;
	in_handler = with_trap() + OUT;
	sigaction(SIGUSR1, &action, &before);
	traps_delay(50000000);
	pthread_create(&thread, NULL, read_page, mem + OUT);
	for (int i = 0; i < 20; i++) {
		usleep(1000);
		pthread_kill(thread, SIGUSR1);
	}
	pthread_join(thread, &value);
	assert_true(value != NULL && (uintptr_t)value != expected);
	assert_true(handled > 0);
	assert_whole(mem);
	assert_whole(in_handler - OUT);
	sigaction(SIGUSR1, &before, NULL);
	munmap(mem, SIZE);
	munmap(in_handler - OUT, SIZE);
}

static void *read_cancelled(void *page)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (;;)
		(void)*(volatile char *)page;
	return NULL;
}

/* A thread is cancelled while it waits for a page. */
static void a_cancelled_thread(void **state)
{
	char *mem = with_trap();
	pthread_t thread;
	void *value;

	(void)state;
	traps_delay(50000000);
	pthread_create(&thread, NULL, read_cancelled, mem + OUT);
	usleep(10000);
	pthread_cancel(thread);
	pthread_join(thread, &value);
	assert_ptr_equal(value, PTHREAD_CANCELED);
	assert_whole(mem);
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_whole(mem);
	munmap(mem, SIZE);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_brings_it_back),
		cmocka_unit_test(a_write_brings_it_back),
		cmocka_unit_test(a_huge_page_comes_back_whole),
		cmocka_unit_test(many_threads_at_once),
		cmocka_unit_test(system_calls),
		cmocka_unit_test(direct_io),
		cmocka_unit_test(io_uring),
		cmocka_unit_test(process_vm_readv_by_another),
		cmocka_unit_test(a_debugger_reads_everything),
		cmocka_unit_test(a_core_dump_ends),
		cmocka_unit_test(fork_puts_back),
		cmocka_unit_test(a_child_starts_its_own),
		cmocka_unit_test(raw_clone),
		cmocka_unit_test(vfork_and_spawn),
		cmocka_unit_test(exec_from_it),
		cmocka_unit_test(process_exit),
		cmocka_unit_test(descriptors_closed),
		cmocka_unit_test(stop_and_start),
		cmocka_unit_test(madvise_discards),
		cmocka_unit_test(madvise_of_a_part_of_a_huge_page),
		cmocka_unit_test(madvise_otherwise),
		cmocka_unit_test(munmap_and_map_again),
		cmocka_unit_test(munmap_of_a_part_of_a_huge_page),
		cmocka_unit_test(mremap_under_a_hold),
		cmocka_unit_test(mremap_behind_its_back),
		cmocka_unit_test(mremap_of_a_part_of_a_huge_page),
		cmocka_unit_test(a_move_the_kernel_forgets),
		cmocka_unit_test(mprotect_and_mlock),
		cmocka_unit_test(a_hold_calls_back),
		cmocka_unit_test(what_cannot_be_trapped),
		cmocka_unit_test(userfaultfd_of_others),
		cmocka_unit_test(a_second_ferry),
		cmocka_unit_test(signals_during_a_fault),
		cmocka_unit_test(a_cancelled_thread),
	};
	int err;

	self = argv[0];
	err = traps_start();
	if (err) {
		fprintf(stderr, "skipped: %s\n", uffd_why(err));
		return 77;
	}
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
