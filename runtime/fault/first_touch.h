/* SPDX-License-Identifier: MIT */
/*
 * First touch by user faults: memory that is registered with a userfaultfd is
 * filled, when it is touched, by threads of this part, many pages at a time
 * (fill.h) and where its memory policy says. For memory that is touched in order
 * this costs less than the kernel's fault for each page.
 *
 * It only ever puts zeros where nothing is, which is what the kernel would do; so
 * whatever a program does to such memory meanwhile, by madvise(2), munmap(2),
 * mremap(2) or in a child, its data is right. What is not filled here the kernel
 * fills: memory that is not registered any more, that of a forked child, and all
 * of it once the threads have ended, as they do when it does not pay (fill.h).
 *
 * The threads have all signals blocked. They never allocate, nor touch registered
 * memory, and take no lock that others hold. Their table of file descriptors is
 * their own: a program that closes descriptors which it does not know cannot
 * close the userfaultfd, and when the threads end with the process the kernel
 * fills what threads that are left touch, instead of letting them wait. Other threads
 * reach them by touching a page that is registered, the bell: the fault is
 * answered when what was asked for is done.
 *
 * Only a userfaultfd that takes faults inside the kernel will do: without, read(2)
 * into memory that was not touched yet would fail.
 */
#ifndef FERRY_FIRST_TOUCH_H
#define FERRY_FIRST_TOUCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Starts @threads threads; once a process. 0; or -errno with the reason in *@why, a
 * static string.
 */
int first_touch_start(unsigned int threads, const char **why);

/* How many threads a machine of this size should have. */
unsigned int first_touch_threads(void);

/*
 * Whether it could be started; in *@why, a static string, by what, or why not. @pins:
 * only if memory can then be pinned as ever (pin.h).
 */
bool first_touch_possible(bool pins, const char **why);

/*
 * Registers [addr, addr + len), whole granules of private anonymous memory, or
 * leaves it to the kernel again. 0, or -errno with nothing changed: -ESRCH (not
 * started in this process, or ended), -EBUSY (another userfaultfd has some of it),
 * -EINVAL, -ENOMEM. Any thread; not signal handlers.
 */
int first_touch_add(uintptr_t addr, size_t len);
int first_touch_remove(uintptr_t addr, size_t len);

struct first_touch_stats {
	bool started;     /* in this process */
	const char *ends; /* why it has ended since; NULL: it has not */
	uint64_t faults;  /* that were answered */
	uint64_t filled_bytes;
};
void first_touch_stats(struct first_touch_stats *out);

#endif /* FERRY_FIRST_TOUCH_H */
