/* SPDX-License-Identifier: MIT */
/*
 * The fuzzer of the kernel module's contract: random requests by ioctl and
 * io_uring while the memory they work on is mapped, unmapped, protected, forked,
 * locked and moved by others, with what must not change checked throughout.
 *
 * FERRY_FUZZ_SECONDS: how long (20). FERRY_FUZZ_SEED: where to begin; round n
 * has the seed that many further on, and what a thread does depends on the seed
 * alone, but not how threads meet. The last lines say what has been reached; if
 * an error of the contract or a kind of outcome has not been, the test fails.
 */
#include "fuzz.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#define CGROUP  "/sys/fs/cgroup"
#define CPUSET  CGROUP "/ferry-fuzz"
#define FLUSH   "/sys/module/ferry/parameters/batched_flush"
#define HUGETLB "/proc/sys/vm/nr_hugepages"

enum {
	KINDS = 6,        /* of rounds, see round_init() */
	ROUND_MS = 2000,  /* of fuzzing in a round, more where the kernel is slow */
	ROUND_LIMIT = 60, /* seconds: a round that takes longer hangs */
};

struct fz_cover *fz_cover;
struct fz_round fz_round;
static bool have_cpuset;

uint64_t fz_random(struct fz_rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static uint64_t number(const char *name, uint64_t standard)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : standard;
}

/* ---- a round --------------------------------------------------------------------- */

/* Consecutive seeds are of different kinds, so that few rounds have them all. */
static void round_init(uint64_t seed)
{
	const uint64_t kind = seed % KINDS;

	fz_round = (struct fz_round){
		.seed = seed,
		.in_cpuset = kind == 1 && have_cpuset,
		.unprivileged = kind == 2 || kind == 5,
		.killed = kind == 3,
		.full = kind == 4,
		.sqpoll = kind == 5,
		.foreign = kt_open(),
	};
	KT_REQUIRE(fz_round.foreign >= 0, "%s: %m", FERRY_DEVICE_PATH);
}

static bool cpuset_make(void)
{
	char text[16];

	if (!kt_write_file(CGROUP "/cgroup.subtree_control", "+cpuset") ||
	    (mkdir(CPUSET, 0755) != 0 && errno != EEXIST))
		return false;
	snprintf(text, sizeof(text), "%d", kt.ddr);
	return kt_write_file(CPUSET "/cpuset.mems", text);
}

static void drop_privilege(void)
{
	KT_REQUIRE(setgroups(0, NULL) == 0 && setresgid(65534, 65534, 65534) == 0 &&
			   setresuid(65534, 65534, 65534) == 0,
		   "setresuid: %m");
}

static void on_signal(int signal)
{
	(void)signal;
}

/* Interrupts the threads now and then, so that requests end early. */
static void interrupt(pthread_t *thread, size_t nr, struct fz_rng *rng)
{
	if (fz_once_in(rng, 4))
		pthread_kill(thread[fz_below(rng, nr)], SIGUSR1);
}

static _Noreturn void round_child(void)
{
	static void *(*const run[])(void *) = {fz_by_ioctl, fz_by_ioctl, fz_by_uring,
					       fz_change};
	enum { THREADS = sizeof(run) / sizeof(run[0]) };
	struct fz_rng rng[THREADS + 1] = {0};
	struct sigaction action = {.sa_handler = on_signal};
	pthread_t thread[THREADS];
	const uint64_t fuzzing = ROUND_MS * 1000ULL * kt_slowness();
	uint64_t began;

	alarm(ROUND_LIMIT * kt_slowness());
	sigaction(SIGUSR1, &action, NULL); /* system calls are not begun anew */
	for (size_t i = 0; i <= THREADS; i++) {
		rng[i].state = fz_round.seed * 64 + i;
		rng[i].state = fz_random(&rng[i]);
	}
	if (fz_round.in_cpuset)
		KT_REQUIRE(kt_write_file(CPUSET "/cgroup.procs", "0"), "the cpuset: %m");
	if (fz_round.unprivileged)
		drop_privilege();
	kt.fd = kt_open();
	KT_REQUIRE(kt.fd >= 0, "%s: %m", FERRY_DEVICE_PATH);
	fz_requests_init();
	fz_memory_init(&rng[THREADS]);
	if (fz_round.full)
		fz_fill_hbm();

	for (size_t i = 0; i < THREADS; i++)
		KT_REQUIRE(pthread_create(&thread[i], NULL, run[i], &rng[i]) == 0,
			   "no thread");
	began = kt_now_us();
	while (kt_now_us() - began < fuzzing && !kt_failures()) {
		fz_keep(&rng[THREADS]);
		interrupt(thread, THREADS - 1, &rng[THREADS]);
	}
	if (fz_round.killed) {
		fz_check_kept();
		if (!kt_failures())
			kill(getpid(), SIGKILL);
	}
	atomic_store(&fz_round.stop, true);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	fz_check_kept();
	kt_child_end();
}

