// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copying the pages of a run by several CPUs: by the one that carries out the
 * batch and by workers of the module.
 *
 * The pages are cut into slices, and whoever is free takes the next one. The
 * requester takes slices like the workers, until none is left, and then calls
 * the workers back: one that has not begun never will, and for one that has
 * begun there is only its slice to wait for. So the requester depends on no
 * worker: with all of them held up elsewhere it copies everything by itself.
 *
 * At most `workers` of them are engaged in all requests together. They are
 * kernel threads of an unbound workqueue, which the administrator can bind to
 * CPUs in /sys/devices/virtual/workqueue/ferry_copy. They belong to no cgroup,
 * so there are none unless the administrator lets the module have some.
 *
 * Locking: a slice belongs to whoever got it from @next. Workers take no lock.
 */
#include <linux/atomic.h>
#include <linux/cpumask.h>
#include <linux/minmax.h>
#include <linux/moduleparam.h>
#include <linux/workqueue.h>

#include "ferry.h"

/* Short enough that waiting for one is nothing beside a page fault or two */
#define SLICE_PAGES 16

static struct ferry_param workers = {
	.value = 0, .min = 0, .max = FERRY_MAX_WORKERS,
};

module_param_cb(workers, &ferry_param_ops, &workers, 0644);
__MODULE_PARM_TYPE(workers, "uint");
MODULE_PARM_DESC(workers,
		 "Threads that may copy beside the requester, in all requests together");

static struct workqueue_struct *queue;
/* Workers that are engaged; not above the parameter */
static atomic_t engaged = ATOMIC_INIT(0);

/**
 * ferry_parallel_supported() - may there be workers?
 *
 * Return: true if so.
 */
bool ferry_parallel_supported(void)
{
	return ferry_param(&workers) > 0;
}

static void copy_slices(struct ferry_copy *copy)
{
	unsigned int first;

	while ((first = atomic_fetch_add(SLICE_PAGES, &copy->next)) < copy->nr)
		ferry_copy_pages(copy, first,
				 min(first + SLICE_PAGES, copy->nr));
}

static void help(struct work_struct *work)
{
	copy_slices(container_of(work, struct ferry_worker, work)->copy);
}

/* Engage at most @nr workers. Returns how many. */
static unsigned int engage(unsigned int nr)
{
	int limit = ferry_param(&workers), old = atomic_read(&engaged), want;

	do {
		want = min_t(int, nr, limit - old);
		if (want <= 0)
			return 0;
	} while (!atomic_try_cmpxchg(&engaged, &old, old + want));
	return want;
}

/**
 * ferry_parallel_copy() - copy all pages together with workers
 * @copy: the pages
 */
void ferry_parallel_copy(struct ferry_copy *copy)
{
	const unsigned int slices = DIV_ROUND_UP(copy->nr, SLICE_PAGES);
	const unsigned int others = min(slices, num_online_cpus()) - 1;
	const unsigned int nr = slices ? engage(others) : 0;
	unsigned int i;

	atomic_set(&copy->next, 0);
	for (i = 0; i < nr; i++) {
		copy->worker[i].copy = copy;
		INIT_WORK(&copy->worker[i].work, help);
		queue_work(queue, &copy->worker[i].work);
	}
	copy_slices(copy);
	for (i = 0; i < nr; i++)
		cancel_work_sync(&copy->worker[i].work);
	atomic_sub(nr, &engaged);
}

/**
 * ferry_parallel_queue() - have a worker do something else
 * @work: what; any context
 */
void ferry_parallel_queue(struct work_struct *work)
{
	queue_work(queue, work);
}

/**
 * ferry_parallel_start() - the module is loaded
 *
 * Return: 0 or -ENOMEM.
 */
int ferry_parallel_start(void)
{
	queue = alloc_workqueue("ferry_copy", WQ_UNBOUND | WQ_SYSFS,
				FERRY_MAX_WORKERS);
	return queue ? 0 : -ENOMEM;
}

/**
 * ferry_parallel_stop() - the module is unloaded; there is no request
 */
void ferry_parallel_stop(void)
{
	destroy_workqueue(queue);
}
