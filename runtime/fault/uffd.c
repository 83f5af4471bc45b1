/* SPDX-License-Identifier: MIT */
/* Thin wrappers of userfaultfd(2) (uffd.h). */
#include "fault/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* struct uffdio_move of Linux 6.8 */
struct move_arg {
	uint64_t dst, src, len, mode;
	int64_t moved;
};
#define MOVE _IOWR(UFFDIO, 0x05, struct move_arg)

int uffd_open_device(void)
{
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd, err;

	if (device < 0)
		return -errno;
	fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	err = -errno;
	close(device);
	return fd < 0 ? err : fd;
}

int uffd_open_syscall(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : fd;
}

int uffd_open(uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = uffd_open_device(), err;

	if (fd < 0)
		fd = uffd_open_syscall(0);
	if (fd < 0)
		return fd;
	if (!ioctl(fd, UFFDIO_API, &api))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

const char *uffd_why(int err)
{
	switch (err) {
	case -EPERM:
	case -EACCES:
		return "userfaultfd: permission denied (needs access to "
		       "/dev/userfaultfd, or vm.unprivileged_userfaultfd=1)";
	case -ENOSYS:
		return "userfaultfd: this kernel has none";
	case -EINVAL:
		return "userfaultfd: this kernel's lacks UFFDIO_MOVE (Linux 6.8)";
	default:
		return "userfaultfd: cannot be opened";
	}
}

static int register_as(int fd, uintptr_t addr, size_t len, uint64_t mode)
{
	struct uffdio_register range = {.range = {addr, len}, .mode = mode};

	return ioctl(fd, UFFDIO_REGISTER, &range) ? -errno : 0;
}

int uffd_register(int fd, uintptr_t addr, size_t len)
{
	return register_as(fd, addr, len, UFFDIO_REGISTER_MODE_MISSING);
}

int uffd_admit(int fd, uintptr_t addr, size_t len)
{
	/* Write protection is a mode that is not used until it is asked for. */
	return register_as(fd, addr, len, UFFDIO_REGISTER_MODE_WP);
}

int uffd_wake(int fd, uintptr_t addr, size_t len)
{
	struct uffdio_range range = {addr, len};

	return ioctl(fd, UFFDIO_WAKE, &range) ? -errno : 0;
}

/*
 * From Linux 6.4 on who faults has locked the mapping alone, and may begin to wait
 * after the kernel has woken all and before it has the mapping to itself
 * (fs/userfaultfd.c, userfaultfd_unregister()). Nobody would wake it ever.
 */
int uffd_unregister(int fd, uintptr_t addr, size_t len)
{
	struct uffdio_range range = {addr, len};
	int err = ioctl(fd, UFFDIO_UNREGISTER, &range) ? -errno : 0;

	uffd_wake(fd, addr, len);
	return err;
}

/* The kernel leaves a negative number where it got nowhere. */
static size_t progress(int64_t done)
{
	return done > 0 ? (size_t)done : 0;
}

int uffd_move(int fd, uintptr_t to, uintptr_t from, size_t len, uint64_t mode,
	      size_t *done)
{
	struct move_arg arg = {.dst = to, .src = from, .len = len, .mode = mode};
	int err = ioctl(fd, MOVE, &arg) ? -errno : 0;

	*done = progress(arg.moved);
	return err;
}

size_t uffd_moved_most(int err, size_t done, size_t len)
{
	return done || err == -EEXIST ? len : 0;
}

int uffd_copy(int fd, uintptr_t to, const void *from, size_t len, uint64_t mode,
	      size_t *done)
{
	struct uffdio_copy arg = {
		.dst = to, .src = (uintptr_t)from, .len = len, .mode = mode};
	int err = ioctl(fd, UFFDIO_COPY, &arg) ? -errno : 0;

	*done = progress(arg.copy);
	return err;
}

int uffd_zero(int fd, uintptr_t addr, size_t len, uint64_t mode, size_t *done)
{
	struct uffdio_zeropage arg = {.range = {addr, len}, .mode = mode};
	int err = ioctl(fd, UFFDIO_ZEROPAGE, &arg) ? -errno : 0;

	*done = progress(arg.zeropage);
	return err;
}
