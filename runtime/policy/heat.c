/* SPDX-License-Identifier: MIT */
/* Heat: see heat.h. One thread's. */
#include "policy/heat.h"

#include <string.h>
#include <sys/mman.h>

/* 47 bits of address: 8192 leaves of 16 GiB each. */
#define LEAF_GRANULES ((size_t)8192)
#define LEAVES        ((size_t)8192)

#define SHARE_ONE 65535

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
	return granule->sparse ? HEAT_WINDOWS_SPARSE
	       : granule->huge ? HEAT_WINDOWS_HUGE
			       : HEAT_WINDOWS_SMALL;
}

bool heat_is_known(const struct granule *granule)
{
	unsigned int needed = windows_needed(granule);

	/* Part of the windows of a long memory will do. */
	return granule->windows >=
	       (needed > HEAT_WINDOWS_SMALL ? needed * 3 / 4 : needed);
}

/* What a window tells of a granule's blocks that it did not watch. */
struct others {
	unsigned int watched, accessed; /* pages of all blocks */
	bool any;                       /* there are such blocks */
};

static struct others sum_up(const struct sample *sample, size_t n)
{
	struct others others = {0};

	for (size_t i = 0; i < n; i++) {
		others.watched += sample[i].watched;
		others.accessed += sample[i].accessed;
		others.any |= sample[i].present && !sample[i].watched;
	}
	return others;
}

/*
 * The heat of a block after a window. The mean of the first windows; from then
 * on older ones count less and less.
 */
static uint16_t after(const struct granule *granule, size_t block,
		      const struct sample *sample, const struct others *others)
{
	int needed = (int)windows_needed(granule), heat = granule->heat[block];
	int weight = granule->windows < needed ? granule->windows + 1 : needed;
	int watched = sample->watched, accessed = sample->accessed;

	if (!sample->present)
		return 0;
	if (!watched) {
		watched = (int)others->watched;
		accessed = (int)others->accessed;
	}
	if (!watched)
		return (uint16_t)heat;
	return (uint16_t)(heat + (SHARE_ONE * accessed / watched - heat) / weight);
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

void heat_note(struct granule *granule, const struct sample *sample, size_t first,
	       size_t n, uint8_t length)
{
	/* A huge page's blocks, of which there are many windows, are all alike. */
	bool alike = sample[0].huge && n == GRANULE_BLOCKS &&
		     !memcmp(sample, sample + 1, (n - 1) * sizeof(*sample));
	struct others others = sum_up(sample, alike ? 1 : n);
	unsigned int present = 0, huge = 0;

	for (size_t i = 0; i < (alike ? 1 : n); i++) {
		present += sample[i].present;
		huge += sample[i].huge;
	}
	if (!(alike && granule->huge) &&
	    has_changed(granule, sample, first, n, huge > present / 2)) {
		granule->windows = 0;
		granule->huge = huge > present / 2;
		granule->sparse = false;
		granule->placed_known = false;
		granule->tries = granule->pause = 0;
	}
	if (granule->length != length) {
		granule->windows = 0;
		if (granule->sparse) /* what is stale would be taken for known */
			memset(granule->heat, 0, sizeof(granule->heat));
		granule->length = length;
	}
	granule->sparse |= others.any && others.watched;
	for (size_t i = 0; i < n; i++) {
		granule->heat[first + i] =
			i && alike ? granule->heat[first]
				   : after(granule, first + i, &sample[i], &others);
		granule->present[first + i] = sample[i].present;
	}
	if (others.any && !others.watched)
		return;
	if (granule->windows < windows_needed(granule))
		granule->windows++;
}

uint16_t heat_mean(const struct granule *granule, unsigned int *pages)
{
	uint64_t sum = 0;

	*pages = 0;
	for (size_t i = 0; i < GRANULE_BLOCKS; i++) {
		sum += (uint64_t)granule->heat[i] * granule->present[i];
		*pages += granule->present[i];
	}
	return *pages ? (uint16_t)(sum / *pages) : 0;
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
