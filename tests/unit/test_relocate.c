/* SPDX-License-Identifier: MIT */
/*
 * Proves of relocation: data and huge pages are kept, with writers running; what cannot
 * be moved stays; who holds it back need not wait for long; small pages that fill a
 * granule can be made a huge one, before or as they move.
 */
#include "relocate_test.h"

#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "fault/uffd.h"
#include "migrate/collapse.h"

#include "forgotten_move.h"

static int vmas(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	int n = 0, c;

	CHECK(file);
	while ((c = getc(file)) != EOF)
		n += c == '\n';
	fclose(file);
	return n;
}

static void moves(void)
{
	char *mem = map_granules();
	int before;

	/* What is moved first may divide the staging area. */
	move(mem, GRANULES);
	before = vmas();
	for (int i = 0; i < 20; i++) {
		uint64_t was = frame(mem);

		CHECK(move(mem, GRANULES) == (1U << GRANULES) - 1);
		CHECK(!was || frame(mem) != was);
		CHECK(!wrong(mem, 0, LEN));
		for (size_t k = 0; k < GRANULES; k++)
			CHECK(relocate_is_huge((uintptr_t)mem + k * GRANULE_BYTES));
	}
	CHECK(vmas() == before);
}

/* Nothing is lost that was moved, out or back, while the kernel says that it was not. */
static void forgotten(void)
{
	char *mem = map_granules();

	for (unsigned int nth = 1; nth <= 2; nth++) {
		forget_move(nth);
		move(mem, 1);
		CHECK(!wrong(mem, 0, LEN));
	}
}

/* ---- beside it ----------------------------------------------------------- */

/* How often a page's first word was counted up. */
static atomic_uint_fast64_t counted;

static void *count_up(void *unused)
{
	while (!atomic_load(&beside.stop)) {
		for (size_t at = 0; at < LEN; at += PAGE_BYTES)
			atomic_fetch_add((_Atomic uint64_t *)(beside.mem + at), 1);
		counted++;
	}
	return unused;
}

static void writers(void)
{
	pthread_t thread;

	beside.mem = map_granules();
	CHECK(!pthread_create(&thread, NULL, count_up, NULL));
	/* On a busy machine the thread may come late. */
	for (int i = 0; i < 100 || !counted; i++)
		CHECK(move(beside.mem, GRANULES) == (1U << GRANULES) - 1);
	atomic_store(&beside.stop, true);
	pthread_join(thread, NULL);
	for (size_t at = 0; at < LEN; at += PAGE_BYTES)
		CHECK(*(uint64_t *)(beside.mem + at) ==
		      pattern(at / sizeof(uint64_t)) + counted);
}

/* Two copiers that want the same memory. */
static void same_memory(void)
{
	char *mem = map_granules();
	pthread_t thread = start_moving(mem);

	for (int i = 0; i < 100; i++) {
		move(mem + GRANULE_BYTES, 2);
		CHECK(!wrong(mem, 0, LEN));
	}
	end_moving(thread);
	CHECK(!wrong(mem, 0, LEN));
}

static void *move_once(void *mem)
{
	while (!atomic_load(&beside.stop))
		sched_yield();
	atomic_store(&beside.stop, false);
	beside.rounds = move(mem, GRANULES);
	return NULL;
}

/* How many granules have moved while a run of them was held back once. */
static size_t moved_before_held(char *mem)
{
	uint64_t was[GRANULES];
	pthread_t thread;
	size_t moved = 0;

	for (size_t i = 0; i < GRANULES; i++)
		was[i] = frame(mem + i * GRANULE_BYTES);
	CHECK(!pthread_create(&thread, NULL, move_once, mem));
	atomic_store(&beside.stop, true);
	while (frame(mem) == was[0])
		;
	windows_hold();
	for (size_t i = 0; i < GRANULES; i++)
		moved += frame(mem + i * GRANULE_BYTES) != was[i];
	windows_release();
	pthread_join(thread, NULL);
	CHECK(beside.rounds == (1U << GRANULES) - 1);
	CHECK(!wrong(mem, 0, LEN));
	return moved;
}

