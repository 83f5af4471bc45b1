/* SPDX-License-Identifier: MIT */
/*
 * Children that get a copy of memory while some of it is out of its place: those of
 * a clone(2) that no fork handler saw. The kernel tells by UFFD_EVENT_FORK, for
 * those with CAP_SYS_PTRACE, and lets the child wait for what is missing. No state
 * but that a failure is told once; the reader of the events calls, with whatever
 * lock keeps what is out as it was when the child got its memory.
 */
#ifndef FERRY_INHERIT_H
#define FERRY_INHERIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Copies the @len bytes at @from, which belong at @home, to a child by its
 * userfaultfd. May wait for a second where there is no memory. false: not all is there.
 */
bool inherit(int child, uintptr_t home, const void *from, size_t len);

/* Lets the child go on, if all is there; it waits for ever rather than read zeros. */
void inherit_end(int child, bool all);

#endif /* FERRY_INHERIT_H */
