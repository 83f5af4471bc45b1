/* SPDX-License-Identifier: MIT */
/*
 * Where jemalloc maps memory for itself: both copies of it call this instead of
 * mmap(2) (see the objcopy commands). As mmap(2); thread-safe.
 */
#ifndef FERRY_METADATA_H
#define FERRY_METADATA_H

#include <stddef.h>
#include <sys/types.h>

void *metadata_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);

#endif /* FERRY_METADATA_H */
