/* SPDX-License-Identifier: MIT */
/* Events of the kernel: see perf.h. No state. */
#include "fault/perf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migrate/page.h"

#define DEVICES "/sys/bus/event_source/devices"

/* Pages of a ring without its head: as many as can be locked in memory. */
#define RING_PAGES 8

/* Loads between two samples, at first: some thousand samples a second of a busy core. */
#define FIRST_PERIOD 100003

/* ---- what this machine has ------------------------------------------------ */

static bool read_file(const char *device, const char *file, char *text, size_t size)
{
	char path[128];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), DEVICES "/%s/%s", device, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	len = read(fd, text, size - 1);
	close(fd);
	text[len > 0 ? len : 0] = '\0';
	return len > 0;
}

/* The value of @key in an event's description, "event=0xcd,umask=0x1,ldlat=3". */
static uint64_t value_of(const char *event, const char *key)
{
	size_t len = strlen(key);

	for (const char *at = event; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (!strncmp(at, key, len) && at[len] == '=')
			return strtoull(at + len + 1, NULL, 0);
	}
	return 0;
}

static bool find_type(const char *device, uint32_t *type)
{
	char text[32];

	if (!read_file(device, "type", text, sizeof(text)))
		return false;
	*type = (uint32_t)strtoul(text, NULL, 10);
	return true;
}

/* Intel's: loads of at least some latency; on some CPUs with another event before them.
 */
static bool find_loads(const char *device, struct perf_source *source)
{
	char event[128];

	if (!find_type(device, &source->type) ||
	    !read_file(device, "events/mem-loads", event, sizeof(event)))
		return false;
	source->name = "loads with addresses by PEBS";
	source->config = value_of(event, "event") | value_of(event, "umask") << 8;
	source->config1 = value_of(event, "ldlat");
	source->precise = 2;
	source->first_period = FIRST_PERIOD;
	source->leader = read_file(device, "events/mem-loads-aux", event, sizeof(event));
	if (source->leader)
		source->lead = value_of(event, "event") | value_of(event, "umask") << 8;
	return true;
}

#define IBS_COUNT_OPS (UINT64_C(1) << 19)

/* AMD's: every so many'th operation, of which loads and stores have addresses. */
static bool find_ibs(struct perf_source *source)
{
	if (!find_type("ibs_op", &source->type))
		return false;
	source->name = "loads and stores with addresses by IBS";
	source->config = IBS_COUNT_OPS;
	source->kernel = true;
	source->first_period = FIRST_PERIOD & ~UINT64_C(15);
	source->least_period = 16;
	return true;
}

int perf_loads(struct perf_source source[PERF_SOURCES])
{
	/* One, or one for each kind of core. */
	static const char *const devices[] = {"cpu", "cpu_core", "cpu_atom"};
	int n = 0;

	memset(source, 0, PERF_SOURCES * sizeof(*source));
	for (size_t i = 0; i < 3 && n < PERF_SOURCES; i++)
		n += find_loads(devices[i], &source[n]);
	if (!n)
		n += find_ibs(&source[0]);
	return n ? n : -ENODEV;
}

/* ---- opening --------------------------------------------------------------- */

