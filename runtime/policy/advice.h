/* SPDX-License-Identifier: MIT */
/*
 * What the program says of its managed memory: which range it will need, which
 * is cold, and which is pinned to a tier (ferry_advise()). The latest word on a
 * byte counts, until it is let go or its memory is freed.
 *
 * One lock guards the record. It is taken below the lock of the preload
 * library's mappings; under it nothing is allocated but by mmap(2).
 * advice_fork_* hold it over fork(2), and a child keeps the record.
 */
#ifndef FERRY_ADVICE_H
#define FERRY_ADVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ferry/ferry.h>

struct advised {
	uintptr_t start, end;
	enum ferry_advice advice; /* not FERRY_ADVICE_NONE */
};

/* Takes note of advice; FERRY_ADVICE_NONE ends what there is. 0 or -ENOMEM. */
int advice_set(uintptr_t start, uintptr_t end, enum ferry_advice advice);

/* The memory is freed: advice on it ends. Cheap where there is none nearby. */
void advice_forget(uintptr_t start, uintptr_t end);

/* Grows with each change; 0: there never was any advice. */
unsigned int advice_changes(void);

/* Fills in up to @max, in ascending order; how many there are. */
size_t advice_list(struct advised *out, size_t max);

/*
 * The advice on most of [start, end) in a list as above. In *@alike, whether it
 * is the same for all of it.
 */
enum ferry_advice advice_of(const struct advised *list, size_t n, uintptr_t start,
			    uintptr_t end, bool *alike);

void advice_fork_prepare(void);
void advice_fork_done(void);

#endif /* FERRY_ADVICE_H */
