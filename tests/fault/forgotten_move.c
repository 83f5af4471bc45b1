/* SPDX-License-Identifier: MIT */
/* A kernel that forgets pages that it has moved (forgotten_move.h). Any thread. */
#include "forgotten_move.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include <linux/userfaultfd.h>

#include "migrate/page.h"

/* struct uffdio_move of Linux 6.8 */
struct move {
	uint64_t to, from, len, mode;
	int64_t moved;
};

static atomic_uint countdown;

int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, ...);

void forget_move(unsigned int nth)
{
	atomic_store(&countdown, nth);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;
	int ret;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	ret = __real_ioctl(fd, request, arg);
	if (request == _IOWR(UFFDIO, 0x05, struct move) && !ret &&
	    atomic_load(&countdown) && atomic_fetch_sub(&countdown, 1) == 1) {
		struct move *move = arg;

		bool some = move->moved > (int64_t)PAGE_BYTES;

		/* All that the attempt after the first one has moved. */
		move->moved = some ? (int64_t)PAGE_BYTES : -EEXIST;
		errno = some ? EAGAIN : EEXIST;
		ret = -1;
	}
	return ret;
}
