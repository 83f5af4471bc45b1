/* SPDX-License-Identifier: MIT */
/*
 * ferry.h: advice and phases. Each part of a range goes to whoever manages it:
 * the policy auto of this library, or that of the preload library, if the
 * program runs under it; the rest is moved here. No state; thread-safe.
 */
#include <errno.h>

#include <ferry/ferry.h>

#include "api/runtime.h"
#include "migrate/migrate.h"
#include "migrate/worker.h"
#include "policy/auto.h"
#include "policy/phase.h"
#include "preload/advise.h"

/* As ferry_submit(), with nobody waiting. */
static int move(const struct runtime *runtime, uintptr_t start, uintptr_t end,
		enum ferry_advice advice)
{
	bool to_hbm = advice == FERRY_ADVICE_WILL_NEED || advice == FERRY_ADVICE_PIN_HBM;
	const struct ferry_range range = {.addr = (void *)start,
					  .len = end - start,
					  .node = to_hbm ? FERRY_NODE_HBM
							 : FERRY_NODE_DDR,
					  .flags = FERRY_STAY};
	const struct engine *engine;
	ferry_request *request;
	struct plan plan;
	int err;

	if (advice == FERRY_ADVICE_NONE ||
	    !node_set_count(&runtime->topology->tier[FERRY_TIER_HBM]))
		return 0;
	err = migrate_engine(&engine, runtime->config->engine);
	if (!err)
		err = ranges_plan(&plan, &range, 1, runtime->topology);
	if (!err)
		err = request_make(&request, &plan);
	if (err)
		return err;
	err = worker_submit(engine, request);
	request_put(request);
	return err;
}

/* Advises on the part of [start, *end) that one policy manages, or none. */
static int advise_part(const struct runtime *runtime, uintptr_t start, uintptr_t *end,
		       enum ferry_advice advice)
{
	bool taken = false;
	int err = auto_advise(start, end, advice, &taken);

	if (!err && !taken && ferry_preload_advise)
		err = ferry_preload_advise(start, end, advice, &taken);
	return err || taken ? err : move(runtime, start, *end, advice);
}

int ferry_advise(const void *addr, size_t len, enum ferry_advice advice)
{
	const struct runtime *runtime = runtime_get();
	uintptr_t start = (uintptr_t)addr, end = start + len;
	int err = 0;

	if (!runtime || (unsigned int)advice > FERRY_ADVICE_PIN_HBM || end < start ||
	    end > UINTPTR_MAX - PAGE_BYTES)
		return -EINVAL;
	if (advice == FERRY_ADVICE_PIN_HBM &&
	    !node_set_count(&runtime->topology->tier[FERRY_TIER_HBM]))
		return -ENODEV;
	while (start < end && !err) {
		uintptr_t part = end;

		err = advise_part(runtime, start, &part, advice);
		start = part;
	}
	return err;
}

/* Tells both policies of a phase, of which each keeps a table of its own. */
static int mark(int (*phase)(const char *name), enum preload_mark preload_mark,
		const char *name)
{
	int err = runtime_get() ? phase(name) : -EINVAL;

	if (err)
		return err;
	auto_wake();
	if (ferry_preload_phase)
		ferry_preload_phase(preload_mark, name);
	return 0;
}

int ferry_phase_begin(const char *name)
{
	return mark(phase_begin, PRELOAD_PHASE_BEGIN, name);
}

int ferry_phase_end(const char *name)
{
	return mark(phase_end, PRELOAD_PHASE_END, name);
}

int ferry_phase_prefetch(const char *name)
{
	return mark(phase_prefetch, PRELOAD_PHASE_PREFETCH, name);
}
