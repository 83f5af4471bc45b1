/* SPDX-License-Identifier: MIT */
/*
 * Proves that a fault fills what it should, with zeros and on the nodes of the
 * memory policy, and that whatever a program does to memory that is filled so, its
 * data is right: one case each. What is there, and where, the kernel tells.
 * Skipped without a userfaultfd that takes faults inside the kernel.
 *
 * Usage: test_first_touch THREADS    (that fill)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "fault/first_touch.h"
#include "fault/uffd.h"
#include "fault_memory.h"
#include "first_touch_test.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

unsigned int filling_threads;
const char *self;

/* ---- what is filled ------------------------------------------------------ */

/* A stranger's page fills its block; what follows in order, ever more. */
static void in_order(void **state)
{
	char *mem = fault_fresh();
	struct first_touch_stats before, after;
	size_t there = 0;

	(void)state;
	assert_int_equal(pages_there(mem, SIZE), 0);
	mem[3 * PAGE + 9] = 1;
	assert_int_equal(pages_there(mem, SIZE), 13); /* to the end of the block */
	assert_int_equal(pages_there(mem + 3 * PAGE, 13 * PAGE), 13);
	first_touch_stats(&before);
	for (size_t at = BLOCK_BYTES; at < SIZE; at += PAGE) {
		mem[at] = 2;
		there = pages_there(mem, at + PAGE);
		assert_int_equal(there, at / PAGE + 1 - 3);
	}
	first_touch_stats(&after);
	/* a few while it grows, and one for each granule */
	assert_true(after.faults - before.faults <= 10);
	assert_true(after.filled_bytes - before.filled_bytes == SIZE - BLOCK_BYTES);
	assert_int_equal(mem[3 * PAGE + 9], 1);
	mem[3 * PAGE + 9] = 0;
	for (size_t at = BLOCK_BYTES; at < SIZE; at += PAGE)
		mem[at] = 0;
	assert_true(all_are(mem, SIZE, 0));
	munmap(mem, SIZE);
}

static void here_and_there(void **state)
{
	char *mem = fault_fresh();

	(void)state;
	for (size_t i = 1; i < 16; i += 2)
		mem[i * 5 * BLOCK_BYTES] = 1;
	assert_int_equal(pages_there(mem, SIZE), 8 * BLOCK_BYTES / PAGE);
	munmap(mem, SIZE);
}

static void what_is_there_stays(void **state)
{
	char *mem = fault_map();

	(void)state;
	for (size_t page = 0; page < 512; page += 3)
		memset(mem + page * PAGE, (int)page % 100 + 1, PAGE);
	assert_int_equal(first_touch_add((uintptr_t)mem, SIZE), 0);
	for (size_t page = 0; page < 512; page++)
		mem[page * PAGE + 7] += 1;
	for (size_t page = 0; page < 512; page++) {
		char expected = page % 3 ? 0 : (char)(page % 100 + 1);

		assert_int_equal(mem[page * PAGE + 7], expected + 1);
		assert_int_equal(mem[page * PAGE + 8], expected);
	}
	munmap(mem, SIZE);
}

static void reading_takes_no_memory(void **state)
{
	char *mem = fault_fresh();
	size_t before = anonymous_kib();

	(void)state;
	assert_true(all_are(mem, SIZE, 0));
	assert_true(anonymous_kib() < before + 1024);
	for (size_t at = 0; at < SIZE; at += PAGE)
		mem[at] = 3;
	/* of which each CPU may not have told some yet */
	assert_true(anonymous_kib() >= before + (SIZE >> 10) - 2048);
	for (size_t at = 0; at < SIZE; at += PAGE)
		assert_int_equal(mem[at], 3);
	munmap(mem, SIZE);
}

static void left_to_the_kernel(void **state)
{
	char *mem = fault_fresh();

	(void)state;
	mem[0] = 1;
	assert_int_equal(first_touch_remove((uintptr_t)mem, GRANULE_BYTES), 0);
	mem[BLOCK_BYTES] = 1;
	assert_int_equal(pages_there(mem, SIZE), BLOCK_BYTES / PAGE + 1);
	mem[GRANULE_BYTES] = 1;
	assert_int_equal(pages_there(mem, SIZE), 2 * BLOCK_BYTES / PAGE + 1);
	assert_int_equal(mem[0], 1);
	munmap(mem, SIZE);
}

