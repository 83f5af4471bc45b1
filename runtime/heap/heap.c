/* SPDX-License-Identifier: MIT */
/*
 * libferry's heap: see heap.h. Arenas are published with compare-and-swap, so
 * that no lock is held while calling into jemalloc; the rest is the thread's
 * own.
 */
#include "heap/heap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "heap/jemalloc_private.h"
#include "heap/extent_hooks.h"
#include "heap/huge.h"

/* What jemalloc must have, whatever MALLOC_CONF says: see extent_hooks.h. */
const char *je_malloc_conf_2_conf_harder = "retain:false,percpu_arena:disabled";

/* Arenas are told apart by kind, and by whether they may overflow. */
#define KINDS (2 * REGION_PLACED)

static unsigned int kind_index(enum region_kind kind, bool strict)
{
	return (unsigned int)kind + (strict ? REGION_PLACED : 0);
}

/* ---- arenas -------------------------------------------------------------- */

#define ARENAS_EACH_MAX 16

/* jemalloc's index + 1, or 0 where none has been made yet. */
static atomic_uint arenas[KINDS][ARENAS_EACH_MAX];

static unsigned int arenas_each(void)
{
	static atomic_uint known;
	unsigned int count = atomic_load_explicit(&known, memory_order_relaxed);
	long cpus;

	if (!count) {
		cpus = sysconf(_SC_NPROCESSORS_ONLN);
		count = cpus < 1 ? 1 : cpus < ARENAS_EACH_MAX ? cpus : ARENAS_EACH_MAX;
		atomic_store_explicit(&known, count, memory_order_relaxed);
	}
	return count;
}

/* jemalloc's index of a new arena + 1, or 0. */
static unsigned int create_arena(unsigned int kind)
{
	extent_hooks_t *metadata = extent_hooks(REGION_METADATA, false);
	extent_hooks_t *hooks = extent_hooks((enum region_kind)(kind % REGION_PLACED),
					     kind >= REGION_PLACED);
	char name[48];
	unsigned int arena;
	size_t size = sizeof(arena), muzzy_size = sizeof(ssize_t);
	ssize_t muzzy;

	if (je_mallctl("arenas.create", &arena, &size, (void *)&metadata,
		       sizeof(metadata)))
		return 0;
	snprintf(name, sizeof(name), "arena.%u.extent_hooks", arena);
	if (je_mallctl(name, NULL, NULL, (void *)&hooks, sizeof(hooks)))
		return 0;
	if (huge_keeps() &&
	    !je_mallctl("arenas.muzzy_decay_ms", &muzzy, &muzzy_size, NULL, 0) &&
	    !muzzy) {
		muzzy = MUZZY_DECAY_MS;
		snprintf(name, sizeof(name), "arena.%u.muzzy_decay_ms", arena);
		je_mallctl(name, NULL, NULL, &muzzy, sizeof(muzzy));
	}
	return arena + 1;
}

/* 0: could not be created. */
static unsigned int get_arena(unsigned int kind, unsigned int slot)
{
	atomic_uint *arena = &arenas[kind][slot % arenas_each()];
	unsigned int found = atomic_load_explicit(arena, memory_order_acquire);
	unsigned int created;
	char name[48];

	if (found)
		return found;
	created = create_arena(kind);
	if (created && !atomic_compare_exchange_strong_explicit(arena, &found, created,
								memory_order_acq_rel,
								memory_order_acquire)) {
		snprintf(name, sizeof(name), "arena.%u.destroy", created - 1);
		je_mallctl(name, NULL, NULL, NULL, 0);
		return found;
	}
	return created;
}

/* ---- threads ------------------------------------------------------------- */

static _Thread_local struct {
	bool known, ended;
	unsigned int slot;                  /* which of each kind's arenas */
	unsigned int tcache[REGION_PLACED]; /* jemalloc's index + 1; 0: none */
} thread;

static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static bool have_thread_key;

