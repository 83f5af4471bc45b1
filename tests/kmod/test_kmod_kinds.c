/* SPDX-License-Identifier: MIT */
/*
 * Proves what happens to mappings of other kinds: files, shared memory, hugetlb
 * and special mappings are unsupported and left alone; huge pages are counted as
 * huge and stay whole; stack, heap and /dev/zero follow what they are. What
 * userfaultfd watches: test_kmod_uffd. Single-threaded.
 */
#include "kmod_test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { SEED = 31, PAGES = 32 };

/* All pages are unsupported, with and without populating, and nothing changes. */
static void expect_unsupported(const char *what, void *addr, size_t len)
{
	size_t pages = len / kt.page;
	int *before = malloc(pages * sizeof(int)), *after = malloc(pages * sizeof(int));
	struct ferry_ioc_result res;

	KT_REQUIRE(before && after, "malloc");
	kt_nodes(addr, len, before);
	for (unsigned int flags = 0; flags <= FERRY_RANGE_POPULATE; flags++) {
		for (int i = 0; i < 2; i++) {
			int node = i ? kt.ddr : kt.hbm;
			long ret = kt_migrate(addr, len, node, flags, &res);

			KT_EXPECT(ret == 0, "%s: returned %ld", what, ret);
			KT_EXPECT(!res.error && res.unsupported == pages &&
					  kt_sum(&res) == pages,
				  "%s: error %d, unsupported %llu and hole %llu of %zu",
				  what, res.error, (unsigned long long)res.unsupported,
				  (unsigned long long)res.hole, pages);
		}
	}
	kt_nodes(addr, len, after);
	KT_EXPECT(!memcmp(before, after, pages * sizeof(int)), "%s: pages moved", what);
	free(before);
	free(after);
}

static void files(void)
{
	size_t len = PAGES * kt.page;
	char path[] = "/tmp/ferry-test-XXXXXX", *mem;
	int fd = mkstemp(path);

	KT_REQUIRE(fd >= 0, "%s: %m", path);
	unlink(path);
	KT_REQUIRE(ftruncate(fd, (off_t)len) == 0, "ftruncate: %m");

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	kt_fill(mem, len, SEED);
	expect_unsupported("shared file", mem, len);
	KT_EXPECT_DATA(mem, len, SEED);

	/* Half read from the file, a quarter copied on write, a quarter untouched. */
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	KT_EXPECT_DATA(mem, len / 2, SEED);
	kt_fill(mem, len / 4, SEED + 1);
	expect_unsupported("private file", mem, len);
	KT_EXPECT_DATA(mem, len / 4, SEED + 1);

	expect_unsupported("program text", (void *)((uintptr_t)kt_main & -kt.page),
			   kt.page);
}

static void shared_memory(void)
{
	size_t len = PAGES * kt.page;
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			 -1, 0);
	int fd = memfd_create("test", MFD_CLOEXEC);

	KT_REQUIRE(mem != MAP_FAILED && fd >= 0, "mmap: %m");
	kt_fill(mem, len / 2, SEED);
	expect_unsupported("shared anonymous", mem, len);
	KT_EXPECT_DATA(mem, len / 2, SEED);

	KT_REQUIRE(ftruncate(fd, (off_t)len) == 0, "ftruncate: %m");
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	kt_fill(mem, len, SEED);
	expect_unsupported("memfd", mem, len);
	KT_EXPECT_DATA(mem, len, SEED);
}

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08 /* Linux 6.11 */
#endif

/* Memory that the kernel itself cannot see, where it is to be had. */
static void secret_memory(void)
{
	size_t len = PAGES * kt.page;
	int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
	char *mem;

	if (fd < 0)
		kt_skip("memfd_secret: %m");
	KT_REQUIRE(ftruncate(fd, (off_t)len) == 0, "ftruncate: %m");
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	KT_REQUIRE(mem != MAP_FAILED, "mmap: %m");
	kt_fill(mem, len, SEED);
	expect_unsupported("secret memory", mem, len);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* Anonymous memory that may be gone at any time: each page all there or zeros. */
static void droppable(void)
{
	size_t len = PAGES * kt.page;
	char *right = kt_alloc(len);
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_DROPPABLE,
			 -1, 0);

	if (mem == MAP_FAILED)
		kt_skip("no droppable memory in this kernel: %m");
	kt_fill(right, len, SEED);
	kt_fill(mem, len, SEED);
	expect_unsupported("droppable", mem, len);
	for (size_t at = 0; at < len; at += kt.page)
		KT_EXPECT(*(uint64_t *)(mem + at) == 0 ||
				  !memcmp(mem + at, right + at, kt.page),
			  "page %zu holds something else", at / kt.page);
}

