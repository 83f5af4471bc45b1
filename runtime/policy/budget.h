/* SPDX-License-Identifier: MIT */
/*
 * The budget: how much HBM this process may have now. The least of
 *
 *   --hbm-limit
 *   what the HBM nodes of its cpuset have, but for the headroom
 *   memory.max of its cgroup and of those above (or cgroup v1's limit)
 *   its share by weight of all that, if it takes part in the ledger
 *
 * cpuset and cgroup may change while it runs; they are looked at anew once a
 * second. budget_init() comes once, before any other thread; all else is
 * thread-safe and allocates nothing.
 */
#ifndef FERRY_BUDGET_H
#define FERRY_BUDGET_H

#include <stdint.h>

#include "config/config.h"
#include "topology/topology.h"

/*
 * HBM that is left alone, of a node's @total bytes: below it memory has to leave,
 * and it is filled up to twice as much.
 */
static inline uint64_t budget_headroom(uint64_t total)
{
	const uint64_t least = (uint64_t)4 << 20;

	return total / 128 > least ? total / 128 : least;
}

/*
 * Reads what bounds this process, and enters it into the ledger if it has a
 * weight. *@config and *@topology are kept. @say: writes a line to stderr.
 */
void budget_init(const struct config *config, const struct topology *topology,
		 void (*say)(const char *format, ...));

/*
 * Bytes of HBM that this process may have now; UINT64_MAX: nothing but the nodes
 * bounds it.
 */
uint64_t budget_hbm(void);

/* The same for one that has @charged bytes charged to regions, and wants more. */
uint64_t budget_hbm_charged(uint64_t charged);

/* What all processes of this one's cpuset and cgroup share. */
uint64_t budget_total(void);

/* The nodes that the cpuset allows now. */
void budget_allowed(struct node_set *out);

#endif /* FERRY_BUDGET_H */
