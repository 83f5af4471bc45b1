/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: a thread within the process that keeps moving all its private
 * anonymous memory, whatever the program does with it. With FERRY_MOVER=idle
 * the thread is there and looks at the mappings, but moves nothing: what a run
 * is compared to. With FERRY_MOVER=move_pages the kernel's own move_pages(2) moves:
 * what a test does not bear from that is no fault of Ferry's. A child of fork(2)
 * gets a thread of its own.
 *
 * The program shall notice nothing else: the thread takes no signal, allocates
 * nothing, and its file descriptor is out of the way. What it works with is
 * static and its own.
 */
#include "mover.h"

#include <linux/mempolicy.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

enum {
	RANGES = 64,
	PAGES = 512,
	PAGE = 4096,
	DEVICE_FD = 900,
	MAPS_FD = 901,
	PAUSE_NS = 1000000
};

static struct mover mover;
static enum { BY_FERRY, BY_MOVE_PAGES, BY_NOBODY } how;

/* Puts a file where the program's own numbers do not reach. */
static int away(int fd, int number)
{
	int ret = fd < 0 ? -1 : dup3(fd, number, O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return ret;
}

/* A line of maps: a range to move? */
static bool wanted(const char *line, struct ferry_ioc_range *range)
{
	unsigned long start, end, inode;
	char perms[5], name[16] = "";

	if (sscanf(line, "%lx-%lx %4s %*x %*s %lu %15s", &start, &end, perms, &inode,
		   name) < 4)
		return false;
	if (perms[3] != 'p' || inode != 0)
		return false;
	if (name[0] == '[' && strcmp(name, "[heap]") != 0 &&
	    strncmp(name, "[stack", 6) != 0 && strncmp(name, "[anon:", 6) != 0)
		return false;
	*range = (struct ferry_ioc_range){.addr = start, .len = end - start};
	return true;
}

static void move_by_kernel(const struct ferry_ioc_range *range, int node)
{
	static int nodes[PAGES], status[PAGES];
	static void *page[PAGES];
	uint64_t at = range->addr;

	while (at < range->addr + range->len) {
		unsigned long n = 0;

		for (; n < PAGES && at < range->addr + range->len; n++, at += PAGE) {
			page[n] = (void *)at;
			nodes[n] = node;
		}
		if (syscall(SYS_move_pages, 0, n, page, nodes, status, MPOL_MF_MOVE) <
			    0 ||
		    !mover.counts)
			continue;
		for (unsigned long i = 0; i < n; i++)
			if (status[i] == node)
				atomic_fetch_add(&mover.counts->moved, 1);
	}
}

static void move(struct ferry_ioc_range *range, unsigned int nr, int node)
{
	for (unsigned int i = 0; i < nr; i++) {
		range[i].node = node;
		if (how == BY_MOVE_PAGES)
			move_by_kernel(&range[i], node);
	}
	if (nr && how == BY_FERRY)
		mover_move(&mover, range, nr);
}

/* Goes over the mappings once. */
static void sweep(int node)
{
	static struct ferry_ioc_range range[RANGES];
	static char text[16384];
	size_t have = 0;
	unsigned int nr = 0;
	ssize_t n;
	int fd = away(open("/proc/self/maps", O_RDONLY | O_CLOEXEC), MAPS_FD);

	while ((n = read(fd, text + have, sizeof(text) - 1 - have)) > 0) {
		char *line = text, *end;

		have += (size_t)n;
		text[have] = 0;
		for (; (end = strchr(line, '\n')); line = end + 1) {
			*end = 0;
			nr += wanted(line, &range[nr]);
			if (nr == RANGES) {
				move(range, nr, node);
				nr = 0;
			}
		}
		have = strlen(line);
		memmove(text, line, have + 1);
	}
	close(fd);
	move(range, nr, node);
}

static void *run(void *unused)
{
	static const struct timespec pause = {.tv_nsec = PAUSE_NS};

	(void)unused;
	for (unsigned int i = 0;; i++) {
		sweep(mover.node[i % 2]);
		if (mover.counts)
			atomic_fetch_add(&mover.counts->sweeps, 1);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void start(void)
{
	sigset_t all, old;
	pthread_t thread;
	int ret = mover_open(&mover);

	if (ret == 0)
		mover.fd = away(mover.fd, DEVICE_FD);
	if (ret < 0 || mover.fd < 0) {
		dprintf(2, "mover: %s: %s\n", FERRY_DEVICE_PATH,
			strerror(ret < 0 ? -ret : errno));
		return;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&thread, NULL, run, NULL) == 0)
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

__attribute__((constructor)) static void load(void)
{
	const char *mode = getenv("FERRY_MOVER");

	how = !mode ? BY_FERRY : strcmp(mode, "idle") ? BY_MOVE_PAGES : BY_NOBODY;
	mover.counts = mover_map_counts();
	start();
	pthread_atfork(NULL, NULL, start);
}
