/* SPDX-License-Identifier: MIT */
/*
 * Proves that FERRY_IOC_QUERY tells of every page what move_pages(2) tells, for
 * small, huge, file, shared, protected and missing pages on two nodes; that the
 * counts per granule follow from it; that pages held otherwise are told; that wrong
 * arguments are refused; and that a query changes nothing. Single-threaded.
 */
#include "kmod_test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { SEED = 41, SENTINEL = 0xa5 };

/* PROT_NONE memory in what is queried, if any. */
static struct {
	void *addr;
	size_t len;
} closed;

/*
 * The answer move_pages(2) gives, in the words of a query. That of 6.1 says
 * nothing of PROT_NONE memory, so it is opened for the moment.
 */
static void expected_pages(const void *addr, size_t len, __s16 *out)
{
	size_t pages = len / kt.page;
	int *status = malloc(pages * sizeof(*status));

	KT_REQUIRE(status, "malloc");
	if (closed.len)
		mprotect(closed.addr, closed.len, PROT_READ);
	kt_nodes(addr, len, status);
	if (closed.len)
		mprotect(closed.addr, closed.len, PROT_NONE);
	for (size_t i = 0; i < pages; i++)
		out[i] = (__s16)(status[i] < 0 ? FERRY_QUERY_HOLE : status[i]);
	free(status);
}

static struct ferry_ioc_query pages_query(const void *addr, size_t len, void *out,
					  size_t out_bytes)
{
	return (struct ferry_ioc_query){
		.size = sizeof(struct ferry_ioc_query),
		.mode = FERRY_QUERY_PAGES,
		.addr = (uintptr_t)addr,
		.len = len,
		.out = (uintptr_t)out,
		.out_bytes = out_bytes,
	};
}

/* Page by page against move_pages(2). */
static void check_pages(const char *what, const void *addr, size_t len)
{
	size_t pages = len / kt.page, wrong = 0, first = 0;
	__s16 *expected = malloc(pages * sizeof(*expected));
	__s16 *actual = malloc((pages + 1) * sizeof(*actual));
	struct ferry_ioc_query q =
		pages_query(addr, len, actual, pages * sizeof(*actual));
	long ret;

	KT_REQUIRE(expected && actual, "malloc");
	memset(actual, SENTINEL, (pages + 1) * sizeof(*actual));
	expected_pages(addr, len, expected);
	ret = kt_ioctl(kt.fd, FERRY_IOC_QUERY, &q);
	KT_EXPECT(ret == 0, "%s: returned %ld", what, ret);
	for (size_t i = 0; i < pages; i++)
		if (actual[i] != expected[i] && !wrong++)
			first = i;
	KT_EXPECT(wrong == 0,
		  "%s: %zu of %zu pages differ; page %zu is %d, move_pages says %d", what,
		  wrong, pages, first, actual[first], expected[first]);
	KT_EXPECT(actual[pages] == (__s16)0xa5a5, "%s: written behind the answer", what);
	expected_pages(addr, len, actual);
	KT_EXPECT(!memcmp(actual, expected, pages * sizeof(*actual)),
		  "%s: the query changed it", what);
	free(expected);
	free(actual);
}

/* Granule by granule against move_pages(2). */
static void check_counts(const void *addr, size_t len, size_t granule,
			 unsigned int nr_nodes)
{
	uintptr_t start = (uintptr_t)addr, base = start & -granule;
	size_t pages = len / kt.page, rows = (start + len - base + granule - 1) / granule;
	size_t cells = rows * nr_nodes;
	__s16 *page = malloc(pages * sizeof(*page));
	__u32 *expected = calloc(cells, sizeof(*expected));
	__u32 *actual = malloc((cells + 1) * sizeof(*actual));
	struct ferry_ioc_query q =
		pages_query(addr, len, actual, cells * sizeof(*actual));
	long ret;

	KT_REQUIRE(page && expected && actual, "malloc");
	memset(actual, SENTINEL, (cells + 1) * sizeof(*actual));
	expected_pages(addr, len, page);
	for (size_t i = 0; i < pages; i++)
		if (page[i] >= 0 && (unsigned int)page[i] < nr_nodes)
			expected[(start + i * kt.page - base) / granule * nr_nodes +
				 (size_t)page[i]]++;
	q.mode = FERRY_QUERY_COUNTS;
	q.granule_bytes = granule;
	q.nr_nodes = nr_nodes;
	ret = kt_ioctl(kt.fd, FERRY_IOC_QUERY, &q);
	KT_EXPECT(ret == 0, "granule %zx, %u nodes: returned %ld", granule, nr_nodes,
		  ret);
	KT_EXPECT(!memcmp(actual, expected, cells * sizeof(*actual)),
		  "granule %zx, %u nodes: wrong counts", granule, nr_nodes);
	KT_EXPECT(actual[cells] == 0xa5a5a5a5u, "granule %zx: written behind the answer",
		  granule);
	free(page);
	free(expected);
	free(actual);
}