/* Device memory (VM_IO, VM_PFNMAP): the firmware's ROM. */
static void device_memory(void)
{
	const size_t len = 64 << 10;
	int fd = open("/dev/mem", O_RDONLY | O_CLOEXEC);
	uint64_t sum[2] = {0, 0};
	const char *mem;

	if (fd < 0)
		kt_skip("/dev/mem: %m");
	mem = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0xf0000);
	if (mem == MAP_FAILED)
		kt_skip("mmap of /dev/mem: %m");
	for (int i = 0; i < 2; i++) {
		for (size_t k = 0; k < len; k++)
			sum[i] = sum[i] * 31 + (unsigned char)mem[k];
		if (!i)
			expect_unsupported("device memory", (void *)mem, len);
	}
	KT_EXPECT(sum[0] == sum[1], "the ROM reads otherwise");
}

static void special(void)
{
	const char *name[] = {"[vdso]", "[vvar]"};

	for (int i = 0; i < 2; i++) {
		struct ferry_ioc_result res;
		size_t len;
		void *addr = kt_find_map(name[i], &len);

		if (!addr)
			continue;
		KT_EXPECT_EQ(kt_migrate(addr, len, kt.hbm, FERRY_RANGE_POPULATE, &res),
			     0);
		KT_EXPECT_RESULT(&res, .unsupported = len / kt.page);
	}
}

static void hugetlb(void)
{
	const char *knob = "/proc/sys/vm/nr_hugepages";
	char old[32];
	void *mem;

	if (!kt_read_file(knob, old, sizeof(old)))
		kt_skip("no hugetlb in this kernel");
	kt_write_file(knob, "8");
	mem = mmap(NULL, 2 * KT_HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT, -1,
		   0);
	if (mem == MAP_FAILED) {
		kt_write_file(knob, old);
		kt_skip("no hugetlb pages: %m");
	}
	kt_fill(mem, KT_HUGE, SEED); /* the second page stays untouched */
	expect_unsupported("hugetlb", mem, 2 * KT_HUGE);
	KT_EXPECT_DATA(mem, KT_HUGE, SEED);
	/* A range may begin and end inside a hugetlb page. */
	expect_unsupported("part of hugetlb", (char *)mem + 3 * kt.page, KT_HUGE);
	munmap(mem, 2 * KT_HUGE);
	kt_write_file(knob, old);
}

/* Stack, heap and private /dev/zero: plain anonymous memory by another door. */
static void by_other_doors(void)
{
	size_t len = PAGES * kt.page;
	char stack[(PAGES + 1) * 4096], *mem;
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	struct ferry_ioc_result res;

	mem = (char *)(((uintptr_t)stack + kt.page - 1) & -kt.page);
	kt_fill_on(mem, len, kt.ddr, SEED);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), PAGES);
	KT_EXPECT_RESULT(&res, .moved = PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);

	mem = (char *)(((uintptr_t)sbrk((intptr_t)(len + kt.page)) + kt.page - 1) &
		       -kt.page);
	kt_fill_on(mem, len, kt.ddr, SEED);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), PAGES);
	KT_EXPECT_RESULT(&res, .moved = PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);

	/* The kernel makes such a mapping anonymous; either answer is sound. */
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	kt_fill_on(mem, len, kt.ddr, SEED);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), res.moved);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT(res.moved == PAGES || res.unsupported == PAGES,
		  "moved %llu, unsupported %llu", (unsigned long long)res.moved,
		  (unsigned long long)res.unsupported);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), res.moved);
	KT_EXPECT_DATA(mem, len, SEED);

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	kt_fill(mem, len, SEED);
	expect_unsupported("shared /dev/zero", mem, len);
}

/* Huge pages stay whole, whatever part of them is asked for. */
static void huge(void)
{
	size_t len = 2 * KT_HUGE;
	char *mem = kt_alloc_huge(len);
	struct ferry_ioc_result res;

	kt_fill_on(mem, len, kt.ddr, SEED);
	if (kt_smaps(mem, len, "AnonHugePages") != (long)(len / 1024))
		kt_skip("no huge pages to be had");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .huge = 1024);
	KT_EXPECT_EQ(kt_migrate(mem + 7 * kt.page, 16 * kt.page, kt.hbm, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .huge = 16);
	KT_EXPECT_EQ(kt_migrate(mem + KT_HUGE - kt.page, 2 * kt.page, kt.hbm,
				FERRY_RANGE_POPULATE, &res),
		     0);
	KT_EXPECT_RESULT(&res, .huge = 2);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), len / 1024);

	/* On its target already: whichever of the two words, it stays whole. */
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.ddr, 0, &res), 0);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.already + res.huge, 1024);
	KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), len / 1024);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* Huge, small and no pages in one range. */
