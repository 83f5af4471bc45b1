/* SPDX-License-Identifier: MIT */
/*
 * Proves who may ask for what: an open device serves only the memory of the
 * process that opened it, whoever else holds the descriptor or an io_uring on
 * it; a cpuset's nodes are the only targets; no privilege is needed to move
 * one's own memory. Single-threaded, with child processes.
 */
#include "kmod_test.h"
#include "kmod_uring.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { SEED = 61, PAGES = 16 };

/* Every request through @fd is refused, and this process' memory stays. */
static void expect_stranger(int fd, const char *who)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct kt_request req;
	__s16 out[PAGES];
	struct ferry_ioc_query q = {
		.size = sizeof(q),
		.addr = (uintptr_t)mem,
		.len = len,
		.out = (uintptr_t)out,
		.out_bytes = sizeof(out),
	};
	struct io_uring ring;
	long ret;

	memset(out, 0xa5, sizeof(out));
	kt_request_init(&req, mem, len, kt.hbm);
	ret = kt_ioctl(fd, FERRY_IOC_MIGRATE, &req.arg);
	KT_EXPECT(ret == -EPERM, "%s: MIGRATE returned %ld", who, ret);
	ret = kt_ioctl(fd, FERRY_IOC_QUERY, &q);
	KT_EXPECT(ret == -EPERM, "%s: QUERY returned %ld", who, ret);
	KT_EXPECT(out[0] == (__s16)0xa5a5, "%s: QUERY answered", who);
	kt_ring_init(&ring, 4, 0);
	ret = kt_ring_call(&ring, fd, FERRY_IOC_MIGRATE, &req.arg);
	KT_EXPECT(ret == -EPERM, "%s: MIGRATE by io_uring returned %ld", who, ret);
	ret = kt_ring_call(&ring, fd, FERRY_IOC_QUERY, &q);
	KT_EXPECT(ret == -EPERM, "%s: QUERY by io_uring returned %ld", who, ret);
	io_uring_queue_exit(&ring);
	KT_EXPECT(kt_on(mem, len, kt.ddr) == PAGES, "%s: pages moved", who);
	KT_EXPECT_DATA(mem, len, SEED);
	munmap(mem, len);
}

static void inherited_by_fork(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_result res;
	struct kt_request req;
	struct io_uring ring;
	pid_t pid;

	kt_ring_init(&ring, 4, 0);
	kt_request_init(&req, mem, len, kt.hbm);
	pid = kt_fork();
	if (pid == 0) {
		expect_stranger(kt.fd, "child");
		KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, NULL), -EPERM);
		/* The parent's ring, used by the child: the child's memory again. */
		KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg),
			     -EPERM);
		/* Its own device serves it. */
		kt.fd = kt_open();
		kt_fill_on(mem, len, kt.ddr, SEED + 1);
		KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, NULL), PAGES);
		KT_EXPECT_ON(mem, len, kt.hbm);
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_wait(pid), 0);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), PAGES);
	KT_EXPECT_DATA(mem, len, SEED);
}

/* A thread-like child, which shares the memory, is no stranger. */
static int vm_sharer(void *arg)
{
	_exit(kt_migrate(arg, PAGES * kt.page, kt.hbm, 0, NULL) == PAGES ? 0 : 1);
}

static void shared_by_clone(void)
{
	size_t len = PAGES * kt.page, stack = 64 << 10;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	pid_t pid = clone(vm_sharer, (char *)kt_alloc(stack) + stack, CLONE_VM | SIGCHLD,
			  mem);

	KT_REQUIRE(pid > 0, "clone: %m");
	KT_EXPECT_EQ(kt_wait(pid), 0);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
}

static void send_fd(int sock, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	KT_REQUIRE(sendmsg(sock, &msg, 0) == 1, "sendmsg: %m");
}

static int receive_fd(int sock)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	int fd;

	KT_REQUIRE(recvmsg(sock, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg), "recvmsg: %m");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

/* A passed descriptor moves neither the sender's nor the receiver's memory. */
static void passed_by_socket(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	int sock[2];
	pid_t pid;

	KT_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sock) == 0, "socketpair: %m");
	pid = kt_fork();
	if (pid == 0) {
		close(kt.fd);
		expect_stranger(receive_fd(sock[1]), "receiver");
		kt_child_end();
	}
	send_fd(sock[0], kt.fd);
	KT_EXPECT_EQ(kt_wait(pid), 0);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);
}

/*
 * The opener is gone, and a new process may well get its mm_struct's memory:
 * none may be taken for it.
 */
static void opener_gone(void)
{
	size_t len = PAGES * kt.page;
	int sock[2], fd;
	pid_t pid;

	KT_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sock) == 0, "socketpair: %m");
	pid = kt_fork();
	if (pid == 0) {
		send_fd(sock[1], kt_open());
		kt_child_end();
	}
	fd = receive_fd(sock[0]);
	KT_EXPECT_EQ(kt_wait(pid), 0);
	for (int i = 0; i < 50; i++) {
		pid = kt_fork();
		if (pid == 0) {
			struct kt_request req;
			void *mem = kt_alloc_on(len, kt.ddr, SEED);

			kt_request_init(&req, mem, len, kt.hbm);
			KT_EXPECT_EQ(kt_ioctl(fd, FERRY_IOC_MIGRATE, &req.arg), -EPERM);
			KT_EXPECT_ON(mem, len, kt.ddr);
			kt_child_end();
		}
		KT_EXPECT_EQ(kt_wait(pid), 0);
	}
	expect_stranger(fd, "holder");
}

#define EXEC_FD "FERRY_TEST_EXEC_FD" /* set: this program is its own exec'd child */

