/* SPDX-License-Identifier: MIT */
/*
 * Hands requests in, by ioctl and by io_uring, and checks what comes back against
 * what the contract says. Each thread has requests and a ring of its own.
 */
#include "fuzz.h"
#include "kmod_uring.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

const struct fz_errno_name fz_errno_names[FZ_NR_ERRNOS] = {
	[FZ_E2BIG] = {E2BIG, "E2BIG"},
	[FZ_EINVAL] = {EINVAL, "EINVAL"},
	[FZ_EFAULT] = {EFAULT, "EFAULT"},
	[FZ_ENODEV] = {ENODEV, "ENODEV"},
	[FZ_EACCES] = {EACCES, "EACCES"},
	[FZ_EPERM] = {EPERM, "EPERM"},
	[FZ_EOPNOTSUPP] = {EOPNOTSUPP, "EOPNOTSUPP"},
	[FZ_ENOSPC] = {ENOSPC, "ENOSPC"},
	[FZ_ENOTTY] = {ENOTTY, "ENOTTY"},
	[FZ_EINTR] = {EINTR, "EINTR"},
	[FZ_ECANCELED] = {ECANCELED, "ECANCELED"},
	[FZ_ENOMEM] = {ENOMEM, "ENOMEM"},
};

/* For a thread with the ioctl each, and for FLIGHTS rings */
enum { FLIGHT = 24, FLIGHTS = 3, POOL = 2 + FLIGHTS * FLIGHT, CANCEL = 1000 };

static struct fz_request pool[POOL];
static atomic_size_t taken;

static void request_init(struct fz_request *req)
{
	const size_t edge = 3 * kt.page, len = 2 * FZ_BUFFER + 2 * edge;
	uint8_t *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	KT_REQUIRE(mem != MAP_FAILED, "mmap: %m");
	madvise(mem, len, MADV_NOHUGEPAGE);
	req->in = mem;
	req->out = mem + FZ_BUFFER;
	/* What is used most is there before all wait for the lock that faults take. */
	for (size_t at = 0; at < 2 * FZ_BUFFER; at += FZ_BUFFER / 4)
		memset(mem + at, 0, 2 * kt.page);
	for (size_t i = 0; i < 2; i++) {
		req->edge[i] = mem + 2 * FZ_BUFFER + i * edge;
		memset(req->edge[i], 0, 2 * kt.page);
		mprotect(req->edge[i] + 2 * kt.page, kt.page, PROT_NONE);
	}
}

void fz_requests_init(void)
{
	for (size_t i = 0; i < POOL; i++)
		request_init(&pool[i]);
}

/* Takes @nr requests out of the pool for good, or NULL. */
static struct fz_request *take(size_t nr)
{
	size_t first = atomic_fetch_add(&taken, nr);

	return first + nr <= POOL ? &pool[first] : NULL;
}

static int index_of(long error)
{
	for (int i = 0; i < FZ_NR_ERRNOS; i++)
		if (fz_errno_names[i].value == error)
			return i;
	return -1;
}

/* "EINVAL EFAULT" */
static const char *names(unsigned int set, char *text, size_t size)
{
	size_t at = 0;

	snprintf(text, size, "none");
	for (int i = 0; i < FZ_NR_ERRNOS; i++)
		if (set >> i & 1)
			at += (size_t)snprintf(text + at, size - at, "%s%s",
					       at ? " " : "", fz_errno_names[i].name);
	return text;
}

/* ---- answers ------------------------------------------------------------------- */

static void check_untouched(const struct fz_request *req)
{
	size_t i = 0;

	while (i < req->out_bytes && req->out[i] == 0xa5)
		i++;
	KT_EXPECT(i == req->out_bytes, "byte %zu of a refused answer was written", i);
}

static void check_result(const struct ferry_ioc_range *range,
			 const struct ferry_ioc_result *res)
{
	const uint64_t pages = range->len / kt.page,
		       nr[FZ_NR_OUTCOMES] = {
			       [FZ_MOVED] = res->moved,
			       [FZ_POPULATED] = res->populated,
			       [FZ_ALREADY] = res->already,
			       [FZ_BUSY] = res->busy,
			       [FZ_NOMEM] = res->nomem,
			       [FZ_HOLE] = res->hole,
			       [FZ_UNSUPPORTED] = res->unsupported,
			       [FZ_HUGE] = res->huge,
		       };

	KT_EXPECT(!res->error || res->error == -EINTR || res->error == -ECANCELED ||
			  res->error == -ENOMEM,
		  "a range's error is %d", res->error);
	KT_EXPECT_EQ(res->reserved, 0);
	if (res->error)
		KT_EXPECT(kt_sum(res) <= pages, "more than the range's pages");
	else
		KT_EXPECT_EQ(kt_sum(res), pages);
	if (!(range->flags & FERRY_RANGE_POPULATE))
		KT_EXPECT_EQ(res->populated, 0);
	for (int i = 0; i < FZ_NR_OUTCOMES; i++)
		atomic_fetch_add(&fz_cover->outcome[i], nr[i]);
}

