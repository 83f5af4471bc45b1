/* SPDX-License-Identifier: MIT */
/*
 * Proves the contract's rules for arguments of INFO and MIGRATE: sizes, unknown
 * bits, pointers, addresses, limits, nodes and copy modes are answered with the
 * errno the contract names; a refused batch moves no page and writes no result;
 * 32-bit callers are served. Single-threaded.
 */
#include "kmod_test.h"
#include "kmod_layout.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

enum { VICTIM_PAGES = 4, SEED = 7, SENTINEL = 0xa5 };

/*
 * A batch of two good ranges of two pages each. A case spoils one thing in it,
 * sends it, and everything must be as before.
 */
static struct batch {
	struct ferry_ioc_migrate arg;
	uint64_t tail; /* what a later version might append to arg */
	struct ferry_ioc_range range[2];
	struct ferry_ioc_result result[2];
	char *victim;
} b;

static void batch_init(void)
{
	size_t half = VICTIM_PAGES / 2 * kt.page;
	char *victim = b.victim;

	if (!victim)
		victim = kt_alloc_on(VICTIM_PAGES * kt.page, kt.ddr, SEED);
	memset(&b, 0, sizeof(b));
	memset(b.result, SENTINEL, sizeof(b.result));
	b.victim = victim;
	for (int i = 0; i < 2; i++) {
		b.range[i].addr = (uintptr_t)victim + (size_t)i * half;
		b.range[i].len = half;
		b.range[i].node = kt.hbm;
	}
	b.arg.size = sizeof(b.arg);
	b.arg.nr_ranges = 2;
	b.arg.ranges = (uintptr_t)b.range;
	b.arg.range_size = sizeof(b.range[0]);
	b.arg.results = (uintptr_t)b.result;
	b.arg.result_size = sizeof(b.result[0]);
}

/* Nothing has moved and no result was written. */
static void expect_untouched(const char *what)
{
	const unsigned char *byte = (const unsigned char *)b.result;
	size_t written = 0;

	for (size_t i = 0; i < sizeof(b.result); i++)
		written += byte[i] != SENTINEL;
	KT_EXPECT(written == 0, "%s: %zu bytes of the results were written", what,
		  written);
	KT_EXPECT(kt_on(b.victim, VICTIM_PAGES * kt.page, kt.ddr) == VICTIM_PAGES,
		  "%s: pages moved", what);
	KT_EXPECT(kt_bad(b.victim, VICTIM_PAGES * kt.page, SEED) == 0, "%s: data changed",
		  what);
}

static void refused(const char *what, int err)
{
	long ret = kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &b.arg);

	KT_EXPECT(ret == -err, "%s: returned %ld (%s), expected -%s", what, ret,
		  strerror((int)-ret), strerrorname_np(err));
	expect_untouched(what);
	batch_init();
}

/* The batch as it is moves all pages; puts them back. */
static void accepted(const char *what)
{
	size_t len = VICTIM_PAGES * kt.page;
	long ret = kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &b.arg);

	KT_EXPECT(ret == VICTIM_PAGES, "%s: returned %ld, expected %d", what, ret,
		  VICTIM_PAGES);
	KT_EXPECT(kt_on(b.victim, len, kt.hbm) == VICTIM_PAGES, "%s: pages did not move",
		  what);
	KT_EXPECT(kt_bad(b.victim, len, SEED) == 0, "%s: data changed", what);
	kt_migrate(b.victim, len, kt.ddr, 0, NULL);
	KT_REQUIRE(kt_on(b.victim, len, kt.ddr) == VICTIM_PAGES, "%s: no way back", what);
	batch_init();
}

/* An address where nothing is mapped. */
static uintptr_t nowhere(void)
{
	char *addr = kt_alloc(16 * kt.page);

	munmap(addr, 16 * kt.page);
	return (uintptr_t)addr + 8 * kt.page;
}

