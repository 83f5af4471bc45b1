/* SPDX-License-Identifier: MIT */
/*
 * Proves that who touches what is missing waits, the kernel included, and finds
 * what is put there by each way; that pages move without a copy, by progress
 * told; and that it is said why there is no userfaultfd. Two threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fault/uffd.h"
#include "migrate/page.h"

#define PAGES 4
#define LEN   (PAGES * PAGE_BYTES)

static int uffd;

static char *map(void)
{
	char *mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);

	assert_ptr_not_equal(mem, MAP_FAILED);
	assert_int_equal(madvise(mem, LEN, MADV_NOHUGEPAGE), 0);
	return mem;
}

/* Reads a byte of each page through the kernel, which faults for it. */
struct reader {
	pthread_t thread;
	char *mem;
	char seen[PAGES];
	atomic_bool done;
};

static void *read_all(void *arg)
{
	struct reader *r = arg;
	int fd[2];

	if (pipe(fd))
		return arg;
	for (int i = 0; i < PAGES; i++)
		if (write(fd[1], r->mem + (size_t)i * PAGE_BYTES, 1) != 1 ||
		    read(fd[0], &r->seen[i], 1) != 1)
			return arg;
	close(fd[0]);
	close(fd[1]);
	atomic_store(&r->done, true);
	return NULL;
}

static void start(struct reader *r, char *mem)
{
	*r = (struct reader){.mem = mem};
	assert_int_equal(pthread_create(&r->thread, NULL, read_all, r), 0);
}

static void join(struct reader *r, const char *expected)
{
	void *failed;

	assert_int_equal(pthread_join(r->thread, &failed), 0);
	assert_null(failed);
	assert_memory_equal(r->seen, expected, PAGES);
}

/* The next message of a fault; its page. */
static char *faulted(void)
{
	struct pollfd p = {.fd = uffd, .events = POLLIN};
	struct uffd_msg msg;

	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(read(uffd, &msg, sizeof(msg)), sizeof(msg));
	assert_int_equal(msg.event, UFFD_EVENT_PAGEFAULT);
	return (char *)page_down(msg.arg.pagefault.address);
}

static void fills(void **state)
{
	char *mem = map(), *from = map();
	struct reader r;
	size_t done;

	(void)state;
	memset(from, 'm', LEN);
	assert_int_equal(uffd_register(uffd, (uintptr_t)mem, LEN), 0);
	start(&r, mem);

	assert_ptr_equal(faulted(), mem);
	assert_false(atomic_load(&r.done));
	assert_int_equal(
		uffd_move(uffd, (uintptr_t)mem, (uintptr_t)from, PAGE_BYTES, 0, &done),
		0);
	assert_int_equal(done, PAGE_BYTES);
	assert_int_equal(*from, 0);
	*from = 'm';

	assert_ptr_equal(faulted(), mem + PAGE_BYTES);
	memset(from, 'c', PAGE_BYTES);
	assert_int_equal(
		uffd_copy(uffd, (uintptr_t)mem + PAGE_BYTES, from, PAGE_BYTES, 0, &done),
		0);
	assert_int_equal(done, PAGE_BYTES);
	assert_int_equal(*from, 'c');

	assert_ptr_equal(faulted(), mem + 2 * PAGE_BYTES);
	assert_int_equal(
		uffd_zero(uffd, (uintptr_t)mem + 2 * PAGE_BYTES, PAGE_BYTES, 0, &done),
		0);
	assert_int_equal(done, PAGE_BYTES);

	assert_ptr_equal(faulted(), mem + 3 * PAGE_BYTES);
	assert_int_equal(uffd_unregister(uffd, (uintptr_t)mem, LEN), 0);
	join(&r, "mc\0\0");
	munmap(mem, LEN);
	munmap(from, LEN);
}

