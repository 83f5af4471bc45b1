/* SPDX-License-Identifier: MIT */
/*
 * A working set of which a tenth is hot; in the middle of the run other blocks
 * become the hot ones. What places the memory is not this program's business: it
 * is run under a policy, or beside one, and tells where the kernel has the pages.
 * --pattern says how it is accessed (pattern.c):
 *   hotset   at random; hot blocks, scattered, take nine tenths of the accesses
 *   chase    the same, each address read from the line before
 *   stencil  over and over through one run of blocks, each line with its neighbours
 *   stream   all of it, in order: everything is hot
 *   uniform  all of it, at random
 *
 * Prints a line for each interval:
 *   SECONDS PHASE ACCESSES RATE HOT-SHARE ACCESS-SHARE MOVED
 * ACCESSES of this interval; RATE of them a second, without the time that
 * looking took; HOT-SHARE of the hot blocks' pages on HBM at its end;
 * ACCESS-SHARE: of all accesses of the interval, those to pages that are on HBM
 * at its end, from this program's own count for each block (a stream reads two lines
 * for one that it counts as an access); MOVED: pages by which
 * blocks have more or less of themselves on HBM than at the end before.
 *
 * Every access adds 1 to a word, and in the end all words must add up to the
 * accesses: ends with 1 if one was lost.
 *
 * The guest's TLB, emulated, keeps translations for very long, so that accessed
 * bits are not set anew; this program flushes it every 10 ms, whatever places
 * its memory. One thread.
 */
#include <errno.h>
#include <getopt.h>
#include <numaif.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include "pattern.h"

#define PAGE        ((size_t)4096)
#define FLUSH_PAGES 256
#define FLUSH_NS    10000000

/* Of the blocks that are not hot, every so many'th page is looked at. */
#define COLD_STEP 16

static struct {
	const struct pattern *pattern;
	bool huge;
	double seconds, interval; /* of each phase */
	double until, hold;       /* a phase ends so long after this HOT-SHARE */
	int hbm;
} option = {
	.seconds = 10,
	.interval = 0.5,
	.until = 2, /* never */
	.hbm = 1,
};

static struct working_set set = {.bytes = (size_t)448 << 20, .block = (size_t)2 << 20};
static char *scratch;
static double *share_before; /* of each block on HBM */

