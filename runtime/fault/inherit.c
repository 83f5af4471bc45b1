/* SPDX-License-Identifier: MIT */
/* Children of clone(2) (inherit.h). */
#include "fault/inherit.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "fault/uffd.h"
#include "migrate/page.h"

#define PAUSE_NS 1000000
#define ATTEMPTS 1000

/*
 * A page that the child has unmapped, or has, is as good as copied; so is one of a
 * child that has ended.
 */
static bool copy_page(int child, uintptr_t home, const void *from)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};
	size_t done;

	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		int err = uffd_copy(child, home, from, PAGE_BYTES, 0, &done);

		if (err != -EAGAIN && err != -ENOMEM)
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

bool inherit(int child, uintptr_t home, const void *from, size_t len)
{
	for (size_t at = 0; at < len; at += PAGE_BYTES)
		if (!copy_page(child, home + at, (const char *)from + at))
			return false;
	return true;
}

void inherit_end(int child, bool all)
{
	static atomic_flag told = ATOMIC_FLAG_INIT;

	if (all)
		close(child);
	else if (!atomic_flag_test_and_set(&told))
		fprintf(stderr, "ferry: no memory to give a child of clone(2) its data; "
				"it waits\n");
}
