/* SPDX-License-Identifier: MIT */
/*
 * Proves that FERRY_IOC_SCAN tells which pages were touched since the last scan
 * and no others: small and huge pages, granules of all sizes, holes and gaps;
 * that reading leaves the bits; that wrong arguments are refused and clear no
 * bit; that it goes together with migration; and what it costs, whatever share
 * of the pages was accessed, and of huge pages (with FERRY_TEST_ICOUNT=1 under --icount
 * the time is instructions, and limited).
 *
 * A CPU that still holds a translation sets no accessed bit, so the TLB is
 * flushed before memory is touched (flush_tlb()); the main thread keeps to one
 * CPU for that.
 */
#include "kmod_test.h"
#include "kmod_uring.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <sys/mman.h>

enum { SEED = 107, SCRATCH_PAGES = 256, LIMIT_PER_PAGE = 40, LIMIT_PER_HUGE = 400 };

/* Changing the protection of many touched pages flushes all of the process. */
static void flush_tlb(void)
{
	static char *scratch;
	size_t len = SCRATCH_PAGES * kt.page;

	if (!scratch) {
		scratch = kt_alloc(len);
		kt_fill(scratch, len, 0);
	}
	mprotect(scratch, len, PROT_READ);
	mprotect(scratch, len, PROT_READ | PROT_WRITE);
	for (size_t i = 0; i < SCRATCH_PAGES; i++)
		((volatile char *)scratch)[i * kt.page] = 0;
}

static void stay_here(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	KT_REQUIRE(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity: %m");
	/* Its scratch memory must not come up later, in a gap that a test has made. */
	flush_tlb();
}

static struct ferry_ioc_scan scan_of(const void *addr, size_t len, size_t granule,
				     unsigned int flags, struct ferry_scan_row *row,
				     size_t rows)
{
	return (struct ferry_ioc_scan){
		.size = sizeof(struct ferry_ioc_scan),
		.flags = flags,
		.addr = (uintptr_t)addr,
		.len = len,
		.granule_bytes = granule,
		.out = (uintptr_t)row,
		.out_bytes = rows * sizeof(*row),
	};
}

/* Scans, and flushes the TLB so that what is touched next is seen. */
static void scan(const void *addr, size_t len, size_t granule, unsigned int flags,
		 struct ferry_scan_row *row, size_t rows)
{
	struct ferry_ioc_scan arg = scan_of(addr, len, granule, flags, row, rows);
	long ret;

	memset(row, 0xa5, rows * sizeof(*row));
	ret = kt_ioctl(kt.fd, FERRY_IOC_SCAN, &arg);
	KT_EXPECT(ret == 0, "the scan returned %ld", ret);
	flush_tlb();
}

static void expect_row(const struct ferry_scan_row *row, unsigned int present,
		       unsigned int accessed, unsigned int huge, int line)
{
	kt_expect(
		row->present == present && row->accessed == accessed && row->huge == huge,
		__FILE__, line, "present %u accessed %u huge %u, expected %u, %u and %u",
		row->present, row->accessed, row->huge, present, accessed, huge);
}
#define EXPECT_ROW(row, present, accessed, huge)                                         \
	expect_row((row), (present), (accessed), (huge), __LINE__)

static void touch(char *addr, size_t pages, bool write)
{
	volatile char *at = addr;

	for (size_t i = 0; i < pages; i++, at += kt.page) {
		char byte = *at;

		if (write)
			*at = byte;
	}
}

static char *small(size_t granules)
{
	char *mem = kt_alloc_huge(granules * KT_HUGE);

	madvise(mem, granules * KT_HUGE, MADV_NOHUGEPAGE);
	return mem;
}

static void touched(void)
{
	char *mem = small(4);
	struct ferry_scan_row row[4], page[512];

	stay_here();
	kt_fill(mem, 4 * KT_HUGE, SEED);
	scan(mem, 4 * KT_HUGE, KT_HUGE, 0, row, 4);
	for (size_t i = 0; i < 4; i++) {
		EXPECT_ROW(&row[i], 512, 512, 0);
		KT_EXPECT_EQ(row[i].dirty, 512);
	}
	scan(mem, 4 * KT_HUGE, KT_HUGE, 0, row, 4);
	for (size_t i = 0; i < 4; i++)
		EXPECT_ROW(&row[i], 512, 0, 0);

	touch(mem + 100 * kt.page, 10, false);
	touch(mem + KT_HUGE, 20, true);
	touch(mem + 3 * KT_HUGE, 512, false);
	scan(mem, 4 * KT_HUGE, KT_HUGE, FERRY_SCAN_PEEK, row, 4);
	EXPECT_ROW(&row[0], 512, 10, 0);
	scan(mem, KT_HUGE, kt.page, 0, page, 512); /* still there */
	for (size_t i = 0; i < 512; i++)
		EXPECT_ROW(&page[i], 1, i >= 100 && i < 110, 0);
	scan(mem, 4 * KT_HUGE, KT_HUGE, 0, row, 4);
	EXPECT_ROW(&row[0], 512, 0, 0);
	EXPECT_ROW(&row[1], 512, 20, 0);
	EXPECT_ROW(&row[2], 512, 0, 0);
	EXPECT_ROW(&row[3], 512, 512, 0);
	KT_EXPECT_EQ(row[0].dirty, 512); /* only read */
	KT_EXPECT_DATA(mem, 4 * KT_HUGE, SEED);
}

/* Pages of a file that were only read are clean. */
static void dirty(void)
{
	const size_t len = 32 * kt.page;
	FILE *file = tmpfile();
	struct ferry_scan_row row[32];
	char *text = calloc(1, len), *map;

	stay_here();
	KT_REQUIRE(file && text && fwrite(text, len, 1, file) == 1 && fflush(file) == 0,
		   "tmpfile: %m");
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(file), 0);
	KT_REQUIRE(map != MAP_FAILED, "mmap: %m");
	touch(map, 32, false);
	touch(map + 8 * kt.page, 4, true);
	scan(map, len, kt.page, 0, row, 32);
	for (size_t i = 0; i < 32; i++) {
		EXPECT_ROW(&row[i], 1, 1, 0);
		KT_EXPECT_EQ(row[i].dirty, i >= 8 && i < 12);
	}
}

