/* SPDX-License-Identifier: MIT */
/*
 * Proves that memory arrives unharmed in every copy mode, up and down, at odd
 * sizes, with holes to fill and with writers beside it; that what a DMA engine
 * does not do the CPU does, and that this is told; that an engine which fails,
 * hangs, answers late or goes away harms nobody. The engine is one in software
 * (tests/kmod/dma), loaded and told how to behave by each case that needs it.
 *
 * Cases change parameters of the module; each begins with the defaults. Beside
 * the main thread there are only writers, which touch their counters alone.
 */
#include "kmod_test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "kmod_param.h"

enum { SEED = 131 };

static const struct {
	enum ferry_copy_mode mode;
	const char *name;
} modes[] = {
	{FERRY_COPY_AUTO, "auto"},
	{FERRY_COPY_CPU, "cpu"},
	{FERRY_COPY_PARALLEL, "parallel"},
	{FERRY_COPY_DMA, "dma"},
};
#define NR_MODES (sizeof(modes) / sizeof(modes[0]))

/* ---- the DMA engine ------------------------------------------------------- */

static long engine_get(const char *name)
{
	return kt_param_number("ferry_test_dma", name);
}

static void engine_set(const char *name, const char *value)
{
	KT_REQUIRE(kt_param_set("ferry_test_dma", name, value) == 0, "%s=%s: %m", name,
		   value);
}

static int engine_unload(void)
{
	return syscall(SYS_delete_module, "ferry_test_dma", O_NONBLOCK) ? -errno : 0;
}

static void engine_unload_soon(void)
{
	int ret = engine_unload();

	for (int i = 0; i < 500 && ret; i++) {
		usleep(10000);
		ret = engine_unload();
	}
	KT_EXPECT(ret == 0, "unloading the DMA engine: %s", strerror(-ret));
}

/* Loads the engine and lets the module use one channel. */
static void engine_load(const char *parameters)
{
	char path[512];
	struct utsname host;
	int fd;

	uname(&host);
	snprintf(path, sizeof(path), "%s/kmod/%s/test_dma/ferry_test_dma.ko",
		 FERRY_BUILD_DIR, host.release);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		kt_skip("%s: %m", path);
	engine_unload(); /* left by a case that failed */
	KT_REQUIRE(syscall(SYS_finit_module, fd, parameters, 0) == 0, "loading %s: %m",
		   path);
	close(fd);
	kt_param_reset();
	kt_ferry_set("dma_channels", "1");
}

static void engine_end(void)
{
	/* -1: not known here; the debug kernel's own checker looks after it then. */
	KT_EXPECT(engine_get("mapped") <= 0, "%ld pages are still mapped",
		  engine_get("mapped"));
	engine_unload_soon();
	kt_param_reset();
}

static bool dma_is_offered(void)
{
	struct ferry_ioc_info info = {.size = sizeof(info)};

	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_INFO, &info), 0);
	return info.features & FERRY_FEATURE_COPY_DMA;
}

/* ---- moving --------------------------------------------------------------- */

static long move(void *mem, size_t len, int node, enum ferry_copy_mode mode,
		 struct ferry_ioc_result *result)
{
	struct kt_request req;
	long ret;

	kt_request_init(&req, mem, len, node);
	req.arg.copy_mode = mode;
	ret = kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &req.arg);
	if (result)
		*result = req.result;
	return ret;
}

/* Up and down again; @fallback: who copies in FERRY_COPY_DMA is the CPU. */
static void there_and_back(size_t pages, enum ferry_copy_mode mode, bool fallback)
{
	const size_t len = pages * kt.page;
	char *mem = kt_alloc_on(len, kt.ddr, SEED);

	for (int round = 0; round < 2; round++) {
		const int node = round ? kt.ddr : kt.hbm;
		struct ferry_ioc_result res;

		KT_EXPECT_EQ(move(mem, len, node, mode, &res), pages);
		KT_EXPECT_RESULT(&res, .moved = pages,
				 .dma_fallback = fallback ? pages : 0);
		KT_EXPECT_ON(mem, len, node);
		KT_EXPECT_DATA(mem, len, SEED);
	}
	munmap(mem, len);
}

static const size_t sizes[] = {1, 2, 3, 15, 17, 63, 200, 512, 513, 1500};

static void every_mode(void)
{
	kt_param_reset();
	kt_ferry_set("workers", "4");
	for (size_t m = 0; m < NR_MODES; m++)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			there_and_back(sizes[i], modes[m].mode,
				       modes[m].mode == FERRY_COPY_DMA);
}

