/* SPDX-License-Identifier: MIT */
/*
 * Proves which huge pages are split and made whole again, as the kernel sees them
 * (PAGEMAP_SCAN, AnonHugePages), with a sampler that tells of accesses that are made
 * up: few of those that are in use evenly, and ever more rarely, which are known soon and
 * without a look at the others, before huge pages are moved; all that are hot in places,
 * also where huge pages are too hot to be told apart, or what was even becomes skewed
 * unseen; none where HBM has room for all or the program has given advice; whole again
 * when the skew has gone, where pages have gone, and in a forked child. What is in them
 * stays. One thread, whose clock goes on with each round.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate/collapse.h"
#include "migrate/pagemap.h"
#include "os/random.h"
#include "os/thread.h"
#include "policy/skew.h"

#define GRANULES ((size_t)24)
#define BYTES    (GRANULES * GRANULE_BYTES)
#define ROUND_NS 100000000

static char *mem;
static int pagemap;
static bool skewed;  /* one block of each granule is hot; else all are in use */
static bool too_hot; /* all huge pages are accessed even in the shortest window */
static bool brief;   /* rounds look at small pages alone */
static size_t huge_looks;
static uint64_t now_ns = 1;
static struct heat heat;
static struct skew skew;
static struct placer_hints hints;

/* Linked in the place of clock_ns(). */
uint64_t __wrap_clock_ns(clockid_t clock);

uint64_t __wrap_clock_ns(clockid_t clock)
{
	(void)clock;
	return now_ns;
}

/* ---- a sampler ----------------------------------------------------------- */

static struct sample of_block(uintptr_t addr, bool huge)
{
	static uint64_t state = 88172645463325252U;
	uint64_t random = random_next(&state);
	size_t block = addr % GRANULE_BYTES / BLOCK_BYTES;
	struct sample sample = {.present = BLOCK_PAGES, .watched = BLOCK_PAGES};

	sample.huge = huge ? BLOCK_PAGES : 0;
	if (huge && too_hot)
		sample.accessed = BLOCK_PAGES;
	else if (huge) /* what the others of it have got too */
		sample.accessed = random >> 20 & 3 ? BLOCK_PAGES / 2 : BLOCK_PAGES / 4;
	else if (!skewed)
		sample.accessed = (uint8_t)(6 + (random >> 20 & 3));
	else
		sample.accessed = block == addr / GRANULE_BYTES % GRANULE_BLOCKS
					  ? BLOCK_PAGES
					  : random >> 20 & 1;
	return sample;
}

/* Pages come and go by granules here. */
static void of_granule(uintptr_t start, struct sample out[GRANULE_BLOCKS])
{
	bool huge = pagemap_is_huge(pagemap, start);
	bool full = pagemap_is_full(pagemap, start, start + GRANULE_BYTES);

	huge_looks += huge;
	for (size_t i = 0; i < GRANULE_BLOCKS; i++) {
		if (!full)
			out[i] = (struct sample){0};
		else if (huge && i)
			out[i] = out[0];
		else
			out[i] = of_block(start + i * BLOCK_BYTES, huge);
	}
}

static int sample(const struct span *span, size_t n, uint64_t window_ns,
		  struct sample *out)
{
	(void)window_ns;
	for (size_t i = 0; i < n; i++)
		for (uintptr_t addr = span[i].start; addr < span[i].end;
		     addr += GRANULE_BYTES, out += GRANULE_BLOCKS)
			of_granule(addr, out);
	return 0;
}

static const struct sampler sampler = {.name = "abit", .sample = sample};
static struct watch watch = {.sampler = &sampler};

/* ---- rounds -------------------------------------------------------------- */

static struct placer_result result;

static void rounds(int n)
{
	const struct span span = {(uintptr_t)mem, (uintptr_t)mem + BYTES};

	for (int i = 0; i < n; i++) {
		struct skew_round round = {&watch, &heat, &span, 1, &hints, &result};
		float score = 0;

		assert_int_equal((brief ? watch_small : watch_round)(&watch, &heat, &span,
								     1, UINT64_MAX / 2),
				 0);
		for (int kind = 0; kind < PAGE_KINDS; kind++)
			watch.window[kind].settled = true;
		/* This sampler takes no time. */
		watch.window[SMALL_PAGES].taken_ns = 1e7f;
		watch.window[HUGE_PAGES].taken_ns =
			(too_hot ? 5e7f : 1e7f) / GRANULE_PAGES;
		/* What the placer does: asks where pages are, and tells of the mean. */
		for (size_t k = 0; k < GRANULES; k++) {
			struct granule *granule =
				heat_granule(&heat, span.start + k * GRANULE_BYTES, true);

			granule->placed_known = true;
			if (granule->pause)
				granule->pause--;
			score += watch_score(&watch, granule, granule->mean) / GRANULES;
		}
		result.reference = score;
		result.total = GRANULES * GRANULE_PAGES;
		skew_round(&skew, &round);
		now_ns += ROUND_NS;
	}
}

