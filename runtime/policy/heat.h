/* SPDX-License-Identifier: MIT */
/*
 * Heat: what is known of each granule of managed memory, from samples.
 *
 * Of a sampler that sees all pages, for each block the share of its pages that a
 * window found accessed, averaged over the latest windows so that old ones decay.
 * Of one that sees accesses, for each granule how many it saw and in what time,
 * of which old ones count less too. A table in two levels, by address, whose
 * leaves are there for the memory that was ever sampled; its memory comes straight
 * from mmap(2). It costs 172 bytes a granule.
 *
 * One thread's: the policy's.
 */
#ifndef FERRY_HEAT_H
#define FERRY_HEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ferry/ferry.h>

#include "fault/sampler.h"
#include "migrate/page.h"

#define GRANULE_BLOCKS (GRANULE_BYTES / BLOCK_BYTES)
#define BLOCK_PAGES    (BLOCK_BYTES / PAGE_BYTES)
#define GRANULE_PAGES  (GRANULE_BYTES / PAGE_BYTES)

/*
 * Windows after which a granule's heat is known. A block has up to 16 pages to
 * tell of in each window; all of a huge page is one observation, so it takes
 * more of them, and they count less.
 */
#define HEAT_WINDOWS_SMALL 4
#define HEAT_WINDOWS_HUGE  64
/*
 * That supposes that pages are accessed independently of each other. Where they are not,
 * it takes 2^depth as many (depth.h).
 */
#define HEAT_DEPTH_MOST 4
/* Of accesses that are seen, so many sightings, and accesses, count at most. */
#define HEAT_SIGHTINGS 32
#define HEAT_ACCESSES  24.0f

/* Of a block's pages, those that a window found accessed. */
enum seen { SEEN_UNKNOWN, SEEN_NONE, SEEN_PART, SEEN_ALL };

struct granule {
	uint16_t heat[GRANULE_BLOCKS];   /* share accessed in a window, of 65535 */
	uint8_t present[GRANULE_BLOCKS]; /* pages */

	/* Of these two, as heat_sum() found. */
	uint32_t there; /* blocks with pages */
	uint16_t pages; /* in all */
	uint16_t mean;  /* share of the granule as a whole */
	uint16_t most;  /* largest of a block, but for those with too few pages to tell */

	/* Where the pages are, as the kernel said last. */
	uint32_t on_hbm;                /* blocks that have most of their pages there */
	uint32_t moved;                 /* blocks not seen whole since they were moved */
	uint32_t torn;                  /* of these, blocks with pages in both tiers */
	int16_t node[FERRY_TIER_COUNT]; /* with most of the pages of a tier, or -1 */
	bool placed_known;

	bool huge;        /* a huge page maps all or most of it */
	bool split;       /* it was a huge page until skew.c split it */
	uint8_t seen;     /* of its first block by the last window: enum seen */
	uint16_t windows; /* so far, up to the number above */
	uint8_t length;   /* which length of windows these are of */
	uint8_t depth;    /* see HEAT_DEPTH_MOST */
	uint8_t level; /* of its heat when it was last found to have no skew, see skew.c
			*/
	uint8_t tries,
		pause; /* moves since the last that did something; rounds to wait */
	/*
	 * Since it was moved: rounds, up to 255; 0: it never was. Whether that was to
	 * HBM.
	 */
	uint8_t moved_ago;
	bool promoted;

	/* Of a sampler that sees accesses; windows counts the sightings then. */
	bool counted;     /* there are pages */
	bool doubted;     /* worth another look soon */
	uint8_t patience; /* how often in a row it was found as it was before */
	uint32_t seen_ms; /* when it was watched last */
	float accesses, seconds;
	/*
	 * How likely it is far hotter, or colder, than it was, and what was seen since
	 * it may be.
	 */
	struct heat_odds {
		float sum, accesses, seconds;
	} hotter, colder;
};

/* All zeros is the empty table. */
struct heat {
	struct granule **leaf;
	size_t bytes; /* of memory, the untouched part of leaves included */
};

/* The granule of @addr; made if @create. NULL: there is none, or no memory. */
struct granule *heat_granule(struct heat *heat, uintptr_t addr, bool create);

/*
 * Takes a window's samples of the blocks [first, first + n) of a granule.
 * @length: a number for the window's length. Where that is another one than
 * before, many pages have come or gone, or they are mapped otherwise, what is
 * known begins anew.
 */
void heat_note(struct granule *granule, const struct sample *sample, size_t first,
	       size_t n, uint8_t length);

/* Takes what is there, of samples that watched nothing; as heat_note() but for that. */
void heat_count(struct granule *granule, const struct sample *sample, size_t first,
		size_t n, uint8_t length);

/*
 * Takes a sighting. Whether this and the ones before it are most unlikely by what is
 * known: the memory is used otherwise now, and only they count. Few will do where it is
 * far hotter, or no access is seen where many should have been, but one is not enough:
 * it may be chance, or that the program did not run.
 */
bool heat_see(struct granule *granule, float accesses, float seconds);

/* Whether it is likely by now, though not certain yet. */
bool heat_is_otherwise(const struct granule *granule);

/*
 * Accesses of a page a second, by what was seen, and as if one access more had
 * been seen at the rate @usual: the less is known, the more it is like the others.
 */
float heat_seen_rate(const struct granule *granule, float usual);

/* Whether the rate is beyond, below @rate by more than chance makes of it; or 0. */
int heat_compare(const struct granule *granule, float rate);

/* Whether enough windows were seen to judge by. */
bool heat_is_known(const struct granule *granule);

/* To be called when blocks were changed. */
void heat_sum(struct granule *granule);

/*
 * How often pages are accessed that a window finds accessed with this share:
 * -log2(1 - share), the rate in units of ln(2) accesses a window. Beyond
 * HEAT_MOST_RATE shares are too near to 1 to be told apart, so it ends there.
 */
#define HEAT_MOST_RATE 5.0f
float heat_rate(uint16_t share);

/* Calls @fn for all granules that there is memory for, with their addresses. */
void heat_for_each(const struct heat *heat, void (*fn)(struct granule *, uintptr_t addr));

void heat_destroy(struct heat *heat);

#endif /* FERRY_HEAT_H */
