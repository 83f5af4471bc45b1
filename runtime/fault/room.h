/* SPDX-License-Identifier: MIT */
/*
 * How much memory this process may still take: what the machine has available,
 * and what the limits of its cgroup and of that one's ancestors (version 2) leave.
 * No allocation. Opened by one thread, and then used by any that shares its
 * descriptors, one at a time.
 */
#ifndef FERRY_ROOM_H
#define FERRY_ROOM_H

#include <stdint.h>

/* Opens the files that tell. What cannot be opened limits nothing. */
void room_open(void);

/*
 * What the machine has, or what the tightest limit allows, and what is left of
 * it, with memory that files are cached in; in bytes, UINT64_MAX: nothing tells.
 */
struct room {
	uint64_t total, left;
};
struct room room_look(void);

#endif /* FERRY_ROOM_H */
