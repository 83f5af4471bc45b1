/* SPDX-License-Identifier: MIT */
/*
 * Proves of watching and placing together, on memory that is made up, in a time that
 * is made up: what is hot goes to HBM and then rests; memory that is swept over, so
 * that all of a granule is accessed or nothing of it, is not taken for hot where the
 * sweep just is, whether it is mapped by small or by huge pages; and hot memory is still
 * found after that; nor is memory that was filled later than other; nor what happens to
 * be watched while a program runs that pauses now and then. What was in use when its
 * block was moved follows. Memory that is all alike fills what room there is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "migrate/engine.h"
#include "os/random.h"
#include "policy/placer.h"

#define BASE     ((uintptr_t)1 << 40)
#define GRANULES 224
#define ON_HBM   56 /* of them, that there is room for, with the headroom */
#define HOT      22
#define DDR_NODE 0
#define HBM_NODE 1
#define BEHIND   6
#define MS       UINT64_C(1000000)

static struct {
	bool sweeps, huge;
	uint64_t period; /* of a sweep, ns */
	uint64_t pauses; /* about that long, and as far apart; 0: it never does; ns */
	bool pausing;
	uint64_t until; /* it does, or does not */
	size_t first_hot, hot;
	double often;  /* how often each hot page is accessed, a second */
	size_t filled; /* granules; while it fills the others it accesses none of them */
	uint64_t now, random;
	int8_t node[GRANULES];
	bool in_use;              /* some pages stay behind when their granule is moved */
	uint8_t behind[GRANULES]; /* the last ones of it, on the other node */
	uint64_t moved;           /* granules */
} world;

static double random_share(void)
{
	return (double)(random_next(&world.random) >> 11) / (double)(UINT64_C(1) << 53);
}

/* ---- what is accessed ---------------------------------------------------- */

/* Is granule @g in the part that a sweep passes from now on in @ns? */
static bool swept(size_t g, uint64_t ns)
{
	double at = (double)(world.now % world.period) / (double)world.period;
	double ahead = (double)g / GRANULES - at;

	if (ahead < 0)
		ahead += 1;
	return ahead < (double)ns / (double)world.period;
}

/* Pages that are not hot are accessed once in ten seconds. */
static double chance(size_t g, uint64_t ns)
{
	bool hot = g >= world.first_hot && g < world.first_hot + world.hot;

	if (world.pausing || world.filled < GRANULES)
		return 0;
	return (hot ? world.often : 0.1) * (double)ns / 1e9;
}

/* Of a block's pages. */
static uint8_t accessed(size_t g, uint64_t ns)
{
	const double each = chance(g, ns);
	uint8_t n = 0;

	for (unsigned int i = 0; i < BLOCK_PAGES; i++)
		n += random_share() < each;
	return n;
}

/* Whether all of a granule looks accessed: by a sweep, or any access to a huge page. */
static bool all_accessed(size_t g, uint64_t ns)
{
	if (world.sweeps)
		return swept(g, ns);
	return random_share() < 1 - exp(-chance(g, ns) * GRANULE_PAGES);
}

static int sample(const struct span *span, size_t n, uint64_t ns, struct sample *out)
{
	for (size_t i = 0; i < n; i++)
		for (uintptr_t at = span[i].start; at < span[i].end;
		     at += GRANULE_BYTES) {
			size_t g = (at - BASE) / GRANULE_BYTES;
			struct sample block = {
				.present = BLOCK_PAGES,
				.watched = BLOCK_PAGES,
				.huge = world.huge ? BLOCK_PAGES : 0,
			};

			if (g >= world.filled)
				block = (struct sample){0};
			else if (world.huge || world.sweeps)
				block.accessed = all_accessed(g, ns) ? BLOCK_PAGES : 0;
			for (size_t k = 0; k < GRANULE_BLOCKS; k++) {
				if (!world.huge && !world.sweeps && block.present)
					block.accessed = accessed(g, ns);
				*out++ = block;
			}
		}
	world.now += ns;
	while (world.pauses && world.now > world.until) {
		world.pausing = !world.pausing;
		world.until +=
			(uint64_t)(-log(random_share() + 1e-9) * (double)world.pauses);
	}
	return 0;
}

static const struct sampler sampler = {.name = "made up", .sample = sample};

/* ---- where it is --------------------------------------------------------- */

static void move(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; i++) {
		const struct piece *piece = &batch->piece[i];
		size_t first = (piece->addr - BASE) / GRANULE_BYTES;

		assert_int_equal(piece->len % GRANULE_BYTES, 0);
		for (size_t g = first; g < first + piece->len / GRANULE_BYTES; g++) {
			world.moved += world.node[g] != piece->node;
			if (world.in_use && world.node[g] != piece->node)
				world.behind[g] = BEHIND;
			else if (!world.in_use)
				world.behind[g] = 0;
			world.node[g] = (int8_t)piece->node;
			batch->result.moved += GRANULE_PAGES;
		}
	}
}

