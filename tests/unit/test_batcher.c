/* SPDX-License-Identifier: MIT */
/*
 * The batcher: overlaps, coalescing, splitting, order and bounds; by examples,
 * and against a model that looks at every page. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "migrate/batcher.h"

#define BASE ((uintptr_t)1 << 40)
#define MIB  ((size_t)1 << 20)

static struct ferry_range range(uintptr_t addr, size_t len, int node, uint32_t flags)
{
	return (struct ferry_range){(void *)addr, len, node, flags};
}

static struct plan plan_of(const struct ferry_range *ranges, size_t n)
{
	struct plan plan;

	assert_int_equal(plan_make(&plan, ranges, n), 0);
	plan_sort(&plan);
	return plan;
}

#define assert_part(part, a, l, n)                                                       \
	do {                                                                             \
		assert_int_equal((part).addr, a);                                        \
		assert_int_equal((part).len, l);                                         \
		assert_int_equal((part).node, n);                                        \
	} while (0)

static void nothing(void **state)
{
	struct ferry_range r = range(BASE + 5, 0, 1, 0);
	struct plan plan = plan_of(NULL, 0);
	struct batch batch;

	(void)state;
	assert_false(plan_next(&plan, &batch));
	plan_free(&plan);
	plan = plan_of(&r, 1);
	assert_int_equal(plan.count, 0);
	assert_false(plan_next(&plan, &batch));
	plan_free(&plan);
}

static void aligned_outward(void **state)
{
	struct ferry_range r[] = {range(BASE + 4095, 2, 1, 0),
				  range(BASE + 16 * 4096 + 1, 1, 1, 0)};
	struct plan plan = plan_of(r, 2);

	(void)state;
	assert_int_equal(plan.count, 2);
	assert_part(plan.part[0], BASE, 8192, 1);
	assert_part(plan.part[1], BASE + 16 * 4096, 4096, 1);
	plan_free(&plan);
}

static void highest_address(void **state)
{
	struct ferry_range r = range(UINTPTR_MAX - 3 * PAGE_BYTES + 1, PAGE_BYTES, 0, 0);
	struct plan plan = plan_of(&r, 1);

	(void)state;
	assert_int_equal(plan.count, 1);
	assert_part(plan.part[0], UINTPTR_MAX - 3 * PAGE_BYTES + 1, PAGE_BYTES, 0);
	plan_free(&plan);
}

static void later_wins(void **state)
{
	/* 0-64K to node 0; its middle to node 1; of that again one page to 0. */
	struct ferry_range r[] = {range(BASE, 65536, 0, 0),
				  range(BASE + 16384, 32768, 1, 0),
				  range(BASE + 20480, 4096, 0, FERRY_POPULATE)};
	struct plan plan = plan_of(r, 3);

	(void)state;
	assert_int_equal(plan.count, 5);
	assert_part(plan.part[0], BASE, 16384, 0);
	assert_part(plan.part[1], BASE + 20480, 4096, 0);
	assert_int_equal(plan.part[1].flags, FERRY_POPULATE);
	assert_part(plan.part[2], BASE + 49152, 16384, 0);
	assert_part(plan.part[3], BASE + 16384, 4096, 1);
	assert_part(plan.part[4], BASE + 24576, 24576, 1);
	plan_free(&plan);
}

static void earlier_is_covered(void **state)
{
	struct ferry_range r[] = {range(BASE + 4096, 4096, 0, 0),
				  range(BASE, 65536, 1, 0)};
	struct plan plan = plan_of(r, 2);

	(void)state;
	assert_int_equal(plan.count, 1);
	assert_part(plan.part[0], BASE, 65536, 1);
	plan_free(&plan);
}

static void coalesces_duplicates_and_neighbours(void **state)
{
	struct ferry_range r[] = {range(BASE + 8192, 4096, 1, 0), range(BASE, 4096, 1, 0),
				  range(BASE + 4096, 4096, 1, 0),
				  range(BASE, 8192, 1, 0)};
	struct plan plan = plan_of(r, 4);

	(void)state;
	assert_int_equal(plan.count, 1);
	assert_part(plan.part[0], BASE, 12288, 1);
	plan_free(&plan);
}

