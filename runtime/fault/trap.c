/* SPDX-License-Identifier: MIT */
/*
 * Traps: see trap.h, which also has the threading rule. No memory but the
 * shadow and static tables; in particular none of the managed heap, where a
 * fault of this thread would wait for itself.
 */
#include "fault/trap.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fault/inherit.h"
#include "fault/uffd.h"
#include "migrate/page.h"
#include "os/thread.h"

/* mremap(2) of a part of a trapped huge page leaves up to three pieces of it. */
#define TRAPS (4 * (TRAPS_SMALL + TRAPS_HUGE))
#define SLOTS (TRAPS_SMALL + TRAPS_HUGE)

/* A run of pages that is out; free while there is no home. */
static struct trap {
	_Atomic uintptr_t home; /* with len, also read by trap_overlaps() */
	_Atomic size_t len;
	uintptr_t shadow;
	uintptr_t registered;  /* where home was when all of it was out, */
	size_t registered_len; /* and its length */
	uint64_t since;
	unsigned int slot;
	bool due; /* to be put back as soon as the kernel takes it */
	bool reported;
} traps[TRAPS];
static atomic_uint traps_end; /* none is in use from here on */

/* A place in the shadow, for a page or for a huge page. */
static struct slot {
	unsigned int users; /* traps that have pages in it */
	bool dirty;         /* to be mapped anew before use */
} slots[SLOTS];

static atomic_uint holds;
static int uffd = -1;
static trap_ended *tell;
static uintptr_t shadow; /* huge pages first, so that they are aligned */

/* One bit for each granule that is never to be trapped, by a hash of it. */
#define BARRED_BITS (1U << 16)
static uint64_t barred[BARRED_BITS / 64];

static unsigned int barred_bit(uintptr_t addr)
{
	uint64_t hash = (uint64_t)(addr / GRANULE_BYTES) * UINT64_C(0x9e3779b97f4a7c15);

	return (unsigned int)(hash >> 48);
}

static bool is_barred(uintptr_t addr)
{
	unsigned int bit = barred_bit(addr);

	return barred[bit / 64] >> bit % 64 & 1;
}

static void bar(uintptr_t start, uintptr_t end)
{
	for (start &= ~(GRANULE_BYTES - 1); start < end; start += GRANULE_BYTES) {
		unsigned int bit = barred_bit(start);

		barred[bit / 64] |= UINT64_C(1) << bit % 64;
	}
}

/* ---- the shadow ---------------------------------------------------------- */

#define SHADOW_SIZE (TRAPS_HUGE * GRANULE_BYTES + TRAPS_SMALL * PAGE_BYTES)

static uintptr_t slot_addr(unsigned int slot)
{
	if (slot < TRAPS_HUGE)
		return shadow + slot * GRANULE_BYTES;
	return shadow + TRAPS_HUGE * GRANULE_BYTES + (slot - TRAPS_HUGE) * PAGE_BYTES;
}

static size_t slot_len(unsigned int slot)
{
	return slot < TRAPS_HUGE ? GRANULE_BYTES : PAGE_BYTES;
}

/*
 * Maps a part of the shadow anew, empty: unregistered while that is done, for
 * the event would be for this thread to read. The page table goes too, which
 * would keep a huge page from being moved in whole. 0 or -errno.
 */
