/* SPDX-License-Identifier: MIT */
/* Looks at a program before it is run. One thread. */
#ifndef FERRY_PROGRAM_H
#define FERRY_PROGRAM_H

#include <stddef.h>

/*
 * Finds the file that execvp(3) would run for @name. 0 and its path; -ENOENT;
 * -EACCES when there is one that may not be executed.
 */
int program_find(const char *name, char *path, size_t size);

/*
 * Why LD_PRELOAD has no effect on the program at @path, to follow "it "; NULL
 * when it has, or when that cannot be told. For a script its interpreter
 * counts.
 */
const char *program_refuses_preload(const char *path);

#endif /* FERRY_PROGRAM_H */
