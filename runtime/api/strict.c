/* SPDX-License-Identifier: MIT */
/*
 * Strict placement: see strict.h. Memory is populated piece by piece, each
 * only when the tier has room for it, so that what other processes take in the
 * meantime ends it in time. No state.
 */
#include "api/strict.h"

#include <linux/mempolicy.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define PIECE_SIZE ((size_t)64 << 20)
#define SPARE      ((uint64_t)4 << 20) /* what the kernel keeps back, on each node */
#define QUERY      512                 /* pages asked for at once */

bool strict_has_room(const struct topology *topology, enum ferry_tier tier, size_t size)
{
	uint64_t room = 0;

	for (int i = 0; i < topology->node_count; i++) {
		uint64_t bytes = topology->node[i].tier == (int)tier
					 ? topology_free_bytes(topology->node[i].id)
					 : 0;

		room += bytes > SPARE ? bytes - SPARE : 0;
	}
	return room >= size;
}

/* Moves one page that is not on the tier; whether it is there now. */
static bool move_page(const struct topology *topology, enum ferry_tier tier, void *page)
{
	int node = topology_nearest(topology, tier, topology_current_node());
	int status = -1;

	if (node < 0 ||
	    syscall(SYS_move_pages, 0, 1UL, &page, &node, &status, MPOL_MF_MOVE))
		return false;
	return node_set_has(&topology->tier[tier], status);
}

static bool all_on_tier(const struct topology *topology, enum ferry_tier tier,
			char *start, const char *end, size_t page_size)
{
	void *pages[QUERY];
	int status[QUERY];

	while (start < end) {
		unsigned long n = 0;

		for (; n < QUERY && start < end; start += page_size)
			pages[n++] = start;
		if (syscall(SYS_move_pages, 0, n, pages, NULL, status, 0))
			return false;
		for (unsigned long i = 0; i < n; i++)
			if (!node_set_has(&topology->tier[tier], status[i]) &&
			    !move_page(topology, tier, pages[i]))
				return false;
	}
	return true;
}

bool strict_populate(const struct topology *topology, enum ferry_tier tier, void *addr,
		     size_t size)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
	char *start = (char *)((uintptr_t)addr & ~(page_size - 1));
	char *end = (char *)(((uintptr_t)addr + size + page_size - 1) & ~(page_size - 1));
	/* On a machine with one node there is no other tier. */
	bool verify = topology->node_count > 1;

	while (start < end) {
		size_t left = (size_t)(end - start);
		size_t piece = left < PIECE_SIZE ? left : PIECE_SIZE;

		if (!strict_has_room(topology, tier, piece) ||
		    madvise(start, piece, MADV_POPULATE_WRITE) ||
		    (verify &&
		     !all_on_tier(topology, tier, start, start + piece, page_size)))
			return false;
		start += piece;
	}
	return true;
}
