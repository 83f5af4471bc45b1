/* SPDX-License-Identifier: MIT */
/* The limit of HBM: see hbm_limit.h, which also has the locking rule. */
#include "heap/hbm_limit.h"

#include <stdatomic.h>

static _Atomic uint64_t used; /* parts of bytes; written under the lock, read without */
static _Atomic uint64_t kept; /* parts too; what Ferry keeps for itself */
/* These never change once memory is cut. */
static uint64_t most = UINT64_MAX; /* parts */
static unsigned int parts_of_byte;
static uint64_t (*limit_by)(uint64_t bytes);

void hbm_limit_init(uint64_t bytes, unsigned int parts)
{
	parts_of_byte = parts;
	most = bytes > UINT64_MAX / parts ? UINT64_MAX : bytes * parts;
}

void hbm_limit_by(uint64_t (*limit)(uint64_t bytes))
{
	limit_by = limit;
}

/* Who is refused to keep something has added it to what is kept for a moment. */
static bool is_within(uint64_t parts)
{
	uint64_t bytes;

	if (__builtin_add_overflow(parts, kept, &parts))
		return false;
	bytes = parts / parts_of_byte;
	return parts <= most && (!limit_by || bytes <= limit_by(bytes));
}

bool hbm_limit_charge(size_t bytes, unsigned int weight)
{
	uint64_t parts;

	if (!bytes || !weight)
		return true;
	if (__builtin_mul_overflow(bytes, weight, &parts) ||
	    __builtin_add_overflow(parts, used, &parts) || !is_within(parts))
		return false;
	used = parts;
	return true;
}

void hbm_limit_uncharge(size_t bytes, unsigned int weight)
{
	used -= (uint64_t)bytes * weight;
}

bool hbm_limit_keep(size_t bytes)
{
	uint64_t parts = (uint64_t)bytes * parts_of_byte;
	uint64_t left = most - used;

	/* A cut at the same time may be over the limit for once. */
	if (atomic_fetch_add(&kept, parts) + parts <= left)
		return true;
	atomic_fetch_sub(&kept, parts);
	return false;
}

void hbm_limit_unkeep(size_t bytes)
{
	atomic_fetch_sub(&kept, (uint64_t)bytes * parts_of_byte);
}

uint64_t hbm_limit_used(void)
{
	return parts_of_byte ? (used + kept) / parts_of_byte : 0;
}