static int query(uintptr_t addr, size_t len, int16_t *nodes)
{
	for (size_t i = 0; i < len / PAGE_BYTES; i++) {
		size_t g = (addr - BASE) / GRANULE_BYTES + i / GRANULE_PAGES;
		bool other = i % GRANULE_PAGES >= GRANULE_PAGES - world.behind[g];

		nodes[i] = other ? DDR_NODE + HBM_NODE - world.node[g] : world.node[g];
	}
	return 0;
}

static const struct engine engine = {.name = "made up", .move = move, .query = query};

static size_t count_on_hbm(size_t first, size_t n)
{
	size_t on_hbm = 0;

	for (size_t g = first; g < first + n; g++)
		on_hbm += world.node[g] == HBM_NODE;
	return on_hbm;
}

/* The machine has just the two nodes, and on HBM nothing but this memory. */
uint64_t __wrap_topology_free_bytes(int node);
uint64_t __wrap_topology_free_bytes(int node)
{
	/* 4 MiB of headroom, twice. */
	size_t room = ON_HBM + 4 - count_on_hbm(0, GRANULES);

	return node == HBM_NODE ? room * GRANULE_BYTES : 0;
}

void __wrap_budget_allowed(struct node_set *nodes);
void __wrap_budget_allowed(struct node_set *nodes)
{
	*nodes = (struct node_set){.word = {1 << DDR_NODE | 1 << HBM_NODE}};
}

/* ---- rounds -------------------------------------------------------------- */

static struct topology topology;
static struct placer placer;
static bool level; /* of its limits */
static struct watch watch;
static struct heat heat;

static void start(void)
{
	topology = (struct topology){
		.node_count = 2,
		.node = {{.id = DDR_NODE, .tier = FERRY_TIER_DDR, .has_cpu = true},
			 {.id = HBM_NODE, .tier = FERRY_TIER_HBM}},
	};
	for (int tier = 0; tier < FERRY_TIER_COUNT; tier++) {
		topology.tier[tier].word[0] = tier == FERRY_TIER_HBM ? 2 : 1;
		for (int node = 0; node < 2; node++)
			topology.nearest[tier][node] = tier == FERRY_TIER_HBM;
	}
	placer = (struct placer){.topology = &topology, .engine = &engine};
	watch = (struct watch){.sampler = &sampler};
	memset(&world, 0, sizeof(world));
	world.random = 88172645463325252U;
	world.hot = HOT;
	world.often = 20;
	world.filled = GRANULES;
	for (size_t g = 0; g < ON_HBM; g++)
		world.node[g] = HBM_NODE;
}

static void end(void)
{
	placer_destroy(&placer);
	watch_destroy(&watch);
	heat_destroy(&heat);
}

/* As the policy does; the granules that were moved. */
static uint64_t rounds(unsigned int n)
{
	const struct span span = {BASE, BASE + GRANULES * GRANULE_BYTES};
	const struct placer_limits limits = {UINT64_MAX, 250 * MS, UINT64_MAX, level};
	uint64_t before = world.moved;

	for (unsigned int i = 0; i < n; i++) {
		struct placer_result result;

		assert_int_equal(watch_round(&watch, &heat, &span, 1, UINT64_MAX / 2), 0);
		assert_int_equal(
			placer_round(&placer, &watch, &heat, &span, 1, &limits, &result),
			0);
		watch_adapt(&watch, result.reference);
		for (int kind = 0; kind < PAGE_KINDS; kind++)
			watch_learn(&watch, (enum page_kind)kind, result.picked[kind],
				    result.returned[kind]);
		world.now += (uint64_t)(random_share() * 200) * MS;
	}
	return world.moved - before;
}

static void hot_memory(bool huge)
{
	start();
	world.huge = huge;
	world.first_hot = 100;
	placer.holds_huge = true;
	assert_int_equal(rounds(60) > 0, !huge);
	placer.holds_huge = false;
	rounds(60);
	assert_int_equal(count_on_hbm(100, HOT), HOT);
	assert_true(rounds(200) <= 2); /* and then rests */
	for (int i = 0; i < 20; i++) {
		rounds(1);
		assert_false(watch_stirs(&watch));
	}
	world.first_hot = 180;
	rounds(1);
	assert_int_equal(watch_stirs(&watch), !huge); /* one window tells */
	rounds(60);
	assert_int_equal(count_on_hbm(180, HOT), HOT);
	end();
}

static size_t count_behind(void)
{
	size_t n = 0;

	for (size_t g = 0; g < GRANULES; g++)
		n += world.behind[g];
	return n;
}

