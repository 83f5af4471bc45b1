/* SPDX-License-Identifier: MIT */
/* Memory at addresses of its own, for tests of user faults. The main thread's. */
#ifndef FERRY_TEST_PAGES_H
#define FERRY_TEST_PAGES_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Private anonymous memory at a granule, untouched, with a granule of nothing after
 * it; in huge pages or in small ones.
 */
char *pages_map(size_t len, bool huge);

#endif /* FERRY_TEST_PAGES_H */