static void without_streaming(void)
{
	kt_param_reset();
	kt_ferry_set("workers", "4");
	if (kt_param_set("ferry", "streaming_copy", "0") != 0)
		kt_skip("no streaming copy here");
	for (size_t m = 0; m < NR_MODES; m++)
		there_and_back(700, modes[m].mode, modes[m].mode == FERRY_COPY_DMA);
	kt_param_reset();
}

/* Every third page is a hole. */
static void holes(enum ferry_copy_mode mode)
{
	const size_t pages = 1000, len = pages * kt.page;
	char *mem = kt_alloc(len), zeros[4096] = {0};
	struct kt_request req;

	for (size_t i = 0; i < pages; i++)
		if (i % 3)
			kt_fill_on(mem + i * kt.page, kt.page, kt.ddr, SEED + i);
	kt_request_init(&req, mem, len, kt.hbm);
	req.arg.copy_mode = mode;
	req.range.flags = FERRY_RANGE_POPULATE;
	KT_EXPECT_EQ(kt_ioctl(kt.fd, FERRY_IOC_MIGRATE, &req.arg), pages);
	KT_EXPECT_EQ(req.result.moved, pages - (pages + 2) / 3);
	KT_EXPECT_EQ(req.result.populated, (pages + 2) / 3);
	KT_EXPECT_ON(mem, len, kt.hbm);
	for (size_t i = 0; i < pages; i++) {
		char *page = mem + i * kt.page;

		if (i % 3)
			KT_EXPECT_DATA(page, kt.page, SEED + i);
		else
			KT_EXPECT(!memcmp(page, zeros, kt.page), "page %zu is not zero",
				  i);
	}
	munmap(mem, len);
}

static void holes_in_every_mode(void)
{
	kt_param_reset();
	kt_ferry_set("workers", "4");
	for (size_t m = 0; m < NR_MODES; m++)
		holes(modes[m].mode);
}

/* ---- writers -------------------------------------------------------------- */

struct writer {
	char *mem;
	size_t pages;
	atomic_bool *stop;
	uint64_t added;
};

static void *write_on(void *arg)
{
	struct writer *w = arg;

	for (size_t i = 0; !atomic_load(w->stop); i++) {
		size_t at = i * 7 % w->pages * kt.page + i % 64 * 64;

		atomic_fetch_add((atomic_uint_fast64_t *)(w->mem + at), 1);
		w->added++;
	}
	return NULL;
}