static void huge_between_small(void)
{
	size_t len = 3 * KT_HUGE;
	char *mem = kt_alloc_huge(len);
	struct ferry_ioc_result res;

	madvise(mem, KT_HUGE, MADV_NOHUGEPAGE);
	madvise(mem + 2 * KT_HUGE, KT_HUGE, MADV_NOHUGEPAGE);
	kt_fill_on(mem, 2 * KT_HUGE + 20 * kt.page, kt.ddr, SEED);
	if (kt_smaps(mem, len, "AnonHugePages") != KT_HUGE / 1024)
		kt_skip("no huge pages to be had");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), 532);
	KT_EXPECT_RESULT(&res, .moved = 532, .huge = 512, .hole = 492);
	KT_EXPECT_ON(mem, KT_HUGE, kt.hbm);
	KT_EXPECT_ON(mem + KT_HUGE, KT_HUGE, kt.ddr);
	KT_EXPECT_ON(mem + 2 * KT_HUGE, 20 * kt.page, kt.hbm);
	KT_EXPECT_EQ(kt_smaps(mem, len, "AnonHugePages"), KT_HUGE / 1024);
	KT_EXPECT_DATA(mem, 2 * KT_HUGE + 20 * kt.page, SEED);
}

/*
 * A huge page mapped by small entries: moved or left, as the kernel can, but
 * counted, found where the counts say, and with its data.
 */
static void huge_mapped_small(void)
{
	char *mem = kt_alloc_huge(KT_HUGE);
	struct ferry_ioc_result res;

	kt_fill_on(mem, KT_HUGE, kt.ddr, SEED);
	if (kt_smaps(mem, KT_HUGE, "AnonHugePages") != KT_HUGE / 1024)
		kt_skip("no huge pages to be had");
	mprotect(mem + 8 * kt.page, 8 * kt.page, PROT_READ);
	mprotect(mem + 8 * kt.page, 8 * kt.page, PROT_READ | PROT_WRITE);
	KT_EXPECT_EQ(kt_smaps(mem, KT_HUGE, "AnonHugePages"), 0);
	KT_EXPECT_EQ(kt_migrate(mem, KT_HUGE, kt.hbm, 0, &res), res.moved);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.moved + res.busy + res.huge, 512);
	KT_EXPECT_EQ(kt_on(mem, KT_HUGE, kt.hbm), res.moved);
	KT_EXPECT_DATA(mem, KT_HUGE, SEED);
	printf("    mapped by small entries: moved %llu, busy %llu, huge %llu\n",
	       (unsigned long long)res.moved, (unsigned long long)res.busy,
	       (unsigned long long)res.huge);

	/* The same with part of it given back. */
	madvise(mem, 64 * kt.page, MADV_DONTNEED);
	KT_EXPECT_EQ(kt_migrate(mem, KT_HUGE, kt.hbm, 0, &res), res.moved);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.hole, 64);
	KT_EXPECT_SUM(&res, KT_HUGE);
	kt_fill(mem, 64 * kt.page, SEED);
	KT_EXPECT_DATA(mem, KT_HUGE, SEED);
}

/* The huge zero page is nothing but zeros: a hole. */
static void huge_zero_page(void)
{
	volatile char *mem = kt_alloc_huge(KT_HUGE);
	struct ferry_ioc_result res;

	KT_EXPECT_EQ(mem[5], 0);
	KT_EXPECT_EQ(kt_migrate((void *)mem, KT_HUGE, kt.hbm, 0, &res), 0);
	KT_EXPECT_RESULT(&res, .hole = 512);
	KT_EXPECT_EQ(mem[5], 0);
	KT_EXPECT_EQ(kt_migrate((void *)mem, KT_HUGE, kt.hbm, FERRY_RANGE_POPULATE, &res),
		     res.populated);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.populated + res.hole, 512);
	KT_EXPECT_EQ(kt_on((void *)mem, KT_HUGE, kt.hbm), res.populated);
	KT_EXPECT_EQ(mem[5], 0);
	kt_fill((void *)mem, KT_HUGE, SEED);
	KT_EXPECT_DATA((void *)mem, KT_HUGE, SEED);
}

/* Folios of 64 KiB (6.8 and later), mapped by small entries. */
static void middle_sized(void)
{
	const char *knob = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled";
	size_t len = 16 * 16 * kt.page;
	struct ferry_ioc_result res;
	char *mem;

	if (!kt_write_file(knob, "madvise"))
		kt_skip("this kernel has no 64 KiB pages");
	mem = kt_alloc_huge(KT_HUGE);
	kt_fill_on(mem + KT_HUGE / 2, len, kt.ddr, SEED);
	kt_write_file(knob, "never");
	mem += KT_HUGE / 2;
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), res.moved);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.moved + res.busy + res.huge, 256);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), res.moved);
	KT_EXPECT_DATA(mem, len, SEED);
}

static const struct kt_case cases[] = {
	KT_CASE(files),
	KT_CASE(shared_memory),
	KT_CASE(special),
	KT_CASE(device_memory),
	KT_CASE(secret_memory),
	KT_CASE(droppable),
	KT_CASE(hugetlb),
	KT_CASE(by_other_doors),
	KT_CASE(huge),
	KT_CASE(huge_between_small),
	KT_CASE(huge_mapped_small),
	KT_CASE(huge_zero_page),
	KT_CASE(middle_sized),
};

KT_MAIN(cases)
