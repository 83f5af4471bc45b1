// SPDX-License-Identifier: GPL-2.0-only
/* Are page table entries that are not present called leaf entries? (since 6.19) */
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/leafops.h>
