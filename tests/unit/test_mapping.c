/* SPDX-License-Identifier: MIT */
/*
 * Proves that what is mapped is told right, from PROCMAP_QUERY where the kernel
 * has it and from the text of /proc/self/maps. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <linux/prctl.h>
#include <unistd.h>

#include "migrate/mapping.h"
#include "migrate/page.h"

#define PART (4 * PAGE_BYTES)

static char *map(char *at, int prot, int flags, int fd)
{
	char *mem = mmap(at, PART, prot, flags | MAP_FIXED, fd, 0);

	assert_ptr_equal(mem, at);
	return mem;
}

/* Where it is looked for, and what there is. */
struct expected {
	size_t at;
	bool there, anonymous, writable;
};

static void check(char *mem, bool text)
{
	static const struct expected cases[] = {
		{0, true, true, true},    /* private anonymous */
		{1, false, false, false}, /* unmapped */
		{2, true, true, false},   /* read-only */
		{3, true, false, true},   /* shared anonymous */
		{4, true, false, true},   /* private, of a file */
		{5, true, false, true},   /* shared, of a file */
		{6, true, true, false},   /* PROT_NONE */
		{7, true, true, true},    /* named, where the kernel does that */
	};
	struct mapping_reader reader;
	struct mapping mapping;

	assert_int_equal(mapping_open(&reader, text), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* The last page of the part, and the first of a hole. */
		uintptr_t part = (uintptr_t)mem + cases[i].at * PART;
		uintptr_t addr = cases[i].there ? part + PART - PAGE_BYTES : part;

		assert_int_equal(mapping_find(&reader, addr, &mapping), 1);
		assert_true(mapping.end > addr);
		assert_int_equal(mapping.start <= addr, cases[i].there);
		if (!cases[i].there) {
			assert_int_equal(mapping.start, part + PART);
			continue;
		}
		assert_int_equal(mapping.anonymous, cases[i].anonymous);
		assert_int_equal(mapping.writable, cases[i].writable);
	}
	mapping_close(&reader);
}

static void all_kinds(void **state)
{
	const int rw = PROT_READ | PROT_WRITE;
	char path[300] = "/tmp/ferry-mapping-", *mem;
	int fd;

	(void)state;
	/* A name too long for one look. */
	memset(path + strlen(path), 'x', 200);
	strcat(path, "XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(ftruncate(fd, PART), 0);

	mem = mmap(NULL, 8 * PART, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(mem, MAP_FAILED);
	munmap(mem + PART, PART);
	map(mem + 2 * PART, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	map(mem + 3 * PART, rw, MAP_SHARED | MAP_ANONYMOUS, -1);
	map(mem + 4 * PART, rw, MAP_PRIVATE, fd);
	map(mem + 5 * PART, rw, MAP_SHARED, fd);
	map(mem + 6 * PART, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, mem + 7 * PART, PART, "a name");
	check(mem, false);
	check(mem, true);
	close(fd);
}

/* Both forms tell the same of the whole address space, special mappings included. */
static void both_forms_agree(void **state)
{
	const uintptr_t end = (uintptr_t)1 << 63; /* [vsyscall] is in the text only */
	struct mapping_reader query, text;
	struct mapping a, b;
	uintptr_t addr = 0;
	size_t count = 0;

	(void)state;
	assert_int_equal(mapping_open(&query, false), 0);
	assert_int_equal(mapping_open(&text, true), 0);
	for (;; addr = a.end) {
		int found = mapping_find(&query, addr, &a);

		if (mapping_find(&text, addr, &b) != found)
			assert_true(!found && b.start >= end);
		if (!found || a.start >= end)
			break;
		assert_int_equal(a.start, b.start);
		assert_int_equal(a.end, b.end);
		assert_int_equal(a.anonymous, b.anonymous);
		assert_int_equal(a.writable, b.writable);
		count++;
	}
	assert_true(count > 10);
	if (query.text)
		printf("this kernel has no PROCMAP_QUERY\n");
	mapping_close(&query);
	mapping_close(&text);
}

static void special_mappings(void **state)
{
	struct mapping_reader reader;
	unsigned long start;
	char line[500];
	FILE *maps = fopen("/proc/self/maps", "r");
	int seen = 0;

	(void)state;
	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		bool special = strstr(line, "[vdso]") || strstr(line, "[vvar");
		bool anonymous = strstr(line, "[heap]") || strstr(line, "[stack]");

		if (!special && !anonymous)
			continue;
		start = strtoul(line, NULL, 16);
		for (int text = 0; text < 2; text++) {
			struct mapping mapping;

			assert_int_equal(mapping_open(&reader, text), 0);
			assert_int_equal(mapping_find(&reader, start, &mapping), 1);
			assert_int_equal(mapping.anonymous, anonymous);
			mapping_close(&reader);
		}
		seen++;
	}
	fclose(maps);
	assert_true(seen >= 2);
}

/* Private and anonymous to the program, and a file to the kernel. */
static void hugetlb_is_not_for_ferry(void **state)
{
	void *mem =
		mmap(NULL, (size_t)2 << 20, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0);

	(void)state;
	if (mem == MAP_FAILED) /* this kernel has none */
		skip();
	for (int text = 0; text < 2; text++) {
		struct mapping_reader reader;
		struct mapping mapping;

		assert_int_equal(mapping_open(&reader, text), 0);
		assert_int_equal(mapping_find(&reader, (uintptr_t)mem, &mapping), 1);
		assert_int_equal(mapping.start, (uintptr_t)mem);
		assert_false(mapping.anonymous);
		mapping_close(&reader);
	}
	munmap(mem, (size_t)2 << 20);
}

/* Only what one mapping maps from end to end is covered. */
static void what_is_covered(void **state)
{
	char *mem = mmap(NULL, 4 * PART, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t at = (uintptr_t)mem;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	bool told;

	(void)state;
	assert_ptr_not_equal(mem, MAP_FAILED);
	assert_true(fd >= 0);
	told = mapping_covers(fd, at, at + 4 * PART);
	munmap(mem + PART, PART);
	map(mem + 3 * PART, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	assert_int_equal(mapping_covers(fd, at, at + PART), told);
	assert_int_equal(mapping_covers(fd, at + PAGE_BYTES, at + PART), told);
	assert_int_equal(mapping_covers(fd, at + 3 * PART, at + 4 * PART), told);
	assert_false(mapping_covers(fd, at, at + PART + PAGE_BYTES));
	assert_false(mapping_covers(fd, at, at + 3 * PART));
	assert_false(mapping_covers(fd, at + PART, at + 3 * PART));
	assert_false(mapping_covers(fd, at + 2 * PART, at + 4 * PART));
	close(fd);
	if (!told)
		skip(); /* by the text only */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_covered),
		cmocka_unit_test(all_kinds),
		cmocka_unit_test(both_forms_agree),
		cmocka_unit_test(special_mappings),
		cmocka_unit_test(hugetlb_is_not_for_ferry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
