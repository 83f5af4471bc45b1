/* SPDX-License-Identifier: MIT */
/* Copiers' helpers: see helper.h. The lock guards which there are, and whose. */
#include "migrate/helper.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fault/uffd.h"
#include "migrate/page.h"
#include "migrate/window.h"
#include "os/futex.h"
#include "os/thread.h"

/*
 * Who waits gives way to others for so long, and sleeps then: a copy takes some 100 us,
 * as much as waking from sleep may.
 */
#define YIELD_NS 300000

#define AREA_BYTES (MAX_COPIERS * GRANULE_BYTES)

enum state { IDLE, BEGUN };

struct helper {
	bool has_table; /* a thread for page tables, be it without the other */

	/* Futexes: whose turn it is, of what follows each. */
	_Atomic uint32_t table_state;
	uintptr_t granule;
	int err; /* of taking its page table */

	_Atomic uint32_t pages_state;
	struct slot *slot;
	int node;
};

static struct {
	int uffd;
	uintptr_t area; /* a granule for each, where nothing is mapped; 0: none yet */
	pthread_mutex_t lock;
	pthread_cond_t given_back;
	unsigned int started;
	bool used[MAX_COPIERS];
	struct helper helper[MAX_COPIERS];
} all = {.lock = PTHREAD_MUTEX_INITIALIZER, .given_back = PTHREAD_COND_INITIALIZER};

/* ---- turns --------------------------------------------------------------- */

static void enter(_Atomic uint32_t *turn, enum state state)
{
	atomic_store(turn, state);
	futex_wake(turn);
}

static void wait_for(_Atomic uint32_t *turn, enum state state)
{
	uint64_t end = clock_ns(CLOCK_MONOTONIC) + YIELD_NS;
	uint32_t now;

	while ((now = atomic_load(turn)) != state) {
		if (clock_ns(CLOCK_MONOTONIC) < end)
			sched_yield();
		else
			futex_wait(turn, now, FUTEX_FOREVER);
	}
}

/* ---- page tables --------------------------------------------------------- */

/* Reserves address space, without a page table. 0 or -errno. */
static int reserve(uintptr_t addr, size_t len)
{
	return mmap((void *)addr, len, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		    0) == MAP_FAILED
		       ? -errno
		       : 0;
}

int helper_open(int uffd)
{
	char *mem;

	all.uffd = uffd;
	if (all.area)
		return reserve(all.area, AREA_BYTES);
	mem = mmap(NULL, AREA_BYTES + GRANULE_BYTES, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return -errno;
	all.area = granule_end((uintptr_t)mem - 1);
	return 0;
}

bool helper_owns(uintptr_t addr)
{
	return addr - all.area < AREA_BYTES;
}

static uintptr_t place_of(const struct helper *helper)
{
	return all.area + (size_t)(helper - all.helper) * GRANULE_BYTES;
}

/*
 * 0 or -errno: the page table is where it was. Past the preload library's mremap(), whose
 * lock fork(2) may hold while it waits for windows to close.
 */
static int take_table(const struct helper *helper)
{
	long to = syscall(SYS_mremap, helper->granule, GRANULE_BYTES, GRANULE_BYTES,
			  MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			  place_of(helper));

	return to == -1 ? -errno : 0;
}

/*
 * Gives a page table that was taken back to the kernel. What the program has locked since
 * the granule went out (what was locked before does not go) has left the lock behind
 * with the mapping: only what is not locked can be called cold. (Linux 6.18 then counts
 * it twice in VmLck.)
 */
static void drop_table(const struct helper *helper)
{
	uintptr_t place = place_of(helper);
	bool locked = madvise((void *)place, GRANULE_BYTES, MADV_COLD) && errno == EINVAL;

	uffd_unregister(all.uffd, place, GRANULE_BYTES);
	reserve(place, GRANULE_BYTES);
	/* Does not wait for the granule to be back; what was there is locked as it comes.
	 */
	if (locked)
		mlock2((void *)helper->granule, GRANULE_BYTES, MLOCK_ONFAULT);
}

static void *run_table(void *arg)
{
	struct helper *helper = arg;

	pthread_setname_np(pthread_self(), "ferry-table");
	for (;;) {
		wait_for(&helper->table_state, BEGUN);
		helper->err = take_table(helper);
		if (!helper->err)
			drop_table(helper);
		enter(&helper->table_state, IDLE);
	}
	return NULL;
}

void helper_take_table(struct helper *helper, uintptr_t granule)
{
	helper->granule = granule;
	enter(&helper->table_state, BEGUN);
}

bool helper_has_table(struct helper *helper, int *err)
{
	if (atomic_load(&helper->table_state) == BEGUN)
		return false;
	*err = helper->err;
	return true;
}

/* ---- pages --------------------------------------------------------------- */

static void *run_pages(void *arg)
{
	struct helper *helper = arg;

	pthread_setname_np(pthread_self(), "ferry-pages");
	for (;;) {
		wait_for(&helper->pages_state, BEGUN);
		staging_put_spoiled(helper->slot);
		if (helper->node != SLOT_EMPTY)
			staging_stock(helper->node);
		enter(&helper->pages_state, IDLE);
	}
	return NULL;
}

void helper_give_pages(struct helper *helper, struct slot *slot, int node)
{
	wait_for(&helper->pages_state, IDLE);
	helper->slot = slot;
	helper->node = node;
	enter(&helper->pages_state, BEGUN);
}

/* ---- whose they are ------------------------------------------------------ */

/* What cannot be started now is tried again by the next who wants a helper. */
static bool start(struct helper *helper)
{
	if (!helper->has_table)
		helper->has_table = !thread_start(run_table, helper);
	return helper->has_table && !thread_start(run_pages, helper);
}

/* With the lock: one that is nobody's, or -1. */
static int find(void)
{
	for (unsigned int i = 0; i < all.started; i++)
		if (!all.used[i])
			return (int)i;
	if (all.started == MAX_COPIERS || !start(&all.helper[all.started]))
		return -1;
	return (int)all.started++;
}

struct helper *helper_get(void)
{
	int i;

	pthread_mutex_lock(&all.lock);
	while ((i = find()) < 0 && all.started)
		pthread_cond_wait(&all.given_back, &all.lock);
	if (i >= 0)
		all.used[i] = true;
	pthread_mutex_unlock(&all.lock);
	return i < 0 ? NULL : &all.helper[i];
}

void helper_give_back(struct helper *helper)
{
	wait_for(&helper->pages_state, IDLE);
	pthread_mutex_lock(&all.lock);
	all.used[helper - all.helper] = false;
	pthread_cond_signal(&all.given_back);
	pthread_mutex_unlock(&all.lock);
}

void helper_forget(void)
{
	pthread_mutex_init(&all.lock, NULL);
	pthread_cond_init(&all.given_back, NULL);
	all.started = 0;
	for (int i = 0; i < MAX_COPIERS; i++) {
		all.used[i] = all.helper[i].has_table = false;
		atomic_store(&all.helper[i].table_state, IDLE);
		atomic_store(&all.helper[i].pages_state, IDLE);
	}
}
