/* SPDX-License-Identifier: MIT */
/* Relocation (relocate.h). */
#include "migrate/relocate.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fault/inherit.h"
#include "fault/uffd.h"
#include "migrate/engine.h"
#include "migrate/held.h"
#include "migrate/page.h"
#include "migrate/pagemap.h"
#include "migrate/staging.h"
#include "migrate/stream_copy.h"

#define GRANULE_PAGES (GRANULE_BYTES / PAGE_BYTES)

/* A part of a granule that is out, and where it belongs now. */
struct extent {
	uintptr_t from; /* in a slot */
	uintptr_t home;
	size_t len;
};

/*
 * An open window. The events of all windows are read by whichever copier comes
 * first. Each extent has a page at least, so the table is never full.
 */
struct window {
	uintptr_t start, end; /* 0: not open */
	uint32_t changed;     /* granules that the program did something to */
	bool whole;           /* what is out has gone back in one piece so far */
	size_t count;         /* extents: what is out */
	struct extent extent[GRANULE_PAGES];
};

/* Registered memory that mremap(2) has taken elsewhere. */
#define MAX_STRAYED 64
struct strayed {
	uintptr_t addr;
	size_t len;
};

static struct {
	int home; /* the userfaultfd of homes and slots, with events */
	int pagemap;
	stream_copy_fn *copy;

	pthread_mutex_t gate; /* guards the next five and windows' start and end */
	pthread_cond_t changed;
	unsigned long arrived, admitted; /* who wants to open a window, in order */
	unsigned int open_windows;
	unsigned int held; /* by fork(2) */

	/*
	 * Guards the rest, and reading from home: to be held for writing, but by
	 * a copier that works on what is out of its own window.
	 */
	pthread_rwlock_t events;
	struct window window[MAX_COPIERS];
	size_t strayed_count;
	struct strayed strayed[MAX_STRAYED];
} relocate = {
	.home = -1,
	.pagemap = -1,
	.gate = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
	.events = PTHREAD_RWLOCK_INITIALIZER,
};

bool relocate_is_huge(uintptr_t addr)
{
	return pagemap_is_huge(relocate.pagemap, addr);
}

bool relocate_is_full(uintptr_t granule)
{
	return pagemap_is_full(relocate.pagemap, granule, granule + GRANULE_BYTES);
}

bool relocate_vouched(void)
{
	return held_known();
}

bool relocate_sees_forks(void)
{
	int fd = uffd_open(UFFD_FEATURE_EVENT_FORK);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

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
		struct window *w = &relocate.window[n];

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
	bool all = true;

	for (int n = 0; n < MAX_COPIERS; n++) {
		const struct window *w = &relocate.window[n];

		for (size_t i = 0; i < w->count; i++)
			if (!inherit(child, w->extent[i].home,
				     (const void *)w->extent[i].from, w->extent[i].len))
				all = false;
	}
	inherit_end(child, all);
}

static void note_strayed(uintptr_t addr, size_t len)
{
	if (relocate.strayed_count == MAX_STRAYED)
		return; /* it stays registered until it is unmapped or moved again */
	relocate.strayed[relocate.strayed_count].addr = addr;
	relocate.strayed[relocate.strayed_count++].len = len;
}

/*
 * Reads the events there are. Faults are among them: they are not answered, but
 * end when the granule is back or the window closes.
 */
static void take_events(void)
{
	struct uffd_msg msg;

	pthread_rwlock_wrlock(&relocate.events);
	while (read(relocate.home, &msg, sizeof(msg)) == sizeof(msg)) {
		if (msg.event == UFFD_EVENT_REMOVE || msg.event == UFFD_EVENT_UNMAP) {
			change(msg.arg.remove.start, msg.arg.remove.end, 0);
		} else if (msg.event == UFFD_EVENT_REMAP) {
			uintptr_t from = msg.arg.remap.from;

			change(from, from + msg.arg.remap.len, msg.arg.remap.to);
			note_strayed(msg.arg.remap.to, msg.arg.remap.len);
		} else if (msg.event == UFFD_EVENT_FORK) {
			give_to_child((int)msg.arg.fork.ufd);
		}
	}
	pthread_rwlock_unlock(&relocate.events);
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
		take_events();
	} while (uffd_zero(relocate.home, 1, 1, 0, &done) == -EAGAIN && !sched_yield());
}

