/* SPDX-License-Identifier: MIT */
/* Memory for tests of user faults, and what the kernel says of it. */
#ifndef FERRY_FAULT_MEMORY_H
#define FERRY_FAULT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/page.h"

#define PAGE PAGE_BYTES
#define SIZE (4 * GRANULE_BYTES)

/* SIZE bytes in small pages at a granule, untouched, with a granule of nothing after. */
char *fault_map(void);
/* The same, registered for first touch. */
char *fault_fresh(void);

/* How many pages of [mem, mem + len) the page tables have. */
size_t pages_there(const char *mem, size_t len);
/* The process's anonymous memory, without the page of zeros, in KiB. */
size_t anonymous_kib(void);

bool all_are(const char *mem, size_t len, char value);

#endif /* FERRY_FAULT_MEMORY_H */
