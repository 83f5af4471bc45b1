/* SPDX-License-Identifier: MIT */
/* Hints: see hints.h. One thread's. */
#include "policy/hints.h"

#include <errno.h>
#include <sys/mman.h>

static int read_advice(struct hints *hints, struct placer *placer)
{
	size_t n = advice_list(hints->advised, hints->room);

	while (n > hints->room) {
		size_t room = 2 * n + 64;
		void *memory =
			mmap(NULL, room * sizeof(struct advised), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			return -ENOMEM;
		if (hints->advised)
			munmap(hints->advised, hints->room * sizeof(struct advised));
		hints->advised = memory;
		hints->room = room;
		n = advice_list(hints->advised, hints->room);
	}
	placer->hints.advised = hints->advised;
	placer->hints.advised_count = n;
	return 0;
}

/* A phase is over. Where nothing is known to be hot, what was remembered stays. */
static void remember(struct hints *hints, const struct hints_round *round)
{
	struct remembered *entry = &hints->phases[hints->phase.slot];
	struct range_set hot = {0};

	if (placer_remember(round->placer, round->watch, round->heat, round->span,
			    round->spans, &hot) ||
	    !hot.count) {
		range_set_destroy(&hot);
		return;
	}
	range_set_destroy(&entry->hot);
	*entry = (struct remembered){hints->phase.id, hot};
}

static void follow_phase(struct hints *hints, const struct hints_round *round)
{
	struct phase now = phase_now();
	struct placer_hints *to = &round->placer->hints;
	const struct remembered *entry = &hints->phases[now.slot];

	if (now.id == hints->phase.id) {
		hints->phase.begun |= now.begun;
		return;
	}
	/* While not all of it is there yet, this is not its placement. */
	if (hints->phase.begun && !to->phase)
		remember(hints, round);
	hints->phase = now;
	hints->moved = false;
	to->phase = now.id && entry->id == now.id ? &entry->hot : NULL;
}

int hints_take(struct hints *hints, const struct hints_round *round, bool *news)
{
	unsigned int changes = advice_changes();

	follow_phase(hints, round);
	*news = round->placer->hints.phase || changes != hints->changes;
	if (changes == hints->changes)
		return 0;
	hints->changes = changes;
	return read_advice(hints, round->placer);
}

bool hints_end(struct hints *hints, struct placer *placer, uint64_t moved)
{
	if (!placer->hints.phase)
		return false;
	hints->moved |= moved > 0;
	if (moved)
		return false;
	placer->hints.phase = NULL;
	return hints->moved;
}

void hints_destroy(struct hints *hints)
{
	if (hints->advised)
		munmap(hints->advised, hints->room * sizeof(struct advised));
	for (int i = 0; i < PHASES; i++)
		range_set_destroy(&hints->phases[i].hot);
	*hints = (struct hints){0};
}
