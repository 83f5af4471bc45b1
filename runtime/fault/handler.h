/* SPDX-License-Identifier: MIT */
/*
 * The fault handler: the thread that reads the process's userfaultfd, and the
 * only one that takes pages out and puts them back (trap.h).
 *
 * Rules of its thread. It blocks all signals. It reads many events per read(2),
 * and takes those that tell of changed mappings before the faults. It never
 * allocates from the managed heap nor touches managed memory, takes no lock, and
 * waits for nothing but the kernel. It frees and unmaps nothing that is
 * registered, for the event would be its own to read. Its table of file
 * descriptors is its own, so that a program that closes descriptors it does not
 * know cannot close its userfaultfd, which would lose the pages that are out.
 *
 * Other threads reach it by having a page removed, the bell, which waits until this
 * thread has been told (UFFD_EVENT_REMOVE); no descriptor and no lock is shared with it.
 *
 * A change of mappings that the program makes through the preload library is
 * done under handler_hold(), which has the pages concerned put back first. What
 * is done behind its back the kernel tells by events. Both leave the program's
 * data right; the events cost more and bar the granules from being sampled.
 *
 * Around fork(2) all pages are in their places; the child has no handler and may
 * start one, after it has called handler_stop(). An engine that moves memory does so
 * under a hold, or while nothing is out.
 *
 * handler_start() and handler_stop() are for one thread at a time; the others may
 * be called from any thread and from signal handlers.
 */
#ifndef FERRY_HANDLER_H
#define FERRY_HANDLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fault/trap.h"

/* What the handler's thread calls, under its rules. */
struct handler_client {
	/* After every wake-up, with CLOCK_MONOTONIC; returns when to be called next. */
	uint64_t (*tick)(uint64_t now);
	/* A page that was out is back. */
	trap_ended *ended;
};

/*
 * Starts the thread; again after a fork, in the child. 0, or -errno: -EPERM
 * (not permitted: faults inside the kernel, or the events of a fork), -ENOSYS,
 * -EINVAL (no UFFDIO_MOVE), -ENOMEM, -EAGAIN, -EMFILE.
 */
int handler_start(const struct handler_client *client);
/* Puts everything back and ends the thread. */
void handler_stop(void);
bool handler_is_running(void);

/* Has tick() called now, and returns soon after. */
void handler_wake(void);

/*
 * Until handler_let_go(), nothing of [addr, addr + len) is out of its place, and
 * nothing else is newly taken out. Holds may nest.
 */
void handler_hold(const void *addr, size_t len);
void handler_let_go(void);

#endif /* FERRY_HANDLER_H */
