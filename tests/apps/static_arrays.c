/* SPDX-License-Identifier: MIT */
/*
 * A program whose arrays are static: one as a Fortran COMMON block is (in .bss, by
 * a symbol with an underscore), one with values (.data). Run by test_static; tells
 * where the kernel has them. One thread.
 *
 * usage: static_arrays where    touches all, and prints, for each array, the MiB
 *                               on HBM and elsewhere
 *        static_arrays hot      works on a part of each array until its blocks are on HBM
 * Ends with 1 if a value is lost, or after waiting in vain.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../where.h"

#define MIB     ((size_t)1 << 20)
#define WORDS   (MIB / sizeof(uint64_t))
#define BLOCK   ((size_t)64 << 10) /* what auto places on its own */
#define SECONDS 150

uint64_t block_[96 * WORDS];
uint64_t initialised[16 * WORDS] = {[0] = 1, [5 * WORDS] = 2, [16 * WORDS - 1] = 3};

/* 1 if a value of before main() is not there. */
static int check_values(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < 16 * WORDS; i++)
		sum += initialised[i];
	for (size_t i = 0; i < 96 * WORDS; i += 512)
		sum += block_[i];
	return sum != 6 || initialised[0] != 1 || initialised[5 * WORDS] != 2 ||
	       initialised[16 * WORDS - 1] != 3;
}

static void print(const char *name, const void *addr, size_t size)
{
	printf("%s %zu %zu\n", name, bytes_at(addr, size, true) / MIB,
	       bytes_at(addr, size, false) / MIB);
}

/* The blocks within are; those at the ends may be cold for the most part, and stay. */
static bool blocks_hbm(const void *addr, size_t size)
{
	uintptr_t start = ((uintptr_t)addr + BLOCK - 1) & ~(BLOCK - 1);
	uintptr_t end = ((uintptr_t)addr + size) & ~(BLOCK - 1);

	return all_hbm((const void *)start, end - start);
}

/* Rounds until both parts are on HBM, or -1. */
static long work(uint64_t *first, uint64_t *second, size_t words)
{
	time_t end = time(NULL) + SECONDS;
	long rounds = 0;

	while (!blocks_hbm(first, words * 8) || !blocks_hbm(second, words * 8)) {
		for (int i = 0; i < 20; i++, rounds++)
			for (size_t at = 0; at < words; at += 8) {
				((volatile uint64_t *)first)[at]++;
				((volatile uint64_t *)second)[at]++;
			}
		flush_tlb();
		if (time(NULL) > end)
			return -1;
	}
	return rounds;
}

static int hot(void)
{
	uint64_t *first = block_ + 60 * WORDS, *second = initialised + 8 * WORDS;
	const size_t words = 4 * WORDS;
	long rounds = work(first, second, words);

	print("block_", first, words * 8);
	print("initialised", second, words * 8);
	if (rounds < 0)
		return 1;
	for (size_t at = 0; at < words; at += 8)
		if (first[at] != (uint64_t)rounds || second[at] != (uint64_t)rounds)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 2 || check_values()) {
		printf("values are lost\n");
		return 1;
	}
	/* Not 0, which a page that was never written has too. */
	for (size_t i = 1; i < 96 * WORDS; i += 512)
		block_[i] = 1;
	for (size_t i = 1; i < 16 * WORDS; i += 512)
		initialised[i] = 1;
	if (!strcmp(argv[1], "hot"))
		return hot();
	print("block_", block_, sizeof(block_));
	print("initialised", initialised, sizeof(initialised));
	return 0;
}
