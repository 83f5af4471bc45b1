/* SPDX-License-Identifier: MIT */
/* Windows of relocation (window.h). */
#include "migrate/window.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "fault/inherit.h"
#include "fault/uffd.h"
#include "migrate/helper.h"
#include "migrate/mapping.h"

/* Registered memory that mremap(2) has taken elsewhere. */
#define MAX_STRAYED 64
struct strayed {
	uintptr_t addr;
	size_t len;
};

static struct {
	int uffd;
	int maps; /* /proc/self/maps */

	pthread_mutex_t gate; /* guards the next five and windows' start and end */
	pthread_cond_t changed;
	unsigned long arrived, admitted; /* who wants to open a window, in order */
	unsigned int open_windows;
	unsigned int held; /* by fork(2) */

	/*
	 * Guards the rest, and reading from the userfaultfd: to be held for writing, but
	 * by a copier that works on what is out of its own window.
	 */
	pthread_rwlock_t events;
	struct window window[MAX_COPIERS];
	size_t strayed_count;
	struct strayed strayed[MAX_STRAYED];
} all = {
	.uffd = -1,
	.maps = -1,
	.gate = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
	.events = PTHREAD_RWLOCK_INITIALIZER,
};

/* ---- events -------------------------------------------------------------- */

/* Makes @addr a boundary of extents. */
static void cut_at(struct window *w, uintptr_t addr)
{
	for (size_t i = 0; i < w->count; i++) {
		struct extent *e = &w->extent[i], *rest = &w->extent[w->count];

		if (addr <= e->home || addr >= e->home + e->len)
			continue;
		rest->from = e->from + (addr - e->home);
		rest->home = addr;
		rest->len = e->home + e->len - addr;
		e->len = addr - e->home;
		w->count++;
		return;
	}
}

static void drop_extent(struct window *w, size_t i)
{
	struct extent *e = &w->extent[i], *last = &w->extent[--w->count];

	e->from = last->from;
	e->home = last->home;
	e->len = last->len;
}

/* Granules of a window with something in [start, end) are not to be taken out. */
static void note_change(struct window *w, uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = w->start; at < w->end; at += GRANULE_BYTES)
		if (at < end && at + GRANULE_BYTES > start)
			w->changed |= 1U << (at - w->start) / GRANULE_BYTES;
}

/*
 * What is out of [start, end) is not wanted any more (@to is 0), or wanted at
 * @to.
 */
static void change(uintptr_t start, uintptr_t end, uintptr_t to)
{
	for (int n = 0; n < MAX_COPIERS; n++) {
		struct window *w = &all.window[n];

		note_change(w, start, end);
		cut_at(w, start);
		cut_at(w, end);
		for (size_t i = w->count; i-- > 0;) {
			struct extent *e = &w->extent[i];

			if (e->home < start || e->home >= end)
				continue;
			w->whole = false;
			if (to)
				e->home += to - start;
			else
				drop_extent(w, i);
		}
	}
}

/* What is out was so when the child got its memory: no command succeeds in between. */
static void give_to_child(int child)
{
	bool given = true;

	for (int n = 0; n < MAX_COPIERS; n++) {
		const struct window *w = &all.window[n];

		for (size_t i = 0; i < w->count; i++)
			if (!inherit(child, w->extent[i].home,
				     (const void *)w->extent[i].from, w->extent[i].len))
				given = false;
	}
	inherit_end(child, given);
}

static void note_strayed(uintptr_t addr, size_t len)
{
	if (all.strayed_count == MAX_STRAYED)
		return; /* it stays registered until it is unmapped or moved again */
	all.strayed[all.strayed_count].addr = addr;
	all.strayed[all.strayed_count++].len = len;
}

/*
 * Reads the events there are. Faults are among them: they are not answered, but
 * end when the granule is back or the window closes.
 */