/* Mappings that end within what a fault would fill. */
static void a_mapping_in_pieces(void **state)
{
	char *mem = fault_fresh();

	(void)state;
	assert_int_equal(mprotect(mem + 5 * PAGE, PAGE, PROT_READ), 0);
	assert_int_equal(munmap(mem + 9 * PAGE, PAGE), 0);
	for (size_t page = 0; page < 16; page++)
		if (page != 5 && page != 9)
			mem[page * PAGE] = (char)page;
	assert_true(all_are(mem + 5 * PAGE, PAGE, 0));
	for (size_t page = 0; page < 16; page++)
		if (page != 5 && page != 9)
			assert_int_equal(mem[page * PAGE], page);
	munmap(mem, SIZE);
}

static void by_the_policy(void **state)
{
	char *mem = fault_fresh();
	unsigned long node = 2; /* HBM in the guest's topology */
	void *pages[GRANULE_BYTES / PAGE];
	int where[GRANULE_BYTES / PAGE];

	(void)state;
	if (syscall(SYS_mbind, mem, SIZE, MPOL_BIND, &node, 64, 0)) {
		munmap(mem, SIZE);
		skip();
	}
	for (size_t i = 0; i < GRANULE_BYTES / PAGE; i++) {
		pages[i] = mem + i * PAGE;
		mem[i * PAGE] = 1;
	}
	assert_int_equal(
		syscall(SYS_move_pages, 0, GRANULE_BYTES / PAGE, pages, NULL, where, 0),
		0);
	for (size_t i = 0; i < GRANULE_BYTES / PAGE; i++)
		assert_int_equal(where[i], 1);
	munmap(mem, SIZE);
}

/* Of two threads on nodes of their own, each finds its memory there. */
static void *touch_on_a_node(void *arg)
{
	int node = *(int *)arg, where = -1;
	char path[64], *mem = fault_fresh();
	unsigned int cpu;
	cpu_set_t cpus;
	FILE *list;
	void *page = mem;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
	list = fopen(path, "re");
	if (!list || fscanf(list, "%u", &cpu) != 1)
		return NULL;
	fclose(list);
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	mem[0] = 1;
	syscall(SYS_move_pages, 0, 1, &page, NULL, &where, 0);
	*(int *)arg = where;
	munmap(mem, SIZE);
	return arg;
}

static void near_who_touches(void **state)
{
	(void)state;
	if (access("/sys/devices/system/node/node2/cpulist", F_OK))
		skip(); /* one node has CPUs, or two: no telling */
	for (int round = 0; round < 4; round++)
		for (int node = 0; node < 3; node++) {
			pthread_t thread;
			int where = node;

			pthread_create(&thread, NULL, touch_on_a_node, &where);
			pthread_join(thread, NULL);
			assert_int_equal(where, node);
		}
}

/* ---- mappings ------------------------------------------------------------ */

static void madvise_discards(void **state)
{
	static const int advice[] = {MADV_DONTNEED, MADV_FREE};

	(void)state;
	for (int i = 0; i < 2; i++) {
		char *mem = fault_fresh();

		memset(mem, 6, SIZE);
		assert_int_equal(madvise(mem, SIZE, advice[i]), 0);
		if (advice[i] == MADV_DONTNEED) {
			assert_int_equal(pages_there(mem, SIZE), 0);
			assert_true(all_are(mem, SIZE, 0));
		} else {
			assert_true(all_are(mem, PAGE, 0) || all_are(mem, PAGE, 6));
		}
		memset(mem, 7, SIZE);
		assert_true(all_are(mem, SIZE, 7));
		munmap(mem, SIZE);
	}
}

