/* SPDX-License-Identifier: MIT */
/* Reading line by line: see lines.h. No shared state. */
#include "os/lines.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int lines_next(struct lines *lines, char **line)
{
	for (;;) {
		char *start = lines->buffer + lines->begin;
		char *newline = memchr(start, '\n', lines->end - lines->begin);
		ssize_t got;

		if (newline) {
			*newline = '\0';
			*line = start;
			lines->begin += (size_t)(newline - start) + 1;
			return 1;
		}
		memmove(lines->buffer, start, lines->end - lines->begin);
		lines->end -= lines->begin;
		lines->begin = 0;
		if (lines->end == sizeof(lines->buffer))
			return -E2BIG;
		got = read(lines->fd, lines->buffer + lines->end,
			   sizeof(lines->buffer) - lines->end);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : 0;
		lines->end += (size_t)got;
	}
}
