/* SPDX-License-Identifier: MIT */
/*
 * The engine `kmod`: ferry.ko through /dev/ferry (ferry_ioctl.h).
 *
 * move() is the plain ioctl. start() is the same request as an io_uring
 * command, which the kernel's io-wq threads carry out: several at once, and
 * billed to this process. Where io_uring is not to be had, start() says so and
 * the worker uses move().
 *
 * What a huge page maps the module leaves alone, as it would have to split it;
 * those pieces go on to another engine, which moves them whole: `syscall`, or
 * `relocate`, asynchronously where it can. A batch is finished when both are.
 *
 * fd, limits and the other engine are set by open() and kmod_give_huge_to(),
 * under migrate.c's lock, and constant from then on; the ring is the worker
 * thread's.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <ferry/ferry_ioctl.h>

#include "migrate/engine.h"
#include "migrate/worker.h"

static struct {
	int fd;
	uintptr_t limit; /* the module takes addresses below it only */
	bool has_ring, can_exchange;
	struct io_uring ring;
	const struct engine *huge; /* what moves huge pages */
	int both; /* epoll of the ring and of that engine; -1: the ring is enough */
} kmod = {.fd = -1, .huge = &engine_syscall, .both = -1};

/* The arguments of a request; they must stay until it is complete. */
struct call {
	struct ferry_ioc_migrate arg;
	size_t piece[BATCH_PIECES]; /* which of the batch each range is */
	struct ferry_ioc_range range[BATCH_PIECES];
	struct ferry_ioc_result result[BATCH_PIECES];
	/*
	 * Pages of each piece that calls brought to the target which did not
	 * finish the piece: moved and populated, nothing else.
	 */
	struct ferry_result brought[BATCH_PIECES];
	struct batch *batch;
	struct batch huge; /* pieces with huge pages, for the engine that moves them */
};

/* ---- opening ------------------------------------------------------------ */

static int open_device(const char **why)
{
	kmod.fd = open(FERRY_DEVICE_PATH, O_RDWR | O_CLOEXEC);
	if (kmod.fd >= 0)
		return 0;
	switch (errno) {
	case ENOENT:
		*why = FERRY_DEVICE_PATH ": not there (module not loaded)";
		break;
	case EACCES:
	case EPERM:
		*why = FERRY_DEVICE_PATH ": permission denied";
		break;
	case ENXIO:
	case ENODEV:
		*why = FERRY_DEVICE_PATH ": a stale device file (module not loaded)";
		break;
	default:
		*why = FERRY_DEVICE_PATH ": cannot be opened";
	}
	return -errno;
}

static int ask(uintptr_t addr, size_t len, int16_t *nodes)
{
	struct ferry_ioc_query query = {
		.size = sizeof(query),
		.mode = FERRY_QUERY_PAGES,
		.addr = addr,
		.len = len,
		.out = (uintptr_t)nodes,
		.out_bytes = len / PAGE_BYTES * sizeof(*nodes),
	};

	while (ioctl(kmod.fd, FERRY_IOC_QUERY, &query))
		if (errno != EINTR)
			return -errno;
	return 0;
}

/*
 * The end of user space, beyond which the module refuses a request instead of
 * finding nothing there: with page tables of four or of five levels.
 */
static uintptr_t find_limit(void)
{
	const uintptr_t four = (uintptr_t)1 << 47, five = (uintptr_t)1 << 56;
	int16_t node;

	return (ask(four, PAGE_BYTES, &node) == -EINVAL ? four : five) - PAGE_BYTES;
}

static int check_device(const char **why, bool *uring)
{
	const uint64_t needed =
		FERRY_FEATURE_MIGRATE | FERRY_FEATURE_POPULATE | FERRY_FEATURE_QUERY;
	struct ferry_ioc_info info = {.size = sizeof(info)};

	if (ioctl(kmod.fd, FERRY_IOC_INFO, &info)) {
		*why = FERRY_DEVICE_PATH ": does not answer as Ferry's module";
		return -errno;
	}
	if (info.abi != FERRY_ABI_VERSION) {
		*why = FERRY_DEVICE_PATH
			": the module's ABI version is not this library's";
		return -EPROTO;
	}
	if ((info.features & needed) != needed) {
		*why = FERRY_DEVICE_PATH
			": the module cannot migrate, populate and query";
		return -EPROTO;
	}
	if (info.page_size != PAGE_BYTES || info.max_ranges < BATCH_PIECES ||
	    info.max_bytes < BATCH_BYTES) {
		*why = FERRY_DEVICE_PATH ": the module's limits are too small";
		return -EPROTO;
	}
	kmod.limit = find_limit();
	kmod.can_exchange = info.features & FERRY_FEATURE_EXCHANGE &&
			    info.max_ranges >= 2 * BATCH_PIECES &&
			    info.max_bytes >= 2 * BATCH_BYTES;
	*uring = info.features & FERRY_FEATURE_URING;
	return 0;
}

