/* SPDX-License-Identifier: MIT */
/* Cases of test_first_touch: the kernel's accesses, for system calls and devices. */
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

#include "fault/pin.h"
#include "fault_memory.h"
#include "first_touch_test.h"

void system_calls(void **state)
{
	char *mem = fault_fresh(), copy[PAGE];
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	memset(copy, 3, PAGE);
	assert_int_equal(write(fds[1], copy, PAGE), PAGE);
	assert_int_equal(read(fds[0], mem + BLOCK_BYTES - 100, PAGE), PAGE);
	assert_true(all_are(mem + BLOCK_BYTES - 100, PAGE, 3));
	/* out of what was never touched */
	assert_int_equal(write(fds[1], mem + GRANULE_BYTES, PAGE), PAGE);
	assert_int_equal(read(fds[0], copy, PAGE), PAGE);
	assert_true(all_are(copy, PAGE, 0));
	close(fds[0]);
	close(fds[1]);
	munmap(mem, SIZE);
}

/* A file of a granule of fours. */
static int file_of_fours(int flags)
{
	char path[] = "/tmp/ferry-fault-XXXXXX", *mem = fault_map();
	int fd = mkstemp(path);

	memset(mem, 4, GRANULE_BYTES);
	assert_int_equal(write(fd, mem, GRANULE_BYTES), GRANULE_BYTES);
	fsync(fd);
	close(fd);
	fd = open(path, O_RDWR | O_CLOEXEC | flags);
	unlink(path);
	munmap(mem, SIZE);
	return fd;
}

void direct_io(void **state)
{
	int fd = file_of_fours(O_DIRECT);
	char *mem;

	(void)state;
	if (fd < 0)
		skip(); /* no O_DIRECT in /tmp */
	mem = fault_fresh();
	assert_int_equal(pread(fd, mem, GRANULE_BYTES, 0), GRANULE_BYTES);
	assert_true(all_are(mem, GRANULE_BYTES, 4));
	assert_int_equal(pwrite(fd, mem + GRANULE_BYTES, PAGE, 0), PAGE);
	assert_int_equal(pread(fd, mem, PAGE, 0), PAGE);
	assert_true(all_are(mem, PAGE, 0));
	close(fd);
	munmap(mem, SIZE);
}

static int uring_once(struct io_uring *ring, bool write, int fd, char *mem)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int result;

	if (write)
		io_uring_prep_write(sqe, fd, mem, GRANULE_BYTES, 0);
	else
		io_uring_prep_read(sqe, fd, mem, GRANULE_BYTES, 0);
	assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
	assert_int_equal(io_uring_wait_cqe(ring, &cqe), 0);
	result = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return result;
}

void io_uring(void **state)
{
	struct io_uring ring;
	int fd = file_of_fours(0);
	char *mem;

	(void)state;
	if (io_uring_queue_init(4, &ring, 0))
		skip();
	mem = fault_fresh();
	assert_int_equal(uring_once(&ring, false, fd, mem), GRANULE_BYTES);
	assert_true(all_are(mem, GRANULE_BYTES, 4));
	assert_int_equal(uring_once(&ring, true, fd, mem + GRANULE_BYTES), GRANULE_BYTES);
	assert_int_equal(uring_once(&ring, false, fd, mem), GRANULE_BYTES);
	assert_true(all_are(mem, GRANULE_BYTES, 0));
	io_uring_queue_exit(&ring);
	close(fd);
	munmap(mem, SIZE);
}

/* Pinned for longer than a call, as network cards have their buffers. */
void pinned_buffers(void **state)
{
	char *mem = fault_fresh();
	struct iovec buffer = {mem, GRANULE_BYTES};
	struct io_uring ring;

	(void)state;
	if (io_uring_queue_init(4, &ring, 0))
		skip();
	if (pin_try() == -EFAULT) {
		assert_int_equal(io_uring_register_buffers(&ring, &buffer, 1), -EFAULT);
		memset(mem, 4, GRANULE_BYTES);
	}
	assert_int_equal(io_uring_register_buffers(&ring, &buffer, 1), 0);
	assert_int_equal(pages_there(mem, GRANULE_BYTES), GRANULE_BYTES / PAGE);
	memset(mem, 5, GRANULE_BYTES);
	io_uring_queue_exit(&ring);
	assert_true(all_are(mem, GRANULE_BYTES, 5));
	munmap(mem, SIZE);
}