static void seconds(int n)
{
	rounds(n * (int)(1000000000 / ROUND_NS));
}

static size_t whole(void)
{
	size_t n = 0;

	for (size_t i = 0; i < GRANULES; i++)
		n += pagemap_is_huge(pagemap, (uintptr_t)mem + i * GRANULE_BYTES);
	return n;
}

static size_t huge_bytes_of_smaps(void)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	size_t kib = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, "AnonHugePages:", 14))
			kib += strtoul(line + 14, NULL, 10);
	if (file)
		fclose(file);
	return kib << 10;
}

/* Whether MADV_NOHUGEPAGE holds for any of it. */
static bool is_advised_small(void)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	uintptr_t start = 0, end = 0, from, to;
	bool advised = false;
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2) {
			start = from;
			end = to;
		}
		if (!strncmp(line, "VmFlags:", 8) && start < (uintptr_t)mem + BYTES &&
		    end > (uintptr_t)mem)
			advised |= strstr(line, " nh") != NULL;
	}
	if (file)
		fclose(file);
	return advised;
}

static void expect_data(void)
{
	for (size_t at = 0; at < BYTES; at += PAGE_BYTES)
		assert_int_equal(*(uint64_t *)(mem + at), at + 1);
}

static int set_up(void **state)
{
	(void)state;
	mem = aligned_alloc(GRANULE_BYTES, BYTES);
	assert_non_null(mem);
	madvise(mem, BYTES, MADV_HUGEPAGE);
	for (size_t at = 0; at < BYTES; at += PAGE_BYTES)
		*(uint64_t *)(mem + at) = at + 1;
	for (size_t i = 0; i < GRANULES; i++)
		collapse_one((uintptr_t)mem + i * GRANULE_BYTES);
	result = (struct placer_result){0};
	skewed = too_hot = brief = false;
	skew_open(&skew, &sampler);
	assert_null(skew.why);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(mem);
	heat_destroy(&heat);
	watch_destroy(&watch);
	skew = (struct skew){0};
	watch = (struct watch){.sampler = &sampler};
	hints = (struct placer_hints){0};
	return 0;
}

/* ---- the cases ----------------------------------------------------------- */

static void even_ones_stay_whole(void **state)
{
	uint64_t split;

	(void)state;
	seconds(30);
	split = skew.split;
	assert_in_range(split, 8, 20); /* at first, and 2, 4, 8 and 16 s later */
	seconds(60);
	assert_in_range(skew.split, split + 8, split + 16);
	rounds(8); /* of the last turn */
	assert_int_equal(skew.failed, 0);
	assert_int_equal(skew.whole, skew.split);
	assert_int_equal(whole(), GRANULES);
	assert_in_range(huge_bytes_of_smaps(), BYTES, 2 * BYTES);
	expect_data();
}

/* No huge page is moved before the first turn, which is soon. */
static void first_turn_before_moves(void **state)
{
	(void)state;
	assert_true(skew_holds(&skew));
	result.fits = true;
	rounds(1);
	assert_false(skew_holds(&skew));
	result.fits = false;
	while (!skew.turn) {
		rounds(1);
		assert_true(skew_holds(&skew));
	}
	rounds(8);
	assert_int_equal(skew.turn, 0);
	assert_false(skew_holds(&skew));
}

/* What was split is known without looking at the others, and soon. */
static void turns_are_short(void **state)
{
	(void)state;
	while (!skew.turn)
		rounds(1);
	brief = true;
	huge_looks = 0;
	rounds(2);
	assert_int_equal(skew.turn, 0);
	assert_int_equal(huge_looks, 0);
	assert_in_range(skew.known, 1, 4);
}

/* Rounds that do not look at huge pages tell nothing of how long to watch them. */
static void brief_rounds_leave_the_window(void **state)
{
	struct window *window = &watch.window[HUGE_PAGES];
	uint64_t ns;

	(void)state;
	while (!skew.turn)
		rounds(1);
	brief = true;
	rounds(1);
	window->settled = false;
	ns = window->ns;
	watch_adapt(&watch, 0);
	assert_int_equal(window->ns, ns);
	assert_false(window->settled);
}

static void skewed_ones_are_split(void **state)
{
	size_t before = huge_bytes_of_smaps();

	(void)state;
	skewed = true;
	rounds(60);
	assert_int_equal(whole(), 0);
	assert_in_range(huge_bytes_of_smaps(), 0, before - BYTES);
	assert_int_equal(skew.split, GRANULES);
	rounds(60);
	assert_int_equal(skew.split, GRANULES);
	assert_int_equal(skew.whole, 0);
	expect_data();
	skewed = false;
	rounds(60);
	assert_int_equal(whole(), GRANULES);
	/* What is hot has changed, so that some may have been doubtful again. */
	assert_in_range(skew.split, GRANULES, 2 * GRANULES);
	assert_int_equal(skew.whole, skew.split);
	assert_int_equal(skew.failed, 0);
	assert_int_equal(skew.runs, 0);
	expect_data();
}

