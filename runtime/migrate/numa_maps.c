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
#include "os/lines.h"

/* A program that maps and unmaps all the time could have it go on for ever. */
#define TRIES 100

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
	struct lines lines = {.fd = fd};
	uintptr_t addr, last = 0;
	char *line;

	while (lines_next(&lines, &line) > 0) {
		addr = count_line(count, line);
		if (addr <= last)
			return false;
		last = addr;
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
