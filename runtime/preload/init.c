/* SPDX-License-Identifier: MIT */
/*
 * The preload library's start. Its constructor is the first of all libraries'
 * (linked with -z initfirst), so that jemalloc's options are set and its arenas
 * have their regions before anything is allocated. The C library's own
 * constructor has not run then: no stdio streams, and the environment comes as
 * an argument.
 *
 * Each automatic arena gets the hooks of one region. With a threshold jemalloc's
 * arena for oversized allocations gets those of the other region.
 */
#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "heap/extent_hooks.h"
#include "heap/huge.h"
#include "policy/auto.h"
#include "policy/budget.h"
#include "policy/filling.h"
#include "policy/ledger.h"
#include "preload/preload.h"
#include "preload/stacks.h"
#include "preload/statics.h"
#include "topology/topology.h"

/* jemalloc's largest small class, and its defaults for what is cached and oversized. */
#define SMALL_MOST  ((size_t)14 << 10)
#define CACHED_MOST ((size_t)32 << 10)
#define OVERSIZED   ((size_t)8 << 20)

/*
 * An arena gives a free extent of that size back at once. As extents are merged within
 * chunks (extent_hooks.h), jemalloc's threshold would be reached by whole chunks only,
 * and the others keep pages of freed blocks that few new ones fit into. A single block
 * that comes and goes is not meant: so what is larger than jemalloc's largest size below
 * that comes from the arena for oversized allocations, and is kept there up to jemalloc's
 * threshold.
 */
#define PURGE_FROM (CHUNK_SIZE / 16 * 13)
#define LARGE_FROM (CHUNK_SIZE / 4 * 3 + 1)

/*
 * jemalloc's own default is four arenas for each CPU, each set up when a thread is given
 * it. Ours are set up at the start of each process, which takes some 22 pages each, and
 * 50 us where page faults are slow: so there are fewer, and many CPUs share.
 * MALLOC_CONF=narenas:N says otherwise.
 */
#define ARENAS_EACH_CPU 2
#define ARENAS_MOST     32

#define TEXT_(number) #number
#define TEXT(number)  TEXT_(number)

struct preload preload;

/*
 * Options as defaults, which MALLOC_CONF may change, and options which it may
 * not: they are parsed before and after it.
 */
static char defaults[96], musts[128];
const char *malloc_conf = defaults;
const char *malloc_conf_2_conf_harder = musts;

void say(const char *format, ...)
{
	static const char prefix[] = "ferry: ";
	char line[640];
	size_t used = sizeof(prefix) - 1;
	int saved = errno, n;
	va_list args;
	ssize_t ignored;

	memcpy(line, prefix, used);
	va_start(args, format);
	n = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
	va_end(args);
	if (n > 0)
		used += (size_t)n < sizeof(line) - used - 1 ? (size_t)n
							    : sizeof(line) - used - 2;
	line[used++] = '\n';
	ignored = write(STDERR_FILENO, line, used);
	(void)ignored;
	errno = saved;
}

static bool has_variable(char *const envp[], const char *variable)
{
	for (; *envp; envp++)
		if (!strcmp(*envp, variable))
			return true;
	return false;
}

static unsigned int cpu_count(void)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) ? 1
							 : (unsigned int)CPU_COUNT(&cpus);
}

/* ---- options ------------------------------------------------------------- */

static void choose_kinds(void)
{
	const struct config *config = &preload.config;
	enum region_kind kind = REGION_DDR;

	switch (config->policy) {
	case POLICY_DDR:
		break;
	case POLICY_HBM:
		kind = REGION_HBM;
		break;
	case POLICY_INTERLEAVE:
		kind = REGION_INTERLEAVE;
		break;
	case POLICY_AUTO:
		kind = REGION_AUTO;
		break;
	case POLICY_THRESHOLD:
		kind = REGION_HBM;
		if (config->manage & MANAGE_HEAP)
			preload.threshold = config->min_size;
		break;
	}
	preload.mapping_kind = kind;
	if (config->manage & MANAGE_HEAP) {
		preload.large_kind = kind;
		if (config->policy != POLICY_THRESHOLD)
			preload.heap_kind = kind;
	}
}

/*
 * With a threshold the thread caches must end below it, or else they would
 * hand out what one region gave where the other is meant.
 */