static void info(void)
{
	static bool memory[KT_MAX_NODE], allowed[KT_MAX_NODE];
	const struct ferry_ioc_info *i = &kt.info;
	char version[64];

	KT_EXPECT_EQ(i->size, sizeof(*i));
	KT_EXPECT_EQ(i->abi, FERRY_ABI_VERSION);
	KT_EXPECT((i->features & FERRY_FEATURE_MIGRATE) &&
			  (i->features & FERRY_FEATURE_QUERY) &&
			  (i->features & FERRY_FEATURE_URING) &&
			  (i->features & FERRY_FEATURE_POPULATE),
		  "features are %llx", (unsigned long long)i->features);
	KT_EXPECT_EQ(i->page_size, kt.page);
	KT_EXPECT(i->chunk_bytes >= kt.page && i->chunk_bytes % kt.page == 0,
		  "chunk_bytes is %u", i->chunk_bytes);
	KT_EXPECT(i->max_ranges >= 1, "max_ranges is %u", i->max_ranges);
	KT_EXPECT(i->max_in_flight >= 1, "max_in_flight is %u", i->max_in_flight);
	KT_EXPECT(i->max_bytes >= i->chunk_bytes, "max_bytes is %llu",
		  (unsigned long long)i->max_bytes);
	KT_EXPECT(memchr(i->version, 0, sizeof(i->version)) && i->version[0],
		  "no version string");
	if (kt_read_file("/sys/module/ferry/version", version, sizeof(version)))
		KT_EXPECT(!strcmp(version, i->version), "version '%s', module's '%s'",
			  i->version, version);

	kt_node_list("/sys/devices/system/node/has_memory", NULL, memory);
	kt_node_list("/proc/self/status", "Mems_allowed_list", allowed);
	for (int n = 0; n < KT_MAX_NODE; n++) {
		bool told = i->nodes[n / 64] >> (n % 64) & 1;

		KT_EXPECT(told == (memory[n] && allowed[n]), "node %d: told %d", n, told);
	}
}

static void info_sizes(void)
{
	struct {
		struct ferry_ioc_info info;
		uint64_t tail;
	} longer = {.info.size = sizeof(longer)};
	struct ferry_ioc_info small;
	unsigned char *byte = (unsigned char *)&small;

	/* A caller of an older version gets the fields it knows and no more. */
	memset(&small, SENTINEL, sizeof(small));
	small.size = 24;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, &small), 0);
	KT_EXPECT_EQ(small.size, sizeof(small));
	KT_EXPECT_EQ(small.chunk_bytes, kt.info.chunk_bytes);
	for (size_t i = 24; i < sizeof(small); i++)
		KT_EXPECT(byte[i] == SENTINEL,
			  "byte %zu behind the caller's struct written", i);

	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, &longer), 0);
	KT_EXPECT_EQ(longer.info.size, sizeof(longer.info));
	KT_EXPECT(!memcmp(&longer.info, &kt.info, sizeof(kt.info)), "another answer");
	KT_EXPECT_EQ(longer.tail, 0);
	longer.info.size = sizeof(longer);
	longer.tail = 1;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, &longer), -E2BIG);

	memset(&small, SENTINEL, sizeof(small));
	small.size = 0;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, &small), -EINVAL);
	KT_EXPECT_EQ(small.abi, 0xa5a5a5a5u);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, NULL), -EFAULT);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, (void *)nowhere()), -EFAULT);
}

static void numbers(void)
{
	batch_init();
	KT_EXPECT_EQ(kt_ioctl(kt.fd, _IO(FERRY_IOC_TYPE, 0x00), &b.arg), -ENOTTY);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, _IO(FERRY_IOC_TYPE, 0x02), &b.arg), -ENOTTY);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, _IO(FERRY_IOC_TYPE, 0x7f), &b.arg), -ENOTTY);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, _IOW('x', 0x02, struct ferry_ioc_migrate), &b.arg),
		     -ENOTTY);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, _IOW(FERRY_IOC_TYPE, 0x02, struct ferry_ioc_query),
			      &b.arg),
		     -ENOTTY);
	expect_untouched("unknown ioctl");
}

