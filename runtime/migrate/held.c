/* SPDX-License-Identifier: MIT */
/* Who holds a page (held.h): a descriptor of the device, constant once open. */
#include "migrate/held.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <ferry/ferry_ioctl.h>

#include "migrate/page.h"

static int device = -1;

void held_open(void)
{
	struct ferry_ioc_info info = {.size = sizeof(info)};

	device = open(FERRY_DEVICE_PATH, O_RDWR | O_CLOEXEC);
	if (device >= 0 &&
	    (ioctl(device, FERRY_IOC_INFO, &info) || info.abi != FERRY_ABI_VERSION ||
	     !(info.features & FERRY_FEATURE_HELD)))
		held_close();
}

void held_close(void)
{
	if (device >= 0)
		close(device);
	device = -1;
}

bool held_known(void)
{
	return device >= 0;
}

static int query(uint32_t mode, uintptr_t addr, size_t len, int16_t *answers)
{
	struct ferry_ioc_query query = {
		.size = sizeof(query),
		.mode = mode,
		.addr = addr,
		.len = len,
		.out = (uintptr_t)answers,
		.out_bytes = len / PAGE_BYTES * sizeof(*answers),
	};

	if (device < 0)
		return -ENODEV;
	while (ioctl(device, FERRY_IOC_QUERY, &query))
		if (errno != EINTR)
			return -errno;
	return 0;
}

bool held(uintptr_t addr, size_t len)
{
	int16_t answer[GRANULE_BYTES / PAGE_BYTES];
	int err = query(FERRY_QUERY_HELD, addr, len, answer);
	bool any = false;

	for (size_t i = 0; !err && i < len / PAGE_BYTES; i++)
		any |= answer[i] != 0;
	return err ? err != -ENODEV : any;
}

int held_nodes(uintptr_t addr, size_t len, int16_t *nodes)
{
	return query(FERRY_QUERY_PAGES, addr, len, nodes);
}
