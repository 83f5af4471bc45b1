/* SPDX-License-Identifier: MIT */
/*
 * A working set of which a tenth, in scattered blocks, takes nine tenths of the
 * accesses; in the middle of the run other blocks become the hot ones. What
 * places the memory is not this program's business: it is run under a policy,
 * or beside one, and tells where the kernel has the pages.
 *
 * Prints a line for each interval:
 *   SECONDS PHASE ACCESSES RATE HOT-SHARE ACCESS-SHARE MOVED
 * ACCESSES of this interval; RATE of them a second, without the time that
 * looking took; HOT-SHARE of the hot blocks' pages on HBM at its end;
 * ACCESS-SHARE: of all accesses of the interval, those to pages that are on HBM
 * at its end, from this program's own count for each block; MOVED: pages by which
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

#define PAGE        ((size_t)4096)
#define LINE        ((size_t)64)
#define FLUSH_PAGES 256
#define FLUSH_NS    10000000

/* Of the blocks that are not hot, every so many'th page is looked at. */
#define COLD_STEP 16

static struct {
	size_t bytes, block;
	bool huge;
	double seconds, interval; /* of each phase */
	double until, hold;       /* a phase ends so long after this HOT-SHARE */
	int hbm;
} option = {
	.bytes = (size_t)448 << 20,
	.block = (size_t)2 << 20,
	.seconds = 10,
	.interval = 0.5,
	.until = 2, /* never */
	.hbm = 1,
};

static char *memory, *scratch;
static size_t blocks, hot_blocks;
static uint32_t *order;   /* blocks, shuffled: those of phase p begin at p * hot_blocks */
static uint64_t *counted; /* accesses of each block in this interval */
static double *share_before; /* of each block on HBM */
static uint64_t random_state = 88172645463325252U;

static void die(const char *what)
{
	fprintf(stderr, "bench_hotset: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
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

static void set_up(void)
{
	memory = aligned_alloc((size_t)2 << 20, option.bytes);
	scratch = mmap(NULL, FLUSH_PAGES * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	blocks = option.bytes / option.block;
	hot_blocks = blocks / 10;
	order = malloc(blocks * sizeof(*order));
	counted = calloc(blocks, sizeof(*counted));
	share_before = calloc(blocks, sizeof(*share_before));
	if (!memory || scratch == MAP_FAILED || !order || !counted || !share_before)
		die("memory");
	if (madvise(memory, option.bytes, option.huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		die("madvise");
	memset(memory, 0, option.bytes);
	memset(scratch, 1, FLUSH_PAGES * PAGE);
	for (size_t i = 0; i < blocks; i++)
		order[i] = (uint32_t)i;
	for (size_t i = blocks - 1; i > 0; i--) {
		size_t k = next_random() % (i + 1);
		uint32_t swapped = order[i];

		order[i] = order[k];
		order[k] = swapped;
	}
}

static void access_memory(int phase, size_t n)
{
	const uint32_t *hot = order + (size_t)phase * hot_blocks;

	for (size_t i = 0; i < n; i++) {
		uint64_t random = next_random();
		size_t block, line;

		/* Nine of ten are hot; the rest may meet a hot one too. */
		if (random % 10)
			block = hot[(random >> 8) % hot_blocks];
		else
			block = (random >> 8) % blocks;
		line = (random >> 40) % (option.block / LINE);
		++*(volatile uint64_t *)(memory + block * option.block + line * LINE);
		counted[block]++;
	}
}

/* ---- where the pages are -------------------------------------------------- */

/* The share of a block's pages that is on HBM. */
static double share_on_hbm(size_t block, size_t step)
{
	size_t n = option.block / PAGE / step;
	void *page[512];
	int node[512];
	size_t on_hbm = 0;

	for (size_t i = 0; i < n; i++)
		page[i] = memory + block * option.block + i * step * PAGE;
	if (move_pages(0, n, page, NULL, node, 0))
		die("move_pages");
	for (size_t i = 0; i < n; i++)
		on_hbm += node[i] == option.hbm;
	return (double)on_hbm / (double)n;
}

/* Returns the share of the hot blocks. */
static double report(double at, int phase, uint64_t accesses, double rate)
{
	const uint32_t *hot = order + (size_t)phase * hot_blocks;
	double hot_share = 0, access_share = 0, moved = 0;

	for (size_t i = 0; i < blocks; i++) {
		size_t block = order[i];
		bool is_hot = order + i >= hot && order + i < hot + hot_blocks;
		double share = share_on_hbm(block, is_hot ? 1 : COLD_STEP);

		hot_share += is_hot ? share : 0;
		access_share += share * (double)counted[block];
		counted[block] = 0;
		moved += share > share_before[block] ? share - share_before[block]
						     : share_before[block] - share;
		share_before[block] = share;
	}
	printf("%.2f %d %lu %.0f %.4f %.4f %.0f\n", at, phase, (unsigned long)accesses,
	       rate, hot_share / (double)hot_blocks, access_share / (double)accesses,
	       moved * (double)(option.block / PAGE));
	fflush(stdout);
	return hot_share / (double)hot_blocks;
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
			access_memory(phase, 1024);
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
			option.bytes = strtoull(optarg, NULL, 0);
			break;
		case 'k':
			option.block = strtoull(optarg, NULL, 0);
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
				"[--seconds S] [--interval S] [--until SHARE [--hold S]] "
				"[--hbm NODE]\n");
			exit(2);
		}
	}
	if (option.block < COLD_STEP * PAGE || option.block > 512 * PAGE ||
	    option.bytes < 20 * option.block)
		exit(2);
}

int main(int argc, char **argv)
{
	uint64_t start, accesses = 0, sum = 0;

	read_options(argc, argv);
	set_up();
	/* What first touch did is no move. */
	for (size_t i = 0; i < blocks; i++)
		share_before[i] = share_on_hbm(i, COLD_STEP);
	start = now_ns();
	for (int phase = 0; phase < 2; phase++)
		accesses += run_phase(phase, start);
	for (size_t at = 0; at < option.bytes; at += LINE)
		sum += *(uint64_t *)(memory + at);
	if (sum != accesses) {
		fprintf(stderr, "bench_hotset: %lu accesses, %lu found in memory\n",
			(unsigned long)accesses, (unsigned long)sum);
		return 1;
	}
	return 0;
}
