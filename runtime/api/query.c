/* SPDX-License-Identifier: MIT */
/*
 * ferry.h: where memory is. Asks the engine in use, which asks the kernel;
 * thread-safe.
 */
#include <errno.h>

#include <ferry/ferry.h>

#include "api/runtime.h"
#include "migrate/migrate.h"

/* A query needs no engine that can move: without one it is a system call. */
static int query_engine(const struct engine **engine)
{
	const struct runtime *runtime = runtime_get();

	if (!runtime)
		return -EINVAL;
	if (migrate_engine(engine, runtime->config->engine))
		*engine = &engine_syscall;
	return 0;
}

/* Takes a range outward to page boundaries. */
static int align(const void *addr, size_t *len, uintptr_t *start)
{
	uintptr_t end = (uintptr_t)addr + *len;

	if (end < (uintptr_t)addr || end > UINTPTR_MAX - PAGE_BYTES)
		return -EINVAL;
	*start = page_down((uintptr_t)addr);
	*len = *len ? page_down(end - 1) + PAGE_BYTES - *start : 0;
	return 0;
}

int ferry_query_pages(const void *addr, size_t len, int16_t *nodes)
{
	const struct engine *engine;
	uintptr_t start;
	int err = align(addr, &len, &start);

	if (!err && len && !nodes)
		err = -EINVAL;
	if (!err)
		err = query_engine(&engine);
	return err ? err : engine->query(start, len, nodes);
}

int ferry_query(const void *addr, size_t len, uint64_t *pages, size_t n)
{
	int16_t node[2048]; /* 8 MiB of address space at a time */
	const struct engine *engine;
	uintptr_t start;
	int err = align(addr, &len, &start);

	if (!err && n && !pages)
		err = -EINVAL;
	if (!err)
		err = query_engine(&engine);
	if (err)
		return err;

	for (size_t i = 0; i < n; i++)
		pages[i] = 0;
	while (len) {
		size_t part = sizeof(node) / sizeof(node[0]) * PAGE_BYTES;

		if (part > len)
			part = len;
		err = engine->query(start, part, node);
		if (err)
			return err;
		for (size_t i = 0; i < part / PAGE_BYTES; i++)
			if (node[i] >= 0 && (size_t)node[i] < n)
				pages[node[i]]++;
		start += part;
		len -= part;
	}
	return 0;
}
