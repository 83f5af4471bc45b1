/* SPDX-License-Identifier: MIT */
/*
 * The batcher (batcher.h). Overlaps are resolved by a sweep over addresses
 * that keeps the ranges covering the current one in a heap, the latest range
 * on top. No state of its own, no locking.
 */
#include "migrate/batcher.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A range during the sweep; where it stands in the batch is its precedence. */
struct claim {
	uintptr_t start, end; /* page-aligned, not empty */
	size_t order;
	int32_t node;
	uint32_t flags;
};

/* A binary max-heap of claims by order. */
struct heap {
	const struct claim **claim;
	size_t count;
};

static void heap_push(struct heap *heap, const struct claim *claim)
{
	size_t i = heap->count++;

	while (i > 0 && heap->claim[(i - 1) / 2]->order < claim->order) {
		heap->claim[i] = heap->claim[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap->claim[i] = claim;
}

static void heap_pop(struct heap *heap)
{
	const struct claim *last = heap->claim[--heap->count];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < heap->count) {
		if (child + 1 < heap->count &&
		    heap->claim[child + 1]->order > heap->claim[child]->order)
			child++;
		if (heap->claim[child]->order < last->order)
			break;
		heap->claim[i] = heap->claim[child];
		i = child;
	}
	heap->claim[i] = last;
}

static int by_start(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static int by_node(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	if (x->node != y->node)
		return x->node < y->node ? -1 : 1;
	return (x->addr > y->addr) - (x->addr < y->addr);
}

/* qsort(3), unless they are in order already: programs mostly give them so. */
static void sort(void *base, size_t n, size_t size,
		 int (*compare)(const void *, const void *))
{
	const char *at = base;

	for (size_t i = 1; i < n; i++, at += size)
		if (compare(at, at + size) > 0) {
			qsort(base, n, size, compare);
			return;
		}
}

/* Would a part of @claim that begins at @start be one with @last? */
static bool joins(const struct piece *last, uintptr_t start, const struct claim *claim)
{
	return last->addr + last->len == start && last->node == claim->node &&
	       last->flags == claim->flags;
}

/* Appends [start, end) as @claim has it, to the last part if they are one. */
static void emit(struct plan *plan, uintptr_t start, uintptr_t end,
		 const struct claim *claim)
{
	if (plan->count && joins(&plan->part[plan->count - 1], start, claim)) {
		plan->part[plan->count - 1].len += end - start;
		return;
	}
	plan->part[plan->count++] = (struct piece){
		.addr = start,
		.len = end - start,
		.node = claim->node,
		.flags = claim->flags,
	};
}

/* Resolves overlaps of @n claims sorted by start; @heap has room for all. */
static void sweep(struct plan *plan, const struct claim *claim, size_t n,
		  struct heap *heap)
{
	uintptr_t pos = 0;
	size_t next = 0;

	while (next < n || heap->count) {
		const struct claim *top;
		uintptr_t stop;

		if (!heap->count)
			pos = claim[next].start;
		while (next < n && claim[next].start == pos)
			heap_push(heap, &claim[next++]);
		top = heap->claim[0];
		if (top->end <= pos) {
			heap_pop(heap);
			continue;
		}
		stop = top->end;
		if (next < n && claim[next].start < stop)
			stop = claim[next].start;
		emit(plan, pos, stop, top);
		pos = stop;
	}
}

int plan_reserve(struct plan *plan, size_t n)
{
	const size_t room = n ? n : 1;

	*plan = (struct plan){0};
	if (n > SIZE_MAX / (2 * sizeof(struct claim)))
		return -ENOMEM;
	plan->range = malloc(room * sizeof(*plan->range));
	/* The claims, and behind them the heap's pointers. */
	plan->claim = malloc(room * (sizeof(struct claim) + sizeof(struct claim *)));
	/* Each start and each end of a range begins at most one part. */
	plan->part = malloc(2 * room * sizeof(*plan->part));
	if (!plan->range || !plan->claim || !plan->part) {
		plan_free(plan);
		return -ENOMEM;
	}
	plan->ranges = n;
	return 0;
}

int plan_make(struct plan *plan, const struct ferry_range *range, size_t n)
{
	int err = plan_reserve(plan, n);

	if (!err && n)
		memcpy(plan->range, range, n * sizeof(*range));
	return err;
}

static size_t make_claims(const struct plan *plan)
{
	size_t claims = 0;

	for (size_t i = 0; i < plan->ranges; i++) {
		const struct ferry_range *range = &plan->range[i];
		uintptr_t addr = (uintptr_t)range->addr;

		if (!range->len)
			continue;
		plan->claim[claims++] = (struct claim){
			.start = page_down(addr),
			.end = page_down(addr + range->len - 1) + PAGE_BYTES,
			.order = i,
			.node = range->node,
			.flags = range->flags,
		};
	}
	return claims;
}

void plan_sort(struct plan *plan)
{
	struct heap heap = {0};
	size_t claims;

	if (!plan->range)
		return;
	heap.claim = (const struct claim **)(plan->claim + plan->ranges);
	claims = make_claims(plan);
	sort(plan->claim, claims, sizeof(*plan->claim), by_start);
	sweep(plan, plan->claim, claims, &heap);
	sort(plan->part, plan->count, sizeof(*plan->part), by_node);
	free(plan->range);
	free(plan->claim);
	plan->range = NULL;
	plan->claim = NULL;
}

bool plan_next(struct plan *plan, struct batch *batch)
{
	size_t bytes = 0;

	plan_sort(plan);
	batch->result = (struct ferry_result){0};
	batch->count = 0;
	while (plan->next < plan->count && batch->count < BATCH_PIECES &&
	       bytes < BATCH_BYTES) {
		const struct piece *part = &plan->part[plan->next];
		struct piece *piece = &batch->piece[batch->count];
		size_t left = part->len - plan->done;

		if (batch->count && part->node != batch->piece[0].node)
			break;
		*piece = *part;
		piece->addr += plan->done;
		piece->len = granule_end(piece->addr) - piece->addr;
		if (piece->len > left)
			piece->len = left;
		/* Never within a granule: a huge page would fall into two batches. */
		if (piece->len > BATCH_BYTES - bytes)
			break;

		batch->count++;
		bytes += piece->len;
		plan->done += piece->len;
		if (plan->done == part->len) {
			plan->next++;
			plan->done = 0;
		}
	}
	return batch->count > 0;
}

void plan_free(struct plan *plan)
{
	free(plan->range);
	free(plan->claim);
	free(plan->part);
	*plan = (struct plan){0};
}

bool batch_overlaps(const struct batch *a, const struct batch *b)
{
	size_t i = 0, k = 0;

	while (i < a->count && k < b->count) {
		const struct piece *x = &a->piece[i], *y = &b->piece[k];

		if (x->addr + x->len <= y->addr)
			i++;
		else if (y->addr + y->len <= x->addr)
			k++;
		else
			return true;
	}
	return false;
}
