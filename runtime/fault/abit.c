/* SPDX-License-Identifier: MIT */
/*
 * The sampler `abit`: accessed bits, which ferry.ko reads and clears
 * (FERRY_IOC_SCAN).
 *
 * A window begins with a scan that clears the bits and ends with one that only
 * reads them. A CPU that still holds a translation sets no bit, and one that
 * keeps to few huge pages holds theirs for seconds; so the TLBs are flushed
 * once after the bits are cleared. The module has no right to do that for its
 * caller, but the caller has: changing the protection of more pages than the
 * kernel flushes one by one (33 on x86) flushes all of the process.
 *
 * Opened, used and closed by one thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ferry/ferry_ioctl.h>

#include "fault/sampler.h"
#include "os/thread.h"

#define FLUSH_BYTES (40 * PAGE_BYTES)

/* Rows that one call of the module answers, so that they fit a stack. */
#define CALL_ROWS ((size_t)1024)

/* Out of the way of what programs number themselves. */
#define FD_LEAST 500

static struct {
	int fd;
	char *flush; /* pages whose protection is changed */
} abit = {.fd = -1};

/* ---- opening ------------------------------------------------------------- */

static int check_device(const char **why)
{
	struct ferry_ioc_info info = {.size = sizeof(info)};

	if (ioctl(abit.fd, FERRY_IOC_INFO, &info)) {
		*why = FERRY_DEVICE_PATH ": does not answer as Ferry's module";
		return -errno;
	}
	if (info.abi != FERRY_ABI_VERSION) {
		*why = FERRY_DEVICE_PATH
			": the module's ABI version is not this library's";
		return -EPROTO;
	}
	if (!(info.features & FERRY_FEATURE_SCAN) || info.page_size != PAGE_BYTES) {
		*why = FERRY_DEVICE_PATH ": the module cannot scan accessed bits";
		return -EPROTO;
	}
	return 0;
}

static int open_device(const char **why)
{
	int fd = open(FERRY_DEVICE_PATH, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		*why = errno == ENOENT || errno == ENXIO || errno == ENODEV
			       ? FERRY_DEVICE_PATH ": not there (module not loaded)"
		       : errno == EACCES || errno == EPERM
			       ? FERRY_DEVICE_PATH ": permission denied"
			       : FERRY_DEVICE_PATH ": cannot be opened";
		return -errno;
	}
	abit.fd = fcntl(fd, F_DUPFD_CLOEXEC, FD_LEAST);
	if (abit.fd < 0)
		abit.fd = fd;
	else
		close(fd);
	return check_device(why);
}

static int map_flush(const char **why)
{
	char *pages = mmap(NULL, FLUSH_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED) {
		*why = "no memory";
		return -ENOMEM;
	}
	madvise(pages, FLUSH_BYTES, MADV_NOHUGEPAGE);
	memset(pages, 1, FLUSH_BYTES); /* or else there would be nothing to flush */
	abit.flush = pages;
	return 0;
}

static void abit_close(void)
{
	if (abit.flush)
		munmap(abit.flush, FLUSH_BYTES);
	if (abit.fd >= 0)
		close(abit.fd);
	abit.flush = NULL;
	abit.fd = -1;
}

static int abit_open(const char **why)
{
	int err = open_device(why);

	if (!err)
		err = map_flush(why);
	if (err)
		abit_close();
	else
		*why = FERRY_DEVICE_PATH " scans accessed bits";
	return err;
}

/* ---- sampling ------------------------------------------------------------ */

static int scan(uintptr_t addr, size_t len, size_t granule, uint32_t flags,
		struct ferry_scan_row *row)
{
	struct ferry_ioc_scan arg = {
		.size = sizeof(arg),
		.flags = flags,
		.addr = addr,
		.len = len,
		.granule_bytes = granule,
		.out = (uintptr_t)row,
		.out_bytes = CALL_ROWS * sizeof(*row),
	};

