/* SPDX-License-Identifier: MIT */
/*
 * Proves that the examples in docs/kernel-interface.md compile and do what the
 * page says. doc_examples.h is the page's C code, cut out when this is built.
 * Single-threaded.
 */
#include "doc_examples.h"
#include "kmod_test.h"

#include <sys/mman.h>

enum { PAGES = 1024, SEED = 131 };

static void info(void)
{
	struct ferry_ioc_info info;
	int fd = open_ferry(&info);

	KT_REQUIRE(fd >= 0, "open_ferry: %s", strerror(-fd));
	KT_EXPECT_EQ(info.page_size, kt.page);
	KT_EXPECT(info.nodes[kt.hbm / 64] >> (kt.hbm % 64) & 1, "no node %d", kt.hbm);
	close(fd);
}

static void migrate(void)
{
	const size_t len = PAGES * kt.page;
	char *hot = kt_alloc_on(len, kt.ddr, SEED),
	     *cold = kt_alloc_on(len, kt.hbm, SEED);
	struct ferry_ioc_result results[2];

	KT_EXPECT_EQ(swap_tiers(kt.fd, hot, cold, len, kt.hbm, kt.ddr, results),
		     2 * PAGES);
	kt_expect_result(&results[0], &(struct ferry_ioc_result){.moved = PAGES},
			 __FILE__, __LINE__);
	kt_expect_result(&results[1], &(struct ferry_ioc_result){.moved = PAGES},
			 __FILE__, __LINE__);
	KT_EXPECT_ON(hot, len, kt.hbm);
	KT_EXPECT_ON(cold, len, kt.ddr);
	KT_EXPECT_DATA(hot, len, SEED);
	KT_EXPECT_DATA(cold, len, SEED);
}

static void populate(void)
{
	const size_t len = PAGES * kt.page;
	char *mem = kt_alloc(len);

	KT_EXPECT_EQ(prefault(kt.fd, mem, len, kt.hbm), PAGES);
	KT_EXPECT_ON(mem, len, kt.hbm);
	for (size_t i = 0; i < len; i++)
		KT_REQUIRE(mem[i] == 0, "byte %zu is not zero", i);
}

static void query(void)
{
	const size_t granule = 1 << 20, len = PAGES * kt.page;
	char *mem = mmap(NULL, len + granule, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	__u32 counts[PAGES * 4096 / (1 << 20)][64];

	KT_REQUIRE(mem != MAP_FAILED && kt.hbm < 64 && kt.page == 4096, "setup: %m");
	mem += -(uintptr_t)mem & (granule - 1);
	madvise(mem, len, MADV_NOHUGEPAGE);
	kt_fill_on(mem, granule, kt.hbm, SEED);
	kt_fill_on(mem + granule, granule, kt.ddr, SEED);
	KT_EXPECT_EQ(node_of(kt.fd, mem + 5, kt.page), kt.hbm);
	KT_EXPECT_EQ(node_of(kt.fd, mem + granule, kt.page), kt.ddr);
	KT_EXPECT_EQ(node_of(kt.fd, mem + 2 * granule, kt.page), FERRY_QUERY_HOLE);
	KT_EXPECT_EQ(count_pages(kt.fd, mem, len, granule, 64, counts[0], sizeof(counts)),
		     0);
	KT_EXPECT_EQ(counts[0][kt.hbm], granule / kt.page);
	KT_EXPECT_EQ(counts[0][kt.ddr], 0);
	KT_EXPECT_EQ(counts[1][kt.ddr], granule / kt.page);
	KT_EXPECT_EQ(counts[2][kt.hbm] + counts[2][kt.ddr], 0);
	KT_EXPECT_ON(mem, granule, kt.hbm);
	KT_EXPECT_ON(mem + granule, granule, kt.ddr);
}

static void scan(void)
{
	const size_t granule = 1 << 20, len = PAGES * kt.page;
	struct ferry_scan_row rows[PAGES * 4096 / (1 << 20)];
	char *mem = mmap(NULL, len + granule, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	KT_REQUIRE(mem != MAP_FAILED && kt.page == 4096, "setup: %m");
	mem += -(uintptr_t)mem & (granule - 1);
	madvise(mem, len, MADV_NOHUGEPAGE);
	kt_fill_on(mem, granule, kt.ddr, SEED);
	KT_EXPECT_EQ(scan_accesses(kt.fd, mem, len, granule, rows, sizeof(rows)), 0);
	KT_EXPECT_EQ(rows[0].accessed, granule / kt.page);
	KT_EXPECT_EQ(rows[0].dirty, granule / kt.page);
	KT_EXPECT_EQ(rows[1].present, 0);
	/* Cleared, and nothing has touched the memory since. */
	KT_EXPECT_EQ(scan_accesses(kt.fd, mem, len, granule, rows, sizeof(rows)), 0);
	KT_EXPECT_EQ(rows[0].present, granule / kt.page);
	KT_EXPECT_EQ(rows[0].accessed, 0);
	KT_EXPECT_DATA(mem, granule, SEED);
}

static void uring(void)
{
	const size_t len = PAGES * kt.page;
	struct move moves[3], *done;
	struct io_uring ring;
	char *mem[3];

	KT_REQUIRE(io_uring_queue_init(4, &ring, 0) == 0, "io_uring_queue_init");
	for (int i = 0; i < 3; i++) {
		mem[i] = kt_alloc_on(len, kt.ddr, SEED + i);
		moves[i].range = (struct ferry_ioc_range){
			.addr = (uintptr_t)mem[i], .len = len, .node = kt.hbm};
		KT_EXPECT_EQ(submit_move(&ring, kt.fd, &moves[i]), 0);
	}
	for (int i = 0; i < 3; i++) {
		KT_EXPECT_EQ(wait_move(&ring, &done), PAGES);
		KT_REQUIRE(done >= moves && done < moves + 3, "a strange request");
		KT_EXPECT_EQ(done->result.moved, PAGES);
	}
	for (int i = 0; i < 3; i++) {
		KT_EXPECT_ON(mem[i], len, kt.hbm);
		KT_EXPECT_DATA(mem[i], len, SEED + i);
	}
	io_uring_queue_exit(&ring);
}

static const struct kt_case cases[] = {
	KT_CASE(info),  KT_CASE(migrate), KT_CASE(populate),
	KT_CASE(query), KT_CASE(scan),    KT_CASE(uring),
};

KT_MAIN(cases)
