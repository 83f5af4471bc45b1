/* SPDX-License-Identifier: MIT */
/*
 * userfaultfd(2): opening one, and its commands as functions that return 0 or
 * -errno. No state and no memory but the stack's; any thread.
 */
#ifndef FERRY_UFFD_H
#define FERRY_UFFD_H

#include <stddef.h>
#include <stdint.h>

#include <linux/userfaultfd.h>

/* Younger than the headers of Debian 12. */
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE                ((uint64_t)1 << 16) /* Linux 6.8 */
#define UFFDIO_MOVE_MODE_DONTWAKE        ((uint64_t)1 << 0)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES ((uint64_t)1 << 1)
#endif

/*
 * One way of opening each; @flags is 0 or UFFD_USER_MODE_ONLY. A descriptor
 * without its handshake, not blocking and closed by exec, or -errno.
 */
int uffd_open_device(void);
int uffd_open_syscall(int flags);

/*
 * A userfaultfd with these UFFD_FEATURE_* bits, by either way, that also takes
 * faults inside the kernel: without those read(2) into a page that is not
 * there fails with EFAULT. -EINVAL: the kernel lacks a feature.
 */
int uffd_open(uint64_t features);
/* What that error of uffd_open() means, a static string. */
const char *uffd_why(int err);

/* Threads that touch what is missing there wait until it is put there. */
int uffd_register(int fd, uintptr_t addr, size_t len);
/* Makes it what uffd_move() may move to; nobody waits for what is missing there. */
int uffd_admit(int fd, uintptr_t addr, size_t len);
/* Wakes who waits; they find what is there then. */
int uffd_unregister(int fd, uintptr_t addr, size_t len);

/*
 * Fills what is missing at @to, which is registered with @fd, and wakes who
 * waits for it: with the pages at @from, which go away there, or copies of
 * them, or zeros. @mode: UFFDIO_*_MODE_* bits. In *@done, also on failure, how many bytes
 * from the beginning are. -EAGAIN: an event must be read from @fd first, or it was
 * interrupted.
 *
 * uffd_move() with -EEXIST, or -EAGAIN after a part: there may be more. Linux 6.18
 * forgets what it moved at a second attempt (mm/userfaultfd.c, move_pages(): the error of
 * the first one stays), tries again, and finds the place taken by those very pages: a run
 * of small ones, all on one page table at most.
 */
int uffd_move(int fd, uintptr_t to, uintptr_t from, size_t len, uint64_t mode,
	      size_t *done);
int uffd_copy(int fd, uintptr_t to, const void *from, size_t len, uint64_t mode,
	      size_t *done);
int uffd_zero(int fd, uintptr_t addr, size_t len, uint64_t mode, size_t *done);

/* How much may have been moved of @len, given what uffd_move() returned and counted. */
size_t uffd_moved_most(int err, size_t done, size_t len);

/* Wakes who waits for what was filled with a mode of DONTWAKE. */
int uffd_wake(int fd, uintptr_t addr, size_t len);

#endif /* FERRY_UFFD_H */