static void end_thread(void *unused)
{
	(void)unused;
	for (int kind = 0; kind < REGION_PLACED; kind++) {
		unsigned int tcache = thread.tcache[kind] - 1;

		if (thread.tcache[kind])
			je_mallctl("tcache.destroy", NULL, NULL, &tcache, sizeof(tcache));
		thread.tcache[kind] = 0;
	}
	thread.ended = true;
}

static void make_thread_key(void)
{
	have_thread_key = !pthread_key_create(&thread_key, end_thread);
}

static void know_thread(void)
{
	static atomic_uint next_slot;

	if (thread.known)
		return;
	thread.known = true;
	thread.slot = atomic_fetch_add_explicit(&next_slot, 1, memory_order_relaxed);
	pthread_once(&thread_once, make_thread_key);
	/* Without its end being told, a thread must not have caches. */
	if (!have_thread_key || pthread_setspecific(thread_key, &thread))
		thread.ended = true;
}

/* The je_mallocx() flag that names the thread's cache of a kind. */
static int tcache_flag(enum region_kind kind)
{
	size_t size = sizeof(unsigned int);
	unsigned int tcache;

	if (!thread.tcache[kind]) {
		/* jemalloc has some 4,000 of them; threads beyond do without. */
		if (thread.ended || je_mallctl("tcache.create", &tcache, &size, NULL, 0))
			return MALLOCX_TCACHE_NONE;
		thread.tcache[kind] = tcache + 1;
	}
	return MALLOCX_TCACHE(thread.tcache[kind] - 1);
}

/* ---- allocation ---------------------------------------------------------- */

void *heap_alloc(const struct heap_request *request)
{
	unsigned int kind = kind_index(request->kind, request->strict);
	int saved = errno, flags;
	unsigned int arena;
	void *ptr = NULL;

	know_thread();
	arena = get_arena(kind, thread.slot);
	if (arena) {
		flags = (int)MALLOCX_ARENA(arena - 1);
		flags |= request->strict ? MALLOCX_TCACHE_NONE
					 : tcache_flag(request->kind);
		if (request->alignment)
			flags |= MALLOCX_ALIGN(request->alignment);
		if (request->zero)
			flags |= MALLOCX_ZERO;
		ptr = je_mallocx(request->size ? request->size : 1, flags);
	}
	errno = saved;
	return ptr;
}

/* The kind that memory was meant for, which overflow does not change. */
static unsigned int meant_kind(void *ptr)
{
	size_t size = sizeof(unsigned int);
	unsigned int arena;

	if (!je_mallctl("arenas.lookup", &arena, &size, &ptr, sizeof(ptr)))
		for (unsigned int kind = 0; kind < KINDS; kind++)
			for (unsigned int slot = 0; slot < ARENAS_EACH_MAX; slot++)
				if (atomic_load_explicit(&arenas[kind][slot],
							 memory_order_relaxed) ==
				    arena + 1)
					return kind % REGION_PLACED;
	return (unsigned int)region_of(ptr);
}

static void require_own(const void *ptr, const char *function)
{
	if (region_of(ptr) >= 0)
		return;
	fprintf(stderr, "ferry: %s(%p): this memory is not from Ferry\n", function, ptr);
	abort();
}

void *heap_realloc(void *ptr, size_t size)
{
	int saved = errno;
	enum region_kind kind;
	unsigned int arena;
	void *moved = NULL;

	require_own(ptr, "ferry_realloc");
	know_thread();
	kind = (enum region_kind)meant_kind(ptr);
	arena = get_arena(kind_index(kind, false), thread.slot);
	/*
	 * Without the cache: what is freed may be of another region than what is
	 * allocated.
	 */
	if (arena)
		moved = je_rallocx(ptr, size ? size : 1,
				   (int)MALLOCX_ARENA(arena - 1) | MALLOCX_TCACHE_NONE);
	errno = saved;
	return moved;
}

void heap_free(void *ptr)
{
	int saved = errno;

	require_own(ptr, "ferry_free");
	know_thread();
	je_dallocx(ptr, tcache_flag((enum region_kind)region_of(ptr)));
	errno = saved;
}

size_t heap_usable_size(const void *ptr)
{
	require_own(ptr, "ferry_usable_size");
	return je_sallocx(ptr, 0);
}
