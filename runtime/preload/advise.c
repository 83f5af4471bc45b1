/* SPDX-License-Identifier: MIT */
/*
 * Advice on the program's memory, passed on by libferry: see advise.h.
 *
 * Advice ends with the memory. Mappings are seen to be unmapped; of the heap,
 * whose free() is jemalloc's own, it has to be told, by hooks that every thread
 * then calls on its way: so they are installed with the first advice on heap
 * memory, and never without. `hooked` tells, and is set once.
 */
#include "preload/advise.h"

#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <pthread.h>

#include "policy/advice.h"
#include "policy/auto.h"
#include "policy/phase.h"
#include "preload/preload.h"

/* ---- jemalloc's hooks ---------------------------------------------------- */

/*
 * jemalloc's mallctl "experimental.hooks.install": its header does not declare
 * the struct. The types say which function it was; addresses are of allocations
 * that are about to be freed, or were resized in place.
 */
struct hooks {
	void (*alloc)(void *extra, int type, void *result, uintptr_t raw,
		      uintptr_t args[3]);
	void (*dalloc)(void *extra, int type, void *addr, uintptr_t args[3]);
	void (*expand)(void *extra, int type, void *addr, size_t before, size_t after,
		       uintptr_t raw, uintptr_t args[4]);
	void *extra;
};

static void on_free(void *extra, int type, void *addr, uintptr_t args[3])
{
	(void)extra;
	(void)type;
	(void)args;
	if (addr)
		advice_forget((uintptr_t)addr,
			      (uintptr_t)addr + malloc_usable_size(addr));
}

static void on_resize(void *extra, int type, void *addr, size_t before, size_t after,
		      uintptr_t raw, uintptr_t args[4])
{
	(void)extra;
	(void)type;
	(void)raw;
	(void)args;
	if (addr && after < before)
		advice_forget((uintptr_t)addr + after, (uintptr_t)addr + before);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool hooked;

static void install(void)
{
	struct hooks hooks = {.dalloc = on_free, .expand = on_resize};
	void *handle;
	size_t size = sizeof(handle);

	hooked = !mallctl("experimental.hooks.install", (void *)&handle, &size, &hooks,
			  sizeof(hooks));
	if (!hooked)
		say("memory is not told when it is freed; advice on the heap is not "
		    "taken");
}

/* ---- what libferry calls ------------------------------------------------- */

EXPORT int ferry_preload_advise(uintptr_t start, uintptr_t *end, enum ferry_advice advice,
				bool *taken)
{
	uintptr_t heap_end = *end;

	if (region_has(REGION_AUTO, start, &heap_end)) {
		pthread_once(&once, install);
		if (!hooked)
			return -EOPNOTSUPP;
	}
	return auto_advise(start, end, advice, taken);
}

EXPORT int ferry_preload_phase(enum preload_mark mark, const char *name)
{
	int err = mark == PRELOAD_PHASE_BEGIN ? phase_begin(name)
		  : mark == PRELOAD_PHASE_END ? phase_end(name)
					      : phase_prefetch(name);

	if (!err)
		auto_wake();
	return err;
}
