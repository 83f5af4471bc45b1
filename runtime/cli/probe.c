/* SPDX-License-Identifier: MIT */
/* Finds out by trying what the kernel and the module offer. One thread. */
#include "cli/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fault/uffd.h"

/* Younger than the headers of Debian 12. */
#ifndef MPOL_PREFERRED_MANY
#define MPOL_PREFERRED_MANY 5
#endif

/* A setting below /proc/sys; -1: there is none. */
static int read_sysctl(const char *path)
{
	char text[16] = "";
	FILE *file = fopen(path, "re");
	int value = -1;

	if (!file)
		return -1;
	if (fgets(text, sizeof(text), file))
		value = (int)strtol(text, NULL, 10);
	fclose(file);
	return value;
}

/* ---- the module ---------------------------------------------------------- */

/* Why there is nothing at /dev/ferry. */
static enum module_state explain_absence(void)
{
	if (!access("/sys/module/ferry", F_OK))
		return MODULE_NO_NODE;
	return access("/proc/modules", F_OK) ? MODULE_UNSUPPORTED : MODULE_NOT_LOADED;
}

static void probe_module(struct module_probe *module)
{
	int fd = open(FERRY_DEVICE_PATH, O_RDWR | O_CLOEXEC);

	module->error = fd < 0 ? -errno : 0;
	switch (module->error) {
	case 0:
		break;
	case -ENOENT:
	case -ENXIO: /* a stale device file */
	case -ENODEV:
		module->state = explain_absence();
		return;
	case -EACCES:
	case -EPERM:
		module->state = MODULE_FORBIDDEN;
		return;
	default:
		module->state = MODULE_FAILED;
		return;
	}
	module->info.size = sizeof(module->info);
	if (ioctl(fd, FERRY_IOC_INFO, &module->info)) {
		module->error = -errno;
		module->state = MODULE_FAILED;
	} else {
		module->info.version[sizeof(module->info.version) - 1] = '\0';
		module->state = module->info.abi == FERRY_ABI_VERSION ? MODULE_READY
								      : MODULE_OTHER_ABI;
	}
	close(fd);
}

/* ---- userfaultfd --------------------------------------------------------- */

static void probe_uffd(struct uffd_probe *uffd)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = uffd_open_device();

	uffd->unprivileged = read_sysctl("/proc/sys/vm/unprivileged_userfaultfd");
	uffd->access = UFFD_DEVICE;
	if (fd < 0) {
		uffd->access = UFFD_SYSCALL;
		fd = uffd_open_syscall(0);
	}
	if (fd == -EPERM || fd == -EACCES) {
		uffd->access = UFFD_USER_ONLY;
		fd = uffd_open_syscall(UFFD_USER_MODE_ONLY);
	}
	if (fd < 0) {
		uffd->access = UFFD_NONE;
		uffd->error = fd;
		return;
	}
	if (ioctl(fd, UFFDIO_API, &api)) {
		uffd->access = UFFD_NONE;
		uffd->error = -errno;
	} else {
		uffd->features = api.features;
		uffd->move = api.features & UFFD_FEATURE_MOVE;
	}
	close(fd);
}

/* ---- io_uring ------------------------------------------------------------ */

static void probe_uring(struct uring_probe *uring)
{
	struct io_uring_probe *operations;
	struct io_uring ring;

	uring->disabled = read_sysctl("/proc/sys/kernel/io_uring_disabled");
	uring->error = io_uring_queue_init(2, &ring, 0);
	if (uring->error)
		return;
	operations = io_uring_get_probe_ring(&ring);
	if (operations) {
		uring->uring_cmd =
			io_uring_opcode_supported(operations, IORING_OP_URING_CMD);
		io_uring_free_probe(operations);
	}
	io_uring_queue_exit(&ring);
}

/* ---- memory policy ------------------------------------------------------- */

/* Tries the policy on a page of its own. */
static bool probe_preferred_many(const struct node_set *allowed)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	void *page = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool works;

	if (page == MAP_FAILED)
		return false;
	/* mbind(2) takes one bit less than it is told */
	works = !mbind(page, size, MPOL_PREFERRED_MANY,
		       (const unsigned long *)allowed->word, FERRY_MAX_NODES + 1, 0);
	munmap(page, size);
	return works;
}

static void probe_allowed(struct node_set *allowed)
{
	struct bitmask *nodes;

	if (numa_available() < 0) { /* a kernel without NUMA knows node 0 */
		node_set_add(allowed, 0);
		return;
	}
	nodes = numa_get_mems_allowed();
	for (unsigned int node = 0; node < FERRY_MAX_NODES && node < nodes->size; node++)
		if (numa_bitmask_isbitset(nodes, node))
			node_set_add(allowed, (int)node);
	numa_bitmask_free(nodes);
}

void probe_all(struct probe *probe)
{
	memset(probe, 0, sizeof(*probe));
	uname(&probe->kernel);
	probe_module(&probe->module);
	probe_uffd(&probe->uffd);
	probe_uring(&probe->uring);
	probe->numa_balancing = read_sysctl("/proc/sys/kernel/numa_balancing");
	probe->huge = huge_system();
	probe_allowed(&probe->allowed);
	probe->preferred_many = probe_preferred_many(&probe->allowed);
}