/* Both nodes, holes, a gap, protections, a file and a huge page in one range. */
static char *mixed(size_t *len)
{
	char *mem = kt_alloc_huge(4 * KT_HUGE);
	size_t page = kt.page;
	volatile char *touch;
	FILE *file = tmpfile();
	char *map;

	madvise(mem, KT_HUGE, MADV_NOHUGEPAGE);
	madvise(mem + 2 * KT_HUGE, 2 * KT_HUGE, MADV_NOHUGEPAGE);
	kt_fill_on(mem, 40 * page, kt.ddr, SEED);
	kt_fill_on(mem + 60 * page, 70 * page, kt.hbm, SEED);
	for (size_t i = 0; i < 16; i++)
		kt_fill_on(mem + (200 + 2 * i) * page, page, i % 3 ? kt.hbm : kt.ddr,
			   SEED);
	touch = mem + 300 * page; /* the zero page */
	(void)*touch;
	kt_fill_on(mem + KT_HUGE, KT_HUGE, kt.hbm, SEED); /* huge, if it can be */
	closed.addr = mem + 4 * page;
	closed.len = 8 * page;
	mprotect(closed.addr, closed.len, PROT_NONE);
	mprotect(mem + 64 * page, 8 * page, PROT_READ);
	munmap(mem + 400 * page, 50 * page);
	kt_fill_on(mem + 3 * KT_HUGE - 5 * page, 10 * page, kt.ddr, SEED);

	KT_REQUIRE(file && ftruncate(fileno(file), (off_t)(64 * page)) == 0,
		   "tmpfile: %m");
	map = mmap(mem + 2 * KT_HUGE + 64 * page, 32 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_FIXED, fileno(file), 0);
	touch = map;
	for (size_t i = 0; i < 8; i++)
		(void)touch[i * page];
	kt_fill_on(map + 8 * page, 8 * page, kt.hbm, SEED);
	map = mmap(mem + 2 * KT_HUGE + 96 * page, 32 * page, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED, fileno(file), (off_t)(32 * page));
	kt_fill_on(map, 16 * page, kt.hbm, SEED);
	map = mmap(mem + 2 * KT_HUGE + 128 * page, 32 * page, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	kt_fill_on(map, 16 * page, kt.ddr, SEED);
	*len = 4 * KT_HUGE;
	return mem;
}

static void pages(void)
{
	size_t len;
	char *mem = mixed(&len);
	void *vdso;

	check_pages("all", mem, len);
	check_pages("one page", mem, kt.page);
	check_pages("inside a huge page", mem + KT_HUGE + 7 * kt.page, 100 * kt.page);
	check_pages("across huge pages", mem + KT_HUGE - 3 * kt.page,
		    KT_HUGE + 9 * kt.page);
	check_pages("no access", mem + 4 * kt.page, 8 * kt.page);
	check_pages("a gap", mem + 400 * kt.page, 50 * kt.page);
	check_pages("program text", (void *)((uintptr_t)kt_main & -kt.page), kt.page);
	vdso = kt_find_map("[vdso]", &len);
	if (vdso)
		check_pages("vdso", vdso, len);
}

static void follows_moves(void)
{
	size_t len = 700 * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);

	check_pages("before", mem, len);
	kt_migrate(mem + 100 * kt.page, 500 * kt.page, kt.hbm, 0, NULL);
	check_pages("after", mem, len);
	madvise(mem + 300 * kt.page, 100 * kt.page, MADV_DONTNEED);
	check_pages("given back", mem, len);
	KT_EXPECT_DATA(mem, 300 * kt.page, SEED);
}

