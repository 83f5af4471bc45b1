/* SPDX-License-Identifier: MIT */
/*
 * Proves on a machine without the module: which engine libferry takes and what
 * it says about it; that a kernel without NUMA, or one without another thread for
 * the process, is served; that the library
 * stays when it is unloaded with its worker running. Each case is a process of
 * its own that loads libferry.so with dlopen(3), for whose jemalloc glibc must
 * set more static TLS aside than it does by default.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ferry/ferry.h>
#include <ferry/ferry_ioctl.h>

#define CHECK(what)                                                                      \
	do {                                                                             \
		if (!(what)) {                                                           \
			fprintf(stderr, "line %d: %s\n", __LINE__, #what);               \
			_exit(1);                                                        \
		}                                                                        \
	} while (0)

static void *library;
static __typeof__(&ferry_engine) engine;
static __typeof__(&ferry_migrate) migrate;
static __typeof__(&ferry_submit) submit;
static __typeof__(&ferry_request_wait) request_wait;
static __typeof__(&ferry_request_result) request_result;
static __typeof__(&ferry_query_pages) query_pages;

static void load(void)
{
	library = dlopen(FERRY_LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		fprintf(stderr, "%s\n", dlerror());
	CHECK(library);
	*(void **)&engine = dlsym(library, "ferry_engine");
	*(void **)&migrate = dlsym(library, "ferry_migrate");
	*(void **)&submit = dlsym(library, "ferry_submit");
	*(void **)&request_wait = dlsym(library, "ferry_request_wait");
	*(void **)&request_result = dlsym(library, "ferry_request_result");
	*(void **)&query_pages = dlsym(library, "ferry_query_pages");
	CHECK(engine && migrate && submit && request_wait && request_result &&
	      query_pages);
}

/* Runs a case with FERRY_ENGINE as given; what it says to stderr is in @said. */
static void run_with(void (*run)(void), const char *choice, char *said, size_t size)
{
	ssize_t got, length = 0;
	int fd[2], status;
	pid_t pid;

	assert_int_equal(pipe(fd), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		dup2(fd[1], 2);
		close(fd[0]);
		close(fd[1]);
		unsetenv("FERRY_ENGINE");
		if (choice)
			setenv("FERRY_ENGINE", choice, 1);
		load();
		run();
		_exit(0);
	}
	close(fd[1]);
	while ((got = read(fd[0], said + length, size - 1 - (size_t)length)) > 0)
		length += got;
	said[length] = '\0';
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status)
		print_error("%s", said);
	assert_int_equal(status, 0);
}

static char said[4096];

static size_t times_said(const char *text)
{
	size_t n = 0;

	for (const char *p = said; (p = strstr(p, text)); p += strlen(text))
		n++;
	return n;
}

/* Two pages of memory and a hole between them. */
static char *three_pages(void)
{
	char *mem = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(mem != MAP_FAILED);
	mem[0] = 1;
	mem[2 * 4096] = 2;
	return mem;
}

static void works_on_node_0(void)
{
	char *mem = three_pages();
	struct ferry_range range = {mem, 3 * 4096, FERRY_NODE_DDR, 0};
	struct ferry_result r;
	ferry_request *request;
	int16_t node[3];

	CHECK(!query_pages(mem, 3 * 4096, node));
	CHECK(node[0] == 0 && node[1] == -1 && node[2] == 0);
	CHECK(!migrate(&range, 1, &r, sizeof(r)));
	CHECK(!r.error && r.already == 2 && r.hole == 1 && !r.moved);
	range.flags = FERRY_POPULATE | FERRY_STAY;
	CHECK(!submit(&range, 1, &request) && !request_wait(request, -1));
	CHECK(!request_result(request, &r, sizeof(r)));
	CHECK(!r.error && r.already == 2 && r.populated == 1 && !r.hole);
	CHECK(mem[0] == 1 && mem[4096] == 0 && mem[2 * 4096] == 2);
	CHECK(!query_pages(mem, 3 * 4096, node) && node[1] == 0);
	range.node = 1000;
	CHECK(migrate(&range, 1, &r, sizeof(r)) == -ENODEV);
}

/* ---- the choice --------------------------------------------------------- */

static void expect_engine(const char *name, const char *reason)
{
	const char *why = NULL;

	CHECK(!strcmp(engine(&why), name));
	if (strcmp(why, reason) != 0)
		fprintf(stderr, "why: %s\n", why);
	CHECK(!strcmp(why, reason));
	CHECK(!strcmp(engine(NULL), name));
}

static void run_auto(void)
{
	expect_engine("syscall", "/dev/ferry: not there (module not loaded)");
	works_on_node_0();
}

static void run_syscall(void)
{
	expect_engine("syscall", "FERRY_ENGINE=syscall");
	works_on_node_0();
}

static void run_kmod(void)
{
	char *mem = three_pages();
	struct ferry_range range = {mem, 3 * 4096, FERRY_NODE_DDR, 0};
	ferry_request *request = NULL;
	int16_t node[3];

	for (int i = 0; i < 3; i++) {
		CHECK(migrate(&range, 1, NULL, 0) == -ENODEV);
		CHECK(submit(&range, 1, &request) == -ENODEV && !request);
	}
	expect_engine("none", "/dev/ferry: not there (module not loaded)");
	CHECK(!query_pages(mem, 3 * 4096, node) && node[0] == 0 && node[1] == -1);
}