static void set_options(void)
{
	unsigned int arenas = cpu_count() * ARENAS_EACH_CPU;
	size_t cached = preload.threshold > CACHED_MOST ? CACHED_MOST : SMALL_MOST;

	snprintf(defaults, sizeof(defaults), "narenas:%u,oversize_threshold:%zu%s",
		 arenas < ARENAS_MOST ? arenas : ARENAS_MOST, LARGE_FROM,
		 huge_keeps() ? ",muzzy_decay_ms:" TEXT(MUZZY_DECAY_MS) : "");
	if (preload.threshold)
		snprintf(musts, sizeof(musts),
			 "retain:false,percpu_arena:disabled,oversize_threshold:%zu,"
			 "tcache_max:%zu",
			 preload.threshold, cached);
	else
		snprintf(musts, sizeof(musts), "retain:false,percpu_arena:disabled");
}

/* ---- arenas -------------------------------------------------------------- */

/* Sets jemalloc's "arena.@arena.@name". 0 or an errno. */
static int set_of_arena(unsigned int arena, const char *name, void *value, size_t size)
{
	char full[64];

	snprintf(full, sizeof(full), "arena.%u.%s", arena, name);
	return mallctl(full, NULL, NULL, value, size);
}

/*
 * Gives an arena its region. @purge_from: freed extents of that size on are given back
 * at once; 0: of jemalloc's oversize threshold.
 */
static int place_arena(unsigned int arena, enum region_kind kind, size_t purge_from)
{
	extent_hooks_t *hooks = extent_hooks(kind, false);
	int err = set_of_arena(arena, "extent_hooks", (void *)&hooks, sizeof(hooks));

	if (!err && purge_from)
		err = set_of_arena(arena, "oversize_threshold", &purge_from,
				   sizeof(purge_from));
	return err;
}

/* An automatic arena is created when its hooks are first set. */
static int set_up_arena(unsigned int arena, size_t purge_from)
{
	extent_hooks_t *metadata = extent_hooks(REGION_METADATA, false);
	int err = 0;

	if (arena) /* the first is there already */
		err = set_of_arena(arena, "extent_hooks", (void *)&metadata,
				   sizeof(metadata));
	return err ? err : place_arena(arena, preload.heap_kind, purge_from);
}

/*
 * jemalloc's arena for oversized allocations, which follows the automatic
 * ones, and is created when a thread is given it. It gives back at once what is freed, as
 * jemalloc itself would set it up, unless a small threshold sends it allocations that
 * come and go.
 */
static int set_up_large_arena(unsigned int arena, size_t oversized)
{
	ssize_t decay, at_once = 0;
	size_t size = sizeof(decay);
	unsigned int first = 0;
	bool small = oversized < OVERSIZED;
	int err = mallctl("thread.arena", NULL, NULL, &arena, sizeof(arena));

	if (!err)
		err = mallctl("thread.arena", NULL, NULL, &first, sizeof(first));
	if (!err)
		err = place_arena(arena, preload.large_kind, small ? OVERSIZED : 0);

	if (err || small || mallctl("arenas.dirty_decay_ms", &decay, &size, NULL, 0) ||
	    decay <= 0)
		return err;
	return set_of_arena(arena, "dirty_decay_ms", &at_once, sizeof(at_once));
}

/* 0 or an errno. EBUSY: jemalloc's options were read before they were set. */
static int set_up_arenas(void)
{
	unsigned int count;
	size_t oversized, purge_from = 0, size = sizeof(oversized);
	bool retain;
	int err = mallctl("opt.oversize_threshold", &oversized, &size, NULL, 0);

	size = sizeof(retain);
	if (!err)
		err = mallctl("opt.retain", &retain, &size, NULL, 0);
	if (!err && (retain || (preload.threshold && oversized != preload.threshold)))
		err = EBUSY;
	size = sizeof(count);
	if (!err)
		err = mallctl("opt.narenas", &count, &size, NULL, 0);
	/* Above the largest block that an arena can have for itself. */
	if (oversized && oversized <= LARGE_FROM)
		purge_from = PURGE_FROM;
	else if (oversized && oversized < OVERSIZED)
		purge_from = OVERSIZED;
	for (unsigned int arena = 0; !err && arena < count; arena++)
		err = set_up_arena(arena, purge_from);
	if (!err && oversized)
		err = set_up_large_arena(count, oversized);
	return err;
}

/* ---- the start ----------------------------------------------------------- */

/* These run before a fork after jemalloc's, whose locks are above ours. */
static void fork_prepare(void)
{
	mapping_fork_prepare();
	stacks_fork_prepare();
	auto_fork_prepare();
	region_fork_prepare();
	ledger_fork_prepare();
}

