/* SPDX-License-Identifier: MIT */
/*
 * The mapping calls without placement, as mmap(2), munmap(2), madvise(2) and
 * mremap(2), and the library's own allocator, as malloc(3).
 */
#ifndef FERRY_DIRECT_H
#define FERRY_DIRECT_H

#include <stddef.h>
#include <sys/types.h>

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *addr, size_t len);
int __wrap_madvise(void *addr, size_t len, int advice);
void *direct_mremap(void *old_addr, size_t old_len, size_t new_len, int flags,
		    void *new_addr);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void __wrap_free(void *ptr);

/* The program's: jemalloc's. */
void *__real_malloc(size_t size);
void __real_free(void *ptr);

#endif /* FERRY_DIRECT_H */
