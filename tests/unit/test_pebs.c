/* SPDX-License-Identifier: MIT */
/*
 * Proves how the sampler pebs gets from the kernel's records to granules, with page
 * faults in the place of loads, which a machine without such a PMU has too: each is
 * counted, where it was, and nothing else; threads that begin and end meanwhile; forked
 * children; and that it says what it lacks. Threads fault one at a time, or wait for each
 * other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/pebs.h"
#include "fault/sampler.h"
#include "os/thread.h"

#define GRANULES 8
#define MS       UINT64_C(1000000)

static const struct perf_source page_faults = {
	.name = "page faults",
	.type = PERF_TYPE_SOFTWARE,
	.config = PERF_COUNT_SW_PAGE_FAULTS,
	.first_period = 1,
};

static const struct sampler *const sampler = &sampler_pebs;
static struct sighting sighting[GRANULES];
static char *mem;

static char *map(void)
{
	char *raw = mmap(NULL, (GRANULES + 1) * GRANULE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *aligned;

	assert_true(raw != MAP_FAILED);
	aligned = (char *)granule_end((uintptr_t)raw - 1);
	madvise(aligned, GRANULES * GRANULE_BYTES, MADV_NOHUGEPAGE);
	return aligned;
}

static bool opens(void)
{
	const char *why = NULL;

	pebs_sample(&page_faults);
	if (sampler->open(&why)) {
		print_message("not here: %s\n", why);
		return false;
	}
	sampler->limit(100); /* so that every one is sampled */
	return true;
}

/* Has @n pages of a granule fault; slowly, for the kernel to sample each. */
static void fault(size_t granule, size_t n)
{
	char *at = mem + granule * GRANULE_BYTES;

	for (size_t i = 0; i < n; i++) {
		((volatile char *)at)[i * PAGE_BYTES] = 1;
		if (i % 64 == 63)
			sleep_ns(10 * MS);
	}
	madvise(at, GRANULE_BYTES, MADV_DONTNEED);
}

static void fault_fast(size_t granule, size_t n)
{
	char *at = mem + granule * GRANULE_BYTES;

	for (size_t i = 0; i < n; i++)
		((volatile char *)at)[i * PAGE_BYTES] = 1;
	madvise(at, GRANULE_BYTES, MADV_DONTNEED);
}

/* What has been seen since the last time, added to @sum. */
static void see(float sum[GRANULES])
{
	assert_int_equal(sampler->gather(), 0);
	for (size_t i = 0; i < GRANULES; i++) {
		sighting[i].start = (uintptr_t)mem + i * GRANULE_BYTES;
		sighting[i].end = sighting[i].start + GRANULE_BYTES;
		sighting[i].accesses = -1;
		sighting[i].seconds = -1;
	}
	assert_int_equal(sampler->watch(sighting, GRANULES, 0), 0);
	for (size_t i = 0; i < GRANULES; i++) {
		assert_true(sighting[i].accesses >= 0 && sighting[i].seconds > 0);
		sum[i] += sighting[i].accesses;
	}
}

/* Until so many have been seen of a granule: rings are read now and then. */
static void wait_for(float sum[GRANULES], size_t granule, size_t n)
{
	for (int i = 0; i < 200 && sum[granule] < (float)n; i++) {
		sleep_ns(20 * MS);
		see(sum);
	}
	assert_true(sum[granule] == (float)n);
}

static void each_where_it_was(void **state)
{
	float sum[GRANULES] = {0};

	(void)state;
	if (!opens())
		skip();
	fault(2, 200);
	fault(5, 40);
	wait_for(sum, 2, 200);
	wait_for(sum, 5, 40);
	for (size_t i = 0; i < GRANULES; i++)
		assert_true(i == 2 || i == 5 || sum[i] == 0);
	assert_int_equal(sampler->lost(), 0);
	for (int i = 0; i < 200 && !sampler->cost(); i++) /* it is told now and then */
		sleep_ns(20 * MS);
	assert_true(sampler->cost() > 0);
	sampler->close();
}

static void counts_what_is_there(void **state)
{
	struct sample sample[GRANULE_BYTES / BLOCK_BYTES];
	struct span span = {(uintptr_t)mem, (uintptr_t)mem + GRANULE_BYTES};

	(void)state;
	if (!opens())
		skip();
	memset(mem + 3 * BLOCK_BYTES, 1, BLOCK_BYTES);
	memset(mem + 7 * BLOCK_BYTES, 1, PAGE_BYTES);
	assert_int_equal(sampler->count(&span, 1, sample), 0);
	for (size_t i = 0; i < GRANULE_BYTES / BLOCK_BYTES; i++)
		assert_int_equal(sample[i].present, i == 3   ? BLOCK_BYTES / PAGE_BYTES
						    : i == 7 ? 1
							     : 0);
	sampler->close();
	madvise(mem, GRANULE_BYTES, MADV_DONTNEED);
}

static struct {
	pthread_barrier_t begun, end;
} sync_points;

static void *fault_in_thread(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&sync_points.begun);
	fault(1, 100);
	pthread_barrier_wait(&sync_points.end);
	return NULL;
}

static void wait_for_threads(unsigned int n)
{
	for (int i = 0; i < 500 && pebs_threads() != n; i++)
		sleep_ns(20 * MS);
	assert_int_equal(pebs_threads(), n);
}

