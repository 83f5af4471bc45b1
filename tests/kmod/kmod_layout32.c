/* SPDX-License-Identifier: MIT */
/* kmod_layout.h for 32-bit callers; built with -m32, never linked. */
#include "kmod_layout.h"

_Static_assert(sizeof(void *) == 4, "must be compiled for 32 bits");

typedef int ferry_layout32; /* a file may not be empty */
