/* SPDX-License-Identifier: MIT */
/*
 * Proves that the module cannot be unloaded while its device is open or its
 * requests are in flight, can be when they are done, and loads again, with the
 * parameters it is given. It runs last, for it takes the module away from under
 * everyone. The module's file is FERRY_KO, or that of this build for the running
 * kernel. Single-threaded.
 */
#include "kmod_param.h"
#include "kmod_test.h"
#include "kmod_uring.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

enum { SEED = 97 };

static void module_path(char *path, size_t size)
{
	const char *set = getenv("FERRY_KO");
	struct utsname host;

	uname(&host);
	if (set)
		snprintf(path, size, "%s", set);
	else
		snprintf(path, size, "%s/kmod/%s/ferry.ko", FERRY_BUILD_DIR,
			 host.release);
	if (access(path, R_OK) != 0)
		kt_skip("%s: %m", path);
}

static long unload(void)
{
	return syscall(SYS_delete_module, "ferry", O_NONBLOCK) ? -errno : 0;
}

/* Closing is not always the end of a file: its ring may go by delayed work. */
static long unload_soon(void)
{
	long ret = unload();

	for (int i = 0; i < 500 && (ret == -EBUSY || ret == -EWOULDBLOCK); i++) {
		usleep(10000);
		ret = unload();
	}
	return ret;
}

static void load(const char *path, const char *parameters)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	KT_REQUIRE(fd >= 0, "%s: %m", path);
	KT_REQUIRE(syscall(SYS_finit_module, fd, parameters, 0) == 0, "loading %s: %m",
		   path);
	close(fd);
	/* devtmpfs makes the node with the device; udev may set its mode later. */
	for (int i = 0; i < 100 && access(FERRY_DEVICE_PATH, R_OK | W_OK) != 0; i++)
		usleep(10000);
	kt.fd = kt_open();
	KT_REQUIRE(kt.fd >= 0, "%s after loading: %m", FERRY_DEVICE_PATH);
}

static void expect_refused(const char *when)
{
	long ret = unload();

	KT_EXPECT(ret == -EBUSY || ret == -EWOULDBLOCK, "%s: unloading returned %ld",
		  when, ret);
}

static void while_open(void)
{
	char path[512];
	int again;

	module_path(path, sizeof(path));
	kt.fd = kt_open();
	expect_refused("open");
	again = dup(kt.fd);
	close(kt.fd);
	expect_refused("open by another descriptor");
	close(again);
	KT_REQUIRE(unload_soon() == 0, "unloading when closed: %m");
	KT_EXPECT(access(FERRY_DEVICE_PATH, F_OK) != 0, "the device outlived the module");
	load(path, "");
}

static void while_in_flight(void)
{
	const size_t len = 32ul << 20;
	char path[512], *mem = kt_alloc_on(len, kt.ddr, SEED);
	struct io_uring ring;
	struct kt_request req;

	module_path(path, sizeof(path));
	kt.fd = kt_open();
	kt_ring_init(&ring, 4, 0);
	kt_request_init(&req, mem, len, kt.hbm);
	kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg, 0);
	io_uring_submit(&ring);
	close(kt.fd); /* from here on only the request holds the module */
	expect_refused("a request in flight");
	KT_EXPECT_EQ(kt_ring_wait(&ring, NULL), len / kt.page);
	io_uring_queue_exit(&ring);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_REQUIRE(unload_soon() == 0, "unloading when done: %m");
	/* What the module moved is nobody's business any more. */
	KT_EXPECT_DATA(mem, len, SEED);
	kt_fill(mem, len, SEED + 1);
	load(path, "");
	KT_EXPECT_EQ(kt_migrate(mem, len, kt.ddr, 0, NULL), len / kt.page);
	KT_EXPECT_DATA(mem, len, SEED + 1);
}

/* Ring closed and process gone at once: unloading waits for what is left. */
static void after_a_crash(void)
{
	const size_t len = 16ul << 20;
	char path[512];

	module_path(path, sizeof(path));
	for (int i = 0; i < 5; i++) {
		pid_t pid = kt_fork();

		if (pid == 0) {
			static struct kt_request req;
			struct io_uring ring;

			kt.fd = kt_open();
			kt_ring_init(&ring, 4, 0);
			kt_request_init(&req, kt_alloc_on(len, kt.ddr, SEED), len,
					kt.hbm);
			kt_ring_cmd(&ring, kt.fd, FERRY_IOC_MIGRATE, &req.arg, 0);
			io_uring_submit(&ring);
			kill(getpid(), SIGKILL);
		}
		KT_EXPECT_EQ(kt_wait(pid), 128 + SIGKILL);
		KT_REQUIRE(unload_soon() == 0, "unloading after a crash: %m");
		load(path, "");
		close(kt.fd);
	}
}

/* As many batches of a process at a time as there are CPUs, or what is asked for */
static void limit_of_batches(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	char path[512];

	module_path(path, sizeof(path));
	KT_REQUIRE(unload_soon() == 0, "unloading: %m");
	load(path, "max_in_flight=7");
	KT_EXPECT_EQ(kt_param_number("ferry", "max_in_flight"), 7);
	close(kt.fd);
	KT_REQUIRE(unload_soon() == 0, "unloading: %m");
	load(path, "");
	KT_EXPECT_EQ(kt_param_number("ferry", "max_in_flight"), cpus < 16 ? cpus : 16);
	close(kt.fd);
}

static const struct kt_case cases[] = {
	{.name = "while_open", .run = while_open, .no_device = true},
	{.name = "while_in_flight", .run = while_in_flight, .no_device = true},
	{.name = "limit_of_batches", .run = limit_of_batches, .no_device = true},
	{.name = "after_a_crash", .run = after_a_crash, .no_device = true},
};

KT_MAIN(cases)
