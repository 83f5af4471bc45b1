/* SPDX-License-Identifier: MIT */
/*
 * The sampler `pebs`: the PMU samples loads of the program's threads, with their
 * addresses (perf.h), and a thread of Ferry's counts them by granule.
 *
 *   program's threads --records--> rings --thread--> filling | taken --> sightings
 *                                                     counts swapped by gather()
 *
 * Events are a thread's, each with a ring of its own: one that is inherited by new
 * threads cannot have a ring, unless there is one for each thread and each CPU. So new
 * threads are looked for every tenth of a second, and those that live shorter are
 * missed. Ferry's own are left out.
 *
 * Descriptors are in a table of the thread's own, so that the program cannot close
 * them, no child inherits them, and exec ends them; children do not inherit
 * rings either. The thread allocates nothing and touches no memory of the program.
 *
 * The lock guards the counts; all else is the thread's, or atomic.
 */
#include "fault/pebs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fault/present.h"
#include "fault/sampler.h"
#include "os/futex.h"
#include "os/thread.h"

#define MS UINT64_C(1000000)

/* From one look at threads and period to the next. */
#define TICK_NS (100 * MS)

/* Threads that are sampled; more are not. */
#define THREADS_MOST 512

/*
 * What a sample costs the thread it interrupts: an estimate, and not yet measured on
 * hardware. Half of the budget is for that.
 */
#define SAMPLE_NS 2000

/* Counts of one round, by a hash of the granule; a power of two. */
#define COUNTS ((size_t)1 << 15)

struct counts {
	size_t used;
	struct count {
		uint32_t granule; /* its number; 0: free */
		uint32_t accesses;
	} count[COUNTS];
};

enum { OFF, STARTING, RUNNING, STOPPING, FAILED };

static struct {
	_Atomic uint32_t state; /* a futex */
	pid_t owner;            /* the process that has the thread */
	int error;              /* with FAILED */

	/* The thread's. */
	struct perf_source source[PERF_SOURCES];
	int sources;
	struct thread {
		pid_t tid; /* 0: free */
		struct perf_ring ring[PERF_SOURCES];
	} thread[THREADS_MOST];
	struct pollfd poll[THREADS_MOST * PERF_SOURCES];
	uint64_t period;
	uint64_t weighed_at; /* until when `exposed` was added up */
	uint64_t samples;    /* since the last tick */
	struct perf_losses losses;

	atomic_uint threads;
	atomic_uint percent; /* the budget */
	atomic_ullong cost_ns, lost;

	pthread_mutex_t lock;
	struct counts *filling, *taken;
	double exposed; /* seconds that it was filled for, over the period */

	/* The policy's thread's. */
	double seconds; /* the same of what is taken */
	int pagemap;
} pebs = {.lock = PTHREAD_MUTEX_INITIALIZER, .pagemap = -1};

static const struct perf_source *chosen;

void pebs_sample(const struct perf_source *source)
{
	chosen = source;
}

unsigned int pebs_threads(void)
{
	return atomic_load(&pebs.threads);
}

static void set_state(uint32_t state)
{
	atomic_store(&pebs.state, state);
	futex_wake(&pebs.state);
}

/* ---- counts ---------------------------------------------------------------- */

/* The count of a granule, or the free one that may become it; NULL: there is none. */
static struct count *find(struct counts *counts, uint32_t granule)
{
	size_t at = granule * UINT32_C(0x9e3779b1) >> 17;

	for (size_t i = 0; i < COUNTS; i++, at++) {
		struct count *count = &counts->count[at % COUNTS];

		if (count->granule == granule || !count->granule)
			return count;
	}
	return NULL;
}

/* Under the lock. */
static void count_access(uintptr_t addr)
{
	uint32_t granule = (uint32_t)(addr / GRANULE_BYTES);
	struct count *count = find(pebs.filling, granule);

	if (!count || (!count->granule && pebs.filling->used >= COUNTS / 4 * 3)) {
		pebs.losses.lost++;
		return;
	}
	pebs.filling->used += !count->granule;
	count->granule = granule;
	count->accesses++;
}

/* Under the lock: adds the time up to now, at the period there was. */
static void weigh(uint64_t now)
{
	pebs.exposed += (double)(now - pebs.weighed_at) * 1e-9 / (double)pebs.period;
	pebs.weighed_at = now;
}

/* ---- threads --------------------------------------------------------------- */

static struct thread *find_thread(pid_t tid)
{
	for (size_t i = 0; i < THREADS_MOST; i++)
		if (pebs.thread[i].tid == tid)
			return &pebs.thread[i];
	return NULL;
}

static bool is_own(pid_t tid)
{
	char path[48], name[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, name, sizeof(name) - 1) < 0)
		name[0] = '\0';
	close(fd);
	return !strncmp(name, "ferry-", 6);
}

static void end_thread(struct thread *thread)
{
	for (int i = 0; i < pebs.sources; i++)
		perf_close(&thread->ring[i]);
	thread->tid = 0;
	atomic_fetch_sub(&pebs.threads, 1);
}

