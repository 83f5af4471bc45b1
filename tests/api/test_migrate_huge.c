/* SPDX-License-Identifier: MIT */
/*
 * Proves with each engine, through libferry, of what huge pages map: it arrives
 * whole, partly where only a part is to move, is left when it is held, and is
 * reported right; and that pages which are kept for the next ones stay where they are,
 * within the limit, and not for ever. Single-threaded.
 */
#include "api_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { SEED = 77 };

static void huge_pages(void)
{
	size_t len = 8 * KT_HUGE, all = len / kt.page;
	char *mem = kt_alloc_huge(len), *hole = kt_alloc_huge(KT_HUGE);
	volatile char zero;

	kt_fill_on(mem, len, kt.ddr, SEED);
	if (kt_smaps(mem, len, "AnonHugePages") != (long)len / 1024)
		kt_skip("no huge pages");
	API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = all);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), len / 1024);
	KT_EXPECT_DATA(mem, len, SEED);
	api_expect_query(mem, len);
	API_EXPECT(api_migrate_async(mem, len, kt.hbm, 0), .already = all);
	API_EXPECT(api_migrate_async(mem, len, kt.ddr, 0), .moved = all);
	KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), len / 1024);

	/* Part of one: it moves whole, and the part is what counts. */
	API_EXPECT(api_migrate(mem + KT_HUGE + 5 * kt.page, 10 * kt.page, kt.hbm, 0),
		   .moved = 10);
	KT_EXPECT_ON(mem + KT_HUGE, KT_HUGE, kt.hbm);
	KT_EXPECT_ON(mem, KT_HUGE, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);

	/* Split in its page table only: still one folio, and still moved. */
	KT_REQUIRE(!mprotect(mem + 2 * KT_HUGE, kt.page, PROT_READ), "mprotect: %m");
	API_EXPECT(api_migrate(mem + 2 * KT_HUGE, 2 * KT_HUGE, kt.hbm, 0), .moved = 1024);
	KT_EXPECT_ON(mem + 2 * KT_HUGE, 2 * KT_HUGE, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);

	/* The huge zero page is a hole. */
	zero = *hole;
	(void)zero;
	API_EXPECT(api_migrate(hole, KT_HUGE, kt.hbm, 0), .hole = 512);
	api_expect_query(hole, KT_HUGE);
	API_EXPECT(api_migrate(hole, KT_HUGE, kt.hbm, FERRY_POPULATE), .populated = 512);
	KT_EXPECT_ON(hole, KT_HUGE, kt.hbm);
	for (size_t i = 0; i < KT_HUGE; i++)
		KT_REQUIRE(!hole[i], "populated memory is not zero");
}

/* Relocating has the kernel migrate nothing; both ways, at once and asynchronously. */
static void relocates(void)
{
	size_t len = 16 * KT_HUGE;
	char *mem = kt_alloc_huge(len);
	long before, after;

	if (!api_relocates())
		kt_skip("not this engine's");
	kt_fill_on(mem, len, kt.ddr, SEED);
	if (kt_smaps(mem, len, "AnonHugePages") != (long)len / 1024)
		kt_skip("no huge pages");
	before = kt_file_key("/proc/vmstat", "thp_migration_success");
	for (int i = 0; i < 4; i++) {
		int node = i % 2 ? kt.ddr : kt.hbm;

		API_EXPECT(i < 2 ? api_migrate(mem, len, node, 0)
				 : api_migrate_async(mem, len, node, 0),
			   .moved = len / kt.page);
		KT_EXPECT_ON(mem, len, node);
		KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), len / 1024);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	after = kt_file_key("/proc/vmstat", "thp_migration_success");
	KT_EXPECT_EQ(after, before);
}

