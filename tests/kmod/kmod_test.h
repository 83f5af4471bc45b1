/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the kernel module share: a runner of cases, expectations,
 * memory with a known pattern on a known node, the kernel's own view of where
 * pages are (move_pages(2) without targets), and thin wrappers of the ioctls.
 *
 * Each case runs in a process of its own with a freshly opened device, so that
 * memory, policies and a crash of one case do not reach the next. kt_expect()
 * may be called by any thread; all else, unless said otherwise, is for the main
 * thread or touches only its arguments.
 */
#ifndef KMOD_TEST_H
#define KMOD_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <ferry/ferry_ioctl.h>

#define KT_SKIP     77 /* exit status of a skipped test */
#define KT_HUGE     (2UL << 20)
#define KT_MAX_NODE 1024

/* What every case may rely on; set before it runs, constant afterwards. */
struct kt_env {
	int fd;                     /* the device, opened by this process */
	int ddr;                    /* a node with CPUs and memory */
	int hbm;                    /* another node with memory */
	size_t page;                /* bytes of a base page */
	struct ferry_ioc_info info; /* the module's answer to FERRY_IOC_INFO */
};
extern struct kt_env kt;

/* One case. It passes when it returns without a failed expectation. */
struct kt_case {
	const char *name;
	void (*run)(void);
	bool no_device; /* the case opens (or unloads) the device itself */
};

#define KT_CASE(fn)                                                                      \
	{                                                                                \
		.name = #fn, .run = fn                                                   \
	}

/* Runs all cases, or those named in argv; returns the exit status. */
int kt_main(int argc, char **argv, const struct kt_case *cases, size_t nr);

#define KT_MAIN(cases)                                                                   \
	int main(int argc, char **argv)                                                  \
	{                                                                                \
		return kt_main(argc, argv, cases, sizeof(cases) / sizeof((cases)[0]));   \
	}

/* ---- expectations ------------------------------------------------------- */

