/* SPDX-License-Identifier: MIT */
/* Cases of test_hint_faults: the kernel's accesses, for system calls and devices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hint_fault_test.h"

/* read(2) into a page that is out, and write(2) from it. */
void system_calls(void **state)
{
	char *mem = with_trap(), copy[PAGE];
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	memset(copy, 3, PAGE);
	/* into it, over its end */
	assert_int_equal(write(fds[1], copy, PAGE), PAGE);
	assert_int_equal(read(fds[0], mem + OUT - 8, PAGE), PAGE);
	assert_memory_equal(mem + OUT - 8, copy, PAGE);
	pattern_fill(mem, SIZE, SEED);
	/* out of it */
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_int_equal(write(fds[1], mem + OUT, PAGE), PAGE);
	assert_int_equal(read(fds[0], copy, PAGE), PAGE);
	assert_memory_equal(copy, mem + OUT, PAGE);
	assert_whole(mem);
	close(fds[0]);
	close(fds[1]);
	munmap(mem, SIZE);
}

/* A file with the memory's pattern; @flags for open(2). */
static int pattern_file(int flags)
{
	char path[] = "/tmp/ferry-fault-XXXXXX", *mem = pages_map(SIZE, false);
	int fd = mkstemp(path);

	pattern_fill(mem, SIZE, SEED);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, mem, SIZE), SIZE);
	fsync(fd);
	close(fd);
	fd = open(path, O_RDWR | flags);
	unlink(path);
	munmap(mem, SIZE);
	return fd;
}

/* O_DIRECT into and from a page that is out. */
void direct_io(void **state)
{
	int fd = pattern_file(O_DIRECT);
	char *mem;

	(void)state;
	if (fd < 0)
		skip(); /* no O_DIRECT in /tmp */
	mem = with_trap();
	memset(mem, 0, OUT);
	assert_int_equal(pread(fd, mem, SIZE, 0), SIZE);
	assert_whole(mem);
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_int_equal(pwrite(fd, mem, SIZE, 0), SIZE);
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_int_equal(pread(fd, mem, SIZE, 0), SIZE);
	assert_whole(mem);
	close(fd);
	munmap(mem, SIZE);
}

static void uring_once(struct io_uring *ring, bool write, int fd, char *mem)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;

	if (write)
		io_uring_prep_write(sqe, fd, mem, SIZE, 0);
	else
		io_uring_prep_read(sqe, fd, mem, SIZE, 0);
	assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
	assert_int_equal(io_uring_wait_cqe(ring, &cqe), 0);
	assert_int_equal(cqe->res, SIZE);
	io_uring_cqe_seen(ring, cqe);
}

/* io_uring into and from it; a registered buffer is pinned, and not taken out. */
void io_uring(void **state)
{
	struct io_uring ring;
	int fd = pattern_file(0);
	char *mem;

	(void)state;
	if (io_uring_queue_init(4, &ring, 0))
		skip();
	mem = with_trap();
	uring_once(&ring, true, fd, mem);
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	uring_once(&ring, false, fd, mem);
	assert_whole(mem);
	/* a registered buffer is pinned: brought back, and then left where it is */
	assert_int_equal(traps_set(mem + OUT, PAGE), 0);
	assert_int_equal(io_uring_register_buffers(&ring, &(struct iovec){mem, SIZE}, 1),
			 0);
	assert_true(page_is_there(mem + OUT));
	assert_int_equal(traps_set(mem + OUT, PAGE), -EBUSY);
	assert_whole(mem);
	io_uring_queue_exit(&ring);
	close(fd);
	munmap(mem, SIZE);
}
