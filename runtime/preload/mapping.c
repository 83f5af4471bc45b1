/* SPDX-License-Identifier: MIT */
/*
 * mmap(2), munmap(2), mremap(2) and madvise(2) as programs see them: large private
 * anonymous mappings get the memory policy of the region that an allocation of
 * their size would go to. The calls behave and fail as the kernel's do; a
 * mapping that cannot be placed stays as it is.
 *
 * What changes mappings is done under a hold (fault/handler.h): pages that the sampler
 * has out of their place are put back first.
 *
 * Where huge pages are asked for, or refused, these mappings are advised so.
 *
 * Placed mappings that count against the HBM limit are recorded, so that they
 * count until they are unmapped; those of the policy `auto`, so that it knows
 * them. One mutex guards the record, and is held over
 * the system calls that change it, or else another thread could be given an
 * address in between. Under it the region's mutex is taken and nothing is
 * allocated. A signal handler that maps while its thread holds the mutex goes
 * straight to the kernel.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fault/handler.h"
#include "heap/huge.h"
#include "heap/range_set.h"
#include "policy/advice.h"
#include "preload/direct.h"
#include "preload/preload.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local volatile bool inside /* this thread is within the lock */
	__attribute__((tls_model("initial-exec")));

/* Of the kinds but DDR. Whether there are any is read without the lock. */
static struct range_set recorded[REGION_PLACED];
static atomic_bool any_recorded;

static atomic_ullong placed, placed_bytes;

static size_t page_up(size_t len)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);

	return (len + page_size - 1) & ~(page_size - 1);
}

static void enter(void)
{
	inside = true;
	pthread_mutex_lock(&lock);
}

static void leave(void)
{
	atomic_store_explicit(&any_recorded,
			      recorded[REGION_HBM].count ||
				      recorded[REGION_INTERLEAVE].count ||
				      recorded[REGION_AUTO].count,
			      memory_order_relaxed);
	pthread_mutex_unlock(&lock);
	inside = false;
}

/* Within the lock: what the kernel has unmapped no longer counts. */
static void forget(const void *addr, size_t len)
{
	for (int kind = REGION_HBM; kind < REGION_PLACED; kind++) {
		size_t removed;

		/* On the rare -ENOMEM it goes on counting. */
		if (!range_set_remove(&recorded[kind], (uintptr_t)addr,
				      (uintptr_t)addr + page_up(len), &removed) &&
		    removed) {
			region_uncharge((enum region_kind)kind, removed);
			advice_forget((uintptr_t)addr, (uintptr_t)addr + page_up(len));
		}
	}
}

/* Within the lock. false: no memory for the record, or over the limit. */
static bool record(enum region_kind kind, const void *addr, size_t len)
{
	if (kind == REGION_DDR)
		return true;
	if (range_set_reserve(&recorded[kind], 1) || !region_charge(kind, len))
		return false;
	range_set_add(&recorded[kind], (uintptr_t)addr, (uintptr_t)addr + len);
	return true;
}

/* Within the lock: gives a new mapping its policy. Keeps errno. */
static void place(void *addr, size_t len, unsigned int mbind_flags)
{
	static bool said;
	enum region_kind kind = preload.mapping_kind;
	int saved = errno, err;

	len = page_up(len);
	forget(addr, len); /* in case it was unmapped behind our back */
	if (!record(kind, addr, len))
		kind = REGION_DDR;
	err = region_apply_policy(addr, len, kind, mbind_flags);
	if (err) {
		forget(addr, len);
		if (!said)
			say("mappings are not placed: mbind: %s", strerror(-err));
		said = true;
	} else {
		atomic_fetch_add_explicit(&placed, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&placed_bytes, len, memory_order_relaxed);
	}
	errno = saved;
}

static bool is_large(const void *addr, size_t len, int prot, int flags)
{
	return len >= preload.config.min_size && (flags & MAP_TYPE) == MAP_PRIVATE &&
	       flags & MAP_ANONYMOUS &&
	       !(flags & (MAP_STACK | MAP_GROWSDOWN | MAP_HUGETLB)) &&
	       prot != PROT_NONE && /* address space only */
	       !(flags & MAP_FIXED && region_of(addr) >= 0);
}

