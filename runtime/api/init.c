/* SPDX-License-Identifier: MIT */
/*
 * Lazy initialisation of libferry, by pthread_once, and what it does at fork.
 */
#include "api/runtime.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ferry/ferry.h>

#include "heap/region.h"

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

static void init(void)
{
	const char *error = NULL;
	int err;

	runtime.config = config_get(&error);
	if (runtime.config)
		runtime.topology = topology_get(&error);
	if (!runtime.topology) {
		fprintf(stderr, "ferry: %s\n", error);
		return;
	}
	if (!node_set_count(&runtime.topology->tier[FERRY_TIER_HBM]))
		say_no_hbm();
	huge_init(runtime.config->huge);
	err = region_init(runtime.topology, runtime.config->hbm_limit);
	if (err)
		fprintf(stderr,
			"ferry: memory policies cannot be set (mbind: %s); the kernel "
			"places "
			"all memory\n",
			strerror(-err));
	usable = true;
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

/*
 * Handlers run before fork(2) in the reverse order of their registration.
 * These come before jemalloc's constructor, so that the region's lock is taken
 * last, below jemalloc's.
 */
__attribute__((constructor(101))) static void register_fork(void)
{
	pthread_atfork(region_fork_prepare, region_fork_parent, region_fork_child);
}
