/* SPDX-License-Identifier: MIT */
/*
 * Where pages are, as the kernel tells, in C and C++. HBM is taken to be what has
 * memory and no CPUs, as in the guest.
 */
#ifndef FERRY_TEST_WHERE_H
#define FERRY_TEST_WHERE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WHERE_PAGE ((size_t)4096)

static inline bool is_hbm_node(int node)
{
	char path[80], first = '\n';
	FILE *file;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
	file = node < 0 ? NULL : fopen(path, "r");
	if (!file)
		return false;
	if (fread(&first, 1, 1, file) != 1)
		first = '\n';
	fclose(file);
	return first == '\n';
}

static inline bool machine_has_hbm(void)
{
	for (int node = 0; node < 16; node++)
		if (is_hbm_node(node))
			return true;
	return false;
}

/*
 * The node of the page at @addr; negative: none. A page that the kernel is moving or
 * making part of a huge one is on none meanwhile, so it is asked again for 0.1 s.
 */
static inline int node_at(const void *addr)
{
	void *page = (void *)((uintptr_t)addr & ~(WHERE_PAGE - 1));
	int status = -1;

	for (int tries = 0; tries < 100; tries++) {
		if (syscall(SYS_move_pages, 0, 1UL, &page, NULL, &status, 0))
			return -1;
		if (status != -ENOENT)
			break;
		usleep(1000);
	}
	return status;
}

/* Bytes of the pages of [addr, addr + size) that are present on HBM, or not. */
static inline size_t bytes_at(const void *addr, size_t size, bool on_hbm)
{
	static int known[16]; /* 0: not known, else 1 + whether it is HBM */
	uintptr_t page = (uintptr_t)addr & ~(WHERE_PAGE - 1);
	size_t bytes = 0;

	for (; page < (uintptr_t)addr + size; page += WHERE_PAGE) {
		int node = node_at((void *)page);

		if (node < 0 || node >= 16)
			continue;
		if (!known[node])
			known[node] = 1 + is_hbm_node(node);
		bytes += known[node] == 1 + on_hbm ? WHERE_PAGE : 0;
	}
	return bytes;
}

/* All of it is present and on HBM, or all of it on other nodes. */
static inline bool all_hbm(const void *addr, size_t size)
{
	return bytes_at(addr, size, true) >= size && !bytes_at(addr, size, false);
}

static inline bool all_ddr(const void *addr, size_t size)
{
	return bytes_at(addr, size, false) >= size && !bytes_at(addr, size, true);
}

/*
 * Changing the protection of touched pages flushes the emulated TLB, which keeps
 * translations so long that accessed bits are not set anew. One thread.
 */
static inline void flush_tlb(void)
{
	static char *scratch;
	const size_t len = 256 * WHERE_PAGE;

	if (!scratch) {
		scratch = (char *)mmap(NULL, len, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(scratch, 1, len);
	}
	mprotect(scratch, len, PROT_NONE);
	mprotect(scratch, len, PROT_READ | PROT_WRITE);
}

#endif /* FERRY_TEST_WHERE_H */