static int open_event(const struct perf_event_attr *attr, pid_t tid, int group)
{
	int fd = (int)syscall(SYS_perf_event_open, attr, tid, -1, group,
			      PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Smaller where no more can be locked. */
static int map_ring(struct perf_ring *ring)
{
	for (size_t pages = RING_PAGES; pages; pages /= 2) {
		ring->bytes = (pages + 1) * PAGE_BYTES;
		ring->map = mmap(NULL, ring->bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
				 ring->fd, 0);
		if (ring->map != MAP_FAILED)
			return 0;
	}
	ring->map = NULL;
	return -ENOMEM;
}

int perf_open(struct perf_ring *ring, const struct perf_source *source, pid_t tid,
	      uint64_t period)
{
	struct perf_event_attr attr = {
		.type = source->type,
		.size = sizeof(attr),
		.config = source->config,
		.config1 = source->config1,
		.sample_period = period,
		.sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_ADDR | PERF_SAMPLE_DATA_SRC,
		.precise_ip = source->precise,
		.exclude_kernel = !source->kernel,
		.exclude_hv = !source->kernel,
		.watermark = 1,
		.wakeup_watermark = RING_PAGES * PAGE_BYTES / 4,
	};
	int err = 0;

	*ring = (struct perf_ring){.fd = -1, .leader = -1};
	if (source->leader) {
		struct perf_event_attr lead = {
			.type = source->type,
			.size = sizeof(lead),
			.config = source->lead,
			.exclude_kernel = 1,
			.exclude_hv = 1,
		};

		ring->leader = open_event(&lead, tid, -1);
		if (ring->leader < 0)
			return ring->leader;
	}
	ring->fd = open_event(&attr, tid, ring->leader);
	err = ring->fd < 0 ? ring->fd : map_ring(ring);
	if (err)
		perf_close(ring);
	return err;
}

void perf_close(struct perf_ring *ring)
{
	if (ring->map)
		munmap(ring->map, ring->bytes);
	if (ring->fd >= 0)
		close(ring->fd);
	if (ring->leader >= 0)
		close(ring->leader);
	*ring = (struct perf_ring){.fd = -1, .leader = -1};
}

static int paranoid(void)
{
	char text[16] = "";
	int fd = open("/proc/sys/kernel/perf_event_paranoid", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return (int)strtol(text, NULL, 10);
}

const char *perf_why(int err)
{
	switch (err) {
	case -ENODEV:
	case -ENOENT:
	case -EOPNOTSUPP:
	case -EINVAL:
		return "perf_event_open: no PMU here samples loads with addresses "
		       "(PEBS, IBS)";
	case -ENOSYS:
		return "perf_event_open: this kernel has no performance events, or a "
		       "seccomp "
		       "filter hides them";
	case -EACCES:
	case -EPERM:
		return paranoid() > 2
			       ? "perf_event_open: permission denied "
				 "(kernel.perf_event_paranoid is more than 2)"
			       : "perf_event_open: permission denied (a seccomp "
				 "filter, or a PMU that cannot leave the kernel out)";
	case -ENOMEM:
		return "perf_event_open: no ring can be locked in memory "
		       "(kernel.perf_event_mlock_kb, RLIMIT_MEMLOCK)";
	default:
		return "perf_event_open: failed";
	}
}

int perf_set_period(const struct perf_ring *ring, uint64_t period)
{
	return ioctl(ring->fd, PERF_EVENT_IOC_PERIOD, &period) ? -errno : 0;
}

/* ---- reading --------------------------------------------------------------- */

/* What follows the header; the order is the kernel's for these sample types. */
struct sample_record {
	uint32_t pid, tid;
	uint64_t addr;
	uint64_t data_src;
};

struct lost_record {
	uint64_t id, lost;
};

/* A record may go over the ring's end. */
static void copy_out(const struct perf_ring *ring, uint64_t at, void *out, size_t len)
{
	const char *data = (const char *)ring->map + PAGE_BYTES;
	size_t size = ring->bytes - PAGE_BYTES, from = at % size;
	size_t first = len < size - from ? len : size - from;

	memcpy(out, data + from, first);
	memcpy((char *)out + first, data, len - first);
}

static bool is_beyond_core(uint64_t data_src)
{
	union perf_mem_data_src src = {.val = data_src};

	return !(src.mem_lvl & PERF_MEM_LVL_HIT) ||
	       !(src.mem_lvl & (PERF_MEM_LVL_L1 | PERF_MEM_LVL_L2));
}

static void take_record(const struct perf_ring *ring, uint64_t at,
			const struct perf_event_header *header,
			struct perf_losses *losses, void (*fn)(uintptr_t addr))
{
	struct sample_record sample;
	struct lost_record lost;

	switch (header->type) {
	case PERF_RECORD_SAMPLE:
		copy_out(ring, at + sizeof(*header), &sample, sizeof(sample));
		/* IBS has operations without an address, and the kernel's. */
		if (sample.addr && sample.addr < UINT64_C(1) << 47 &&
		    is_beyond_core(sample.data_src))
			fn((uintptr_t)sample.addr);
		break;
	case PERF_RECORD_LOST:
		copy_out(ring, at + sizeof(*header), &lost, sizeof(lost));
		losses->lost += lost.lost;
		break;
	case PERF_RECORD_THROTTLE:
		losses->throttled++;
		break;
	default:
		break;
	}
}

uint64_t perf_read(struct perf_ring *ring, struct perf_losses *losses,
		   void (*fn)(uintptr_t addr))
{
	struct perf_event_mmap_page *head = ring->map;
	uint64_t end = __atomic_load_n(&head->data_head, __ATOMIC_ACQUIRE);
	uint64_t at = head->data_tail, samples = 0;

	while (at < end) {
		struct perf_event_header header;

		copy_out(ring, at, &header, sizeof(header));
		if (header.size < sizeof(header))
			break;
		samples += header.type == PERF_RECORD_SAMPLE;
		take_record(ring, at, &header, losses, fn);
		at += header.size;
	}
	__atomic_store_n(&head->data_tail, end, __ATOMIC_RELEASE);
	return samples;
}
