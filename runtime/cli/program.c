/* SPDX-License-Identifier: MIT */
/* Looks at a program before it is run; see program.h. One thread. */
#include "cli/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_INTERPRETERS 4 /* a script's interpreter may be a script, so deep at most */

/* 0, -ENOENT or -EACCES for one file. */
static int check_file(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return errno == EACCES ? -EACCES : -ENOENT;
	return S_ISREG(st.st_mode) && !access(path, X_OK) ? 0 : -EACCES;
}

int program_find(const char *name, char *path, size_t size)
{
	const char *dirs = getenv("PATH");
	int result = -ENOENT;

	if (strchr(name, '/')) {
		snprintf(path, size, "%s", name);
		return check_file(path);
	}
	if (!*name)
		return -ENOENT;
	if (!dirs)
		dirs = "/bin:/usr/bin";
	for (;;) {
		int len = (int)strcspn(dirs, ":");
		int err;

		/* An empty entry is the current directory. */
		snprintf(path, size, "%.*s%s%s", len, dirs, len ? "/" : "./", name);
		err = check_file(path);
		if (!err)
			return 0;
		if (err == -EACCES)
			result = err;
		if (!dirs[len])
			return result;
		dirs += len + 1;
	}
}

static bool has_interpreter(int fd, const Elf64_Ehdr *header)
{
	for (int i = 0; i < header->e_phnum; i++) {
		Elf64_Phdr segment;
		off_t at = (off_t)(header->e_phoff + (uint64_t)i * header->e_phentsize);

		if (pread(fd, &segment, sizeof(segment), at) != sizeof(segment))
			return true; /* broken; exec says how */
		if (segment.p_type == PT_INTERP)
			return true;
	}
	return false;
}

/* Whether the kernel will raise privileges, which makes the loader careful. */
static bool is_privileged(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
		return true;
	if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getgid())
		return true;
	return getuid() && fgetxattr(fd, "security.capability", NULL, 0) > 0;
}

static const char *check_elf(int fd, const Elf64_Ehdr *header)
{
	if (header->e_ident[EI_CLASS] != ELFCLASS64)
		return "is not a 64-bit program";
	if (!has_interpreter(fd, header))
		return "is linked statically";
	if (is_privileged(fd))
		return "is setuid, setgid or has file capabilities";
	return NULL;
}

/* The interpreter that a script's first line names. */
static bool read_interpreter(const char *line, char *path, size_t size)
{
	size_t len;

	line += 2;
	line += strspn(line, " \t");
	len = strcspn(line, " \t\n");
	if (!len || len >= size)
		return false;
	memcpy(path, line, len);
	path[len] = '\0';
	return true;
}

const char *program_refuses_preload(const char *path)
{
	char interpreter[PATH_MAX];

	for (int depth = 0; depth <= MAX_INTERPRETERS; depth++) {
		union {
			Elf64_Ehdr header;
			char text[256]; /* the kernel reads as much */
		} start = {.text = ""};
		const char *why = NULL;
		ssize_t n;
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return NULL;
		n = pread(fd, &start, sizeof(start) - 1, 0);
		if (n >= (ssize_t)sizeof(start.header) &&
		    !memcmp(start.header.e_ident, ELFMAG, SELFMAG))
			why = check_elf(fd, &start.header);
		close(fd);
		if (n < 2 || memcmp(start.text, "#!", 2) != 0)
			return why;
		if (!read_interpreter(start.text, interpreter, sizeof(interpreter)))
			return NULL;
		path = interpreter;
	}
	return NULL;
}