/* Who holds windows back, for fork(2), is let in between two granules of a run. */
static void held_back(void)
{
	char *mem = map_granules();
	size_t moved = GRANULES;

	if (!frame(mem))
		_exit(77);
	/* This thread may come late. */
	for (int i = 0; another(i, 1000) && moved == GRANULES; i++)
		moved = moved_before_held(mem);
	CHECK(moved > 0 && moved < GRANULES);
}

/* ---- what stays ---------------------------------------------------------- */

static void pinned(void)
{
	char *mem = map_granules();
	struct iovec iov = {mem + GRANULE_BYTES + 9 * PAGE_BYTES, PAGE_BYTES};
	uint64_t was = frame(mem + GRANULE_BYTES);
	struct io_uring ring;

	if (io_uring_queue_init(2, &ring, 0))
		_exit(77);
	CHECK(!io_uring_register_buffers(&ring, &iov, 1));
	CHECK(move(mem, GRANULES) == 0xd);
	CHECK(frame(mem + GRANULE_BYTES) == was);
	CHECK(!wrong(mem, 0, LEN));
	CHECK(!io_uring_unregister_buffers(&ring));
	for (int i = 0; i < 1000 && !move(mem + GRANULE_BYTES, 1); i++)
		usleep(1000);
	CHECK(!was || frame(mem + GRANULE_BYTES) != was);
	CHECK(!wrong(mem, 0, LEN));
}

/* Small pages of which one is pinned: those before it come back, and leave nothing. */
static void partly(void)
{
	char *mem = map_granules(), *small = mem + GRANULE_BYTES;
	struct iovec iov = {small + PAGE_BYTES, PAGE_BYTES};
	struct io_uring ring;

	CHECK(!madvise(small, GRANULE_BYTES, MADV_DONTNEED));
	CHECK(!madvise(small, GRANULE_BYTES, MADV_NOHUGEPAGE));
	for (size_t i = WORDS; i < 2 * WORDS; i++)
		((uint64_t *)mem)[i] = pattern(i);
	if (io_uring_queue_init(2, &ring, 0))
		_exit(77);
	CHECK(!io_uring_register_buffers(&ring, &iov, 1));
	for (int i = 0; i < 20; i++) {
		CHECK(move(mem, GRANULES) == 0xd);
		CHECK(!wrong(mem, 0, LEN));
	}
}

static void shared_with_a_child(void)
{
	char *mem = map_granules();
	int fd[2];
	pid_t pid;

	CHECK(!pipe(fd));
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		char c;

		close(fd[1]);
		(void)!read(fd[0], &c, 1);
		_exit(wrong(mem, 0, LEN) > 0);
	}
	CHECK(move(mem, GRANULES) == 0);
	CHECK(!wrong(mem, 0, LEN));
	close(fd[0]);
	close(fd[1]);
	CHECK(waitpid(pid, &fd[0], 0) == pid && !fd[0]);
}

/* Whole pages of the kernel's choice, and what is registered by somebody else. */
static void left_alone(void)
{
	char *mem = map_granules();
	int other = uffd_open(0);
	uint32_t moved = 0;

	CHECK(!mprotect(mem, GRANULE_BYTES, PROT_READ));
	/* The sanitizers' mlock() does nothing. */
	CHECK(!syscall(SYS_mlock, mem + GRANULE_BYTES, GRANULE_BYTES));
	CHECK(!madvise(mem + 2 * GRANULE_BYTES, GRANULE_BYTES, MADV_DONTNEED));
	/* It is tried again, for the kernel may have no huge page at the moment. */
	for (int i = 0; i < 50 && !moved; i++)
		moved = move(mem, GRANULES);
	CHECK(moved == 0x8);
	CHECK(!wrong(mem, 0, 2 * GRANULE_BYTES));
	CHECK(mem[2 * GRANULE_BYTES] == 0);
	CHECK(!wrong(mem + 3 * GRANULE_BYTES, 3 * GRANULE_BYTES, GRANULE_BYTES));
	CHECK(other >= 0);
	CHECK(!uffd_register(other, (uintptr_t)mem + 3 * GRANULE_BYTES, GRANULE_BYTES));
	CHECK(move(mem + 3 * GRANULE_BYTES, 1) == 0);
	CHECK(!wrong(mem + 3 * GRANULE_BYTES, 3 * GRANULE_BYTES, GRANULE_BYTES));
}

