/* SPDX-License-Identifier: MIT */
/* Placing memory: see placer.h. One thread's. */
#include "policy/placer.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "os/thread.h"
#include "policy/budget.h"
#include "policy/moves.h"

/* Rounds after which the kernel is asked anew where a granule's pages are. */
#define REFRESH_ROUNDS 64

/* Moved at once before it is known how fast that is. */
#define FIRST_MOST ((uint64_t)8192)
#define LEAST_MOST ((uint64_t)2048)

struct pool {
	int node; /* HBM */
	struct planner planner;
};

struct placer_memory {
	struct node_set allowed;         /* by the cpuset, as it was at first */
	int8_t pool_of[FERRY_MAX_NODES]; /* -1: none */
	int pools;
	struct moves demotions, promotions;
	struct range_set *remembered; /* of a phase, while that is gathered */
	int failed;                   /* 0, or why not all of it is */
	uint64_t picked[PAGE_KINDS], returned[PAGE_KINDS]; /* as of the result */
	unsigned int horizon[PAGE_KINDS];
	struct pool pool[];
};

/* ---- pools --------------------------------------------------------------- */

static int make_memory(struct placer *placer)
{
	const struct topology *t = placer->topology;
	struct node_set allowed, hbm;
	struct placer_memory *memory;
	int pools;

	if (placer->memory)
		return 0;
	budget_allowed(&allowed);
	for (size_t i = 0; i < NODE_SET_WORDS; i++)
		hbm.word[i] = t->tier[FERRY_TIER_HBM].word[i] & allowed.word[i];
	pools = node_set_count(&hbm);
	if (pools > INT8_MAX)
		pools = INT8_MAX;
	memory = mmap(NULL, sizeof(*memory) + (size_t)pools * sizeof(struct pool),
		      PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	memset(memory->pool_of, -1, sizeof(memory->pool_of));
	for (int node = node_set_next(&hbm, 0); node >= 0 && memory->pools < pools;
	     node = node_set_next(&hbm, node + 1)) {
		memory->pool[memory->pools].node = node;
		memory->pool_of[node] = (int8_t)memory->pools++;
	}
	for (int i = 0; i < t->node_count; i++) {
		int node = t->node[i].id;
		int nearest = topology_nearest(t, FERRY_TIER_HBM, node);

		if (memory->pool_of[node] < 0 && nearest >= 0)
			memory->pool_of[node] = memory->pool_of[nearest];
		/* The cpuset may not have the nearest one. */
		if (memory->pool_of[node] < 0 && pools)
			memory->pool_of[node] = 0;
	}
	memory->allowed = allowed;
	placer->memory = memory;
	return 0;
}

void placer_destroy(struct placer *placer)
{
	if (placer->memory)
		munmap(placer->memory,
		       sizeof(*placer->memory) +
			       (size_t)placer->memory->pools * sizeof(struct pool));
	placer->memory = NULL;
}

/* ---- where pages are ----------------------------------------------------- */

/* Of a granule's pages: the node of a tier with most of them, or -1. */
static int16_t most_of_tier(const struct topology *topology, enum ferry_tier tier,
			    const int16_t node[GRANULE_PAGES])
{
	int16_t most = -1;
	size_t count = 0;

	/* Few nodes, and mostly one: the first one that is not counted yet, each time. */
	for (size_t i = 0; i < GRANULE_PAGES && count <= GRANULE_PAGES / 2; i++) {
		size_t same = 0;

		if (node[i] == most || !node_set_has(&topology->tier[tier], node[i]) ||
		    (i && node[i] == node[i - 1]))
			continue;
		for (size_t k = i; k < GRANULE_PAGES; k++)
			same += node[k] == node[i];
		if (same > count) {
			count = same;
			most = node[i];
		}
	}
	return most;
}

/* A huge page is where its first page is, unless a move may have split it. */
static bool find_nodes(const struct placer *placer, const struct granule *granule,
		       uintptr_t start, int16_t node[GRANULE_PAGES])
{
	if (!granule->huge || granule->moved ||
	    placer->engine->query(start, PAGE_BYTES, node) || node[0] < 0)
		return !placer->engine->query(start, GRANULE_BYTES, node);
	for (size_t i = 1; i < GRANULE_PAGES; i++)
		node[i] = node[0];
	return true;
}

static void ask_kernel(const struct placer *placer, struct granule *granule,
		       uintptr_t addr)
{
	const struct node_set *hbm = &placer->topology->tier[FERRY_TIER_HBM];
	int16_t node[GRANULE_PAGES];
	uint32_t on_hbm = 0, torn = 0;

	granule->placed_known =
		find_nodes(placer, granule, addr & ~(GRANULE_BYTES - 1), node);
	if (!granule->placed_known)
		return;
	for (size_t block = 0; block < GRANULE_BLOCKS; block++) {
		unsigned int pages = 0, present = 0;

		for (size_t i = 0; i < BLOCK_PAGES; i++) {
			int16_t on = node[block * BLOCK_PAGES + i];

			pages += node_set_has(hbm, on);
			present += on >= 0;
		}
		if (!granule->windows && !granule->counted) /* no sample has told */
			granule->present[block] = (uint8_t)present;
		if (pages && pages * 2 >= granule->present[block])
			on_hbm |= UINT32_C(1) << block;
		if (pages && pages < present)
			torn |= UINT32_C(1) << block;
	}
	heat_sum(granule);
	granule->moved &= torn;
	/* Moves had an effect. */
	if (on_hbm != granule->on_hbm || granule->moved != granule->torn)
		granule->tries = granule->pause = 0;
	granule->on_hbm = on_hbm;
	granule->torn = granule->moved;
	for (int tier = 0; tier < FERRY_TIER_COUNT; tier++)
		granule->node[tier] =
			most_of_tier(placer->topology, (enum ferry_tier)tier, node);
}

static bool is_stale(const struct placer *placer, const struct granule *granule,
		     uintptr_t addr)
{
	return !granule->placed_known || (!granule->windows && !granule->counted) ||
	       (placer->rounds + addr / GRANULE_BYTES) % REFRESH_ROUNDS == 0;
}

/* ---- units --------------------------------------------------------------- */

/* A unit for the planner, and what it takes to move it. */
struct unit {
	struct plan_unit plan;
	struct granule *granule;
	uintptr_t start, end;
	int pool; /* -1: of no tier */
};

/* A granule that is looked at: the part of it that a span covers. */
struct view {
	struct granule *granule;
	uintptr_t start, end;
	uint32_t present; /* blocks of this part with pages */
	bool known, paused;
};

/*
 * The advice on a unit. In *@alike, whether it is the same for all of it. What a
 * phase will need counts as advice where there is no other.
 */
static enum ferry_advice advice_on(const struct placer *placer, uintptr_t start,
				   uintptr_t end, bool *alike)
{
	const struct placer_hints *hints = &placer->hints;
	enum ferry_advice advice = FERRY_ADVICE_NONE;
	size_t needed;

	*alike = true;
	if (hints->advised_count)
		advice = advice_of(hints->advised, hints->advised_count, start, end,
				   alike);
	if (advice != FERRY_ADVICE_NONE || !hints->phase)
		return advice;
	needed = range_set_overlap(hints->phase, start, end);
	*alike = needed == 0 || needed == end - start;
	return needed > (end - start) / 2 ? FERRY_ADVICE_WILL_NEED : FERRY_ADVICE_NONE;
}

static int pool_of_unit(const struct placer *placer, const struct granule *granule,
			bool on_hbm)
{
	int node = granule->node[on_hbm ? FERRY_TIER_HBM : FERRY_TIER_DDR];

	return node < 0 ? -1 : placer->memory->pool_of[node];
}

/* The unit of @view's blocks [start, end). */
static struct unit make_unit(const struct placer *placer, const struct watch *watch,
			     const struct view *view, uintptr_t start, uintptr_t end,
			     uint16_t share, unsigned int pages, bool on_hbm)
{
	bool by_heat = !placer->hints.phase && !placer->blind, alike;
	enum ferry_advice advice = advice_on(placer, start, end, &alike);

	return (struct unit){
		.plan = {.score = watch_score(watch, view->granule, share),
			 .rate = by_heat ? watch_rate(watch, view->granule, share) : 0,
			 .weight = watch_weight(watch, view->granule),
			 .pages = pages,
			 .advice = advice,
			 .on_hbm = on_hbm,
			 .movable = !view->paused && (view->known || !by_heat || advice)},
		.granule = view->granule,
		.start = start,
		.end = end,
		.pool = pool_of_unit(placer, view->granule, on_hbm),
	};
}

/* Whether one of a granule's blocks is worth moving without the others. */
static bool has_hot_block(const struct granule *granule)
{
	return planner_stands_out(heat_rate(granule->most), heat_rate(granule->mean),
				  PLAN_RATIO);
}

/*
 * Whether a granule's blocks are units of their own: one is worth moving without
 * the others, or they are in different tiers.
 */
static bool is_skewed(const struct view *view)
{
	const struct granule *granule = view->granule;
	uint32_t on_hbm = granule->on_hbm & view->present;

	if (granule->huge)
		return false;
	if (on_hbm && on_hbm != view->present)
		return true;
	return has_hot_block(granule);
}

/*
 * Whether a granule was split (skew.h) and is hot or cold as a whole. The scores of
 * others may be too low beside its own, whose windows are others; so it stays until it
 * is a huge page again.
 */
static bool is_to_be_whole(const struct view *view)
{
	return view->granule->split && !has_hot_block(view->granule);
}

/* The blocks of [start, end), which is in one granule. */
static uint32_t blocks_of(uintptr_t start, uintptr_t end)
{
	size_t first = start % GRANULE_BYTES / BLOCK_BYTES;
	size_t n = (end - start) / BLOCK_BYTES;

	return (uint32_t)((UINT64_C(1) << n) - 1) << first;
}

typedef void unit_fn(struct placer *placer, const struct unit *unit);

static void for_each_block(struct placer *placer, const struct watch *watch,
			   const struct view *view, unit_fn *fn)
{
	struct granule *granule = view->granule;

	for (uintptr_t addr = view->start; addr < view->end; addr += BLOCK_BYTES) {
		size_t block = addr % GRANULE_BYTES / BLOCK_BYTES;
		struct unit unit;

		if (!granule->present[block])
			continue;
		unit = make_unit(placer, watch, view, addr, addr + BLOCK_BYTES,
				 granule->heat[block], granule->present[block],
				 granule->on_hbm >> block & 1);
		fn(placer, &unit);
	}
}

static void for_each_unit(struct placer *placer, const struct watch *watch,
			  struct heat *heat, const struct span *span, size_t n,
			  unit_fn *fn)
{
	for (size_t i = 0; i < n; i++)
		for (uintptr_t addr = span[i].start, next; addr < span[i].end;
		     addr = next) {
			struct view view = {heat_granule(heat, addr, false),
					    addr,
					    0,
					    0,
					    false,
					    false};
			bool alike;

			next = granule_end(addr);
			view.end = next < span[i].end ? next : span[i].end;
			if (!view.granule || !view.granule->placed_known)
				continue;
			view.present = view.granule->there & blocks_of(addr, view.end);
			if (!view.present)
				continue;
			view.known = watch_knows(watch, view.granule) &&
				     !is_to_be_whole(&view) &&
				     !(placer->holds_huge && view.granule->huge);
			view.paused = view.granule->pause;
			advice_on(placer, addr, view.end, &alike);
			if (!alike || is_skewed(&view) ||
			    view.end - addr < GRANULE_BYTES) {
				for_each_block(placer, watch, &view, fn);
			} else {
				struct unit unit =
					make_unit(placer, watch, &view, addr, view.end,
						  view.granule->mean, view.granule->pages,
						  view.granule->on_hbm & view.present);

				fn(placer, &unit);
			}
		}
}

/* Whether a granule matters though no sample has told of it. */
static bool must_be_seen(const struct placer *placer, uintptr_t addr)
{
	const struct placer_hints *hints = &placer->hints;
	uintptr_t start = addr & ~(GRANULE_BYTES - 1);
	bool alike;

	return placer->blind ||
	       (hints->advised_count &&
		advice_of(hints->advised, hints->advised_count, start,
			  start + GRANULE_BYTES, &alike) != FERRY_ADVICE_NONE);
}

static void look(struct placer *placer, struct heat *heat, const struct span *span,
		 size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (uintptr_t addr = span[i].start; addr < span[i].end;
		     addr = granule_end(addr)) {
			struct granule *granule =
				heat_granule(heat, addr, must_be_seen(placer, addr));

			if (!granule)
				continue;
			if (granule->pause)
				granule->pause--;
			if (granule->moved_ago && granule->moved_ago < UINT8_MAX)
				granule->moved_ago++;
			if (is_stale(placer, granule, addr))
				ask_kernel(placer, granule, addr);
		}
}

/* ---- planning ------------------------------------------------------------ */

static void add_unit(struct placer *placer, const struct unit *unit)
{
	if (unit->pool >= 0)
		planner_add(&placer->memory->pool[unit->pool].planner, &unit->plan);
}

static void decide(struct placer *placer, const struct placer_limits *given,
		   uint64_t most, struct placer_result *result)
{
	struct placer_memory *memory = placer->memory;
	const uint64_t limit = given->hbm_bytes;
	uint64_t total = 0, largest = 0;

	for (int i = 0; i < memory->pools; i++)
		total += memory->pool[i].planner.total;
	result->total = total;
	result->flat = result->fits = true;
	for (int i = 0; i < memory->pools; i++) {
		struct planner *planner = &memory->pool[i].planner;
		const struct node_info *info =
			topology_node(placer->topology, memory->pool[i].node);
		uint64_t has =
			planner->on_hbm * PAGE_BYTES + topology_free_bytes(info->id);
		uint64_t spare = budget_headroom(info->total_bytes);
		/* The limit is shared out by what pools have to place. */
		uint64_t share =
			limit == UINT64_MAX || !total
				? limit
				: (uint64_t)((double)limit *
					     ((double)planner->total / (double)total));
		struct plan_limits limits = {
			.fill = has > 2 * spare ? has - 2 * spare : 0,
			.keep = has > spare ? has - spare : 0,
			.most = most,
			.level = given->level,
		};

		if (limits.fill > share)
			limits.fill = share;
		if (limits.keep > share)
			limits.keep = share;
		limits.fill /= PAGE_BYTES;
		limits.keep /= PAGE_BYTES;
		planner_decide(planner, &limits);
		if (planner->total > largest) {
			largest = planner->total;
			result->reference = planner->reference;
		}
		result->flat &= planner->flat;
		result->fits &= planner->fits;
		if (planner->on_hbm < limits.fill)
			result->room += limits.fill - planner->on_hbm;
		result->stirring += planner->stirring;
	}
}

/* For watch_learn(); advice may change its mind. */
static void note_direction(struct placer_memory *memory, const struct unit *unit,
			   bool promoted)
{
	struct granule *granule = unit->granule;
	enum page_kind kind = watch_kind(granule);

	if (unit->plan.advice == FERRY_ADVICE_NONE) {
		memory->picked[kind] += unit->plan.pages;
		/* Since the round before this one at least. */
		if (granule->moved_ago > 1 && granule->moved_ago < UINT8_MAX &&
		    granule->moved_ago <= memory->horizon[kind] &&
		    granule->promoted != promoted)
			memory->returned[kind] += unit->plan.pages;
	}
	granule->moved_ago = 1;
	granule->promoted = promoted;
}

static void add_move(struct moves *moves, const struct unit *unit, int node)
{
	struct granule *granule = unit->granule;

	if (node < 0 || !moves_add(moves, unit->start, unit->end, node))
		return;
	granule->placed_known = false;
	/* Until a move has an effect, the next is put off longer each time. */
	if (granule->tries < 6)
		granule->tries++;
	granule->pause = (uint8_t)(1U << granule->tries);
	granule->moved |= blocks_of(unit->start, unit->end);
}

/* The DDR node that what leaves an HBM node goes to; -1: none is allowed. */
static int ddr_near(const struct placer *placer, int hbm)
{
	const struct node_set *ddr = &placer->topology->tier[FERRY_TIER_DDR];
	const struct node_set *allowed = &placer->memory->allowed;
	int node = topology_nearest(placer->topology, FERRY_TIER_DDR, hbm);

	if (node_set_has(allowed, node))
		return node;
	for (node = node_set_next(ddr, 0); node >= 0 && !node_set_has(allowed, node);)
		node = node_set_next(ddr, node + 1);
	return node;
}

static void pick_unit(struct placer *placer, const struct unit *unit)
{
	struct placer_memory *memory = placer->memory;
	struct pool *pool;

	if (unit->pool < 0)
		return;
	pool = &memory->pool[unit->pool];
	switch (planner_pick(&pool->planner, &unit->plan)) {
	case PLAN_STAY:
		/* Pages that were in use when it was moved stayed behind. */
		if (!(unit->granule->torn & blocks_of(unit->start, unit->end)) ||
		    !unit->plan.movable)
			break;
		if (unit->plan.on_hbm)
			add_move(&memory->promotions, unit, pool->node);
		else
			add_move(&memory->demotions, unit, ddr_near(placer, pool->node));
		break;
	case PLAN_PROMOTE:
		note_direction(memory, unit, true);
		add_move(&memory->promotions, unit, pool->node);
		break;
	case PLAN_DEMOTE:
		note_direction(memory, unit, false);
		add_move(&memory->demotions, unit, ddr_near(placer, pool->node));
		break;
	}
}

/* ---- moving -------------------------------------------------------------- */

static void carry_out(struct placer *placer, struct placer_result *result)
{
	uint64_t began = clock_ns(CLOCK_MONOTONIC),
		 cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	uint64_t demoted = 0, promoted = 0;

	moves_carry_out(placer->engine, &placer->memory->demotions,
			&placer->memory->promotions, &demoted, &promoted);
	result->took = clock_ns(CLOCK_MONOTONIC) - began;
	result->moved = demoted + promoted;
	result->ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
	placer->demoted_pages += demoted;
	placer->promoted_pages += promoted;
	if (result->moved && result->took)
		placer->pages_per_ns = (double)result->moved / (double)result->took;
}

/* ---- a phase ------------------------------------------------------------- */

/* A remembering unit_fn has no other way to its set. */
static void remember_unit(struct placer *placer, const struct unit *unit)
{
	struct placer_memory *memory = placer->memory;
	float worth;

	if (unit->pool < 0 || !unit->plan.on_hbm || memory->failed)
		return;
	worth = memory->pool[unit->pool].planner.reference * PLAN_RATIO;
	if (unit->plan.advice != FERRY_ADVICE_NONE || !unit->plan.movable ||
	    unit->plan.score <= 0 || unit->plan.score < worth)
		return;
	memory->failed = range_set_add(memory->remembered, unit->start, unit->end);
}

int placer_remember(struct placer *placer, const struct watch *watch, struct heat *heat,
		    const struct span *span, size_t n, struct range_set *set)
{
	if (!placer->memory)
		return 0;
	look(placer, heat, span, n);
	placer->memory->remembered = set;
	placer->memory->failed = 0;
	for_each_unit(placer, watch, heat, span, n, remember_unit);
	placer->memory->remembered = NULL;
	return placer->memory->failed;
}

int placer_round(struct placer *placer, const struct watch *watch, struct heat *heat,
		 const struct span *span, size_t n, const struct placer_limits *limits,
		 struct placer_result *result)
{
	uint64_t most = FIRST_MOST;
	int err = make_memory(placer);

	*result = (struct placer_result){0};
	if (err)
		return err;
	if (placer->pages_per_ns > 0)
		most = (uint64_t)(placer->pages_per_ns * (double)limits->move_ns);
	if (most < LEAST_MOST)
		most = LEAST_MOST;
	if (most > limits->move_pages)
		most = limits->move_pages;
	placer->rounds++;
	look(placer, heat, span, n);
	for (int i = 0; i < placer->memory->pools; i++)
		planner_begin(&placer->memory->pool[i].planner);
	for_each_unit(placer, watch, heat, span, n, add_unit);
	decide(placer, limits, most, result);
	placer->memory->demotions.count = placer->memory->promotions.count = 0;
	for (int kind = 0; kind < PAGE_KINDS; kind++) {
		placer->memory->picked[kind] = placer->memory->returned[kind] = 0;
		placer->memory->horizon[kind] =
			watch_horizon(watch, (enum page_kind)kind);
	}
	for_each_unit(placer, watch, heat, span, n, pick_unit);
	memcpy(result->picked, placer->memory->picked, sizeof(result->picked));
	memcpy(result->returned, placer->memory->returned, sizeof(result->returned));
	carry_out(placer, result);
	return 0;
}
