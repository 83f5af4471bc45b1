/* SPDX-License-Identifier: MIT */
/*
 * The choice of the engine, the statistics and fork(2) (migrate.h).
 *
 * chosen.lock guards the choice; it is taken before the queue's lock, and both
 * are held over fork so that the child finds them in order. Counters are
 * atomics.
 */
#include "migrate/migrate.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <ferry/ferry_ioctl.h>

#include "migrate/relocate.h"
#include "migrate/worker.h"

static struct {
	pthread_mutex_t lock;
	bool made;
	bool complained; /* on stderr, once, children included */
	int error;
	const struct engine *engine; /* NULL with an error */
	const char *why;
	const struct engine *huge; /* what moves huge pages */
	const char *huge_why;
} chosen = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct {
	atomic_uint_fast64_t requests, completed;
	atomic_uint_fast64_t moved, populated, already, busy, nomem, hole, unsupported;
} count;

/* ---- fork --------------------------------------------------------------- */

static void fork_prepare(void)
{
	pthread_mutex_lock(&chosen.lock);
	worker_fork_prepare();
	windows_hold();
}

static void fork_parent(void)
{
	windows_release();
	worker_fork_parent();
	pthread_mutex_unlock(&chosen.lock);
}

static void fork_child(void)
{
	worker_fork_child();
	engine_kmod.forget();
	engine_relocate.forget();
	engine_syscall.forget();
	chosen.made = false;
	chosen.error = 0;
	chosen.engine = chosen.huge = NULL;
	memset(&count, 0, sizeof(count)); /* no other thread exists */
	pthread_mutex_unlock(&chosen.lock);
}

static void register_fork(void)
{
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* ---- the engine --------------------------------------------------------- */

/* Notes that what was demanded cannot be had, because of chosen.why. */
static void refuse(const char *demanded)
{
	chosen.engine = NULL;
	chosen.error = -ENODEV;
	if (!chosen.complained)
		fprintf(stderr,
			"ferry: FERRY_ENGINE=%s cannot be had: %s; nothing will be moved "
			"(allowed: auto, kmod, kmod+relocate, relocate, syscall)\n",
			demanded, chosen.why);
	chosen.complained = true;
}

static void demand(const struct engine *engine, const char *demanded)
{
	if (engine->open(&chosen.why))
		refuse(demanded);
	else
		chosen.engine = engine;
}

/* Has engine_kmod, which is open, give huge pages to relocation. 0 or -errno. */
static int give_to_relocate(const char **why)
{
	int err = engine_relocate.open(why);

	if (err)
		return err;
	err = relocate_vouched() ? kmod_give_huge_to(&engine_relocate) : -EOPNOTSUPP;
	if (!err)
		return 0;
	engine_relocate.forget();
	*why = err == -EOPNOTSUPP ? FERRY_DEVICE_PATH
		       ": the module does not tell which pages are held"
				  : "no descriptor to wait for two engines with";
	return err;
}

static void demand_both(const char *demanded)
{
	demand(&engine_kmod, demanded);
	if (chosen.error)
		return;
	chosen.huge = &engine_relocate;
	if (!give_to_relocate(&chosen.huge_why))
		return;
	engine_kmod.forget();
	chosen.why = chosen.huge_why;
	refuse(demanded);
}

/*
 * `auto` relocates where the module tells what the kernel holds, and the kernel tells
 * of children that were made without fork(3): nobody asked for the risk that a page is
 * exchanged under a device, or that such a child finds zeros.
 */
static void choose_for_huge(void)
{
	if (!relocate_sees_forks())
		chosen.huge_why = "userfaultfd: no events of clone(2), which take "
				  "CAP_SYS_PTRACE; FERRY_ENGINE=kmod+relocate does "
				  "without";
	else if (!give_to_relocate(&chosen.huge_why))
		chosen.huge = &engine_relocate;
}

static void choose(enum engine_choice choice)
{
	const char *unused;

	chosen.huge = &engine_syscall;
	chosen.huge_why = "only the module tells which pages the kernel holds; "
			  "FERRY_ENGINE=relocate does without";
	switch (choice) {
	case ENGINE_KMOD:
		chosen.huge_why = "FERRY_ENGINE=kmod";
		demand(&engine_kmod, "kmod");
		return;
	case ENGINE_KMOD_RELOCATE:
		demand_both("kmod+relocate");
		return;
	case ENGINE_RELOCATE:
		demand(&engine_relocate, "relocate");
		chosen.huge = &engine_relocate;
		chosen.huge_why = chosen.why;
		return;
	case ENGINE_AUTO:
		if (!engine_kmod.open(&chosen.why)) {
			chosen.engine = &engine_kmod;
			choose_for_huge();
			return;
		}
		break;
	case ENGINE_SYSCALL:
		chosen.why = chosen.huge_why = "FERRY_ENGINE=syscall";
		break;
	}
	engine_syscall.open(&unused);
	chosen.engine = &engine_syscall;
}

int migrate_engine(const struct engine **out, enum engine_choice choice)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int err;

	pthread_once(&once, register_fork);
	pthread_mutex_lock(&chosen.lock);
	if (!chosen.made)
		choose(choice);
	chosen.made = true;
	*out = chosen.engine;
	err = chosen.error;
	pthread_mutex_unlock(&chosen.lock);
	return err;
}

