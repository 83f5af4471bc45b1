/* SPDX-License-Identifier: MIT */
/*
 * The program's static arrays: the writable data (.data, .bss) of the program and
 * of the libraries that are loaded with it, where that is large. A Fortran COMMON
 * block lies there, and what C declares outside of functions or as static.
 *
 *   | relro | .data: private pages of the file | .bss: anonymous |
 *
 * Pages of a file cannot be moved, not by the module and not by userfaultfd. So
 * .data becomes anonymous memory with the same contents, before any thread but
 * the first exists and before anything of it runs. What is then between the end
 * of relro and the end of .bss gets its memory policy, as a mapping does, and is
 * never given back.
 */
#ifndef FERRY_STATICS_H
#define FERRY_STATICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span;

/* Finds and places static arrays; in the library's constructor, once. */
void statics_init(void);

/* Those that are REGION_AUTO's: as mapping_spans() and mapping_has_managed(). */
size_t statics_spans(struct span *out, size_t max);
bool statics_has_managed(uintptr_t start, uintptr_t *end);

/* Whether placed static arrays are at @addr. */
bool statics_has(const void *addr);

struct statics_usage {
	size_t count, bytes; /* placed */
};
void statics_usage(struct statics_usage *out);

#endif /* FERRY_STATICS_H */