/* Moves to and fro beside two writers; nothing that they wrote may be lost. */
static void beside_writers(enum ferry_copy_mode mode, unsigned int rounds)
{
	const size_t len = 1ul << 20;
	char *mem = kt_alloc(len);
	atomic_bool stop = false;
	struct writer w[2];
	pthread_t thread[2];
	uint64_t sum = 0;
	long moved = 0;

	memset(mem, 0, len);
	for (int i = 0; i < 2; i++) {
		w[i] = (struct writer){.mem = mem, .pages = len / kt.page, .stop = &stop};
		KT_REQUIRE(pthread_create(&thread[i], NULL, write_on, &w[i]) == 0,
			   "pthread_create");
	}
	for (unsigned int i = 0; i < rounds; i++) {
		long ret = move(mem, len, i % 2 ? kt.ddr : kt.hbm, mode, NULL);

		KT_EXPECT(ret >= 0, "moving beside writers: %ld", ret);
		moved += ret;
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	for (size_t at = 0; at < len; at += 64)
		sum += *(uint64_t *)(mem + at);
	KT_EXPECT_EQ(sum, w[0].added + w[1].added);
	KT_EXPECT(moved > (long)(len / kt.page) / 2, "only %ld pages moved", moved);
	munmap(mem, len);
}

static void writers_in_every_mode(void)
{
	kt_param_reset();
	kt_ferry_set("workers", "4");
	kt_ferry_set("copy_threshold", "4096");
	for (size_t m = 0; m < NR_MODES; m++)
		beside_writers(modes[m].mode, 4);
	kt_param_reset();
}

/* ---- DMA ------------------------------------------------------------------ */

static void by_dma(void)
{
	long copied;

	engine_load("");
	KT_EXPECT(dma_is_offered(), "DMA is not offered");
	copied = engine_get("copied");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		there_and_back(sizes[i], FERRY_COPY_DMA, false);
	KT_EXPECT(engine_get("copied") > copied, "the engine has done nothing");
	engine_set("reverse", "1");
	there_and_back(1500, FERRY_COPY_DMA, false);
	holes(FERRY_COPY_DMA);
	beside_writers(FERRY_COPY_DMA, 4);
	engine_end();
	KT_EXPECT(!dma_is_offered(), "DMA is offered without an engine");
	there_and_back(100, FERRY_COPY_DMA, true);
}

static void not_allowed(void)
{
	engine_load("");
	kt_ferry_set("dma_channels", "0");
	KT_EXPECT(!dma_is_offered(), "DMA is offered though it is off");
	there_and_back(100, FERRY_COPY_DMA, true);
	KT_EXPECT_EQ(engine_get("copied"), 0);
	engine_end();
}

/* FERRY_COPY_AUTO leaves runs below the threshold to the CPU. */
static void threshold(void)
{
	engine_load("");
	kt_ferry_set("copy_threshold", "1048576");
	there_and_back(255, FERRY_COPY_AUTO, false);
	KT_EXPECT_EQ(engine_get("copied"), 0);
	kt_ferry_set("copy_threshold", "65536");
	there_and_back(255, FERRY_COPY_AUTO, false);
	KT_EXPECT(engine_get("copied") > 0, "the engine has done nothing");
	engine_end();
}

static void faults(void)
{
	static const char *const names[] = {"map",  "prep",  "submit",
					    "read", "write", "residue"};
	const size_t pages = 1024, len = pages * kt.page;

	engine_load("");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char *mem = kt_alloc_on(len, kt.ddr, SEED);
		struct ferry_ioc_result res;
		long counted = kt_stat("dma_fallback"), happened = engine_get("faults");

		if (!strcmp(names[i], "map") && engine_get("mapped") < 0)
			continue; /* this kernel's drivers cannot refuse to map */
		engine_set("fault", names[i]);
		engine_set("every", "1"); /* nothing goes well */
		KT_EXPECT_EQ(move(mem, len, kt.hbm, FERRY_COPY_DMA, &res), pages);
		KT_EXPECT_RESULT(&res, .moved = pages, .dma_fallback = pages);
		KT_EXPECT_EQ(kt_stat("dma_fallback") - counted, pages);
		KT_EXPECT(engine_get("faults") > happened, "no fault %s", names[i]);
		KT_EXPECT_ON(mem, len, kt.hbm);
		KT_EXPECT_DATA(mem, len, SEED);

		engine_set("every", "3"); /* some things do */
		KT_EXPECT_EQ(move(mem, len, kt.ddr, FERRY_COPY_DMA, &res), pages);
		KT_EXPECT(res.dma_fallback > 0, "no fallback at %s", names[i]);
		KT_EXPECT_ON(mem, len, kt.ddr);
		KT_EXPECT_DATA(mem, len, SEED);
		beside_writers(FERRY_COPY_DMA, 2);
		KT_EXPECT(dma_is_offered(), "%s ended DMA", names[i]);
		munmap(mem, len);
	}
	engine_set("fault", "none");
	there_and_back(1024, FERRY_COPY_DMA, false);
	engine_end();
}

/* The engine is stopped, and the CPU copies. */
static void hangs(void)
{
	engine_load("");
	engine_set("fault", "hang");
	there_and_back(300, FERRY_COPY_DMA, true);
	KT_EXPECT(engine_get("faults") > 0, "nothing hung");
	KT_EXPECT(!dma_is_offered(), "an engine that hangs is offered");
	engine_set("fault", "none");
	kt_ferry_set("dma_channels", "1");
	KT_EXPECT(dma_is_offered(), "DMA does not come back");
	there_and_back(300, FERRY_COPY_DMA, false);
	engine_set("fault", "hang");
	engine_set("every", "2");
	beside_writers(FERRY_COPY_DMA, 4);
	engine_end();
}

/* An engine that answers in the end, if not all within half a second, is not dead. */
static void slow(void)
{
	const size_t pages = 64, len = pages * kt.page;
	char *mem = kt_alloc(len);
	struct ferry_ioc_result res;

	/* In an order in which no frame follows the one before: a descriptor each. */
	for (size_t i = 0; i < pages; i++)
		kt_fill_on(mem + i * 7 % pages * kt.page, kt.page, kt.ddr, SEED);
	engine_load("");
	engine_set("delay_ms", "100");
	engine_set("every", "4");
	engine_set("fault", "slow");
	KT_EXPECT_EQ(move(mem, len, kt.hbm, FERRY_COPY_DMA, &res), pages);
	KT_EXPECT_RESULT(&res, .moved = pages);
	KT_EXPECT(engine_get("faults") >= 10, "only %ld descriptors",
		  engine_get("faults"));
	KT_EXPECT(dma_is_offered(), "an engine that is slow is not offered");
	KT_EXPECT_ON(mem, len, kt.hbm);
	for (size_t i = 0; i < pages; i++)
		KT_EXPECT_DATA(mem + i * kt.page, kt.page, SEED);
	engine_end();
}

