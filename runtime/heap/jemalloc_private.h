/* SPDX-License-Identifier: MIT */
/*
 * jemalloc's functions under the names that libferry's own copy has: je_mallocx
 * and so on (see CMakeLists.txt), so that libferry's malloc and free are the C
 * library's.
 */
#ifndef FERRY_JEMALLOC_PRIVATE_H
#define FERRY_JEMALLOC_PRIVATE_H

#define JEMALLOC_NO_RENAME
#include <jemalloc/jemalloc.h>

#endif /* FERRY_JEMALLOC_PRIVATE_H */
