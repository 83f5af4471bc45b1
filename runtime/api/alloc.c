/* SPDX-License-Identifier: MIT */
/*
 * The allocation functions of ferry.h: placements to kinds of regions, and
 * strict placement. Thread-safe; no state but the heap's.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <ferry/ferry.h>

#include "api/runtime.h"
#include "api/strict.h"
#include "heap/heap.h"
#include "policy/advice.h"

#define KNOWN_FLAGS (FERRY_PLACEMENT_MASK | FERRY_STRICT | FERRY_ZERO)

/* What FERRY_ANY means for an allocation. */
static enum region_kind configured_kind(const struct config *config, size_t size)
{
	switch (config->policy) {
	case POLICY_HBM:
		return REGION_HBM;
	case POLICY_INTERLEAVE:
		return REGION_INTERLEAVE;
	case POLICY_THRESHOLD:
		return size >= config->min_size ? REGION_HBM : REGION_DDR;
	case POLICY_AUTO:
		return REGION_AUTO;
	case POLICY_DDR:
		break;
	}
	return REGION_DDR;
}

/* 0, or EINVAL for a placement that is none. */
static int read_placement(struct heap_request *request, const struct runtime *runtime,
			  unsigned int placement)
{
	request->strict = placement & FERRY_STRICT;
	request->zero = placement & FERRY_ZERO;
	if (placement & ~(unsigned int)KNOWN_FLAGS)
		return EINVAL;
	switch (placement & FERRY_PLACEMENT_MASK) {
	case FERRY_ANY:
		request->kind = configured_kind(runtime->config, request->size);
		return request->strict ? EINVAL : 0;
	case FERRY_DDR:
		request->kind = REGION_DDR;
		return 0;
	case FERRY_HBM:
		request->kind = REGION_HBM;
		return 0;
	case FERRY_INTERLEAVE:
		request->kind = REGION_INTERLEAVE;
		return request->strict ? EINVAL : 0;
	default:
		return EINVAL;
	}
}

/* 0, EINVAL or ENOMEM, as posix_memalign(3). */
static int allocate(void **out, struct heap_request *request, unsigned int placement)
{
	const struct runtime *runtime = runtime_get();
	enum ferry_tier tier;
	void *ptr;
	int err;

	if (!runtime)
		return EINVAL;
	err = read_placement(request, runtime, placement);
	if (err)
		return err;
	tier = request->kind == REGION_HBM ? FERRY_TIER_HBM : FERRY_TIER_DDR;
	if (request->strict && !strict_has_room(runtime->topology, tier, request->size))
		return ENOMEM;
	ptr = heap_alloc(request);
	if (!ptr)
		return ENOMEM;
	if (request->strict &&
	    !strict_populate(runtime->topology, tier, ptr, heap_usable_size(ptr))) {
		heap_free(ptr);
		return ENOMEM;
	}
	*out = ptr;
	return 0;
}

void *ferry_malloc(size_t size, unsigned int placement)
{
	struct heap_request request = {.size = size};
	void *ptr = NULL;
	int err = allocate(&ptr, &request, placement);

	if (err)
		errno = err;
	return ptr;
}

int ferry_posix_memalign(void **out, size_t alignment, size_t size,
			 unsigned int placement)
{
	struct heap_request request = {.size = size, .alignment = alignment};

	if (!alignment || alignment & (alignment - 1) || alignment % sizeof(void *))
		return EINVAL;
	return allocate(out, &request, placement);
}

/* Advice ends with the memory; before it does, for it may be another's at once. */
static void end_advice(const void *ptr)
{
	if (advice_changes())
		advice_forget((uintptr_t)ptr, (uintptr_t)ptr + heap_usable_size(ptr));
}

void *ferry_realloc(void *ptr, size_t size)
{
	void *moved;

	if (!ptr)
		return ferry_malloc(size, FERRY_ANY);
	end_advice(ptr);
	moved = heap_realloc(ptr, size);
	if (!moved)
		errno = ENOMEM;
	return moved;
}

void ferry_free(void *ptr)
{
	if (!ptr)
		return;
	end_advice(ptr);
	heap_free(ptr);
}

size_t ferry_usable_size(const void *ptr)
{
	return ptr ? heap_usable_size(ptr) : 0;
}
