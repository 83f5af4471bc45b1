/* SPDX-License-Identifier: MIT */
/* What is missing on this machine, and what to do about it. One thread. */
#include "cli/info.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 3, 4))) static void
advise(struct info *info, const char *about, const char *format, ...)
{
	struct advice *advice;
	va_list args;

	if (info->advice_count == MAX_ADVICE)
		return;
	advice = &info->advice[info->advice_count++];
	advice->about = about;
	va_start(args, format);
	vsnprintf(advice->text, sizeof(advice->text), format, args);
	va_end(args);
}

static void advise_hbm(struct info *info)
{
	const struct topology *t = info->topology;
	const struct node_set *hbm = &t->tier[FERRY_TIER_HBM];
	struct node_set slow = t->memory, usable = *hbm;
	char text[128];

	for (int i = 0; i < NODE_SET_WORDS; i++) {
		slow.word[i] &= ~(t->tier[FERRY_TIER_DDR].word[i] | hbm->word[i]);
		usable.word[i] &= info->probe.allowed.word[i];
	}
	if (t->hbm_source == HBM_MEMORY_ONLY)
		advise(info, "hbm",
		       "the firmware tells no bandwidths (HMAT); nodes without CPUs are "
		       "taken for "
		       "HBM; if that is wrong, set FERRY_HBM_NODES");
	if (t->hbm_source == HBM_NONE && node_set_count(&slow))
		advise(info, "hbm",
		       "node %s has less than %d times the bandwidth of DDR; if it is to "
		       "be used as "
		       "HBM, set FERRY_HBM_NODES=%s",
		       node_set_format(&slow, text, sizeof(text)), HBM_BANDWIDTH_RATIO,
		       text);
	else if (t->hbm_source == HBM_NONE)
		advise(info, "hbm",
		       "none found, all memory is DDR; on a CPU with HBM choose flat "
		       "mode in the "
		       "firmware's setup");
	else if (!node_set_count(&usable))
		advise(info, "hbm",
		       "the cpuset allows no HBM node; add %s to its cpuset.mems",
		       node_set_format(hbm, text, sizeof(text)));
}

static void advise_module(struct info *info)
{
	const struct module_probe *module = &info->probe.module;

	switch (module->state) {
	case MODULE_READY:
		break;
	case MODULE_UNSUPPORTED:
		advise(info, "module",
		       "this kernel loads no modules; pages move by move_pages(2)");
		break;
	case MODULE_NOT_LOADED:
		advise(info, "module",
		       "load it with `modprobe ferry`, or `insmod ferry.ko` from the "
		       "build, as root");
		break;
	case MODULE_NO_NODE:
		advise(info, "module",
		       "it is loaded, but " FERRY_DEVICE_PATH
		       " is not here; in a container pass the "
		       "device in");
		break;
	case MODULE_FORBIDDEN:
		advise(info, "module",
		       "this user may not open " FERRY_DEVICE_PATH
		       "; change its mode or group, by a "
		       "udev rule to last");
		break;
	case MODULE_OTHER_ABI:
		advise(info, "module",
		       "it speaks ABI %u, this command %u; build and load both from one "
		       "version",
		       module->info.abi, FERRY_ABI_VERSION);
		break;
	case MODULE_FAILED:
		advise(info, "module",
		       FERRY_DEVICE_PATH " fails: %s; see the kernel's log",
		       strerror(-module->error));
		break;
	}
}

static void advise_uffd(struct info *info)
{
	const struct uffd_probe *uffd = &info->probe.uffd;

	if (uffd->access == UFFD_NONE && uffd->error == -ENOSYS)
		advise(info, "userfaultfd", "needs a kernel with CONFIG_USERFAULTFD");
	else if (uffd->access == UFFD_NONE || uffd->access == UFFD_USER_ONLY)
		advise(info, "userfaultfd",
		       "for faults inside the kernel too: give this user access to "
		       "/dev/userfaultfd, or set sysctl vm.unprivileged_userfaultfd=1");
	if (uffd->access != UFFD_NONE && !uffd->move)
		advise(info, "userfaultfd", "UFFDIO_MOVE needs Linux 6.8 or later");
}

static void advise_uring(struct info *info)
{
	const struct uring_probe *uring = &info->probe.uring;

	if (!uring->error && !uring->uring_cmd)
		advise(info, "io_uring", "IORING_OP_URING_CMD needs Linux 5.19 or later");
	if (!uring->error)
		return;
	if (uring->disabled > 0)
		advise(info, "io_uring",
		       "disabled by sysctl kernel.io_uring_disabled=%d; set it to 0, or "
		       "at 1 join "
		       "kernel.io_uring_group",
		       uring->disabled);
	else if (uring->error == -ENOSYS)
		advise(info, "io_uring", "needs a kernel with CONFIG_IO_URING");
	else if (uring->error == -EPERM || uring->error == -EACCES)
		advise(info, "io_uring",
		       "forbidden, perhaps by a container's seccomp profile; allow "
		       "io_uring_setup, "
		       "io_uring_enter and io_uring_register");
	else
		advise(info, "io_uring", "cannot be set up: %s", strerror(-uring->error));
}

void info_advise(struct info *info)
{
	advise_hbm(info);
	advise_module(info);
	advise_uffd(info);
	advise_uring(info);
	if (info->huge == HUGE_ALWAYS && info->probe.huge <= HUGE_SYSTEM_NEVER)
		advise(info, "huge pages",
		       "FERRY_HUGE=always has no effect: as root write madvise to "
		       "/sys/kernel/mm/transparent_hugepage/enabled");
	if (!info->probe.preferred_many)
		advise(info, "policy",
		       "memory policies with several preferred nodes need Linux 5.15 or "
		       "later with "
		       "CONFIG_NUMA");
}
