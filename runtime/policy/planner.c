/* SPDX-License-Identifier: MIT */
/* The planner: see planner.h. Pure functions. */
#include "policy/planner.h"

#include <math.h>
#include <string.h>

/* ---- buckets ------------------------------------------------------------- */

/*
 * A float's upper bits, its exponent and three bits of its mantissa, grow with
 * it: a logarithm for nothing. The first bucket is for 0 and what is less than
 * 2^-32.
 */
#define MANTISSA_BITS 20
#define LEAST_BITS    (((uint32_t)127 - 32) << 3)

static size_t bucket_of(float score)
{
	uint32_t bits;

	memcpy(&bits, &score, sizeof(bits));
	bits >>= MANTISSA_BITS;
	if (score <= 0 || bits < LEAST_BITS)
		return 0;
	bits -= LEAST_BITS - 1;
	return bits < PLAN_BUCKETS ? bits : PLAN_BUCKETS - 1;
}

/* More than any score. */
#define ANY_SCORE HUGE_VALF

/* The least score in a bucket; ANY_SCORE beyond the last one. */
static float bucket_score(size_t bucket)
{
	uint32_t bits = (uint32_t)(bucket + LEAST_BITS - 1) << MANTISSA_BITS;
	float score;

	if (bucket >= PLAN_BUCKETS)
		return ANY_SCORE;
	memcpy(&score, &bits, sizeof(score));
	return bucket ? score : 0;
}

/* ---- the first pass ------------------------------------------------------ */

void planner_begin(struct planner *planner)
{
	*planner = (struct planner){.promote_from = PLAN_BUCKETS};
}

#define NEEDED (PLAN_BUCKETS - 1)

static size_t unit_bucket(const struct plan_unit *unit)
{
	size_t bucket = bucket_of(unit->score);

	switch (unit->advice) {
	case FERRY_ADVICE_WILL_NEED:
		return NEEDED;
	case FERRY_ADVICE_COLD:
		return 0;
	default:
		return bucket < NEEDED ? bucket : NEEDED - 1;
	}
}

static bool is_pinned(const struct plan_unit *unit)
{
	return unit->advice == FERRY_ADVICE_PIN_DDR ||
	       unit->advice == FERRY_ADVICE_PIN_HBM;
}

static bool is_promotable(const struct plan_unit *unit)
{
	if (!unit->movable || unit->on_hbm || unit->advice == FERRY_ADVICE_COLD)
		return false;
	return unit->advice == FERRY_ADVICE_WILL_NEED || unit->rate >= PLAN_LEAST_RATE;
}

static bool is_demotable(const struct plan_unit *unit)
{
	return unit->movable && unit->on_hbm;
}

static void add_pinned(struct planner *planner, const struct plan_unit *unit)
{
	bool to_hbm = unit->advice == FERRY_ADVICE_PIN_HBM;

	planner->pinned += to_hbm ? unit->pages : 0;
	if (unit->on_hbm == to_hbm || !unit->movable)
		return;
	*(to_hbm ? &planner->arrive : &planner->leave) += unit->pages;
}

void planner_add(struct planner *planner, const struct plan_unit *unit)
{
	struct plan_bucket *bucket = &planner->bucket[unit_bucket(unit)];

	planner->on_hbm += unit->on_hbm ? unit->pages : 0;
	if (is_pinned(unit)) {
		add_pinned(planner, unit);
		return;
	}
	planner->total += unit->pages;
	bucket->pages += unit->pages;
	bucket->weight += (double)unit->weight * unit->pages;
	if (unit->advice == FERRY_ADVICE_NONE)
		bucket->score += (double)unit->score * unit->weight * unit->pages;
	if (is_promotable(unit))
		bucket->promotable += unit->pages;
	if (is_demotable(unit))
		bucket->demotable += unit->pages;
}

/* ---- the decision -------------------------------------------------------- */

/*
 * The mean score of the coldest @pages pages. What will be needed has no score
 * of its own and is left out.
 */
