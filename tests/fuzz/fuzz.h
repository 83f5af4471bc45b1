/* SPDX-License-Identifier: MIT */
/*
 * The fuzzer of the kernel module's contract, in four parts:
 *   fuzz_kmod.c     seeds, rounds, threads, the verdict
 *   fuzz_request.c  random requests, and the errors the contract has for them
 *   fuzz_submit.c   handing them in by ioctl and io_uring, and checking the answers
 *   fuzz_memory.c   the memory they work on, how it changes, what must be in it
 *
 * A round is a process of its own. Its threads share struct fz_round, which does
 * not change while they run, and the counters of struct fz_cover, which all
 * rounds share and are atomic. All else belongs to one thread.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kmod_test.h"

/* ---- chance ------------------------------------------------------------- */

struct fz_rng {
	uint64_t state;
};

uint64_t fz_random(struct fz_rng *rng);
/* A number below @n. */
static inline uint64_t fz_below(struct fz_rng *rng, uint64_t n)
{
	return fz_random(rng) % n;
}
/* True once in @n times. */
static inline bool fz_once_in(struct fz_rng *rng, uint64_t n)
{
	return fz_below(rng, n) == 0;
}

/* ---- what has been reached ------------------------------------------------ */

/* The errors of the contract, as bits of a set. */
enum fz_errno {
	FZ_E2BIG,
	FZ_EINVAL,
	FZ_EFAULT,
	FZ_ENODEV,
	FZ_EACCES,
	FZ_EPERM,
	FZ_EOPNOTSUPP,
	FZ_ENOSPC,
	FZ_ENOTTY,
	FZ_EINTR,
	FZ_ECANCELED,
	FZ_ENOMEM,
	FZ_NR_ERRNOS
};
#define FZ_SET(e) (1U << FZ_##e)

extern const struct fz_errno_name {
	int value;
	const char *name;
} fz_errno_names[FZ_NR_ERRNOS];

enum fz_outcome {
	FZ_MOVED,
	FZ_POPULATED,
	FZ_ALREADY,
	FZ_BUSY,
	FZ_NOMEM,
	FZ_HOLE,
	FZ_UNSUPPORTED,
	FZ_HUGE,
	FZ_NR_OUTCOMES
};

enum fz_op { FZ_MIGRATE, FZ_QUERY, FZ_SCAN, FZ_INFO, FZ_OTHER, FZ_NR_OPS };

struct fz_cover {
	atomic_ulong success[FZ_NR_OPS]; /* by ioctl */
	atomic_ulong success_uring[FZ_NR_OPS];
	atomic_ulong error[FZ_NR_ERRNOS];
	atomic_ulong outcome[FZ_NR_OUTCOMES]; /* pages */
	atomic_ulong changes, forks, checks;
};
extern struct fz_cover *fz_cover;

/* ---- a round ---------------------------------------------------------------- */

struct fz_round {
	uint64_t seed;
	bool in_cpuset;    /* without the HBM node */
	bool unprivileged; /* without CAP_SYS_NICE */
	bool killed;       /* ends by SIGKILL, with requests in flight */
	bool full;         /* the HBM node has hardly any memory */
	bool sqpoll;       /* io_uring takes submissions from a thread of its own */
	int foreign;       /* the device, opened by another process */
	atomic_bool stop;
};
extern struct fz_round fz_round;

static inline bool fz_stopped(void)
{
	return atomic_load_explicit(&fz_round.stop, memory_order_relaxed) ||
	       kt_failures();
}

/* ---- memory ------------------------------------------------------------------ */

/*
 * The zones lie far apart, below everything else, so that a request that runs
 * over an end meets nothing, and nothing else is mapped where one was unmapped.
 */
enum fz_zone {
	FZ_KEPT,   /* what is in it must not change but by its owner */
	FZ_TAGGED, /* mapped and unmapped; each word holds its own tag, or 0 */
	FZ_WILD,   /* mapped as anything; the module may write to it */
	FZ_NR_ZONES
};
#define FZ_ZONE_LEN (8UL << 20)

static inline char *fz_zone(enum fz_zone zone)
{
	return (char *)(0x100000000000UL + ((unsigned long)zone << 28));
}

/* Maps and fills the zones; before any thread is started. */
void fz_memory_init(struct fz_rng *rng);
/* Changes the tagged and the wild zone until the round ends; a thread. */
void *fz_change(void *rng);
/* Changes the kept zone without harm and checks it; returns after a short while. */
void fz_keep(struct fz_rng *rng);
/* Checks all that is kept, with no other thread running. */
void fz_check_kept(void);
/* Leaves the HBM node full. */
void fz_fill_hbm(void);

/* ---- requests ------------------------------------------------------------------ */

#define FZ_BUFFER (8UL << 20)

/*
 * A request with what it points to, and what may become of it. It stays as it is
 * until the request has ended.
 */
struct fz_request {
	enum fz_op op;
	unsigned int cmd;  /* FERRY_IOC_*, or some other number */
	void *arg;         /* passed to the module */
	bool foreign;      /* by the device of another process */
	bool bad_uring;    /* the command's reserved field is set */
	uint8_t *in, *out; /* FZ_BUFFER bytes each */
	uint8_t *edge[2];  /* two pages, and none behind them, for each struct */
	struct ferry_ioc_migrate migrate; /* as the module understands it */
	struct ferry_ioc_query query;
	struct ferry_ioc_scan scan;
	const struct ferry_ioc_range *ranges; /* as the module understands them */
	size_t out_bytes;                     /* of @out that may be written */
	bool out_kept;     /* the answer goes to @out, where nobody else writes */
	bool wild;         /* points to memory that changes: any error may come */
	unsigned int must; /* FZ_SET()s: fails with one of these or of @may */
	unsigned int may;
};

/* Has all requests ready; before any thread is started. */
void fz_requests_init(void);
/* A new one in place of what was there */
void fz_request_make(struct fz_request *req, struct fz_rng *rng);

/* Checks what the module returned. */
void fz_request_check(const struct fz_request *req, long ret, bool uring);

/* Submit requests until the round ends; threads, with their struct fz_rng. */
void *fz_by_ioctl(void *rng);
void *fz_by_uring(void *rng);

#endif /* FUZZ_H */
