/* SPDX-License-Identifier: MIT */
/*
 * What the guest tests of libferry's migration add to kmod_test.h: the same
 * cases run with each engine. Functions may be called by any thread.
 */
#ifndef API_TEST_H
#define API_TEST_H

#include <ferry/ferry.h>

#include "kmod_test.h"

/*
 * Runs all cases with FERRY_ENGINE=kmod, =syscall and, where the kernel can,
 * =relocate and =auto, or with what the environment says. Each case is a process of its
 * own, and libferry begins anew in it. Returns the exit status.
 */
int api_main(int argc, char **argv, const struct kt_case *cases, size_t nr);

/* A case of libferry's: it does not need the device. */
#define API_CASE(fn)                                                                     \
	{                                                                                \
		.name = #fn, .run = fn, .no_device = true                                \
	}

/* The engine that this process was told to use; there is a module. */
bool api_engine_is(const char *name);
/* Whether it moves huge pages by relocation. */
bool api_relocates(void);

/* One range through ferry_migrate(), which must return 0. */
struct ferry_result api_migrate(void *addr, size_t len, int node, uint32_t flags);
/* The same through ferry_submit(). */
struct ferry_result api_migrate_async(void *addr, size_t len, int node, uint32_t flags);
ferry_request *api_submit(void *addr, size_t len, int node, uint32_t flags);

/* All fields of a result; those not named are expected to be 0. */
#define API_EXPECT(res, ...)                                                             \
	api_expect(res, (struct ferry_result){__VA_ARGS__}, __FILE__, __LINE__)
void api_expect(struct ferry_result actual, struct ferry_result expected,
		const char *file, int line);

/* The sum of the counts is the pages of @len bytes, and there was no error. */
#define API_EXPECT_SUM(res, len)                                                         \
	do {                                                                             \
		KT_EXPECT_EQ((res).error, 0);                                            \
		KT_EXPECT_EQ(api_sum(res), (len) / kt.page);                             \
	} while (0)
uint64_t api_sum(struct ferry_result result);

/* The engine's answer is the one of move_pages(2), page by page. */
void api_expect_query(const void *addr, size_t len);

#endif /* API_TEST_H */