static int renew(uintptr_t addr, size_t len)
{
	uffd_unregister(uffd, addr, len);
	if (mmap((void *)addr, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		return -errno;
	if (madvise((void *)addr, len, MADV_DONTFORK))
		return -errno;
	return uffd_register(uffd, addr, len);
}

int trap_init(int fd, trap_ended *ended)
{
	char *area;
	int err;

	if (sysconf(_SC_PAGESIZE) != PAGE_BYTES)
		return -EOPNOTSUPP;
	area = mmap(NULL, SHADOW_SIZE + GRANULE_BYTES, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		return -errno;
	uffd = fd;
	tell = ended;
	shadow = ((uintptr_t)area + GRANULE_BYTES - 1) & ~(GRANULE_BYTES - 1);
	munmap(area, shadow - (uintptr_t)area);
	munmap((void *)(shadow + SHADOW_SIZE), (uintptr_t)area + GRANULE_BYTES - shadow);
	err = renew(shadow, SHADOW_SIZE);
	if (err)
		munmap((void *)shadow, SHADOW_SIZE);
	return err;
}

void trap_exit(void)
{
	uffd_unregister(uffd, shadow, SHADOW_SIZE);
	munmap((void *)shadow, SHADOW_SIZE);
	for (unsigned int slot = 0; slot < SLOTS; slot++)
		slots[slot] = (struct slot){0};
	uffd = -1;
}

static int take_slot(size_t len)
{
	unsigned int first = len == GRANULE_BYTES ? 0 : TRAPS_HUGE;
	unsigned int end = len == GRANULE_BYTES ? TRAPS_HUGE : SLOTS;

	for (unsigned int slot = first; slot < end; slot++) {
		if (slots[slot].users)
			continue;
		if (slots[slot].dirty && renew(slot_addr(slot), slot_len(slot)))
			continue;
		slots[slot].dirty = false;
		return (int)slot;
	}
	return -ENOSPC;
}

bool trap_shadow_fault(uintptr_t addr)
{
	unsigned int slot = 0;
	size_t done;

	if (addr - shadow >= SHADOW_SIZE)
		return false;
	while (addr - slot_addr(slot) >= slot_len(slot))
		slot++;
	/*
	 * A page of zeros for the reader. Should a hole of a trap be there, it is
	 * one of a page that was dropped, and reads as zeros at home too.
	 */
	slots[slot].dirty = true;
	if (uffd_zero(uffd, addr, PAGE_BYTES, 0, &done))
		uffd_wake(uffd, addr, PAGE_BYTES);
	return true;
}

/* ---- traps --------------------------------------------------------------- */

static struct trap *new_trap(unsigned int slot)
{
	unsigned int end = atomic_load_explicit(&traps_end, memory_order_relaxed);

	for (unsigned int i = 0; i < TRAPS; i++) {
		struct trap *trap = &traps[i];

		if (atomic_load_explicit(&trap->home, memory_order_relaxed))
			continue;
		if (i >= end)
			atomic_store(&traps_end, i + 1);
		trap->slot = slot;
		trap->due = trap->reported = false;
		slots[slot].users++;
		return trap;
	}
	return NULL;
}

/* From here on other threads may see it. */
static void publish(struct trap *trap, uintptr_t home, size_t len)
{
	atomic_store(&trap->len, len);
	atomic_store(&trap->home, home);
	trap->registered = home;
	trap->registered_len = len;
}

static void free_trap(struct trap *trap)
{
	unsigned int end = atomic_load_explicit(&traps_end, memory_order_relaxed);
	struct slot *slot = &slots[trap->slot];

	atomic_store(&trap->home, 0);
	slot->users--;
	if (!slot->users && slot->dirty)
		slot->dirty = renew(slot_addr(trap->slot), slot_len(trap->slot)) != 0;
	while (end && !traps[end - 1].home)
		end--;
	atomic_store(&traps_end, end);
}

/* Lets the home be as it was. What is no longer mapped there needs nothing. */
static void unregister_home(uintptr_t addr, size_t len)
{
	if (!uffd_unregister(uffd, addr, len) || len == PAGE_BYTES)
		return;
	for (size_t at = 0; at < len; at += PAGE_BYTES)
		uffd_unregister(uffd, addr + at, PAGE_BYTES);
}

static void finish(struct trap *trap)
{
	unregister_home(trap->registered, trap->registered_len);
	free_trap(trap);
}

static void advance(struct trap *trap, size_t len)
{
	trap->home += len;
	trap->len -= len;
	trap->shadow += len;
}

/*
 * Puts back by copying what UFFDIO_MOVE does not take. Unregistered meanwhile,
 * since this thread reads the shadow, and it may have holes. false: again later.
 */
static bool copy_back(struct trap *trap)
{
	size_t copied;

	uffd_unregister(uffd, trap->shadow, trap->len);
	slots[trap->slot].dirty = true;
	while (trap->len) {
		int err = uffd_copy(uffd, trap->home, (const void *)trap->shadow,
				    PAGE_BYTES, 0, &copied);

		if (err == -EAGAIN || err == -ENOMEM)
			return false;
		/* else it is there, or has no home any more */
		advance(trap, PAGE_BYTES);
	}
	return true;
}

/* false: again later. */
static bool put_back(struct trap *trap)
{
	size_t moved;
	int err;

	while (trap->len) {
		err = uffd_move(uffd, trap->home, trap->shadow, trap->len,
				UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES, &moved);
		advance(trap, moved);
		if (err == -EAGAIN && !moved) {
			trap->due = true;
			return false;
		}
		if (err && err != -EAGAIN && !copy_back(trap)) {
			trap->due = true;
			return false;
		}
	}
	finish(trap);
	return true;
}

/* Tells of the trap's end, once. */
static void report(struct trap *trap, uint64_t now, bool touched)
{
	if (trap->reported)
		return;
	trap->reported = true;
	tell(trap->registered, trap->registered_len, now - trap->since, touched);
}

int trap_set(uintptr_t addr, size_t len)
{
	struct trap *trap;
	size_t moved = 0;
	int slot, err;

	if (is_barred(addr) || trap_overlaps(addr, addr + len))
		return -EBUSY;
	slot = take_slot(len);
	if (slot < 0)
		return slot;
	trap = new_trap((unsigned int)slot);
	if (!trap)
		return -ENOSPC;
	trap->shadow = slot_addr((unsigned int)slot);
	publish(trap, addr, len);
	/* After it was published: see trap_hold(). */
	err = atomic_load(&holds) ? -EBUSY : uffd_register(uffd, addr, len);
	if (err) {
		free_trap(trap);
		return err;
	}
	err = uffd_move(uffd, trap->shadow, addr, len, 0, &moved);
	if (!err) {
		/* Not before: until now it could not be missed. */
		trap->since = clock_ns(CLOCK_MONOTONIC);
		return 0;
	}
	/* What is not out is passed over; more than was counted may be (uffd.h). */
	slots[slot].dirty |= err == -EEXIST;
	trap->len = uffd_moved_most(err, moved, len);
	trap->reported = true;
	put_back(trap);
	return err;
}

static struct trap *find(uintptr_t addr)
{
	for (unsigned int i = 0; i < traps_end; i++)
		if (addr - traps[i].home < traps[i].len && traps[i].home)
			return &traps[i];
	return NULL;
}

bool trap_fault(uintptr_t addr, uint64_t now)
{
	struct trap *trap = find(addr);

	if (!trap)
		return false;
	report(trap, now, true);
	put_back(trap);
	return true;
}

void trap_expire(uint64_t since, uint64_t now)
{
	for (unsigned int i = 0; i < traps_end; i++) {
		if (!traps[i].home || traps[i].since > since)
			continue;
		report(&traps[i], now, false);
		put_back(&traps[i]);
	}
}

bool trap_retry(void)
{
	bool all = true;

	for (unsigned int i = 0; i < traps_end; i++)
		if (traps[i].home && traps[i].due && !put_back(&traps[i]))
			all = false;
	return all;
}

uint64_t trap_oldest(void)
{
	uint64_t oldest = UINT64_MAX;

	for (unsigned int i = 0; i < traps_end; i++)
		if (traps[i].home && traps[i].since < oldest)
			oldest = traps[i].since;
	return oldest;
}

/* ---- what the program does to homes --------------------------------------- */

/* Cuts a trap in two at @at, which is inside it; returns the second part. */
static struct trap *cut(struct trap *trap, uintptr_t at)
{
	struct trap *rest = new_trap(trap->slot);
	size_t first = at - trap->home;

	/* There are four times as many as slots, and pieces are put back at once. */
	if (!rest)
		abort();
	rest->shadow = trap->shadow + first;
	rest->since = trap->since;
	rest->reported = true;
	publish(rest, at, trap->len - first);
	rest->registered_len = trap->registered + trap->registered_len - at;
	atomic_store(&trap->len, first);
	trap->registered_len = at - trap->registered;
	return rest;
}

/* The trap that is just the part of @trap within [start, end), which overlap. */
static struct trap *cut_out(struct trap *trap, uintptr_t start, uintptr_t end)
{
	if (trap->home < start) {
		trap->due = true;
		trap = cut(trap, start);
	}
	if (trap->home + trap->len > end)
		cut(trap, end)->due = true;
	return trap;
}

static bool overlaps(const struct trap *trap, uintptr_t start, uintptr_t end)
{
	uintptr_t home = atomic_load(&trap->home);

	return home && home < end && home + atomic_load(&trap->len) > start;
}

void trap_removed(uintptr_t start, uintptr_t end)
{
	bar(start, end);
	for (unsigned int i = 0; i < traps_end; i++) {
		if (!overlaps(&traps[i], start, end))
			continue;
		struct trap *trap = cut_out(&traps[i], start, end);

		slots[trap->slot].dirty = true;
		finish(trap);
	}
}

void trap_unmapped(uintptr_t start, uintptr_t end)
{
	for (unsigned int i = 0; i < traps_end; i++) {
		if (!overlaps(&traps[i], start, end))
			continue;
		struct trap *trap = cut_out(&traps[i], start, end);

		slots[trap->slot].dirty = true;
		free_trap(trap);
	}
}

void trap_moved(uintptr_t from, uintptr_t to, size_t len)
{
	/* From the end: pieces that are moved already are not looked at again. */
	for (unsigned int i = traps_end; i-- > 0;) {
		if (!overlaps(&traps[i], from, from + len))
			continue;
		struct trap *trap = cut_out(&traps[i], from, from + len);
		uintptr_t home = trap->home;

		/* With MREMAP_DONTUNMAP it is still there, and registered. */
		unregister_home(trap->registered, trap->registered_len);
		publish(trap, home - from + to, trap->len);
		trap->due = true;
	}
}

void trap_forked(int child)
{
	bool all = true;

	for (unsigned int i = 0; i < traps_end; i++) {
		struct trap *trap = &traps[i];

		if (!trap->home)
			continue;
		slots[trap->slot].dirty = true;
		uffd_unregister(uffd, trap->shadow, trap->len);
		if (!inherit(child, trap->home, (const void *)trap->shadow, trap->len))
			all = false;
	}
	inherit_end(child, all);
}

/* ---- other threads ------------------------------------------------------- */

/* Of a trap being set, either it sees the hold or the holder sees it. */
void trap_hold(void)
{
	atomic_fetch_add(&holds, 1);
}

void trap_let_go(void)
{
	atomic_fetch_sub(&holds, 1);
}

bool trap_overlaps(uintptr_t start, uintptr_t end)
{
	unsigned int count = atomic_load(&traps_end);

	for (unsigned int i = 0; i < count; i++)
		if (overlaps(&traps[i], start, end))
			return true;
	return false;
}

void trap_forget(void)
{
	for (unsigned int i = 0; i < TRAPS; i++)
		traps[i].home = 0;
	for (unsigned int slot = 0; slot < SLOTS; slot++)
		slots[slot] = (struct slot){0};
	traps_end = 0;
	holds = 0;
	uffd = -1;
}