static void madvise_otherwise(void **state)
{
	static const int advice[] = {
		MADV_WILLNEED,       MADV_COLD,     MADV_PAGEOUT,  MADV_POPULATE_READ,
		MADV_POPULATE_WRITE, MADV_COLLAPSE, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
		MADV_MERGEABLE,      MADV_DONTFORK, MADV_DODUMP,   MADV_WIPEONFORK};

	(void)state;
	for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++) {
		char *mem = fault_fresh();
		int result;

		memset(mem + PAGE, 8, PAGE);
		result = madvise(mem, SIZE, advice[i]);
		if (advice[i] == MADV_POPULATE_WRITE || advice[i] == MADV_POPULATE_READ) {
			assert_int_equal(result, 0);
			assert_int_equal(pages_there(mem, SIZE), SIZE / PAGE);
		}
		assert_true(all_are(mem + PAGE, PAGE, 8));
		assert_true(all_are(mem + 2 * PAGE, SIZE - 2 * PAGE, 0));
		munmap(mem, SIZE);
	}
}

static void unmapped_and_mapped_again(void **state)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	char *mem = fault_fresh();

	(void)state;
	memset(mem, 9, SIZE);
	assert_int_equal(munmap(mem, GRANULE_BYTES), 0);
	assert_ptr_equal(mmap(mem, GRANULE_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0),
			 mem);
	assert_true(all_are(mem, GRANULE_BYTES, 0));
	/* over it in one call */
	assert_ptr_equal(mmap(mem, SIZE, PROT_READ | PROT_WRITE, flags, -1, 0), mem);
	assert_true(all_are(mem, SIZE, 0));
	munmap(mem, SIZE);
}