/* exec keeps the descriptor and replaces the memory. */
static void kept_over_exec(void)
{
	const char *inherited = getenv(EXEC_FD);
	char text[16];
	pid_t pid;

	if (inherited) {
		expect_stranger(atoi(inherited), "program after exec");
		return;
	}
	pid = kt_fork();
	if (pid == 0) {
		int fd = dup(kt.fd); /* without FD_CLOEXEC */

		snprintf(text, sizeof(text), "%d", fd);
		setenv(EXEC_FD, text, 1);
		execl("/proc/self/exe", "test_kmod_rights", "kept_over_exec",
		      (char *)NULL);
		_exit(126);
	}
	KT_EXPECT_EQ(kt_wait(pid), 0);
}

static void unprivileged(void)
{
	size_t len = PAGES * kt.page;
	struct ferry_ioc_result res;
	struct io_uring ring;
	struct kt_request req;
	struct stat st;
	char *mem;
	pid_t pid;

	KT_REQUIRE(stat(FERRY_DEVICE_PATH, &st) == 0, "stat: %m");
	KT_REQUIRE(chmod(FERRY_DEVICE_PATH, 0666) == 0, "chmod: %m");
	pid = kt_fork();
	if (pid == 0) {
		KT_REQUIRE(setgroups(0, NULL) == 0 &&
				   setresgid(65534, 65534, 65534) == 0 &&
				   setresuid(65534, 65534, 65534) == 0,
			   "setresuid: %m");
		kt.fd = kt_open();
		KT_REQUIRE(kt.fd >= 0, "open: %m");
		mem = kt_alloc_on(len, kt.ddr, SEED);
		KT_EXPECT_EQ(kt_migrate(mem, len, kt.hbm, 0, &res), PAGES);
		KT_EXPECT_RESULT(&res, .moved = PAGES);
		KT_EXPECT_ON(mem, len, kt.hbm);
		kt_ring_init(&ring, 4, 0);
		kt_request_init(&req, mem, len, kt.ddr);
		KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg),
			     PAGES);
		req.arg.flags = FERRY_MIGRATE_SHARED;
		KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg),
			     -EPERM);
		KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &req.arg), -EPERM);
		KT_EXPECT_ON(mem, len, kt.ddr);
		KT_EXPECT_DATA(mem, len, SEED);
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_wait(pid), 0);
	chmod(FERRY_DEVICE_PATH, st.st_mode & 07777);
}

#define CGROUP "/sys/fs/cgroup"
#define CPUSET CGROUP "/ferry-test"

static bool cpuset_make(void)
{
	char text[16];

	if (access(CGROUP "/cgroup.controllers", R_OK) != 0 &&
	    mount("none", CGROUP, "cgroup2", 0, NULL) != 0)
		return false;
	if (!kt_write_file(CGROUP "/cgroup.subtree_control", "+cpuset"))
		return false;
	if (mkdir(CPUSET, 0755) != 0 && errno != EEXIST)
		return false;
	snprintf(text, sizeof(text), "%d", kt.ddr);
	return kt_write_file(CPUSET "/cpuset.mems", text);
}

/* Inside a cpuset only its nodes are targets, for ioctl and io_uring alike. */
static void in_cpuset(void)
{
	size_t len = PAGES * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct ferry_ioc_info info = {.size = sizeof(info)};
	struct ferry_ioc_range range[2] = {
		{.addr = (uintptr_t)mem, .len = len, .node = kt.ddr},
		{.addr = (uintptr_t)mem, .len = len, .node = kt.hbm},
	};
	struct ferry_ioc_result res[2], untouched[2];
	struct io_uring ring;
	struct kt_request req;

	KT_REQUIRE(kt_write_file(CPUSET "/cgroup.procs", "0"), "joining the cpuset: %m");
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, &info), 0);
	KT_EXPECT(!(info.nodes[kt.hbm / 64] >> (kt.hbm % 64) & 1),
		  "INFO still offers node %d", kt.hbm);
	KT_EXPECT(info.nodes[kt.ddr / 64] >> (kt.ddr % 64) & 1, "INFO lacks node %d",
		  kt.ddr);

	memset(res, 0xa5, sizeof(res));
	memset(untouched, 0xa5, sizeof(untouched));
	KT_EXPECT_EQ(kt_migrate_batch(0, range, 2, res), -EACCES);
	KT_EXPECT(!memcmp(res, untouched, sizeof(res)), "a result was written");
	range[1].flags = FERRY_RANGE_POPULATE;
	KT_EXPECT_EQ(kt_migrate_batch(0, range, 2, res), -EACCES);

	kt_ring_init(&ring, 4, 0);
	kt_request_init(&req, mem, len, kt.hbm);
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg), -EACCES);
	req.range.node = kt.ddr;
	KT_EXPECT_EQ(kt_ring_call(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg), 0);
	KT_EXPECT_RESULT(&req.result, .already = PAGES);
	io_uring_queue_exit(&ring);
	KT_EXPECT_ON(mem, len, kt.ddr);
	KT_EXPECT_DATA(mem, len, SEED);
}

static void cpuset(void)
{
	pid_t pid;

	if (!cpuset_make())
		kt_skip("no cpuset in cgroup2: %m");
	pid = kt_fork();
	if (pid == 0) {
		kt.fd = kt_open();
		in_cpuset();
		kt_child_end();
	}
	KT_EXPECT_EQ(kt_wait(pid), 0);
	rmdir(CPUSET);
}

static const struct kt_case cases[] = {
	KT_CASE(inherited_by_fork),
	KT_CASE(shared_by_clone),
	KT_CASE(passed_by_socket),
	KT_CASE(opener_gone),
	KT_CASE(kept_over_exec),
	KT_CASE(unprivileged),
	KT_CASE(cpuset),
};

KT_MAIN(cases)
