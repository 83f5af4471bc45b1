/* SPDX-License-Identifier: MIT */
/*
 * Who fills memory of a program's heap when it is touched: the kernel, page by page, or
 * threads of Ferry's (fault/first_touch.h), where FERRY_FIRST_TOUCH asks for that
 * and it is safe. No state.
 */
#ifndef FERRY_FILLING_H
#define FERRY_FILLING_H

#include <stdbool.h>

#include "config/config.h"

/* "kernel" or "userfaultfd", and in *@why, a static string, the reason. */
const char *filling_name(const struct config *config, const char **why);

/*
 * Starts Ferry's threads, if they are asked for; once a process, after
 * region_init() and huge_init(). What keeps them from it is said, unless @said.
 */
void filling_start(const struct config *config, bool said,
		   void (*say)(const char *format, ...));

#endif /* FERRY_FILLING_H */