static void hugetlb(void)
{
	char old[32];
	void *mem;

	if (!kt_read_file("/proc/sys/vm/nr_hugepages", old, sizeof(old)))
		kt_skip("no hugetlb in this kernel");
	kt_write_file("/proc/sys/vm/nr_hugepages", "8");
	mem = mmap(NULL, 2 * KT_HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT, -1,
		   0);
	if (mem == MAP_FAILED) {
		kt_write_file("/proc/sys/vm/nr_hugepages", old);
		kt_skip("no hugetlb pages: %m");
	}
	kt_fill(mem, KT_HUGE, SEED); /* the second page stays untouched */
	check_pages("hugetlb", mem, 2 * KT_HUGE);
	check_pages("part of hugetlb", (char *)mem + 3 * kt.page, KT_HUGE);
	munmap(mem, 2 * KT_HUGE);
	kt_write_file("/proc/sys/vm/nr_hugepages", old);
}

/* A large, nearly empty reservation is answered quickly, too. */
static void sparse(void)
{
	const size_t len = 1ul << 30;
	char *mem = kt_alloc(len);

	kt_fill_on(mem + len / 2, 8 * kt.page, kt.hbm, SEED);
	check_counts(mem, len, KT_HUGE, 2);
	check_counts(mem, len, 1ul << 30, 2);
	KT_EXPECT_EQ(kt_smaps(mem, len, "Rss"), 8 * kt.page / 1024);
}

static void counts(void)
{
	unsigned int nodes = (unsigned int)(kt.hbm > kt.ddr ? kt.hbm : kt.ddr) + 1;
	size_t len;
	char *mem = mixed(&len);

	check_counts(mem, len, KT_HUGE, nodes);
	check_counts(mem, len, KT_HUGE, 1);
	check_counts(mem, len, KT_HUGE, KT_MAX_NODE);
	check_counts(mem, len, 64 << 10, nodes);
	check_counts(mem, KT_HUGE, kt.page, nodes);
	check_counts(mem, len, 1ul << 30, nodes);
	check_counts(mem, len, 1ul << 42, nodes);
	/* First and last granule in part, and a range inside one granule. */
	check_counts(mem + 3 * kt.page, len - 8 * kt.page, KT_HUGE, nodes);
	check_counts(mem + 17 * kt.page, 90 * kt.page, 64 << 10, nodes);
	check_counts(mem + 17 * kt.page, 5 * kt.page, KT_HUGE, nodes);
	check_counts(mem + KT_HUGE - kt.page, 2 * kt.page, KT_HUGE, nodes);
}

/* ---- arguments ------------------------------------------------------------ */

static struct {
	struct ferry_ioc_query q;
	uint64_t tail;
	char *mem;
	unsigned char out[4096];
} b;

static void query_init(__u32 mode)
{
	char *mem = b.mem ? b.mem : kt_alloc_on(64 * kt.page, kt.ddr, SEED);

	memset(&b, 0, sizeof(b));
	b.mem = mem;
	b.q = pages_query(mem, 64 * kt.page, b.out, 128);
	memset(b.out, SENTINEL, sizeof(b.out));
	if (mode == FERRY_QUERY_COUNTS) {
		b.q.mode = mode;
		b.q.granule_bytes = 64 << 10;
		b.q.nr_nodes = 2;
		/* 64 pages meet up to five granules of 16 */
		b.q.out_bytes = 5 * 2 * sizeof(__u32);
	}
}

static void refused(const char *what, int err)
{
	__u32 mode =
		b.q.mode == FERRY_QUERY_COUNTS ? FERRY_QUERY_COUNTS : FERRY_QUERY_PAGES;
	long ret = kt_ioctl(kt.fd, FERRY_IOC_QUERY, &b.q);
	size_t written = 0;

	KT_EXPECT(ret == -err, "%s: returned %ld (%s), expected -%s", what, ret,
		  strerror((int)-ret), strerrorname_np(err));
	for (size_t i = 0; i < sizeof(b.out); i++)
		written += b.out[i] != SENTINEL;
	KT_EXPECT(written == 0, "%s: %zu bytes were written", what, written);
	query_init(mode);
}

