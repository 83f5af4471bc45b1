/* SPDX-License-Identifier: MIT */
/* Proves that regions hand out memory that is theirs, zeroed, aligned and
 * disjoint, take it back with its pages, keep the HBM limit to the byte, and
 * live with limits on address space. Each test forks, for regions are made once
 * a process. On which nodes pages are is test_alloc's business. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap/hbm_limit.h"
#include "heap/range_set.h"
#include "heap/region.h"

#define PAGE ((size_t)4096)
#define MIB  ((size_t)1 << 20)

/* A child cannot join its parent's threads. */
const char *__tsan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void)
{
	return "report_thread_leaks=0";
}

/* In a child, so that a failed check must end it. */
#define CHECK(condition)                                                                 \
	do {                                                                             \
		if (!(condition)) {                                                      \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);  \
			_exit(1);                                                        \
		}                                                                        \
	} while (0)

static void in_child(void (*test)(void))
{
	pid_t child = fork();
	int status;

	if (!child) {
		test();
		_exit(0);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/*
 * A machine with @ddr and @hbm nodes, the first of which is real. Policies on
 * nodes that do not exist fail, which is another test's business.
 */
static struct topology *machine(int ddr, int hbm)
{
	static struct topology t;

	for (int i = 0; i < ddr + hbm; i++) {
		t.node[i].id = i;
		t.node[i].tier = i < ddr ? FERRY_TIER_DDR : FERRY_TIER_HBM;
		t.node[i].total_bytes = (uint64_t)1 << 30;
		node_set_add(&t.tier[t.node[i].tier], i);
		node_set_add(&t.memory, i);
	}
	t.node_count = ddr + hbm;
	return &t;
}

static size_t resident(const char *addr, size_t size)
{
	static unsigned char pages[65536];
	size_t count = 0;

	CHECK(!mincore((void *)addr, size, pages));
	for (size_t i = 0; i < size / PAGE; i++)
		count += pages[i] & 1;
	return count * PAGE;
}

static bool is_zero(const char *addr, size_t size)
{
	return !*addr && !memcmp(addr, addr + 1, size - 1);
}

/* ---- cutting and giving back --------------------------------------------- */

#define ALLOCATIONS 300

static void random_cuts(void)
{
	struct {
		char *addr;
		size_t size;
		int kind;
	} own[ALLOCATIONS] = {0};
	struct region_usage usage;
	size_t used[REGION_PLACED] = {0};

	region_init(machine(1, 1), UINT64_MAX);
	srand(2);
	for (int i = 0; i < 20000; i++) {
		int slot = rand() % ALLOCATIONS;
		size_t alignment = PAGE << rand() % 11;
		int kind = rand() % REGION_PLACED;

		if (own[slot].addr) {
			CHECK(own[slot].addr[0] == (char)slot);
			CHECK(own[slot].addr[own[slot].size - 1] == (char)slot);
			CHECK(!region_free(own[slot].addr, own[slot].size));
			used[own[slot].kind] -= own[slot].size;
			own[slot].addr = NULL;
			continue;
		}
		own[slot].kind = kind;
		own[slot].size = PAGE * (1 + (size_t)rand() % 2000);
		own[slot].addr = region_alloc((enum region_kind)kind, own[slot].size,
					      alignment, false);
		CHECK(own[slot].addr);
		CHECK((uintptr_t)own[slot].addr % alignment == 0);
		CHECK(region_of(own[slot].addr) == kind);
		CHECK(region_of(own[slot].addr + own[slot].size - 1) == kind);
		CHECK(is_zero(own[slot].addr, PAGE));
		CHECK(is_zero(own[slot].addr + own[slot].size - PAGE, PAGE));
		memset(own[slot].addr, slot, PAGE);
		memset(own[slot].addr + own[slot].size - PAGE, slot, PAGE);
		used[kind] += own[slot].size;
	}
	region_usage(&usage);
	for (int kind = 0; kind < REGION_PLACED; kind++)
		CHECK(usage.used_bytes[kind] == used[kind]);
	CHECK(usage.overflow_bytes == 0);
}

static void gives_pages_back(void)
{
	char *addr;

	region_init(machine(1, 1), UINT64_MAX);
	addr = region_alloc(REGION_DDR, 64 * MIB, GRANULE_SIZE, false);
	CHECK(addr && resident(addr, 64 * MIB) == 0);
	memset(addr, 1, 64 * MIB);
	CHECK(resident(addr, 64 * MIB) == 64 * MIB);
	CHECK(!region_free(addr + 16 * MIB, 32 * MIB));
	CHECK(resident(addr, 64 * MIB) == 32 * MIB);
	CHECK(addr[16 * MIB - 1] == 1 && addr[48 * MIB] == 1);
	/* The first fit is the hole. */
	CHECK(region_alloc(REGION_DDR, 32 * MIB, GRANULE_SIZE, false) == addr + 16 * MIB);
	CHECK(is_zero(addr + 16 * MIB, 32 * MIB));
	CHECK(region_free(addr - GRANULE_SIZE * 4096, PAGE) == -EINVAL);
}

static void small_cuts_lie_together(void)
{
	struct region_chunk a = {0}, b = {0};
	struct region_usage usage;
	char *last_a = NULL, *last_b = NULL;

	region_init(machine(1, 1), UINT64_MAX);
	for (int i = 0; i < 100; i++) {
		char *of_a = region_alloc_small(REGION_HBM, &a, 4 * PAGE, PAGE, false);
		char *of_b = region_alloc_small(REGION_HBM, &b, 2 * PAGE, PAGE, false);

		CHECK(of_a && of_b);
		CHECK(!last_a || of_a == last_a + 4 * PAGE);
		CHECK(!last_b || of_b == last_b + 2 * PAGE);
		last_a = of_a;
		last_b = of_b;
	}
	/* What is left of a chunk is not used, and not anybody else's. */
	region_usage(&usage);
	CHECK(usage.used_bytes[REGION_HBM] == 600 * PAGE);
	CHECK(last_a + CHUNK_SIZE < last_b || last_b + CHUNK_SIZE < last_a ||
	      (uintptr_t)last_a / CHUNK_SIZE != (uintptr_t)last_b / CHUNK_SIZE);
	CHECK(!region_extend(last_a + 4 * PAGE, &b, PAGE));
	CHECK(region_extend(last_a + 4 * PAGE, &a, PAGE));
	CHECK(region_alloc_small(REGION_HBM, &a, PAGE, PAGE, false) == last_a + 5 * PAGE);
}

/* No cut crosses a chunk's end, and a freed granule is a chunk for others. */
static void chunks_are_refilled(void)
{
	struct region_chunk a = {0}, b = {0};
	size_t size = 3 * MIB + PAGE;
	char *first, *cut = NULL;

	region_init(machine(1, 1), UINT64_MAX);
	first = region_alloc_small(REGION_DDR, &a, size, PAGE, false);
	for (int i = 0; i < 100; i++) {
		cut = region_alloc_small(REGION_DDR, &a, size, PAGE, false);
		CHECK((uintptr_t)cut / CHUNK_SIZE ==
		      ((uintptr_t)cut + size - 1) / CHUNK_SIZE);
	}
	/* Two cuts to a chunk, and the rest of nearly a granule goes unused. */
	CHECK(cut < first + 51 * CHUNK_SIZE);
	CHECK(!region_free(first, size));
	cut = region_alloc_small(REGION_DDR, &b, PAGE, GRANULE_SIZE / 2, false);
	CHECK(cut == first && is_zero(cut, PAGE));
	cut = region_alloc_small(REGION_DDR, &b, PAGE, GRANULE_SIZE / 2, false);
	CHECK(cut == first + GRANULE_SIZE / 2);
}

static void extends_in_place(void)
{
	struct region_chunk none = {0};
	char *first, *second;

	region_init(machine(1, 1), 64 * MIB);
	first = region_alloc(REGION_HBM, 8 * MIB, GRANULE_SIZE, false);
	second = region_alloc(REGION_HBM, 8 * MIB, GRANULE_SIZE, false);
	CHECK(second == first + 8 * MIB);
	CHECK(!region_extend(first + 8 * MIB, &none, 4 * MIB));
	CHECK(region_extend(second + 8 * MIB, &none, 40 * MIB)); /* beyond what is open */
	CHECK(is_zero(second + 8 * MIB, 40 * MIB));
	CHECK(!region_extend(second + 48 * MIB, &none, 8 * MIB + PAGE)); /* the limit */
	CHECK(region_extend(second + 48 * MIB, &none, 8 * MIB));
	CHECK(!region_free(second, 56 * MIB));
	CHECK(region_extend(first + 8 * MIB, &none, 4 * MIB));
}

/* Nothing else can lie against a region, or the kernel might join the two. */
static void keeps_neighbours_away(void)
{
	struct span span;
	void *at[2];

	region_init(machine(1, 1), UINT64_MAX);
	CHECK(region_alloc(REGION_HBM, 4 * MIB, PAGE, true));
	CHECK(region_spans(REGION_HBM, &span, 1) == 1);
	at[0] = (void *)(span.start - PAGE);
	at[1] = (void *)span.end;
	for (int i = 0; i < 2; i++)
		CHECK(mmap(at[i], PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
			   0) == MAP_FAILED &&
		      errno == EEXIST);
}

/* ---- the HBM limit ------------------------------------------------------- */

static void limit_is_exact(void)
{
	struct region_usage usage;
	struct region_chunk chunk = {0};
	char *hbm, *overflow;

	region_init(machine(1, 1), 32 * MIB);
	hbm = region_alloc(REGION_HBM, 24 * MIB, PAGE, false);
	CHECK(region_of(hbm) == REGION_HBM);
	CHECK(region_charge(REGION_HBM, 8 * MIB - PAGE));
	CHECK(!region_charge(REGION_HBM, 2 * PAGE));
	CHECK(region_of(region_alloc(REGION_HBM, PAGE, PAGE, false)) == REGION_HBM);

	overflow = region_alloc(REGION_HBM, PAGE, PAGE, false);
	CHECK(region_of(overflow) == REGION_DDR);
	CHECK(!region_alloc(REGION_HBM, PAGE, PAGE, true));
	CHECK(!region_alloc_small(REGION_HBM, &chunk, PAGE, PAGE, true));
	CHECK(region_of(region_alloc_small(REGION_HBM, &chunk, PAGE, PAGE, false)) ==
	      REGION_DDR);
	CHECK(!region_extend(hbm + 24 * MIB + PAGE, &chunk, PAGE));
	region_usage(&usage);
	CHECK(usage.used_bytes[REGION_HBM] == 24 * MIB + PAGE);
	CHECK(usage.charged_bytes[REGION_HBM] == 8 * MIB - PAGE);
	CHECK(usage.overflow_bytes == 2 * PAGE + PAGE + PAGE);

	/* What overflowed frees DDR, not HBM. */
	CHECK(!region_free(overflow, PAGE));
	CHECK(!region_alloc(REGION_HBM, PAGE, PAGE, true));
	CHECK(!region_free(hbm, PAGE));
	CHECK(region_alloc(REGION_HBM, PAGE, PAGE, true) == hbm);
	region_uncharge(REGION_HBM, 8 * MIB - PAGE);
	CHECK(region_alloc(REGION_HBM, 8 * MIB - PAGE, PAGE, true));
	CHECK(!region_alloc(REGION_HBM, PAGE, PAGE, true));
}

/* What Ferry keeps for itself and what the regions have share the limit. */
static void kept_counts(void)
{
	char *hbm;

	region_init(machine(1, 1), 8 * MIB);
	hbm = region_alloc(REGION_HBM, 4 * MIB, PAGE, true);
	CHECK(hbm);
	CHECK(!hbm_limit_keep(4 * MIB + PAGE));
	CHECK(hbm_limit_used() == 4 * MIB);
	CHECK(hbm_limit_keep(4 * MIB) && hbm_limit_used() == 8 * MIB);
	CHECK(!hbm_limit_keep(PAGE));
	CHECK(!region_alloc(REGION_HBM, PAGE, PAGE, true));
	hbm_limit_unkeep(PAGE);
	CHECK(region_alloc(REGION_HBM, PAGE, PAGE, true));
	CHECK(!region_free(hbm, 4 * MIB));
	CHECK(hbm_limit_keep(4 * MIB) && !hbm_limit_keep(PAGE));
}

/* One node of three is HBM: a third of each byte, in any pieces. */
static void interleaved_share_counts(void)
{
	char *addr;

	region_init(machine(2, 1), 10 * MIB);
	addr = region_alloc(REGION_INTERLEAVE, 30 * MIB, PAGE, true);
	CHECK(region_of(addr) == REGION_INTERLEAVE);
	CHECK(!region_alloc(REGION_INTERLEAVE, PAGE, PAGE, true));
	CHECK(!region_alloc(REGION_HBM, PAGE, PAGE, true));
	for (size_t i = 0; i < 3; i++)
		CHECK(!region_free(addr + i * PAGE, PAGE));
	CHECK(region_alloc(REGION_HBM, PAGE, PAGE, true));
	CHECK(!region_alloc(REGION_INTERLEAVE, PAGE, PAGE, true));
	CHECK(region_of(region_alloc(REGION_INTERLEAVE, PAGE, PAGE, false)) ==
	      REGION_DDR);
}

static void no_hbm_no_limit(void)
{
	CHECK(!region_init(machine(1, 0), 0));
	CHECK(region_alloc(REGION_HBM, 64 * MIB, PAGE, true));
	CHECK(region_charge(REGION_HBM, 64 * MIB));
}

/* ---- limited address space ----------------------------------------------- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

static size_t address_space(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	CHECK(file && fscanf(file, "%lu", &pages) == 1);
	fclose(file);
	return pages * PAGE;
}

/* Under RLIMIT_AS most of the limit can be had, in many cuts or in one. */
static void limited_address_space(void)
{
	struct rlimit limit;
	size_t total = 0, large;
	char *addr;

	region_init(machine(1, 1), UINT64_MAX);
	limit.rlim_cur = limit.rlim_max = address_space() + 2048 * MIB;
	CHECK(!setrlimit(RLIMIT_AS, &limit));
	CHECK(region_alloc(REGION_DDR, 8 * MIB, PAGE, false));
	CHECK(address_space() < limit.rlim_cur - 1536 * MIB);

	large = 1024 * MIB;
	addr = region_alloc(REGION_DDR, large, GRANULE_SIZE, false);
	CHECK(addr);
	addr[0] = addr[large - 1] = 1;
	while ((addr = region_alloc(REGION_HBM, 3 * MIB, PAGE, false))) {
		addr[3 * MIB - 1] = 1;
		total += 3 * MIB;
	}
	CHECK(total > 640 * MIB);
	/* and the process still goes on */
	CHECK(!region_alloc(REGION_HBM, 64 * MIB, PAGE, false));
}

#else

/* The sanitizers' shadow is address space itself. */
static void limited_address_space(void)
{
}

#endif

static void absurd_sizes(void)
{
	struct region_chunk none = {0};
	struct region_usage usage;

	region_init(machine(1, 1), 64 * MIB);
	CHECK(!region_alloc(REGION_DDR, SIZE_MAX - PAGE + 1, PAGE, false));
	CHECK(!region_alloc(REGION_DDR, (size_t)1 << 62, PAGE, false));
	CHECK(!region_alloc(REGION_HBM, (size_t)1 << 62, PAGE, false));
	CHECK(!region_alloc(REGION_DDR, PAGE, (size_t)1 << 62, false));
	CHECK(!region_extend((void *)UINTPTR_MAX, &none, SIZE_MAX));
	region_usage(&usage);
	CHECK(usage.used_bytes[REGION_DDR] == 0 && usage.used_bytes[REGION_HBM] == 0);
	CHECK(region_alloc(REGION_DDR, PAGE, PAGE, false));
}

/* ---- threads and fork ---------------------------------------------------- */

static void *cut_and_free(void *seed)
{
	unsigned int random = (unsigned int)(uintptr_t)seed;

	for (int i = 0; i < 3000; i++) {
		size_t size = PAGE * (1 + (size_t)rand_r(&random) % 700);
		enum region_kind kind =
			(enum region_kind)((size_t)rand_r(&random) % REGION_PLACED);
		uintptr_t *addr = region_alloc(kind, size, PAGE, false);

		CHECK(addr && !*addr);
		*addr = (uintptr_t)addr;
		CHECK(*addr == (uintptr_t)addr);
		CHECK(!region_free(addr, size));
	}
	return NULL;
}

static void threads_and_fork(void)
{
	pthread_t thread[4];
	struct region_usage usage;

	region_init(machine(1, 1), 16 * MIB);
	pthread_atfork(region_fork_prepare, region_fork_parent, region_fork_child);
	for (size_t i = 0; i < 4; i++)
		CHECK(!pthread_create(&thread[i], NULL, cut_and_free, (void *)(i + 1)));
	for (int i = 0; i < 20; i++) {
		pid_t child = fork();
		int status;

		if (!child) {
			CHECK(region_alloc(REGION_HBM, PAGE, PAGE, false));
			_exit(0);
		}
		CHECK(waitpid(child, &status, 0) == child && !status);
	}
	for (size_t i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	region_usage(&usage);
	for (int kind = 0; kind < REGION_PLACED; kind++)
		CHECK(usage.used_bytes[kind] == 0);
}

/* ---- where a region is --------------------------------------------------- */

/* What is cut out lies in the spans of its kind, and in no other's. */
static void spans_cover_cuts(void)
{
	static char *cut[REGION_PLACED][8];
	struct span span[64];

	region_init(machine(1, 1), 100 * MIB);
	CHECK(region_spans(REGION_AUTO, span, 64) == 0);
	for (int kind = 0; kind < REGION_PLACED; kind++)
		for (size_t i = 0; i < 8; i++)
			cut[kind][i] = region_alloc((enum region_kind)kind, i * MIB + MIB,
						    GRANULE_SIZE, false);
	for (int kind = 0; kind < REGION_PLACED; kind++)
		for (size_t i = 0; i < 8; i++) {
			int actual = region_of(cut[kind][i]);
			uintptr_t start = (uintptr_t)cut[kind][i];

			CHECK(cut[kind][i]);
			for (int other = 0; other < REGION_PLACED; other++) {
				size_t n =
					region_spans((enum region_kind)other, span, 64);
				size_t within = 0;

				CHECK(n <= 64);
				for (size_t k = 0; k < n; k++)
					within += span[k].start <= start &&
						  span[k].end >= start + i * MIB + MIB;
				CHECK(within == (other == actual));
			}
		}
	/* How many there are is told without room for them. */
	CHECK(region_spans(REGION_AUTO, NULL, 0) == region_spans(REGION_AUTO, span, 64));
}

/* Memory of the policy `auto` does not: that policy keeps to the limit itself. */
static void what_counts_as_hbm(void)
{
	void *hbm;

	region_init(machine(1, 1), 100 * MIB);
	CHECK(hbm_limit_used() == 0);
	CHECK(region_alloc(REGION_AUTO, 10 * MIB, PAGE, false));
	CHECK(hbm_limit_used() == 0);
	CHECK(region_charge(REGION_HBM, 5 * MIB));
	CHECK(hbm_limit_used() == 5 * MIB);
	CHECK(region_charge(REGION_INTERLEAVE, 6 * MIB));
	CHECK(hbm_limit_used() == 8 * MIB);
	region_uncharge(REGION_HBM, 5 * MIB);
	hbm = region_alloc(REGION_AUTO, 500 * MIB, PAGE, true);
	CHECK(hbm && region_of(hbm) == REGION_AUTO);
	CHECK(hbm_limit_used() == 3 * MIB);
}

#define TEST(function)                                                                   \
	static void test_##function(void **state)                                        \
	{                                                                                \
		(void)state;                                                             \
		in_child(function);                                                      \
	}

TEST(random_cuts)
TEST(gives_pages_back)
TEST(small_cuts_lie_together)
TEST(chunks_are_refilled)
TEST(extends_in_place)
TEST(keeps_neighbours_away)
TEST(limit_is_exact)
TEST(kept_counts)
TEST(interleaved_share_counts)
TEST(no_hbm_no_limit)
TEST(limited_address_space)
TEST(absurd_sizes)
TEST(threads_and_fork)
TEST(spans_cover_cuts)
TEST(what_counts_as_hbm)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_cuts),
		cmocka_unit_test(test_gives_pages_back),
		cmocka_unit_test(test_small_cuts_lie_together),
		cmocka_unit_test(test_chunks_are_refilled),
		cmocka_unit_test(test_extends_in_place),
		cmocka_unit_test(test_keeps_neighbours_away),
		cmocka_unit_test(test_limit_is_exact),
		cmocka_unit_test(test_kept_counts),
		cmocka_unit_test(test_interleaved_share_counts),
		cmocka_unit_test(test_no_hbm_no_limit),
		cmocka_unit_test(test_limited_address_space),
		cmocka_unit_test(test_absurd_sizes),
		cmocka_unit_test(test_threads_and_fork),
		cmocka_unit_test(test_spans_cover_cuts),
		cmocka_unit_test(test_what_counts_as_hbm),
	};

	/* A huge page at each first touch takes its time, in the guest above all. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
