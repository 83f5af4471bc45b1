/* SPDX-License-Identifier: MIT */
/*
 * A program that tells what it knows of its memory, instead of where it is to go: of two
 * fields one is computed on in each phase, and the other rests.
 *
 * usage: advise [MEBIBYTES]      (of each field; default 32)
 *
 * Under the policy auto (FERRY_POLICY=auto, or ferry run --policy auto) advice goes
 * before what is found to be hot, and lasts until it is let go; with other policies it
 * moves the field once. Give it an HBM limit that has no room for both fields
 * (FERRY_HBM_LIMIT=40M) to see them change places.
 *
 * Prints after each phase where the fields' pages are, as move_pages(2) tells it, and
 * verifies every element at the end. Exit status 0; 1 when a value is wrong or a field
 * has not come to HBM in time; 77 when the machine has no HBM.
 */
#include <errno.h>
#include <numaif.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <ferry/ferry.h>

#define FIELDS 2
#define PHASES 4

/* For a phase's field to come to HBM, in seconds. */
#define PATIENCE 120

struct field {
	uint64_t *element;
	uint64_t steps;
};

static size_t length; /* elements of each field */
static struct ferry_tier_info hbm;

static void fail(const char *what, int error)
{
	fprintf(stderr, "advise: %s: %s\n", what, strerror(error));
	exit(1);
}

/* Pages of a field that are in HBM: the kernel's own answer, not Ferry's. */
static size_t pages_in_hbm(const struct field *field, size_t pages)
{
	size_t page = sysconf(_SC_PAGESIZE), count = 0;
	void **address = calloc(pages, sizeof(*address));
	int *node = calloc(pages, sizeof(*node));

	if (!address || !node)
		fail("calloc", ENOMEM);
	for (size_t i = 0; i < pages; i++)
		address[i] = (char *)field->element + i * page;
	if (move_pages(0, pages, address, NULL, node, 0) < 0)
		fail("move_pages", errno);
	for (size_t i = 0; i < pages; i++)
		count += node[i] >= 0 && hbm.nodes[node[i] / 64] >> (node[i] % 64) & 1;
	free(address);
	free(node);
	return count;
}

/* After s steps element i of a field that began as i is i + s. */
static void step(struct field *field)
{
	for (size_t i = 0; i < length; i++)
		field->element[i]++;
	field->steps++;
}

static void advise(const struct field *field, enum ferry_advice advice)
{
	int error = ferry_advise(field->element, length * sizeof(uint64_t), advice);

	if (error)
		fail("ferry_advise", -error);
}

/* Computes on one field until it is in HBM. */
static void phase(int number, struct field *active, struct field *resting)
{
	size_t pages = length * sizeof(uint64_t) / sysconf(_SC_PAGESIZE), here;
	time_t end = time(NULL) + PATIENCE;

	/* In this order: what rests makes room. Neither call waits. */
	advise(resting, FERRY_ADVICE_COLD);
	advise(active, FERRY_ADVICE_WILL_NEED);
	do {
		step(active);
		here = pages_in_hbm(active, pages);
	} while (here < pages && time(NULL) < end);
	printf("%5d %15zu %% %15zu %% %8llu\n", number, here * 100 / pages,
	       pages_in_hbm(resting, pages) * 100 / pages,
	       (unsigned long long)active->steps);
	if (here < pages) {
		fprintf(stderr, "advise: the field did not come to HBM in %d s\n",
			PATIENCE);
		exit(1);
	}
}

static void verify(const struct field *field)
{
	for (size_t i = 0; i < length; i++)
		if (field->element[i] != i + field->steps) {
			fprintf(stderr, "advise: element %zu is wrong\n", i);
			exit(1);
		}
}

int main(int argc, char **argv)
{
	size_t mebibytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 32;
	struct field field[FIELDS] = {0};

	length = (mebibytes << 20) / sizeof(uint64_t);
	if (argc > 2 || length == 0) {
		fprintf(stderr, "usage: advise [MEBIBYTES]\n");
		return 2;
	}
	if (ferry_tier_info(FERRY_TIER_HBM, &hbm, sizeof(hbm)) != 0) {
		fprintf(stderr, "advise: this machine has no HBM\n");
		return 77;
	}
	for (int f = 0; f < FIELDS; f++) {
		if (ferry_posix_memalign((void **)&field[f].element, (size_t)2 << 20,
					 length * sizeof(uint64_t), FERRY_ANY))
			fail("ferry_posix_memalign", ENOMEM);
		for (size_t i = 0; i < length; i++)
			field[f].element[i] = i;
	}
	printf("phase  active in HBM   resting in HBM    steps\n");
	for (int number = 0; number < PHASES; number++)
		phase(number, &field[number % FIELDS], &field[(number + 1) % FIELDS]);
	for (int f = 0; f < FIELDS; f++) {
		verify(&field[f]);
		ferry_free(field[f].element);
	}
	printf("all %zu elements are right\n", FIELDS * length);
	return 0;
}