/*
 * Twice as many entries as batches in flight, so that there is always room.
 * io-wq may start as many threads as the ring has entries; no more than the
 * batches in flight are of use.
 */
static bool open_ring(void)
{
	unsigned int workers[2] = {MAX_IN_FLIGHT, 0};

	if (io_uring_queue_init(2 * MAX_IN_FLIGHT, &kmod.ring, 0))
		return false;
	io_uring_register_iowq_max_workers(&kmod.ring, workers);
	return true;
}

static void kmod_forget(void)
{
	if (kmod.has_ring)
		io_uring_queue_exit(&kmod.ring);
	if (kmod.fd >= 0)
		close(kmod.fd);
	if (kmod.both >= 0)
		close(kmod.both);
	kmod.has_ring = false;
	kmod.fd = kmod.both = -1;
	kmod.huge = &engine_syscall;
}

static int kmod_open(const char **why)
{
	bool uring = false;
	int err = open_device(why);

	if (!err)
		err = check_device(why, &uring);
	if (err) {
		kmod_forget();
		return err;
	}
	kmod.has_ring = uring && open_ring();
	if (kmod.has_ring)
		*why = FERRY_DEVICE_PATH " is there; asynchronous by io_uring";
	else if (uring)
		*why = FERRY_DEVICE_PATH
			" is there; asynchronous by one thread, since "
			"io_uring is not allowed (kernel.io_uring_disabled, "
			"seccomp or RLIMIT_MEMLOCK)";
	else
		*why = FERRY_DEVICE_PATH
			" is there; asynchronous by one thread, since the "
			"module has no io_uring commands";
	return 0;
}