/* Returns whether the round went as it must. */
static bool round_run(uint64_t seed)
{
	int status, expected;
	pid_t pid;

	round_init(seed);
	kt_write_file(FLUSH, fz_round.seed / KINDS % 2 ? "N" : "Y");
	pid = kt_fork();
	if (pid == 0)
		round_child();
	status = kt_wait(pid);
	close(fz_round.foreign);
	expected = fz_round.killed ? 128 + SIGKILL : 0;
	return KT_EXPECT(
		status == expected,
		"the round of seed %llu ended with %d%s; again by FERRY_FUZZ_SEED=%llu",
		(unsigned long long)seed, status,
		status == 128 + SIGALRM ? ": it hung" : "", (unsigned long long)seed);
}

/* ---- the verdict ----------------------------------------------------------------- */

/* Has all been reached that can be? Says what has been, and fails if told to. */
static bool covered(bool say)
{
	static const char *const op[] = {"MIGRATE", "QUERY", "SCAN", "INFO"};
	static const char *const outcome[] = {"moved",       "populated", "already",
					      "busy",        "nomem",     "hole",
					      "unsupported", "huge"};
	bool all = true;

	for (int i = 0; i < FZ_OTHER; i++) {
		unsigned long n = fz_cover->success[i],
			      uring = fz_cover->success_uring[i];
		bool reached = n && (uring || i == FZ_INFO);

		all &= reached;
		if (say)
			printf("    %-11s %lu by ioctl, %lu by io_uring\n", op[i], n,
			       uring);
		KT_EXPECT(reached || !say, "%s was not reached", op[i]);
	}
	for (int i = 0; i < FZ_NR_ERRNOS; i++) {
		unsigned long n = fz_cover->error[i];
		/* No memory: only where the kernel is told to fail. */
		bool needed = i != FZ_ENOMEM && (i != FZ_EACCES || have_cpuset);

		all &= n || !needed;
		if (say)
			printf("    %-11s %lu\n", fz_errno_names[i].name, n);
		KT_EXPECT(n || !needed || !say, "%s was not reached",
			  fz_errno_names[i].name);
	}
	for (int i = 0; i < FZ_NR_OUTCOMES; i++) {
		unsigned long n = fz_cover->outcome[i];

		all &= n > 0;
		if (say)
			printf("    %-11s %lu pages\n", outcome[i], n);
		KT_EXPECT(n || !say, "no page was %s", outcome[i]);
	}
	if (say)
		printf("    %lu changes of memory, %lu forks, %lu pages checked\n",
		       atomic_load(&fz_cover->changes), atomic_load(&fz_cover->forks),
		       atomic_load(&fz_cover->checks));
	return all;
}

static void fuzz(void)
{
	const uint64_t limit = number("FERRY_FUZZ_SECONDS", 20) * 1000000;
	uint64_t seed, began = kt_now_us(), rounds = 0;
	char flush[8] = "Y", hugetlb[32] = "0";

	alarm(0); /* each round has its own */
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = began;
	seed = number("FERRY_FUZZ_SEED", seed % 1000000000);
	printf("    FERRY_FUZZ_SEED=%llu\n", (unsigned long long)seed);
	fz_cover = mmap(NULL, sizeof(*fz_cover), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	KT_REQUIRE(fz_cover != MAP_FAILED, "mmap: %m");
	have_cpuset = cpuset_make();
	kt_read_file(FLUSH, flush, sizeof(flush));
	kt_read_file(HUGETLB, hugetlb, sizeof(hugetlb));
	kt_write_file(HUGETLB, "4");
	chmod(FERRY_DEVICE_PATH, 0666);

	/*
	 * On a busy machine it goes on until all is reached, six times as long at most;
	 * on a kernel that is slow itself, as many times that as it is slower.
	 */
	while (!kt_failures()) {
		uint64_t took = kt_now_us() - began;

		if (took >= 6 * limit * kt_slowness() ||
		    (took >= limit && rounds >= KINDS && covered(false)))
			break;
		if (!round_run(seed + rounds))
			break;
		rounds++;
	}
	printf("    %llu rounds in %llu s\n", (unsigned long long)rounds,
	       (unsigned long long)(kt_now_us() - began) / 1000000);
	covered(!kt_failures());
	kt_write_file(FLUSH, flush);
	kt_write_file(HUGETLB, hugetlb);
	rmdir(CPUSET);
}

static const struct kt_case cases[] = {
	KT_CASE(fuzz),
};

KT_MAIN(cases)