/* 0 or -errno; a thread that has ended meanwhile is no failure. */
static int begin_thread(pid_t tid)
{
	struct thread *thread = find_thread(0);

	if (!thread || is_own(tid))
		return 0;
	for (int i = 0; i < pebs.sources; i++) {
		int err = perf_open(&thread->ring[i], &pebs.source[i], tid, pebs.period);

		if (!err)
			continue;
		while (i--)
			perf_close(&thread->ring[i]);
		return err == -ESRCH ? 0 : err;
	}
	thread->tid = tid;
	atomic_fetch_add(&pebs.threads, 1);
	return 0;
}

struct entry {
	uint64_t ino;
	int64_t off;
	unsigned short len;
	unsigned char type;
	char name[];
};

/* Begins with those threads of the process that are new. */
static int find_threads(void)
{
	int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
	static char buffer[4096] __attribute__((aligned(8)));
	long len;

	if (fd < 0)
		return -errno;
	while ((len = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0)
		for (long at = 0; at < len;) {
			const struct entry *entry = (const void *)(buffer + at);
			pid_t tid = (pid_t)strtol(entry->name, NULL, 10);

			if (tid > 0 && !find_thread(tid)) {
				int failed = begin_thread(tid);

				err = failed ? failed : err;
			}
			at += entry->len;
		}
	close(fd);
	return err;
}

/* ---- the thread ------------------------------------------------------------ */

static void read_rings(void)
{
	pthread_mutex_lock(&pebs.lock);
	for (size_t i = 0; i < THREADS_MOST; i++)
		for (int k = 0; pebs.thread[i].tid && k < pebs.sources; k++)
			pebs.samples += perf_read(&pebs.thread[i].ring[k], &pebs.losses,
						  count_access);
	pthread_mutex_unlock(&pebs.lock);
}

/* Waits until a ring is half full, or for a tick; then reads, and lets go of the dead. */
static void wait_and_read(uint64_t ns)
{
	struct timespec timeout = timespec_of(ns);
	nfds_t n = 0;

	for (size_t i = 0; i < THREADS_MOST; i++)
		for (int k = 0; pebs.thread[i].tid && k < pebs.sources; k++)
			pebs.poll[n++] = (struct pollfd){.fd = pebs.thread[i].ring[k].fd,
							 .events = POLLIN};
	ppoll(pebs.poll, n, &timeout, NULL);
	read_rings();
	n = 0;
	for (size_t i = 0; i < THREADS_MOST; i++) {
		bool ended = false;

		for (int k = 0; pebs.thread[i].tid && k < pebs.sources; k++)
			ended |= (pebs.poll[n++].revents & POLLHUP) != 0;
		if (ended)
			end_thread(&pebs.thread[i]);
	}
}

static void change_period(uint64_t period, uint64_t now)
{
	uint64_t least = pebs.source[0].least_period ? pebs.source[0].least_period : 1;

	period -= period % least;
	if (period < least)
		period = least;
	if (period == pebs.period)
		return;
	pthread_mutex_lock(&pebs.lock);
	weigh(now);
	pebs.period = period;
	pthread_mutex_unlock(&pebs.lock);
	for (size_t i = 0; i < THREADS_MOST; i++)
		for (int k = 0; pebs.thread[i].tid && k < pebs.sources; k++)
			perf_set_period(&pebs.thread[i].ring[k], period);
}

/* As many samples as half of the budget pays for; but not below what is first asked. */
static void adapt_period(uint64_t now, uint64_t passed)
{
	double wanted = (double)passed * atomic_load(&pebs.percent) / 100 / 2 / SAMPLE_NS;
	double factor = (double)pebs.samples / (wanted > 1 ? wanted : 1);
	uint64_t first = pebs.source[0].first_period;

	if (factor > 4)
		factor = 4;
	if (factor < 0.25)
		factor = 0.25;
	if (factor > 1.25 || (factor < 0.5 && pebs.period > first / 64 + 1))
		change_period((uint64_t)((double)pebs.period * factor) + 1, now);
	pebs.samples = 0;
}

static void tick(uint64_t now, uint64_t passed)
{
	static uint64_t spent; /* by this thread when it was last looked at */
	uint64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);

	atomic_fetch_add(&pebs.cost_ns,
			 pebs.samples * SAMPLE_NS + (cpu > spent ? cpu - spent : cpu));
	atomic_store(&pebs.lost, pebs.losses.lost + pebs.losses.throttled);
	spent = cpu;
	adapt_period(now, passed);
	find_threads();
}

static int begin(void)
{
	int err;

	/* First the copy of the program's table, then what is in it. */
	if (unshare(CLONE_FILES) || syscall(SYS_close_range, 0, UINT_MAX, 0))
		return -errno;
	pebs.sources = chosen ? 1 : perf_loads(pebs.source);
	if (chosen)
		pebs.source[0] = *chosen;
	if (pebs.sources < 0)
		return pebs.sources;
	pebs.period = pebs.source[0].first_period;
	pebs.weighed_at = clock_ns(CLOCK_MONOTONIC);
	err = find_threads();
	return pebs.threads ? 0 : err;
}