static void huge(void)
{
	char *mem = kt_alloc_huge(2 * KT_HUGE);
	struct ferry_scan_row row[64];

	stay_here();
	kt_fill(mem, 2 * KT_HUGE, SEED);
	if (kt_smaps(mem, 2 * KT_HUGE, "AnonHugePages") != 4096)
		kt_skip("no huge pages to be had");
	scan(mem, 2 * KT_HUGE, KT_HUGE, 0, row, 2);
	EXPECT_ROW(&row[0], 512, 512, 512);
	EXPECT_ROW(&row[1], 512, 512, 512);
	touch(mem + KT_HUGE + 77 * kt.page, 1, false);
	scan(mem, 2 * KT_HUGE, 64 << 10, FERRY_SCAN_PEEK, row, 64);
	for (size_t i = 0; i < 64; i++)
		EXPECT_ROW(&row[i], 16, i < 32 ? 0 : 16, 16);
	scan(mem + KT_HUGE + 5 * kt.page, 3 * kt.page, KT_HUGE, 0, row, 1);
	EXPECT_ROW(&row[0], 3, 3, 3);
	scan(mem, 2 * KT_HUGE, 2 * KT_HUGE, 0, row, 2);
	/* Perhaps they are in two granules, each met in half. */
	KT_EXPECT_EQ(row[0].huge + (row[1].huge == 0xa5a5 ? 0 : row[1].huge), 1024);
	KT_EXPECT_EQ(row[0].accessed, 0);
	KT_EXPECT_EQ(kt_smaps(mem, 2 * KT_HUGE, "AnonHugePages"), 4096);
	KT_EXPECT_DATA(mem, 2 * KT_HUGE, SEED);
}