static void migrate_sizes(void)
{
	char *edge;

	batch_init();
	accepted("the batch itself");

	b.arg.size = 0;
	refused("size 0", EINVAL);
	b.arg.size = 3;
	refused("size 3", EINVAL);
	b.arg.size = 8; /* nr_ranges is then 0 */
	refused("size 8", EINVAL);
	b.arg.size = offsetof(struct ferry_ioc_migrate, range_size);
	refused("size without range_size", EINVAL);

	b.arg.size = offsetof(struct ferry_ioc_migrate, result_size);
	b.arg.results = 0;
	accepted("a shorter struct");
	b.arg.size = sizeof(b.arg) + sizeof(b.tail);
	accepted("a longer struct with a zero tail");
	b.arg.size = sizeof(b.arg) + sizeof(b.tail);
	b.tail = 1ull << 63;
	refused("a longer struct with a tail", E2BIG);

	/* A size that runs out of the mapping must not be read past. */
	edge = kt_alloc(2 * kt.page);
	munmap(edge + kt.page, kt.page);
	edge += kt.page - sizeof(b.arg);
	for (int i = 0; i < 2; i++) {
		long ret;

		memcpy(edge, &b.arg, sizeof(b.arg));
		((struct ferry_ioc_migrate *)edge)->size =
			i ? UINT32_MAX : sizeof(b.arg) + 8;
		ret = kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, edge);
		KT_EXPECT(ret == -EFAULT || ret == -E2BIG, "size past the mapping: %ld",
			  ret);
		expect_untouched("size past the mapping");
	}
	memcpy(edge, &b.arg, sizeof(b.arg));
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, edge), VICTIM_PAGES);
}

static void flags(void)
{
	batch_init();
	for (int bit = 1; bit < 32; bit++) {
		b.arg.flags =
			1u << bit & ~(FERRY_MIGRATE_EXCHANGE | FERRY_MIGRATE_SPLIT_HUGE);
		if (b.arg.flags)
			refused("an unknown flag", EINVAL);
		b.range[1].flags = 1u << bit;
		refused("an unknown flag of a range", EINVAL);
	}
	b.range[1].flags = FERRY_RANGE_POPULATE | 1u << 31;
	refused("a known and an unknown flag", EINVAL);
}

static void copy_modes(void)
{
	batch_init();
	b.arg.copy_mode = FERRY_COPY_CPU;
	accepted("copy by CPU");
	b.arg.copy_mode = FERRY_COPY_PARALLEL;
	accepted("parallel copy");
	b.arg.copy_mode = FERRY_COPY_DMA;
	accepted("copy by DMA");
	b.arg.copy_mode = 4;
	refused("copy mode 4", EINVAL);
	b.arg.copy_mode = UINT32_MAX;
	refused("copy mode -1", EINVAL);
}

static void pointers(void)
{
	const uintptr_t kernel = 0xffff888000001000u;
	struct ferry_ioc_result *readonly = kt_alloc(kt.page);
	char *edge;

	batch_init();
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, NULL), -EFAULT);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, (void *)nowhere()), -EFAULT);
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, (void *)kernel), -EFAULT);

	b.arg.ranges = 0;
	refused("no ranges", EFAULT);
	b.arg.ranges = nowhere();
	refused("unmapped ranges", EFAULT);
	b.arg.ranges = kernel;
	refused("ranges in the kernel", EFAULT);

	/* The second range lies behind the mapping's end. */
	edge = kt_alloc(2 * kt.page);
	munmap(edge + kt.page, kt.page);
	edge += kt.page - sizeof(b.range[0]);
	memcpy(edge, &b.range[0], sizeof(b.range[0]));
	b.arg.ranges = (uintptr_t)edge;
	refused("half of the ranges unmapped", EFAULT);

	b.arg.results = nowhere();
	refused("unmapped results", EFAULT);
	b.arg.results = kernel;
	refused("results in the kernel", EFAULT);
	mprotect(readonly, kt.page, PROT_READ);
	b.arg.results = (uintptr_t)readonly;
	refused("read-only results", EFAULT);

	b.arg.results = 0;
	refused("a result_size without results", EINVAL);
	b.arg.results = 0;
	b.arg.result_size = 0;
	accepted("no results wanted");
}

