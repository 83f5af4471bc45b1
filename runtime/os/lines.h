/* SPDX-License-Identifier: MIT */
/*
 * Lines of a file of /proc, without stdio and without allocating. One thread's; the
 * descriptor is the caller's.
 */
#ifndef FERRY_LINES_H
#define FERRY_LINES_H

#include <stddef.h>

struct lines {
	int fd;
	size_t begin,
		end; /* unread part of buffer; to be 0 where the file is begun with */
	char buffer[8192]; /* a path is 4096 at most, so a line of the kernel's fits */
};

/*
 * 1, and in *@line the next one without its end, until the call after; 0 at the end of
 * the file; or -errno, -E2BIG for a line that is too long.
 */
int lines_next(struct lines *lines, char **line);

#endif /* FERRY_LINES_H */
