/* SPDX-License-Identifier: MIT */
/* The staging area (staging.h). */
#include "migrate/staging.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ferry/ferry.h>

#include "fault/uffd.h"
#include "heap/hbm_limit.h"
#include "migrate/engine.h"
#include "migrate/page.h"
#include "migrate/pagemap.h"
#include "migrate/relocate.h"
#include "os/thread.h"
#include "topology/topology.h"

/* Each copier uses two at a time, and its helper two more. */
#define SLOTS (4 * MAX_COPIERS + STAGING_KEPT)
#define BYTES (SLOTS * GRANULE_BYTES)

/*
 * For as long as two windows take, what has been kept is taken without asking the kernel
 * anew: it was asked when the page came, and asking takes 3 % of the time of a copy.
 */
#define TRUSTED_NS 4000000

static struct {
	pthread_mutex_t lock;
	int uffd;
	uintptr_t start; /* 0: not mapped */
	unsigned int kept;
	struct slot slot[SLOTS];
} staging = {.lock = PTHREAD_MUTEX_INITIALIZER, .uffd = -1};

/* Fails where there is one node only, which needs none. */
static void set_policy(uintptr_t addr, size_t len, int mode, const unsigned long *nodes)
{
	syscall(SYS_mbind, addr, len, mode, nodes, nodes ? FERRY_MAX_NODES + 1 : 0, 0);
}

/*
 * Maps slots, empty and without a page table, which would be in the way of a
 * huge page. A process may have all its memory locked: only what is not
 * accessible yet can be unlocked without coming up whole. With a memory policy, so
 * that NUMA balancing leaves what is kept on its node: a copier that writes to it
 * would draw it to its own.
 */