/* Holes, zero pages, closed pages, gaps; granules met in part or over a gap. */
static void holes(void)
{
	const size_t page = kt.page, shift = 3 * page;
	char *mem = small(8);
	struct ferry_scan_row row[9];

	stay_here();
	kt_fill(mem + 10 * page, 30 * page, SEED);
	touch(mem + 50 * page, 10, false); /* the zero page */
	kt_fill(mem + 3 * KT_HUGE, KT_HUGE, SEED);
	mprotect(mem + 3 * KT_HUGE, 100 * page, PROT_NONE);
	munmap(mem + 3 * KT_HUGE + 200 * page, 2 * KT_HUGE);
	kt_fill(mem + 7 * KT_HUGE, 7 * page, SEED);

	scan(mem, 8 * KT_HUGE, KT_HUGE, FERRY_SCAN_PEEK, row, 8);
	for (size_t i = 0; i < 8; i++) {
		unsigned int there = i == 0 ? 30 : i == 3 ? 200 : i == 7 ? 7 : 0;

		EXPECT_ROW(&row[i], there, there, 0);
	}
	memset(row, 0xa5, sizeof(row));
	scan(mem + shift, 8 * KT_HUGE - 2 * shift, FERRY_SCAN_GRANULE_MAX, 0, row, 9);
	KT_EXPECT_EQ(row[0].present + (row[1].present == 0xa5a5 ? 0 : row[1].present),
		     237);
	KT_EXPECT_EQ((unsigned int)row[2].present, 0xa5a5);
	scan(mem, 8 * KT_HUGE, KT_HUGE, 0, row, 9);
	EXPECT_ROW(&row[0], 30, 0, 0);
	EXPECT_ROW(&row[3], 200, 0, 0);
	KT_EXPECT_EQ(row[8].present, 0xa5a5);
	touch(mem + 3 * KT_HUGE + 150 * page, 50, false);
	scan(mem + 3 * KT_HUGE + 190 * page, 100 * page, KT_HUGE, 0, row, 1);
	EXPECT_ROW(&row[0], 10, 10, 0);
}

/* Reservations that are nearly empty are passed over quickly. */
static void sparse(void)
{
	const size_t len = 1ul << 30, rows = len / KT_HUGE;
	struct ferry_scan_row *row = calloc(rows + 1, sizeof(*row));
	char *mem = kt_alloc(len);
	size_t present = 0;
	long rss;

	kt_fill(mem + len / 2, 8 * kt.page, SEED);
	flush_tlb(); /* its scratch area may be part of the same mapping */
	rss = kt_smaps(mem, len, "Rss");
	scan(mem, len, KT_HUGE, 0, row, rows + 1);
	for (size_t i = 0; i < rows; i++)
		present += row[i].present;
	present += row[rows].present == 0xa5a5 ? 0 : row[rows].present;
	KT_EXPECT_EQ(present, 8);
	KT_EXPECT_EQ(kt_smaps(mem, len, "Rss"), rss);
}

static void uring(void)
{
	char *mem = small(1);
	struct ferry_scan_row row = {0};
	struct ferry_ioc_scan arg = scan_of(mem, KT_HUGE, KT_HUGE, 0, &row, 1);
	struct io_uring ring;

	kt_fill(mem, 9 * kt.page, SEED);
	kt_ring_init(&ring, 4, 0);
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_SCAN, &arg), 0);
	EXPECT_ROW(&row, 9, 9, 0);
	arg.flags = 2;
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_SCAN, &arg), -EINVAL);
	io_uring_queue_exit(&ring);
}

/* ---- arguments ------------------------------------------------------------ */

static struct {
	struct ferry_ioc_scan arg;
	uint64_t tail;
} b;
static struct ferry_scan_row out[64];
static char *area;

