/* SPDX-License-Identifier: MIT */
/*
 * Proves, in a program that links libferry, that advice and phases bring memory
 * where they say, as the kernel tells, while the memory is written; and that
 * advice ends with the memory.
 *
 * usage: advise_checks auto|blind|slow|once [ferry]
 *   auto   memory is the policy auto's, with an HBM limit of 48 MiB
 *   blind  likewise, and nothing tells what is hot
 *   slow   likewise, and no more than 4 MiB are moved in a second
 *   once   it is not: advice moves it once
 *   ferry  allocate with ferry_malloc(), else with malloc()
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ferry/ferry.h>

#include "../where.h"

#define MIB     ((size_t)1 << 20)
#define BYTES   (128 * MIB)
#define PART    (8 * MIB)
#define SECONDS 40

static bool use_ferry;
static char *memory;      /* of which parts are hot, or are advised on */
static uint64_t *written; /* rounds of each part */
static int failures;

static void check(bool ok, const char *what)
{
	printf("%s: %s\n", ok ? "ok" : "FAILED", what);
	fflush(stdout);
	failures += !ok;
}

static char *allocate(size_t size)
{
	void *ptr = NULL;

	if (use_ferry)
		ferry_posix_memalign(&ptr, 2 * MIB, size, FERRY_ANY);
	else
		ptr = aligned_alloc(2 * MIB, size);
	if (!ptr)
		exit(1);
	/* Small pages: what is hot shall be seen soon. */
	madvise(ptr, size, MADV_NOHUGEPAGE);
	memset(ptr, 0, size);
	return ptr;
}

static void release(void *ptr)
{
	if (use_ferry)
		ferry_free(ptr);
	else
		free(ptr);
}

static char *part(unsigned int number)
{
	return memory + number * PART;
}

static void write_part(unsigned int number)
{
	for (size_t at = 0; at < PART; at += 64)
		++*(volatile uint64_t *)(part(number) + at);
	written[number]++;
}

/* Writes part @hot, if not negative, until @part is where it shall be. */
static bool comes(const char *at, size_t size, bool to_hbm, int hot)
{
	time_t end = time(NULL) + SECONDS;

	while (!(to_hbm ? all_hbm(at, size) : all_ddr(at, size))) {
		struct timespec pause = {0, 20000000};

		if (time(NULL) > end) {
			printf("%zu bytes are on HBM, %zu are not\n",
			       bytes_at(at, size, true), bytes_at(at, size, false));
			return false;
		}
		for (int i = 0; i < 10 && hot >= 0; i++)
			write_part((unsigned int)hot);
		if (hot < 0)
			nanosleep(&pause, NULL);
		flush_tlb();
	}
	return true;
}

/* Writes part @hot for some time. */
static void go_on(int hot, int seconds)
{
	time_t end = time(NULL) + seconds;

	while (time(NULL) <= end) {
		for (int i = 0; i < 10; i++)
			write_part((unsigned int)hot);
		flush_tlb();
	}
}

static void data_is_whole(void)
{
	bool whole = true;

	for (size_t at = 0; at < BYTES; at += 64)
		whole &= *(uint64_t *)(memory + at) == written[at / PART];
	check(whole, "nothing is lost");
}

static void wrong_arguments(void)
{
	char name[65];

	memset(name, 'x', 64);
	name[64] = 0;
	check(ferry_advise(memory, PART, (enum ferry_advice)5) == -22, "no such advice");
	check(ferry_advise(memory, SIZE_MAX, FERRY_ADVICE_COLD) == -22, "it wraps");
	check(ferry_advise(NULL, 0, FERRY_ADVICE_PIN_HBM) == 0, "nothing is no error");
	check(ferry_phase_begin("") == -22 && ferry_phase_begin(NULL) == -22 &&
		      ferry_phase_begin(name) == -22,
	      "names of phases");
	check(ferry_phase_end("none") == -22, "a phase that was not begun");
}

/* ---- memory of the policy auto ------------------------------------------- */

static void pinned_to_hbm(void)
{
	check(all_ddr(part(12), PART), "part 12 is in DDR at first");
	check(!ferry_advise(part(12), PART, FERRY_ADVICE_PIN_HBM), "pin to HBM");
	check(comes(part(12), PART, true, -1), "it is in HBM, idle as it is");
	check(comes(part(10), PART, true, 10), "so is what is hot");
	check(all_hbm(part(12), PART), "what is pinned stays");
}

static void pinned_to_ddr(void)
{
	check(!ferry_advise(part(10), PART, FERRY_ADVICE_PIN_DDR), "pin to DDR");
	check(comes(part(10), PART, false, 10), "it leaves HBM, hot as it is");
	go_on(10, 3);
	check(all_ddr(part(10), PART), "it stays in DDR");
	check(!ferry_advise(part(10), PART, FERRY_ADVICE_NONE), "let go");
	check(comes(part(10), PART, true, 10), "it is back in HBM");
}

