/* SPDX-License-Identifier: MIT */
/*
 * Filling memory that is touched for the first time: how much of it at once, and
 * by what.
 *
 *   fault       fault             fault                    fault
 *   v           v                 v                        v
 *   |  64 KiB   |     128 KiB     |        256 KiB         |  ...  a granule each
 *
 * A fault fills from its page to the end of a part of its granule. Such a part is a
 * block at first; where memory is touched in order, so that a fault is at the end
 * of what another has filled, it is twice as large as the one before, up to a
 * granule. What is touched here and there so has little filled for it that nobody
 * asked for.
 *
 * Once it is seen that this does not pay, because memory is touched here and
 * there or is scarce, nothing more should be: fill_ends() says so.
 *
 * A write is given zeroed pages, which the kernel puts where the memory policy of
 * the range says. A read is given the kernel's shared page of zeros, as the
 * kernel does: it takes no memory, and a page is found when it is written.
 *
 * The threads of first_touch.c only.
 */
#ifndef FERRY_FILL_H
#define FERRY_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* @uffd: what memory is registered with. The first thread, before any other call. */
void fill_open(int uffd);

/* Where nothing more should be filled, a static string that says why; else NULL. */
const char *fill_ends(void);

/*
 * Fills for a fault at the page @addr of registered memory; nobody is woken. Pages
 * that are there already stay. In *@filled, how many bytes were filled, from @addr
 * on. 0: that page is there; or -errno.
 */
int fill(uintptr_t addr, bool write, size_t *filled);

#endif /* FERRY_FILL_H */
