/* SPDX-License-Identifier: MIT */
/*
 * Proves what FERRY_HUGE does, by the kernel's word in smaps: which memory is in
 * huge pages in each mode, that freed memory does not split them while it may be
 * used again, and that it goes back in the end. Usage: huge_checks LIBRARY, which
 * runs itself again under LIBRARY in several environments. One thread. Ends with
 * 77 where the system has no huge pages to give.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB     ((size_t)1 << 20)
#define GRANULE (2 * MIB)
#define ENABLED "/sys/kernel/mm/transparent_hugepage/enabled"

/* ---- what the kernel says ------------------------------------------------ */

/* Of the mappings that [addr, addr + size) touches, whole. */
struct seen {
	size_t resident, huge; /* bytes */
	size_t mappings, advised, refused;
};

static struct seen look_at(uintptr_t first, size_t size)
{
	uintptr_t last = first + size - 1;
	FILE *smaps = fopen("/proc/self/smaps", "r");
	struct seen seen = {0};
	bool within = false;
	char line[512];

	assert_non_null(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long start, end, kib;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			within = start <= last && end > first;
			seen.mappings += within;
		} else if (!within) {
			continue;
		} else if (sscanf(line, "Rss: %lu", &kib) == 1) {
			seen.resident += kib << 10;
		} else if (sscanf(line, "AnonHugePages: %lu", &kib) == 1) {
			seen.huge += kib << 10;
		} else if (!strncmp(line, "VmFlags:", 8)) {
			seen.advised += strstr(line, " hg") != NULL;
			seen.refused += strstr(line, " nh") != NULL;
		}
	}
	fclose(smaps);
	assert_true(seen.mappings > 0);
	return seen;
}

static struct seen look(const void *addr, size_t size)
{
	return look_at((uintptr_t)addr, size);
}

static void *touched(void *ptr, size_t size)
{
	assert_non_null(ptr);
	memset(ptr, 1, size);
	__asm__ volatile("" : "+r"(ptr));
	return ptr;
}

/* A mapping that stays alone: the kernel joins what is alike. */
static void *map(size_t size)
{
	char *ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);

	assert_true(ptr != MAP_FAILED);
	return touched(ptr, size);
}

/* ---- blocks -------------------------------------------------------------- */

enum { BLOCKS = 4096, BLOCK = 16000, KEEP = 64 };

static char *block[BLOCKS];

static void fill_blocks(void)
{
	for (int i = 0; i < BLOCKS; i++)
		block[i] = touched(malloc(BLOCK), BLOCK);
}

static void free_blocks(int keep)
{
	for (int i = 0; i < BLOCKS; i++)
		if (!keep || i % keep) {
			free(block[i]);
			block[i] = NULL;
		}
}

/* jemalloc looks at the clock when it is called, often enough, for what is not cached. */
static void let_decay(int ms)
{
	struct timespec begin, now;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		for (int i = 0; i < 2000; i++) {
			void *ptr = malloc(40000);

			__asm__ volatile("" : "+r"(ptr));
			free(ptr);
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - begin.tv_sec) * 1000 +
			 (now.tv_nsec - begin.tv_nsec) / 1000000 <
		 ms);
}

/* ---- the modes ----------------------------------------------------------- */

static void always(void **state)
{
	char *large = touched(malloc(64 * MIB), 64 * MIB), *mapped = map(8 * MIB);
	struct seen seen;

	(void)state;
	seen = look(large, 64 * MIB);
	assert_true(seen.huge >= 62 * MIB);
	assert_int_equal(seen.advised, seen.mappings);
	fill_blocks();
	seen = look(block[0], BLOCK);
	assert_true(seen.huge >= 48 * MIB);
	/* for the program's own mappings it is advice on whole granules */
	seen = look(mapped, 8 * MIB);
	assert_int_equal(seen.advised, seen.mappings);
	assert_true(seen.huge >= 6 * MIB);
}

static void never(void **state)
{
	char *large = touched(malloc(64 * MIB), 64 * MIB), *mapped = map(8 * MIB);
	struct seen seen = look(large, 64 * MIB);

	(void)state;
	assert_int_equal(seen.huge, 0);
	assert_int_equal(seen.refused, seen.mappings);
	seen = look(mapped, 8 * MIB);
	assert_int_equal(seen.huge, 0);
	assert_int_equal(seen.refused, seen.mappings);
}

/* Where the system says madvise: large allocations, and what takes their place not. */
static void automatic(void **state)
{
	char *large = touched(malloc(64 * MIB), 64 * MIB), *mapped = map(8 * MIB);
	struct seen seen = look(large, 64 * MIB);
	uintptr_t place;

	(void)state;
	assert_true(seen.huge >= 62 * MIB);
	fill_blocks();
	assert_int_equal(look(block[0], BLOCK).huge, 0);
	seen = look(mapped, 8 * MIB);
	assert_true(seen.advised == 0 && seen.refused == 0);

	for (int i = 0; i < 50; i++) {
		free(large);
		large = malloc(64 * MIB + (size_t)i * 3 * MIB);
		touched(large, GRANULE);
		assert_true(look(large, GRANULE).huge >= GRANULE);
	}
	place = (uintptr_t)large;
	free(large);
	assert_int_equal(look_at(place, 64 * MIB).advised, 0);
	assert_true(look_at(place, 64 * MIB).mappings <= 2);
}

