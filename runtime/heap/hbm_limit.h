/* SPDX-License-Identifier: MIT */
/*
 * The limit of HBM: what the process may have of it, what the regions and mappings
 * have, and what Ferry keeps for itself. It is kept in bytes times the parts that
 * interleaved memory has, so that a byte of that can count as so many of them as
 * are HBM: exact in any cut.
 *
 * Locking: hbm_limit_charge() and _uncharge() under the lock of the regions
 * (region.h); the others in any thread, without a lock.
 */
#ifndef FERRY_HEAP_HBM_LIMIT_H
#define FERRY_HEAP_HBM_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * @bytes: most bytes of HBM in use at once, UINT64_MAX for no limit. @parts: of an
 * interleaved byte. Once a process, before any other call.
 */
void hbm_limit_init(uint64_t bytes, unsigned int parts);
/* What else bounds HBM, see region_limit_by(). */
void hbm_limit_by(uint64_t (*limit)(uint64_t bytes));

/* Of each of the bytes, @weight parts count as HBM. false: that is too much. */
bool hbm_limit_charge(size_t bytes, unsigned int weight);
void hbm_limit_uncharge(size_t bytes, unsigned int weight);

/*
 * Counts HBM that Ferry keeps for itself. false: there is no room. Without a lock,
 * for a copier is not to wait (migrate/relocate.h).
 */
bool hbm_limit_keep(size_t bytes);
void hbm_limit_unkeep(size_t bytes);

/* What counts against the limit now, in bytes. */
uint64_t hbm_limit_used(void);

#endif /* FERRY_HEAP_HBM_LIMIT_H */