static float mean_of_coldest(const struct planner *planner, uint64_t pages)
{
	double sum = 0, weight = 0;

	for (size_t i = 0; i < NEEDED && pages; i++) {
		const struct plan_bucket *bucket = &planner->bucket[i];
		uint64_t part = bucket->pages < pages ? bucket->pages : pages;

		if (part) {
			sum += bucket->score / (double)bucket->pages * (double)part;
			weight += bucket->weight / (double)bucket->pages * (double)part;
		}
		pages -= part;
	}
	return weight > 0 ? (float)(sum / weight) : 0;
}

/*
 * What is left to be demoted, coldest first: the bucket that is being used up
 * and how much of it is gone.
 */
struct cold {
	size_t bucket;
	uint64_t used;
};

/* Takes up to @want pages with scores of at most @score; how many. */
static uint64_t demote(struct planner *planner, struct cold *cold, uint64_t want,
		       float score)
{
	uint64_t taken = 0;

	while (taken < want && cold->bucket < PLAN_BUCKETS) {
		uint64_t left = planner->bucket[cold->bucket].demotable - cold->used;

		if (left && bucket_score(cold->bucket + 1) > score)
			break;
		if (left > want - taken)
			left = want - taken;
		taken += left;
		cold->used += left;
		if (taken < want) {
			cold->bucket++;
			cold->used = 0;
		}
	}
	planner->demote += taken;
	return taken;
}

/* Whether hardly any memory has a score of @worth; chance may give some one. */
static bool is_flat(const struct planner *planner, float worth)
{
	uint64_t hot = 0;

	for (size_t i = PLAN_BUCKETS; i-- > 1 && bucket_score(i) >= worth;)
		hot += planner->bucket[i].pages;
	return hot <= planner->total / 512;
}

static uint64_t count_stirring(const struct planner *planner)
{
	uint64_t pages = 0;

	for (size_t i = NEEDED;
	     i-- > 1 && bucket_score(i) >= planner->reference * PLAN_STIRS;)
		pages += planner->bucket[i].promotable;
	return pages;
}

/* What is being shared out. */
struct sharing {
	uint64_t room; /* on HBM, pages */
	uint64_t left; /* that may still be moved */
	struct cold cold;
};

/*
 * Brings up to @want pages to HBM, of which others with scores of at most
 * @score may make room; how many.
 */
static uint64_t promote(struct planner *planner, struct sharing *sharing, uint64_t want,
			float score)
{
	uint64_t demoted = planner->demote, part;

	if (want > sharing->left)
		want = sharing->left;
	part = want < sharing->room ? want : sharing->room;
	sharing->room -= part;
	part += demote(planner, &sharing->cold, want - part, score);
	planner->promote += part;
	demoted = planner->demote - demoted;
	sharing->left -= part + demoted < sharing->left ? part + demoted : sharing->left;
	return part;
}

/*
 * The same for what is in @bucket. false: not all of it, so that colder memory has to
 * wait.
 */
static bool promote_bucket(struct planner *planner, struct sharing *sharing,
			   size_t bucket, float score)
{
	uint64_t want = planner->bucket[bucket].promotable, part;

	if (!sharing->left)
		return false;
	part = promote(planner, sharing, want, score);
	if (part) {
		planner->promote_from = bucket;
		planner->promote_part = part;
		/* Unless it ends there only because no more may move now. */
		planner->promote_whole = sharing->left > 0;
	}
	return part == want;
}

static void promote_hot(struct planner *planner, struct sharing *sharing, float worth)
{
	for (size_t i = PLAN_BUCKETS; i-- > 1 && bucket_score(i) >= worth;)
		if (planner->bucket[i].promotable &&
		    !promote_bucket(planner, sharing, i, bucket_score(i) / PLAN_RATIO))
			break;
}

/* A score that nothing has: what is promoted so drives nothing out. */
#define NO_SCORE (-1.0f)

/* Fills what room there is with memory that is not hot beside the rest, nor cold. */
static void promote_level(struct planner *planner, struct sharing *sharing, float worth)
{
	float least = planner->reference / PLAN_RATIO;

	for (size_t i = PLAN_BUCKETS; i-- > 1 && bucket_score(i) >= least;) {
		if (planner->bucket[i].promotable && bucket_score(i) < worth &&
		    !promote_bucket(planner, sharing, i, NO_SCORE))
			break;
	}
}

