/* SPDX-License-Identifier: MIT */
/* See api_test.h. No shared state. */
#include "api_test.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* UFFDIO_MOVE, without which there is no engine `relocate`. */
static bool has_move(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = 1 << 16};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	bool has = fd >= 0 && !ioctl(fd, UFFDIO_API, &api);

	close(fd);
	return has;
}

int api_main(int argc, char **argv, const struct kt_case *cases, size_t nr)
{
	static const char *const engines[] = {"kmod", "syscall", "relocate",
					      "kmod+relocate"};
	int status = 0;

	if (getenv("FERRY_ENGINE"))
		return kt_main(argc, argv, cases, nr);
	for (int i = 0; i < 4 && !status; i++) {
		if (i >= 2 && !has_move()) {
			printf("FERRY_ENGINE=relocate is not for this kernel\n");
			break;
		}
		setenv("FERRY_ENGINE", engines[i], 1);
		printf("FERRY_ENGINE=%s\n", engines[i]);
		fflush(stdout);
		status = kt_main(argc, argv, cases, nr);
	}
	return status;
}

static bool told(const char *name)
{
	const char *engine = getenv("FERRY_ENGINE");

	return engine && !strcmp(engine, name);
}

bool api_engine_is(const char *name)
{
	return told(name) || (told("kmod+relocate") && !strcmp(name, "kmod"));
}

bool api_relocates(void)
{
	return told("relocate") || told("kmod+relocate");
}

struct ferry_result api_migrate(void *addr, size_t len, int node, uint32_t flags)
{
	struct ferry_range range = {addr, len, node, flags};
	struct ferry_result result;

	memset(&result, 0xa5, sizeof(result));
	KT_EXPECT_EQ(ferry_migrate(&range, 1, &result, sizeof(result)), 0);
	return result;
}

ferry_request *api_submit(void *addr, size_t len, int node, uint32_t flags)
{
	struct ferry_range range = {addr, len, node, flags};
	ferry_request *request;

	KT_REQUIRE(ferry_submit(&range, 1, &request) == 0, "ferry_submit fails");
	return request;
}

struct ferry_result api_migrate_async(void *addr, size_t len, int node, uint32_t flags)
{
	ferry_request *request = api_submit(addr, len, node, flags);
	struct ferry_result result;

	memset(&result, 0xa5, sizeof(result));
	KT_EXPECT_EQ(ferry_request_wait(request, -1), 0);
	KT_EXPECT_EQ(ferry_request_result(request, &result, sizeof(result)), 0);
	ferry_request_free(request);
	return result;
}

uint64_t api_sum(struct ferry_result r)
{
	return r.moved + r.populated + r.already + r.busy + r.nomem + r.hole +
	       r.unsupported;
}

void api_expect(struct ferry_result a, struct ferry_result e, const char *file, int line)
{
	const struct {
		const char *name;
		long long actual, expected;
	} field[] = {
		{"error", a.error, e.error},
		{"reserved", a.reserved, e.reserved},
		{"moved", (long long)a.moved, (long long)e.moved},
		{"populated", (long long)a.populated, (long long)e.populated},
		{"already", (long long)a.already, (long long)e.already},
		{"busy", (long long)a.busy, (long long)e.busy},
		{"nomem", (long long)a.nomem, (long long)e.nomem},
		{"hole", (long long)a.hole, (long long)e.hole},
		{"unsupported", (long long)a.unsupported, (long long)e.unsupported},
	};

	for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++)
		kt_expect(field[i].actual == field[i].expected, file, line,
			  "result.%s is %lld, expected %lld", field[i].name,
			  field[i].actual, field[i].expected);
}

void api_expect_query(const void *addr, size_t len)
{
	size_t pages = len / kt.page, wrong = 0;
	int16_t *nodes = malloc(pages * sizeof(*nodes));
	int *status = malloc(pages * sizeof(*status));
	uint64_t count[KT_MAX_NODE], expected[KT_MAX_NODE] = {0};

	KT_REQUIRE(nodes && status, "malloc: %m");
	KT_EXPECT_EQ(ferry_query_pages(addr, len, nodes), 0);
	kt_nodes(addr, len, status);
	for (size_t i = 0; i < pages; i++) {
		wrong += nodes[i] != (status[i] < 0 ? -1 : status[i]);
		if (status[i] >= 0)
			expected[status[i]]++;
	}
	KT_EXPECT_EQ(wrong, 0);
	KT_EXPECT_EQ(ferry_query(addr, len, count, KT_MAX_NODE), 0);
	KT_EXPECT(!memcmp(count, expected, sizeof(count)),
		  "ferry_query() counts otherwise");
	free(nodes);
	free(status);
}
