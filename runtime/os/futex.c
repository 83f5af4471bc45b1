/* SPDX-License-Identifier: MIT */
/* Futexes: see futex.h. */
#include "os/futex.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/thread.h"

void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t ns)
{
	const struct timespec timeout = timespec_of(ns);

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value,
		ns == FUTEX_FOREVER ? NULL : &timeout, NULL, 0);
}

void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