	while (ioctl(abit.fd, FERRY_IOC_SCAN, &arg))
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* The end of @rows rows of @granule bytes from @addr on, or @end if that comes first. */
static uintptr_t rows_end(uintptr_t addr, size_t rows, size_t granule, uintptr_t end)
{
	uintptr_t last = (addr & ~(granule - 1)) + rows * granule;

	return last < end ? last : end;
}

static bool is_huge(const struct ferry_scan_row *row)
{
	return row->huge == GRANULE_BYTES / PAGE_BYTES;
}

/*
 * Clears the bits of a span. Notes in the sample of each granule's first block
 * whether a huge page maps all of it: then one row will do for it.
 */
static int clear_span(const struct span *span, struct sample *out)
{
	struct ferry_scan_row row[CALL_ROWS];
	uintptr_t addr = span->start;

	while (addr < span->end) {
		uintptr_t end = rows_end(addr, CALL_ROWS, GRANULE_BYTES, span->end);
		int err = scan(addr, end - addr, GRANULE_BYTES, 0, row);

		if (err)
			return err;
		for (size_t i = 0; addr < end; i++) {
			uintptr_t next = rows_end(addr, 1, GRANULE_BYTES, end);

			out->huge = is_huge(&row[i]);
			out += (next - addr) / BLOCK_BYTES;
			addr = next;
		}
	}
	return 0;
}

/* Reads blocks that small pages may map: [addr, end). */
static int read_blocks(uintptr_t addr, uintptr_t end, struct sample *out)
{
	struct ferry_scan_row row[CALL_ROWS];

	while (addr < end) {
		uintptr_t stop = rows_end(addr, CALL_ROWS, BLOCK_BYTES, end);
		int err = scan(addr, stop - addr, BLOCK_BYTES, FERRY_SCAN_PEEK, row);

		if (err)
			return err;
		for (size_t i = 0; addr < stop; i++, addr += BLOCK_BYTES)
			*out++ = (struct sample){
				.present = (uint8_t)row[i].present,
				.watched = (uint8_t)row[i].present,
				.accessed = (uint8_t)row[i].accessed,
				.huge = (uint8_t)row[i].huge,
			};
	}
	return 0;
}

/* Reads whole granules that are huge pages, if they still are. */
static int read_huge(uintptr_t addr, uintptr_t end, struct sample *out)
{
	struct ferry_scan_row row[CALL_ROWS];

	while (addr < end) {
		uintptr_t stop = rows_end(addr, CALL_ROWS, GRANULE_BYTES, end);
		int err = scan(addr, stop - addr, GRANULE_BYTES, FERRY_SCAN_PEEK, row);

		for (size_t i = 0; addr < stop && !err; i++, addr += GRANULE_BYTES) {
			const size_t pages = BLOCK_BYTES / PAGE_BYTES;
			struct sample sample = {
				.present = pages,
				.watched = pages,
				.accessed = row[i].accessed ? pages : 0,
				.huge = pages,
			};

			if (is_huge(&row[i]))
				for (size_t k = 0; k < GRANULE_BYTES / BLOCK_BYTES; k++)
					out[k] = sample;
			else
				err = read_blocks(addr, addr + GRANULE_BYTES, out);
			out += GRANULE_BYTES / BLOCK_BYTES;
		}
		if (err)
			return err;
	}
	return 0;
}

/* Reads a span's bits into @out, where clear_span() has left its notes. */
static int read_span(const struct span *span, struct sample *out)
{
	uintptr_t addr = span->start;

	while (addr < span->end) {
		const struct sample *note = out;
		uintptr_t end = addr;
		int err;

		do {
			uintptr_t next = rows_end(end, 1, GRANULE_BYTES, span->end);

			note += (next - end) / BLOCK_BYTES;
			end = next;
		} while (end < span->end && note->huge == out->huge);
		err = out->huge ? read_huge(addr, end, out) : read_blocks(addr, end, out);
		if (err)
			return err;
		out += (end - addr) / BLOCK_BYTES;
		addr = end;
	}
	return 0;
}

static void flush_tlbs(void)
{
	mprotect(abit.flush, FLUSH_BYTES, PROT_NONE);
	mprotect(abit.flush, FLUSH_BYTES, PROT_READ | PROT_WRITE);
}

static int abit_sample(const struct span *span, size_t n, uint64_t window_ns,
		       struct sample *out)
{
	struct sample *at = out;
	int err = 0;

	for (size_t i = 0; i < n && !err; i++) {
		err = clear_span(&span[i], at);
		at += (span[i].end - span[i].start) / BLOCK_BYTES;
	}
	if (err)
		return err;
	flush_tlbs();
	sleep_ns(window_ns);
	for (size_t i = 0; i < n && !err; i++) {
		err = read_span(&span[i], out);
		out += (span[i].end - span[i].start) / BLOCK_BYTES;
	}
	return err;
}

const struct sampler sampler_abit = {
	.name = "abit",
	.open = abit_open,
	.close = abit_close,
	.sample = abit_sample,
};