/* Who makes a plan does not sort it: that is done with the first batch. */
static void sorted_with_the_first_batch(void **state)
{
	struct ferry_range r[] = {range(BASE + 8192, 4096, 1, 0),
				  range(BASE, 8192, 1, 0)};
	struct plan plan;
	struct batch batch;

	(void)state;
	assert_int_equal(plan_make(&plan, r, 2), 0);
	assert_int_equal(plan.count, 0);
	assert_true(plan_next(&plan, &batch));
	assert_int_equal(batch.count, 1);
	assert_part(batch.piece[0], BASE, 12288, 1);
	assert_false(plan_next(&plan, &batch));
	plan_free(&plan);
	assert_int_equal(plan_make(&plan, r, 2), 0);
	plan_free(&plan);
}

static void splits_at_granules(void **state)
{
	struct ferry_range r = range(BASE + MIB, 4 * MIB, 1, 0);
	struct plan plan = plan_of(&r, 1);
	struct batch batch;

	(void)state;
	assert_true(plan_next(&plan, &batch));
	assert_int_equal(batch.count, 3);
	assert_part(batch.piece[0], BASE + MIB, MIB, 1);
	assert_part(batch.piece[1], BASE + 2 * MIB, 2 * MIB, 1);
	assert_part(batch.piece[2], BASE + 4 * MIB, MIB, 1);
	assert_false(plan_next(&plan, &batch));
	plan_free(&plan);
}

/* However large a range is, a plan and its batches stay small. */
static void large_range(void **state)
{
	struct ferry_range r = range(BASE, (size_t)1 << 46, 1, 0);
	struct plan plan = plan_of(&r, 1);
	struct batch batch;

	(void)state;
	assert_int_equal(plan.count, 1);
	for (int i = 0; i < 1000; i++) {
		assert_true(plan_next(&plan, &batch));
		assert_int_equal(batch.count, BATCH_BYTES / GRANULE_BYTES);
		assert_int_equal(batch.piece[0].addr, BASE + i * BATCH_BYTES);
	}
	plan_free(&plan);
}

static void one_node_in_a_batch(void **state)
{
	struct ferry_range r[] = {range(BASE, 4096, 5, 0), range(BASE + 8192, 4096, 2, 0),
				  range(BASE + 16384, 4096, 5, 0)};
	struct plan plan = plan_of(r, 3);
	struct batch batch;

	(void)state;
	assert_true(plan_next(&plan, &batch));
	assert_int_equal(batch.count, 1);
	assert_part(batch.piece[0], BASE + 8192, 4096, 2);
	assert_true(plan_next(&plan, &batch));
	assert_int_equal(batch.count, 2);
	assert_int_equal(batch.piece[0].node, 5);
	assert_int_equal(batch.piece[1].node, 5);
	assert_false(plan_next(&plan, &batch));
	plan_free(&plan);
}

static void overlap_of_batches(void **state)
{
	struct batch a = {.count = 2,
			  .piece = {{.addr = BASE, .len = 4096},
				    {.addr = BASE + 32768, .len = 8192}}};
	struct batch b = {.count = 2,
			  .piece = {{.addr = BASE + 4096, .len = 28672},
				    {.addr = BASE + 40960, .len = 4096}}};

	(void)state;
	assert_false(batch_overlaps(&a, &b));
	assert_false(batch_overlaps(&b, &a));
	b.piece[0].len += 4096;
	assert_true(batch_overlaps(&a, &b));
	assert_true(batch_overlaps(&b, &a));
	b.count = 0;
	assert_false(batch_overlaps(&a, &b));
}

/* ---- against a model ---------------------------------------------------- */

#define MODEL_PAGES 3000 /* almost six granules */

struct page {
	int node; /* -1: not named */
	uint32_t flags;
};

static uintptr_t model_base(void)
{
	return BASE + (uintptr_t)(rand() % 512) * PAGE_BYTES;
}

