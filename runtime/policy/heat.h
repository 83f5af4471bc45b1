/* SPDX-License-Identifier: MIT */
/*
 * Heat: what is known of each granule of managed memory, from samples.
 *
 * For each block the share of its pages that a window found accessed, averaged
 * over the latest windows so that old ones decay. A table in two levels, by
 * address, whose leaves are there for the memory that was ever sampled; its
 * memory comes straight from mmap(2). It costs 112 bytes a granule.
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
/* Where a window watches only some of a granule's blocks, and few pages of these. */
#define HEAT_WINDOWS_SPARSE 16

struct granule {
	uint16_t heat[GRANULE_BLOCKS];   /* share accessed in a window, of 65535 */
	uint8_t present[GRANULE_BLOCKS]; /* pages */

	/* Where the pages are, as the kernel said last. */
	uint32_t on_hbm;                /* blocks that have most of their pages there */
	int16_t node[FERRY_TIER_COUNT]; /* with most of the pages of a tier, or -1 */
	bool placed_known;

	uint8_t windows; /* so far, up to the number above */
	uint8_t length;  /* which length of windows these are of */
	bool huge;       /* a huge page maps all or most of it */
	bool sparse;     /* only some of its blocks are watched in a window */
	uint8_t tries,
		pause; /* moves since the last that did something; rounds to wait */
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
 * known begins anew. Where only some blocks were watched, they speak for the others,
 * and where none was, the window tells nothing.
 */
void heat_note(struct granule *granule, const struct sample *sample, size_t first,
	       size_t n, uint8_t length);

/* Whether enough windows were seen to judge by. */
bool heat_is_known(const struct granule *granule);

/* The share of a granule as a whole, of 65535, and its pages. */
uint16_t heat_mean(const struct granule *granule, unsigned int *pages);

/*
 * How often pages are accessed that a window finds accessed with this share:
 * -log2(1 - share), the rate in units of ln(2) accesses a window. Beyond
 * HEAT_MOST_RATE shares are too near to 1 to be told apart, so it ends there.
 */
#define HEAT_MOST_RATE 5.0f
float heat_rate(uint16_t share);

void heat_destroy(struct heat *heat);

#endif /* FERRY_HEAT_H */
