/* SPDX-License-Identifier: MIT */
/*
 * Watching memory: rounds of samples that feed heat, and the length of their
 * windows, which follows from what they find.
 *
 * A window is right when memory that HBM has no room for is accessed in some of
 * its pages: in a longer one everything is accessed, in a shorter one hardly
 * anything. For huge pages, with one accessed bit for 512 pages, it is shorter by
 * so much, and there are several windows in a round. So pages of both kinds
 * have a window of their own.
 *
 * One thread's: the policy's.
 */
#ifndef FERRY_WATCH_H
#define FERRY_WATCH_H

#include "policy/depth.h"

enum page_kind { SMALL_PAGES, HUGE_PAGES, PAGE_KINDS };

/* The kind most of a granule's pages are of. */
enum page_kind watch_kind(const struct granule *granule);

struct window {
	uint64_t ns;     /* asked for */
	float taken_ns;  /* how long a page was really watched, lately */
	uint8_t length;  /* counts the changes of it, for heat_note() */
	bool settled;    /* found right the last time */
	size_t granules; /* sampled with it in the last round */
	size_t known;    /* of these, clearly hot or cold; see below */
	bool clear;      /* hardly any is not */
	bool sampled;    /* in this round; else nothing new is known */
	uintptr_t next;  /* where the next round begins */

	/* Shares that this round found accessed, and what was known of the same pages. */
	float seen, expected;
	size_t compared;
	size_t jumped, jumped_before; /* of these, far hotter at once; the round before */
	unsigned int since;           /* rounds, when all became hotter at once */
	uint8_t rises;                /* how often, so far */

	struct depth depth; /* how many of them it takes to know */
};

/*
 * With a sampler that sees accesses the rates of these are known whatever the window, so
 * that a change of it begins nothing anew; what counts there is granules, and known are
 * those that are clearly hotter or colder than what is worth a move.
 */

/* All zeros but the sampler is ready for the first round. */
struct watch {
	const struct sampler *sampler;
	struct window window[PAGE_KINDS];
	/*
	 * There are small pages that matter, however few they are beside huge ones;
	 * their score sets their window then. 0: there are none now; less: not known yet.
	 */
	bool needs_small;
	float small_score;
	struct watch_slices *slices; /* memory for what is sampled */
	uint64_t samples;            /* windows so far */

	/* Of a sampler that sees accesses (sight.h). */
	struct sights *sights;
	unsigned int rounds;
	uint64_t random;
	uintptr_t count_next; /* where counting goes on; 0: at the beginning */
	bool counted_all;     /* once at least */
	size_t surprises;     /* in the last round */
	bool stirs;           /* those were many */
	uint8_t restarts;     /* numbers what is known, as a window's length does */
	float reference;      /* as it was given last */
	float usual;          /* accesses of a page a second, of all that was watched */
	float worth;          /* from which on moving is worth it */
};

/*
 * Samples the memory of @n spans, whole blocks in ascending order: all of it,
 * or as much as @cpu_ns of this thread's time allow; the next round goes on
 * from there. 0 or -errno (the sampler's, -ENOMEM).
 */
int watch_round(struct watch *watch, struct heat *heat, const struct span *span, size_t n,
		uint64_t cpu_ns);

/*
 * The same for granules that small pages map alone, where these are wanted soon: it
 * leaves what is known of huge pages. Nothing with a sampler that sees accesses.
 */
int watch_small(struct watch *watch, struct heat *heat, const struct span *span, size_t n,
		uint64_t cpu_ns);

/* Whether enough windows, of the right length, were seen to judge a granule by. */
bool watch_knows(const struct watch *watch, const struct granule *granule);

/*
 * Accesses of one of a granule's pages a second; @share: the heat of the granule or
 * of a block, where windows tell of them.
 */
float watch_score(const struct watch *watch, const struct granule *granule,
		  uint16_t share);

/* What that counts in a mean of scores: the less, the less it is known. */
float watch_weight(const struct watch *watch, const struct granule *granule);

/* How sure that is not only chance: a rate (heat_rate()), for the planner. */
float watch_rate(const struct watch *watch, const struct granule *granule,
		 uint16_t share);

/*
 * Sets the windows by the score of memory that HBM has no room for; not before that
 * is known, where a round tells only of some of the memory.
 */
void watch_adapt(struct watch *watch, float reference);

/*
 * From now on small pages matter, though they be few; then none is known until their
 * window has been found right.
 */
void watch_need_small(struct watch *watch);

/*
 * Takes note of the pages of a kind that a round moves, and of those of them that go
 * back where they were not long ago: where that is much, what was taken for heat was
 * chance, and it takes more windows to know (depth.h).
 */
void watch_learn(struct watch *watch, enum page_kind kind, uint64_t moved,
		 uint64_t returned);

/* Rounds within which a move back counts as such. */
unsigned int watch_horizon(const struct watch *watch, enum page_kind kind);

/* Sets a kind's window by how many @of sightings have @seen an access. */
void watch_tune(struct watch *watch, enum page_kind kind, size_t seen, size_t of);

/* What is accessed is another memory from now on: heat begins anew. */
void watch_restart(struct watch *watch);

/* Whether all windows are right. */
bool watch_is_settled(const struct watch *watch);

/*
 * Whether more memory than in the round before was accessed much more than it was known
 * for; of small pages, of which one window tells that.
 */
bool watch_stirs(const struct watch *watch);

/* Whether it takes more windows than before to know, and they are not there yet. */
bool watch_is_learning(const struct watch *watch);

void watch_destroy(struct watch *watch);

#endif /* FERRY_WATCH_H */
