/* SPDX-License-Identifier: MIT */
/*
 * A process that keeps migrating: it moves memory of its own from one node to
 * the other and back, in batches, until SIGTERM, and looks after each move
 * whether the data is right. Exit status 0, or 1 with a message. Single-threaded.
 */
#include "mover.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#define BYTES ((size_t)32 << 20)
#define PAGE  ((size_t)4096)

enum { RANGES = 16 };

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static uint64_t word(size_t i)
{
	return i * 0x9e3779b97f4a7c15u + 1;
}

static int fail(const char *what)
{
	fprintf(stderr, "mover: %s: %s\n", what, strerror(errno));
	return 1;
}

int main(void)
{
	struct mover mover = {.counts = mover_map_counts()};
	struct ferry_ioc_range range[RANGES];
	const size_t words = BYTES / sizeof(uint64_t);
	uint64_t *mem;
	int ret = mover_open(&mover);

	if (ret < 0) {
		errno = -ret;
		return fail(FERRY_DEVICE_PATH);
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGTERM, on_term);
	mem = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		   0);
	if (mem == MAP_FAILED)
		return fail("mmap");
	madvise(mem, BYTES, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < words; i++)
		mem[i] = word(i);
	for (unsigned int round = 0; !stop; round++) {
		for (size_t i = 0; i < RANGES; i++)
			range[i] = (struct ferry_ioc_range){
				.addr = (uintptr_t)mem + i * (BYTES / RANGES),
				.len = BYTES / RANGES,
				.node = mover.node[round % 2],
			};
		if (mover_move(&mover, range, RANGES) < 0 && errno != EINTR)
			return fail("FERRY_IOC_MIGRATE");
		/* A word of each page, another one each time */
		for (size_t i = round % (PAGE / 8); i < words; i += PAGE / 8)
			if (mem[i] != word(i)) {
				fprintf(stderr, "mover: word %zu is wrong\n", i);
				return 1;
			}
		if (mover.counts)
			atomic_fetch_add(&mover.counts->sweeps, 1);
	}
	return 0;
}
