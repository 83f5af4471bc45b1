/* SPDX-License-Identifier: MIT */
/* Advice on huge pages: see huge.h. */
#include "heap/huge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "heap/region.h"

#define ENABLED "/sys/kernel/mm/transparent_hugepage/enabled"
/* For this size alone, on kernels that have several. */
#define ENABLED_2M "/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"

#define NO_ADVICE (-1)

/* Never change after huge_init(). */
static int all_advice = NO_ADVICE;     /* on regions, as a whole */
static int mapping_advice = NO_ADVICE; /* on a program's own mappings */
static bool large_only;                /* large extents are the exception */
static bool keeps;

/* The word in brackets of "always [madvise] never"; "": no such file. */
static void read_setting(const char *path, char *word, size_t size)
{
	char text[128] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	char *open_bracket, *close_bracket;

	if (fd >= 0)
		close(fd);
	text[len > 0 ? len : 0] = '\0';
	open_bracket = strchr(text, '[');
	close_bracket = open_bracket ? strchr(open_bracket, ']') : NULL;
	*word = '\0';
	if (close_bracket && (size_t)(close_bracket - open_bracket) <= size) {
		*close_bracket = '\0';
		memcpy(word, open_bracket + 1, (size_t)(close_bracket - open_bracket));
	}
}

enum huge_system huge_system(void)
{
	int saved = errno;
	char word[16];

	read_setting(ENABLED_2M, word, sizeof(word));
	if (!*word || !strcmp(word, "inherit"))
		read_setting(ENABLED, word, sizeof(word));
	errno = saved;
	if (!*word)
		return HUGE_SYSTEM_NONE;
	if (!strcmp(word, "never") || prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1)
		return HUGE_SYSTEM_NEVER;
	return strcmp(word, "always") != 0 ? HUGE_SYSTEM_MADVISE : HUGE_SYSTEM_ALWAYS;
}

void huge_init(enum huge_mode mode)
{
	enum huge_system system = huge_system();

	keeps = huge_backs_all(mode);
	switch (mode) {
	case HUGE_ALWAYS:
		all_advice = mapping_advice = MADV_HUGEPAGE;
		break;
	case HUGE_NEVER:
		all_advice = mapping_advice = MADV_NOHUGEPAGE;
		break;
	case HUGE_AUTO:
		large_only = system == HUGE_SYSTEM_MADVISE;
		all_advice = large_only ? MADV_NOHUGEPAGE : NO_ADVICE;
		break;
	}
}

/* A kernel without huge pages refuses, and then there is nothing to advise on. */
static void advise(uintptr_t start, uintptr_t end, int advice)
{
	int saved = errno;

	if (advice != NO_ADVICE && start < end)
		madvise((void *)start, end - start, advice);
	errno = saved;
}

void huge_advise_region(void *addr, size_t len)
{
	advise((uintptr_t)addr, (uintptr_t)addr + len, all_advice);
}

bool huge_advises_mappings(void)
{
	return mapping_advice != NO_ADVICE;
}

void huge_advise_mapping(void *addr, size_t len)
{
	advise((uintptr_t)addr, (uintptr_t)addr + len, mapping_advice);
}

/* The granules within [addr, addr + len): no others can be huge pages. */
static void advise_granules(void *addr, size_t len, int advice)
{
	advise(granule_up((uintptr_t)addr), granule_down((uintptr_t)addr + len), advice);
}

bool huge_begin(void *addr, size_t len)
{
	bool large = large_only && len >= HUGE_EXTENT;

	if (large)
		advise_granules(addr, len, MADV_HUGEPAGE);
	return large;
}

bool huge_end(void *addr, size_t len)
{
	if (large_only)
		advise_granules(addr, len, MADV_NOHUGEPAGE);
	return large_only;
}

void huge_keep_small(uintptr_t granule)
{
	advise(granule, granule + GRANULE_SIZE, MADV_NOHUGEPAGE);
}

void huge_let_whole(uintptr_t granule, bool gone)
{
	/* huge_end() has said what becomes of it, and huge_begin() will. */
	if (!gone || !large_only || region_of((void *)granule) < 0)
		advise(granule, granule + GRANULE_SIZE, MADV_HUGEPAGE);
}

bool huge_backs_all(enum huge_mode mode)
{
	enum huge_system system = huge_system();

	return (mode == HUGE_ALWAYS && system > HUGE_SYSTEM_NEVER) ||
	       (mode == HUGE_AUTO && system == HUGE_SYSTEM_ALWAYS);
}

bool huge_keeps(void)
{
	return keeps;
}