static void fork_parent(void)
{
	ledger_fork_parent();
	region_fork_parent();
	auto_fork_done();
	stacks_fork_parent();
	mapping_fork_done();
}

static void fork_child(void)
{
	ledger_fork_child();
	region_fork_child();
	auto_fork_done();
	stacks_fork_child();
	mapping_fork_done();
}

static bool read_surroundings(struct topology *topology, char *const envp[])
{
	char error[512];

	if (config_read(&preload.config, envp, error, sizeof(error)) ||
	    topology_read(topology, TOPOLOGY_SYSFS, preload.config.hbm_nodes, error,
			  sizeof(error))) {
		say("%s; placement is off", error);
		return false;
	}
	choose_kinds();
	return true;
}

static bool wants_hbm(void)
{
	return preload.mapping_kind != REGION_DDR;
}

/* What the policy auto manages besides the heap. */
static size_t other_spans(struct span *out, size_t max)
{
	size_t n = mapping_spans(out, max), left = n < max ? max - n : 0;

	n += statics_spans(out + max - left, left);
	left = n < max ? max - n : 0;
	return n + stacks_spans(out + max - left, left);
}

static bool is_other(uintptr_t start, uintptr_t *end)
{
	return mapping_has_managed(start, end) || statics_has_managed(start, end) ||
	       stacks_has_managed(start, end);
}

/* After jemalloc's own handlers, so that a forked child can allocate. */
static void start_auto(const struct topology *topology, char *const envp[])
{
	const struct auto_options auto_options = {
		.config = &preload.config,
		.topology = topology,
		.spans = other_spans,
		.has = is_other,
		.say = say,
		.said_no_sampler = has_variable(envp, "FERRY_SAID_NO_SAMPLER=1"),
	};
	int err;

	err = pthread_atfork(NULL, NULL, auto_fork_child) ? -ENOMEM
							  : auto_start(&auto_options);
	if (err)
		say("policy auto: no thread: %s; memory stays where it is first touched",
		    strerror(-err));
}

__attribute__((constructor(101))) static void init(int argc, char **argv, char **envp)
{
	static struct topology topology;
	int policy_err, err;
	bool has_hbm;

	(void)argc;
	(void)argv;
	/* The C library will set it to the same; jemalloc looks for MALLOC_CONF. */
	if (!environ)
		environ = envp;
	if (!read_surroundings(&topology, envp))
		return;
	has_hbm = node_set_count(&topology.tier[FERRY_TIER_HBM]) > 0;
	if (!has_hbm && wants_hbm() && !has_variable(envp, "FERRY_SAID_NO_HBM=1"))
		say("this machine has no HBM; all memory is DDR");
	huge_init(preload.config.huge);
	if (preload.config.huge == HUGE_ALWAYS && huge_system() <= HUGE_SYSTEM_NEVER &&
	    !has_variable(envp, "FERRY_SAID_NO_HUGE=1"))
		say(HUGE_MISSING);
	budget_init(&preload.config, &topology, say);
	policy_err = region_init(&topology, preload.config.hbm_limit);
	if (ledger_is_entered())
		region_limit_by(budget_hbm_charged);
	if (policy_err && !has_variable(envp, "FERRY_SAID_NO_HBM=1"))
		say("memory policies cannot be set (mbind: %s); placement is off",
		    strerror(-policy_err));
	set_options();
	/* Before jemalloc registers its handlers. */
	if (pthread_atfork(fork_prepare, fork_parent, fork_child)) {
		say("no memory for fork handlers; placement is off");
		return;
	}
	err = set_up_arenas();
	if (err) {
		say("jemalloc's arenas cannot be placed: %s; placement is off",
		    err == EBUSY ? "it was in use before Ferry started" : strerror(err));
		preload.threshold = 0;
		return;
	}
	preload.place_mappings =
		has_hbm && !policy_err && preload.config.manage & MANAGE_MMAP;
	preload.advise_mappings = huge_advises_mappings();
	preload.active = true;
	filling_start(&preload.config, has_variable(envp, "FERRY_SAID_NO_FIRST_TOUCH=1"),
		      say);
	if (has_hbm && !policy_err && preload.config.manage & MANAGE_STATIC)
		statics_init();
	if (has_hbm && !policy_err && preload.config.manage & MANAGE_STACK)
		stacks_init();
	preload.has_auto = preload.config.policy == POLICY_AUTO && has_hbm && !policy_err;
	if (preload.has_auto)
		start_auto(&topology, envp);
	if (preload.config.stats)
		summary_init();
}
