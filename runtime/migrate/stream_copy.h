/* SPDX-License-Identifier: MIT */
/*
 * Copying memory that the CPU is not going to use: with stores that bypass the
 * caches, so that they keep what the program uses and the destination is not
 * read first. Any thread.
 */
#ifndef FERRY_STREAM_COPY_H
#define FERRY_STREAM_COPY_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Copies @len bytes, a multiple of 256, between areas that are aligned to 64
 * bytes and do not overlap. Other CPUs see all of it once the caller publishes
 * it.
 */
typedef void stream_copy_fn(void *to, const void *from, size_t len);

struct stream_copy {
	const char *name; /* the instructions it uses */
	bool (*usable)(void);
	stream_copy_fn *copy;
};

/* What this machine's architecture has, the best first; ends with a NULL name. */
extern const struct stream_copy stream_copies[];

/* The best one that this CPU has. */
const struct stream_copy *stream_copy_best(void);

#endif /* FERRY_STREAM_COPY_H */
