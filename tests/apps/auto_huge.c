/* SPDX-License-Identifier: MIT */
/*
 * Huge pages under the policy `auto`, with room in HBM for a third of them. Three
 * times something else is hot, and the kernel is asked what became of it:
 *
 *   uniform  all of the memory: some huge pages are split, never more than half, and
 *            all are whole again
 *   skewed   in every granule two blocks: they are on HBM, which needs huge pages split
 *   whole    every eighth granule, all of it: on HBM, and the huge pages are whole again
 *
 * It waits for each, long enough for a machine that is emulated and busy. Accesses count
 * in the words that they meet, and all must be there in the end. Ends with 0; 1 if it
 * waited in vain or data was lost; 77 without huge pages.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../where.h"

#define GRANULE     ((size_t)2 << 20)
#define BLOCK       ((size_t)64 << 10)
#define GRANULES    ((size_t)24)
#define BYTES       (GRANULES * GRANULE)
#define SECONDS     300 /* for each */
#define FLUSH_NS    10000000
#define ANYWHERE    100 /* one in so many accesses */
#define WHOLE_SHARE 0.9

static char *mem;
static size_t others; /* bytes of huge pages that are not there */
static uint64_t accesses;

static uint64_t next_random(void)
{
	static uint64_t state = 88172645463325252U;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Bytes of the process that are in huge pages. */
static size_t all_huge_bytes(void)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	static const char key[] = "AnonHugePages:";
	size_t kib = 0;
	char line[512];

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, sizeof(key) - 1))
			kib += strtoul(line + sizeof(key) - 1, NULL, 10);
	if (file)
		fclose(file);
	return kib << 10;
}

static size_t huge_bytes(void)
{
	size_t bytes = all_huge_bytes();

	return bytes > others ? bytes - others : 0;
}

/* ---- what is hot --------------------------------------------------------- */

static size_t anywhere(void)
{
	return next_random() % BYTES;
}

static size_t two_blocks(void)
{
	uint64_t random = next_random();
	size_t granule = random % GRANULES;

	/* Other blocks in each granule. */
	return granule * GRANULE +
	       (granule * 5 + (random >> 8) % 2 * 11) % (GRANULE / BLOCK) * BLOCK +
	       (random >> 16) % BLOCK;
}

static size_t eighth(void)
{
	uint64_t random = next_random();

	return random % (GRANULES / 8) * 8 * GRANULE + (random >> 8) % GRANULE;
}

/* For a tenth of a second. */
static void work(size_t (*hot)(void))
{
	double end = now() + 0.1;

	while (now() < end) {
		double flush = now() + FLUSH_NS / 1e9;

		while (now() < flush) {
			for (int i = 0; i < 1000; i++) {
				size_t at = i % ANYWHERE ? hot() : anywhere();

				++*(volatile uint64_t *)(mem + (at & ~(size_t)63));
			}
			accesses += 1000;
		}
		flush_tlb();
	}
}

/* ---- what is to become of it --------------------------------------------- */

static double share_of_blocks(void)
{
	size_t bytes = 0;

	for (size_t i = 0; i < GRANULES; i++)
		for (size_t k = 0; k < 2; k++)
			bytes += bytes_at(mem + i * GRANULE +
						  (i * 5 + k * 11) % (GRANULE / BLOCK) *
							  BLOCK,
					  BLOCK, true);
	return (double)bytes / (double)(2 * GRANULES * BLOCK);
}

static double share_of_eighth(void)
{
	size_t bytes = 0;

	for (size_t i = 0; i < GRANULES; i += 8)
		bytes += bytes_at(mem + i * GRANULE, GRANULE, true);
	return (double)bytes / ((double)BYTES / 8);
}

static int uniform(void)
{
	double end = now() + SECONDS;
	size_t least = BYTES;
	bool again = false;

	while (now() < end && !again) {
		size_t huge;

		work(anywhere);
		huge = huge_bytes();
		again = least < BYTES && huge >= BYTES;
		least = huge < least ? huge : least;
	}
	printf("uniform: %zu of %zu bytes in huge pages, once only %zu\n", huge_bytes(),
	       BYTES, least);
	return !again || least < BYTES / 2;
}

static int skewed(void)
{
	double end = now() + SECONDS;
	bool done = false;

	while (now() < end && !done) {
		work(two_blocks);
		done = share_of_blocks() >= 0.95 && huge_bytes() <= BYTES / 2;
	}
	printf("skewed: %.3f of what is hot on HBM, %zu of %zu bytes in huge pages\n",
	       share_of_blocks(), huge_bytes(), BYTES);
	return !done;
}

static int whole(void)
{
	double end = now() + SECONDS;
	bool done = false;

	while (now() < end && !done) {
		work(eighth);
		done = share_of_eighth() >= 0.95 &&
		       (double)huge_bytes() >= WHOLE_SHARE * (double)BYTES;
	}
	printf("whole: %.3f of what is hot on HBM, %zu of %zu bytes in huge pages\n",
	       share_of_eighth(), huge_bytes(), BYTES);
	return !done;
}

int main(void)
{
	uint64_t sum = 0;
	int failed;

	setvbuf(stdout, NULL, _IONBF, 0);
	mem = aligned_alloc(GRANULE, BYTES);
	if (!mem || madvise(mem, BYTES, MADV_HUGEPAGE))
		return 77;
	others = all_huge_bytes();
	memset(mem, 0, BYTES);
	if (huge_bytes() < BYTES) {
		printf("skipped: %zu bytes in huge pages\n", huge_bytes());
		return 77;
	}
	failed = uniform();
	failed |= skewed();
	failed |= whole();
	for (size_t at = 0; at < BYTES; at += 64)
		sum += *(uint64_t *)(mem + at);
	if (sum != accesses)
		printf("%zu accesses, %zu found in memory\n", (size_t)accesses,
		       (size_t)sum);
	return failed || sum != accesses;
}
