/* SPDX-License-Identifier: MIT */
/*
 * The memory that requests work on. Each page of the kept zone has a pattern of
 * its own, which its owner, the main thread, writes anew now and then: a page
 * that is lost, changed, mixed up, or stale shows. In the tagged zone each word
 * is 0 or tells where it belongs: a page that comes to the wrong place shows,
 * whatever has been mapped, unmapped and given back meanwhile. Of the wild zone
 * nothing is known.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

enum { ZONE_PAGES = FZ_ZONE_LEN / 4096 };

static uint64_t generation[ZONE_PAGES]; /* the seed of each kept page's pattern */
static int memory_file = -1;            /* for the wild zone to map */

static char *page_of(enum fz_zone zone, size_t page)
{
	return fz_zone(zone) + page * 4096;
}

/*
 * Maps part of a zone anew. That may fail: pages of hugetlb may be used up, and
 * cannot be replaced in part.
 */
static bool map_zone(char *at, size_t len, int flags, int fd)
{
	return mmap(at, len, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_NORESERVE | flags,
		    fd, 0) == at;
}

static void write_kept(size_t page, uint64_t seed)
{
	generation[page] = seed;
	kt_fill(page_of(FZ_KEPT, page), 4096, seed);
}

static void check_kept(size_t page)
{
	size_t bad = kt_bad(page_of(FZ_KEPT, page), 4096, generation[page]);

	KT_EXPECT(!bad, "kept page %zu: %zu words are wrong", page, bad);
}

void fz_check_kept(void)
{
	for (size_t i = 0; i < ZONE_PAGES; i++)
		check_kept(i);
	atomic_fetch_add(&fz_cover->checks, ZONE_PAGES);
}

void fz_memory_init(struct fz_rng *rng)
{
	for (int i = 0; i < FZ_NR_ZONES; i++) {
		map_zone(fz_zone((enum fz_zone)i), FZ_ZONE_LEN,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1);
		madvise(fz_zone((enum fz_zone)i), FZ_ZONE_LEN, MADV_NOHUGEPAGE);
	}
	/* A quarter of what is kept is in huge pages, where they are to be had. */
	madvise(fz_zone(FZ_KEPT), FZ_ZONE_LEN / 4, MADV_HUGEPAGE);
	for (size_t i = 0; i < ZONE_PAGES; i++)
		write_kept(i, fz_random(rng));
	memory_file = memfd_create("fuzz", MFD_CLOEXEC);
	KT_REQUIRE(memory_file >= 0 && ftruncate(memory_file, FZ_ZONE_LEN) == 0,
		   "memfd: %m");
}

void fz_fill_hbm(void)
{
	const size_t step = 8UL << 20;
	struct ferry_ioc_result res = {0};

	kt_take_node(kt.hbm, 48UL << 20);
	for (int i = 0; i < 64 && !res.nomem && !kt_failures(); i++)
		kt_migrate(kt_alloc(step), step, kt.hbm, FERRY_RANGE_POPULATE, &res);
}

/* ---- the kept zone --------------------------------------------------------------- */

static void fork_and_look(struct fz_rng *rng)
{
	pid_t pid = kt_fork();

	if (pid == 0) {
		alarm(30 * kt_slowness());
		for (int i = 0; i < 64; i++)
			check_kept(fz_below(rng, ZONE_PAGES));
		/* The device is the parent's. */
		KT_EXPECT_EQ(kt_migrate(fz_zone(FZ_KEPT), 4096, kt.hbm, 0, NULL), -EPERM);
		/* Copy on write: the parent must not see it. */
		kt_fill(page_of(FZ_KEPT, fz_below(rng, ZONE_PAGES)), 4096, 0);
		kt_child_end();
	}
	for (int i = 0; i < 16; i++) /* and the other way round */
		write_kept(fz_below(rng, ZONE_PAGES), fz_random(rng));
	KT_EXPECT_EQ(kt_wait(pid), 0);
	atomic_fetch_add(&fz_cover->forks, 1);
}

static void pull_away(struct fz_rng *rng, char *at, size_t pages)
{
	int node[64], status[64], to = fz_once_in(rng, 2) ? kt.ddr : kt.hbm;
	void *list[64];

	if (fz_round.in_cpuset)
		to = kt.ddr;
	for (size_t i = 0; i < pages; i++) {
		list[i] = at + i * 4096;
		node[i] = to;
	}
	syscall(SYS_move_pages, 0, pages, list, node, status, MPOL_MF_MOVE);
}

