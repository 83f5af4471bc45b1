/* SPDX-License-Identifier: MIT */
/*
 * The mapping calls without placement: the linker gives these (--wrap) to all
 * that is inside the library, jemalloc included, while programs see mapping.c's.
 * No state.
 */
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/direct.h"

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

int __wrap_munmap(void *addr, size_t len)
{
	return (int)syscall(SYS_munmap, addr, len);
}

int __wrap_madvise(void *addr, size_t len, int advice)
{
	return (int)syscall(SYS_madvise, addr, len, advice);
}

void *direct_mremap(void *old_addr, size_t old_len, size_t new_len, int flags,
		    void *new_addr)
{
	return (void *)syscall(SYS_mremap, old_addr, old_len, new_len, flags, new_addr);
}