static void threads_begin_and_end(void **state)
{
	float sum[GRANULES] = {0};
	unsigned int before;
	pthread_t thread;

	(void)state;
	if (!opens())
		skip();
	before = pebs_threads();
	pthread_barrier_init(&sync_points.begun, NULL, 2);
	pthread_barrier_init(&sync_points.end, NULL, 2);
	assert_int_equal(pthread_create(&thread, NULL, fault_in_thread, NULL), 0);
	wait_for_threads(before + 1);
	pthread_barrier_wait(&sync_points.begun);
	pthread_barrier_wait(&sync_points.end);
	pthread_join(thread, NULL);
	wait_for(sum, 1, 100);
	wait_for_threads(before);
	sampler->close();
}

static int exit_status(pid_t child)
{
	int status;

	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void forked_children(void **state)
{
	float sum[GRANULES] = {0};
	pid_t child;

	(void)state;
#ifdef __SANITIZE_THREAD__
	skip(); /* it cannot start threads in children */
#endif
	if (!opens())
		skip();
	child = fork();
	if (!child) {
		/* It has the parent's state but nothing of what is behind it. */
		assert_int_equal(sampler->gather(), -ESRCH);
		sampler->close();
		if (!opens())
			_exit(2);
		fault(3, 50);
		wait_for(sum, 3, 50);
		sampler->close();
		_exit(0);
	}
	fault(4, 50);
	assert_int_equal(exit_status(child), 0);
	wait_for(sum, 4, 50);
	assert_true(sum[3] == 0);
	child = fork();
	if (!child) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(127);
	}
	assert_int_equal(exit_status(child), 0);
	fault(4, 50);
	wait_for(sum, 4, 100);
	sampler->close();
}

/* More than it may cost is not sampled: the period grows, and the rate stays right. */
static void keeps_to_its_limit(void **state)
{
	const size_t faults = 4096;
	float sum[GRANULES] = {0}, told = 0;
	uint64_t began = 0, ended = 0;

	(void)state;
	if (!opens())
		skip();
	sampler->limit(1);
	/* Five rounds to learn from. */
	for (int i = 0; i < 10; i++) {
		if (i == 5) {
			see(sum);
			sum[0] = 0;
			began = clock_ns(CLOCK_MONOTONIC);
		}
		for (size_t k = 0; k < faults / 512; k++)
			fault_fast(0, 512);
		sleep_ns(150 * MS); /* until the rings have been read */
	}
	see(sum);
	ended = clock_ns(CLOCK_MONOTONIC);
	assert_true(sum[0] > 0 && sum[0] < 5 * (float)faults / 2);
	told = sighting[0].accesses / sighting[0].seconds * (float)(ended - began) *
	       1e-9f;
	assert_true(told * 512 > 5 * (float)faults / 3 &&
		    told * 512 < 5 * (float)faults * 3);
	sampler->close();
}

/* In a child: as a user who may not lock memory. Its exit status: 0 if it opens. */
static int open_as_user(const char *expected)
{
	pid_t child = fork();
	const char *why = "";

	if (!child) {
		const struct rlimit none = {0, 0};

		setrlimit(RLIMIT_MEMLOCK, &none);
		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			_exit(3);
		prctl(PR_SET_DUMPABLE, 1);
		if (!sampler->open(&why)) {
			sampler->close();
			_exit(0);
		}
		if (!expected || !strstr(why, expected)) {
			fprintf(stderr, "%s\n", why);
			_exit(4);
		}
		_exit(1);
	}
	return exit_status(child);
}

static void set_sysctl(const char *name, const char *value, char *before, size_t size)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/sys/kernel/%s", name);
	file = fopen(path, "r+");
	assert_non_null(file);
	if (before) {
		assert_non_null(fgets(before, (int)size, file));
		rewind(file);
	}
	assert_true(fputs(value, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* These are the machine's settings, so in the guest only. */
static void says_what_it_lacks(void **state)
{
	char paranoid[16], locked[16];

	(void)state;
	if (!getenv("FERRY_GUEST_KERNEL") || getuid() != 0)
		skip();
	pebs_sample(&page_faults);
	set_sysctl("perf_event_paranoid", "2", paranoid, sizeof(paranoid));
	assert_int_equal(open_as_user(NULL), 0);
	set_sysctl("perf_event_mlock_kb", "0", locked, sizeof(locked));
	assert_int_equal(open_as_user("RLIMIT_MEMLOCK"), 1);
	set_sysctl("perf_event_mlock_kb", locked, NULL, 0);
	set_sysctl("perf_event_paranoid", "3", NULL, 0);
	assert_int_equal(open_as_user("kernel.perf_event_paranoid"), 1);
	set_sysctl("perf_event_paranoid", paranoid, NULL, 0);
}

static void loads(void **state)
{
	struct perf_source source[PERF_SOURCES];
	const char *why = NULL;
	int n = perf_loads(source), err;

	(void)state;
	pebs_sample(NULL);
	err = sampler->open(&why);
	assert_non_null(why);
	print_message("loads: %s\n", why);
	if (n < 0)
		assert_non_null(strstr(why, "no PMU"));
	assert_true(n > 0 || err == -ENODEV);
	sampler->close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_where_it_was),
		cmocka_unit_test(counts_what_is_there),
		cmocka_unit_test(threads_begin_and_end),
		cmocka_unit_test(forked_children),
		cmocka_unit_test(keeps_to_its_limit),
		cmocka_unit_test(says_what_it_lacks),
		cmocka_unit_test(loads),
	};

	mem = map();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