static void model_apply(struct page *page, uintptr_t base, const struct ferry_range *r)
{
	uintptr_t first, last;

	if (!r->len)
		return;
	first = ((uintptr_t)r->addr - base) / PAGE_BYTES;
	last = ((uintptr_t)r->addr + r->len - 1 - base) / PAGE_BYTES;
	for (uintptr_t i = first; i <= last; i++)
		page[i] = (struct page){r->node, r->flags};
}

/* Takes each page of the batch out of the model; checks what a batch promises. */
static void model_check(struct page *page, uintptr_t base, const struct batch *batch)
{
	uintptr_t pos = 0;
	size_t bytes = 0;

	assert_in_range(batch->count, 1, BATCH_PIECES);
	assert_int_equal(result_pages(&batch->result), 0);
	for (size_t i = 0; i < batch->count; i++) {
		const struct piece *p = &batch->piece[i];

		assert_true(p->addr >= pos);
		assert_true(p->len > 0 && p->addr % PAGE_BYTES == 0 &&
			    p->len % PAGE_BYTES == 0);
		assert_int_equal(p->addr / GRANULE_BYTES,
				 (p->addr + p->len - 1) / GRANULE_BYTES);
		assert_int_equal(p->node, batch->piece[0].node);
		/* Neighbours alike are one piece, unless a granule begins there. */
		if (i && p->addr == pos && p->addr % GRANULE_BYTES)
			assert_true(p->flags != batch->piece[i - 1].flags);
		for (uintptr_t k = 0; k < p->len / PAGE_BYTES; k++) {
			struct page *m = &page[(p->addr - base) / PAGE_BYTES + k];

			assert_int_equal(m->node, p->node);
			assert_int_equal(m->flags, p->flags);
			m->node = -1;
		}
		pos = p->addr + p->len;
		bytes += p->len;
	}
	assert_true(bytes <= BATCH_BYTES);
}

static void random_plan(unsigned int seed, size_t n, size_t max_len)
{
	static struct page page[MODEL_PAGES + 2];
	struct ferry_range *r = calloc(n, sizeof(*r));
	struct batch batch;
	struct plan plan;
	uintptr_t base;
	int node = -1;

	srand(seed);
	base = model_base();
	for (size_t i = 0; i < MODEL_PAGES + 2; i++)
		page[i].node = -1;
	for (size_t i = 0; i < n; i++) {
		size_t len = (size_t)rand() % max_len;
		size_t offset = (size_t)rand() % (MODEL_PAGES * PAGE_BYTES - len);

		/* Often on page boundaries, so that ranges touch. */
		if (rand() % 2) {
			offset -= offset % PAGE_BYTES;
			len -= len % PAGE_BYTES;
		}
		r[i] = range(base + offset, len, rand() % 3, (uint32_t)(rand() % 2));
		model_apply(page, base, &r[i]);
	}
	plan = plan_of(r, n);
	assert_true(plan.count <= 2 * n);
	while (plan_next(&plan, &batch)) {
		assert_true(batch.piece[0].node >= node);
		node = batch.piece[0].node;
		model_check(page, base, &batch);
	}
	for (size_t i = 0; i < MODEL_PAGES + 2; i++)
		assert_int_equal(page[i].node, -1);
	plan_free(&plan);
	free(r);
}

static void random_plans(void **state)
{
	(void)state;
	for (unsigned int seed = 1; seed <= 300; seed++) {
		random_plan(seed, 1 + seed % 40, 500 * PAGE_BYTES);
		random_plan(seed, 700, 6 * PAGE_BYTES); /* more than a batch holds */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing),
		cmocka_unit_test(aligned_outward),
		cmocka_unit_test(highest_address),
		cmocka_unit_test(later_wins),
		cmocka_unit_test(earlier_is_covered),
		cmocka_unit_test(coalesces_duplicates_and_neighbours),
		cmocka_unit_test(sorted_with_the_first_batch),
		cmocka_unit_test(splits_at_granules),
		cmocka_unit_test(large_range),
		cmocka_unit_test(one_node_in_a_batch),
		cmocka_unit_test(overlap_of_batches),
		cmocka_unit_test(random_plans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