static void needed(void)
{
	check(all_ddr(part(14), PART), "part 14 is in DDR");
	check(!ferry_advise(part(14), PART, FERRY_ADVICE_WILL_NEED), "will need");
	check(comes(part(14), PART, true, -1), "it is in HBM, idle as it is");
	ferry_advise(memory, BYTES, FERRY_ADVICE_NONE);
}

/* Of memory at the same address, the advice is gone. */
static void freed(void)
{
	char *first, *second;
	bool came;

	first = allocate(PART);
	check(!ferry_advise(first, PART, FERRY_ADVICE_PIN_DDR), "pin to DDR");
	check(comes(first, PART, false, -1), "it is in DDR");
	release(first);
	second = allocate(PART);
	if (first != second)
		printf("not at the same address again\n");
	for (time_t end = time(NULL) + SECONDS;
	     !(came = all_hbm(second, PART)) && time(NULL) < end;) {
		for (int i = 0; i < 10; i++)
			for (size_t at = 0; at < PART; at += 64)
				++*(volatile uint64_t *)(second + at);
		flush_tlb();
	}
	check(came, "memory that is allocated there is not pinned");
	release(second);
}

static void phases(void)
{
	check(!ferry_phase_begin("a"), "phase a");
	check(comes(part(13), PART, true, 13), "what is hot in a is in HBM");
	go_on(13, 2);
	check(!ferry_phase_end("a"), "end");
	check(!ferry_phase_begin("b"), "phase b");
	check(comes(part(15), PART, true, 15), "what is hot in b is in HBM");
	go_on(15, 1);
	/* Something that takes what HBM has. */
	ferry_advise(part(0), 6 * PART, FERRY_ADVICE_PIN_HBM);
	check(comes(part(13), PART, false, 15), "what was hot in a had to leave");
	check(!ferry_phase_end("b"), "end");
	ferry_advise(part(0), 6 * PART, FERRY_ADVICE_NONE);
	check(!ferry_phase_prefetch("a"), "prefetch");
	check(comes(part(13), PART, true, -1), "it is back before a begins again");
	check(!ferry_phase_begin("a") && !ferry_phase_end("a"), "phase a again");
}

/* Without a sampler: nothing but advice moves memory. */
static void blind(void)
{
	check(!ferry_advise(part(12), PART, FERRY_ADVICE_PIN_HBM), "pin to HBM");
	check(comes(part(12), PART, true, 12), "it is in HBM");
	check(!ferry_advise(part(12), PART, FERRY_ADVICE_PIN_DDR), "pin to DDR");
	check(comes(part(12), PART, false, 12), "it is in DDR");
	/* More than there is room for, but for what may leave. */
	check(!ferry_advise(part(8), 4 * PART, FERRY_ADVICE_WILL_NEED), "will need");
	check(comes(part(8), 4 * PART, true, 9), "it is in HBM");
}

/* What may be moved in a second bounds it from above, however slow the machine is. */
static void slow(void)
{
	time_t start = time(NULL);

	check(!ferry_advise(part(8), 4 * PART, FERRY_ADVICE_WILL_NEED), "will need");
	check(comes(part(8), 4 * PART, true, -1), "it is in HBM");
	check(time(NULL) - start >= (time_t)(4 * PART / (4 * MIB)) - 2,
	      "it took its time");
}

/* ---- other memory -------------------------------------------------------- */

static void moved_once(void)
{
	check(all_ddr(part(1), PART), "in DDR at first");
	check(!ferry_advise(part(1), PART, FERRY_ADVICE_PIN_HBM), "pin to HBM");
	check(comes(part(1), PART, true, 1), "it is in HBM");
	check(!ferry_advise(part(1), PART, FERRY_ADVICE_COLD), "cold");
	check(comes(part(1), PART, false, 1), "it is in DDR");
	check(!ferry_advise(part(1), PART, FERRY_ADVICE_WILL_NEED), "will need");
	check(comes(part(1), PART, true, 1), "it is in HBM");
	check(!ferry_advise(part(1), PART, FERRY_ADVICE_NONE), "let go");
	go_on(1, 1);
	check(all_hbm(part(1), PART), "it stays");
	check(!ferry_phase_begin("a") && !ferry_phase_end("a"), "phases do no harm");
}

int main(int argc, char **argv)
{
	use_ferry = argc == 3;
	if (argc < 2)
		return 2;
	if (!machine_has_hbm())
		return 77;
	written = calloc(BYTES / PART, sizeof(*written));
	memory = allocate(BYTES);
	wrong_arguments();
	if (!strcmp(argv[1], "auto")) {
		pinned_to_hbm();
		pinned_to_ddr();
		needed();
		freed();
		phases();
	} else if (!strcmp(argv[1], "blind")) {
		blind();
	} else if (!strcmp(argv[1], "slow")) {
		slow();
	} else {
		moved_once();
	}
	data_is_whole();
	release(memory);
	return failures > 0;
}
