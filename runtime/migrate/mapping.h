/* SPDX-License-Identifier: MIT */
/*
 * What is mapped where in this process: PROCMAP_QUERY (Linux 6.11) on
 * /proc/self/maps, or its text on older kernels. Lookups go upward only, so
 * that the text is read once.
 *
 * A reader belongs to one thread; what it tells may have changed by the time
 * it is used.
 */
#ifndef FERRY_MAPPING_H
#define FERRY_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/lines.h"

struct mapping {
	uintptr_t start, end;
	bool anonymous; /* private anonymous memory, which Ferry may move */
	bool writable;
};

struct mapping_reader {
	bool text;              /* PROCMAP_QUERY is not there */
	struct mapping current; /* the last one found; empty at first */
	struct lines maps;
};

/* @text: use the text even where PROCMAP_QUERY works. 0 or -errno. */
int mapping_open(struct mapping_reader *reader, bool text);

/*
 * The lowest mapping that ends above @addr, which must not be lower than in
 * the call before: 1 and *@out, 0 if there is none, or -errno.
 */
int mapping_find(struct mapping_reader *reader, uintptr_t addr, struct mapping *out);

/*
 * Whether one mapping covers [start, end); @fd: /proc/self/maps. false also if this
 * kernel would have to be asked by the text.
 */
bool mapping_covers(int fd, uintptr_t start, uintptr_t end);

void mapping_close(struct mapping_reader *reader);

#endif /* FERRY_MAPPING_H */
