/* SPDX-License-Identifier: MIT */
/* What the kernel and the module offer to this process. One thread. */
#ifndef FERRY_PROBE_H
#define FERRY_PROBE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/utsname.h>

#include <ferry/ferry_ioctl.h>

#include "heap/huge.h"
#include "topology/node_set.h"

enum module_state {
	MODULE_READY,       /* answers, with the ABI that this command knows */
	MODULE_UNSUPPORTED, /* not loaded, and this kernel loads no modules */
	MODULE_NOT_LOADED,
	MODULE_NO_NODE,   /* loaded, but there is no /dev/ferry here */
	MODULE_FORBIDDEN, /* /dev/ferry may not be opened by this user */
	MODULE_OTHER_ABI,
	MODULE_FAILED, /* anything else, see error */
};

struct module_probe {
	enum module_state state;
	int error; /* -errno of the attempt */
	struct ferry_ioc_info info;
};

enum uffd_access {
	UFFD_DEVICE,    /* /dev/userfaultfd */
	UFFD_SYSCALL,   /* userfaultfd(2) */
	UFFD_USER_ONLY, /* userfaultfd(2), not for faults inside the kernel */
	UFFD_NONE,
};

struct uffd_probe {
	enum uffd_access access;
	int error;         /* -errno, UFFD_NONE */
	uint64_t features; /* UFFD_FEATURE_* bits of the kernel */
	bool move;         /* UFFDIO_MOVE */
	int unprivileged;  /* vm.unprivileged_userfaultfd; -1: no such setting */
};

struct uring_probe {
	int error;      /* 0, or the -errno of io_uring_setup(2) */
	int disabled;   /* kernel.io_uring_disabled; -1: no such setting */
	bool uring_cmd; /* IORING_OP_URING_CMD */
};

struct probe {
	struct utsname kernel;
	struct module_probe module;
	struct uffd_probe uffd;
	struct uring_probe uring;
	int numa_balancing;      /* kernel.numa_balancing; -1: no such setting */
	enum huge_system huge;   /* transparent huge pages */
	bool preferred_many;     /* MPOL_PREFERRED_MANY */
	struct node_set allowed; /* nodes of this process's cpuset */
};

void probe_all(struct probe *probe);

#endif /* FERRY_PROBE_H */