/* ---- windows ------------------------------------------------------------- */

/* The kernel refuses a range with something in it that cannot be registered. */
static void unregister(uintptr_t addr, size_t len)
{
	size_t half = len / 2 & ~(PAGE_BYTES - 1);

	if (!uffd_unregister(relocate.home, addr, len) || len <= PAGE_BYTES)
		return;
	unregister(addr, half);
	unregister(addr + half, len - half);
}

static bool overlaps_open(uintptr_t start, uintptr_t end)
{
	for (int n = 0; n < MAX_COPIERS; n++)
		if (relocate.window[n].start < end && relocate.window[n].end > start)
			return true;
	return false;
}

static struct window *closed_window(void)
{
	for (int n = 0; n < MAX_COPIERS; n++)
		if (!relocate.window[n].end)
			return &relocate.window[n];
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

	pthread_mutex_lock(&relocate.gate);
	ticket = relocate.arrived++;
	while (ticket != relocate.admitted || relocate.held ||
	       overlaps_open(start, end) || !(w = closed_window()))
		pthread_cond_wait(&relocate.changed, &relocate.gate);
	relocate.admitted++;
	relocate.open_windows++;
	pthread_cond_broadcast(&relocate.changed); /* for the next */
	pthread_rwlock_wrlock(&relocate.events);
	w->start = start;
	w->end = end;
	w->changed = 0;
	w->count = 0;
	pthread_rwlock_unlock(&relocate.events);
	pthread_mutex_unlock(&relocate.gate);
	return w;
}

/*
 * Memory that has strayed may be out of another window, so the last one sees to
 * it, until nothing is registered and nobody waits.
 */
static void unregister_strayed(void)
{
	do {
		while (relocate.strayed_count) {
			struct strayed *s = &relocate.strayed[--relocate.strayed_count];

			unregister(s->addr, s->len);
		}
		take_last_events();
	} while (relocate.strayed_count);
}

static void window_leave(struct window *w)
{
	pthread_mutex_lock(&relocate.gate);
	if (relocate.open_windows == 1)
		unregister_strayed();
	relocate.open_windows--;
	pthread_rwlock_wrlock(&relocate.events);
	w->start = w->end = 0;
	pthread_rwlock_unlock(&relocate.events);
	pthread_cond_broadcast(&relocate.changed);
	pthread_mutex_unlock(&relocate.gate);
}

void relocate_hold(void)
{
	pthread_mutex_lock(&relocate.gate);
	relocate.held++;
	while (relocate.open_windows)
		pthread_cond_wait(&relocate.changed, &relocate.gate);
	pthread_mutex_unlock(&relocate.gate);
}

void relocate_release(void)
{
	pthread_mutex_lock(&relocate.gate);
	relocate.held--;
	pthread_cond_broadcast(&relocate.changed);
	pthread_mutex_unlock(&relocate.gate);
}

/* ---- out and back -------------------------------------------------------- */

/*
 * Whether a page is there and registered: filling it is refused for just that.
 * -EAGAIN: an event must be read first.
 */
static int check_registered(uintptr_t addr)
{
	size_t done;
	int err = uffd_zero(relocate.home, addr, PAGE_BYTES, 0, &done);

	return err == -EEXIST ? 0 : err ? err : -ENOENT;
}

/*
 * Moves a granule into a slot. Memory that was mapped here after the registering
 * must not be taken, as its users would not wait: with the lock held, events
 * that were read have been heeded, and of those that were not the kernel's
 * refusal tells: -EAGAIN.
 */