static bool relocate_is_there;

/* On the one node everything is there already. */
static void run_relocate(void)
{
	const char *why;

	if (!relocate_is_there) {
		CHECK(!strcmp(engine(&why), "none"));
		return;
	}
	CHECK(!strcmp(engine(&why), "relocate"));
	CHECK(strstr(why, "UFFDIO_MOVE") && strstr(why, "vmsplice"));
	works_on_node_0();
}

static void run_wrong(void)
{
	struct ferry_range range = {three_pages(), 4096, 0, 0};

	for (int i = 0; i < 3; i++)
		CHECK(migrate(&range, 1, NULL, 0) == -EINVAL);
	expect_engine("none", "a FERRY_ environment variable is wrong");
}

static void choices(void **state)
{
	(void)state;
	run_with(run_auto, NULL, said, sizeof(said));
	run_with(run_auto, "auto", said, sizeof(said));
	assert_int_equal(times_said("ferry: FERRY_ENGINE"), 0);
	run_with(run_syscall, "syscall", said, sizeof(said));
	run_with(run_kmod, "kmod", said, sizeof(said));
	assert_int_equal(times_said("FERRY_ENGINE=kmod"), 1);
	assert_int_equal(times_said("/dev/ferry: not there (module not loaded)"), 1);
	run_with(run_kmod, "kmod+relocate", said, sizeof(said));
	assert_int_equal(times_said("FERRY_ENGINE=kmod+relocate cannot be had"), 1);
	run_with(run_relocate, "relocate", said, sizeof(said));
	assert_int_equal(times_said("FERRY_ENGINE=relocate cannot be had"),
			 !relocate_is_there);
	run_with(run_wrong, "fast", said, sizeof(said));
	assert_int_equal(times_said("FERRY_ENGINE"), 1);
}

/* ---- what the kernel refuses -------------------------------------------- */

#define REFUSE(nr, err)                                                                  \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),                                   \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (err))
#define FILTER(...)                                                                      \
	{                                                                                \
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),   \
			__VA_ARGS__, BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),       \
	}

static void install(struct sock_filter *filter, size_t len)
{
	struct sock_fprog program = {(unsigned short)len, filter};

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void run_without_numa(void)
{
	struct sock_filter filter[] = FILTER(
		REFUSE(SYS_move_pages, ENOSYS), REFUSE(SYS_mbind, ENOSYS),
		REFUSE(SYS_get_mempolicy, ENOSYS), REFUSE(SYS_set_mempolicy, ENOSYS));

	install(filter, sizeof(filter) / sizeof(filter[0]));
	works_on_node_0();
}

static void without_numa(void **state)
{
	(void)state;
	run_with(run_without_numa, NULL, said, sizeof(said));
}

static void run_without_threads(void)
{
	struct sock_filter filter[] =
		FILTER(REFUSE(SYS_clone, EAGAIN), REFUSE(SYS_clone3, EAGAIN));
	char *mem = three_pages();
	struct ferry_range range = {mem, 3 * 4096, FERRY_NODE_DDR, 0};
	struct ferry_result r;

	install(filter, sizeof(filter) / sizeof(filter[0]));
	for (int i = 0; i < 3; i++) {
		CHECK(!migrate(&range, 1, &r, sizeof(r)));
		CHECK(!r.error && r.already == 2 && r.hole == 1);
	}
}

static void without_threads(void **state)
{
	(void)state;
	if (!relocate_is_there)
		skip();
	run_with(run_without_threads, "relocate", said, sizeof(said));
	assert_int_equal(times_said("no thread can be started"), 1);
}

/* ---- unloading ---------------------------------------------------------- */

static void run_unload(void)
{
	size_t len = (size_t)32 << 20;
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	struct ferry_range range = {mem, len, FERRY_NODE_DDR, FERRY_POPULATE};
	ferry_request *request;

	CHECK(mem != MAP_FAILED);
	for (int i = 0; i < 10; i++)
		CHECK(!submit(&range, 1, &request));
	/* The requests go on in code that must still be mapped. */
	CHECK(!dlclose(library));
	usleep(300000);
	/* Its functions are too: the same library comes back. */
	load();
	CHECK(!request_wait(request, -1));
}

static void unload(void **state)
{
	(void)state;
	run_with(run_unload, NULL, said, sizeof(said));
}

/* What the engine `relocate` needs of a machine. */
static bool has_move_and_huge_pages(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = 1 << 16};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	int huge = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
	bool has = fd >= 0 && !ioctl(fd, UFFDIO_API, &api);
	char enabled[64] = "";

	has = has && read(huge, enabled, sizeof(enabled) - 1) > 0 &&
	      !strstr(enabled, "[never]");
	close(fd);
	close(huge);
	return has;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(choices),
		cmocka_unit_test(without_numa),
		cmocka_unit_test(without_threads),
		cmocka_unit_test(unload),
	};

	if (!access(FERRY_DEVICE_PATH, F_OK) ||
	    !access("/sys/devices/system/node/node1", F_OK)) {
		printf("skip: this is for a machine with one node and no module\n");
		return 77;
	}
	relocate_is_there = has_move_and_huge_pages();
	if (argc == 1) {
		setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=16384", 1);
		execl("/proc/self/exe", argv[0], "again", NULL);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
