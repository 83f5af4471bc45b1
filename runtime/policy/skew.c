/* SPDX-License-Identifier: MIT */
/* Skew inside huge pages: see skew.h. One thread's. */
#include "policy/skew.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "heap/huge.h"
#include "migrate/collapse.h"
#include "os/random.h"
#include "os/thread.h"

#ifndef MADV_COLD
#define MADV_COLD 20 /* Linux 5.4 */
#endif

#define SECOND UINT64_C(1000000000)

/*
 * Huge pages that the first turn splits, and how much larger the next ones are; and that
 * once more where all were skewed.
 */
#define FIRST_TURN  4
#define TURN_GROWTH 4
/* One of so many has to be skewed. */
#define TURN_PAYS 4
/* The pause after a turn without that; twice as long after each further one. */
#define PAUSE_NS (2 * SECOND)
/* Which it stays at after so many of them; after so many skew is not to be expected. */
#define IN_VAIN_MOST  3
#define IN_VAIN_LEAST 2
/* Every now and then heat that has not changed is doubted too. */
#define ANEW_NS (16 * SECOND)
/* Of memory that is gone, or that a slow sampler does not get to, nothing is known. */
#define TURN_NS (60 * SECOND)

/* So long the first turn is waited for. */
#define HOLD_NS (3 * SECOND)

/* One part in so many of all memory that has moved is a change. */
#define CHANGE_PART 256
/* And moved in one round, it means that there is other work. */
#define MOVING_PART 64

/* Beyond this rate hot memory is too hot to be told apart: on HBM it may stay whole. */
#define HOT_RATE (HEAT_MOST_RATE * 0.8f)

/* Of its score, what a block may have where all of its granule is watched right. */
#define MOST_PART 0.6f

/* Made whole in one round at most; each one is a copy of 2 MiB. */
#define WHOLE_MOST 8
/* A huge page that cannot be made whole is left to the kernel after so many tries. */
#define WHOLE_TRIES 4

/*
 * While splitting pays, doubtful ones are not moved as a whole: granule->pause, of which
 * the placer has taken one off when it is looked at and set again.
 */
#define HELD 2
/* Before one that could not be split may be tried again. */
#define PAUSE_ROUNDS 16

/* Mappings that splitting may add, far from the kernel's limit of 65530. */
#define RUNS_MOST ((size_t)4096)

/* granule->level: of a score, in parts of the reference. */
#define LEVEL_ONE  16
#define LEVEL_MOST 254
#define LEVEL_ASK  255 /* to be noted when its heat is known */

bool skew_available(const char *sampler, const char **why)
{
	bool tells = !strcmp(sampler, sampler_abit.name);

	*why = !tells ? "no sampler tells of parts of them"
	       : !collapse_available()
		       ? "this kernel has no MADV_COLLAPSE to make them whole again"
		       : "where blocks of one are hot; made whole again by MADV_COLLAPSE";
	return tells && collapse_available();
}

void skew_open(struct skew *skew, const struct sampler *sampler)
{
	skew->random = clock_ns(CLOCK_MONOTONIC) | 1;
	if (skew_available(sampler ? sampler->name : "none", &skew->why))
		skew->why = NULL;
}

/* ---- judging ------------------------------------------------------------- */

static float score_of(const struct skew_round *round, const struct granule *granule)
{
	return watch_score(round->watch, granule, granule->mean);
}

/* Whether a block is @ratio times as hot as all of it, and as what stays in DDR. */
static bool is_skewed(const struct skew_round *round, const struct granule *granule,
		      float ratio)
{
	return planner_stands_out(heat_rate(granule->most), heat_rate(granule->mean),
				  ratio) &&
	       watch_score(round->watch, granule, granule->most) >=
		       ratio * round->result->reference;
}

static uint8_t level_of(const struct skew_round *round, const struct granule *granule)
{
	float level = LEVEL_ONE;

	if (round->result->reference > 0)
		level *= score_of(round, granule) / round->result->reference;
	return level < 1 ? 1 : level > LEVEL_MOST ? LEVEL_MOST : (uint8_t)level;
}

