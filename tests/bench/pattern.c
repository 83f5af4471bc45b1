/* SPDX-License-Identifier: MIT */
/* Patterns of access (pattern.h). */
#include "pattern.h"

#include <string.h>
#include <sys/mman.h>

struct line {
	uint64_t count;
	uint32_t next;             /* line of all, for a chase */
	uint32_t next_hot[PHASES]; /* the same, of the hot ones of a phase */
	uint64_t value[5];
};
_Static_assert(sizeof(struct line) <= LINE, "a line");

uint64_t next_random(void)
{
	static uint64_t state = 88172645463325252U;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

const uint32_t *hot_of(const struct working_set *set, int phase)
{
	return set->hot_blocks == set->blocks ? set->order
					      : set->order + phase * set->hot_blocks;
}

static struct line *line_at(const struct working_set *set, size_t index)
{
	return (struct line *)(set->memory + index * LINE);
}

static size_t lines_of_block(const struct working_set *set)
{
	return set->block / LINE;
}

/* Adds 1, whatever the compiler knows. */
static void touch(const struct working_set *set, size_t index)
{
	++*(volatile uint64_t *)&line_at(set, index)->count;
	set->counted[index / lines_of_block(set)]++;
}

/* ---- hotset: anywhere, nine of ten times in a hot block -------------------- */

static void access_hotset(const struct working_set *set, int phase, size_t n)
{
	const uint32_t *hot = hot_of(set, phase);

	for (size_t i = 0; i < n; i++) {
		uint64_t random = next_random();
		size_t block;

		/* What is not hot may meet a hot one too. */
		if (random % 10)
			block = hot[(random >> 8) % set->hot_blocks];
		else
			block = (random >> 8) % set->blocks;
		touch(set,
		      block * lines_of_block(set) + (random >> 40) % lines_of_block(set));
	}
}

/* ---- chase: the same, by pointers ------------------------------------------ */

/* The line that is number @i of the blocks in @order. */
static uint32_t line_number(const struct working_set *set, const uint32_t *order,
			    size_t i)
{
	size_t lines = lines_of_block(set);

	return (uint32_t)(order[i / lines] * lines + i % lines);
}

/* Links @n lines to a circle in random order; @next tells where the link is. */
static bool link_lines(const struct working_set *set, const uint32_t *order, size_t n,
		       size_t next)
{
	uint32_t *circle = mmap(NULL, n * sizeof(*circle), PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (circle == MAP_FAILED)
		return false;
	for (size_t i = 0; i < n; i++)
		circle[i] = line_number(set, order, i);
	for (size_t i = n - 1; i > 0; i--) {
		size_t k = next_random() % (i + 1);
		uint32_t swapped = circle[i];

		circle[i] = circle[k];
		circle[k] = swapped;
	}
	for (size_t i = 0; i < n; i++)
		memcpy((char *)line_at(set, circle[i]) + next, &circle[(i + 1) % n],
		       sizeof(*circle));
	munmap(circle, n * sizeof(*circle));
	return true;
}

static bool prepare_chase(const struct working_set *set)
{
	size_t lines = lines_of_block(set);

	for (int phase = 0; phase < PHASES; phase++)
		if (!link_lines(set, hot_of(set, phase), set->hot_blocks * lines,
				offsetof(struct line, next_hot[0]) +
					phase * sizeof(uint32_t)))
			return false;
	return link_lines(set, set->order, set->blocks * lines,
			  offsetof(struct line, next));
}

static void access_chase(const struct working_set *set, int phase, size_t n)
{
	static int last_phase = -1;
	static uint32_t any, hot;

	if (phase != last_phase) {
		hot = line_number(set, hot_of(set, phase), 0);
		last_phase = phase;
	}
	for (size_t i = 0; i < n; i++) {
		uint32_t *at = i % 10 ? &hot : &any;
		const struct line *line = line_at(set, *at);

		touch(set, *at);
		*at = i % 10 ? line->next_hot[phase] : line->next;
	}
}

/* ---- stencil: over and over through the phase's arrays, side by side -------- */

static void access_stencil(const struct working_set *set, int phase, size_t n)
{
	static size_t at;
	size_t first = *hot_of(set, phase) * lines_of_block(set);
	size_t lines = set->hot_blocks * lines_of_block(set);

	for (size_t i = 0; i < n; i++, at++) {
		size_t here = first + at % lines;
		const struct line *before = line_at(set, at % lines ? here - 1 : here);
		const struct line *after =
			line_at(set, at % lines + 1 < lines ? here + 1 : here);
		struct line *line = line_at(set, here);

		for (size_t k = 0; k < sizeof(line->value) / sizeof(*line->value); k++)
			line->value[k] = (before->value[k] + 2 * line->value[k] +
					  after->value[k] + 1) /
					 4;
		touch(set, here);
	}
}

/* ---- stream: a = b + 3 c, in thirds of the memory --------------------------- */

static void access_stream(const struct working_set *set, int phase, size_t n)
{
	static size_t at;
	size_t lines = set->bytes / LINE / 3;

	(void)phase;
	for (size_t i = 0; i < n; i++, at++) {
		size_t here = at % lines;
		struct line *a = line_at(set, here);
		const struct line *b = line_at(set, here + lines);
		const struct line *c = line_at(set, here + 2 * lines);

		for (size_t k = 0; k < sizeof(a->value) / sizeof(*a->value); k++)
			a->value[k] = b->value[k] + 3 * c->value[k];
		touch(set, here);
		set->counted[(here + lines) / lines_of_block(set)]++;
		set->counted[(here + 2 * lines) / lines_of_block(set)]++;
	}
}

/* ---- uniform: anywhere ------------------------------------------------------ */

static void access_uniform(const struct working_set *set, int phase, size_t n)
{
	size_t lines = set->blocks * lines_of_block(set);

	(void)phase;
	for (size_t i = 0; i < n; i++)
		touch(set, (next_random() >> 8) % lines);
}

static const struct pattern patterns[] = {
	{"hotset", .scattered = true, .access = access_hotset},
	{"chase", .scattered = true, .prepare = prepare_chase, .access = access_chase},
	{"stencil", .access = access_stencil},
	{"stream", .all_hot = true, .access = access_stream},
	{"uniform", .scattered = true, .all_hot = true, .access = access_uniform},
};

const struct pattern *pattern_named(const char *name)
{
	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++)
		if (!strcmp(patterns[i].name, name))
			return &patterns[i];
	return NULL;
}
