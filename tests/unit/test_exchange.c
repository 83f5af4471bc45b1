/* SPDX-License-Identifier: MIT */
/*
 * Proves that the engine kmod exchanges two batches: that each page is where it
 * was to go, as the kernel tells, small or huge, that counts and data are right
 * while the memory is written, and that a batch that is wrong moves nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../where.h"
#include "migrate/engine.h"

#define MIB   ((size_t)1 << 20)
#define BYTES (32 * MIB)

/*
 * @huge: in huge pages; else none. The policy stays, or else NUMA balancing would
 * take it off a node without CPUs before it is looked at.
 */
static char *memory_on(int node, bool huge)
{
	unsigned long mask = 1UL << node;
	char *mapped = mmap(NULL, BYTES + GRANULE_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *addr = (char *)(((uintptr_t)mapped + GRANULE_BYTES - 1) &
			      ~(uintptr_t)(GRANULE_BYTES - 1));

	assert_true(mapped != MAP_FAILED);
	madvise(addr, BYTES, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	assert_int_equal(syscall(SYS_mbind, addr, BYTES, MPOL_PREFERRED, &mask, 64, 0),
			 0);
	for (size_t at = 0; at < BYTES; at += 8)
		*(uint64_t *)(addr + at) = at * 3 + (uint64_t)node;
	return addr;
}

static size_t pages_on(char *addr, int node)
{
	size_t found = 0;

	for (size_t at = 0; at < BYTES; at += PAGE_BYTES)
		found += node_at(addr + at) == node;
	return found;
}

static void fill(struct batch *batch, char *addr, int node)
{
	memset(batch, 0, sizeof(*batch));
	for (size_t at = 0; at < BYTES; at += GRANULE_BYTES)
		batch->piece[batch->count++] =
			(struct piece){(uintptr_t)addr + at, GRANULE_BYTES, node, 0};
}

static void assert_data(const char *addr, int seed, uint64_t more)
{
	for (size_t at = 0; at < BYTES; at += 8)
		if (*(const uint64_t *)(addr + at) !=
		    at * 3 + (uint64_t)seed + (at % 4096 ? 0 : more))
			fail_msg("data at %zu is lost", at);
}

static struct writer {
	char *memory[2];
	atomic_bool stop;
	uint64_t rounds;
} writer;

/* Adds 1 to the first word of each page. */
static void *write_on(void *unused)
{
	(void)unused;
	while (!writer.stop) {
		for (int i = 0; i < 2; i++)
			for (size_t at = 0; at < BYTES; at += PAGE_BYTES)
				++*(volatile uint64_t *)(writer.memory[i] + at);
		writer.rounds++;
	}
	return NULL;
}

static void exchanged(bool huge)
{
	const size_t pages = BYTES / PAGE_BYTES;
	static struct batch out, in;
	pthread_t thread;

	writer = (struct writer){.memory = {memory_on(0, huge), memory_on(1, huge)}};
	assert_int_equal(pages_on(writer.memory[0], 0), pages);
	assert_int_equal(pages_on(writer.memory[1], 1), pages);
	assert_int_equal(pthread_create(&thread, NULL, write_on, NULL), 0);
	fill(&out, writer.memory[1], 0);
	fill(&in, writer.memory[0], 1);
	assert_int_equal(engine_kmod.exchange(&out, &in), 0);
	writer.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(out.result.error, 0);
	assert_int_equal(in.result.error, 0);
	assert_int_equal(result_pages(&out.result), pages);
	assert_int_equal(result_pages(&in.result), pages);
	/* Beside a writer a page may be busy; it stays, and is counted. */
	assert_true(out.result.busy + in.result.busy < pages / 100);
	assert_int_equal(pages_on(writer.memory[1], 0), pages - out.result.busy);
	assert_int_equal(pages_on(writer.memory[0], 1), pages - in.result.busy);
	assert_data(writer.memory[0], 0, writer.rounds);
	assert_data(writer.memory[1], 1, writer.rounds);
	munmap(writer.memory[0], BYTES);
	munmap(writer.memory[1], BYTES);
}

static void small_pages(void **state)
{
	(void)state;
	exchanged(false);
}

static void huge_pages(void **state)
{
	(void)state;
	exchanged(true);
}

static void a_wrong_node(void **state)
{
	static struct batch out, in;
	char *one = memory_on(0, false), *other = memory_on(1, false);

	(void)state;
	fill(&out, other, 0);
	fill(&in, one, 77);
	assert_int_equal(engine_kmod.exchange(&out, &in), 0);
	assert_int_equal(out.result.error, -ENODEV);
	assert_int_equal(in.result.error, -ENODEV);
	assert_int_equal(pages_on(one, 0), BYTES / PAGE_BYTES);
	assert_int_equal(pages_on(other, 1), BYTES / PAGE_BYTES);
	munmap(one, BYTES);
	munmap(other, BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_pages),
		cmocka_unit_test(huge_pages),
		cmocka_unit_test(a_wrong_node),
	};
	const char *why = "";

	if (access("/sys/devices/system/node/node1", F_OK) || engine_kmod.open(&why)) {
		printf("skipped: no second node, or no module %s\n", why);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
