/* SPDX-License-Identifier: MIT */
/* Other processes: see fault_process.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault_process.h"
#include "migrate/page.h"

void assert_child_ok(pid_t child)
{
	int status;

	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

const char *core_folder(void)
{
	static char folder[32];

	strcpy(folder, "/tmp/ferry-core.XXXXXX");
	return mkdtemp(folder);
}

void dump_core(const char *folder)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};

	if (!folder || chdir(folder))
		_exit(1);
	setrlimit(RLIMIT_CORE, &unlimited);
	abort();
}

void assert_core_dumped(pid_t child, const char *folder)
{
	char pattern[64];
	int status;
	glob_t cores;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	snprintf(pattern, sizeof(pattern), "%s/core*", folder);
	if (!glob(pattern, 0, NULL, &cores))
		for (size_t i = 0; i < cores.gl_pathc; i++)
			unlink(cores.gl_pathv[i]);
	globfree(&cores);
	assert_int_equal(rmdir(folder), 0);
}

int read_all_memory(pid_t pid)
{
	char path[64], line[512], page[PAGE_BYTES];
	FILE *maps;
	int mem;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "re");
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	if (!maps || mem < 0)
		return 1;
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		char prot[5];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, prot) != 3 ||
		    prot[0] != 'r' || strstr(line, "[v") || end - start > 256UL << 20)
			continue;
		for (; start < end; start += PAGE_BYTES)
			if (pread(mem, page, PAGE_BYTES, (off_t)start) < 0 &&
			    errno != EIO)
				return 2;
	}
	fclose(maps);
	close(mem);
	return 0;
}
