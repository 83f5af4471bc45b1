/* SPDX-License-Identifier: MIT */
/*
 * The sampler `pebs` (sampler.h), and what its test needs: a choice of what is sampled.
 * Before it is opened.
 */
#ifndef FERRY_PEBS_H
#define FERRY_PEBS_H

#include "fault/perf.h"

/*
 * Samples accesses that @source counts instead of loads; NULL: loads. Page faults have
 * addresses too, on any machine. *@source is kept.
 */
void pebs_sample(const struct perf_source *source);

/* Threads that are sampled now. */
unsigned int pebs_threads(void);

#endif /* FERRY_PEBS_H */
