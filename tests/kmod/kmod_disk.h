/* SPDX-License-Identifier: MIT */
/*
 * A block device in memory (null_blk) for tests that need a slow one. One
 * process makes and removes it; no state besides the kernel's.
 */
#ifndef KMOD_DISK_H
#define KMOD_DISK_H

#include <stdbool.h>
#include <stddef.h>

#define KT_DISK         "/dev/ferry-disk"
#define KT_DISK_MB      64
#define KT_DISK_RATE    (1UL << 20) /* bytes a second of a throttled disk */
#define KT_DISK_AT_MOST 16384       /* bytes of a request to a throttled disk */

enum kt_disk_kind {
	KT_DISK_PLAIN,     /* as fast as memory */
	KT_DISK_LATE,      /* tells of the end of a request 10 ms late */
	KT_DISK_THROTTLED, /* moves the data late: KT_DISK_RATE, KT_DISK_AT_MOST */
};

/* Makes the disk KT_DISK, or ends the case as skipped. */
void kt_disk_make(enum kt_disk_kind kind);
void kt_disk_remove(void);

/* The same, and swaps to it. */
void kt_swap_on(enum kt_disk_kind kind);
void kt_swap_off(void);

#endif /* KMOD_DISK_H */