static void answered(const char *what)
{
	long ret = kt_ioctl(kt.fd, FERRY_IOC_QUERY, &b.q);

	KT_EXPECT(ret == 0, "%s: returned %ld", what, ret);
	KT_EXPECT(b.out[0] == kt.ddr, "%s: no answer", what);
	for (size_t i = 128; i < sizeof(b.out); i++)
		KT_EXPECT(b.out[i] == SENTINEL, "%s: byte %zu written", what, i);
	query_init(FERRY_QUERY_PAGES);
}

static void arguments(void)
{
	query_init(FERRY_QUERY_PAGES);
	answered("the query itself");
	b.q.out_bytes = sizeof(b.out);
	answered("more room than needed");
	b.q.size = sizeof(b.q) + sizeof(b.tail);
	answered("a longer struct with a zero tail");
	b.q.size = sizeof(b.q) + sizeof(b.tail);
	b.tail = 1;
	refused("a longer struct with a tail", E2BIG);
	b.q.size = 0;
	refused("size 0", EINVAL);
	b.q.size = 24; /* the length is then 0 */
	refused("size 24", EINVAL);

	for (int bit = 0; bit < 32; bit++) {
		b.q.flags = 1u << bit;
		refused("an unknown flag", EINVAL);
	}
	b.q.mode = 3;
	refused("mode 3", EINVAL);
	b.q.mode = UINT32_MAX;
	refused("mode -1", EINVAL);
	b.q.nr_nodes = 2;
	refused("nr_nodes for pages", EINVAL);
	b.q.granule_bytes = KT_HUGE;
	refused("a granule for pages", EINVAL);
	b.q.addr++;
	refused("unaligned address", EINVAL);
	b.q.len++;
	refused("unaligned length", EINVAL);
	b.q.len = 0;
	refused("length 0", EINVAL);
	b.q.len = -(uint64_t)kt.page;
	refused("a length that wraps", EINVAL);
	b.q.addr = 0xffff888000000000u;
	refused("a range in the kernel", EINVAL);
	b.q.addr = (1ull << 56) - kt.page;
	refused("a range across the end of user space", EINVAL);

	b.q.out_bytes = 127;
	refused("one byte too little room", ENOSPC);
	b.q.out_bytes = 0;
	refused("no room", ENOSPC);
	b.q.out = 0;
	refused("no output", EFAULT);
	b.q.out = 0xffff888000001000u;
	refused("output in the kernel", EFAULT);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_QUERY, NULL), -EFAULT);
}

static void arguments_of_counts(void)
{
	const uint64_t granule[] = {0,    1,       3,     512,        2048,
				    4097, 3 << 12, ~0ull, 1ull << 44, 1ull << 63};

	query_init(FERRY_QUERY_COUNTS);
	for (size_t i = 0; i < sizeof(granule) / sizeof(granule[0]); i++) {
		b.q.granule_bytes = granule[i];
		refused("a wrong granule", EINVAL);
	}
	b.q.nr_nodes = 0;
	refused("no nodes", EINVAL);
	b.q.nr_nodes = 1025;
	refused("1025 nodes", EINVAL);
	b.q.nr_nodes = UINT32_MAX;
	refused("4G nodes", EINVAL);
	/* 64 pages meet at least four granules of 16. */
	b.q.out_bytes = 4 * 2 * sizeof(__u32) - 1;
	refused("one byte too little room", ENOSPC);
	b.q.nr_nodes = 1024;
	refused("too little room for 1024 nodes", ENOSPC);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_QUERY, &b.q), 0);
}

/* An output that is not there, not writable, or in the range it tells of. */
static void output(void)
{
	size_t len = 4 * KT_HUGE, room = len / kt.page * sizeof(__s16);
	char *mem = kt_alloc(len);
	__s16 *inside = (__s16 *)(mem + KT_HUGE + 64), *expected = malloc(room);
	struct ferry_ioc_query q = pages_query(mem, len, inside, room);

	kt_fill_on(mem, 100 * kt.page, kt.hbm, SEED);
	expected_pages(mem, len, expected);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_QUERY, &q), 0);
	/* Its own pages came up by the writing: any answer is true of them. */
	for (size_t i = 0; i < len / kt.page; i++)
		if (i < 512 || i > 513)
			KT_EXPECT(inside[i] == expected[i], "page %zu is %d, expected %d",
				  i, inside[i], expected[i]);
	KT_EXPECT_DATA(mem, 100 * kt.page, SEED);

	mprotect(mem + KT_HUGE, KT_HUGE, PROT_READ);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_QUERY, &q), -EFAULT);
	munmap(mem + KT_HUGE, KT_HUGE);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_QUERY, &q), -EFAULT);
}