static int watch(int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(kmod.both, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

int kmod_give_huge_to(const struct engine *engine)
{
	int err = 0;

	if (kmod.has_ring) {
		kmod.both = epoll_create1(EPOLL_CLOEXEC);
		if (kmod.both < 0)
			return -errno;
		err = watch(kmod.ring.ring_fd);
		if (!err)
			err = watch(engine->wait_fd());
		if (err) {
			close(kmod.both);
			kmod.both = -1;
			return err;
		}
	}
	kmod.huge = engine;
	return 0;
}

/* ---- a request ---------------------------------------------------------- */

/* Takes off the batch what is beyond user space: holes. */
static void clip(struct batch *batch)
{
	while (batch->count) {
		struct piece *last = &batch->piece[batch->count - 1];
		uintptr_t end = last->addr + last->len;

		if (end <= kmod.limit)
			return;
		if (last->addr < kmod.limit) {
			batch->result.hole += (end - kmod.limit) / PAGE_BYTES;
			last->len = kmod.limit - last->addr;
			return;
		}
		batch->result.hole += last->len / PAGE_BYTES;
		batch->count--;
	}
}

static void call_add(struct call *call, const struct batch *batch, size_t piece)
{
	const struct piece *p = &batch->piece[piece];
	uint32_t i = call->arg.nr_ranges++;

	call->piece[i] = piece;
	call->range[i] = (struct ferry_ioc_range){
		.addr = p->addr,
		.len = p->len,
		.node = p->node,
		.flags = p->flags & FERRY_POPULATE ? FERRY_RANGE_POPULATE : 0,
	};
}

static void call_begin(struct call *call)
{
	call->arg = (struct ferry_ioc_migrate){
		.size = sizeof(call->arg),
		.ranges = (uintptr_t)call->range,
		.results = (uintptr_t)call->result,
		.range_size = sizeof(call->range[0]),
		.result_size = sizeof(call->result[0]),
	};
}

static struct call *call_make(struct batch *batch)
{
	struct call *call = malloc(sizeof(*call));

	if (!call)
		return NULL;
	call->batch = batch;
	call->huge.count = 0;
	call->huge.result = (struct ferry_result){0};
	call_begin(call);
	memset(call->brought, 0, batch->count * sizeof(call->brought[0]));
	for (size_t i = 0; i < batch->count; i++)
		call_add(call, batch, i);
	return call;
}

static int call_ioctl(struct call *call)
{
	int done = ioctl(kmod.fd, FERRY_IOC_MIGRATE, &call->arg);

	return done < 0 ? -errno : done;
}

static uint64_t piece_pages(const struct piece *piece)
{
	return piece->len / PAGE_BYTES;
}

/* Pieces whose call a signal ended are the next call. */
static void settle_piece(struct call *call, struct batch *batch, size_t piece,
			 const struct ferry_ioc_result *r)
{
	struct ferry_result *brought = &call->brought[piece];
	struct ferry_result result = {
		.error = r->error,
		.moved = r->moved,
		.populated = r->populated,
		.already = r->already,
		.busy = r->busy,
		.nomem = r->nomem,
		.hole = r->hole,
		.unsupported = r->unsupported,
	};

	if (r->error == -EINTR || r->error == -ECANCELED) {
		brought->moved += r->moved;
		brought->populated += r->populated;
		call_add(call, batch, piece);
	} else if (r->error) {
		result_add(&batch->result, brought);
		result_add(&batch->result, &result);
	} else if (r->huge) {
		brought->moved += r->moved;
		brought->populated += r->populated;
		call->huge.piece[call->huge.count++] = batch->piece[piece];
	} else {
		result_rerun(brought, &result, piece_pages(&batch->piece[piece]));
		result_add(&batch->result, brought);
	}
}

/* Takes in the results of a call. Returns whether there is to be another. */
static bool call_settle(struct call *call, struct batch *batch, int done)
{
	uint32_t ranges = call->arg.nr_ranges;

	if (done == -EINTR)
		return true; /* nothing was moved */
	if (done < 0) {
		if (!batch->result.error)
			batch->result.error = done;
		return false;
	}
	call_begin(call);
	/* The next call's ranges are written below the ones being read. */
	for (uint32_t i = 0; i < ranges; i++)
		settle_piece(call, batch, call->piece[i], &call->result[i]);
	return call->arg.nr_ranges > 0;
}

/* Goes on from the result @done of a first call until the module is finished. */
static void call_finish(struct call *call, struct batch *batch, int done)
{
	while (call_settle(call, batch, done))
		done = call_ioctl(call);
}

/*
 * Ends a call when the huge pages have been moved too, whose pieces have not been
 * counted yet.
 */
static struct batch *call_end(struct call *call)
{
	struct batch *batch = call->batch;
	struct ferry_result brought = {0};
	uint64_t pages = 0;

	for (size_t i = 0, piece = 0; i < call->huge.count; i++, piece++) {
		while (batch->piece[piece].addr != call->huge.piece[i].addr)
			piece++;
		result_add(&brought, &call->brought[piece]);
		pages += piece_pages(&batch->piece[piece]);
	}
	if (call->huge.result.error)
		result_add(&brought, &call->huge.result);
	else
		result_rerun(&brought, &call->huge.result, pages);
	result_add(&batch->result, &brought);
	free(call);
	return batch;
}

static void kmod_move(struct batch *batch)
{
	struct call *call;

	clip(batch);
	if (!batch->count)
		return;
	call = call_make(batch);
	if (!call) {
		if (!batch->result.error)
			batch->result.error = -ENOMEM;
		return;
	}
	call_finish(call, batch, call_ioctl(call));
	if (call->huge.count)
		kmod.huge->move(&call->huge);
	call_end(call);
}

/* ---- exchange ----------------------------------------------------------- */

/* Two calls' ranges in one request. */
struct joint {
	struct ferry_ioc_range range[2 * BATCH_PIECES];
	struct ferry_ioc_result result[2 * BATCH_PIECES];
};

/* Carries out what two calls ask for; each gets its results. */
static int joint_ioctl(struct joint *joint, struct call *one, struct call *other)
{
	uint32_t first = one->arg.nr_ranges, second = other->arg.nr_ranges;
	struct ferry_ioc_migrate arg = one->arg;
	int done;

	memcpy(joint->range, one->range, first * sizeof(joint->range[0]));
	memcpy(joint->range + first, other->range, second * sizeof(joint->range[0]));
	arg.flags = FERRY_MIGRATE_EXCHANGE;
	arg.nr_ranges = first + second;
	arg.ranges = (uintptr_t)joint->range;
	arg.results = (uintptr_t)joint->result;
	done = ioctl(kmod.fd, FERRY_IOC_MIGRATE, &arg);
	if (done < 0)
		return -errno;
	memcpy(one->result, joint->result, first * sizeof(joint->result[0]));
	memcpy(other->result, joint->result + first, second * sizeof(joint->result[0]));
	return done;
}

static int kmod_exchange(struct batch *out, struct batch *in)
{
	struct joint *joint = malloc(sizeof(*joint));
	struct call *one, *other;
	bool more = true;

	clip(out);
	clip(in);
	one = call_make(out);
	other = call_make(in);
	if (!kmod.can_exchange || !joint || !one || !other || !out->count || !in->count) {
		free(joint);
		free(one);
		free(other);
		return -EOPNOTSUPP;
	}
	while (more) {
		int done = joint_ioctl(joint, one, other);

		more = call_settle(one, out, done);
		more |= call_settle(other, in, done);
	}
	if (one->huge.count)
		kmod.huge->move(&one->huge);
	if (other->huge.count)
		kmod.huge->move(&other->huge);
	call_end(one);
	call_end(other);
	free(joint);
	return 0;
}

/* ---- asynchronously ----------------------------------------------------- */

static int kmod_start(struct batch *batch)
{
	struct ferry_uring_cmd cmd = {0};
	struct io_uring_sqe *sqe;
	struct call *call;
	int err;

	clip(batch);
	if (!kmod.has_ring || !batch->count)
		return -EOPNOTSUPP;
	call = call_make(batch);
	if (!call)
		return -EAGAIN;
	sqe = io_uring_get_sqe(&kmod.ring);
	if (!sqe) {
		free(call);
		return -EAGAIN;
	}
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = kmod.fd;
	sqe->cmd_op = FERRY_IOC_MIGRATE;
	/* To io-wq at once: the module would only send it there. */
	sqe->flags = IOSQE_ASYNC;
	cmd.arg = (uintptr_t)&call->arg;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	io_uring_sqe_set_data(sqe, batch);
	batch->engine_data = call;

	do
		err = io_uring_submit(&kmod.ring);
	while ((err == -EINTR || err == -EAGAIN || err == -EBUSY) && !sched_yield());
	if (err >= 0)
		return 0;
	/* Forbidden since the ring was set up (seccomp): it is not used again. */
	kmod.has_ring = false;
	free(call);
	return -EOPNOTSUPP;
}

/* What the module is finished with. */
static struct call *reap_call(void)
{
	struct io_uring_cqe *cqe;
	struct batch *batch;
	int done;

	if (io_uring_peek_cqe(&kmod.ring, &cqe))
		return NULL;
	batch = io_uring_cqe_get_data(cqe);
	done = cqe->res;
	io_uring_cqe_seen(&kmod.ring, cqe);
	call_finish(batch->engine_data, batch, done);
	return batch->engine_data;
}

/* Whether the huge pages of a call have been moved, or there are none. */
static bool huge_moved(struct call *call)
{
	if (!call->huge.count)
		return true;
	if (kmod.huge->start && !kmod.huge->start(&call->huge))
		return false;
	kmod.huge->move(&call->huge);
	return true;
}

static struct batch *kmod_reap(void)
{
	struct batch *huge = kmod.huge->reap ? kmod.huge->reap() : NULL;
	struct call *call;

	if (huge)
		return call_end(
			(struct call *)((char *)huge - offsetof(struct call, huge)));
	while ((call = reap_call()))
		if (huge_moved(call))
			return call_end(call);
	return NULL;
}

static int kmod_wait_fd(void)
{
	return kmod.both >= 0 ? kmod.both : kmod.ring.ring_fd;
}

/* ---- query -------------------------------------------------------------- */

/* What one call asks for, so that a signal costs little work. */
#define QUERY_BYTES ((size_t)64 << 20)

static int kmod_query(uintptr_t addr, size_t len, int16_t *nodes)
{
	int err = 0;

	while (len && !err && addr < kmod.limit) {
		size_t part = kmod.limit - addr;

		if (part > QUERY_BYTES)
			part = QUERY_BYTES;
		if (part > len)
			part = len;
		err = ask(addr, part, nodes);
		addr += part;
		len -= part;
		nodes += part / PAGE_BYTES;
	}
	for (; len && !err; len -= PAGE_BYTES)
		*nodes++ = -1;
	return err;
}

const struct engine engine_kmod = {
	.name = "kmod",
	.open = kmod_open,
	.forget = kmod_forget,
	.move = kmod_move,
	.exchange = kmod_exchange,
	.start = kmod_start,
	.reap = kmod_reap,
	.wait_fd = kmod_wait_fd,
	.query = kmod_query,
};