static void moved(void **state)
{
	char *mem = fault_fresh(), *to = fault_map(), *left;

	(void)state;
	memset(mem, 1, GRANULE_BYTES);
	assert_ptr_equal(mremap(mem, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
	assert_true(all_are(to, GRANULE_BYTES, 1));
	assert_true(all_are(to + GRANULE_BYTES, SIZE - GRANULE_BYTES, 0));
	munmap(to, SIZE);
	/* grown, and with the old place left mapped */
	mem = fault_fresh();
	memset(mem, 2, PAGE);
	left = mremap(mem, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	assert_true(left != MAP_FAILED);
	assert_true(all_are(left, PAGE, 2));
	assert_true(all_are(mem, PAGE, 0));
	mem[0] = 3;
	assert_int_equal(left[0], 2);
	munmap(mem, SIZE);
	left = mremap(left, SIZE, 2 * SIZE, MREMAP_MAYMOVE);
	assert_true(left != MAP_FAILED);
	assert_true(all_are(left, PAGE, 2));
	assert_true(all_are(left + PAGE, 2 * SIZE - PAGE, 0));
	munmap(left, 2 * SIZE);
}

static void protected_and_locked(void **state)
{
	char *mem = fault_fresh();

	(void)state;
	assert_int_equal(mprotect(mem, SIZE, PROT_READ), 0);
	assert_true(all_are(mem, GRANULE_BYTES, 0));
	assert_int_equal(mprotect(mem, SIZE, PROT_NONE), 0);
	assert_int_equal(mprotect(mem, SIZE, PROT_READ | PROT_WRITE), 0);
	memset(mem, 1, SIZE);
	munmap(mem, SIZE);
	mem = fault_fresh();
	/* past the sanitizers, which lock nothing */
	assert_int_equal(syscall(SYS_mlock, mem, SIZE), 0);
	assert_int_equal(pages_there(mem, SIZE), SIZE / PAGE);
	assert_true(all_are(mem, SIZE, 0));
	munmap(mem, SIZE);
	mem = fault_fresh();
	assert_int_equal(syscall(SYS_mlock2, mem, SIZE, MLOCK_ONFAULT), 0);
	memset(mem, 2, SIZE);
	assert_true(all_are(mem, SIZE, 2));
	munmap(mem, SIZE);
}

/* ---- others with a userfaultfd ------------------------------------------- */

static void userfaultfd_of_others(void **state)
{
	int fd = uffd_open(0);
	char *mem = fault_fresh(), *theirs = fault_map();
	size_t done;

	(void)state;
	/* theirs comes second: as with any two */
	assert_int_equal(uffd_register(fd, (uintptr_t)mem, SIZE), -EBUSY);
	mem[0] = 1;
	assert_int_equal(pages_there(mem, SIZE), BLOCK_BYTES / PAGE);
	/* theirs comes first: not a page of it is touched */
	assert_int_equal(uffd_register(fd, (uintptr_t)theirs, SIZE), 0);
	assert_int_equal(first_touch_add((uintptr_t)theirs, SIZE), -EBUSY);
	assert_int_equal(uffd_zero(fd, (uintptr_t)theirs, PAGE, 0, &done), 0);
	assert_int_equal(pages_there(theirs, SIZE), 1);
	close(fd);
	munmap(mem, SIZE);
	munmap(theirs, SIZE);
}

static void a_second_ferry(void **state)
{
	void *library = dlopen(SECOND_FERRY, RTLD_NOW | RTLD_LOCAL);
	int (*start)(const char **) =
		library ? (int (*)(const char **))dlsym(library, "second_start") : NULL;
	int (*add)(uintptr_t, size_t) =
		library ? (int (*)(uintptr_t, size_t))dlsym(library, "second_add") : NULL;
	char *mem = fault_fresh(), *other = fault_map();
	const char *why;

	(void)state;
	assert_non_null(start);
	assert_non_null(add);
	assert_int_equal(start(&why), 0);
	assert_int_equal(add((uintptr_t)mem, SIZE), -EBUSY);
	assert_int_equal(add((uintptr_t)other, SIZE), 0);
	assert_int_equal(first_touch_add((uintptr_t)other, SIZE), -EBUSY);
	mem[0] = other[0] = 1;
	assert_int_equal(pages_there(mem, SIZE), BLOCK_BYTES / PAGE);
	assert_int_equal(pages_there(other, SIZE), BLOCK_BYTES / PAGE);
	/* Its thread runs in it. */
	assert_int_equal(dlclose(library), 0);
	memset(other, 2, SIZE);
	assert_true(all_are(other, SIZE, 2));
	munmap(mem, SIZE);
	munmap(other, SIZE);
}

static void what_cannot_be_added(void **state)
{
	char *mem = fault_map();
	char *file = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, open(self, O_RDONLY), 0);

	(void)state;
	munmap(mem, SIZE);
	assert_true(first_touch_add((uintptr_t)mem, SIZE) < 0);
	assert_true(first_touch_add((uintptr_t)file, PAGE) < 0);
	munmap(file, PAGE);
}

/* ---- threads and signals ------------------------------------------------- */

static char *shared;

static void *count_up(void *unused)
{
	for (size_t at = 0; at < SIZE; at += PAGE)
		atomic_fetch_add((atomic_int *)(shared + at), 1);
	return unused;
}

static void many_threads(void **state)
{
	pthread_t thread[6];

	(void)state;
	for (int round = 0; round < 10; round++) {
		shared = fault_fresh();
		for (int i = 0; i < 6; i++)
			pthread_create(&thread[i], NULL, count_up, NULL);
		for (int i = 0; i < 6; i++)
			pthread_join(thread[i], NULL);
		for (size_t at = 0; at < SIZE; at += PAGE)
			assert_int_equal(*(int *)(shared + at), 6);
		munmap(shared, SIZE);
	}
}

/* One discards what the others count in: they find what they have counted, or zero. */
static void *count_own(void *arg)
{
	atomic_int *count = arg;

	for (int i = 0; i < 2000; i++) {
		int before = atomic_load(count), after = atomic_fetch_add(count, 1);

		if (after != before && after != 0)
			return arg;
	}
	return NULL;
}

static void discarded_meanwhile(void **state)
{
	pthread_t thread[3];
	void *wrong;

	(void)state;
	shared = fault_fresh();
	for (size_t i = 0; i < 3; i++)
		pthread_create(&thread[i], NULL, count_own, shared + i * 5 * PAGE);
	for (int i = 0; i < 2000; i++)
		madvise(shared, 4 * BLOCK_BYTES, MADV_DONTNEED);
	for (int i = 0; i < 3; i++) {
		pthread_join(thread[i], &wrong);
		assert_null(wrong);
	}
	munmap(shared, SIZE);
}

static _Atomic(char *) in_handler;
static atomic_int handled;

static void on_signal(int number)
{
	size_t at = (size_t)atomic_fetch_add(&handled, 1) * 3 * PAGE % SIZE;

	(void)number;
	atomic_load(&in_handler)[at] = 1;
}

static void *touch_all(void *mem)
{
	for (size_t at = 0; at < SIZE; at += PAGE)
		((volatile char *)mem)[at] = 2;
	return NULL;
}

static void signals_during_faults(void **state)
{
	struct sigaction action = {.sa_handler = on_signal}, before;
	char *mem = fault_fresh();
	pthread_t thread;

	(void)state;
	atomic_store(&in_handler, fault_fresh());
	sigaction(SIGUSR1, &action, &before);
	pthread_create(&thread, NULL, touch_all, mem);
	for (int i = 0; i < 300; i++) {
		pthread_kill(thread, SIGUSR1);
		usleep(50);
		if (pthread_tryjoin_np(thread, NULL) == 0) {
			madvise(mem, SIZE, MADV_DONTNEED);
			pthread_create(&thread, NULL, touch_all, mem);
		}
	}
	pthread_join(thread, NULL);
	assert_true(handled > 0);
	for (size_t at = 0; at < SIZE; at += PAGE)
		assert_int_equal(mem[at], 2);
	assert_int_equal(in_handler[0], 1);
	sigaction(SIGUSR1, &before, NULL);
	munmap(mem, SIZE);
	munmap(in_handler, SIZE);
}

static void *touch_until_cancelled(void *mem)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (;;) {
		madvise(mem, SIZE, MADV_DONTNEED);
		touch_all(mem);
	}
	return NULL;
}

static void cancelled_threads(void **state)
{
	char *mem = fault_fresh();

	(void)state;
	for (int i = 0; i < 30; i++) {
		pthread_t thread;
		void *value;

		pthread_create(&thread, NULL, touch_until_cancelled, mem);
		usleep(500);
		pthread_cancel(thread);
		pthread_join(thread, &value);
		assert_ptr_equal(value, PTHREAD_CANCELED);
	}
	memset(mem, 1, SIZE);
	assert_true(all_are(mem, SIZE, 1));
	munmap(mem, SIZE);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order),
		cmocka_unit_test(here_and_there),
		cmocka_unit_test(what_is_there_stays),
		cmocka_unit_test(reading_takes_no_memory),
		cmocka_unit_test(left_to_the_kernel),
		cmocka_unit_test(a_mapping_in_pieces),
		cmocka_unit_test(by_the_policy),
		cmocka_unit_test(near_who_touches),
		cmocka_unit_test(system_calls),
		cmocka_unit_test(direct_io),
		cmocka_unit_test(io_uring),
		cmocka_unit_test(pinned_buffers),
		cmocka_unit_test(madvise_discards),
		cmocka_unit_test(madvise_otherwise),
		cmocka_unit_test(unmapped_and_mapped_again),
		cmocka_unit_test(moved),
		cmocka_unit_test(protected_and_locked),
		cmocka_unit_test(userfaultfd_of_others),
		cmocka_unit_test(a_second_ferry),
		cmocka_unit_test(what_cannot_be_added),
		cmocka_unit_test(many_threads),
		cmocka_unit_test(discarded_meanwhile),
		cmocka_unit_test(signals_during_faults),
		cmocka_unit_test(cancelled_threads),
		cmocka_unit_test(forked),
		cmocka_unit_test(cloned),
		cmocka_unit_test(a_child_starts_its_own),
		cmocka_unit_test(vfork_and_spawn),
		cmocka_unit_test(exec_from_it),
		cmocka_unit_test(exits),
		cmocka_unit_test(who_outlives_the_threads),
		cmocka_unit_test(descriptors_closed),
		cmocka_unit_test(a_core_dump_ends),
		cmocka_unit_test(read_by_another),
		cmocka_unit_test(everything_read),
		cmocka_unit_test(little_memory_left),
		cmocka_unit_test(ends_when_it_does_not_pay),
	};
	const char *why;

	self = argv[0];
	filling_threads = argc == 2 ? (unsigned int)strtoul(argv[1], NULL, 10) : 0;
	if (filling_threads < 1 || filling_threads > 8) {
		fprintf(stderr, "usage: test_first_touch THREADS\n");
		return 2;
	}
	if (first_touch_start(filling_threads, &why)) {
		fprintf(stderr, "skipped: %s\n", why);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
