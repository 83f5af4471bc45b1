/* SPDX-License-Identifier: MIT */
/*
 * What is there: the pages of blocks, as samples of nothing but that. Functions on a
 * descriptor, for one thread at a time.
 */
#ifndef FERRY_PRESENT_H
#define FERRY_PRESENT_H

#include "fault/sampler.h"

/* Opens /proc/self/pagemap, out of the way of the program's descriptors; or -errno. */
int present_open(void);

/* Writes a sample for each block of @n spans to @out, span after span. 0 or -errno. */
int present_count(int pagemap, const struct span *span, size_t n, struct sample *out);

#endif /* FERRY_PRESENT_H */
