/* SPDX-License-Identifier: MIT */
/* Moving what a round of the policy decided: see moves.h. One thread's. */
#include "policy/moves.h"

#include "migrate/batcher.h"
#include "migrate/worker.h"

bool moves_add(struct moves *moves, uintptr_t start, uintptr_t end, int node)
{
	struct ferry_range *last = moves->count ? &moves->range[moves->count - 1] : NULL;

	if (last && (uintptr_t)last->addr + last->len == start && last->node == node) {
		last->len += end - start;
		return true;
	}
	if (moves->count == MOVES_MOST)
		return false;
	moves->range[moves->count++] = (struct ferry_range){
		.addr = (void *)start, .len = end - start, .node = node};
	return true;
}

/* Pages moved. */
static uint64_t move(const struct engine *engine, const struct moves *moves)
{
	struct ferry_result result;
	struct plan plan;

	if (!moves->count || plan_make(&plan, moves->range, moves->count))
		return 0;
	worker_run(engine, &plan, &result);
	plan_free(&plan);
	return result.moved;
}

static uint64_t move_batch(const struct engine *engine, struct batch *batch)
{
	engine->move(batch);
	return batch->result.moved;
}

/*
 * Demotions and promotions in turns, so that room for the latter need not be
 * there before; what one of them has more of follows.
 */
static void exchange(const struct engine *engine, struct plan *out, struct plan *in,
		     uint64_t *demoted, uint64_t *promoted)
{
	struct batch from = {0}, to = {0};
	struct ferry_result rest;

	while (plan_next(out, &from)) {
		if (!plan_next(in, &to)) {
			*demoted += move_batch(engine, &from);
			break;
		}
		if (engine->exchange(&from, &to)) {
			move_batch(engine, &from);
			move_batch(engine, &to);
		}
		*demoted += from.result.moved;
		*promoted += to.result.moved;
	}
	worker_run(engine, out, &rest);
	*demoted += rest.moved;
	worker_run(engine, in, &rest);
	*promoted += rest.moved;
}

void moves_carry_out(const struct engine *engine, const struct moves *demotions,
		     const struct moves *promotions, uint64_t *demoted,
		     uint64_t *promoted)
{
	struct plan out, in;

	*demoted = *promoted = 0;
	if (engine->exchange && demotions->count && promotions->count &&
	    !plan_make(&out, demotions->range, demotions->count)) {
		if (!plan_make(&in, promotions->range, promotions->count)) {
			exchange(engine, &out, &in, demoted, promoted);
			plan_free(&in);
			plan_free(&out);
			return;
		}
		plan_free(&out);
	}
	*demoted = move(engine, demotions);
	*promoted = move(engine, promotions);
}