static void refused(const char *what, int err)
{
	long ret = kt_ioctl(kt.fd, FERRY_IOC_SCAN, &b.arg);
	struct ferry_scan_row row;

	KT_EXPECT(ret == -err, "%s: returned %ld, expected -%s", what, ret,
		  strerrorname_np(err));
	b.arg = scan_of(area, KT_HUGE, KT_HUGE, FERRY_SCAN_PEEK, &row, 1);
	b.tail = 0;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_SCAN, &b.arg), 0);
	KT_EXPECT(row.accessed == 16, "%s: it cleared %d bits", what, 16 - row.accessed);
	b.arg = scan_of(area, KT_HUGE, 64 << 10, 0, out, 32);
}

static void arguments(void)
{
	const uint64_t granule[] = {0, 1, 2048, 4097, 3 << 12, 1ul << 28, ~0ul};

	KT_EXPECT(kt.info.features & FERRY_FEATURE_SCAN, "the feature is not told of");
	area = small(1);
	kt_fill(area, 16 * kt.page, SEED);
	b.arg = scan_of(area, KT_HUGE, 64 << 10, 0, out, 32);
	for (size_t i = 0; i < sizeof(granule) / sizeof(granule[0]); i++) {
		b.arg.granule_bytes = granule[i];
		refused("a wrong granule", EINVAL);
	}
	for (int bit = 1; bit < 32; bit++) {
		b.arg.flags = 1u << bit;
		refused("an unknown flag", EINVAL);
	}
	b.arg.size = 0;
	refused("size 0", EINVAL);
	b.arg.size = 24;
	refused("size 24", EINVAL);
	b.arg.size = sizeof(b);
	b.tail = 1;
	refused("a longer struct with a tail", E2BIG);
	b.arg.addr++;
	refused("unaligned address", EINVAL);
	b.arg.len++;
	refused("unaligned length", EINVAL);
	b.arg.len = 0;
	refused("length 0", EINVAL);
	b.arg.len = -(uint64_t)kt.page;
	refused("a length that wraps", EINVAL);
	b.arg.addr = 0xffff888000000000u;
	refused("a range in the kernel", EINVAL);
	b.arg.out_bytes--;
	refused("one byte too little room", ENOSPC);
	b.arg.out = 0;
	refused("no output", EFAULT);
	b.arg.out = 0xffff888000001000u;
	refused("output in the kernel", EFAULT);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_SCAN, NULL), -EFAULT);
}

/* ---- beside migration ------------------------------------------------------ */

static atomic_bool stop;

static void *writer(void *arg)
{
	_Atomic uint64_t *word = arg;
	uint64_t n = 0;

	while (!atomic_load(&stop)) {
		for (size_t i = 0; i < 512; i++)
			atomic_fetch_add(&word[i * 512 + 511], 1);
		n++;
	}
	for (size_t i = 0; i < 512; i++)
		KT_EXPECT_EQ(atomic_load(&word[i * 512 + 511]), n);
	return NULL;
}

static void *scanner(void *arg)
{
	struct ferry_scan_row row;
	struct ferry_ioc_scan scan = scan_of(arg, KT_HUGE, KT_HUGE, 0, &row, 1);

	while (!atomic_load(&stop)) {
		KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_SCAN, &scan), 0);
		KT_EXPECT(row.present <= 512 && row.accessed <= row.present,
			  "present %u accessed %u", row.present, row.accessed);
	}
	return NULL;
}

static void beside_migration(void)
{
	char *mem = small(1);
	pthread_t thread[2];
	long moved = 0;

	for (size_t i = 0; i < 512; i++)
		memset(mem + i * kt.page, 0, kt.page);
	pthread_create(&thread[0], NULL, writer, mem);
	pthread_create(&thread[1], NULL, scanner, mem);
	for (unsigned int i = 0; i < kt_rounds(20); i++)
		moved += kt_migrate(mem, KT_HUGE, i % 2 ? kt.ddr : kt.hbm, 0, NULL);
	atomic_store(&stop, true);
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	KT_EXPECT(moved > 512, "%ld pages moved", moved);
}

