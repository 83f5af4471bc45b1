/* SPDX-License-Identifier: MIT */
/*
 * The mapping calls without placement, and an allocator that is not the
 * program's: the linker gives these (--wrap) to all that is inside the library,
 * jemalloc included, while programs see mapping.c's and jemalloc's. So what
 * manages the heap needs no heap. No state.
 *
 * The allocator is for the tables of a batch of pages to be moved: few and
 * large, each a mapping of its own with its size in front.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
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

#define HEADER 16 /* keeps malloc(3)'s alignment */

void *__wrap_malloc(size_t size)
{
	char *mapped = MAP_FAILED;

	if (size <= SIZE_MAX - HEADER)
		mapped = __wrap_mmap(NULL, size + HEADER, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mapped == MAP_FAILED) {
		errno = ENOMEM;
		return NULL;
	}
	memcpy(mapped, &size, sizeof(size));
	return mapped + HEADER;
}

void *__wrap_calloc(size_t count, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return __wrap_malloc(bytes);
}

void __wrap_free(void *ptr)
{
	size_t size;

	if (!ptr)
		return;
	memcpy(&size, (char *)ptr - HEADER, sizeof(size));
	__wrap_munmap((char *)ptr - HEADER, size + HEADER);
}
