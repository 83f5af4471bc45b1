/* SPDX-License-Identifier: MIT */
/* Heat: see heat.h. One thread's. */
#include "policy/heat.h"

#include <string.h>
#include <sys/mman.h>

/* 47 bits of address: 8192 leaves of 16 GiB each. */
#define LEAF_GRANULES ((size_t)8192)
#define LEAVES        ((size_t)8192)

#define SHARE_ONE 65535

/* A block of few pages tells too little to be called hotter than others. */
#define LEAST_PAGES 4

static void *map(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	/* Few of a leaf's granules may be in use. */
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	return memory;
}

struct granule *heat_granule(struct heat *heat, uintptr_t addr, bool create)
{
	size_t number = addr / GRANULE_BYTES, leaf = number / LEAF_GRANULES;

	if (leaf >= LEAVES)
		return NULL;
	if (!heat->leaf) {
		if (!create)
			return NULL;
		heat->leaf = map(LEAVES * sizeof(*heat->leaf));
		if (!heat->leaf)
			return NULL;
		heat->bytes += LEAVES * sizeof(*heat->leaf);
	}
	if (!heat->leaf[leaf]) {
		if (!create)
			return NULL;
		heat->leaf[leaf] = map(LEAF_GRANULES * sizeof(struct granule));
		if (!heat->leaf[leaf])
			return NULL;
		heat->bytes += LEAF_GRANULES * sizeof(struct granule);
	}
	return &heat->leaf[leaf][number % LEAF_GRANULES];
}

void heat_for_each(const struct heat *heat, void (*fn)(struct granule *, uintptr_t addr))
{
	for (size_t i = 0; heat->leaf && i < LEAVES; i++)
		for (size_t k = 0; heat->leaf[i] && k < LEAF_GRANULES; k++)
			fn(&heat->leaf[i][k], (i * LEAF_GRANULES + k) * GRANULE_BYTES);
}

void heat_destroy(struct heat *heat)
{
	for (size_t i = 0; heat->leaf && i < LEAVES; i++)
		if (heat->leaf[i])
			munmap(heat->leaf[i], LEAF_GRANULES * sizeof(struct granule));
	if (heat->leaf)
		munmap(heat->leaf, LEAVES * sizeof(*heat->leaf));
	*heat = (struct heat){0};
}

static unsigned int windows_needed(const struct granule *granule)
{
	return (granule->huge ? HEAT_WINDOWS_HUGE : HEAT_WINDOWS_SMALL) << granule->depth;
}

bool heat_is_known(const struct granule *granule)
{
	unsigned int needed = windows_needed(granule);

	/* Part of the windows of a long memory will do. */
	return granule->windows >=
	       (needed > HEAT_WINDOWS_SMALL ? needed * 3 / 4 : needed);
}

/*
 * The heat of a block after a window. The mean of the first windows; from then
 * on older ones count less and less.
 */
static uint16_t after(const struct granule *granule, size_t block,
		      const struct sample *sample)
{
	int needed = (int)windows_needed(granule), heat = granule->heat[block];
	int weight = granule->windows < needed ? granule->windows + 1 : needed;

	if (!sample->present)
		return 0;
	if (!sample->watched)
		return (uint16_t)heat;
	return (uint16_t)(heat + (SHARE_ONE * sample->accessed / sample->watched - heat) /
					 weight);
}

/* Whether the memory is another than what the heat was known of. */
static bool has_changed(const struct granule *granule, const struct sample *sample,
			size_t first, size_t n, bool huge)
{
	unsigned int change = 0;

	for (size_t i = 0; i < n; i++) {
		int more = sample[i].present - granule->present[first + i];

		change += (unsigned int)(more < 0 ? -more : more);
	}
	return huge != granule->huge || change > n * BLOCK_PAGES / 8;
}

/* What samples told. */
static void forget(struct granule *granule)
{
	granule->windows = 0;
	granule->accesses = granule->seconds = 0;
	granule->hotter = granule->colder = (struct heat_odds){0};
	granule->doubted = false;
}