/* A pinned huge page stays whole, and all of it is busy. */
static void huge_page_pinned(void)
{
	size_t len = 2 * KT_HUGE;
	char *mem = kt_alloc_huge(len);
	struct iovec iov = {mem + 17 * kt.page, kt.page};
	int fd[2];

	kt_fill_on(mem, len, kt.ddr, SEED);
	if (kt_smaps(mem, len, "AnonHugePages") != (long)len / 1024)
		kt_skip("no huge pages");
	KT_REQUIRE(!pipe(fd) && vmsplice(fd[1], &iov, 1, 0) == (ssize_t)kt.page,
		   "vmsplice: %m");
	API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = 512, .busy = 512);
	KT_EXPECT_ON(mem, KT_HUGE, kt.ddr);
	KT_EXPECT_ON(mem + KT_HUGE, KT_HUGE, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

/*
 * Granules of small pages in Ferry's heap that may become huge: all but some do, as they
 * move, and not by the kernel's copying them together first.
 */
static void small_pages_become_huge(void)
{
	enum { FIRST, HOLE, AGAINST, HELD, PARTLY_THERE, GRANULES = 8 };
	const size_t len = GRANULES * KT_HUGE, hole = HOLE * KT_HUGE + 9 * kt.page;
	struct iovec iov;
	long collapsed;
	char *mem;
	int fd[2];

	if (!api_engine_is("relocate"))
		kt_skip("not this engine's");
	KT_REQUIRE(!ferry_posix_memalign((void **)&mem, KT_HUGE, len, FERRY_DDR),
		   "no memory");
	KT_REQUIRE(!madvise(mem, len, MADV_NOHUGEPAGE), "madvise: %m");
	kt_fill(mem, len, SEED);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_REQUIRE(!madvise(mem, len, MADV_HUGEPAGE), "madvise: %m");
	KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), 0);

	KT_REQUIRE(!madvise(mem + hole, kt.page, MADV_DONTNEED), "madvise: %m");
	KT_REQUIRE(!madvise(mem + AGAINST * KT_HUGE, KT_HUGE, MADV_NOHUGEPAGE),
		   "madvise: %m");
	iov = (struct iovec){mem + HELD * KT_HUGE + 17 * kt.page, kt.page};
	KT_REQUIRE(!pipe(fd) && vmsplice(fd[1], &iov, 1, 0) == (ssize_t)kt.page,
		   "vmsplice: %m");
	API_EXPECT(api_migrate(mem + PARTLY_THERE * KT_HUGE, KT_HUGE / 2, kt.hbm, 0),
		   .moved = 256);

	collapsed = kt_file_key("/proc/vmstat", "thp_collapse_alloc");
	API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = GRANULES * 512 - 258,
		   .already = 256, .hole = 1, .busy = 1);
	KT_EXPECT_EQ(kt_file_key("/proc/vmstat", "thp_collapse_alloc"), collapsed);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), GRANULES * 512 - 2);
	KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), (GRANULES - 3) * 2048);
	KT_EXPECT_EQ(kt_bad(mem, len, SEED), kt.page / sizeof(uint64_t));
	KT_EXPECT_EQ(mem[hole], 0);

	/* And back, as what they are now. */
	API_EXPECT(api_migrate_async(mem, len, kt.ddr, 0), .moved = GRANULES * 512 - 2,
		   .already = 1, .hole = 1);
	KT_EXPECT_ON(mem, hole, kt.ddr);
	KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), (GRANULES - 3) * 2048);
	KT_EXPECT_EQ(kt_bad(mem, len, SEED), kt.page / sizeof(uint64_t));
}

/* By a line of numa_maps, which tells of pages, for mappings that have huge ones. */
static long huge_pages_in(const char *line, int node)
{
	void *mapping = (void *)strtoul(line, NULL, 16);
	char field[16];
	const char *found;

	snprintf(field, sizeof(field), " N%d=", node);
	found = strstr(line, field);
	if (!found || kt_smaps(mapping, 1, "AnonHugePages") <= 0)
		return 0;
	return strtol(found + strlen(field), NULL, 10) / 512;
}

/* Huge pages on @node that map any memory of this process. */
static long huge_pages_on(int node)
{
	FILE *file = fopen("/proc/self/numa_maps", "re");
	char line[1024];
	long sum = 0;

	KT_REQUIRE(file, "numa_maps: %m");
	while (fgets(line, sizeof(line), file))
		sum += huge_pages_in(line, node);
	fclose(file);
	return sum;
}

