// SPDX-License-Identifier: GPL-2.0-only
/* Does a driver map physical addresses itself, instead of pages? (since 6.19) */
#include <linux/dma-map-ops.h>

const struct dma_map_ops ferry_probe = { .map_phys = NULL };