static int map(uintptr_t addr, size_t len)
{
	void *at = (void *)addr;

	if (mmap(at, len, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		return -errno;
	munlock(at, len);
	set_policy(addr, len, MPOL_LOCAL, NULL);
	if (mprotect(at, len, PROT_READ | PROT_WRITE) ||
	    madvise(at, len, MADV_HUGEPAGE) || madvise(at, len, MADV_DONTFORK))
		return -errno;
	return uffd_admit(staging.uffd, addr, len);
}

static int map_all(void)
{
	const size_t len = BYTES;
	char *mem = mmap(NULL, len + GRANULE_BYTES, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t start;
	int err;

	if (mem == MAP_FAILED)
		return -errno;
	start = granule_end((uintptr_t)mem - 1);
	if (start > (uintptr_t)mem)
		munmap(mem, start - (uintptr_t)mem);
	munmap((void *)(start + len), (uintptr_t)mem + GRANULE_BYTES - start);
	err = map(start, len);
	if (err) {
		munmap((void *)start, len);
		return err;
	}
	staging.start = start;
	for (size_t i = 0; i < SLOTS; i++)
		staging.slot[i] = (struct slot){.addr = start + i * GRANULE_BYTES,
						.node = SLOT_EMPTY};
	return 0;
}

/* ---- what is kept ------------------------------------------------------- */

static bool is_hbm(int node)
{
	const struct topology *topology = topology_get(NULL);

	return topology && node_set_has(&topology->tier[FERRY_TIER_HBM], node);
}

/* With the lock. false: enough is kept, or there is no room below the HBM limit. */
static bool keep(int node)
{
	if (staging.kept == STAGING_KEPT ||
	    (is_hbm(node) && !hbm_limit_keep(GRANULE_BYTES)))
		return false;
	staging.kept++;
	return true;
}

static void unkeep(int node)
{
	staging.kept--;
	if (is_hbm(node))
		hbm_limit_unkeep(GRANULE_BYTES);
}

/* ---- opening ------------------------------------------------------------- */

int staging_open(int uffd)
{
	staging.uffd = uffd;
	staging.kept = 0;
	return map_all();
}

/* What is registered is unregistered before it is unmapped: see empty(). */
void staging_close(void)
{
	if (!staging.start)
		return;
	uffd_unregister(staging.uffd, staging.start, BYTES);
	munmap((void *)staging.start, BYTES);
	staging.start = 0;
}

void staging_forget(void)
{
	pthread_mutex_init(&staging.lock, NULL);
	for (size_t i = 0; staging.start && i < SLOTS; i++)
		if (!staging.slot[i].used && staging.slot[i].node >= 0)
			unkeep(staging.slot[i].node);
	staging.start = 0; /* not inherited */
}

/* ---- slots --------------------------------------------------------------- */

static struct slot *take(int node)
{
	struct slot *found = NULL;

	pthread_mutex_lock(&staging.lock);
	for (size_t i = 0; i < SLOTS && !found; i++)
		if (!staging.slot[i].used && staging.slot[i].node == node)
			found = &staging.slot[i];
	if (found) {
		found->used = 1;
		if (node >= 0)
			unkeep(node);
	}
	pthread_mutex_unlock(&staging.lock);
	return found;
}

static void release(struct slot *slot)
{
	pthread_mutex_lock(&staging.lock);
	slot->used = 0;
	pthread_mutex_unlock(&staging.lock);
}

/* Has a slot in use mapped anew, whatever is in it. Whether that was possible. */
static bool renew(struct slot *slot)
{
	slot->node = map(slot->addr, GRANULE_BYTES) ? SLOT_BROKEN : SLOT_EMPTY;
	return slot->node == SLOT_EMPTY;
}

struct slot *staging_empty(void)
{
	struct slot *slot = take(SLOT_EMPTY);

	if (slot)
		return slot;
	/* What kept it from being mapped may have passed: a limit, or lack of memory. */
	slot = take(SLOT_BROKEN);
	if (!slot || renew(slot))
		return slot;
	release(slot);
	return NULL;
}

/* Has a huge page come up in an empty slot, on @node if there is one there. */
static void fill(const struct slot *slot, unsigned int node)
{
	unsigned long nodes[FERRY_MAX_NODES / 64] = {0};

	nodes[node / 64] = 1UL << node % 64;
	set_policy(slot->addr, GRANULE_BYTES, MPOL_PREFERRED, nodes);
	*(volatile char *)slot->addr = 0;
}

/* By the kernel's own view: the memory may have come from somewhere else. */
static bool is_huge_on(const struct slot *slot, int node)
{
	int16_t found = -1;

	return relocate_is_huge(slot->addr) &&
	       !engine_syscall.query(slot->addr, PAGE_BYTES, &found) && found == node;
}

struct slot *staging_filled(int node)
{
	struct slot *slot;

	/* The kernel may have moved what was kept, or swapped it out. */
	while ((slot = take(node))) {
		if (clock_ns(CLOCK_MONOTONIC) - slot->kept_at < TRUSTED_NS ||
		    is_huge_on(slot, node))
			return slot;
		staging_put_spoiled(slot);
	}
	slot = staging_empty();
	if (!slot)
		return NULL;
	fill(slot, (unsigned int)node);
	slot->node = node;
	if (is_huge_on(slot, node))
		return slot;
	staging_put_spoiled(slot);
	return NULL;
}

/*
 * Gives the pages of a slot in use back to the kernel, and the slot. Not registered
 * meanwhile: discarding and unmapping would wait for their own event to be read.
 */
static void empty(struct slot *slot)
{
	uffd_unregister(staging.uffd, slot->addr, GRANULE_BYTES);
	madvise((void *)slot->addr, GRANULE_BYTES, MADV_DONTNEED);
	slot->node = uffd_admit(staging.uffd, slot->addr, GRANULE_BYTES) ? SLOT_BROKEN
									 : SLOT_EMPTY;
	release(slot);
}

void staging_put(struct slot *slot)
{
	bool done;

	slot->kept_at = clock_ns(CLOCK_MONOTONIC);
	pthread_mutex_lock(&staging.lock);
	done = slot->node == SLOT_EMPTY || keep(slot->node);
	if (done)
		slot->used = 0;
	pthread_mutex_unlock(&staging.lock);
	if (!done)
		empty(slot);
}

void staging_stock(int node)
{
	struct slot *slot;
	bool has = false;

	pthread_mutex_lock(&staging.lock);
	for (size_t i = 0; i < SLOTS; i++)
		has |= !staging.slot[i].used && staging.slot[i].node == node;
	pthread_mutex_unlock(&staging.lock);
	slot = has ? NULL : staging_filled(node);
	if (slot)
		staging_put(slot);
}

void staging_put_spoiled(struct slot *slot)
{
	uffd_unregister(staging.uffd, slot->addr, GRANULE_BYTES);
	/* To free many pages takes long; who maps over them keeps all from faulting. */
	madvise((void *)slot->addr, GRANULE_BYTES, MADV_DONTNEED);
	renew(slot);
	release(slot);
}

bool staging_keeps(void)
{
	bool keeps;

	pthread_mutex_lock(&staging.lock);
	keeps = staging.kept > 0;
	pthread_mutex_unlock(&staging.lock);
	return keeps;
}

void staging_trim(void)
{
	struct slot *slot;

	for (int i = 0; i < SLOTS; i++) {
		slot = &staging.slot[i];
		pthread_mutex_lock(&staging.lock);
		if (slot->used || slot->node < 0) {
			pthread_mutex_unlock(&staging.lock);
			continue;
		}
		slot->used = 1;
		unkeep(slot->node);
		pthread_mutex_unlock(&staging.lock);
		empty(slot);
	}
}