static bool may_be_recorded(void)
{
	return atomic_load_explicit(&any_recorded, memory_order_relaxed);
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	bool large = is_large(addr, len, prot, flags);
	bool placeable = large && preload.place_mappings;
	void *mapped;

	if (inside || (!placeable && !(flags & MAP_FIXED && may_be_recorded()))) {
		mapped = __wrap_mmap(addr, len, prot, flags, fd, offset);
	} else {
		enter();
		if (flags & MAP_FIXED)
			handler_hold(addr, len);
		mapped = __wrap_mmap(addr, len, prot, flags, fd, offset);
		if (flags & MAP_FIXED)
			handler_let_go();
		/* Pages that are there already are moved. */
		if (mapped != MAP_FAILED && placeable)
			place(mapped, len,
			      flags & (MAP_POPULATE | MAP_LOCKED) ? MPOL_MF_MOVE : 0);
		else if (mapped != MAP_FAILED)
			forget(mapped, len);
		leave();
	}
	if (mapped != MAP_FAILED && large && preload.advise_mappings)
		huge_advise_mapping(mapped, page_up(len));
	return mapped;
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
	__attribute__((alias("mmap")));

EXPORT int munmap(void *addr, size_t len)
{
	int result;

	if (inside || !may_be_recorded())
		return __wrap_munmap(addr, len);
	enter();
	handler_hold(addr, len);
	result = __wrap_munmap(addr, len);
	handler_let_go();
	if (!result)
		forget(addr, len);
	leave();
	return result;
}

/*
 * The kernel takes the policy along; the record follows. What a mapping grows
 * beyond the HBM limit becomes DDR's.
 */
static void follow(void *old_addr, size_t old_len, void *addr, size_t len)
{
	uintptr_t old_start = (uintptr_t)old_addr;
	size_t kept;

	old_len = page_up(old_len);
	len = page_up(len);
	kept = len < old_len ? len : old_len;
	for (int kind = REGION_HBM; kind < REGION_PLACED; kind++) {
		if (!range_set_overlap(&recorded[kind], old_start, old_start + old_len))
			continue;
		forget(old_addr, old_len);
		forget(addr, len);
		record((enum region_kind)kind, addr, kept);
		if (kept < len &&
		    !record((enum region_kind)kind, (char *)addr + kept, len - kept))
			region_apply_policy((char *)addr + kept, len - kept, REGION_DDR,
					    0);
		return;
	}
	forget(addr, len);
}

EXPORT void *mremap(void *old_addr, size_t old_len, size_t new_len, int flags, ...)
{
	void *new_addr = NULL, *mapped;
	int saved;

	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
		va_list args;

		va_start(args, flags);
		new_addr = va_arg(args, void *);
		va_end(args);
	}
	if (inside || !may_be_recorded())
		return direct_mremap(old_addr, old_len, new_len, flags, new_addr);
	enter();
	handler_hold(NULL, SIZE_MAX); /* of both places */
	mapped = direct_mremap(old_addr, old_len, new_len, flags, new_addr);
	saved = errno;
	handler_let_go();
	if (mapped != MAP_FAILED)
		follow(old_addr, old_len, mapped, new_len);
	leave();
	errno = saved;
	return mapped;
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	int result;

	handler_hold(addr, len);
	result = __wrap_madvise(addr, len, advice);
	handler_let_go();
	return result;
}

void mapping_usage(struct mapping_usage *out)
{
	out->placed = atomic_load_explicit(&placed, memory_order_relaxed);
	out->placed_bytes = atomic_load_explicit(&placed_bytes, memory_order_relaxed);
}

bool mapping_has(const void *addr)
{
	bool has = false;

	enter();
	for (int kind = REGION_HBM; kind < REGION_PLACED; kind++)
		has |= range_set_overlap(&recorded[kind], (uintptr_t)addr,
					 (uintptr_t)addr + 1) > 0;
	leave();
	return has;
}

size_t mapping_spans(struct span *out, size_t max)
{
	const struct range_set *set = &recorded[REGION_AUTO];
	size_t n;

	enter();
	n = set->count;
	for (size_t i = 0; i < n && i < max; i++)
		out[i] = set->span[i];
	leave();
	return n;
}

bool mapping_has_managed(uintptr_t start, uintptr_t *end)
{
	bool has;

	enter();
	has = range_set_has(&recorded[REGION_AUTO], start, end);
	leave();
	return has;
}

void mapping_fork_prepare(void)
{
	enter();
}

void mapping_fork_done(void)
{
	leave();
}