/* A full granule of small pages becomes huge, unless it is held or advised against. */
static void small_pages(void)
{
	char *mem = map_granules(), *held = mem + GRANULE_BYTES,
	     *hole = mem + 2 * GRANULE_BYTES, *against = mem + 3 * GRANULE_BYTES;
	struct iovec iov = {held + 9 * PAGE_BYTES, PAGE_BYTES};
	int fd[2];

	CHECK(!madvise(mem, LEN, MADV_DONTNEED) && !madvise(mem, LEN, MADV_NOHUGEPAGE));
	for (size_t i = 0; i < GRANULES * WORDS; i++)
		((uint64_t *)mem)[i] = pattern(i);
	CHECK(!madvise(mem, LEN - GRANULE_BYTES, MADV_HUGEPAGE));
	CHECK(!pipe(fd) && vmsplice(fd[1], &iov, 1, 0) == (ssize_t)PAGE_BYTES);
	CHECK(!madvise(hole + 5 * PAGE_BYTES, PAGE_BYTES, MADV_DONTNEED));
	for (char *at = mem; at < mem + LEN; at += GRANULE_BYTES) {
		CHECK(!relocate_is_huge((uintptr_t)at));
		CHECK(relocate_is_full((uintptr_t)at) == (at != hole));
	}
	CHECK(hole[5 * PAGE_BYTES] == 0); /* the zero page is a hole too */
	CHECK(!relocate_is_full((uintptr_t)hole));
	/* It is tried again, for the kernel may have no huge page at the moment. */
	for (int i = 0; i < 50 && !relocate_is_huge((uintptr_t)mem); i++)
		collapse((uintptr_t)mem, 2 * GRANULE_BYTES);
	collapse((uintptr_t)against, GRANULE_BYTES);
	CHECK(relocate_is_huge((uintptr_t)mem));
	CHECK(!relocate_is_huge((uintptr_t)held));
	CHECK(!relocate_is_huge((uintptr_t)against));
	CHECK(relocate_is_full((uintptr_t)mem));
	CHECK(move(mem, 1) == 1);
	CHECK(!wrong(mem, 0, 2 * GRANULE_BYTES));
	CHECK(wrong(mem, 0, LEN) == PAGE_BYTES / sizeof(uint64_t));
}

/* ---- small pages that move ----------------------------------------------- */

/*
 * In place of a preload library's, whose lock fork(2) may hold while it waits for windows
 * to close: relocation must not call it.
 */
void *mremap(void *addr, size_t len, size_t new_len, int flags, ...)
{
	(void)addr, (void)len, (void)new_len, (void)flags;
	errno = EDEADLK;
	return MAP_FAILED;
}

/* They become huge pages, and so do those that are parts of one. */
static void small_moves(void)
{
	char *mem;

	/* Where huge pages can be, on every kernel so far. */
	CHECK(relocate_can_small());
	mem = map_small();
	for (int i = 0; i < 20; i++) {
		uint64_t was = frame(mem);
		uint32_t moved = 0;

		/* It is tried again, for the kernel may have no huge page at the moment.
		 */
		for (int k = 0; k < 50 && moved != (1U << GRANULES) - 1; k++)
			moved |= move_small(mem, GRANULES);
		CHECK(moved == (1U << GRANULES) - 1);
		CHECK(!was || frame(mem) != was);
		CHECK(!wrong(mem, 0, LEN));
		for (size_t k = 0; k < GRANULES; k++) {
			CHECK(relocate_is_huge((uintptr_t)mem + k * GRANULE_BYTES));
			split(mem + k * GRANULE_BYTES);
			CHECK(!relocate_is_huge((uintptr_t)mem + k * GRANULE_BYTES));
		}
	}
}

static void small_forgotten(void)
{
	for (unsigned int nth = 1; nth <= 2; nth++) {
		char *mem = map_small();

		forget_move(nth);
		move_small(mem, 1);
		CHECK(!wrong(mem, 0, LEN));
	}
}

