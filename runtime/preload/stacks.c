/* SPDX-License-Identifier: MIT */
/*
 * Thread stacks: see stacks.h. One mutex guards the record; under it the region's
 * mutex is taken and nothing of the program's is called. A thread takes it with all
 * signals blocked, since a handler of the program's may create threads.
 */
#include "preload/stacks.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "heap/range_set.h"
#include "os/lines.h"
#include "preload/direct.h"
#include "preload/preload.h"

#define STACK_MOST ((size_t)64 << 20)

typedef int create_fn(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
		      void *arg);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range_set recorded;
static bool places; /* constant after stacks_init() */
static atomic_ullong placed, placed_bytes;

/* ---- the record ---------------------------------------------------------- */

static void enter(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
	pthread_mutex_lock(&lock);
}

static void leave(const sigset_t *before)
{
	pthread_mutex_unlock(&lock);
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* false: no memory for the record, or over the limit. */
static bool record(uintptr_t start, uintptr_t end)
{
	sigset_t before;
	bool done;

	enter(&before);
	done = !range_set_reserve(&recorded, 1) &&
	       region_charge(preload.mapping_kind, end - start);
	if (done)
		range_set_add(&recorded, start, end);
	leave(&before);
	return done;
}

static void forget(uintptr_t start, uintptr_t end)
{
	size_t removed;
	sigset_t before;

	enter(&before);
	if (!range_set_remove(&recorded, start, end, &removed) && removed)
		region_uncharge(preload.mapping_kind, removed);
	leave(&before);
}

/* The stack [start, end), of which [used, end) is mapped; false: it is left alone. */
static bool place(uintptr_t start, uintptr_t used, uintptr_t end)
{
	static atomic_bool said;
	int err;

	if (!record(start, end))
		return false;
	err = region_apply_policy((void *)used, end - used, preload.mapping_kind,
				  MPOL_MF_MOVE);
	if (err) {
		forget(start, end);
		if (!atomic_exchange(&said, true))
			say("stacks are not placed: mbind: %s", strerror(-err));
		return false;
	}
	atomic_fetch_add_explicit(&placed, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&placed_bytes, end - start, memory_order_relaxed);
	return true;
}

/* ---- the main thread's --------------------------------------------------- */

/*
 * Finds the mapping that is named [stack] in /proc/self/maps, without stdio, which
 * is not there yet.
 */
static bool find_main(uintptr_t *start, uintptr_t *end)
{
	static const char name[] = "[stack]";
	struct lines maps = {.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
	bool found = false;
	char *line;

	if (maps.fd < 0)
		return false;
	while (!found && lines_next(&maps, &line) > 0) {
		size_t length = strlen(line);

		if (length < sizeof(name) ||
		    strcmp(line + length - (sizeof(name) - 1), name) != 0)
			continue;
		*start = strtoul(line, &line, 16);
		*end = strtoul(line + 1, NULL, 16);
		found = true;
	}
	close(maps.fd);
	return found;
}

void stacks_init(void)
{
	uintptr_t start, used, end;
	struct rlimit limit;
	size_t most = STACK_MOST;

	places = true;
	if (!find_main(&used, &end)) {
		say("the main thread's stack is not placed: it is not in "
		    "/proc/self/maps");
		return;
	}
	if (!getrlimit(RLIMIT_STACK, &limit) && limit.rlim_cur < most)
		most = (size_t)limit.rlim_cur & ~(size_t)(sysconf(_SC_PAGESIZE) - 1);
	start = end - most < used ? end - most : used;
	place(start, used, end);
}

/* ---- others' ------------------------------------------------------------- */

/* What a new thread is to run. */
struct start {
	void *(*run)(void *);
	void *arg;
};

struct stack {
	uintptr_t start, end;
};

static void forget_own(void *stack)
{
	forget(((struct stack *)stack)->start, ((struct stack *)stack)->end);
}

static bool find_own(struct stack *stack)
{
	pthread_attr_t attr;
	size_t size;
	void *addr;
	int err = pthread_getattr_np(pthread_self(), &attr);

	if (err)
		return false;
	err = pthread_attr_getstack(&attr, &addr, &size);
	pthread_attr_destroy(&attr);
	if (err)
		return false;
	stack->start = (uintptr_t)addr;
	stack->end = (uintptr_t)addr + size;
	return true;
}

static void *begin(void *given)
{
	struct start start = *(struct start *)given;
	struct stack stack;
	void *result;

	__real_free(given);
	if (!find_own(&stack) || !place(stack.start, stack.start, stack.end))
		return start.run(start.arg);
	/* Also if it calls pthread_exit() or is cancelled. */
	pthread_cleanup_push(forget_own, &stack);
	result = start.run(start.arg);
	pthread_cleanup_pop(1);
	return result;
}

/* The C library's, which no call within this library goes past. */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*run)(void *), void *arg)
{
	static _Atomic(create_fn *) real;
	create_fn *create = atomic_load_explicit(&real, memory_order_relaxed);

	if (!create) {
		create = (create_fn *)dlsym(RTLD_NEXT, "pthread_create");
		if (!create)
			return EAGAIN;
		atomic_store_explicit(&real, create, memory_order_relaxed);
	}
	return create(thread, attr, run, arg);
}

/* Whether the program gives the stack: if not, its end is 0. */
static bool is_given(const pthread_attr_t *attr)
{
	size_t size;
	void *addr;

	return attr && !pthread_attr_getstack(attr, &addr, &size) &&
	       (uintptr_t)addr + size != 0;
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*run)(void *), void *arg)
{
	struct start *start;
	int err;

	if (!places || is_given(attr))
		return __wrap_pthread_create(thread, attr, run, arg);
	start = __real_malloc(sizeof(*start));
	if (!start)
		return EAGAIN;
	*start = (struct start){run, arg};
	err = __wrap_pthread_create(thread, attr, begin, start);
	if (err)
		__real_free(start);
	return err;
}

/* ---- what is placed ------------------------------------------------------ */

size_t stacks_spans(struct span *out, size_t max)
{
	sigset_t before;
	size_t n;

	if (preload.mapping_kind != REGION_AUTO)
		return 0;
	enter(&before);
	n = recorded.count;
	for (size_t i = 0; i < n && i < max; i++)
		out[i] = recorded.span[i];
	leave(&before);
	return n;
}

bool stacks_has_managed(uintptr_t start, uintptr_t *end)
{
	sigset_t before;
	bool has;

	if (preload.mapping_kind != REGION_AUTO)
		return false;
	enter(&before);
	has = range_set_has(&recorded, start, end);
	leave(&before);
	return has;
}

bool stacks_has(const void *addr)
{
	sigset_t before;
	bool has;

	enter(&before);
	has = range_set_overlap(&recorded, (uintptr_t)addr, (uintptr_t)addr + 1) > 0;
	leave(&before);
	return has;
}

void stacks_usage(struct stacks_usage *out)
{
	out->placed = atomic_load_explicit(&placed, memory_order_relaxed);
	out->placed_bytes = atomic_load_explicit(&placed_bytes, memory_order_relaxed);
}

void stacks_fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

void stacks_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

void stacks_fork_child(void)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	/* At their places the C library puts new threads' stacks. */
	for (size_t i = recorded.count; i-- > 0;) {
		struct span span = recorded.span[i];
		size_t removed;

		if ((here >= span.start && here < span.end) ||
		    range_set_remove(&recorded, span.start, span.end, &removed))
			continue;
		region_uncharge(preload.mapping_kind, removed);
	}
	pthread_mutex_unlock(&lock);
}
