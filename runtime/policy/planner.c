/* SPDX-License-Identifier: MIT */
/* The planner: see planner.h. Pure functions. */
#include "policy/planner.h"

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

/* The least score in a bucket. */
static float bucket_score(size_t bucket)
{
	uint32_t bits = (uint32_t)(bucket + LEAST_BITS - 1) << MANTISSA_BITS;
	float score;

	memcpy(&score, &bits, sizeof(score));
	return bucket ? score : 0;
}

/* ---- the first pass ------------------------------------------------------ */

void planner_begin(struct planner *planner)
{
	*planner = (struct planner){.promote_from = PLAN_BUCKETS};
}

static bool is_promotable(const struct plan_unit *unit)
{
	return unit->movable && !unit->on_hbm && unit->rate >= PLAN_LEAST_RATE;
}

static bool is_demotable(const struct plan_unit *unit)
{
	return unit->movable && unit->on_hbm;
}

void planner_add(struct planner *planner, const struct plan_unit *unit)
{
	struct plan_bucket *bucket = &planner->bucket[bucket_of(unit->score)];

	planner->total += unit->pages;
	planner->on_hbm += unit->on_hbm ? unit->pages : 0;
	bucket->pages += unit->pages;
	bucket->score += (double)unit->score * unit->pages;
	if (is_promotable(unit))
		bucket->promotable += unit->pages;
	if (is_demotable(unit))
		bucket->demotable += unit->pages;
}

/* ---- the decision -------------------------------------------------------- */

/* The mean score of the coldest @pages pages. */
static float mean_of_coldest(const struct planner *planner, uint64_t pages)
{
	uint64_t left = pages;
	double sum = 0;

	for (size_t i = 0; i < PLAN_BUCKETS && left; i++) {
		const struct plan_bucket *bucket = &planner->bucket[i];
		uint64_t part = bucket->pages < left ? bucket->pages : left;

		if (part)
			sum += bucket->score / (double)bucket->pages * (double)part;
		left -= part;
	}
	return pages ? (float)(sum / (double)pages) : 0;
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

	while (taken < want && cold->bucket + 1 < PLAN_BUCKETS) {
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

void planner_decide(struct planner *planner, const struct plan_limits *limits)
{
	uint64_t room =
		limits->fill > planner->on_hbm ? limits->fill - planner->on_hbm : 0;
	struct cold cold = {0};
	float worth;

	planner->limits = *limits;
	planner->fits = planner->total <= limits->fill;
	if (planner->fits)
		return;
	planner->reference = mean_of_coldest(planner, planner->total - limits->fill);
	worth = planner->reference * PLAN_RATIO;
	planner->flat = is_flat(planner, worth);
	if (planner->on_hbm > limits->keep)
		demote(planner, &cold, planner->on_hbm - limits->fill,
		       bucket_score(PLAN_BUCKETS - 1));

	for (size_t i = PLAN_BUCKETS; i-- > 1 && bucket_score(i) >= worth;) {
		uint64_t want = planner->bucket[i].promotable, part;
		uint64_t moved = planner->promote + planner->demote;

		if (!want)
			continue;
		if (moved >= limits->most)
			break;
		if (want > limits->most - moved)
			want = limits->most - moved;
		part = want < room ? want : room;
		room -= part;
		part += demote(planner, &cold, want - part, bucket_score(i) / PLAN_RATIO);
		if (part) {
			planner->promote += part;
			planner->promote_from = i;
			planner->promote_part = part;
		}
		if (part < planner->bucket[i].promotable)
			break;
	}
	planner->demote_to = cold.bucket;
	planner->demote_part = cold.used;
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

static enum plan_move pick_fitting(struct planner *planner, const struct plan_unit *unit)
{
	if (unit->on_hbm || !unit->movable || unit->score <= 0 ||
	    planner->promote >= planner->limits.most)
		return PLAN_STAY;
	planner->promote += unit->pages;
	return PLAN_PROMOTE;
}

enum plan_move planner_pick(struct planner *planner, const struct plan_unit *unit)
{
	size_t bucket = bucket_of(unit->score);

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
		     take_part(&planner->promote_part, unit->pages)))
			return PLAN_PROMOTE;
	}
	return PLAN_STAY;
}