static void serve(void)
{
	uint64_t last = clock_ns(CLOCK_MONOTONIC);

	while (atomic_load(&pebs.state) == RUNNING) {
		uint64_t now;

		wait_and_read(TICK_NS);
		now = clock_ns(CLOCK_MONOTONIC);
		if (now - last < TICK_NS)
			continue;
		tick(now, now - last);
		last = now;
	}
}

static void *pebs_main(void *unused)
{
	int err;

	(void)unused;
	pthread_setname_np(pthread_self(), "ferry-pebs");
	err = begin();
	pebs.error = err;
	if (!err) {
		set_state(RUNNING);
		serve();
	}
	for (size_t i = 0; i < THREADS_MOST; i++)
		if (pebs.thread[i].tid)
			end_thread(&pebs.thread[i]);
	set_state(err ? FAILED : OFF); /* the last thing: another one may begin */
	return NULL;
}

/* ---- opening --------------------------------------------------------------- */

/* A child has no thread and no rings; its descriptors are none of this process's. */
static void forget_parents(void)
{
	if (pebs.owner == getpid())
		return;
	atomic_store(&pebs.state, OFF);
	atomic_store(&pebs.threads, 0);
	memset(pebs.thread, 0, sizeof(pebs.thread));
	pthread_mutex_init(&pebs.lock, NULL);
	pebs.owner = getpid();
}

static struct counts *map_counts(void)
{
	void *memory = mmap(NULL, sizeof(struct counts), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void pebs_close(void)
{
	uint32_t running = RUNNING;

	forget_parents();
	if (atomic_compare_exchange_strong(&pebs.state, &running, STOPPING))
		while (atomic_load(&pebs.state) == STOPPING)
			futex_wait(&pebs.state, STOPPING, FUTEX_FOREVER);
	if (pebs.filling)
		munmap(pebs.filling, sizeof(*pebs.filling));
	if (pebs.taken)
		munmap(pebs.taken, sizeof(*pebs.taken));
	if (pebs.pagemap >= 0)
		close(pebs.pagemap);
	pebs.filling = pebs.taken = NULL;
	pebs.pagemap = -1;
	pebs.exposed = pebs.seconds = 0;
}

static int start(void)
{
	int err;

	atomic_store(&pebs.state, STARTING);
	err = thread_start(pebs_main, NULL);
	if (err) {
		atomic_store(&pebs.state, OFF);
		return err;
	}
	while (atomic_load(&pebs.state) == STARTING)
		futex_wait(&pebs.state, STARTING, FUTEX_FOREVER);
	return pebs.error;
}

static int pebs_open(const char **why)
{
	int err;

	pebs_close();
	pebs.pagemap = present_open();
	if (pebs.pagemap < 0) {
		*why = "/proc/self/pagemap: cannot be opened";
		return pebs.pagemap;
	}
	pebs.filling = map_counts();
	pebs.taken = map_counts();
	atomic_store(&pebs.percent, 1);
	err = pebs.filling && pebs.taken ? start() : -ENOMEM;
	if (err) {
		*why = perf_why(err);
		pebs_close();
		return err;
	}
	*why = pebs.source[0].name;
	return 0;
}

/* ---- sampling -------------------------------------------------------------- */

static int pebs_count(const struct span *span, size_t n, struct sample *out)
{
	return present_count(pebs.pagemap, span, n, out);
}

static int pebs_gather(void)
{
	struct counts *counts = pebs.taken;

	if (atomic_load(&pebs.state) != RUNNING || pebs.owner != getpid())
		return -ESRCH;
	memset(counts, 0, sizeof(*counts));
	pthread_mutex_lock(&pebs.lock);
	weigh(clock_ns(CLOCK_MONOTONIC));
	pebs.taken = pebs.filling;
	pebs.filling = counts;
	pebs.seconds = pebs.exposed;
	pebs.exposed = 0;
	pthread_mutex_unlock(&pebs.lock);
	return 0;
}

static int pebs_watch(struct sighting *sighting, size_t n, uint64_t window_ns)
{
	(void)window_ns;
	for (size_t i = 0; i < n; i++) {
		uint32_t granule = (uint32_t)(sighting[i].start / GRANULE_BYTES);
		const struct count *count = find(pebs.taken, granule);
		size_t pages = (sighting[i].end - sighting[i].start) / PAGE_BYTES;

		sighting[i].accesses =
			count && count->granule ? (float)count->accesses : 0;
		sighting[i].seconds = (float)(pebs.seconds * (double)pages);
	}
	return 0;
}

static uint64_t pebs_cost(void)
{
	return atomic_load(&pebs.cost_ns);
}

static uint64_t pebs_lost(void)
{
	return atomic_load(&pebs.lost);
}

static void pebs_limit(unsigned int percent)
{
	atomic_store(&pebs.percent, percent);
}

const struct sampler sampler_pebs = {
	.name = "pebs",
	.open = pebs_open,
	.close = pebs_close,
	.count = pebs_count,
	.gather = pebs_gather,
	.watch = pebs_watch,
	.cost = pebs_cost,
	.lost = pebs_lost,
	.limit = pebs_limit,
};