static int move_out(struct window *w, uintptr_t home, uintptr_t slot)
{
	uint32_t bit = 1U << (home - w->start) / GRANULE_BYTES;
	size_t done = 0;
	int err = -ECANCELED;

	pthread_rwlock_rdlock(&relocate.events);
	if (!(w->changed & bit))
		err = check_registered(home);
	if (!err)
		err = uffd_move(relocate.home, slot, home, GRANULE_BYTES, 0, &done);
	/* There may be one more than was counted (fault/uffd.h). */
	if (err == -EEXIST && done < GRANULE_BYTES)
		done += PAGE_BYTES;
	w->count = done > 0;
	w->extent[0].from = slot;
	w->extent[0].home = home;
	w->extent[0].len = done;
	pthread_rwlock_unlock(&relocate.events);
	return done ? 0 : err;
}

/*
 * Takes a granule out into a slot. false: it is not to be moved, or not out, or
 * not in one piece.
 */
static bool take_out(struct window *w, uintptr_t home, uintptr_t slot)
{
	int err;

	while ((err = move_out(w, home, slot)) == -EAGAIN) {
		take_events();
		sched_yield();
	}
	/* What small pages leave behind is a page table. */
	w->whole = err || relocate_is_huge(slot);
	return !err && w->whole && !held(slot);
}

/* From now on it is the copy that goes back. */
static void exchange(struct window *w, uintptr_t original, uintptr_t copy)
{
	pthread_rwlock_rdlock(&relocate.events);
	for (size_t i = 0; i < w->count; i++)
		w->extent[i].from += copy - original;
	pthread_rwlock_unlock(&relocate.events);
}

/*
 * One page, where they do not go back together. 0: it is there, or nothing is
 * any more that it could be put into; else to be tried again.
 */
static int settle_page(const struct extent *e)
{
	size_t done;
	int err = uffd_move(relocate.home, e->home, e->from, PAGE_BYTES,
			    UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES, &done);

	/* Memory that is read-only or locked takes copies only. */
	if (err == -EINVAL || err == -EBUSY)
		err = uffd_copy(relocate.home, e->home, (void *)e->from, PAGE_BYTES, 0,
				&done);
	return err == -EAGAIN || err == -ENOMEM || err == -EBUSY ? err : 0;
}

/* Puts an extent back as far as the kernel takes it now. Whether that is all. */
static bool settle(struct window *w, struct extent *e)
{
	size_t done;
	int err = uffd_move(relocate.home, e->home, e->from, e->len, 0, &done);

	if (err)
		w->whole = false;
	if (err && err != -EAGAIN && !done)
		done = settle_page(e) ? 0 : PAGE_BYTES;
	e->home += done;
	e->from += done;
	e->len -= done;
	return !e->len;
}

/* Whatever happens, this ends only when all that is out is back, or unwanted. */
static void put_back(struct window *w)
{
	for (;;) {
		size_t left;

		pthread_rwlock_rdlock(&relocate.events);
		while (w->count && settle(w, &w->extent[w->count - 1]))
			w->count--;
		left = w->count;
		pthread_rwlock_unlock(&relocate.events);
		if (!left)
			return;
		take_events();
		sched_yield();
	}
}

/*
 * Relocates one granule of an open window. false: it is where it was, or what
 * the program has made of it meanwhile.
 */
static bool relocate_granule(struct window *w, uintptr_t home, int from, int node)
{
	struct slot *copy = staging_filled(node), *original, *emptied;
	bool out;

	if (!copy)
		return false;
	original = staging_empty();
	if (!original) {
		staging_put(copy);
		return false;
	}
	out = take_out(w, home, original->addr);
	if (out) {
		relocate.copy((void *)copy->addr, (const void *)original->addr,
			      GRANULE_BYTES);
		exchange(w, original->addr, copy->addr);
	}
	put_back(w);

	emptied = out ? copy : original;
	emptied->node = SLOT_EMPTY;
	if (w->whole)
		staging_put(emptied);
	else
		staging_put_spoiled(emptied);
	if (out)
		original->node = from;
	staging_put(out ? original : copy);
	return out;
}

