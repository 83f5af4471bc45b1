/* SPDX-License-Identifier: MIT */
/* What early.c allocates. Written before main() only. */
#ifndef FERRY_TEST_EARLY_H
#define FERRY_TEST_EARLY_H

#define EARLY_SMALL ((size_t)64 << 10)
#define EARLY_LARGE ((size_t)4 << 20)

extern char *early_small, *early_large;

#endif /* FERRY_TEST_EARLY_H */
