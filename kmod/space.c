// SPDX-License-Identifier: GPL-2.0-only
/*
 * What all open devices of one address space share: how many of its batches
 * are being worked on. Those beyond the limit wait for their turn, whether they
 * come by ioctl or in io_uring's workers, so that one process cannot have the
 * machine's memory bandwidth and page vectors for itself by asking often.
 *
 * Locking: @list_lock protects the list and the reference counts; it is taken
 * when a device is opened or released. It may be taken with the lock of the
 * module's parameters held. The number of batches is atomic.
 */
#include <linux/cpumask.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "ferry.h"

static void limit_changed(void);

/*
 * Unless it is set when the module is loaded, as many as there are CPUs: more
 * would not be faster, but take CPUs from the application, whose accesses to
 * pages of a chunk then wait until the mover has one again. And not more than
 * what is enough for a node's bandwidth.
 */
#define LIMIT_BY_ITSELF 16U

static struct ferry_param max_in_flight = {
	.min = 1, .max = 1024, .changed = limit_changed,
};

module_param_cb(max_in_flight, &ferry_param_ops, &max_in_flight, 0644);
__MODULE_PARM_TYPE(max_in_flight, "uint");
MODULE_PARM_DESC(max_in_flight,
		 "Batches of one process that are worked on at a time; more wait");

/**
 * struct ferry_space - an address space that has the device open
 * @list: entry in the list of all
 * @mm: held by mmgrab() so that the pointer stays unique, and only ever compared
 * @refs: open devices
 * @running: batches that are being worked on
 * @turn: those who wait for their turn
 */
struct ferry_space {
	struct list_head list;
	struct mm_struct *mm;
	unsigned int refs;
	atomic_t running;
	wait_queue_head_t turn;
};

static LIST_HEAD(spaces);
static DEFINE_MUTEX(list_lock);

static void limit_changed(void)
{
	struct ferry_space *space;

	mutex_lock(&list_lock);
	list_for_each_entry(space, &spaces, list)
		wake_up_all(&space->turn);
	mutex_unlock(&list_lock);
}

/**
 * ferry_space_init() - settle the limit that nobody has set
 */
void ferry_space_init(void)
{
	if (!max_in_flight.value)
		max_in_flight.value = min(num_online_cpus(), LIMIT_BY_ITSELF);
}

/**
 * ferry_space_limit() - the most batches of one process at a time
 *
 * Return: the limit.
 */
unsigned int ferry_space_limit(void)
{
	return ferry_param(&max_in_flight);
}

static struct ferry_space *find(const struct mm_struct *mm)
{
	struct ferry_space *space;

	list_for_each_entry(space, &spaces, list)
		if (space->mm == mm)
			return space;
	return NULL;
}

static struct ferry_space *create(struct mm_struct *mm)
{
	struct ferry_space *space = kzalloc(sizeof(*space), GFP_KERNEL_ACCOUNT);

	if (!space)
		return NULL;
	mmgrab(mm);
	space->mm = mm;
	init_waitqueue_head(&space->turn);
	list_add(&space->list, &spaces);
	return space;
}

/**
 * ferry_space_get() - the address space of current
 *
 * Return: it, for ferry_space_put(), or NULL if there is no memory.
 */
struct ferry_space *ferry_space_get(void)
{
	struct ferry_space *space;

	mutex_lock(&list_lock);
	space = find(current->mm);
	if (!space)
		space = create(current->mm);
	if (space)
		space->refs++;
	mutex_unlock(&list_lock);
	return space;
}

/**
 * ferry_space_put() - a device has been released
 * @space: the address space that opened it
 */
void ferry_space_put(struct ferry_space *space)
{
	mutex_lock(&list_lock);
	if (--space->refs) {
		mutex_unlock(&list_lock);
		return;
	}
	list_del(&space->list);
	mutex_unlock(&list_lock);
	mmdrop(space->mm);
	kfree(space);
}

/**
 * ferry_space_is_current() - is it the address space of current?
 * @space: the address space
 *
 * Return: true if so.
 */
bool ferry_space_is_current(const struct ferry_space *space)
{
	return space->mm == current->mm;
}

static bool take_turn(struct ferry_space *space)
{
	int limit = ferry_param(&max_in_flight);
	int old = atomic_read(&space->running);

	do {
		if (old >= limit)
			return false;
	} while (!atomic_try_cmpxchg(&space->running, &old, old + 1));
	return true;
}

/**
 * ferry_space_enter() - a batch begins, as soon as it may
 * @space: the address space of current
 *
 * Return: 0, and ferry_space_leave() is due; -EINTR if a signal came or the
 * request was cancelled; -ERESTARTNOINTR if current has something else to do
 * first and is to ask again.
 */
int ferry_space_enter(struct ferry_space *space)
{
	if (likely(take_turn(space)))
		return 0;
	if (!wait_event_interruptible_exclusive(space->turn, take_turn(space)))
		return 0;
	/* Task work ends the wait of an ioctl, too; see ferry_interrupted(). */
	return ferry_interrupted() ? -EINTR : -ERESTARTNOINTR;
}

/**
 * ferry_space_leave() - a batch has ended
 * @space: its address space
 */
void ferry_space_leave(struct ferry_space *space)
{
	atomic_dec(&space->running);
	if (wq_has_sleeper(&space->turn))
		wake_up(&space->turn);
}
