/* SPDX-License-Identifier: MIT */
/* Memory for tests of user faults: see fault_memory.h. */
#include "fault_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fault/first_touch.h"
#include "test_pages.h"

char *fault_map(void)
{
	return pages_map(SIZE, false);
}

char *fault_fresh(void)
{
	char *mem = fault_map();

	if (first_touch_add((uintptr_t)mem, SIZE))
		abort();
	return mem;
}

size_t pages_there(const char *mem, size_t len)
{
	static uint64_t entry[SIZE / PAGE];
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t pages = len / PAGE, there = 0;
	ssize_t n = pread(fd, entry, pages * sizeof(entry[0]),
			  (off_t)((uintptr_t)mem / PAGE * sizeof(entry[0])));

	close(fd);
	if (n != (ssize_t)(pages * sizeof(entry[0])))
		abort();
	for (size_t i = 0; i < pages; i++)
		there += (entry[i] >> 62 & 3) != 0; /* present or swapped */
	return there;
}

size_t anonymous_kib(void)
{
	static const char name[] = "RssAnon:";
	char text[4096];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, text, sizeof(text) - 1);
	const char *found;

	close(fd);
	text[n > 0 ? n : 0] = '\0';
	found = strstr(text, name);
	if (!found)
		abort();
	return strtoul(found + sizeof(name) - 1, NULL, 10);
}

bool all_are(const char *mem, size_t len, char value)
{
	for (size_t at = 0; at < len; at++)
		if (mem[at] != value)
			return false;
	return true;
}