/* What is there already stays, and what came before it has moved. */
static void progress(void **state)
{
	char *mem = map(), *from = map();
	size_t done = 1;

	(void)state;
	memset(from, 'x', LEN);
	assert_int_equal(uffd_move(uffd, (uintptr_t)mem, (uintptr_t)from, LEN, 0, &done),
			 -EINVAL);
	assert_int_equal(done, 0);
	mem[2 * PAGE_BYTES] = 'y';
	assert_int_equal(uffd_register(uffd, (uintptr_t)mem, LEN), 0);
	assert_int_not_equal(
		uffd_move(uffd, (uintptr_t)mem, (uintptr_t)from, LEN, 0, &done), 0);
	assert_int_equal(done, 2 * PAGE_BYTES);
	assert_int_equal(mem[0], 'x');
	assert_int_equal(mem[PAGE_BYTES], 'x');
	assert_int_equal(mem[2 * PAGE_BYTES], 'y');
	assert_int_equal(from[2 * PAGE_BYTES], 'x');

	madvise(from, PAGE_BYTES, MADV_DONTNEED);
	madvise(mem, LEN, MADV_DONTNEED);
	assert_int_equal(uffd_move(uffd, (uintptr_t)mem, (uintptr_t)from, LEN,
				   UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES, &done),
			 0);
	assert_int_equal(done, LEN);
	assert_int_equal(mem[3 * PAGE_BYTES], 'x');
	munmap(mem, LEN);
	munmap(from, LEN);
}

/* A second userfaultfd cannot have what a first has. */
static void taken(void **state)
{
	char *mem = map();
	int second = uffd_open(0);

	(void)state;
	assert_true(second >= 0);
	assert_int_equal(uffd_register(uffd, (uintptr_t)mem, LEN), 0);
	assert_int_equal(uffd_register(second, (uintptr_t)mem, LEN), -EBUSY);
	close(second);
	munmap(mem, LEN);
}

/* ---- why not ------------------------------------------------------------- */

static void refuse_and_open(int err)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned int)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(2);
	_exit(uffd_open(0) != -err);
}

static void refused(void **state)
{
	static const struct {
		int err;
		const char *says;
	} cases[] = {
		{EPERM, "permission denied"},
		{ENOSYS, "has none"},
		{EMFILE, "cannot be opened"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (!pid)
			refuse_and_open(cases[i].err);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_non_null(strstr(uffd_why(-cases[i].err), cases[i].says));
	}
	assert_int_equal(uffd_open((uint64_t)1 << 63), -EINVAL);
	assert_non_null(strstr(uffd_why(-EINVAL), "6.8"));
}

/* ---- nobody waits for what is not registered ----------------------------- */

static struct {
	char *page;
	atomic_bool stop;
	atomic_uint reads;
} always;

static void *read_always(void *unused)
{
	while (!atomic_load(&always.stop)) {
		(void)*(volatile char *)always.page;
		atomic_fetch_add(&always.reads, 1);
	}
	return unused;
}

/* Whether the thread reads on. */
static bool goes_on(void)
{
	unsigned int before = atomic_load(&always.reads);

	for (int i = 0; i < 5000; i++) {
		for (int k = 0; k < 1000; k++)
			if (atomic_load(&always.reads) != before)
				return true;
		usleep(1000);
	}
	return false;
}

/*
 * Who faults at the moment when memory is unregistered goes on. The moment is short:
 * without the second waking somebody was left within seconds.
 */
static void unregistered_at_once(void **state)
{
	time_t end = time(NULL) + 5;
	pthread_t thread;

	(void)state;
	always.page = map();
	assert_int_equal(pthread_create(&thread, NULL, read_always, NULL), 0);
	for (int i = 0; i < 300000 && time(NULL) < end; i++) {
		uintptr_t page = (uintptr_t)always.page;

		assert_int_equal(madvise(always.page, PAGE_BYTES, MADV_DONTNEED), 0);
		assert_int_equal(uffd_register(uffd, page, PAGE_BYTES), 0);
		assert_int_equal(madvise(always.page, PAGE_BYTES, MADV_DONTNEED), 0);
		for (int k = i % 64; k > 0; k--)
			atomic_load(&always.reads);
		assert_int_equal(uffd_unregister(uffd, page, PAGE_BYTES), 0);
		assert_true(goes_on());
	}
	atomic_store(&always.stop, true);
	pthread_join(thread, NULL);
	munmap(always.page, LEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refused),
		cmocka_unit_test(fills),
		cmocka_unit_test(progress),
		cmocka_unit_test(taken),
		cmocka_unit_test(unregistered_at_once),
	};

	uffd = uffd_open(UFFD_FEATURE_MOVE);
	if (uffd < 0) {
		print_message("skip: %s\n", uffd_why(uffd));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