static void ranges(void)
{
	const uint64_t top = 0x7ffffffff000u; /* end of user space, 4-level paging */

	batch_init();
	b.range[1].addr++;
	refused("unaligned address", EINVAL);
	b.range[1].addr += kt.page / 2;
	refused("address half a page off", EINVAL);
	b.range[1].len--;
	refused("unaligned length", EINVAL);
	b.range[1].len = 0;
	refused("length 0", EINVAL);
	b.range[1].addr = -(uint64_t)kt.page;
	refused("a range that wraps", EINVAL);
	b.range[1].len = -(uint64_t)kt.page;
	refused("a length that wraps", EINVAL);
	b.range[1].addr = 0xffff888000000000u;
	refused("a range in the kernel", EINVAL);
	b.range[1].addr = 1ull << 63;
	refused("a non-canonical address", EINVAL);
	b.range[1].addr = 0xffffffffff600000u;
	refused("the vsyscall page", EINVAL);
	b.range[1].addr = 1ull << 56; /* the end with 5-level paging */
	refused("a range behind user space", EINVAL);
	b.range[1].addr = (1ull << 56) - 2 * kt.page;
	b.range[1].len = 4 * kt.page;
	refused("a range across the end of user space", EINVAL);

	/* Nothing is mapped at both ends; that is no error. */
	b.range[0].addr = 0;
	b.range[0].len = kt.page;
	b.range[1].addr = top - kt.page;
	b.range[1].len = kt.page;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &b.arg), 0);
	KT_EXPECT_RESULT(&b.result[0], .hole = 1);
	KT_EXPECT_EQ(b.result[1].error, 0);
	KT_EXPECT_EQ(b.result[1].hole + b.result[1].unsupported, 1);
}

static void limits(void)
{
	unsigned int max = kt.info.max_ranges;
	struct ferry_ioc_range *many = calloc(max + 1, sizeof(*many));
	struct ferry_ioc_result *results = calloc(max, sizeof(*results));

	KT_REQUIRE(many && results, "calloc");
	batch_init();
	b.arg.nr_ranges = 0;
	refused("no ranges", EINVAL);
	b.arg.nr_ranges = UINT32_MAX;
	refused("4G ranges", EINVAL);

	for (unsigned int i = 0; i <= max; i++) {
		many[i].addr = (uintptr_t)b.victim + i % VICTIM_PAGES * kt.page;
		many[i].len = kt.page;
		many[i].node = kt.hbm;
	}
	b.arg.ranges = (uintptr_t)many;
	b.arg.nr_ranges = max + 1;
	b.arg.results = 0;
	b.arg.result_size = 0;
	refused("one range too many", EINVAL);

	KT_EXPECT_EQ(kt_migrate_batch(0, many, max, results),
		     max < VICTIM_PAGES ? max : VICTIM_PAGES);
	for (unsigned int i = 0; i < max; i++) {
		if (i < VICTIM_PAGES)
			KT_EXPECT_RESULT(&results[i], .moved = 1);
		else
			KT_EXPECT_RESULT(&results[i], .already = 1);
	}
	kt_migrate(b.victim, VICTIM_PAGES * kt.page, kt.ddr, 0, NULL);

	if (kt.info.max_bytes < 1ull << 46) {
		b.range[1].addr = 0x10000;
		b.range[1].len = kt.info.max_bytes - b.range[0].len + kt.page;
		refused("one page too much in all ranges", EINVAL);
		b.range[1].addr = 0x10000;
		b.range[1].len = kt.info.max_bytes + kt.page;
		refused("one page too much in a range", EINVAL);
	}
}

static void nodes(void)
{
	static bool memory[KT_MAX_NODE], online[KT_MAX_NODE];
	const int wrong[] = {-1,   INT32_MIN, 1023,      1024,
			     1025, 65536,     INT32_MAX, 0x10000000};
	int bare = -1, missing = -1;

	kt_node_list("/sys/devices/system/node/has_memory", NULL, memory);
	kt_node_list("/sys/devices/system/node/online", NULL, online);
	for (int n = KT_MAX_NODE - 1; n >= 0; n--) {
		if (!online[n])
			missing = n; /* ends as the lowest */
		else if (!memory[n])
			bare = n;
	}
	batch_init();
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		b.range[1].node = wrong[i];
		refused("no such node", ENODEV);
	}
	b.range[1].node = missing;
	refused("the first missing node", ENODEV);
	if (bare >= 0) {
		b.range[1].node = bare;
		refused("a node without memory", ENODEV);
	}
}