/* The engine cannot be stopped: what it writes at last must hit nobody. */
static void hangs_for_good(void)
{
	const size_t pages = 300, len = pages * kt.page;
	char *mem;
	struct ferry_ioc_result res;

	engine_load("terminable=0");
	mem = kt_alloc_on(len, kt.ddr, SEED);
	engine_set("fault", "hang");
	KT_EXPECT_EQ(move(mem, len, kt.hbm, FERRY_COPY_DMA, &res), pages);
	KT_EXPECT_RESULT(&res, .moved = pages, .dma_fallback = pages);
	KT_EXPECT_ON(mem, len, kt.hbm);
	KT_EXPECT_DATA(mem, len, SEED);
	KT_EXPECT(engine_unload() != 0, "the engine could be unloaded at work");
	/* Whoever gets memory now must not get what the engine writes to. */
	char *other = kt_alloc_on(16ul << 20, kt.hbm, SEED + 1);

	kt_fill(mem, len, SEED + 2);
	engine_set("fault", "none");
	engine_set("answer", "1");
	KT_EXPECT_DATA(mem, len, SEED + 2);
	KT_EXPECT_DATA(other, 16ul << 20, SEED + 1);
	for (int i = 0; i < 500 && engine_get("mapped") > 0; i++)
		usleep(10000);
	engine_end();
}

static void *move_to_and_fro(void *arg)
{
	struct writer *w = arg;

	for (int i = 0; !atomic_load(w->stop); i++) {
		long ret = move(w->mem, w->pages * kt.page, i % 2 ? kt.ddr : kt.hbm,
				FERRY_COPY_DMA, NULL);

		KT_EXPECT(ret >= 0, "moving while the engine goes: %ld", ret);
		w->added++;
	}
	return NULL;
}

/* The engine carries out something from now on, or @what has failed. */
static void engine_works(const char *what)
{
	const long copied = engine_get("copied");

	for (int i = 0; i < 1000 && engine_get("copied") == copied; i++)
		usleep(10000);
	KT_EXPECT(engine_get("copied") > copied, "the engine does nothing %s", what);
}

/* The driver is unbound at work, several times. */
static void goes_away(void)
{
#define DRIVER "/sys/bus/platform/drivers/ferry_test_dma/"
	const size_t pages = 1024, len = pages * kt.page;
	atomic_bool stop = false;
	struct writer w = {
		.mem = kt_alloc_on(len, kt.ddr, SEED), .pages = pages, .stop = &stop};
	pthread_t thread;

	engine_load("");
	engine_set("delay_ms", "5");
	engine_set("fault", "slow");
	KT_REQUIRE(pthread_create(&thread, NULL, move_to_and_fro, &w) == 0,
		   "pthread_create");
	for (int i = 0; i < 4; i++) {
		engine_works("before it goes");
		KT_EXPECT(kt_write_file(DRIVER "unbind", "ferry_test_dma"), "unbind: %m");
		usleep(50000);
		KT_EXPECT(kt_write_file(DRIVER "bind", "ferry_test_dma"), "bind: %m");
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	KT_EXPECT(w.added > 1, "it did not move on");
	KT_EXPECT_DATA(w.mem, len, SEED);
	engine_set("fault", "none");
	kt_ferry_set("dma_channels", "1");
	there_and_back(500, FERRY_COPY_DMA, false);
	engine_end();
}

static const struct kt_case cases[] = {
	KT_CASE(every_mode),
	KT_CASE(without_streaming),
	KT_CASE(holes_in_every_mode),
	KT_CASE(writers_in_every_mode),
	KT_CASE(by_dma),
	KT_CASE(not_allowed),
	KT_CASE(threshold),
	KT_CASE(faults),
	KT_CASE(hangs),
	KT_CASE(slow),
	KT_CASE(hangs_for_good),
	KT_CASE(goes_away),
};

KT_MAIN(cases)
