/* SPDX-License-Identifier: MIT */
/*
 * FERRY_STAY: a memory policy that keeps pages where they are moved to.
 */
#ifndef FERRY_STAY_H
#define FERRY_STAY_H

#include "migrate/engine.h"

/*
 * Gives the batch's pieces that ask for it a policy that prefers the tier of
 * their node; to be called before they move. Memory of Ferry's own regions is
 * left out: it has a policy, which must stay with the region when the memory
 * is freed. A failure goes into batch->result.error; the pieces move all the
 * same. Blocks as mbind(2). Any thread.
 */
void stay_apply(struct batch *batch);

#endif /* FERRY_STAY_H */
