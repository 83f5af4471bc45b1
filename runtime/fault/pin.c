/* SPDX-License-Identifier: MIT */
/* Trying to pin what a userfaultfd is to fill: see pin.h. */
#include "fault/pin.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fault/uffd.h"
#include "migrate/page.h"

struct attempt {
	int uffd;
	char *page;
	atomic_bool over;
};

/* Fills the page should somebody wait for it. */
static void *fill_page(void *arg)
{
	struct attempt *attempt = arg;
	struct pollfd fd = {.fd = attempt->uffd, .events = POLLIN};
	size_t done;

	while (!atomic_load(&attempt->over))
		if (poll(&fd, 1, 1) == 1 &&
		    !uffd_zero(fd.fd, (uintptr_t)attempt->page, PAGE_BYTES, 0, &done))
			break;
	return NULL;
}

static int pin(struct attempt *attempt)
{
	struct iovec buffer = {attempt->page, PAGE_BYTES};
	struct io_uring ring;
	int err = io_uring_queue_init(1, &ring, 0);

	if (err)
		return err;
	err = io_uring_register_buffers(&ring, &buffer, 1);
	io_uring_queue_exit(&ring);
	return err;
}

static int try_on(struct attempt *attempt)
{
	sigset_t all, before;
	pthread_t thread;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&thread, NULL, fill_page, attempt);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return -err;
	err = uffd_register(attempt->uffd, (uintptr_t)attempt->page, PAGE_BYTES);
	if (!err)
		err = pin(attempt);
	atomic_store(&attempt->over, true);
	pthread_join(thread, NULL);
	return err;
}

int pin_try(void)
{
	struct attempt attempt = {.uffd = uffd_open(0)};
	int err;

	if (attempt.uffd < 0)
		return attempt.uffd;
	attempt.page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	err = attempt.page == MAP_FAILED ? -errno : try_on(&attempt);
	close(attempt.uffd);
	if (attempt.page != MAP_FAILED)
		munmap(attempt.page, PAGE_BYTES);
	return err;
}
