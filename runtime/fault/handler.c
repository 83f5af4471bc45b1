/* SPDX-License-Identifier: MIT */
/*
 * The fault handler: see handler.h, which also has the rules of its thread.
 */
#include "fault/handler.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fault/uffd.h"
#include "heap/region.h"
#include "migrate/page.h"
#include "os/futex.h"
#include "os/thread.h"

#define FEATURES                                                                         \
	(UFFD_FEATURE_MOVE | UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |        \
	 UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

#define EVENTS       64      /* of one read(2) */
#define RETRY_NS     1000000 /* for pages that the kernel would not take */
#define OWN_FD_LEAST 500     /* out of the way of what programs number themselves */

/* The thread's own once it runs, but for state, owner, bell and recalls. */
static struct {
	_Atomic uint32_t state; /* a futex */
	_Atomic pid_t owner;    /* the process that has the thread */
	int error;              /* with FAILED */
	int uffd;
	char *bell;  /* a page; to have it removed is to ring it */
	int bell_fd; /* the userfaultfd that tells of that */
	atomic_bool recall_wanted;
	_Atomic uint32_t recalls; /* done; a futex */
	const struct handler_client *client;
} handler = {.uffd = -1, .bell_fd = -1};

enum { OFF, STARTING, RUNNING, STOPPING, FAILED };

/* ---- events -------------------------------------------------------------- */

static void take_change(const struct uffd_msg *msg)
{
	switch (msg->event) {
	case UFFD_EVENT_REMOVE:
		trap_removed(msg->arg.remove.start, msg->arg.remove.end);
		break;
	case UFFD_EVENT_UNMAP:
		trap_unmapped(msg->arg.remove.start, msg->arg.remove.end);
		break;
	case UFFD_EVENT_REMAP:
		trap_moved(msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len);
		break;
	case UFFD_EVENT_FORK:
		trap_forked((int)msg->arg.fork.ufd);
		break;
	default:
		break;
	}
}

static void take_fault(const struct uffd_msg *msg, uint64_t now)
{
	uintptr_t addr = msg->arg.pagefault.address & ~(uintptr_t)(PAGE_BYTES - 1);

	if (trap_fault(addr, now) || trap_shadow_fault(addr))
		return;
	/* It is back already, or the kernel may fill it. */
	uffd_unregister(handler.uffd, addr, PAGE_BYTES);
	uffd_wake(handler.uffd, addr, PAGE_BYTES);
}

/* Of one read(2). */
static void take_events(void)
{
	static struct uffd_msg msg[EVENTS];
	ssize_t size = read(handler.uffd, msg, sizeof(msg));
	size_t count = size > 0 ? (size_t)size / sizeof(msg[0]) : 0;
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	/*
	 * The kernel hands out faults first. A page that is moved back now though
	 * its removal has been read would be there again after the program removed it.
	 */
	for (size_t i = 0; i < count; i++)
		if (msg[i].event != UFFD_EVENT_PAGEFAULT)
			take_change(&msg[i]);
	for (size_t i = 0; i < count; i++)
		if (msg[i].event == UFFD_EVENT_PAGEFAULT)
			take_fault(&msg[i], now);
}

/* Who rings goes on once that has been read. */
static void answer_bell(void)
{
	struct uffd_msg msg;
	size_t done;

	while (read(handler.bell_fd, &msg, sizeof(msg)) == sizeof(msg))
		/* Something reads all memory: let it. */
		if (msg.event == UFFD_EVENT_PAGEFAULT &&
		    uffd_zero(handler.bell_fd, (uintptr_t)handler.bell, PAGE_BYTES, 0,
			      &done))
			uffd_wake(handler.bell_fd, (uintptr_t)handler.bell, PAGE_BYTES);
}

/* ---- the thread ---------------------------------------------------------- */

/* Waits until there are events, or until @until. */
static void wait_for_events(uint64_t until)
{
	struct pollfd fd[] = {{.fd = handler.uffd, .events = POLLIN},
			      {.fd = handler.bell_fd, .events = POLLIN}};
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	struct timespec timeout = timespec_of(until > now ? until - now : 0);

	ppoll(fd, 2, until == UINT64_MAX ? NULL : &timeout, NULL);
}

static bool recall(void)
{
	if (!atomic_exchange(&handler.recall_wanted, false))
		return true;
	trap_expire(UINT64_MAX, clock_ns(CLOCK_MONOTONIC));
	if (!trap_retry()) {
		atomic_store(&handler.recall_wanted, true);
		return false;
	}
	atomic_fetch_add(&handler.recalls, 1);
	futex_wake(&handler.recalls);
	return true;
}

static void serve(void)
{
	uint64_t until = 0, next;
	bool idle;

	while (atomic_load(&handler.state) == RUNNING || trap_overlaps(0, UINTPTR_MAX)) {
		wait_for_events(until);
		answer_bell();
		take_events();
		idle = trap_retry();
		idle = recall() && idle;
		next = handler.client->tick(clock_ns(CLOCK_MONOTONIC));
		until = clock_ns(CLOCK_MONOTONIC) + RETRY_NS;
		if (idle || next < until)
			until = next;
	}
}

/* The userfaultfd in a table of descriptors of this thread's own, and no other. */
static int own_descriptors(void)
{
	unsigned int fd = (unsigned int)handler.uffd;

	if (unshare(CLONE_FILES))
		return -errno;
	if ((fd && syscall(SYS_close_range, 0, fd - 1, 0)) ||
	    syscall(SYS_close_range, fd + 1, UINT_MAX, 0))
		return -errno;
	return 0;
}

/*
 * Once mapped it stays, for others may be about to ring. In no table but this thread's;
 * a userfaultfd of its own, for until a ringer goes on the kernel moves nothing with
 * the one whose event it waits for.
 */
static int set_up_bell(void)
{
	if (!handler.bell) {
		char *bell = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (bell == MAP_FAILED || madvise(bell, PAGE_BYTES, MADV_DONTFORK))
			return -errno;
		handler.bell = bell;
	}
	handler.bell_fd = uffd_open(UFFD_FEATURE_EVENT_REMOVE);
	if (handler.bell_fd < 0)
		return handler.bell_fd;
	return uffd_register(handler.bell_fd, (uintptr_t)handler.bell, PAGE_BYTES);
}

static void *handler_main(void *unused)
{
	int err = own_descriptors();

	(void)unused;
	pthread_setname_np(pthread_self(), "ferry-fault");
	prctl(PR_SET_TIMERSLACK, 1UL); /* the client's times are short */
	if (!err)
		err = set_up_bell();
	if (!err)
		err = trap_init(handler.uffd, handler.client->ended);
	handler.error = err;
	atomic_store(&handler.state, err ? FAILED : RUNNING);
	futex_wake(&handler.state);
	if (!err) {
		serve();
		close(handler.bell_fd);
		trap_exit();
		atomic_store(&handler.state, OFF);
		futex_wake(&handler.state);
	}
	return NULL;
}

/* ---- other threads ------------------------------------------------------- */

/* Also false in a child, which has a copy of all this but no thread and no bell. */
bool handler_is_running(void)
{
	return atomic_load(&handler.state) == RUNNING &&
	       atomic_load(&handler.owner) == getpid();
}

static void ring(void)
{
	madvise(handler.bell, PAGE_BYTES, MADV_DONTNEED);
}

void handler_wake(void)
{
	if (handler_is_running())
		ring();
}

void handler_hold(const void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr, end;
	int saved = errno;

	trap_hold();
	if (__builtin_add_overflow(start, len, &end))
		end = UINTPTR_MAX;
	while (trap_overlaps(start, end) && handler_is_running()) {
		uint32_t done = atomic_load(&handler.recalls);

		atomic_store(&handler.recall_wanted, true);
		ring();
		if (trap_overlaps(start, end))
			futex_wait(&handler.recalls, done, RETRY_NS);
	}
	errno = saved;
}

void handler_let_go(void)
{
	trap_let_go();
}

/* ---- fork ---------------------------------------------------------------- */

/* Closes it in the program's table, if the program has not and used the number. */
static void close_number(void)
{
	static const char expected[] = "anon_inode:[userfaultfd]";
	char path[40], target[sizeof(expected)];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", handler.uffd);
	len = readlink(path, target, sizeof(target));
	if (len == sizeof(expected) - 1 && !memcmp(target, expected, (size_t)len))
		close(handler.uffd);
	handler.uffd = -1;
}

static void fork_prepare(void)
{
	handler_hold(NULL, UINTPTR_MAX);
}

static void fork_parent(void)
{
	handler_let_go();
}

/*
 * A child forgets what its parent's thread had when it needs one itself: handlers of
 * forks that are run before this part's would start one do so too.
 */
static void forget_parents(void)
{
	if (handler.owner == getpid())
		return;
	if (handler.uffd >= 0)
		close_number();
	handler.bell = NULL;
	handler.state = OFF;
	handler.recall_wanted = false;
	trap_forget();
	handler.owner = getpid();
}

/* Runs before all handlers that are there already, and so before their locks are held. */
static int watch_forks(void)
{
	static bool done; /* in a child too */
	int err = 0;

	if (!done)
		err = pthread_atfork(fork_prepare, fork_parent, NULL);
	done = !err;
	return -err;
}

/* ---- start and stop ------------------------------------------------------ */

static int start_thread(void)
{
	int err = thread_start(handler_main, NULL);

	if (err)
		return err;
	while (atomic_load(&handler.state) == STARTING)
		futex_wait(&handler.state, STARTING, FUTEX_FOREVER);
	return handler.error;
}

/*
 * In the program's table too, where nothing uses it: the kernel ends threads
 * one by one, and while one runs, what is out must not read as zeros.
 */
static int open_uffd(void)
{
	int fd = uffd_open(FEATURES), high;

	if (fd < 0)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, OWN_FD_LEAST);
	if (high < 0)
		return fd;
	close(fd);
	return high;
}

int handler_start(const struct handler_client *client)
{
	int err;

	forget_parents();
	if (atomic_load(&handler.state) == RUNNING)
		return 0;
	err = watch_forks();
	if (err)
		return err;
	handler.uffd = open_uffd();
	if (handler.uffd < 0)
		return handler.uffd;
	region_guard(handler_hold, handler_let_go);
	handler.client = client;
	handler.error = 0;
	atomic_store(&handler.state, STARTING);
	err = start_thread();
	if (err) {
		close_number();
		atomic_store(&handler.state, OFF);
	}
	return err;
}

void handler_stop(void)
{
	uint32_t running = RUNNING;

	forget_parents();
	handler_hold(NULL, UINTPTR_MAX);
	if (atomic_compare_exchange_strong(&handler.state, &running, STOPPING)) {
		ring();
		while (atomic_load(&handler.state) == STOPPING)
			futex_wait(&handler.state, STOPPING, RETRY_NS);
		close_number();
	}
	handler_let_go();
}