/* Begins anew where what is known is of another memory. */
static void renew(struct granule *granule, const struct sample *sample, size_t first,
		  size_t n, bool huge)
{
	if (!has_changed(granule, sample, first, n, huge))
		return;
	forget(granule);
	granule->huge = huge;
	granule->placed_known = false;
	granule->tries = granule->pause = 0;
}

/* A window of all blocks at once; there are many such, so that it has to be short. */
static void note_alike(struct granule *granule, const struct sample *sample)
{
	uint16_t heat = after(granule, 0, sample);

	for (size_t i = 0; i < GRANULE_BLOCKS; i++)
		granule->heat[i] = heat;
	memset(granule->present, sample->present, sizeof(granule->present));
	granule->there = UINT32_MAX;
	granule->pages = (uint16_t)(GRANULE_BLOCKS * sample->present);
	granule->mean = granule->most = heat;
}

void heat_note(struct granule *granule, const struct sample *sample, size_t first,
	       size_t n, uint8_t length)
{
	/* A huge page's blocks, of which there are many windows, are all alike. */
	bool alike = sample[0].huge && n == GRANULE_BLOCKS &&
		     !memcmp(sample, sample + 1, (n - 1) * sizeof(*sample));
	unsigned int present = 0, huge = 0;

	for (size_t i = 0; i < (alike ? 1 : n); i++) {
		present += sample[i].present;
		huge += sample[i].huge;
	}
	if (!(alike && granule->huge))
		renew(granule, sample, first, n, huge > present / 2);
	if (granule->length != length) {
		granule->windows = 0;
		granule->length = length;
	}
	if (alike) {
		note_alike(granule, sample);
	} else {
		for (size_t i = 0; i < n; i++) {
			granule->heat[first + i] = after(granule, first + i, &sample[i]);
			granule->present[first + i] = sample[i].present;
		}
		heat_sum(granule);
	}
	if (granule->windows < windows_needed(granule))
		granule->windows++;
}

void heat_count(struct granule *granule, const struct sample *sample, size_t first,
		size_t n, uint8_t length)
{
	unsigned int present = 0, huge = 0;

	for (size_t i = 0; i < n; i++) {
		present += sample[i].present;
		huge += sample[i].huge;
	}
	renew(granule, sample, first, n, huge > present / 2);
	if (granule->length != length) {
		forget(granule);
		granule->length = length;
	}
	for (size_t i = 0; i < n; i++)
		granule->present[first + i] = sample[i].present;
	heat_sum(granule);
	granule->counted = granule->pages > 0;
}

/* ---- accesses that are seen ---------------------------------------------- */

/*
 * Whether memory is used otherwise now: sightings are added up as the logarithm of how
 * much likelier they are at so many times the rate than at the rate that is known, or at
 * that part of it, and the sum begins anew when it is below zero (E. S. Page, Continuous
 * Inspection Schemes, 1954). One sighting counts so much at most: it may be that the
 * program did not run, or ran back and forth. From one quick access on a sum is worth
 * another look soon; some in a row are likely more than chance, and it is certain where
 * chance takes some thousand sightings to get.
 */
#define OTHER_RATE   8.0f
#define LOG_OTHER    2.0794f
#define ODDS_ONCE    4.0f
#define ODDS_DOUBT   1.8f
#define ODDS_LIKELY  5.0f
#define ODDS_CERTAIN 9.0f

/* Half an access more than there were, as memory that was never seen accessed may be. */
static float expected(const struct granule *granule, float seconds)
{
	return (granule->accesses + 0.5f) / granule->seconds * seconds;
}

static void add_odds(struct heat_odds *odds, float by, float accesses, float seconds)
{
	odds->sum += by < ODDS_ONCE ? by : ODDS_ONCE;
	odds->accesses += accesses;
	odds->seconds += seconds;
	if (odds->sum <= 0)
		*odds = (struct heat_odds){0};
}

