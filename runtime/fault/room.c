/* SPDX-License-Identifier: MIT */
/* What memory is left: see room.h. */
#include "fault/room.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CGROUPS "/sys/fs/cgroup"
#define LEVELS  16 /* from the process's cgroup up; what is above is not looked at */

static struct {
	int meminfo;
	int levels;
	struct {
		int most, used, stat;
	} cgroup[LEVELS];
} files = {.meminfo = -1};

/* The file's text, as far as it fits; false: there is none. */
static bool read_text(int fd, char *text, size_t size)
{
	ssize_t len = fd < 0 ? -1 : pread(fd, text, size - 1, 0);

	text[len > 0 ? len : 0] = '\0';
	return len > 0;
}

static int open_at(const char *cgroup, const char *file)
{
	char path[512];
	int len = snprintf(path, sizeof(path), CGROUPS "%s/%s", cgroup, file);

	return (size_t)len < sizeof(path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

/* The root of the hierarchy, "", has no limit. */
static void open_cgroups(char *cgroup)
{
	char *end;

	while (files.levels < LEVELS && (end = strrchr(cgroup, '/'))) {
		int most = end[1] ? open_at(cgroup, "memory.max") : -1;
		int used = most < 0 ? -1 : open_at(cgroup, "memory.current");

		if (used >= 0) {
			files.cgroup[files.levels].most = most;
			files.cgroup[files.levels].used = used;
			files.cgroup[files.levels++].stat =
				open_at(cgroup, "memory.stat");
		} else if (most >= 0) {
			close(most);
		}
		*end = '\0';
	}
}

void room_open(void)
{
	char text[512];
	int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	char *path = read_text(fd, text, sizeof(text)) ? strstr(text, "0::/") : NULL;

	if (fd >= 0)
		close(fd);
	files.levels = 0;
	files.meminfo = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	if (!path)
		return;
	path += strlen("0::");
	path[strcspn(path, "\n")] = '\0';
	open_cgroups(path);
}

/* The number after @name in @text; 0: it is not there. */
static uint64_t number(const char *text, const char *name)
{
	const char *found = strstr(text, name);

	return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

/* What one of those who limit memory leaves. */
static void note(struct room *room, uint64_t total, uint64_t used)
{
	uint64_t left = total > used ? total - used : 0;

	if (left < room->left)
		*room = (struct room){total, left};
}

static void note_machine(struct room *room)
{
	char text[512];
	uint64_t total, available;

	if (!read_text(files.meminfo, text, sizeof(text)))
		return;
	total = number(text, "MemTotal:") << 10;
	available = number(text, "MemAvailable:") << 10;
	note(room, total, total - available);
}

static void note_cgroup(struct room *room, int i)
{
	char most[32], used[32], stat[4096];
	uint64_t cached, in_use;

	/* "max": no limit */
	if (!read_text(files.cgroup[i].most, most, sizeof(most)) || *most == 'm' ||
	    !read_text(files.cgroup[i].used, used, sizeof(used)))
		return;
	read_text(files.cgroup[i].stat, stat, sizeof(stat));
	cached = number(stat, "\ninactive_file ") + number(stat, "\nactive_file ");
	in_use = strtoull(used, NULL, 10);
	note(room, strtoull(most, NULL, 10), in_use > cached ? in_use - cached : 0);
}

struct room room_look(void)
{
	struct room room = {UINT64_MAX, UINT64_MAX};

	note_machine(&room);
	for (int i = 0; i < files.levels; i++)
		note_cgroup(&room, i);
	return room;
}
