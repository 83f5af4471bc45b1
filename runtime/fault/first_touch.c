/* SPDX-License-Identifier: MIT */
/*
 * First touch by user faults: see first_touch.h, which also has the rules of its
 * threads.
 */
#include "fault/first_touch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fault/fill.h"
#include "fault/follow.h"
#include "fault/pin.h"
#include "fault/uffd.h"
#include "migrate/page.h"
#include "os/thread.h"

/* Faults that one read(2) takes, by a thread alone; several take one each. */
#define FAULTS 16

#define THREADS_MOST 8
#define CPUS_EACH    8 /* a thread for so many */

/* Written before the first fault is read. */
static struct {
	unsigned int threads;
	int uffd;
	bool follows;
	int err; /* of the start */
	const char *why;
	sem_t begun;   /* another thread */
	sem_t started; /* all of them, or failed */
} touch;

static atomic_int owner; /* the process that has, or had, the threads */
static atomic_uint running;
static atomic_ullong faults, filled_bytes;

/* What is asked by touching the bell. */
static struct {
	pthread_mutex_t lock; /* of who asks */
	char *page;
	atomic_bool wanted; /* what follows is written before, read after */
	bool add;
	uintptr_t addr;
	size_t len;
	atomic_int result;
} bell = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- the threads --------------------------------------------------------- */

static void answer_bell(void)
{
	size_t done;

	/* Else somebody else reads all of the process's memory. */
	if (atomic_exchange(&bell.wanted, false))
		bell.result = bell.add ? uffd_register(touch.uffd, bell.addr, bell.len)
				       : uffd_unregister(touch.uffd, bell.addr, bell.len);
	if (uffd_zero(touch.uffd, (uintptr_t)bell.page, PAGE_BYTES, 0, &done))
		uffd_wake(touch.uffd, (uintptr_t)bell.page, PAGE_BYTES);
}

static void take_fault(const struct uffd_msg *msg)
{
	uintptr_t addr = page_down(msg->arg.pagefault.address);
	bool write = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
	size_t filled = 0;

	if (addr == (uintptr_t)bell.page) {
		answer_bell();
		return;
	}
	if (touch.follows)
		follow_thread((pid_t)msg->arg.pagefault.feat.ptid);
	/* The kernel fills what cannot be filled here, or ends the process for it. */
	if (fill(addr, write, &filled))
		uffd_unregister(touch.uffd, addr, PAGE_BYTES);
	atomic_fetch_add_explicit(&faults, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&filled_bytes, filled, memory_order_relaxed);
	uffd_wake(touch.uffd, addr, filled ? filled : PAGE_BYTES);
}

/*
 * One by one, as there are faults, which the others answer. The last one closes
 * the userfaultfd, before it touches anything on its way out.
 */
static void end_thread(void)
{
	if (atomic_fetch_sub(&running, 1) == 1)
		close(touch.uffd);
}

static void *serve(void *unused)
{
	struct uffd_msg msg[FAULTS];
	size_t most = touch.threads == 1 ? sizeof(msg) : sizeof(msg[0]);

	pthread_setname_np(pthread_self(), "ferry-touch");
	while (!fill_ends()) {
		ssize_t size = read(touch.uffd, msg, most);

		if (size < 0 && errno != EINTR && errno != EAGAIN)
			break;
		for (ssize_t i = 0; i < size / (ssize_t)sizeof(msg[0]); i++)
			if (msg[i].event == UFFD_EVENT_PAGEFAULT)
				take_fault(&msg[i]);
	}
	end_thread();
	return unused;
}

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem))
		;
}

static void *another_thread(void *unused)
{
	sem_post(&touch.begun);
	return serve(unused);
}

/*
 * What a thread touches as it begins may be memory of the heap, so it has begun before
 * anything else is registered; and before who waits may fork, which would copy the
 * locks that it takes.
 */
static int start_another(void)
{
	int err = thread_start(another_thread, NULL);

	if (!err)
		wait_for(&touch.begun);
	return err;
}