/* ---- cost ------------------------------------------------------------------ */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/*
 * Scans memory of which every @every-th page was accessed, none if 0. Of some
 * rounds the cheapest counts: the machine has other work now and then.
 */
static void cost_of(char *mem, size_t granules, size_t every)
{
	enum { ROUNDS = 5 };
	const bool limited = getenv("FERRY_TEST_ICOUNT");
	const size_t pages = granules * 512;
	struct ferry_scan_row row[granules];
	struct ferry_ioc_scan arg =
		scan_of(mem, granules * KT_HUGE, KT_HUGE, 0, row, granules);
	uint64_t best = UINT64_MAX;

	for (int round = 0; round < ROUNDS; round++) {
		uint64_t begin, ns;

		flush_tlb();
		for (size_t i = 0; every && i < pages; i += every)
			touch(mem + i * kt.page, 1, false);
		begin = now_ns();
		KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_SCAN, &arg), 0);
		ns = now_ns() - begin;
		best = ns < best ? ns : best;
		EXPECT_ROW(&row[granules / 2], 512, every ? 512 / every : 0, 0);
	}
	printf("    %.1f ns a page, %zu of 512 accessed\n", (double)best / (double)pages,
	       every ? 512 / every : 0);
	KT_EXPECT(!limited || best <= LIMIT_PER_PAGE * pages,
		  "more than %d instructions a page", LIMIT_PER_PAGE);
}

static void cost(void)
{
	const size_t every[] = {2, 16, 0};
	enum { GRANULES = 16 };
	char *mem = small(GRANULES);

	stay_here();
	kt_fill(mem, GRANULES * KT_HUGE, SEED);
	/* What filling has accessed is not to be seen below. */
	cost_of(mem, GRANULES, 1);
	for (size_t i = 0; i < sizeof(every) / sizeof(every[0]); i++)
		cost_of(mem, GRANULES, every[i]);
}

/* A huge page is one entry, whatever it is mapped beside. */
static void cost_of_huge(void)
{
	enum { GRANULES = 128, ROUNDS = 5 };
	const uint32_t flags[] = {0, FERRY_SCAN_PEEK};
	char *mem = kt_huge_on(GRANULES, kt.ddr, SEED);
	struct ferry_scan_row row[GRANULES];

	stay_here();
	for (size_t f = 0; f < 2; f++) {
		struct ferry_ioc_scan arg = scan_of(mem, GRANULES * KT_HUGE, KT_HUGE,
						    flags[f], row, GRANULES);
		uint64_t best = UINT64_MAX;

		for (int round = 0; round < ROUNDS; round++) {
			uint64_t begin, ns;

			flush_tlb();
			for (size_t i = 0; i < GRANULES; i++)
				touch(mem + i * KT_HUGE, 1, false);
			begin = now_ns();
			KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_SCAN, &arg), 0);
			ns = now_ns() - begin;
			best = ns < best ? ns : best;
			KT_EXPECT_EQ(row[GRANULES / 2].huge, 512);
			KT_EXPECT_EQ(row[GRANULES / 2].accessed, 512);
		}
		printf("    %.0f ns a huge page%s\n", (double)best / GRANULES,
		       f ? ", bits left" : "");
		KT_EXPECT(!getenv("FERRY_TEST_ICOUNT") ||
				  best <= LIMIT_PER_HUGE * GRANULES,
			  "more than %d instructions a huge page", LIMIT_PER_HUGE);
	}
}

static const struct kt_case cases[] = {
	KT_CASE(touched),   KT_CASE(dirty),
	KT_CASE(huge),      KT_CASE(holes),
	KT_CASE(sparse),    KT_CASE(uring),
	KT_CASE(arguments), KT_CASE(beside_migration),
	KT_CASE(cost),      KT_CASE(cost_of_huge),
};

KT_MAIN(cases)