void planner_decide(struct planner *planner, const struct plan_limits *limits)
{
	/* Of HBM, what is not pinned has this much. */
	uint64_t fill =
		limits->fill > planner->pinned ? limits->fill - planner->pinned : 0;
	uint64_t needed = planner->bucket[NEEDED].pages, on_hbm;
	struct sharing sharing = {0};
	float worth;

	planner->limits = *limits;
	planner->demote = planner->leave < limits->most ? planner->leave : limits->most;
	planner->leave_part = planner->demote;
	on_hbm = planner->on_hbm - planner->demote;
	if (on_hbm > limits->keep)
		demote(planner, &sharing.cold, on_hbm - limits->fill, ANY_SCORE);
	else if (on_hbm < limits->fill)
		sharing.room = limits->fill - on_hbm;
	sharing.left =
		limits->most > planner->demote ? limits->most - planner->demote : 0;
	planner->arrive_part = promote(planner, &sharing, planner->arrive, ANY_SCORE);
	planner->fits = planner->total <= fill;
	if (!planner->fits) {
		planner->reference = mean_of_coldest(
			planner,
			planner->total - needed - (fill > needed ? fill - needed : 0));
		worth = planner->reference * PLAN_RATIO;
		planner->flat = is_flat(planner, worth);
		planner->stirring = count_stirring(planner);
		promote_hot(planner, &sharing, worth);
		if (limits->level && planner->flat)
			promote_level(planner, &sharing, worth);
	}
	planner->demote_to = sharing.cold.bucket;
	planner->demote_part = sharing.cold.used;
}

/* ---- the second pass ----------------------------------------------------- */

/* A unit of the bucket of which a part moves; the part may end within it. */
static bool take_part(uint64_t *part, uint32_t pages)
{
	if (!*part)
		return false;
	*part -= pages < *part ? pages : *part;
	return true;
}

/* The same; @whole: the part may not, so that HBM holds it. */
static bool take_promotion(uint64_t *part, uint32_t pages, bool whole)
{
	return (!whole || pages <= *part) && take_part(part, pages);
}

static enum plan_move pick_pinned(struct planner *planner, const struct plan_unit *unit)
{
	if (!unit->movable)
		return PLAN_STAY;
	if (unit->advice == FERRY_ADVICE_PIN_DDR)
		return unit->on_hbm && take_part(&planner->leave_part, unit->pages)
			       ? PLAN_DEMOTE
			       : PLAN_STAY;
	return !unit->on_hbm && take_part(&planner->arrive_part, unit->pages)
		       ? PLAN_PROMOTE
		       : PLAN_STAY;
}

static enum plan_move pick_fitting(struct planner *planner, const struct plan_unit *unit)
{
	bool used = unit->advice == FERRY_ADVICE_WILL_NEED ||
		    (unit->advice != FERRY_ADVICE_COLD && unit->score > 0);

	if (unit->on_hbm || !unit->movable || !used ||
	    planner->promote >= planner->limits.most)
		return PLAN_STAY;
	planner->promote += unit->pages;
	return PLAN_PROMOTE;
}

enum plan_move planner_pick(struct planner *planner, const struct plan_unit *unit)
{
	size_t bucket = unit_bucket(unit);

	if (is_pinned(unit))
		return pick_pinned(planner, unit);
	if (planner->fits)
		return pick_fitting(planner, unit);
	if (is_demotable(unit)) {
		if (bucket < planner->demote_to ||
		    (bucket == planner->demote_to &&
		     take_part(&planner->demote_part, unit->pages)))
			return PLAN_DEMOTE;
	} else if (is_promotable(unit)) {
		if (bucket > planner->promote_from ||
		    (bucket == planner->promote_from &&
		     take_promotion(&planner->promote_part, unit->pages,
				    planner->promote_whole)))
			return PLAN_PROMOTE;
	}
	return PLAN_STAY;
}