/* Notes a failure and goes on; any thread. Returns whether @ok held. */
bool kt_expect(bool ok, const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Ends the process as skipped, with a reason. */
_Noreturn void kt_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Failures noted so far in this process. */
int kt_failures(void);

#define KT_EXPECT(cond, ...) kt_expect((cond), __FILE__, __LINE__, __VA_ARGS__)

#define KT_EXPECT_EQ(actual, expected)                                                   \
	do {                                                                             \
		long long a_ = (long long)(actual), e_ = (long long)(expected);          \
		kt_expect(a_ == e_, __FILE__, __LINE__,                                  \
			  "%s is %lld, expected %s = %lld", #actual, a_, #expected, e_); \
	} while (0)

/* For what a case cannot go on without. */
#define KT_REQUIRE(cond, ...)                                                            \
	do {                                                                             \
		if (!kt_expect((cond), __FILE__, __LINE__, __VA_ARGS__))                 \
			kt_die();                                                        \
	} while (0)
_Noreturn void kt_die(void);

/* All fields of a result; those not named are expected to be 0. */
#define KT_EXPECT_RESULT(res, ...)                                                       \
	kt_expect_result((res), &(struct ferry_ioc_result){__VA_ARGS__}, __FILE__,       \
			 __LINE__)
void kt_expect_result(const struct ferry_ioc_result *actual,
		      const struct ferry_ioc_result *expected, const char *file,
		      int line);

/* Sum of the counts of a result: the pages of its range. */
uint64_t kt_sum(const struct ferry_ioc_result *res);
#define KT_EXPECT_SUM(res, len) KT_EXPECT_EQ(kt_sum(res), (len) / kt.page)

/* ---- memory ------------------------------------------------------------- */

/* Private anonymous memory, untouched, never huge; @len in bytes. */
void *kt_alloc(size_t len);
/* The same, 2 MiB aligned, huge pages asked for. */
void *kt_alloc_huge(size_t len);
/* kt_alloc(), then filled with the pattern @seed by pages of @node. */
void *kt_alloc_on(size_t len, int node, uint64_t seed);

/* Writes or compares the pattern; any thread. kt_bad() counts wrong words. */
void kt_fill(void *addr, size_t len, uint64_t seed);
size_t kt_bad(const void *addr, size_t len, uint64_t seed);
#define KT_EXPECT_DATA(addr, len, seed) KT_EXPECT_EQ(kt_bad(addr, len, seed), 0)

/* kt_fill() with the calling thread's new pages on @node. */
void kt_fill_on(void *addr, size_t len, int node, uint64_t seed);

/* @n huge pages of @node, filled with the pattern @seed; what is split stays split */
char *kt_huge_on(size_t n, int node, uint64_t seed);
/* Huge pages that map the range, as the kernel says */
size_t kt_huge_in(const void *mem, size_t len);

/*
 * A thread that adds 1 to the first word of each page of some memory, over and over.
 * kt_writer_start() sets those words to 0 and returns when all have been written once;
 * kt_writer_stop() tells how many pages have lost a write. One at a time.
 */
void kt_writer_start(char *mem, size_t len);
size_t kt_writer_stop(void);

/* Takes a node in huge pages, a byte each, down to some @leave free bytes. */
void kt_take_node(int node, size_t leave);

/* Can the kernel read or write one byte here for us? Writing stores a 0. */
bool kt_readable(const void *addr);
bool kt_writable(void *addr);

/* ---- the kernel's view -------------------------------------------------- */

/* status[i]: node of page i or -errno, as move_pages(2) answers. */
void kt_nodes(const void *addr, size_t len, int *status);
/* Pages of the range that are on @node. */
size_t kt_on(const void *addr, size_t len, int node);
#define KT_EXPECT_ON(addr, len, node)                                                    \
	KT_EXPECT_EQ(kt_on(addr, len, node), (len) / kt.page)

/* Bit 55 and bit 57 of kt_pagemap(): written since soft-dirty was cleared, uffd-wp. */
#define KT_SOFT_DIRTY (1ULL << 55)
#define KT_UFFD_WP    (1ULL << 57)
/* entry[i]: what /proc/self/pagemap says of page i. */
void kt_pagemap(const void *addr, size_t len, uint64_t *entry);

/* kB of a field such as "AnonHugePages" in all mappings that meet the range. */
long kt_smaps(const void *addr, size_t len, const char *field);
/* Permissions of the mapping at @addr as in maps, "" when there is none. */
void kt_perms(const void *addr, char perms[5]);
/* The first mapping with this name in maps: its start, length in *@len. */
void *kt_find_map(const char *name, size_t *len);
/* First number behind @key in a file such as /proc/vmstat; -1 when absent. */
long kt_file_key(const char *path, const char *key);
/* Free bytes of a node. */
size_t kt_node_free(int node);
/*
 * Bytes that are free or known to have another use, which may change meanwhile:
 * files, and the kernel's objects, of which KASAN keeps those that were freed.
 */
size_t kt_free_or_other(void);
/* A file's text or one line into it; false when that cannot be. */
bool kt_read_file(const char *path, char *text, size_t size);
bool kt_write_file(const char *path, const char *text);
/* Nodes of a list such as "0,2-3" in a file (behind @key, when not NULL). */
bool kt_node_list(const char *path, const char *key, bool nodes[KT_MAX_NODE]);

/* ---- the device --------------------------------------------------------- */

int kt_open(void);
/* ioctl(2) that returns -errno; any thread. */
long kt_ioctl(int fd, unsigned int nr, void *arg);

/* A request of one range with all it points to; see kt_request_init(). */
struct kt_request {
	struct ferry_ioc_migrate arg;
	struct ferry_ioc_range range;
	struct ferry_ioc_result result;
};

void kt_request_init(struct kt_request *req, void *addr, size_t len, int node);

/* One range, or a batch, through kt.fd; any thread. @res may be NULL. */
long kt_migrate(void *addr, size_t len, int node, unsigned int range_flags,
		struct ferry_ioc_result *res);
long kt_migrate_batch(unsigned int flags, const struct ferry_ioc_range *ranges,
		      unsigned int nr, struct ferry_ioc_result *res);

/* ---- processes and time -------------------------------------------------- */

/* fork(2); the child dies with its parent and starts without failures. */
pid_t kt_fork(void);
/* Ends a child: 1 when an expectation failed in it, else 0. */
_Noreturn void kt_child_end(void);
/* Exit status of a child, or 128 + the signal that ended it. */
int kt_wait(pid_t pid);
/* One-shot events between processes: a pipe used one byte at a time. */
struct kt_event {
	int fd[2];
};
void kt_event_init(struct kt_event *event);
void kt_event_post(struct kt_event *event);
void kt_event_wait(struct kt_event *event);

uint64_t kt_now_us(void);
/*
 * What to multiply a time limit by: 1, more on a kernel whose checks make it
 * slow (FERRY_GUEST_KERNEL, see tests/guest/run).
 */
unsigned int kt_slowness(void);
/* Rounds of a long test: FERRY_TEST_ROUNDS, or @standard. */
unsigned int kt_rounds(unsigned int standard);

#endif /* KMOD_TEST_H */
