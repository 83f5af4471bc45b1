/* SPDX-License-Identifier: MIT */
/*
 * Reading numa_maps (numa_maps.h). The kernel tells some mappings at a time. What then
 * comes together with mappings that it has told is told again, as one: seen by where it
 * begins, and all is read anew. What Ferry's samples and copies split and put together
 * would be so all the time, so they are held back. No shared state.
 */
#include "migrate/numa_maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault/handler.h"
#include "migrate/page.h"
#include "migrate/window.h"

/* A program that maps and unmaps all the time could have it go on for ever. */
#define TRIES 100

#define LINE_MOST 8192 /* a path is 4096 at most */

struct count {
	int (*kind_of)(const void *addr);
	uint64_t (*bytes)[FERRY_MAX_NODES];
};

/* "prefer (many):1 anon=512 dirty=512 N0=3 N1=509 kernelpagesize_kB=4" */
static void count_words(char *words, uint64_t bytes[FERRY_MAX_NODES])
{
	for (char *word = strtok_r(words, " ", &words); word;
	     word = strtok_r(NULL, " ", &words)) {
		char *value;
		unsigned long node;

		if (*word != 'N')
			continue;
		node = strtoul(word + 1, &value, 10);
		if (value > word + 1 && *value == '=' && node < FERRY_MAX_NODES)
			bytes[node] += strtoull(value + 1, NULL, 10) * PAGE_BYTES;
	}
}

/* The address that the line begins with. */
static uintptr_t count_line(const struct count *count, char *line)
{
	char *words;
	uintptr_t addr = strtoull(line, &words, 16);
	int kind = count->kind_of((const void *)addr);

	if (kind >= 0)
		count_words(words, count->bytes[kind]);
	return addr;
}

/* false: something was told twice. */
static bool count_all(const struct count *count, int fd)
{
	char text[LINE_MOST];
	uintptr_t addr, last = 0;
	size_t used = 0;
	ssize_t n;

	while ((n = read(fd, text + used, sizeof(text) - 1 - used)) > 0 ||
	       (n < 0 && errno == EINTR)) {
		char *line = text, *end;

		used += n > 0 ? (size_t)n : 0;
		text[used] = '\0';
		while ((end = strchr(line, '\n'))) {
			*end = '\0';
			addr = count_line(count, line);
			if (addr <= last)
				return false;
			last = addr;
			line = end + 1;
		}
		used -= (size_t)(line - text);
		memmove(text, line, used);
		if (used == sizeof(text) - 1)
			break;
	}
	return true;
}

int numa_maps_count(int (*kind_of)(const void *addr), uint64_t (*bytes)[FERRY_MAX_NODES],
		    size_t kinds)
{
	struct count count = {kind_of, bytes};
	int fd = open("/proc/self/numa_maps", O_RDONLY | O_CLOEXEC);
	bool counted = false;

	if (fd < 0)
		return -ENOENT;
	handler_hold(NULL, SIZE_MAX);
	windows_hold();
	for (int i = 0; i < TRIES && !counted; i++) {
		memset(bytes, 0, kinds * sizeof(*bytes));
		lseek(fd, 0, SEEK_SET);
		counted = count_all(&count, fd);
	}
	windows_release();
	handler_let_go();
	close(fd);
	return counted ? 0 : -EAGAIN;
}