static void weigh_odds(struct granule *granule, float accesses, float seconds)
{
	float wanted = expected(granule, seconds);

	add_odds(&granule->hotter, accesses * LOG_OTHER - wanted * (OTHER_RATE - 1),
		 accesses, seconds);
	add_odds(&granule->colder, wanted * (1 - 1 / OTHER_RATE) - accesses * LOG_OTHER,
		 accesses, seconds);
	granule->doubted =
		granule->hotter.sum > ODDS_DOUBT || granule->colder.sum >= ODDS_ONCE;
}

static void weigh(struct granule *granule, float factor)
{
	granule->accesses *= factor;
	granule->seconds *= factor;
}

static void add_sighting(struct granule *granule, float accesses, float seconds)
{
	if (granule->windows < HEAT_SIGHTINGS)
		granule->windows++;
	else
		weigh(granule, 1 - 1.0f / HEAT_SIGHTINGS);
	granule->accesses += accesses;
	granule->seconds += seconds;
	if (granule->accesses > HEAT_ACCESSES)
		weigh(granule, HEAT_ACCESSES / granule->accesses);
}

/* All that counts is what was seen since it may be so. */
static void begin_otherwise(struct granule *granule, const struct heat_odds *odds)
{
	granule->accesses = odds->accesses;
	granule->seconds = odds->seconds;
	granule->hotter = granule->colder = (struct heat_odds){0};
	granule->doubted = false;
	granule->patience = 0;
	if (granule->accesses > HEAT_ACCESSES)
		weigh(granule, HEAT_ACCESSES / granule->accesses);
}

bool heat_see(struct granule *granule, float accesses, float seconds)
{
	const struct heat_odds *odds = &granule->hotter;

	if (granule->windows)
		weigh_odds(granule, accesses, seconds);
	if (granule->colder.sum > odds->sum)
		odds = &granule->colder;
	if (odds->sum >= ODDS_CERTAIN) {
		begin_otherwise(granule, odds);
		return true;
	}
	if (granule->doubted)
		granule->patience = 0;
	/* Not yet, if no access is seen where many should have been. */
	if (granule->colder.sum < ODDS_ONCE)
		add_sighting(granule, accesses, seconds);
	return false;
}

bool heat_is_otherwise(const struct granule *granule)
{
	return granule->hotter.sum > ODDS_LIKELY || granule->colder.sum > ODDS_LIKELY;
}

float heat_seen_rate(const struct granule *granule, float usual)
{
	if (usual <= 0)
		return 0;
	/* In use is not what was to be seen accessed long ago and was not. */
	if (granule->accesses < 0.1f && granule->seconds * usual > 3)
		return 0;
	return (granule->accesses + 1) / (granule->seconds + 1 / usual);
}

int heat_compare(const struct granule *granule, float rate)
{
	/* Two standard deviations, of one access more than there were. */
	float off = granule->accesses - rate * granule->seconds;

	if (off * off < 4 * (granule->accesses + 1))
		return 0;
	return off > 0 ? 1 : -1;
}

/* ---- shares -------------------------------------------------------------- */

void heat_sum(struct granule *granule)
{
	uint32_t sum = 0, pages = 0, there = 0;
	uint16_t most = 0;

	for (size_t i = 0; i < GRANULE_BLOCKS; i++) {
		sum += (uint32_t)granule->heat[i] * granule->present[i];
		pages += granule->present[i];
		there |= (uint32_t)(granule->present[i] > 0) << i;
		if (granule->present[i] >= LEAST_PAGES && granule->heat[i] > most)
			most = granule->heat[i];
	}
	granule->there = there;
	granule->pages = (uint16_t)pages;
	granule->mean = pages ? (uint16_t)(sum / pages) : 0;
	granule->most = most;
}

/* log2 of a number from 1 to 65536; exact at powers of two, never 0.01 off. */
static float log2_of(uint32_t number)
{
	int whole = 31 - __builtin_clz(number);
	float fraction = (float)number / (float)(1U << whole) - 1.0f;

	return (float)whole + fraction * (1.3424f - 0.3424f * fraction);
}

float heat_rate(uint16_t share)
{
	float rate = 16.0f - log2_of(65536U - share);

	return rate < HEAT_MOST_RATE ? rate : HEAT_MOST_RATE;
}
