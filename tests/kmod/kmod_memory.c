/* SPDX-License-Identifier: MIT */
/*
 * Memory of kmod_test.h: mappings with a known pattern on a known node, and
 * the kernel's view of them through move_pages(2) and /proc. No state but the
 * writer's, which it and the main thread share by atomics.
 */
#include "kmod_test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static void *map(size_t len)
{
	void *addr = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	KT_REQUIRE(addr != MAP_FAILED, "mmap of %zu bytes: %m", len);
	return addr;
}

void *kt_alloc(size_t len)
{
	void *addr = map(len);

	madvise(addr, len, MADV_NOHUGEPAGE);
	return addr;
}

void *kt_alloc_huge(size_t len)
{
	char *addr = map(len + KT_HUGE);
	size_t head = -(uintptr_t)addr & (KT_HUGE - 1);

	if (head)
		munmap(addr, head);
	munmap(addr + head + len, KT_HUGE - head);
	if (madvise(addr + head, len, MADV_HUGEPAGE) != 0)
		kt_skip("no transparent huge pages: %m");
	return addr + head;
}

void *kt_alloc_on(size_t len, int node, uint64_t seed)
{
	void *addr = kt_alloc(len);

	kt_fill_on(addr, len, node, seed);
	KT_REQUIRE(kt_on(addr, len, node) == len / kt.page,
		   "%zu of %zu pages came up on node %d", kt_on(addr, len, node),
		   len / kt.page, node);
	return addr;
}

/* Word @i of a pattern: no two words or seeds that occur are alike. */
static inline uint64_t word(uint64_t seed, size_t i)
{
	return (seed + 1) * 0x9e3779b97f4a7c15u + i;
}

void kt_fill(void *addr, size_t len, uint64_t seed)
{
	uint64_t *p = addr;

	for (size_t i = 0; i < len / sizeof(*p); i++)
		p[i] = word(seed, i);
}

size_t kt_bad(const void *addr, size_t len, uint64_t seed)
{
	const uint64_t *p = addr;
	size_t bad = 0;

	for (size_t i = 0; i < len / sizeof(*p); i++)
		bad += p[i] != word(seed, i);
	return bad;
}

void kt_fill_on(void *addr, size_t len, int node, uint64_t seed)
{
	unsigned long mask[KT_MAX_NODE / (8 * sizeof(long))] = {0};

	mask[(size_t)node / (8 * sizeof(long))] = 1UL
						  << ((size_t)node % (8 * sizeof(long)));
	KT_REQUIRE(syscall(SYS_set_mempolicy, MPOL_BIND, mask, KT_MAX_NODE + 1) == 0,
		   "set_mempolicy: %m");
	kt_fill(addr, len, seed);
	syscall(SYS_set_mempolicy, MPOL_LOCAL, NULL, 0);
}

size_t kt_huge_in(const void *mem, size_t len)
{
	return (size_t)kt_smaps(mem, len, "AnonHugePages") * 1024 / KT_HUGE;
}

char *kt_huge_on(size_t n, int node, uint64_t seed)
{
	char *mem = kt_alloc_huge(n * KT_HUGE);

	kt_fill_on(mem, n * KT_HUGE, node, seed);
	KT_REQUIRE(kt_huge_in(mem, n * KT_HUGE) == n, "only %zu of %zu huge pages",
		   kt_huge_in(mem, n * KT_HUGE), n);
	/* What is split stays so: khugepaged would now and then make it whole again. */
	KT_REQUIRE(!madvise(mem, n * KT_HUGE, MADV_NOHUGEPAGE), "madvise: %m");
	return mem;
}

static struct {
	pthread_t thread;
	char *mem;
	size_t len;
	_Atomic bool stop;
	_Atomic uint64_t rounds;
} writer;

static void *write_on(void *unused)
{
	for (; !atomic_load(&writer.stop); atomic_fetch_add(&writer.rounds, 1))
		for (size_t at = 0; at < writer.len; at += kt.page)
			++*(volatile uint64_t *)(writer.mem + at);
	return unused;
}

void kt_writer_start(char *mem, size_t len)
{
	for (size_t at = 0; at < len; at += kt.page)
		*(uint64_t *)(mem + at) = 0;
	writer.mem = mem;
	writer.len = len;
	atomic_store(&writer.stop, false);
	atomic_store(&writer.rounds, 0);
	KT_REQUIRE(pthread_create(&writer.thread, NULL, write_on, NULL) == 0,
		   "pthread_create");
	while (!atomic_load(&writer.rounds))
		sched_yield();
}

size_t kt_writer_stop(void)
{
	size_t bad = 0;

	atomic_store(&writer.stop, true);
	pthread_join(writer.thread, NULL);
	for (size_t at = 0; at < writer.len; at += kt.page)
		bad += *(uint64_t *)(writer.mem + at) != writer.rounds;
	return bad;
}

void kt_take_node(int node, size_t leave)
{
	for (;;) {
		size_t room = kt_node_free(node), len;
		char *mem;

		if (room < leave + KT_HUGE)
			return;
		len = (room - leave) / 4 & -KT_HUGE;
		len = len < KT_HUGE ? KT_HUGE : len;
		mem = kt_alloc_huge(len);
		for (size_t at = 0; at < len; at += KT_HUGE)
			kt_fill_on(mem + at, sizeof(uint64_t), node, 0);
		if (kt_smaps(mem, len, "AnonHugePages") == 0)
			return; /* no huge pages left: the rest is for small ones */
	}
}

