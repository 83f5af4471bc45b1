/* SPDX-License-Identifier: MIT */
/*
 * A program with phases: it moves its arrays from DDR to HBM and back by the
 * asynchronous interface, and goes on computing while they move.
 *
 * usage: phases [MEBIBYTES]      (of the three arrays together; default 96)
 *
 * Prints after each phase where the arrays' pages are, as move_pages(2) tells
 * it, and verifies every element at the end. Exit status 0, or 1 when a value
 * is wrong, 77 when the machine has no HBM.
 */
#include <errno.h>
#include <numaif.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ferry/ferry.h>

#define ARRAYS 3

struct work {
	uint64_t *array[ARRAYS];
	size_t length; /* elements of each */
	uint64_t steps;
};

static void fail(const char *what, int error)
{
	fprintf(stderr, "phases: %s: %s\n", what, strerror(error));
	exit(1);
}

/* After s steps element i of an array that began as i is i + s. */
static void step(struct work *work)
{
	for (int a = 0; a < ARRAYS; a++)
		for (size_t i = 0; i < work->length; i++)
			work->array[a][i]++;
	work->steps++;
}

/* The kernel's own answer, not Ferry's. */
static void print_placement(const struct work *work, const char *phase,
			    const struct ferry_tier_info *hbm)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t pages = work->length * sizeof(uint64_t) / page, in_hbm = 0, in_ddr = 0;
	void **address = calloc(pages, sizeof(*address));
	int *node = calloc(pages, sizeof(*node));

	if (!address || !node)
		fail("calloc", ENOMEM);
	for (int a = 0; a < ARRAYS; a++) {
		for (size_t i = 0; i < pages; i++)
			address[i] = (char *)work->array[a] + i * page;
		if (move_pages(0, pages, address, NULL, node, 0) < 0)
			fail("move_pages", errno);
		for (size_t i = 0; i < pages; i++) {
			if (node[i] < 0)
				continue;
			if (hbm->nodes[node[i] / 64] >> (node[i] % 64) & 1)
				in_hbm++;
			else
				in_ddr++;
		}
	}
	printf("%-28s %10zu %10zu %8llu\n", phase, in_ddr * page >> 20,
	       in_hbm * page >> 20, (unsigned long long)work->steps);
	free(address);
	free(node);
}

/* Starts the move and computes until it is done. */
static void move_while_computing(struct work *work, int target)
{
	struct ferry_range range[ARRAYS];
	struct ferry_result result;
	ferry_request *request;
	int error;

	for (int a = 0; a < ARRAYS; a++)
		range[a] = (struct ferry_range){.addr = work->array[a],
						.len = work->length * sizeof(uint64_t),
						.node = target};
	error = ferry_submit(range, ARRAYS, &request);
	if (error)
		fail("ferry_submit", -error);
	do
		step(work);
	while (ferry_request_wait(request, 0) == -ETIMEDOUT);
	error = ferry_request_result(request, &result, sizeof(result));
	if (error || result.error)
		fail("request", error ? -error : -result.error);
	ferry_request_free(request);
}

static void verify(const struct work *work)
{
	for (int a = 0; a < ARRAYS; a++)
		for (size_t i = 0; i < work->length; i++)
			if (work->array[a][i] != i + work->steps) {
				fprintf(stderr,
					"phases: array %d, element %zu is wrong\n", a, i);
				exit(1);
			}
}

int main(int argc, char **argv)
{
	size_t mebibytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 96;
	struct ferry_tier_info hbm;
	struct work work = {.length = (mebibytes << 20) / ARRAYS / sizeof(uint64_t)};

	if (argc > 2 || work.length == 0) {
		fprintf(stderr, "usage: phases [MEBIBYTES]\n");
		return 2;
	}
	if (ferry_tier_info(FERRY_TIER_HBM, &hbm, sizeof(hbm)) != 0) {
		fprintf(stderr, "phases: this machine has no HBM to move to\n");
		return 77;
	}
	for (int a = 0; a < ARRAYS; a++) {
		if (ferry_posix_memalign((void **)&work.array[a], (size_t)2 << 20,
					 work.length * sizeof(uint64_t), FERRY_DDR))
			fail("ferry_posix_memalign", ENOMEM);
		for (size_t i = 0; i < work.length; i++)
			work.array[a][i] = i;
	}

	printf("%-28s %10s %10s %8s\n", "phase", "DDR MiB", "HBM MiB", "steps");
	step(&work);
	print_placement(&work, "computed in DDR", &hbm);
	move_while_computing(&work, FERRY_NODE_HBM);
	print_placement(&work, "moved to HBM meanwhile", &hbm);
	step(&work);
	print_placement(&work, "computed in HBM", &hbm);
	move_while_computing(&work, FERRY_NODE_DDR);
	print_placement(&work, "moved back to DDR meanwhile", &hbm);
	verify(&work);
	printf("all %zu elements are right after %llu steps; engine %s\n",
	       ARRAYS * work.length, (unsigned long long)work.steps, ferry_engine(NULL));
	for (int a = 0; a < ARRAYS; a++)
		ferry_free(work.array[a]);
	return 0;
}