static void elements(void)
{
	struct {
		struct ferry_ioc_range range;
		uint64_t tail;
	} wide[2] = {0};
	unsigned char raw[2][128];

	batch_init();
	b.arg.range_size = 0;
	refused("range_size 0", EINVAL);
	b.arg.range_size = 8; /* the length is then 0 */
	refused("range_size 8", EINVAL);

	/* Shorter ranges: two of 20 bytes each, their flags read as 0. */
	memmove((char *)b.range + 20, &b.range[1], 20);
	b.arg.range_size = 20;
	accepted("ranges without flags");

	for (int i = 0; i < 2; i++)
		wide[i].range = b.range[i];
	b.arg.ranges = (uintptr_t)wide;
	b.arg.range_size = sizeof(wide[0]);
	accepted("wider ranges with a zero tail");
	wide[1].tail = 1;
	b.arg.ranges = (uintptr_t)wide;
	b.arg.range_size = sizeof(wide[0]);
	refused("wider ranges with a tail", E2BIG);
	b.arg.range_size = UINT32_MAX;
	KT_EXPECT(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &b.arg) < 0,
		  "range_size 4G accepted");
	expect_untouched("range_size 4G");

	/* Shorter results: error and moved only. */
	batch_init();
	memset(raw, SENTINEL, sizeof(raw));
	b.arg.results = (uintptr_t)raw;
	b.arg.result_size = 16;
	accepted("short results");
	for (int i = 0; i < 2; i++) {
		const struct ferry_ioc_result *r = (void *)((char *)raw + i * 16);

		KT_EXPECT_EQ(r->error, 0);
		KT_EXPECT_EQ(r->moved, 2);
	}
	for (size_t i = 32; i < sizeof(raw); i++)
		KT_EXPECT(((unsigned char *)raw)[i] == SENTINEL, "byte %zu written", i);

	/* Longer results: what the module does not know reads as 0. */
	memset(raw, SENTINEL, sizeof(raw));
	b.arg.results = (uintptr_t)raw;
	b.arg.result_size = sizeof(raw[0]);
	accepted("long results");
	for (int i = 0; i < 2; i++) {
		KT_EXPECT_RESULT((struct ferry_ioc_result *)raw[i], .moved = 2);
		for (size_t k = sizeof(struct ferry_ioc_result); k < sizeof(raw[0]); k++)
			KT_EXPECT(raw[i][k] == 0, "result %d: byte %zu not 0", i, k);
	}
}

#ifdef __x86_64__
/* A 32-bit caller's system call, which reaches compat_ioctl. */
static long call32(long nr, long a, long c, long d)
{
	long ret;

	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(nr), "b"(a), "c"(c), "d"(d)
			 : "memory", "r8", "r9", "r10", "r11");
	return (int)ret;
}

static void compat(void)
{
	enum { NR32_IOCTL = 54, NR32_GETPID = 20 };
	struct low {
		struct ferry_ioc_info info;
		struct kt_request req;
	} * low;
	size_t len = 8 * kt.page;
	char *victim = kt_alloc_on(len, kt.ddr, SEED);
	pid_t pid = kt_fork();

	if (pid == 0)
		_exit(call32(NR32_GETPID, 0, 0, 0) == getpid() ? 0 : 1);
	if (kt_wait(pid) != 0)
		kt_skip("this kernel takes no 32-bit system calls");

	low = mmap(NULL, kt.page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	KT_REQUIRE(low != MAP_FAILED, "mmap below 4 GiB: %m");
	low->info.size = sizeof(low->info);
	KT_EXPECT_EQ(call32(NR32_IOCTL, kt.fd, (long)FERRY_IOC_INFO, (long)low), 0);
	KT_EXPECT(!memcmp(&low->info, &kt.info, sizeof(kt.info)), "another INFO");

	kt_request_init(&low->req, victim, len, kt.hbm);
	KT_EXPECT_EQ(
		call32(NR32_IOCTL, kt.fd, (long)FERRY_IOC_MIGRATE, (long)&low->req.arg),
		8);
	KT_EXPECT_RESULT(&low->req.result, .moved = 8);
	KT_EXPECT_ON(victim, len, kt.hbm);
	KT_EXPECT_DATA(victim, len, SEED);
}
#endif

static const struct kt_case cases[] = {
	KT_CASE(info),   KT_CASE(info_sizes), KT_CASE(numbers),  KT_CASE(migrate_sizes),
	KT_CASE(flags),  KT_CASE(copy_modes), KT_CASE(pointers), KT_CASE(ranges),
	KT_CASE(limits), KT_CASE(nodes),      KT_CASE(elements),
#ifdef __x86_64__
	KT_CASE(compat),
#endif
};

KT_MAIN(cases)