/* MALLOC_CONF=dirty_decay_ms:100: holes stay in huge pages. */
static void holes_do_not_split(void **state)
{
	struct seen before, after;

	(void)state;
	fill_blocks();
	before = look(block[0], BLOCK);
	free_blocks(KEEP);
	let_decay(2000);
	after = look(block[0], BLOCK);
	assert_true(after.huge >= before.huge / 10 * 9);
}

/*
 * MALLOC_CONF=dirty_decay_ms:2000: what becomes free as a whole goes back as soon as it
 * has decayed; on a machine that stands still meanwhile, as muzzy memory does.
 */
static void whole_pages_go_back(void **state)
{
	struct seen before;
	uintptr_t first;
	int tries = 20;

	(void)state;
	fill_blocks();
	first = (uintptr_t)block[0];
	before = look_at(first, BLOCK);
	free_blocks(0);
	do
		let_decay(4000);
	while (look_at(first, BLOCK).resident > before.resident / 4 && --tries);
	assert_true(tries > 0);
}

/* MALLOC_CONF=dirty_decay_ms:100,muzzy_decay_ms:200: in the end holes go back too. */
static void holes_go_back(void **state)
{
	struct seen before, after;

	(void)state;
	fill_blocks();
	before = look(block[0], BLOCK);
	free_blocks(KEEP);
	let_decay(3000);
	after = look(block[0], BLOCK);
	assert_true(after.resident <= before.resident / 4);
}

/* ---- environments -------------------------------------------------------- */

static const struct group {
	struct CMUnitTest test;
	const char *variables[4];
	bool madvise_only;
} groups[] = {
	{cmocka_unit_test(always), {"FERRY_HUGE=always", "FERRY_POLICY=ddr"}, false},
	{cmocka_unit_test(always), {"FERRY_HUGE=always", "FERRY_POLICY=hbm"}, false},
	{cmocka_unit_test(never), {"FERRY_HUGE=never", "FERRY_POLICY=ddr"}, false},
	{cmocka_unit_test(never), {"FERRY_HUGE=never", "FERRY_POLICY=hbm"}, false},
	{cmocka_unit_test(automatic), {"FERRY_POLICY=ddr"}, true},
	{cmocka_unit_test(automatic), {"FERRY_POLICY=hbm"}, true},
	{cmocka_unit_test(holes_do_not_split),
	 {"FERRY_HUGE=always", "MALLOC_CONF=dirty_decay_ms:100"},
	 false},
	{cmocka_unit_test(whole_pages_go_back),
	 {"FERRY_HUGE=always", "MALLOC_CONF=dirty_decay_ms:2000"},
	 false},
	{cmocka_unit_test(holes_go_back),
	 {"FERRY_HUGE=always", "MALLOC_CONF=dirty_decay_ms:100,muzzy_decay_ms:200"},
	 false},
};
#define GROUPS (sizeof(groups) / sizeof(groups[0]))

static bool system_says(const char *word)
{
	char text[128] = "";
	FILE *file = fopen(ENABLED, "r");
	bool says = file && fgets(text, sizeof(text), file) && strstr(text, word);

	if (file)
		fclose(file);
	return says;
}

static bool run_group(size_t group, const char *library)
{
	char index[16], preload[4096];
	pid_t child = fork();
	int status;

	if (!child) {
		snprintf(index, sizeof(index), "%zu", group);
		snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", library);
		putenv(preload);
		putenv((char *)"FERRY_SAID_NO_HBM=1");
		for (size_t v = 0; groups[group].variables[v]; v++)
			putenv((char *)groups[group].variables[v]);
		execl("/proc/self/exe", "huge_checks", library, index, NULL);
		_exit(127);
	}
	return waitpid(child, &status, 0) == child && !status;
}

int main(int argc, char **argv)
{
	int failed = 0;

	if (argc < 2)
		return 2;
	if (argc == 3) {
		size_t group = strtoul(argv[2], NULL, 10);

		return _cmocka_run_group_tests("huge", &groups[group].test, 1, NULL,
					       NULL);
	}
	if ((!system_says("[madvise]") && !system_says("[always]")) ||
	    prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1) {
		printf("skipped: " ENABLED " gives no huge pages\n");
		return 77;
	}
	for (size_t group = 0; group < GROUPS; group++) {
		if (groups[group].madvise_only && !system_says("[madvise]"))
			continue;
		if (!run_group(group, argv[1])) {
			fprintf(stderr, "FAILED: %s with %s %s\n",
				groups[group].test.name, groups[group].variables[0],
				groups[group].variables[1] ? groups[group].variables[1]
							   : "");
			failed = 1;
		}
	}
	return failed;
}
