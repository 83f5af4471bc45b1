/* SPDX-License-Identifier: MIT */
/*
 * What the movers share: opening the device, its nodes, and the counts that
 * they leave for whoever started them (FERRY_MOVER_COUNTS names a file that
 * both map), so that however a process ends it is known what it has moved.
 */
#ifndef MOVER_H
#define MOVER_H

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ferry/ferry_ioctl.h>

/* Shared by all movers of one run; only added to */
struct mover_counts {
	_Atomic uint64_t sweeps; /* times that all memory was gone over */
	_Atomic uint64_t moved;  /* pages */
	_Atomic uint64_t errors; /* requests that ended with an error */
};

/* The device, two nodes to move between, and the counts, or NULL. */
struct mover {
	int fd;
	int node[2];
	struct mover_counts *counts;
};

static inline struct mover_counts *mover_map_counts(void)
{
	const char *path = getenv("FERRY_MOVER_COUNTS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *map;

	if (fd < 0)
		return NULL;
	map = mmap(NULL, sizeof(struct mover_counts), PROT_READ | PROT_WRITE, MAP_SHARED,
		   fd, 0);
	close(fd);
	return map == MAP_FAILED ? NULL : map;
}

/* Opens the device and picks the first and the last node. Returns 0 or -errno. */
static inline int mover_open(struct mover *mover)
{
	struct ferry_ioc_info info = {.size = sizeof(info)};
	int fd = open(FERRY_DEVICE_PATH, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, FERRY_IOC_INFO, &info) < 0) {
		int error = errno;

		close(fd);
		return -error;
	}
	mover->fd = fd;
	mover->node[0] = mover->node[1] = -1;
	for (int i = 0; i < FERRY_NODE_WORDS * 64; i++)
		if (info.nodes[i / 64] >> (i % 64) & 1)
			mover->node[mover->node[0] >= 0] = i;
	return mover->node[1] >= 0 ? 0 : -ENODEV;
}

/* Moves ranges and counts what became of them. Returns what the ioctl does. */
static inline int mover_move(struct mover *mover, struct ferry_ioc_range *ranges,
			     unsigned int nr)
{
	struct ferry_ioc_migrate batch = {
		.size = sizeof(batch),
		.nr_ranges = nr,
		.ranges = (uintptr_t)ranges,
		.range_size = sizeof(*ranges),
	};
	int ret = ioctl(mover->fd, FERRY_IOC_MIGRATE, &batch);

	if (!mover->counts)
		return ret;
	if (ret < 0)
		atomic_fetch_add(&mover->counts->errors, 1);
	else
		atomic_fetch_add(&mover->counts->moved, (uint64_t)ret);
	return ret;
}

#endif /* MOVER_H */
