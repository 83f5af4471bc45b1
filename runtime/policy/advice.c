/* SPDX-License-Identifier: MIT */
/* The record of advice: see advice.h, which also has the locking rule. */
#include "policy/advice.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "heap/range_set.h"

#define ADVICES (FERRY_ADVICE_PIN_HBM + 1)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range_set advised[ADVICES]; /* disjoint; none of FERRY_ADVICE_NONE */

/*
 * Written under the lock, read without it. All advice lies within the bounds,
 * which only grow, so that who frees other memory need not lock.
 */
static atomic_uint changes;
static atomic_uintptr_t lowest = UINTPTR_MAX, highest;

/* Within the lock. Room for two changes of each set must be there. */
static void remove_all(uintptr_t start, uintptr_t end)
{
	for (int advice = FERRY_ADVICE_NONE + 1; advice < ADVICES; advice++)
		range_set_remove(&advised[advice], start, end, NULL);
}

static int reserve(void)
{
	int err = 0;

	for (int advice = FERRY_ADVICE_NONE + 1; advice < ADVICES && !err; advice++)
		err = range_set_reserve(&advised[advice], 2);
	return err;
}

int advice_set(uintptr_t start, uintptr_t end, enum ferry_advice advice)
{
	int err;

	pthread_mutex_lock(&lock);
	err = reserve();
	if (!err) {
		remove_all(start, end);
		if (advice != FERRY_ADVICE_NONE)
			range_set_add(&advised[advice], start, end);
		if (start < atomic_load_explicit(&lowest, memory_order_relaxed))
			atomic_store_explicit(&lowest, start, memory_order_relaxed);
		if (end > atomic_load_explicit(&highest, memory_order_relaxed))
			atomic_store_explicit(&highest, end, memory_order_relaxed);
		atomic_fetch_add_explicit(&changes, 1, memory_order_release);
	}
	pthread_mutex_unlock(&lock);
	return err;
}

void advice_forget(uintptr_t start, uintptr_t end)
{
	if (start >= atomic_load_explicit(&highest, memory_order_relaxed) ||
	    end <= atomic_load_explicit(&lowest, memory_order_relaxed))
		return;
	pthread_mutex_lock(&lock);
	for (int advice = FERRY_ADVICE_NONE + 1; advice < ADVICES; advice++) {
		size_t removed = 0;

		/* On the rare -ENOMEM it stays, as a hint that is wrong. */
		range_set_remove(&advised[advice], start, end, &removed);
		if (removed)
			atomic_fetch_add_explicit(&changes, 1, memory_order_release);
	}
	pthread_mutex_unlock(&lock);
}

unsigned int advice_changes(void)
{
	return atomic_load_explicit(&changes, memory_order_acquire);
}

size_t advice_list(struct advised *out, size_t max)
{
	size_t next[ADVICES] = {0}, n = 0;

	pthread_mutex_lock(&lock);
	for (;; n++) {
		int first = FERRY_ADVICE_NONE;

		for (int advice = FERRY_ADVICE_NONE + 1; advice < ADVICES; advice++)
			if (next[advice] < advised[advice].count &&
			    (first == FERRY_ADVICE_NONE ||
			     advised[advice].span[next[advice]].start <
				     advised[first].span[next[first]].start))
				first = advice;
		if (first == FERRY_ADVICE_NONE)
			break;
		if (n < max) {
			const struct span *span = &advised[first].span[next[first]];

			out[n] = (struct advised){span->start, span->end,
						  (enum ferry_advice)first};
		}
		next[first]++;
	}
	pthread_mutex_unlock(&lock);
	return n;
}

enum ferry_advice advice_of(const struct advised *list, size_t n, uintptr_t start,
			    uintptr_t end, bool *alike)
{
	size_t low = 0, high = n, most = 0;
	size_t bytes[ADVICES] = {0};
	int found = FERRY_ADVICE_NONE;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (list[middle].end <= start)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < n && list[low].start < end; low++) {
		uintptr_t from = list[low].start > start ? list[low].start : start;
		uintptr_t to = list[low].end < end ? list[low].end : end;

		bytes[list[low].advice] += to - from;
	}
	for (int advice = FERRY_ADVICE_NONE + 1; advice < ADVICES; advice++)
		if (bytes[advice] > most) {
			most = bytes[advice];
			found = advice;
		}
	*alike = most == 0 || most == end - start;
	return (enum ferry_advice)found;
}

void advice_fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

void advice_fork_done(void)
{
	pthread_mutex_unlock(&lock);
}