static void pages_in_use(void **state)
{
	(void)state;
	start();
	world.first_hot = 100;
	world.in_use = true;
	rounds(60);
	assert_int_equal(count_on_hbm(100, HOT), HOT);
	assert_true(count_behind() > 0);
	world.in_use = false;
	rounds(100);
	assert_int_equal(count_behind(), 0);
	assert_int_equal(count_on_hbm(100, HOT), HOT);
	end();
}

static void swept_memory(bool huge, uint64_t period)
{
	start();
	world.huge = huge;
	world.sweeps = true;
	world.period = period;
	/* Of what HBM holds, little, from the start. */
	assert_true(rounds(300) <= ON_HBM);
	assert_true(rounds(100) < ON_HBM / 8);
	/* What becomes hot now is found. */
	world.sweeps = false;
	world.first_hot = 150;
	rounds(30);
	assert_int_equal(count_on_hbm(150, HOT), HOT);
	end();
}

/* What was filled last is no hotter than what was filled first. */
static void filled_memory(bool huge)
{
	start();
	world.huge = huge;
	world.first_hot = 30;
	memset(world.node, DDR_NODE, sizeof(world.node)); /* there is room */
	for (world.filled = 0; world.filled < GRANULES; world.filled += 4)
		rounds(1);
	rounds(60);
	assert_int_equal(count_on_hbm(30, HOT), HOT);
	assert_true(world.moved <= HOT + HOT / 4);
	end();
}

static void filled_small_pages(void **state)
{
	(void)state;
	filled_memory(false);
}

static void filled_huge_pages(void **state)
{
	(void)state;
	filled_memory(true);
}

/* All is alike, whatever is watched while it runs. */
static void paused(bool huge, uint64_t pauses)
{
	start();
	world.huge = huge;
	world.hot = GRANULES;
	memset(world.node, DDR_NODE, sizeof(world.node)); /* there is room */
	world.pauses = pauses;
	rounds(300);
	assert_true(world.moved < ON_HBM / 8);
	end();
}

static void pauses(void **state)
{
	(void)state;
	paused(true, MS);
	paused(true, 5 * MS);
	paused(true, 20 * MS);
	paused(false, 20 * MS);
}

/* What is alike fills the room there is, once it is sure; then something becomes hot. */
static void level_memory(bool huge, bool sweeps)
{
	start();
	world.huge = huge;
	world.sweeps = sweeps;
	world.period = 220 * MS;
	world.hot = GRANULES;
	memset(world.node, DDR_NODE, sizeof(world.node));
	rounds(100);
	assert_true(world.moved < ON_HBM / 8);
	level = true;
	rounds(100);
	level = false;
	assert_in_range(count_on_hbm(0, GRANULES), ON_HBM - 1, ON_HBM);
	assert_true(world.moved <= ON_HBM + ON_HBM / 8);
	assert_true(rounds(100) <= 2);
	world.sweeps = false;
	world.hot = HOT;
	world.first_hot = 150;
	rounds(30);
	assert_int_equal(count_on_hbm(150, HOT), HOT);
	end();
}

static void room_for_level(void **state)
{
	(void)state;
	level_memory(false, false);
	level_memory(true, false);
	level_memory(false, true);
}

/* Hot memory that is all accessed or not at all, as the program runs, is not swept over.
 */
static void hot_at_times(void **state)
{
	(void)state;
	start();
	world.first_hot = 100;
	world.hot = ON_HBM - 6;
	world.often = 2000;
	world.pauses = 100 * MS;
	rounds(30);
	assert_int_equal(count_on_hbm(100, world.hot), world.hot);
	assert_false(watch_is_learning(&watch));
	/* That all of it is accessed again is no reason to hurry. */
	world.hot = GRANULES;
	world.first_hot = 0;
	rounds(30);
	for (int i = 0; i < 20; i++) {
		rounds(1);
		assert_false(watch_stirs(&watch));
	}
	end();
}

static void hot_small_pages(void **state)
{
	(void)state;
	hot_memory(false);
}

static void hot_huge_pages(void **state)
{
	(void)state;
	hot_memory(true);
}

static void swept_small_pages(void **state)
{
	(void)state;
	swept_memory(false, 220 * MS);
	swept_memory(false, 1900 * MS);
}

static void swept_huge_pages(void **state)
{
	(void)state;
	swept_memory(true, 220 * MS);
	swept_memory(true, 1900 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hot_small_pages),    cmocka_unit_test(hot_huge_pages),
		cmocka_unit_test(pages_in_use),       cmocka_unit_test(swept_small_pages),
		cmocka_unit_test(swept_huge_pages),   cmocka_unit_test(pauses),
		cmocka_unit_test(filled_small_pages), cmocka_unit_test(filled_huge_pages),
		cmocka_unit_test(room_for_level),     cmocka_unit_test(hot_at_times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