static bool is_full(const struct granule *granule)
{
	return granule->pages == GRANULE_PAGES;
}

static bool is_advised(const struct skew_round *round, uintptr_t addr)
{
	const struct placer_hints *hints = round->hints;
	bool alike;

	return hints->advised_count &&
	       (advice_of(hints->advised, hints->advised_count, addr,
			  addr + GRANULE_BYTES, &alike) != FERRY_ADVICE_NONE ||
		!alike);
}

/* Whether enough is known of a huge page to judge it. Notes its level if that is wanted.
 */
static bool is_judged(const struct skew_round *round, struct granule *granule)
{
	if (!granule->huge || !granule->placed_known || !is_full(granule) ||
	    !watch_knows(round->watch, granule))
		return false;
	if (granule->level == LEVEL_ASK)
		granule->level = level_of(round, granule);
	return true;
}

/* Whether one that is judged may be skewed; @anew: whatever was found before. */
static bool is_doubtful(const struct skew_round *round, const struct granule *granule,
			uintptr_t addr, bool anew)
{
	float rate = heat_rate(granule->mean);
	uint8_t level = level_of(round, granule);

	return rate >= PLAN_LEAST_RATE && granule->pause < HELD &&
	       (rate < HOT_RATE || (float)level < PLAN_RATIO * LEVEL_ONE ||
		!granule->on_hbm) &&
	       (anew || level > 2 * granule->level || 2 * level < granule->level) &&
	       !is_advised(round, addr);
}

/* ---- splitting and making whole ------------------------------------------ */

static bool split(struct skew *skew, struct granule *granule, uintptr_t addr)
{
	huge_keep_small(addr);
	if (madvise((void *)addr, PAGE_BYTES, MADV_COLD)) {
		huge_let_whole(addr, false);
		granule->level = LEVEL_ASK;
		return false;
	}
	granule->split = true;
	/* What was known is of another kind of page. */
	granule->huge = false;
	granule->windows = 0;
	granule->tries = granule->pause = 0;
	skew->split++;
	return true;
}

static void end_split(struct granule *granule, uintptr_t addr, bool gone)
{
	huge_let_whole(addr, gone);
	granule->split = false;
	granule->level = LEVEL_ASK;
}

/* Whether all pages may come to the node that most of them are on. */
static bool may_gather(const struct granule *granule, uint64_t *room)
{
	int on_hbm = __builtin_popcount(granule->on_hbm);
	uint64_t more = (uint64_t)(GRANULE_BLOCKS - (size_t)on_hbm) * BLOCK_PAGES;

	if ((size_t)on_hbm * 2 < GRANULE_BLOCKS)
		return true;
	if (more > *room)
		return false;
	*room -= more;
	return true;
}

static void make_whole(struct skew *skew, struct granule *granule, uintptr_t addr)
{
	int err;

	huge_let_whole(addr, false);
	err = collapse_one(addr);
	granule->placed_known = false;
	if (!err) {
		granule->split = false;
		granule->level = LEVEL_ASK;
		granule->huge = true;
		granule->windows = 0;
		granule->tries = granule->pause = 0;
		skew->whole++;
		return;
	}
	if (++granule->tries >= WHOLE_TRIES) {
		skew->failed = err;
		end_split(granule, addr, false);
		granule->tries = 0;
		return;
	}
	huge_keep_small(addr);
	granule->pause = (uint8_t)(1U << granule->tries);
}

/* ---- a turn -------------------------------------------------------------- */

/*
 * The score by which one that was split shall be watched: that of all of it, unless its
 * hottest block would be too hot to be told apart from others.
 */
static float score_to_watch(const struct skew_round *round, const struct granule *granule)
{
	float all = score_of(round, granule);
	float most = watch_score(round->watch, granule, granule->most) * MOST_PART;

	return most > all ? most : all;
}

