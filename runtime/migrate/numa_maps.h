/* SPDX-License-Identifier: MIT */
/*
 * On which nodes the process's memory is, by the kernel's own view
 * (/proc/self/numa_maps: proc(5)). For the summary at exit: nothing is allocated.
 */
#ifndef FERRY_NUMA_MAPS_H
#define FERRY_NUMA_MAPS_H

#include <stddef.h>
#include <stdint.h>

#include <ferry/ferry.h>

/*
 * Counts in bytes[kind][node] what @kind_of says the kind of, from 0 to @kinds - 1, by
 * the address that a mapping begins at; below 0: it does not count. Meanwhile nothing is
 * out of its place, for samples or to be relocated. 0; -ENOENT: this kernel has no nodes
 * to tell of; -EAGAIN: mappings kept changing. Blocks while what is out comes back.
 */
int numa_maps_count(int (*kind_of)(const void *addr), uint64_t (*bytes)[FERRY_MAX_NODES],
		    size_t kinds);

#endif /* FERRY_NUMA_MAPS_H */