/* Huge pages that relocation has moved to HBM and back, so that it has kept some. */
static char *there_and_back(size_t len)
{
	char *mem = kt_alloc_huge(len);

	if (!api_relocates())
		kt_skip("not this engine's");
	kt_fill_on(mem, len, kt.ddr, SEED);
	if (kt_smaps(mem, len, "AnonHugePages") != (long)len / 1024)
		kt_skip("no huge pages");
	API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = len / kt.page);
	API_EXPECT(api_migrate(mem, len, kt.ddr, 0), .moved = len / kt.page);
	return mem;
}

/* What relocation keeps for the next ones is within the HBM limit. */
static void kept_within_limit(void)
{
	const size_t len = 16 * KT_HUGE;
	char *mem;

	setenv("FERRY_HBM_LIMIT", "4M", 1);
	mem = there_and_back(len);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_EQ(huge_pages_on(kt.hbm), 2);
}

/* What was kept for the next ones, and has gone elsewhere since, is not taken for them.
 */
static void kept_may_move(void)
{
	const size_t len = 8 * KT_HUGE;
	unsigned long hbm = 1UL << kt.hbm, ddr = 1UL << kt.ddr;
	char *mem = there_and_back(len);

	KT_EXPECT(huge_pages_on(kt.hbm) > 0, "none was kept");
	KT_REQUIRE(!syscall(SYS_migrate_pages, 0, KT_MAX_NODE, &hbm, &ddr),
		   "migrate_pages: %m");
	KT_EXPECT_EQ(huge_pages_on(kt.hbm), 0);
	API_EXPECT(api_migrate(mem, len, kt.hbm, 0), .moved = len / kt.page);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), len / 1024);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* NUMA balancing does not draw it elsewhere: it has a memory policy. */
static void kept_stays(void)
{
	const size_t len = 8 * KT_HUGE;
	char *mem = there_and_back(len);
	char line[1024];
	FILE *file;

	KT_REQUIRE(!munmap(mem, len), "munmap: %m");
	KT_EXPECT(huge_pages_on(kt.hbm) > 0, "none was kept");
	/* Else numa_maps shows the thread's policy where the memory has none. */
	KT_REQUIRE(!syscall(SYS_set_mempolicy, 0, NULL, 0), "set_mempolicy: %m");
	file = fopen("/proc/self/numa_maps", "re");
	KT_REQUIRE(file, "numa_maps: %m");
	while (fgets(line, sizeof(line), file))
		KT_EXPECT(!huge_pages_in(line, kt.hbm) || !strstr(line, " default "),
			  "no policy: %s", line);
	fclose(file);
}

/* For what moves next, but not for ever. */
static void kept_for_some_time(void)
{
	const size_t len = 8 * KT_HUGE;
	const long others = huge_pages_on(kt.ddr);
	char *mem = there_and_back(len);

	KT_REQUIRE(!munmap(mem, len), "munmap: %m");
	KT_EXPECT(huge_pages_on(kt.hbm) > 0, "none was kept");
	for (int i = 0; i < 400 && huge_pages_on(kt.hbm) + huge_pages_on(kt.ddr) > others;
	     i++)
		usleep(100000);
	KT_EXPECT_EQ(huge_pages_on(kt.hbm), 0);
	KT_EXPECT_EQ(huge_pages_on(kt.ddr), others);
	/* And it still works. */
	mem = there_and_back(len);
	KT_EXPECT_DATA(mem, len, SEED);
}

static const struct kt_case cases[] = {
	API_CASE(huge_pages),        API_CASE(relocates),
	API_CASE(huge_page_pinned),  API_CASE(small_pages_become_huge),
	API_CASE(kept_within_limit), API_CASE(kept_may_move),
	API_CASE(kept_stays),        API_CASE(kept_for_some_time),
};

int main(int argc, char **argv)
{
	return api_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
