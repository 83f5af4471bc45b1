/* SPDX-License-Identifier: MIT */
/* Relocation (relocate.h). */
#include "migrate/relocate.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fault/uffd.h"
#include "migrate/collapse.h"
#include "migrate/engine.h"
#include "migrate/held.h"
#include "migrate/helper.h"
#include "migrate/page.h"
#include "migrate/pagemap.h"
#include "migrate/staging.h"
#include "migrate/stream_copy.h"
#include "migrate/window.h"
#include "os/thread.h"

static struct {
	int home; /* the userfaultfd of homes and slots, with events */
	int pagemap;
	stream_copy_fn *copy;
	/* Whether small pages can become a huge one; under the lock until it is known. */
	enum { UNKNOWN, NO, YES } small;
	pthread_mutex_t lock;

	/* Of the last granules of small pages: taking out and copying. */
	atomic_uint_fast64_t out_ns, copy_ns;
	atomic_uint passed_over; /* granules, for that it takes too long */
} relocate = {.home = -1, .pagemap = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

/*
 * Before Linux 6.18 UFFDIO_MOVE flushes the TLBs for each small page, and all CPUs that
 * the program runs on have to answer. Where that takes more than so many copies, to have
 * the kernel make a huge page first takes less; but now and then it is tried again.
 */
#define OUT_COPIES  2
#define TRIED_AGAIN 256

/* Granules of a run, which lie together, and how they are moved. */
struct run {
	uintptr_t start;
	size_t n;
	const int16_t *from; /* a huge page each, of these nodes; NULL: small pages */
	int node;
	struct helper *helper; /* for small pages */
};

/* A copy is made in so many parts where there may be events to read in between. */
#define COPY_PARTS 16

/*
 * A huge page is moved faster than this, and 512 small ones are not. Asking the kernel
 * which it was takes 1 % of the time of a copy.
 */
#define HUGE_MOVE_NS 8000

bool relocate_is_huge(uintptr_t addr)
{
	return pagemap_is_huge(relocate.pagemap, addr);
}

bool relocate_is_full(uintptr_t granule)
{
	return pagemap_is_full(relocate.pagemap, granule, granule + GRANULE_BYTES);
}

/* Adds to an average of some granules. Two threads at once may lose one of them. */
static void average(atomic_uint_fast64_t *sum, uint64_t ns)
{
	*sum = *sum - *sum / 8 + ns;
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
 * refusal tells: -EAGAIN. 0: something is out; *@all: the whole granule is.
 */
static int move_out(struct window *w, uintptr_t home, uintptr_t slot, bool *all)
{
	uint32_t bit = 1U << (home - w->start) / GRANULE_BYTES;
	size_t done = 0;
	int err = -ECANCELED;

	window_lock();
	if (!(w->changed & bit))
		err = w->one ? 0 : check_registered(home);
	if (!err)
		err = uffd_move(relocate.home, slot, home, GRANULE_BYTES, 0, &done);
	*all = done == GRANULE_BYTES;
	done = uffd_moved_most(err, done, GRANULE_BYTES);
	w->count = done > 0;
	w->extent[0].from = slot;
	w->extent[0].home = home;
	w->extent[0].len = done;
	window_unlock();
	return done ? 0 : err;
}

/*
 * Takes a granule out into a slot. false: it is not to be moved, or not out, or
 * not in one piece.
 */
static bool take_out(struct window *w, uintptr_t home, uintptr_t slot)
{
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	bool all, quick;
	int err;

	while ((err = move_out(w, home, slot, &all)) == -EAGAIN) {
		windows_take_events();
		sched_yield();
	}
	quick = all && clock_ns(CLOCK_MONOTONIC) - began < HUGE_MOVE_NS;
	/* What small pages leave behind is a page table. */
	w->whole = err || quick || relocate_is_huge(slot);
	return !err && w->whole && !held(slot, PAGE_BYTES);
}

/* The same of a granule of small pages: false also if not all of it is out. */
static bool take_out_small(struct window *w, uintptr_t home, uintptr_t slot)
{
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	int err;

	while ((err = move_out(w, home, slot, &w->whole)) == -EAGAIN) {
		windows_take_events();
		sched_yield();
	}
	if (!err && w->whole)
		average(&relocate.out_ns, clock_ns(CLOCK_MONOTONIC) - began);
	return !err && w->whole && !held(slot, GRANULE_BYTES);
}

/* From now on it is the copy that goes back. */
static void exchange(struct window *w, uintptr_t original, uintptr_t copy)
{
	window_lock();
	for (size_t i = 0; i < w->count; i++)
		w->extent[i].from += copy - original;
	window_unlock();
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
	/* Of what is not in one piece, a part may never have been out. */
	uint64_t mode = w->whole ? 0 : UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES;
	size_t done;
	int err = uffd_move(relocate.home, e->home, e->from, e->len, mode, &done);

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

		window_lock();
		while (w->count && settle(w, &w->extent[w->count - 1]))
			w->count--;
		left = w->count;
		window_unlock();
		if (!left)
			return;
		windows_take_events();
		sched_yield();
	}
}

/* A page of @node for a copy, and a slot for the original. false: there is none now. */
static bool get_slots(int node, struct slot **copy, struct slot **original)
{
	*copy = staging_filled(node);
	if (!*copy)
		return false;
	*original = staging_empty();
	if (!*original)
		staging_put(*copy);
	return *original;
}

/*
 * Relocates one granule of an open window. false: it is where it was, or what
 * the program has made of it meanwhile.
 */
static bool relocate_huge(struct window *w, uintptr_t home, int from, int node)
{
	struct slot *copy, *original, *emptied;
	bool out;

	if (!get_slots(node, &copy, &original))
		return false;
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

/* ---- small pages --------------------------------------------------------- */

/*
 * Copies a granule while the helper takes away the page table, which waits for its event
 * to be read. Whether it could: else it is in the copy's way.
 */
static bool copy_and_take(struct helper *helper, uintptr_t to, uintptr_t from)
{
	const size_t part = GRANULE_BYTES / COPY_PARTS;
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	int err;

	for (size_t at = 0; at < GRANULE_BYTES; at += part) {
		relocate.copy((void *)(to + at), (const void *)(from + at), part);
		windows_take_events();
	}
	average(&relocate.copy_ns, clock_ns(CLOCK_MONOTONIC) - began);
	while (!helper_has_table(helper, &err)) {
		windows_take_events();
		sched_yield();
	}
	return !err;
}

/*
 * The same of a granule of small pages: a huge page takes their place. There is to be one
 * for the granule after the next if there is @more than that.
 */
static bool relocate_small(struct window *w, uintptr_t home, const struct run *run,
			   bool more)
{
	struct slot *copy, *original;
	bool out;

	if (!get_slots(run->node, &copy, &original))
		return false;
	out = take_out_small(w, home, original->addr);
	if (out) {
		helper_take_table(run->helper, home);
		out = copy_and_take(run->helper, copy->addr, original->addr);
	}
	if (out)
		exchange(w, original->addr, copy->addr);
	put_back(w);

	helper_give_pages(run->helper, original, more ? run->node : SLOT_EMPTY);
	if (out)
		copy->node = SLOT_EMPTY;
	/* Where the page table has stayed, the copy has been split and left its own. */
	if (!out || (w->whole && relocate_is_huge(home)))
		staging_put(copy);
	else
		staging_put_spoiled(copy);
	return out;
}

/* ---- runs ---------------------------------------------------------------- */

static bool relocate_granule(struct window *w, const struct run *run, size_t i)
{
	uintptr_t home = run->start + i * GRANULE_BYTES;

	return run->from ? relocate_huge(w, home, run->from[i], run->node)
			 : relocate_small(w, home, run, i + 2 < run->n);
}

static uint32_t relocate_all(const struct run *run)
{
	const uintptr_t end = run->start + run->n * GRANULE_BYTES;
	uint32_t there = 0;
	size_t i = 0;

	while (i < run->n) {
		struct window *w = window_open(run->start + i * GRANULE_BYTES, end);

		if (!w)
			break;
		do {
			if (relocate_granule(w, run, i))
				there |= 1U << i;
		} while (++i < run->n && !windows_held());
		window_close(w);
	}
	return there;
}

uint32_t relocate_run(uintptr_t addr, size_t n, const int16_t *from, int node)
{
	struct run run = {.start = addr, .n = n, .from = from, .node = node};
	uint32_t there;

	if (from)
		return relocate_all(&run);
	run.helper = helper_get();
	if (!run.helper)
		return 0;
	there = relocate_all(&run);
	helper_give_back(run.helper);
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
	relocate.small = UNKNOWN;
	windows_init(-1);
	held_close();
}

void relocate_forget(void)
{
	close_all();
	pthread_mutex_init(&relocate.lock, NULL);
	staging_forget();
	helper_forget();
}

/*
 * Moves a granule to the node that it is on, if huge pages map it or not as given: shows
 * that it works here, and binds the functions that a window calls.
 */
static int try_granule(uintptr_t home, bool small)
{
	volatile char *first = (char *)home;
	int16_t node = -1;
	int err = -EOPNOTSUPP;

	madvise((void *)home, GRANULE_BYTES, small ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	for (size_t at = 0; at < (small ? GRANULE_BYTES : PAGE_BYTES); at += PAGE_BYTES)
		first[at] = 1;
	madvise((void *)home, GRANULE_BYTES, MADV_HUGEPAGE);
	engine_syscall.query(home, PAGE_BYTES, &node);
	if (relocate_is_huge(home) == small || node < 0 ||
	    (small && !collapse_advised(home)))
		return -ENOMEM;
	/* A second time there is a page to be taken again. */
	for (int i = 0; i < (small ? 1 : 2); i++)
		err = relocate_run(home, 1, small ? NULL : &node, node) ? 0 : -EOPNOTSUPP;
	if (*first != 1)
		return -EIO;
	return err || relocate_is_huge(home) ? err : -EOPNOTSUPP;
}

static int try_it(bool small)
{
	char *mem = mmap(NULL, 2 * GRANULE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct slot *slot;
	int err;

	if (mem == MAP_FAILED)
		return -errno;
	err = try_granule(granule_end((uintptr_t)mem - 1), small);
	slot = staging_empty();
	if (slot)
		staging_put_spoiled(slot);
	munmap(mem, 2 * GRANULE_BYTES);
	staging_trim();
	return err;
}

bool relocate_can_small(void)
{
	bool can;

	pthread_mutex_lock(&relocate.lock);
	if (relocate.small == UNKNOWN) {
		relocate.small = try_it(true) ? NO : YES;
		relocate.out_ns = relocate.copy_ns = 0; /* the first time takes longer */
	}
	can = relocate.small == YES;
	pthread_mutex_unlock(&relocate.lock);
	return can;
}

bool relocate_takes_small(void)
{
	if (!relocate_can_small())
		return false;
	return relocate.out_ns <= OUT_COPIES * relocate.copy_ns ||
	       atomic_fetch_add(&relocate.passed_over, 1) % TRIED_AGAIN == 0;
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
	*why = "/proc/self/maps: cannot be opened";
	err = windows_init(relocate.home);
	if (err)
		return err;
	*why = "no address space for page tables";
	err = helper_open(relocate.home);
	if (err)
		return err;
	*why = "userfaultfd: no staging area can be made";
	err = staging_open(relocate.home);
	if (err)
		return err;
	relocate.copy = stream_copy_best()->copy;
	held_open();
	err = try_it(false);
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