/* One page's answer. */
static int is_held(const char *addr)
{
	__s16 out = 77;
	struct ferry_ioc_query q = pages_query(addr, kt.page, &out, sizeof(out));

	q.mode = FERRY_QUERY_HELD;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_QUERY, &q), 0);
	return out;
}

/* The kernel itself holds a new page for a while; until then it is asked again. */
static bool becomes(const char *addr, int expected)
{
	for (int i = 0; i < 300; i++) {
		if (is_held(addr) == expected)
			return true;
		/* Its batches of new pages are full at some time. */
		munmap(kt_alloc_on(64 * kt.page, kt.ddr, SEED), 64 * kt.page);
		usleep(1000);
	}
	return false;
}

/* In a pipe, by another process, as part of a huge page; and nowhere. */
static void held(void)
{
	char *small = kt_alloc_on(8 * kt.page, kt.ddr, SEED);
	char *huge = kt_alloc_huge(2 * KT_HUGE);
	struct iovec iov[] = {{small + kt.page, kt.page}, {huge + 9 * kt.page, kt.page}};
	char *copy = kt_alloc(2 * kt.page);
	struct ferry_ioc_query q;
	__s16 out[8];
	int fd[2], status;
	pid_t pid;

	KT_EXPECT(kt.info.features & FERRY_FEATURE_HELD, "the feature is not told of");
	kt_fill_on(huge, KT_HUGE, kt.ddr, SEED);
	if (kt_smaps(huge, KT_HUGE, "AnonHugePages") != (long)KT_HUGE / 1024)
		kt_skip("no huge pages");
	KT_EXPECT(becomes(small, 0) && becomes(small + kt.page, 0), "held by nobody");
	KT_EXPECT_EQ(is_held(huge), 0);
	KT_EXPECT_EQ(is_held(huge + KT_HUGE), FERRY_QUERY_HOLE);
	KT_EXPECT_EQ(is_held(huge - kt.page * 4096), FERRY_QUERY_HOLE);

	KT_REQUIRE(!pipe(fd) && vmsplice(fd[1], iov, 2, 0) == (ssize_t)(2 * kt.page),
		   "vmsplice: %m");
	KT_EXPECT_EQ(is_held(small), 0);
	KT_EXPECT_EQ(is_held(small + kt.page), 1);
	KT_EXPECT_EQ(is_held(huge), 1);
	KT_EXPECT_EQ(is_held(huge + KT_HUGE - kt.page), 1);
	KT_REQUIRE(read(fd[0], copy, 2 * kt.page) == (ssize_t)(2 * kt.page), "read: %m");
	KT_EXPECT(becomes(small + kt.page, 0) && becomes(huge, 0), "held after the pipe");

	pid = kt_fork();
	if (!pid) {
		pause();
		kt_child_end();
	}
	KT_EXPECT_EQ(is_held(small), 1);
	KT_EXPECT_EQ(is_held(huge), 1);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	KT_EXPECT(becomes(small, 0) && becomes(huge, 0), "held by a child that is gone");

	KT_REQUIRE(!mprotect(huge, kt.page, PROT_READ), "mprotect: %m");
	KT_EXPECT_EQ(is_held(huge + kt.page), 1);

	q = pages_query(small, 8 * kt.page, out, sizeof(out) - 1);
	q.mode = FERRY_QUERY_HELD;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_QUERY, &q), -ENOSPC);
	q.nr_nodes = 1;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_QUERY, &q), -EINVAL);
	KT_EXPECT_DATA(small, 8 * kt.page, SEED);
}

static const struct kt_case cases[] = {
	KT_CASE(pages),     KT_CASE(follows_moves),
	KT_CASE(hugetlb),   KT_CASE(sparse),
	KT_CASE(counts),    KT_CASE(held),
	KT_CASE(arguments), KT_CASE(arguments_of_counts),
	KT_CASE(output),
};

KT_MAIN(cases)