/* Takes pages away and brings them back; another address lasts for a moment. */
static void take_away(char *at, size_t len)
{
	char *away = mremap(at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
			    fz_zone(FZ_NR_ZONES)); /* where no zone is */

	if (away == MAP_FAILED) /* more than one mapping (EFAULT) */
		return;
	KT_REQUIRE(mremap(away, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at,
		   "mremap back: %m");
}

static void pin(char *at, size_t len)
{
	struct iovec iov = {.iov_base = at, .iov_len = len};
	int fd[2];

	if (pipe(fd) != 0)
		return;
	KT_EXPECT(vmsplice(fd[1], &iov, 1, SPLICE_F_NONBLOCK) > 0, "vmsplice: %m");
	usleep(2000);
	close(fd[0]);
	close(fd[1]);
}

void fz_keep(struct fz_rng *rng)
{
	size_t pages = 1 + fz_below(rng, 64), first = fz_below(rng, ZONE_PAGES - pages);
	char *at = page_of(FZ_KEPT, first);
	size_t len = pages * 4096;

	switch (fz_below(rng, 16)) {
	case 0:
		mprotect(at, len, PROT_READ);
		break;
	case 1:
		mprotect(at, len, PROT_NONE);
		break;
	case 2:
		mlock2(at, len, fz_once_in(rng, 2) ? MLOCK_ONFAULT : 0);
		break;
	case 3:
		munlock(fz_zone(FZ_KEPT), FZ_ZONE_LEN);
		break;
	case 4:
		madvise(at, len, fz_once_in(rng, 2) ? MADV_COLD : MADV_PAGEOUT);
		break;
	case 5:
		madvise((char *)((uintptr_t)at & -KT_HUGE), KT_HUGE, MADV_COLLAPSE);
		break;
	case 6:
		pull_away(rng, at, pages);
		break;
	case 7:
		take_away(at, len);
		break;
	case 8:
		fork_and_look(rng);
		break;
	case 9:
		pin(at, len > 65536 ? 65536 : len);
		break;
	default:
		for (size_t i = 0; i < pages; i++)
			write_kept(first + i, fz_random(rng));
		break;
	}
	usleep((useconds_t)fz_below(rng, 500));
	mprotect(at, len, PROT_READ | PROT_WRITE);
	for (int i = 0; i < 32; i++)
		check_kept(fz_below(rng, ZONE_PAGES));
	for (size_t i = 0; i < pages; i++)
		check_kept(first + i);
	atomic_fetch_add(&fz_cover->checks, pages + 32);
	atomic_fetch_add(&fz_cover->changes, 1);
}

/* ---- the zones that change ----------------------------------------------------------
 */

static uint64_t tag_of(size_t page, size_t i)
{
	return 0x7a60000000000000 | page << 16 | i;
}

/* Through the kernel, for the page may be protected, or not be there. */
static void write_tagged(size_t page)
{
	uint64_t word[512];
	struct iovec from = {.iov_base = word, .iov_len = sizeof(word)};
	struct iovec to = {.iov_base = page_of(FZ_TAGGED, page), .iov_len = sizeof(word)};

	for (size_t i = 0; i < 512; i++)
		word[i] = tag_of(page, i);
	process_vm_writev(getpid(), &from, 1, &to, 1, 0);
}

static void check_tagged(size_t page)
{
	uint64_t word[512];
	struct iovec to = {.iov_base = word, .iov_len = sizeof(word)};
	struct iovec from = {.iov_base = page_of(FZ_TAGGED, page),
			     .iov_len = sizeof(word)};

	if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != sizeof(word))
		return;
	for (size_t i = 0; i < 512; i++)
		if (!KT_EXPECT(word[i] == 0 || word[i] == tag_of(page, i),
			       "tagged page %zu word %zu is %#llx", page, i,
			       (unsigned long long)word[i]))
			return;
	atomic_fetch_add(&fz_cover->checks, 1);
}

static void change_tagged(struct fz_rng *rng)
{
	static const int prot[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
				   PROT_READ | PROT_WRITE};
	size_t pages = 1 + fz_below(rng, 128), first = fz_below(rng, ZONE_PAGES - pages);
	char *at = page_of(FZ_TAGGED, first);
	size_t len = pages * 4096;

	switch (fz_below(rng, 10)) {
	case 0:
		madvise(at, len, MADV_DONTNEED);
		break;
	case 1:
		madvise(at, len, MADV_FREE);
		break;
	case 2:
		munmap(at, len);
		break;
	case 3:
		map_zone(at, len, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		break;
	case 4:
		mprotect(at, len, prot[fz_below(rng, 4)]);
		break;
	case 5:
		madvise(at, len, fz_once_in(rng, 2) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		break;
	case 6:
		madvise(at, len, MADV_PAGEOUT);
		break;
	default:
		for (size_t i = 0; i < pages; i++)
			write_tagged(first + i);
		break;
	}
	for (int i = 0; i < 32; i++)
		check_tagged(fz_below(rng, ZONE_PAGES));
}

static void change_wild(struct fz_rng *rng)
{
	size_t pages = 1 + fz_below(rng, 256), first = fz_below(rng, ZONE_PAGES - pages);
	char *at = page_of(FZ_WILD, first), *huge = (char *)((uintptr_t)at & -KT_HUGE);
	size_t len = pages * 4096;

	switch (fz_below(rng, 12)) {
	case 0:
		munmap(at, len);
		break;
	case 1:
		map_zone(at, len, MAP_SHARED, memory_file);
		break;
	case 2:
		map_zone(at, len, MAP_PRIVATE, memory_file);
		break;
	case 3:
		map_zone(at, len, MAP_SHARED | MAP_ANONYMOUS, -1);
		break;
	case 4:
		map_zone(huge, KT_HUGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
		break;
	case 5:
		map_zone(huge, KT_HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		madvise(huge, KT_HUGE, MADV_HUGEPAGE);
		kt_writable(huge);
		break;
	case 6:
		mprotect(at, len, (int)fz_below(rng, 4));
		break;
	case 7:
		mremap(at, len, len + 4096 * fz_below(rng, 32), 0);
		break;
	case 8:
		mlock2(at, len, MLOCK_ONFAULT);
		break;
	case 9:
		madvise(at, len, (int)fz_below(rng, 22));
		break;
	default:
		map_zone(at, len, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1);
		break;
	}
}

void *fz_change(void *arg)
{
	struct fz_rng *rng = arg;

	while (!fz_stopped()) {
		change_tagged(rng);
		change_wild(rng);
		atomic_fetch_add(&fz_cover->changes, 2);
		usleep((useconds_t)fz_below(rng, 300));
	}
	return NULL;
}