static void small_writers(void)
{
	pthread_t writer, mover;

	mover = start_moving_small(map_small());
	beside.rounds = 0;
	CHECK(!pthread_create(&writer, NULL, count_up, NULL));
	for (int i = 0; another(i, 100); i++)
		usleep(10000);
	end_moving(mover);
	pthread_join(writer, NULL);
	for (size_t at = 0; at < LEN; at += PAGE_BYTES)
		CHECK(*(uint64_t *)(beside.mem + at) ==
		      pattern(at / sizeof(uint64_t)) + counted);
	CHECK(counted > 0 && beside.rounds > 0);
}

/* A page that is held keeps its granule where and as it is. */
static void small_stay(void)
{
	char *mem = map_small(), *held = mem + GRANULE_BYTES;
	struct iovec iov = {held + 9 * PAGE_BYTES, PAGE_BYTES};
	uint64_t was = frame(held);
	struct io_uring ring;

	if (io_uring_queue_init(2, &ring, 0))
		_exit(77);
	CHECK(!io_uring_register_buffers(&ring, &iov, 1));
	for (int i = 0; i < 20; i++)
		CHECK(!(move_small(held, 1)));
	CHECK(frame(held) == was && !relocate_is_huge((uintptr_t)held));
	CHECK(!wrong(mem, 0, LEN));
	CHECK(!io_uring_unregister_buffers(&ring));
	for (int i = 0; i < 1000 && !relocate_is_huge((uintptr_t)held); i++) {
		move_small(held, 1);
		usleep(1000);
	}
	CHECK(relocate_is_huge((uintptr_t)held));
	CHECK(!wrong(mem, 0, LEN));
}

/* Where the page table cannot be taken away, small pages stay as they are. */
static void small_no_room(void)
{
	char *mem = map_small();
	struct rlimit all, none = {PAGE_BYTES, RLIM_INFINITY};

#ifdef __SANITIZE_THREAD__
	_exit(77); /* it needs memory itself */
#endif
	/* The rest of what is mapped by then is what there may be. */
	CHECK(move_small(mem, 1) == 1);
	CHECK(!getrlimit(RLIMIT_DATA, &all));
	none.rlim_max = all.rlim_max;
	CHECK(!setrlimit(RLIMIT_DATA, &none));
	for (int i = 0; i < 20; i++)
		CHECK(!move_small(mem + GRANULE_BYTES, GRANULES - 1));
	CHECK(!wrong(mem, 0, LEN));
	CHECK(!relocate_is_huge((uintptr_t)mem + GRANULE_BYTES));
	CHECK(!setrlimit(RLIMIT_DATA, &all));
	for (int i = 0; i < 50 && !relocate_is_huge((uintptr_t)mem + GRANULE_BYTES); i++)
		move_small(mem + GRANULE_BYTES, 1);
	CHECK(relocate_is_huge((uintptr_t)mem + GRANULE_BYTES));
	CHECK(!wrong(mem, 0, LEN));
}

CASE(moves)
CASE(forgotten)
CASE(writers)
CASE(same_memory)
CASE(held_back)
CASE(pinned)
CASE(partly)
CASE(shared_with_a_child)
CASE(left_alone)
CASE(small_pages)
CASE(small_moves)
CASE(small_forgotten)
CASE(small_writers)
CASE(small_stay)
CASE(small_no_room)

/* An argument names the tests to run, as a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_forgotten),
		cmocka_unit_test(test_writers),
		cmocka_unit_test(test_same_memory),
		cmocka_unit_test(test_held_back),
		cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_partly),
		cmocka_unit_test(test_shared_with_a_child),
		cmocka_unit_test(test_left_alone),
		cmocka_unit_test(test_small_pages),
		cmocka_unit_test(test_small_moves),
		cmocka_unit_test(test_small_forgotten),
		cmocka_unit_test(test_small_writers),
		cmocka_unit_test(test_small_stay),
		cmocka_unit_test(test_small_no_room),
	};

	if (!relocate_available())
		return 77;
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
