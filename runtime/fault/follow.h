/* SPDX-License-Identifier: MIT */
/*
 * Lets a thread that fills memory for another run on that one's node: to the
 * kernel "nearest" is what is near the CPU that fills. No allocation. Opened by
 * one thread; then any that shares its descriptors.
 */
#ifndef FERRY_FOLLOW_H
#define FERRY_FOLLOW_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether there is anything to follow: several nodes have CPUs. Any thread. */
bool follow_is_needed(void);

/* Reads which CPUs each node has. */
void follow_open(void);

/* Puts the calling thread on the node where thread @tid of this process last ran. */
void follow_thread(pid_t tid);

#endif /* FERRY_FOLLOW_H */