static int open_uffd(const char **why)
{
	uint64_t features = 0;

	touch.follows = follow_is_needed();
	if (touch.follows)
		features |= UFFD_FEATURE_THREAD_ID;
	touch.uffd = uffd_open(features);
	if (touch.uffd < 0) {
		*why = uffd_why(touch.uffd);
		return touch.uffd;
	}
	/* Several threads may wait in it. */
	if (fcntl(touch.uffd, F_SETFL, 0))
		return -errno;
	return 0;
}

/* In no child: there it would be filled by nobody who looks at what is asked. */
static int set_up_bell(void)
{
	char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -errno;
	if (madvise(page, PAGE_BYTES, MADV_DONTFORK) ||
	    uffd_register(touch.uffd, (uintptr_t)page, PAGE_BYTES)) {
		int err = -errno;

		munmap(page, PAGE_BYTES);
		return err;
	}
	bell.page = page;
	return 0;
}

static int set_up(void)
{
	int err;

	/* A table of its own, empty, and of the threads that it starts. */
	if (syscall(SYS_close_range, 0, UINT_MAX, CLOSE_RANGE_UNSHARE)) {
		touch.why = "no file descriptors of its own (close_range: Linux 5.9)";
		return -errno;
	}
	err = open_uffd(&touch.why);
	if (err)
		return err;
	if (touch.follows)
		follow_open();
	fill_open(touch.uffd);
	err = set_up_bell();
	atomic_store(&running, touch.threads);
	for (unsigned int i = 1; i < touch.threads && !err; i++)
		err = start_another();
	return err;
}

static void *first_thread(void *unused)
{
	int err = set_up();

	touch.err = err;
	sem_post(&touch.started);
	return err ? unused : serve(unused);
}

/* ---- other threads ------------------------------------------------------- */

unsigned int first_touch_threads(void)
{
	cpu_set_t cpus;
	unsigned int count;

	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		return THREADS_MOST;
	count = (unsigned int)CPU_COUNT(&cpus) / CPUS_EACH;
	return count < 1 ? 1 : count < THREADS_MOST ? count : THREADS_MOST;
}

int first_touch_start(unsigned int threads, const char **why)
{
	int err;

	touch.why = "no thread or memory for it";
	touch.threads = threads;
	/* That of a parent may have been held. */
	pthread_mutex_init(&bell.lock, NULL);
	sem_init(&touch.begun, 0, 0);
	sem_init(&touch.started, 0, 0);
	err = thread_start(first_thread, NULL);
	if (!err) {
		wait_for(&touch.started);
		err = touch.err;
	}
	if (!err)
		atomic_store(&owner, getpid());
	*why = touch.why;
	return err;
}

bool first_touch_possible(bool pins, const char **why)
{
	int fd = uffd_open(0), err;

	*why = fd < 0 ? uffd_why(fd) : "in whole blocks, up to 2 MiB a fault";
	if (fd < 0)
		return false;
	close(fd);
	err = pins ? pin_try() : 0;
	if (err == -EFAULT)
		*why = "this kernel could then not pin memory before it is touched";
	else if (err)
		*why = "without io_uring it is not known whether memory could then be "
		       "pinned";
	return !err;
}

static int ask(bool add, uintptr_t addr, size_t len)
{
	int saved = errno, result;

	/* A forked child has no threads, and no bell. */
	if (atomic_load(&owner) != getpid() || fill_ends())
		return -ESRCH;
	pthread_mutex_lock(&bell.lock);
	bell.add = add;
	bell.addr = addr;
	bell.len = len;
	bell.result = -ESRCH;
	atomic_store(&bell.wanted, true);
	madvise(bell.page, PAGE_BYTES, MADV_DONTNEED);
	(void)*(volatile char *)bell.page;
	result = bell.result;
	pthread_mutex_unlock(&bell.lock);
	errno = saved;
	return result;
}

int first_touch_add(uintptr_t addr, size_t len)
{
	return ask(true, addr, len);
}

int first_touch_remove(uintptr_t addr, size_t len)
{
	return ask(false, addr, len);
}

void first_touch_stats(struct first_touch_stats *out)
{
	out->started = atomic_load(&owner) == getpid();
	out->ends = fill_ends();
	out->faults = atomic_load_explicit(&faults, memory_order_relaxed);
	out->filled_bytes = atomic_load_explicit(&filled_bytes, memory_order_relaxed);
}