void windows_take_events(void)
{
	struct uffd_msg msg;

	pthread_rwlock_wrlock(&all.events);
	while (read(all.uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		if (msg.event == UFFD_EVENT_REMOVE || msg.event == UFFD_EVENT_UNMAP) {
			change(msg.arg.remove.start, msg.arg.remove.end, 0);
		} else if (msg.event == UFFD_EVENT_REMAP) {
			uintptr_t from = msg.arg.remap.from;

			/* An empty page table: nothing that anybody wants. */
			if (helper_owns(msg.arg.remap.to))
				continue;
			change(from, from + msg.arg.remap.len, msg.arg.remap.to);
			note_strayed(msg.arg.remap.to, msg.arg.remap.len);
		} else if (msg.event == UFFD_EVENT_FORK) {
			give_to_child((int)msg.arg.fork.ufd);
		}
	}
	pthread_rwlock_unlock(&all.events);
}

/*
 * Who waits for an event to be read need not have written it yet; but as long as
 * it is not read, commands are refused with EAGAIN, before their arguments are
 * looked at.
 */
static void take_last_events(void)
{
	size_t done;

	do {
		windows_take_events();
	} while (uffd_zero(all.uffd, 1, 1, 0, &done) == -EAGAIN && !sched_yield());
}

/* ---- windows ------------------------------------------------------------- */

/* The kernel refuses a range with something in it that cannot be registered. */
static void unregister(uintptr_t addr, size_t len)
{
	size_t half = len / 2 & ~(PAGE_BYTES - 1);

	if (!uffd_unregister(all.uffd, addr, len) || len <= PAGE_BYTES)
		return;
	unregister(addr, half);
	unregister(addr + half, len - half);
}

static bool overlaps_open(uintptr_t start, uintptr_t end)
{
	for (int n = 0; n < MAX_COPIERS; n++)
		if (all.window[n].start < end && all.window[n].end > start)
			return true;
	return false;
}

static struct window *closed_window(void)
{
	for (int n = 0; n < MAX_COPIERS; n++)
		if (!all.window[n].end)
			return &all.window[n];
	return NULL;
}

/*
 * Two windows of the same memory would unregister it under each other. Who comes
 * first goes first: one that opens window after window would starve others.
 */
static struct window *window_enter(uintptr_t start, uintptr_t end)
{
	struct window *w;
	unsigned long ticket;

	pthread_mutex_lock(&all.gate);
	ticket = all.arrived++;
	while (ticket != all.admitted || all.held || overlaps_open(start, end) ||
	       !(w = closed_window()))
		pthread_cond_wait(&all.changed, &all.gate);
	all.admitted++;
	all.open_windows++;
	pthread_cond_broadcast(&all.changed); /* for the next */
	pthread_rwlock_wrlock(&all.events);
	w->start = start;
	w->end = end;
	w->changed = 0;
	w->count = 0;
	pthread_rwlock_unlock(&all.events);
	pthread_mutex_unlock(&all.gate);
	return w;
}

/*
 * Memory that has strayed may be out of another window, so the last one sees to
 * it, until nothing is registered and nobody waits.
 */
static void unregister_strayed(void)
{
	do {
		while (all.strayed_count) {
			struct strayed *s = &all.strayed[--all.strayed_count];

			unregister(s->addr, s->len);
		}
		take_last_events();
	} while (all.strayed_count);
}

static void window_leave(struct window *w)
{
	pthread_mutex_lock(&all.gate);
	if (all.open_windows == 1)
		unregister_strayed();
	all.open_windows--;
	pthread_rwlock_wrlock(&all.events);
	w->start = w->end = 0;
	pthread_rwlock_unlock(&all.events);
	pthread_cond_broadcast(&all.changed);
	pthread_mutex_unlock(&all.gate);
}

struct window *window_open(uintptr_t start, uintptr_t end)
{
	struct window *w = window_enter(start, end);

	/* Refused: another userfaultfd has it, or it is other memory now. */
	if (uffd_register(all.uffd, start, end - start)) {
		window_leave(w);
		return NULL;
	}
	/* What is mapped there later is an event, but in a gap. */
	w->one = mapping_covers(all.maps, start, end);
	return w;
}

void window_close(struct window *w)
{
	unregister(w->start, w->end - w->start);
	take_last_events();
	window_leave(w);
}

/* ---- holding back -------------------------------------------------------- */

void windows_hold(void)
{
	pthread_mutex_lock(&all.gate);
	all.held++;
	while (all.open_windows)
		pthread_cond_wait(&all.changed, &all.gate);
	pthread_mutex_unlock(&all.gate);
}

void windows_release(void)
{
	pthread_mutex_lock(&all.gate);
	all.held--;
	pthread_cond_broadcast(&all.changed);
	pthread_mutex_unlock(&all.gate);
}

bool windows_held(void)
{
	bool held;

	pthread_mutex_lock(&all.gate);
	held = all.held > 0;
	pthread_mutex_unlock(&all.gate);
	return held;
}

void window_lock(void)
{
	pthread_rwlock_rdlock(&all.events);
}

void window_unlock(void)
{
	pthread_rwlock_unlock(&all.events);
}

int windows_init(int uffd)
{
	if (all.maps >= 0)
		close(all.maps);
	all.maps = -1;
	all.uffd = uffd;
	pthread_mutex_init(&all.gate, NULL);
	pthread_rwlock_init(&all.events, NULL);
	pthread_cond_init(&all.changed, NULL);
	all.open_windows = all.held = 0;
	all.arrived = all.admitted = 0; /* those who wait are not in a child */
	all.strayed_count = 0;
	for (int n = 0; n < MAX_COPIERS; n++)
		all.window[n].start = all.window[n].end = 0;
	if (uffd < 0)
		return 0;
	all.maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	return all.maps < 0 ? -errno : 0;
}
