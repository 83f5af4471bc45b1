/* SPDX-License-Identifier: MIT */
/*
 * The disk of kmod_disk.h, set up through configfs. What a failed case left
 * behind is removed first.
 */
#include "kmod_disk.h"
#include "kmod_test.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/swap.h>

#define CONFIGFS "/sys/kernel/config"
#define CONFIG   CONFIGFS "/nullb/ferry-disk"
#define QUEUE    "/sys/block/ferry-disk/queue"

static bool set(const char *key, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), CONFIG "/%s", key);
	return kt_write_file(path, value);
}

static bool set_up(enum kt_disk_kind kind)
{
	char mb[16];

	snprintf(mb, sizeof(mb), "%d", KT_DISK_MB);
	if (!set("size", mb) || !set("memory_backed", "1"))
		return false;
	/* irqmode 2: a timer tells of the end */
	if (kind == KT_DISK_LATE &&
	    (!set("irqmode", "2") || !set("completion_nsec", "10000000")))
		return false;
	if (kind == KT_DISK_THROTTLED && !set("mbps", "1"))
		return false;
	return set("power", "1");
}

void kt_disk_make(enum kt_disk_kind kind)
{
	if (system("modprobe -q null_blk nr_devices=0") != 0)
		kt_skip("no null_blk in this kernel");
	if (access(CONFIGFS "/nullb", F_OK) != 0 &&
	    mount("none", CONFIGFS, "configfs", 0, NULL) != 0)
		kt_skip("no configfs: %m");
	if (access(CONFIG, F_OK) == 0) {
		swapoff(KT_DISK);
		rmdir(CONFIG);
	}
	KT_REQUIRE(mkdir(CONFIG, 0755) == 0 && set_up(kind) && access(KT_DISK, F_OK) == 0,
		   "setting up %s: %m", KT_DISK);
	/* A throttled disk waits for ever with a request beyond what it moves at once. */
	if (kind == KT_DISK_THROTTLED)
		KT_REQUIRE(kt_write_file(QUEUE "/max_sectors_kb", "16"), QUEUE ": %m");
}

void kt_disk_remove(void)
{
	KT_EXPECT(rmdir(CONFIG) == 0, "rmdir %s: %m", CONFIG);
}

void kt_swap_on(enum kt_disk_kind kind)
{
	const size_t len = (size_t)KT_DISK_MB << 20;
	/*
	 * As mkswap(8): version, last page, bad pages at 1 KiB, magic at the page's
	 * end
	 */
	uint32_t header[3] = {1, (uint32_t)(len / kt.page - 1), 0};
	int fd;

	kt_disk_make(kind);
	fd = open(KT_DISK, O_RDWR | O_CLOEXEC);
	KT_REQUIRE(fd >= 0 &&
			   pwrite(fd, header, sizeof(header), 1024) == sizeof(header) &&
			   pwrite(fd, "SWAPSPACE2", 10, (off_t)kt.page - 10) == 10 &&
			   fsync(fd) == 0,
		   "%s: %m", KT_DISK);
	close(fd);
	KT_REQUIRE(swapon(KT_DISK, 0) == 0, "swapon %s: %m", KT_DISK);
}

void kt_swap_off(void)
{
	KT_EXPECT(swapoff(KT_DISK) == 0, "swapoff: %m");
	kt_disk_remove();
}
