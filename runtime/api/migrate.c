/* SPDX-License-Identifier: MIT */
/*
 * ferry.h: migration and statistics. Nothing of its own but checks of
 * arguments; thread-safe.
 */
#include <errno.h>
#include <string.h>

#include <ferry/ferry.h>

#include "api/runtime.h"
#include "heap/region.h"
#include "migrate/migrate.h"
#include "migrate/worker.h"

/* Fills in a struct that the caller may know shorter or longer than this library. */
static void copy_out(void *to, size_t size, const void *from, size_t known)
{
	size_t shared = size < known ? size : known;

	memcpy(to, from, shared);
	memset((char *)to + shared, 0, size - shared);
}

/* What every migration begins with. On failure there is nothing to free. */
static int prepare(const struct engine **engine, struct plan *plan,
		   const struct ferry_range *ranges, size_t n)
{
	const struct runtime *runtime = runtime_get();
	int err;

	if (!runtime)
		return -EINVAL;
	err = migrate_engine(engine, runtime->config->engine);
	if (err)
		return err;
	return ranges_plan(plan, ranges, n, runtime->topology);
}

int ferry_migrate(const struct ferry_range *ranges, size_t n, struct ferry_result *result,
		  size_t size)
{
	const struct engine *engine;
	struct ferry_result sum;
	struct plan plan;
	int err;

	if (result && !size)
		return -EINVAL;
	err = prepare(&engine, &plan, ranges, n);
	if (err)
		return err;
	worker_run(engine, &plan, &sum);
	plan_free(&plan);
	if (result)
		copy_out(result, size, &sum, sizeof(sum));
	return 0;
}

int ferry_submit(const struct ferry_range *ranges, size_t n, ferry_request **out)
{
	const struct engine *engine;
	ferry_request *request;
	struct plan plan;
	int err;

	if (!out)
		return -EINVAL;
	err = prepare(&engine, &plan, ranges, n);
	if (!err)
		err = request_make(&request, &plan);
	if (err)
		return err;
	err = worker_submit(engine, request);
	if (err)
		request_put(request);
	else
		*out = request;
	return err;
}

int ferry_request_wait(ferry_request *request, int timeout_ms)
{
	return request ? request_wait(request, timeout_ms) : -EINVAL;
}

int ferry_request_fd(ferry_request *request)
{
	return request ? request_fd(request) : -EINVAL;
}

int ferry_request_result(ferry_request *request, struct ferry_result *result, size_t size)
{
	if (!request || !result || !size)
		return -EINVAL;
	if (!request_is_complete(request))
		return -EINPROGRESS;
	copy_out(result, size, &request->result, sizeof(request->result));
	return 0;
}

void ferry_request_free(ferry_request *request)
{
	if (request)
		request_put(request);
}

int ferry_stats(struct ferry_stats *stats, size_t size)
{
	struct ferry_stats now = {0};
	struct region_usage usage;

	if (!stats || !size || !runtime_get())
		return -EINVAL;
	migrate_stats(&now.requests, &now.completed, &now.total);
	region_usage(&usage);
	now.heap_bytes[FERRY_TIER_DDR] = usage.used_bytes[REGION_DDR];
	now.heap_bytes[FERRY_TIER_HBM] = usage.used_bytes[REGION_HBM];
	now.hbm_overflow_bytes = usage.overflow_bytes;
	copy_out(stats, size, &now, sizeof(now));
	return 0;
}

const char *ferry_engine(const char **why)
{
	const struct runtime *runtime = runtime_get();

	if (runtime)
		return migrate_engine_name(runtime->config->engine, why);
	if (why)
		*why = "a FERRY_ environment variable is wrong";
	return "none";
}