static void check_results(const struct fz_request *req, long ret)
{
	const struct ferry_ioc_migrate *arg = &req->migrate;
	struct ferry_ioc_result res;
	uint64_t done = 0;

	if (arg->result_size < sizeof(res))
		return;
	for (uint32_t i = 0; i < arg->nr_ranges; i++) {
		const uint8_t *at = req->out + (size_t)i * arg->result_size;

		memcpy(&res, at, sizeof(res));
		check_result(&req->ranges[i], &res);
		done += res.moved + res.populated;
		for (size_t k = sizeof(res); k < arg->result_size; k++)
			KT_EXPECT(at[k] == 0, "the tail of a result is not 0");
	}
	KT_EXPECT_EQ(done, ret);
}

static void check_query(const struct fz_request *req)
{
	const struct ferry_ioc_query *arg = &req->query;
	const uint64_t pages = arg->len / kt.page;

	if (arg->mode == FERRY_QUERY_HELD) {
		const int16_t *held = (const int16_t *)req->out;

		for (uint64_t i = 0; i < pages; i++)
			KT_EXPECT(held[i] == FERRY_QUERY_HOLE || held[i] == 0 ||
					  held[i] == 1,
				  "page %llu is held %d times", (unsigned long long)i,
				  held[i]);
	} else if (arg->mode == FERRY_QUERY_PAGES) {
		const int16_t *node = (const int16_t *)req->out;

		uint64_t i = 0;

		while (i < pages && (node[i] == FERRY_QUERY_HOLE ||
				     (node[i] >= 0 &&
				      kt.info.nodes[node[i] / 64] >> (node[i] % 64) & 1)))
			i++;
		KT_EXPECT(i == pages, "page %llu is on node %d", (unsigned long long)i,
			  node[i]);
	} else {
		const uint32_t *count = (const uint32_t *)req->out;
		uint64_t sum = 0;

		for (size_t i = 0; i < req->out_bytes / sizeof(*count); i++)
			sum += count[i];
		KT_EXPECT(sum <= pages, "%llu of %llu pages", (unsigned long long)sum,
			  (unsigned long long)pages);
	}
}

static void check_scan(const struct fz_request *req)
{
	const struct ferry_scan_row *row = (const struct ferry_scan_row *)req->out;
	const uint64_t pages = req->scan.len / kt.page;
	uint64_t sum = 0;

	for (size_t i = 0; i < req->out_bytes / sizeof(*row); i++) {
		sum += row[i].present;
		if (row[i].accessed <= row[i].present && row[i].dirty <= row[i].present &&
		    row[i].huge <= row[i].present)
			continue;
		KT_EXPECT(false, "a row of present %u accessed %u dirty %u huge %u",
			  row[i].present, row[i].accessed, row[i].dirty, row[i].huge);
		return;
	}
	KT_EXPECT(sum <= pages, "%llu of %llu pages", (unsigned long long)sum,
		  (unsigned long long)pages);
}

static void check_answer(const struct fz_request *req, long ret)
{
	if (req->op != FZ_MIGRATE)
		KT_EXPECT_EQ(ret, 0);
	if (!req->out_kept || req->wild)
		return;
	if (req->op == FZ_MIGRATE)
		check_results(req, ret);
	else if (req->op == FZ_QUERY)
		check_query(req);
	else if (req->op == FZ_SCAN)
		check_scan(req);
}

void fz_request_check(const struct fz_request *req, long ret, bool uring)
{
	unsigned int must = req->must, may = req->may;
	char text[2][128];
	int error;

	if (req->foreign)
		must |= FZ_SET(EPERM);
	if (uring && req->bad_uring)
		must |= FZ_SET(EINVAL);
	if (req->op == FZ_OTHER || (uring && req->op == FZ_INFO))
		must |= uring ? FZ_SET(EOPNOTSUPP) : FZ_SET(ENOTTY);
	if (uring) /* its own, of requests that were cancelled */
		may |= FZ_SET(ECANCELED);

	if (ret >= 0) {
		KT_EXPECT(!must || (req->wild && !req->foreign),
			  "cmd %#x returned %ld, expected %s", req->cmd, ret,
			  names(must, text[0], sizeof(text[0])));
		if (!must)
			check_answer(req, ret);
		atomic_fetch_add(uring ? &fz_cover->success_uring[req->op]
				       : &fz_cover->success[req->op],
				 1);
		return;
	}
	error = index_of(-ret);
	if (!KT_EXPECT(error >= 0, "cmd %#x returned %ld", req->cmd, ret))
		return;
	KT_EXPECT(req->wild || (must | may) >> error & 1,
		  "cmd %#x returned %s, expected %s, or perhaps %s", req->cmd,
		  fz_errno_names[error].name, names(must, text[0], sizeof(text[0])),
		  names(may, text[1], sizeof(text[1])));
	atomic_fetch_add(&fz_cover->error[error], 1);
	/* Whatever else it may do, a request that is refused changes nothing. */
	if (req->out_kept && error <= FZ_ENOTTY && error != FZ_EFAULT)
		check_untouched(req);
}

