/* SPDX-License-Identifier: MIT */
/*
 * What libferry passes on to the preload library, if a program has both: advice
 * on memory that the preload library manages, and marks of phases. libferry finds
 * these symbols when it is loaded, or not.
 */
#ifndef FERRY_PRELOAD_ADVISE_H
#define FERRY_PRELOAD_ADVISE_H

#include <stdbool.h>
#include <stdint.h>

#include <ferry/ferry.h>

enum preload_mark { PRELOAD_PHASE_BEGIN, PRELOAD_PHASE_END, PRELOAD_PHASE_PREFETCH };

/* As auto_advise(). */
__attribute__((weak)) int ferry_preload_advise(uintptr_t start, uintptr_t *end,
					       enum ferry_advice advice, bool *taken);

/* As ferry_phase_begin() and its kin. */
__attribute__((weak)) int ferry_preload_phase(enum preload_mark mark, const char *name);

#endif /* FERRY_PRELOAD_ADVISE_H */