bool kt_readable(const void *addr)
{
	int fd[2];
	bool ok;

	KT_REQUIRE(pipe(fd) == 0, "pipe: %m");
	ok = write(fd[1], addr, 1) == 1;
	close(fd[0]);
	close(fd[1]);
	return ok;
}

bool kt_writable(void *addr)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	bool ok = read(fd, addr, 1) == 1;

	close(fd);
	return ok;
}

/* ---- the kernel's view -------------------------------------------------- */

void kt_nodes(const void *addr, size_t len, int *status)
{
	enum { STEP = 1024 };
	const char *at = addr;
	size_t pages = len / kt.page;
	void *list[STEP];

	for (size_t done = 0; done < pages; done += STEP) {
		size_t n = pages - done < STEP ? pages - done : STEP;

		for (size_t i = 0; i < n; i++)
			list[i] = (void *)(at + (done + i) * kt.page);
		KT_REQUIRE(syscall(SYS_move_pages, 0, n, list, NULL, status + done, 0) ==
				   0,
			   "move_pages: %m");
	}
}

size_t kt_on(const void *addr, size_t len, int node)
{
	size_t pages = len / kt.page, n = 0;
	int *status = malloc(pages * sizeof(*status));

	KT_REQUIRE(status, "malloc");
	kt_nodes(addr, len, status);
	for (size_t i = 0; i < pages; i++)
		n += status[i] == node;
	free(status);
	return n;
}

void kt_pagemap(const void *addr, size_t len, uint64_t *entry)
{
	const size_t bytes = len / kt.page * sizeof(*entry);
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	KT_REQUIRE(fd >= 0 && pread(fd, entry, bytes,
				    (off_t)((uintptr_t)addr / kt.page *
					    sizeof(*entry))) == (ssize_t)bytes,
		   "pagemap: %m");
	close(fd);
}

long kt_smaps(const void *addr, size_t len, const char *field)
{
	uintptr_t first = (uintptr_t)addr;
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long start, end;
	size_t n = strlen(field);
	bool inside = false;
	char line[512];
	long sum = 0;

	KT_REQUIRE(file, "smaps: %m");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start < first + len && end > first;
		else if (inside && !strncmp(line, field, n) && line[n] == ':')
			sum += strtol(line + n + 1, NULL, 10);
	}
	fclose(file);
	return sum;
}

void kt_perms(const void *addr, char perms[5])
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char line[512], found[5];

	KT_REQUIRE(file, "maps: %m");
	strcpy(perms, "");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%lx-%lx %4s", &start, &end, found) == 3 &&
		    (uintptr_t)addr >= start && (uintptr_t)addr < end)
			strcpy(perms, found);
	fclose(file);
}

void *kt_find_map(const char *name, size_t *len)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned long start, end, found = 0;
	char line[512];

	KT_REQUIRE(file, "maps: %m");
	*len = 0;
	while (!found && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = 0;
		if (strlen(line) < strlen(name) ||
		    strcmp(line + strlen(line) - strlen(name), name) != 0)
			continue;
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			found = start;
			*len = end - start;
		}
	}
	fclose(file);
	return (void *)found;
}

/* ---- files of the kernel ------------------------------------------------- */

long kt_file_key(const char *path, const char *key)
{
	FILE *file = fopen(path, "re");
	char line[512];
	long value = -1;

	if (!file)
		return -1;
	while (value < 0 && fgets(line, sizeof(line), file)) {
		char *at = strstr(line, key);

		if (!at)
			continue;
		at += strlen(key);
		if (*at == ':' || *at == ' ')
			value = strtol(at + 1, NULL, 10);
	}
	fclose(file);
	return value;
}

size_t kt_node_free(int node)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	return (size_t)kt_file_key(path, "MemFree") * 1024;
}

bool kt_read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	if (n < 0)
		return false;
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	return true;
}

bool kt_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = write(fd, text, strlen(text));
	close(fd);
	return n == (ssize_t)strlen(text);
}

bool kt_node_list(const char *path, const char *key, bool nodes[KT_MAX_NODE])
{
	size_t n = key ? strlen(key) : 0;
	FILE *file = fopen(path, "re");
	bool found = false;
	char line[512], *at;

	memset(nodes, 0, KT_MAX_NODE * sizeof(*nodes));
	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file)) {
		if (n && (strncmp(line, key, n) != 0 || line[n] != ':'))
			continue;
		found = true;
		at = line + (n ? n + 1 : 0);
		for (char *item = strtok(at, ", \t\n"); item;
		     item = strtok(NULL, ",\n")) {
			char *end;
			long first = strtol(item, &end, 10);
			long last = *end == '-' ? strtol(end + 1, NULL, 10) : first;

			for (long i = first; i >= 0 && i <= last && i < KT_MAX_NODE; i++)
				nodes[i] = true;
		}
	}
	fclose(file);
	return found;
}