static void too_hot_to_be_told_apart(void **state)
{
	(void)state;
	skewed = too_hot = true;
	seconds(10);
	/* The last ones are hot enough beside what is cold by now. */
	assert_in_range(whole(), 0, GRANULES / 4);
	skewed = false;
	seconds(10);
	assert_int_equal(whole(), GRANULES);
}

/* Huge pages are as hot as before; nothing but splitting some can tell. */
static void skew_that_comes_unseen(void **state)
{
	(void)state;
	seconds(60);
	skewed = true;
	seconds(25);
	assert_int_equal(whole(), 0);
}

static void not_where_all_fits(void **state)
{
	(void)state;
	result.fits = skewed = true;
	rounds(60);
	assert_int_equal(skew.split, 0);
	assert_int_equal(whole(), GRANULES);
	result.fits = false;
	rounds(60);
	assert_int_equal(whole(), 0);
	/* And there is room for all of it. */
	result.fits = true;
	rounds(20);
	assert_int_equal(whole(), GRANULES);
}

static void not_where_advised(void **state)
{
	const struct advised advised = {(uintptr_t)mem, (uintptr_t)mem + BYTES / 2,
					FERRY_ADVICE_PIN_HBM};

	(void)state;
	hints = (struct placer_hints){.advised = &advised, .advised_count = 1};
	skewed = true;
	rounds(60);
	assert_int_equal(whole(), GRANULES / 2);
	for (size_t i = 0; i < GRANULES / 2; i++)
		assert_true(pagemap_is_huge(pagemap, (uintptr_t)mem + i * GRANULE_BYTES));
}

/* What most pages of a granule are on HBM for comes there only if there is room. */
static void gathered_where_room_is(void **state)
{
	struct granule *granule;

	(void)state;
	skewed = true;
	rounds(60);
	for (size_t i = 0; i < GRANULES; i++) {
		granule = heat_granule(&heat, (uintptr_t)mem + i * GRANULE_BYTES, false);
		granule->on_hbm = i % 2 ? 1 : UINT32_MAX / 2;
	}
	skewed = false;
	rounds(60);
	assert_int_equal(whole(), GRANULES / 2);
	result.room = (uint64_t)BLOCK_PAGES * GRANULES;
	rounds(60);
	assert_int_equal(whole(), GRANULES);
}

/* The advice is not left behind: where memory is gone, and in a child. */
static void nothing_is_left_small(void **state)
{
	int status;
	pid_t child;

	(void)state;
	skewed = true;
	rounds(60);
	assert_int_equal(whole(), 0);
	child = fork();
	if (!child) {
		pagemap = open("/proc/self/pagemap", O_RDONLY);
		skew_let_go(&skew, &heat);
		for (size_t at = 0; at < BYTES; at += PAGE_BYTES)
			*(uint64_t *)(mem + at) = at + 1;
		for (size_t i = 0; i < GRANULES; i++)
			collapse_one((uintptr_t)mem + i * GRANULE_BYTES);
		_exit(whole() != GRANULES);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_true(is_advised_small());
	madvise(mem, BYTES, MADV_DONTNEED);
	rounds(8);
	assert_false(is_advised_small());
}

/*
 * NUMA balancing, which takes away the right to write until the next access, would have
 * MADV_COLLAPSE refuse. Ferry's memory has policies that keep it away, and so has this.
 */
static void keep_balancing_away(void)
{
	unsigned long node0 = 1;

	syscall(SYS_set_mempolicy, MPOL_PREFERRED, &node0, 8 * sizeof(node0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(even_ones_stay_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(first_turn_before_moves, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(turns_are_short, set_up, tear_down),
		cmocka_unit_test_setup_teardown(brief_rounds_leave_the_window, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(skewed_ones_are_split, set_up, tear_down),
		cmocka_unit_test_setup_teardown(too_hot_to_be_told_apart, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(skew_that_comes_unseen, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(not_where_all_fits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(not_where_advised, set_up, tear_down),
		cmocka_unit_test_setup_teardown(gathered_where_room_is, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(nothing_is_left_small, set_up, tear_down),
	};

	keep_balancing_away();
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	mem = aligned_alloc(GRANULE_BYTES, GRANULE_BYTES);
	memset(mem, 1, GRANULE_BYTES);
	if (!collapse_available() || collapse_one((uintptr_t)mem) ||
	    !pagemap_is_huge(pagemap, (uintptr_t)mem)) {
		printf("skipped: no MADV_COLLAPSE, or no PAGEMAP_SCAN\n");
		return 77;
	}
	free(mem);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