static void die(const char *what)
{
	fprintf(stderr, "bench_hotset: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Changing the protection of many touched pages flushes all of the process. */
static void flush_tlb(void)
{
	mprotect(scratch, FLUSH_PAGES * PAGE, PROT_NONE);
	mprotect(scratch, FLUSH_PAGES * PAGE, PROT_READ | PROT_WRITE);
}

static void order_blocks(void)
{
	/* What lies in one run is not what was touched first. */
	for (size_t i = 0; i < set.blocks; i++)
		set.order[i] = (uint32_t)((i + set.blocks / 2) % set.blocks);
	for (size_t i = set.blocks - 1; i > 0 && option.pattern->scattered; i--) {
		size_t k = next_random() % (i + 1);
		uint32_t swapped = set.order[i];

		set.order[i] = set.order[k];
		set.order[k] = swapped;
	}
}

static void set_up(void)
{
	set.memory = aligned_alloc((size_t)2 << 20, set.bytes);
	scratch = mmap(NULL, FLUSH_PAGES * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	set.blocks = set.bytes / set.block;
	set.hot_blocks = option.pattern->all_hot ? set.blocks : set.blocks / 10;
	set.order = malloc(set.blocks * sizeof(*set.order));
	set.counted = calloc(set.blocks, sizeof(*set.counted));
	share_before = calloc(set.blocks, sizeof(*share_before));
	if (!set.memory || scratch == MAP_FAILED || !set.order || !set.counted ||
	    !share_before)
		die("memory");
	if (madvise(set.memory, set.bytes, option.huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		die("madvise");
	memset(set.memory, 0, set.bytes);
	memset(scratch, 1, FLUSH_PAGES * PAGE);
	order_blocks();
	if (option.pattern->prepare && !option.pattern->prepare(&set))
		die("memory");
}

/* ---- where the pages are -------------------------------------------------- */

/* The share of a block's pages that is on HBM. */
static double share_on_hbm(size_t block, size_t step)
{
	size_t n = set.block / PAGE / step;
	void *page[512];
	int node[512];
	size_t on_hbm = 0;

	for (size_t i = 0; i < n; i++)
		page[i] = set.memory + block * set.block + i * step * PAGE;
	if (move_pages(0, n, page, NULL, node, 0))
		die("move_pages");
	for (size_t i = 0; i < n; i++)
		on_hbm += node[i] == option.hbm;
	return (double)on_hbm / (double)n;
}

/* Returns the share of the hot blocks. */
static double report(double at, int phase, uint64_t accesses, double rate)
{
	const uint32_t *hot = hot_of(&set, phase);
	double hot_share = 0, access_share = 0, moved = 0;
	uint64_t counted = 0;

	for (size_t i = 0; i < set.blocks; i++) {
		const uint32_t *entry = &set.order[i];
		bool is_hot = entry >= hot && entry < hot + set.hot_blocks;
		size_t block = *entry;
		double share = share_on_hbm(block, is_hot ? 1 : COLD_STEP);

		hot_share += is_hot ? share : 0;
		access_share += share * (double)set.counted[block];
		counted += set.counted[block];
		set.counted[block] = 0;
		moved += share > share_before[block] ? share - share_before[block]
						     : share_before[block] - share;
		share_before[block] = share;
	}
	printf("%.2f %d %lu %.0f %.4f %.4f %.0f\n", at, phase, (unsigned long)accesses,
	       rate, hot_share / (double)set.hot_blocks, access_share / (double)counted,
	       moved * (double)(set.block / PAGE));
	fflush(stdout);
	return hot_share / (double)set.hot_blocks;
}

static uint64_t run_phase(int phase, uint64_t start)
{
	uint64_t begun = now_ns(), flushed = begun, total = 0;
	uint64_t end = begun + (uint64_t)(option.seconds * 1e9);
	double wanted = option.until;

	while (begun < end) {
		uint64_t until = begun + (uint64_t)(option.interval * 1e9), now = begun;
		uint64_t accesses = 0;
		double share;

		while (now < until) {
			option.pattern->access(&set, phase, 1024);
			accesses += 1024;
			now = now_ns();
			if (now - flushed >= FLUSH_NS) {
				flush_tlb();
				flushed = now;
			}
		}
		total += accesses;
		share = report((double)(now - start) / 1e9, phase, accesses,
			       (double)accesses / ((double)(now - begun) / 1e9));
		if (share >= wanted && now + (uint64_t)(option.hold * 1e9) < end) {
			end = now + (uint64_t)(option.hold * 1e9);
			wanted = 2;
		}
		begun = now_ns();
	}
	return total;
}

static void read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"bytes", required_argument, NULL, 'b'},
		{"block", required_argument, NULL, 'k'},
		{"pattern", required_argument, NULL, 'p'},
		{"huge", no_argument, NULL, 'h'},
		{"seconds", required_argument, NULL, 's'},
		{"interval", required_argument, NULL, 'i'},
		{"until", required_argument, NULL, 'u'},
		{"hold", required_argument, NULL, 'o'},
		{"hbm", required_argument, NULL, 'n'},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'b':
			set.bytes = strtoull(optarg, NULL, 0);
			break;
		case 'k':
			set.block = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			option.pattern = pattern_named(optarg);
			break;
		case 'h':
			option.huge = true;
			break;
		case 's':
			option.seconds = strtod(optarg, NULL);
			break;
		case 'i':
			option.interval = strtod(optarg, NULL);
			break;
		case 'u':
			option.until = strtod(optarg, NULL);
			break;
		case 'o':
			option.hold = strtod(optarg, NULL);
			break;
		case 'n':
			option.hbm = (int)strtol(optarg, NULL, 0);
			break;
		default:
			fprintf(stderr,
				"usage: bench_hotset [--bytes N] [--block N] [--huge] "
				"[--pattern hotset|chase|stencil|stream|uniform] "
				"[--seconds S] [--interval S] "
				"[--until SHARE [--hold S]] [--hbm NODE]\n");
			exit(2);
		}
	}
	if (!option.pattern || set.block < COLD_STEP * PAGE || set.block > 512 * PAGE ||
	    set.bytes < 20 * set.block) {
		fprintf(stderr, "bench_hotset: no such pattern, or a block of less than "
				"64 KiB, of more than 2 MiB or of a twentieth\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	uint64_t start, accesses = 0, sum = 0;

	option.pattern = pattern_named("hotset");
	read_options(argc, argv);
	set_up();
	/* What first touch did is no move. */
	for (size_t i = 0; i < set.blocks; i++)
		share_before[i] = share_on_hbm(i, COLD_STEP);
	start = now_ns();
	for (int phase = 0; phase < PHASES; phase++)
		accesses += run_phase(phase, start);
	for (size_t at = 0; at < set.bytes; at += LINE)
		sum += *(uint64_t *)(set.memory + at);
	if (sum != accesses) {
		fprintf(stderr, "bench_hotset: %lu accesses, %lu found in memory\n",
			(unsigned long)accesses, (unsigned long)sum);
		return 1;
	}
	return 0;
}
