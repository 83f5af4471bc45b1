/* SPDX-License-Identifier: MIT */
/* What is there: see present.h. No state. */
#include "fault/present.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "migrate/pagemap.h"

#define FD_LEAST 500 /* out of the way of what programs number themselves */

int present_open(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), high;

	if (fd < 0)
		return -errno;
	high = fcntl(fd, F_DUPFD_CLOEXEC, FD_LEAST);
	if (high < 0)
		return fd;
	close(fd);
	return high;
}

/* Adds the pages of a run, which lies in a span that @first is the first sample of. */
static void count_run(const struct page_run *run, uintptr_t start, struct sample *first)
{
	for (uintptr_t at = run->start; at < run->end;) {
		uintptr_t end = (at & ~(BLOCK_BYTES - 1)) + BLOCK_BYTES;
		struct sample *sample = &first[(at - start) / BLOCK_BYTES];
		uint8_t pages;

		if (end > run->end)
			end = run->end;
		pages = (uint8_t)((end - at) / PAGE_BYTES);
		sample->present += pages;
		if (run->huge)
			sample->huge += pages;
		at = end;
	}
}

static int count_span(int pagemap, const struct span *span, struct sample *out)
{
	struct page_run run[PAGEMAP_RUNS];
	uintptr_t at = span->start;

	for (size_t i = 0; i < (span->end - span->start) / BLOCK_BYTES; i++)
		out[i] = (struct sample){0};
	while (at < span->end) {
		int n = pagemap_runs(pagemap, at, span->end, run, &at);

		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			count_run(&run[i], span->start, out);
	}
	return 0;
}

/* On kernels without PAGEMAP_SCAN (Linux 6.7), which do not tell of huge pages. */
static int read_span(int pagemap, const struct span *span, struct sample *out)
{
	uint64_t entry[BLOCK_BYTES / PAGE_BYTES];

	for (uintptr_t at = span->start; at < span->end; at += BLOCK_BYTES) {
		ssize_t len = pread(pagemap, entry, sizeof(entry),
				    (off_t)(at / PAGE_BYTES * sizeof(entry[0])));

		if (len < 0)
			return -errno;
		*out = (struct sample){0};
		for (size_t i = 0; i < (size_t)len / sizeof(entry[0]); i++)
			out->present += entry[i] >> 63;
		out++;
	}
	return 0;
}

int present_count(int pagemap, const struct span *span, size_t n, struct sample *out)
{
	for (size_t i = 0; i < n; i++) {
		int err = count_span(pagemap, &span[i], out);

		if (err == -ENOTTY)
			err = read_span(pagemap, &span[i], out);
		if (err)
			return err;
		out += (span[i].end - span[i].start) / BLOCK_BYTES;
	}
	return 0;
}