/* Whether more is known of what was split. */
static void judge_probes(struct skew *skew, const struct skew_round *round)
{
	size_t kept = 0, seen = 0;
	float score = 0;

	for (size_t i = 0; i < skew->probes; i++) {
		uintptr_t addr = skew->probe[i];
		struct granule *granule = heat_granule(round->heat, addr, false);

		if (!granule || !granule->split)
			continue;
		if (granule->windows) {
			score += score_to_watch(round, granule);
			seen++;
		}
		if (!watch_knows(round->watch, granule)) {
			skew->probe[kept++] = addr;
			continue;
		}
		skew->known++;
		skew->found += is_skewed(round, granule, PLAN_RATIO);
	}
	skew->probes = kept;
	if (seen)
		round->watch->small_score = score / (float)seen;
	else if (!kept)
		round->watch->small_score = 0;
}

/* A turn, or looking for something to split, came to nothing. */
static void was_in_vain(struct skew *skew, uint64_t now)
{
	skew->tried = true;
	skew->pays = false;
	skew->next_at = now + (PAUSE_NS << skew->in_vain);
	skew->in_vain += skew->in_vain < IN_VAIN_MOST;
	skew->next_turn = FIRST_TURN;
}

static void end_turn(struct skew *skew, uint64_t now)
{
	skew->probes = 0;
	skew->moved = 0;
	skew->tried = true;
	if (skew->found && skew->found * TURN_PAYS >= skew->known) {
		skew->forgets = !skew->pays;
		skew->pays = true;
		skew->in_vain = 0;
		skew->next_at = now;
		skew->next_turn = skew->turn * TURN_GROWTH;
		if (skew->found == skew->turn)
			skew->next_turn *= TURN_GROWTH;
		if (skew->next_turn > SKEW_PROBES)
			skew->next_turn = SKEW_PROBES;
	} else {
		was_in_vain(skew, now);
	}
	skew->turn = 0;
}

static bool may_begin(const struct skew *skew, const struct skew_round *round,
		      uint64_t now)
{
	const struct placer_result *result = round->result;

	if (skew->turn || result->fits || !watch_is_settled(round->watch) ||
	    now < skew->next_at)
		return false;
	/* What can be done with whole huge pages comes first, unless it pays not to. */
	return result->moved < result->total / MOVING_PART ||
	       skew->next_turn > FIRST_TURN;
}

static void begin_turn(struct skew *skew, const struct skew_round *round,
		       const uintptr_t *addr, size_t n, uint64_t now)
{
	skew->known = skew->found = 0;
	for (size_t i = 0; i < n && skew->runs < RUNS_MOST; i++) {
		struct granule *granule = heat_granule(round->heat, addr[i], false);

		if (!split(skew, granule, addr[i]))
			continue;
		skew->probe[skew->probes++] = addr[i];
		skew->runs++;
	}
	skew->turn = skew->probes;
	skew->turn_ends = now + TURN_NS;
	if (skew->turn)
		watch_need_small(round->watch);
	else
		was_in_vain(skew, now);
}

/* ---- a round ------------------------------------------------------------- */

/* A walk over all granules. */
struct walk {
	struct skew *skew;
	const struct skew_round *round;
	uint64_t room; /* on HBM, pages */
	size_t made_whole;
	bool more;              /* to be made whole */
	bool anew;              /* all huge pages are doubted that may be skewed */
	size_t judged;          /* huge pages */
	size_t wanted, doubted; /* doubtful ones: to be chosen; seen */
	uintptr_t chosen[SKEW_PROBES];
};

/* Chooses among the doubtful ones, so that each has the same chance. */
static void consider(struct walk *walk, struct granule *granule, uintptr_t addr)
{
	size_t at;

	walk->judged++;
	if (!is_doubtful(walk->round, granule, addr, walk->anew))
		return;
	if (walk->skew->pays)
		granule->pause = HELD;
	if (!walk->wanted)
		return;
	at = walk->doubted++;
	if (at >= walk->wanted)
		at = random_next(&walk->skew->random) % walk->doubted;
	if (at < walk->wanted)
		walk->chosen[at] = addr;
}