/* ---- submitting -------------------------------------------------------------------- */

void *fz_by_ioctl(void *arg)
{
	struct fz_request *req = take(1);
	struct fz_rng *rng = arg;

	while (!fz_stopped()) {
		fz_request_make(req, rng);
		fz_request_check(req,
				 kt_ioctl(req->foreign ? fz_round.foreign : kt.fd,
					  req->cmd, req->arg),
				 false);
	}
	return NULL;
}

/* A ring, and the requests that are in flight on it. */
struct flight {
	struct io_uring ring;
	struct fz_request *req;
	bool busy[FLIGHT];
	size_t nr;
};

static void flight_start(struct flight *flight, struct fz_request *req)
{
	memset(flight, 0, sizeof(*flight));
	kt_ring_init(&flight->ring, 4 * FLIGHT,
		     fz_round.sqpoll ? IORING_SETUP_SQPOLL : 0);
	flight->req = req;
}

static void submit_one(struct flight *flight, struct fz_rng *rng)
{
	struct fz_request *req = NULL;
	struct ferry_uring_cmd cmd;
	struct io_uring_sqe *sqe;

	for (size_t i = 0; i < FLIGHT && !req; i++)
		if (!flight->busy[i])
			req = &flight->req[i];
	/* A thread that takes submissions may be late. */
	if (!req || !io_uring_sq_space_left(&flight->ring))
		return;
	fz_request_make(req, rng);
	sqe = kt_ring_cmd(&flight->ring, req->foreign ? fz_round.foreign : kt.fd,
			  req->cmd, req->arg, (uint64_t)(req - flight->req));
	cmd = (struct ferry_uring_cmd){
		.arg = (uintptr_t)req->arg,
		.reserved = req->bad_uring ? fz_random(rng) | 1 : 0,
	};
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	if (fz_once_in(rng, 4))
		sqe->flags |= IOSQE_ASYNC;
	/*
	 * No chains: a kernel such as 6.12 reads a linked command from its place in
	 * the queue only when it begins, and by then another may be there.
	 */
	flight->busy[req - flight->req] = true;
	flight->nr++;
}

static void cancel_one(struct flight *flight, struct fz_rng *rng)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&flight->ring);

	if (!sqe)
		return;
	io_uring_prep_cancel64(sqe, fz_below(rng, FLIGHT), 0);
	sqe->user_data = CANCEL;
}

static void reap(struct flight *flight, bool wait)
{
	struct io_uring_cqe *cqe;

	if (wait)
		io_uring_submit_and_wait(&flight->ring, 1);
	while (io_uring_peek_cqe(&flight->ring, &cqe) == 0) {
		uint64_t i = cqe->user_data;

		if (i < FLIGHT) {
			fz_request_check(&flight->req[i], cqe->res, true);
			flight->busy[i] = false;
			flight->nr--;
		}
		io_uring_cqe_seen(&flight->ring, cqe);
	}
}

void *fz_by_uring(void *arg)
{
	struct fz_rng *rng = arg;
	struct fz_request *next;
	struct flight flight;

	flight_start(&flight, take(FLIGHT));
	while (!fz_stopped()) {
		for (uint64_t n = fz_below(rng, 12); n; n--)
			submit_one(&flight, rng);
		io_uring_submit(&flight.ring);
		if (fz_once_in(rng, 6)) {
			cancel_one(&flight, rng);
			io_uring_submit(&flight.ring);
		}
		reap(&flight, flight.nr > FLIGHT / 2);
		/* What is in flight may write its answers later: a new ring has others.
		 */
		if (fz_once_in(rng, 100) && (next = take(FLIGHT))) {
			io_uring_queue_exit(&flight.ring);
			flight_start(&flight, next);
		}
	}
	while (flight.nr && !kt_failures())
		reap(&flight, true);
	io_uring_queue_exit(&flight.ring);
	return NULL;
}
