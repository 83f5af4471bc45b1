/* SPDX-License-Identifier: MIT */
/*
 * Reading the process's own mappings (mapping.h). No shared state, no locking.
 */
#include "migrate/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* include/uapi/linux/fs.h of Linux 6.11; Debian 12's headers are older. */
struct procmap_query {
	__u64 size;
	__u64 query_flags;
	__u64 query_addr;
	__u64 vma_start;
	__u64 vma_end;
	__u64 vma_flags;
	__u64 vma_page_size;
	__u64 vma_offset;
	__u64 inode;
	__u32 dev_major;
	__u32 dev_minor;
	__u32 vma_name_size;
	__u32 build_id_size;
	__u64 vma_name_addr;
	__u64 build_id_addr;
};

#undef PROCMAP_QUERY
#define PROCMAP_QUERY            _IOWR('f', 17, struct procmap_query)
#define PROCMAP_VMA_WRITABLE     0x02
#define PROCMAP_VMA_SHARED       0x08
#define PROCMAP_COVERING_OR_NEXT 0x10

int mapping_open(struct mapping_reader *reader, bool text)
{
	reader->maps.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (reader->maps.fd < 0)
		return -errno;
	reader->text = text;
	reader->current = (struct mapping){0};
	reader->maps.begin = reader->maps.end = 0;
	return 0;
}

void mapping_close(struct mapping_reader *reader)
{
	close(reader->maps.fd);
}

/*
 * Whether the name is one that memory without a file may have. The others are
 * the kernel's special mappings, such as [vdso] and [vvar].
 */
static bool name_is_anonymous(const char *name)
{
	return !*name || !strcmp(name, "[heap]") || !strncmp(name, "[stack", 6) ||
	       !strncmp(name, "[anon:", 6);
}

static int query(struct mapping_reader *reader, uintptr_t addr)
{
	char name[128] = "";
	struct procmap_query q = {
		.size = sizeof(q),
		.query_flags = PROCMAP_COVERING_OR_NEXT,
		.query_addr = addr,
		.vma_name_size = sizeof(name),
		.vma_name_addr = (uintptr_t)name,
	};

	if (ioctl(reader->maps.fd, PROCMAP_QUERY, &q)) {
		/* A path that is too long is a file's. */
		if (errno != ENAMETOOLONG)
			return errno == ENOENT ? 0 : -errno;
		q.vma_name_size = 0;
		q.vma_name_addr = 0;
		if (ioctl(reader->maps.fd, PROCMAP_QUERY, &q))
			return errno == ENOENT ? 0 : -errno;
	}
	reader->current = (struct mapping){
		.start = q.vma_start,
		.end = q.vma_end,
		.anonymous = !(q.vma_flags & PROCMAP_VMA_SHARED) && !q.inode &&
			     name_is_anonymous(name),
		.writable = q.vma_flags & PROCMAP_VMA_WRITABLE,
	};
	return 1;
}

bool mapping_covers(int fd, uintptr_t start, uintptr_t end)
{
	struct procmap_query q = {.size = sizeof(q), .query_addr = start};

	return !ioctl(fd, PROCMAP_QUERY, &q) && q.vma_end >= end;
}

/* "START-END ACCESS OFFSET DEVICE INODE   NAME" */
static int parse_line(char *line, struct mapping *out)
{
	char *start = strsep(&line, "-"), *end = strsep(&line, " ");
	char *access = strsep(&line, " "), *inode;

	strsep(&line, " ");
	strsep(&line, " ");
	inode = strsep(&line, " ");
	if (!start || !end || !access || !inode || strlen(access) < 4)
		return -EIO;
	while (line && *line == ' ')
		line++;
	*out = (struct mapping){
		.start = strtoul(start, NULL, 16),
		.end = strtoul(end, NULL, 16),
		.anonymous = access[3] == 'p' && !strcmp(inode, "0") &&
			     name_is_anonymous(line ? line : ""),
		.writable = access[1] == 'w',
	};
	return 1;
}

static int read_next(struct mapping_reader *reader)
{
	char *line = NULL;
	int found = lines_next(&reader->maps, &line);

	return found > 0 ? parse_line(line, &reader->current) : found;
}

int mapping_find(struct mapping_reader *reader, uintptr_t addr, struct mapping *out)
{
	int found = 1;

	if (!reader->text && addr >= reader->current.end) {
		found = query(reader, addr);
		if (found == -ENOTTY)
			reader->text = true;
	}
	if (reader->text)
		while (addr >= reader->current.end && (found = read_next(reader)) > 0)
			;
	if (found > 0)
		*out = reader->current;
	return found;
}