const char *migrate_engine_name(enum engine_choice choice, const char **why)
{
	const struct engine *engine;
	int err = migrate_engine(&engine, choice);

	/* What was chosen does not change but in a forked child. */
	if (why)
		*why = chosen.why;
	return err ? "none" : engine->name;
}

const char *migrate_huge_engine_name(enum engine_choice choice, const char **why)
{
	const struct engine *engine;

	if (migrate_engine(&engine, choice)) {
		*why = chosen.why;
		return "none";
	}
	*why = chosen.huge_why;
	return chosen.huge->name;
}

const char *migrate_small_granules(enum engine_choice choice, const char **why)
{
	const struct engine *engine;

	*why = "as they are";
	if (migrate_engine(&engine, choice)) {
		*why = chosen.why;
		return "none";
	}
	if (engine != &engine_relocate)
		return engine->name;
	*why = "in Ferry's heap they become a huge page as they move; elsewhere the "
	       "kernel "
	       "makes one of them first (MADV_COLLAPSE)";
	if (relocate_can_small())
		return engine->name;
	*why = "the kernel makes a huge page of them first (MADV_COLLAPSE), for it does "
	       "not "
	       "let their empty page table be taken away";
	return "collapse";
}

/* ---- results ------------------------------------------------------------ */

void result_add(struct ferry_result *sum, const struct ferry_result *more)
{
	if (!sum->error)
		sum->error = more->error;
	sum->moved += more->moved;
	sum->populated += more->populated;
	sum->already += more->already;
	sum->busy += more->busy;
	sum->nomem += more->nomem;
	sum->hole += more->hole;
	sum->unsupported += more->unsupported;
}

uint64_t result_pages(const struct ferry_result *r)
{
	return r->moved + r->populated + r->already + r->busy + r->nomem + r->hole +
	       r->unsupported;
}

/*
 * The later run saw how things ended, except that it counts as already there
 * what the first run brought. A page that left again in between and was brought
 * back counts once.
 */
void result_rerun(struct ferry_result *result, const struct ferry_result *again,
		  uint64_t pages)
{
	uint64_t elsewhere =
		again->busy + again->nomem + again->hole + again->unsupported;
	uint64_t there = pages > elsewhere ? pages - elsewhere : 0;
	struct ferry_result sum = *again;

	sum.populated += result->populated;
	if (sum.populated > there)
		sum.populated = there;
	sum.moved += result->moved;
	if (sum.moved > there - sum.populated)
		sum.moved = there - sum.populated;
	sum.already = there - sum.populated - sum.moved;
	*result = sum;
}

/* ---- statistics --------------------------------------------------------- */

void migrate_count_submitted(void)
{
	atomic_fetch_add(&count.requests, 1);
}

void migrate_count_completed(const struct ferry_result *result)
{
	atomic_fetch_add(&count.moved, result->moved);
	atomic_fetch_add(&count.populated, result->populated);
	atomic_fetch_add(&count.already, result->already);
	atomic_fetch_add(&count.busy, result->busy);
	atomic_fetch_add(&count.nomem, result->nomem);
	atomic_fetch_add(&count.hole, result->hole);
	atomic_fetch_add(&count.unsupported, result->unsupported);
	atomic_fetch_add(&count.completed, 1);
}

void migrate_stats(uint64_t *requests, uint64_t *completed, struct ferry_result *total)
{
	/* In this order, so that completed is never more than requests. */
	*completed = atomic_load(&count.completed);
	*requests = atomic_load(&count.requests);
	*total = (struct ferry_result){
		.moved = atomic_load(&count.moved),
		.populated = atomic_load(&count.populated),
		.already = atomic_load(&count.already),
		.busy = atomic_load(&count.busy),
		.nomem = atomic_load(&count.nomem),
		.hole = atomic_load(&count.hole),
		.unsupported = atomic_load(&count.unsupported),
	};
}
