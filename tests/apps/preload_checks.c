/* SPDX-License-Identifier: MIT */
/*
 * Proves that a program under libferry-preload.so has a complete malloc family
 * and an mmap that behave as the C library's, over threads, fork, vfork, spawn
 * and dlopen; and, where there is an HBM node, that memory is where each policy
 * says. Usage: preload_checks LIBRARY PLUGIN, which runs itself again under
 * LIBRARY in several environments.
 */
#include "preload_checks.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *library;

/* ---- environments -------------------------------------------------------- */

#define ONE_PROCESS                                                                      \
	cmocka_unit_test(every_function_is_ours), cmocka_unit_test(edges_of_malloc),     \
		cmocka_unit_test(aligned_forms), cmocka_unit_test(contents_stay),        \
		cmocka_unit_test(memory_goes_back),                                      \
		cmocka_unit_test(mmap_like_the_kernels), cmocka_unit_test(plugins)
#define GENERAL ONE_PROCESS, cmocka_unit_test(forks_between_threads)

static const struct CMUnitTest with_hbm[] = {
	GENERAL,
	cmocka_unit_test(all_of_it_in_hbm),
	cmocka_unit_test(of_other_threads_too),
	cmocka_unit_test(mappings_in_hbm),
};
static const struct CMUnitTest with_ddr[] = {
	GENERAL, cmocka_unit_test(medium_blocks_keep_their_pages),
	cmocka_unit_test(all_of_it_in_ddr)};
static const struct CMUnitTest with_interleave[] = {
	cmocka_unit_test(all_of_it_interleaved)};
static const struct CMUnitTest with_threshold[] = {ONE_PROCESS,
						   cmocka_unit_test(divided_by_size)};
static const struct CMUnitTest with_small_threshold[] = {
	cmocka_unit_test(contents_stay), cmocka_unit_test(divided_by_size)};
/* Before the others leave memory in the arenas, which counts. */
static const struct CMUnitTest with_limit[] = {cmocka_unit_test(limit_holds), GENERAL};
static const struct CMUnitTest with_little[] = {
	cmocka_unit_test(edges_of_malloc), cmocka_unit_test(aligned_forms),
	cmocka_unit_test(contents_stay), cmocka_unit_test(forks_between_threads)};

#define TESTS(name) name, sizeof(name) / sizeof((name)[0])

static const struct {
	const char *name;
	const struct CMUnitTest *tests;
	size_t count;
	const char *variables[4];
} groups[] = {
	{"hbm", TESTS(with_hbm), {"FERRY_POLICY=hbm"}},
	{"ddr", TESTS(with_ddr), {NULL}},
	{"interleave", TESTS(with_interleave), {"FERRY_POLICY=interleave"}},
	{"threshold",
	 TESTS(with_threshold),
	 {"FERRY_POLICY=threshold", "FERRY_MIN_SIZE=1048576"}},
	{"threshold of 16K",
	 TESTS(with_small_threshold),
	 {"FERRY_POLICY=threshold", "FERRY_MIN_SIZE=16384"}},
	{"threshold of 100000",
	 TESTS(with_small_threshold),
	 {"FERRY_POLICY=threshold", "FERRY_MIN_SIZE=100000"}},
	{"limit", TESTS(with_limit), {"FERRY_POLICY=hbm", "FERRY_HBM_LIMIT=64M"}},
	{"no HBM at all", TESTS(with_little), {"FERRY_POLICY=hbm", "FERRY_HBM_LIMIT=0"}},
	{"MALLOC_CONF",
	 TESTS(with_little),
	 {"FERRY_POLICY=threshold",
	  "MALLOC_CONF=retain:true,percpu_arena:percpu,oversize_threshold:0,"
	  "narenas:2,dirty_decay_ms:0"}},
};
#define GROUPS (sizeof(groups) / sizeof(groups[0]))

/* Whether @group, run by this program under the library, passes. */
static bool run_group(size_t group)
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
		execl("/proc/self/exe", "preload_checks", library, plugin, index, NULL);
		_exit(127);
	}
	return waitpid(child, &status, 0) == child && !status;
}

int main(int argc, char **argv)
{
	int failed = 0;

	if (argc < 3)
		return 2;
	library = argv[1];
	plugin = argv[2];
	if (argc == 4) {
		size_t group = strtoul(argv[3], NULL, 10);

		return _cmocka_run_group_tests(groups[group].name, groups[group].tests,
					       groups[group].count, NULL, NULL);
	}
	/* Children inherit it. A huge page at each touch would take minutes. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	for (size_t group = 0; group < GROUPS; group++)
		if (!run_group(group)) {
			fprintf(stderr, "FAILED with %s\n", groups[group].name);
			failed = 1;
		}
	return failed;
}