static void look_at_split(struct walk *walk, struct granule *granule, uintptr_t addr)
{
	const struct skew_round *round = walk->round;

	if (!granule->windows)
		return; /* just split */
	if (granule->huge) {
		/* It was in use by the kernel that moment, or is whole by now. */
		end_split(granule, addr, false);
		granule->level = 0;
		granule->pause = PAUSE_ROUNDS;
		walk->skew->split--;
		return;
	}
	if (!is_full(granule)) {
		end_split(granule, addr, true);
		return;
	}
	if (!watch_knows(round->watch, granule) || !granule->placed_known ||
	    granule->pause ||
	    (!round->result->fits && is_skewed(round, granule, PLAN_STIRS)))
		return;
	if (walk->made_whole == WHOLE_MOST) {
		walk->more = true;
	} else if (may_gather(granule, &walk->room)) {
		walk->made_whole++;
		make_whole(walk->skew, granule, addr);
	}
}

static void walk_spans(struct walk *walk)
{
	const struct skew_round *round = walk->round;
	struct skew *skew = walk->skew;
	uintptr_t last = 0; /* the end of the last one that is split */

	skew->runs = 0;
	for (size_t i = 0; i < round->spans; i++) {
		const struct span *span = &round->span[i];
		uintptr_t addr = (span->start + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);

		for (; addr + GRANULE_BYTES <= span->end; addr += GRANULE_BYTES) {
			struct granule *granule = heat_granule(round->heat, addr, false);

			if (!granule)
				continue;
			if (skew->forgets)
				granule->level = 0;
			if (granule->split)
				look_at_split(walk, granule, addr);
			else if (is_judged(round, granule))
				consider(walk, granule, addr);
			if (!granule->split)
				continue;
			skew->runs += addr != last;
			last = addr + GRANULE_BYTES;
		}
	}
	skew->forgets = false;
}

bool skew_round(struct skew *skew, const struct skew_round *round)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	struct walk walk = {
		.skew = skew,
		.round = round,
		.room = round->result->moved ? 0 : round->result->room,
	};

	skew->moved += round->result->moved;
	if (skew->moved > round->result->total / CHANGE_PART)
		skew->in_vain = 0;
	judge_probes(skew, round);
	if (skew->turn && (!skew->probes || now > skew->turn_ends))
		end_turn(skew, now);
	skew->fits = round->result->fits;
	if (may_begin(skew, round, now)) {
		if (!skew->hold_ends)
			skew->hold_ends = now + HOLD_NS;
		walk.wanted = skew->next_turn ? skew->next_turn : FIRST_TURN;
		walk.anew = now >= skew->anew_at;
		if (walk.anew)
			skew->anew_at = now + ANEW_NS;
	}
	walk_spans(&walk);
	skew->ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
	if (skew->why)
		skew->missed |= walk.doubted > 0;
	else if (walk.doubted)
		begin_turn(skew, round, walk.chosen,
			   walk.doubted < walk.wanted ? walk.doubted : walk.wanted, now);
	else if (walk.wanted && walk.judged)
		was_in_vain(skew, now);
	skew->judged = walk.judged;
	return skew->turn || walk.more;
}

bool skew_holds(const struct skew *skew)
{
	return !skew->why && !skew->tried && !skew->fits &&
	       (!skew->hold_ends || clock_ns(CLOCK_MONOTONIC) < skew->hold_ends);
}

bool skew_is_open(const struct skew *skew)
{
	return !skew->why && skew->judged && skew->in_vain < IN_VAIN_LEAST;
}

static void let_go(struct granule *granule, uintptr_t addr)
{
	if (granule->split)
		huge_let_whole(addr, false);
}

void skew_let_go(struct skew *skew, const struct heat *heat)
{
	if (skew->split)
		heat_for_each(heat, let_go);
}