uint32_t relocate_window(uintptr_t addr, size_t n, const int16_t *from, int node)
{
	uintptr_t end = addr + n * GRANULE_BYTES;
	struct window *w = window_enter(addr, end);
	uint32_t there = 0;

	/* Refused: another userfaultfd has it, or it is other memory now. */
	if (!uffd_register(relocate.home, addr, end - addr)) {
		for (size_t i = 0; i < n; i++)
			if (relocate_granule(w, addr + i * GRANULE_BYTES, from[i], node))
				there |= 1U << i;
		unregister(addr, end - addr);
		take_last_events();
	}
	window_leave(w);
	return there;
}

/* ---- opening ------------------------------------------------------------- */

static void close_all(void)
{
	if (relocate.home >= 0)
		close(relocate.home);
	if (relocate.pagemap >= 0)
		close(relocate.pagemap);
	relocate.home = relocate.pagemap = -1;
	held_close();
}

void relocate_forget(void)
{
	close_all();
	staging_forget();
	pthread_mutex_init(&relocate.gate, NULL);
	pthread_rwlock_init(&relocate.events, NULL);
	pthread_cond_init(&relocate.changed, NULL);
	relocate.open_windows = relocate.held = 0;
	relocate.arrived = relocate.admitted = 0; /* those who wait are not here */
	relocate.strayed_count = 0;
	for (int n = 0; n < MAX_COPIERS; n++)
		relocate.window[n].start = relocate.window[n].end = 0;
}

/*
 * Moves a granule to the node that it is on: shows that all works here, and
 * binds the functions that a window calls.
 */
static int try_it(void)
{
	struct slot *slot;
	char *mem = mmap(NULL, 2 * GRANULE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t home = granule_end((uintptr_t)mem - 1);
	volatile char *first = (char *)home;
	int16_t node = -1;
	int err = -ENOMEM;

	if (mem == MAP_FAILED)
		return -errno;
	madvise(mem, 2 * GRANULE_BYTES, MADV_HUGEPAGE);
	*first = 1;
	engine_syscall.query(home, PAGE_BYTES, &node);
	if (relocate_is_huge(home) && node >= 0) {
		/* A second time there is a page to be taken again. */
		for (int i = 0; i < 2; i++)
			err = relocate_window(home, 1, &node, node) ? 0 : -EOPNOTSUPP;
		if (*first != 1)
			err = -EIO;
		slot = staging_empty();
		if (slot)
			staging_put_spoiled(slot);
	}
	munmap(mem, 2 * GRANULE_BYTES);
	staging_trim();
	return err;
}

static int open_all(const char **why)
{
	const uint64_t features = UFFD_FEATURE_MOVE | UFFD_FEATURE_EVENT_REMOVE |
				  UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP;
	int err;

	relocate.home = uffd_open(features | UFFD_FEATURE_EVENT_FORK);
	if (relocate.home == -EPERM)
		relocate.home = uffd_open(features);
	if (relocate.home < 0) {
		*why = uffd_why(relocate.home);
		return relocate.home;
	}
	relocate.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (relocate.pagemap < 0) {
		*why = "/proc/self/pagemap: cannot be opened";
		return -errno;
	}
	*why = "userfaultfd: no staging area can be made";
	err = staging_open(relocate.home);
	if (err)
		return err;
	relocate.copy = stream_copy_best()->copy;
	held_open();
	err = try_it();
	if (err == -ENOMEM)
		*why = "transparent huge pages: none to be had";
	else if (err)
		*why = "userfaultfd: moving a huge page does not work";
	if (err)
		staging_close();
	return err;
}

int relocate_open(const char **why)
{
	int err = open_all(why);

	if (err)
		close_all();
	return err;
}
