/* SPDX-License-Identifier: MIT */
/*
 * Proves what happens to mappings of other kinds: files, shared memory, hugetlb
 * and special mappings are unsupported and left alone; huge pages are counted as
 * huge and stay whole; stack, heap and /dev/zero follow what they are; and
 * userfaultfd's registrations keep their meaning. Single-threaded.
 */
#include "kmod_test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
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

/* ---- userfaultfd --------------------------------------------------------- */

static int uffd_open(uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		kt_skip("userfaultfd: %m");
	if (ioctl(fd, UFFDIO_API, &api) != 0)
		kt_skip("UFFDIO_API: %m");
	return fd;
}

static void uffd_register(int fd, void *mem, size_t len, uint64_t mode)
{
	struct uffdio_register reg = {
		.range = {.start = (uintptr_t)mem, .len = len},
		.mode = mode,
	};

	KT_REQUIRE(ioctl(fd, UFFDIO_REGISTER, &reg) == 0, "UFFDIO_REGISTER: %m");
}

static void *write_word(void *at)
{
	*(volatile uint64_t *)at = 0;
	return NULL;
}

/* Waits for the fault that a write to @at is to raise; false when none comes. */
static bool uffd_faulted(int fd, char *at, uint64_t flag, pthread_t *writer)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};
	struct uffd_msg msg;

	pthread_create(writer, NULL, write_word, at);
	if (poll(&poller, 1, 3000) != 1 || read(fd, &msg, sizeof(msg)) != sizeof(msg))
		return false;
	return msg.event == UFFD_EVENT_PAGEFAULT &&
	       msg.arg.pagefault.address / kt.page == (uintptr_t)at / kt.page &&
	       (!flag || msg.arg.pagefault.flags & flag);
}

/* A page somebody's handler will supply is not populated over its head. */
static void uffd_missing(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc(len), *source = kt_alloc_on(kt.page, kt.ddr, SEED);
	int fd = uffd_open(0);
	struct ferry_ioc_result res;
	struct uffdio_copy copy;
	pthread_t writer;

	kt_fill_on(mem, 8 * kt.page, kt.ddr, SEED);
	uffd_register(fd, mem, len, UFFDIO_REGISTER_MODE_MISSING);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, FERRY_RANGE_POPULATE, &res), 8);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.moved, 8);
	KT_EXPECT_EQ(res.populated, 0);
	KT_EXPECT_SUM(&res, len);
	KT_EXPECT_ON(mem, 8 * kt.page, kt.hbm);
	KT_EXPECT_EQ(kt_smaps(mem, len, "Rss"), 8 * kt.page / 1024);

	KT_EXPECT(uffd_faulted(fd, mem + 20 * kt.page, 0, &writer),
		  "the fault went unseen");
	copy = (struct uffdio_copy){.dst = (uintptr_t)mem + 20 * kt.page,
				    .src = (uintptr_t)source,
				    .len = kt.page};
	KT_EXPECT(ioctl(fd, UFFDIO_COPY, &copy) == 0, "UFFDIO_COPY: %m");
	pthread_join(writer, NULL);
	KT_EXPECT_DATA(mem, 8 * kt.page, SEED);
}

/* Write protection moves with the page. */
static void uffd_write_protected(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	int fd = uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	struct uffdio_writeprotect protect = {
		.range = {.start = (uintptr_t)mem, .len = len},
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	struct ferry_ioc_result res;
	pthread_t writer;

	uffd_register(fd, mem, len, UFFDIO_REGISTER_MODE_WP);
	KT_REQUIRE(ioctl(fd, UFFDIO_WRITEPROTECT, &protect) == 0,
		   "UFFDIO_WRITEPROTECT: %m");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), res.moved);
	KT_EXPECT_EQ(res.error, 0);
	KT_EXPECT_EQ(res.moved + res.busy, PAGES);
	KT_EXPECT_EQ(kt_on(mem, len, kt.hbm), res.moved);
	KT_EXPECT(uffd_faulted(fd, mem + 3 * kt.page, UFFD_PAGEFAULT_FLAG_WP, &writer),
		  "a write to a protected page went unseen");
	KT_EXPECT_DATA(mem, len, SEED);
	protect.mode = 0;
	KT_EXPECT(ioctl(fd, UFFDIO_WRITEPROTECT, &protect) == 0,
		  "UFFDIO_WRITEPROTECT: %m");
	pthread_join(writer, NULL);
	KT_EXPECT_DATA(mem, 3 * kt.page, SEED);
	KT_EXPECT_EQ(*(uint64_t *)(mem + 3 * kt.page), 0);
}

static const struct kt_case cases[] = {
	KT_CASE(files),
	KT_CASE(shared_memory),
	KT_CASE(special),
	KT_CASE(hugetlb),
	KT_CASE(by_other_doors),
	KT_CASE(huge),
	KT_CASE(huge_between_small),
	KT_CASE(huge_mapped_small),
	KT_CASE(huge_zero_page),
	KT_CASE(middle_sized),
	KT_CASE(uffd_missing),
	KT_CASE(uffd_write_protected),
};

KT_MAIN(cases)
