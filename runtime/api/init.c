/* SPDX-License-Identifier: MIT */
/*
 * Lazy initialisation of libferry, by pthread_once, and what it does at fork.
 */
#include "api/runtime.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ferry/ferry.h>

#include "heap/region.h"
#include "policy/auto.h"
#include "policy/budget.h"
#include "policy/ledger.h"

#define TEXT_(number) #number
#define TEXT(number)  TEXT_(number)

static struct runtime runtime;
static bool usable;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* `ferry run` says it for all processes that it starts. */
static void say_no_hbm(void)
{
	const char *said = getenv("FERRY_SAID_NO_HBM");

	if (!said || strcmp(said, "1") != 0)
		fprintf(stderr, "ferry: this machine has no HBM; all memory is DDR\n");
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "ferry: %s\n", line);
}

static void start_auto(void)
{
	const char *said = getenv("FERRY_SAID_NO_SAMPLER");
	const struct auto_options options = {
		.config = runtime.config,
		.topology = runtime.topology,
		.say = say,
		.said_no_sampler = said && !strcmp(said, "1"),
	};
	int err = pthread_atfork(NULL, NULL, auto_fork_child) ? -ENOMEM
							      : auto_start(&options);

	if (err)
		say("policy auto: no thread: %s; memory stays where it is first touched",
		    strerror(-err));
}

static void init(void)
{
	const char *error = NULL;
	bool has_hbm;
	int err;

	runtime.config = config_get(&error);
	if (runtime.config)
		runtime.topology = topology_get(&error);
	if (!runtime.topology) {
		fprintf(stderr, "ferry: %s\n", error);
		return;
	}
	has_hbm = node_set_count(&runtime.topology->tier[FERRY_TIER_HBM]) > 0;
	if (!has_hbm)
		say_no_hbm();
	huge_init(runtime.config->huge);
	budget_init(runtime.config, runtime.topology, say);
	err = region_init(runtime.topology, runtime.config->hbm_limit);
	if (ledger_is_entered())
		region_limit_by(budget_hbm_charged);
	if (err)
		fprintf(stderr,
			"ferry: memory policies cannot be set (mbind: %s); the kernel "
			"places "
			"all memory\n",
			strerror(-err));
	usable = true;
	if (runtime.config->policy == POLICY_AUTO && has_hbm && !err)
		start_auto();
}

const struct runtime *runtime_get(void)
{
	pthread_once(&once, init);
	return usable ? &runtime : NULL;
}

const char *ferry_version(void)
{
	return TEXT(FERRY_VERSION_MAJOR) "." TEXT(FERRY_VERSION_MINOR) "." TEXT(
		FERRY_VERSION_PATCH);
}

static void fork_prepare(void)
{
	auto_fork_prepare();
	region_fork_prepare();
	ledger_fork_prepare();
}

static void fork_parent(void)
{
	ledger_fork_parent();
	region_fork_parent();
	auto_fork_done();
}

static void fork_child(void)
{
	ledger_fork_child();
	region_fork_child();
	auto_fork_done();
}

/*
 * Handlers run before fork(2) in the reverse order of their registration.
 * These come before jemalloc's constructor, so that the region's lock is taken
 * last, below jemalloc's.
 */
__attribute__((constructor(101))) static void register_fork(void)
{
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}
