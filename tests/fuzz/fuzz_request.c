/* SPDX-License-Identifier: MIT */
/*
 * Random requests: right ones with something wrong now and then. With each goes
 * what the header says of it: the errors it must have (fz_request.must), and
 * those that it may have besides (fz_request.may), since the order in which the
 * module looks at things is no part of the contract.
 */
#include "fuzz.h"

#include <limits.h>
#include <string.h>

#define MIGRATE_FLAGS                                                                    \
	(FERRY_MIGRATE_SHARED | FERRY_MIGRATE_EXCHANGE | FERRY_MIGRATE_SPLIT_HUGE)
#define RANGE_FLAGS FERRY_RANGE_POPULATE

/* Ends of user space with four and with five levels of page tables */
#define USER_END_LEAST ((1UL << 47) - 4096)
#define USER_END_MOST  ((1UL << 56) - 4096)

static const size_t zone_pages = FZ_ZONE_LEN / 4096;

/* ---- addresses ---------------------------------------------------------------- */

/* Where a struct or an answer is put */
enum place {
	KEPT,     /* memory of the request's own */
	ODD,      /* the same, at an odd address */
	EDGE,     /* its last byte is the last before nothing */
	OVER,     /* some bytes are beyond that */
	NOWHERE,  /* no memory, or the kernel's */
	CHANGING, /* in the wild zone */
};

static enum place some_place(struct fz_rng *rng)
{
	if (!fz_once_in(rng, 12))
		return fz_once_in(rng, 8) ? ODD : KEPT;
	return (enum place)(EDGE + fz_below(rng, 4));
}

static void *nowhere(struct fz_rng *rng)
{
	static const uint64_t at[] = {
		0,
		8,
		0x0ffffffff000, /* before the zones */
		1UL << 56,      /* beyond user space */
		0xffff888000001000,
		0xff11000000001000,
		0xffffffff81000000,
		UINT64_MAX - 7,
	};

	return (void *)at[fz_below(rng, sizeof(at) / sizeof(at[0]))];
}

/*
 * Puts @len bytes at some place; @kept is the request's own memory for them,
 * @edge its two pages at an edge. Notes what that means for the request, and
 * returns the address.
 */
static void *put(struct fz_request *req, struct fz_rng *rng, const void *data, size_t len,
		 uint8_t *kept, uint8_t *edge)
{
	enum place place = some_place(rng);
	size_t over;

	switch (place) {
	case KEPT:
	case ODD:
		kept += place == ODD ? 1 + fz_below(rng, 63) : 0;
		break;
	case EDGE:
	case OVER:
		if (len > 2 * kt.page)
			break;
		over = place == OVER ? 1 + fz_below(rng, len) : 0;
		kept = edge + 2 * kt.page - len + over;
		if (over) {
			memcpy(kept, data, len - over);
			req->must |= FZ_SET(EFAULT);
			return kept;
		}
		break;
	case NOWHERE:
		req->must |= FZ_SET(EFAULT);
		return nowhere(rng);
	case CHANGING:
		/* What it finds there is nobody's guess. */
		req->wild = true;
		return fz_zone(FZ_WILD) + fz_below(rng, FZ_ZONE_LEN - 4096);
	}
	memcpy(kept, data, len);
	return kept;
}

/* Where the answer goes; @len is what will be written if all goes well. */
static uint64_t answer_at(struct fz_request *req, struct fz_rng *rng, size_t len)
{
	switch (some_place(rng)) {
	case NOWHERE:
		req->must |= FZ_SET(EFAULT);
		return (uintptr_t)nowhere(rng);
	case CHANGING:
	case OVER:
		req->may |= FZ_SET(EFAULT);
		return (uintptr_t)fz_zone(FZ_WILD) + fz_below(rng, FZ_ZONE_LEN);
	default:
		if (len > FZ_BUFFER) {
			req->must |= FZ_SET(EFAULT);
			return (uintptr_t)nowhere(rng);
		}
		req->out_kept = true;
		req->out_bytes = len;
		memset(req->out, 0xa5, len);
		return (uintptr_t)req->out;
	}
}

/* A range of memory to work on, whole pages */
static void some_range(struct fz_rng *rng, __u64 *addr, __u64 *len)
{
	static const unsigned int at_most[] = {1, 4, 16, 64, 64, 512, 1024, 2048};
	size_t pages = 1 + fz_below(rng, at_most[fz_below(rng, 8)]);
	char *zone = fz_zone((enum fz_zone)fz_below(rng, FZ_NR_ZONES));

	if (fz_once_in(rng, 64)) { /* over several zones and what is between */
		*addr = (uintptr_t)zone - pages * 4096;
		*len = fz_below(rng, 1UL << 17) * 4096 + 4096;
		return;
	}
	if (fz_once_in(rng, 32)) { /* this thread's stack */
		*addr = (uintptr_t)rng & -4096UL;
		*len = 4096;
		return;
	}
	*addr = (uintptr_t)zone + fz_below(rng, zone_pages) * 4096;
	*len = pages * 4096;
}

/* The rules for an address and a length */
static void judge_extent(struct fz_request *req, uint64_t addr, uint64_t len)
{
	if (!len || addr % 4096 || len % 4096 || addr + len < addr ||
	    addr + len > USER_END_MOST)
		req->must |= FZ_SET(EINVAL);
	else if (addr + len > USER_END_LEAST)
		req->may |= FZ_SET(EINVAL);
}

static void spoil_extent(struct fz_rng *rng, __u64 *addr, __u64 *len)
{
	switch (fz_below(rng, 6)) {
	case 0:
		*addr += 1 + fz_below(rng, 4095);
		break;
	case 1:
		*len += 1 + fz_below(rng, 4095);
		break;
	case 2:
		*len = 0;
		break;
	case 3:
		*len = UINT64_MAX - 4095; /* wraps */
		break;
	case 4:
		*addr = USER_END_MOST - 4096 * fz_below(rng, 2);
		break;
	case 5:
		*addr |= 1UL << (57 + fz_below(rng, 7));
		break;
	}
}

/* ---- structs that begin with their size --------------------------------------- */

/*
 * Hands in @known bytes of @data with a size that may be another, and makes
 * @data what the module then understands.
 */
static void *put_struct(struct fz_request *req, struct fz_rng *rng, void *data,
			size_t known)
{
	uint8_t image[8192] = {0};
	uint32_t size = (uint32_t)known;

	memcpy(image, data, known);
	if (fz_once_in(rng, 10)) {
		static const uint32_t sizes[] = {0,  3,  4,    8,    12,
						 16, 24, 4096, 4097, 8000};

		size = fz_once_in(rng, 3) ? (uint32_t)known + 8
					  : sizes[fz_below(rng, 10)];
		if (size > known && fz_once_in(rng, 2)) {
			image[known + fz_below(rng, size - known)] = 1;
			req->must |= FZ_SET(E2BIG);
		}
		if (size < 4)
			req->must |= FZ_SET(EINVAL);
		if (size > 4096)
			req->must |= FZ_SET(E2BIG);
		if (size < known) /* the rest counts as zeros */
			memset((uint8_t *)data + (size < 4 ? 4 : size), 0,
			       known - (size < 4 ? 4 : size));
	}
	memcpy(image, &size, sizeof(size));
	memcpy(data, &size, sizeof(size));
	return put(req, rng, image, size < 4 ? 4 : size, req->in, req->edge[0]);
}

/* ---- FERRY_IOC_MIGRATE ---------------------------------------------------------- */

static bool has_memory(int node)
{
	return node >= 0 && node < KT_MAX_NODE &&
	       kt.info.nodes[node / 64] >> (node % 64) & 1;
}

static int some_node(struct fz_rng *rng)
{
	static const int bad[] = {-1, 7, 63, 1023, 1024, 65536, INT_MIN, INT_MAX};

	if (fz_once_in(rng, 800))
		return bad[fz_below(rng, 8)];
	return fz_once_in(rng, 2) ? kt.ddr : kt.hbm;
}

static void some_ranges(struct fz_rng *rng, struct ferry_ioc_range *range, size_t nr)
{
	/* Something is wrong in one batch of twenty, in one of its ranges. */
	size_t wrong = fz_once_in(rng, 20) ? fz_below(rng, nr) : nr;

	for (size_t i = 0; i < nr; i++) {
		some_range(rng, &range[i].addr, &range[i].len);
		range[i].node = some_node(rng);
		range[i].flags = 0;
		if (nr > 64)
			range[i].len = 4096;
		if (range[i].len <= FZ_ZONE_LEN && fz_once_in(rng, 3))
			range[i].flags = FERRY_RANGE_POPULATE;
		if (i == wrong && fz_once_in(rng, 3))
			range[i].flags |= 1U << fz_below(rng, 32);
		else if (i == wrong)
			spoil_extent(rng, &range[i].addr, &range[i].len);
	}
}

static void judge_ranges(struct fz_request *req, const struct ferry_ioc_range *range,
			 size_t nr)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < nr; i++) {
		if (range[i].flags & ~RANGE_FLAGS)
			req->must |= FZ_SET(EINVAL);
		if (!has_memory(range[i].node))
			req->must |= FZ_SET(ENODEV);
		else if (fz_round.in_cpuset && range[i].node != kt.ddr)
			req->must |= FZ_SET(EACCES);
		judge_extent(req, range[i].addr, range[i].len);
		bytes += range[i].len;
	}
	if (bytes > kt.info.max_bytes)
		req->must |= FZ_SET(EINVAL);
}

/* Puts the ranges into elements of another size, as a younger or older caller has. */
static void put_ranges(struct fz_request *req, struct fz_rng *rng,
		       struct ferry_ioc_range *range, size_t nr)
{
	struct ferry_ioc_migrate *arg = &req->migrate;
	uint8_t *image = req->in + FZ_BUFFER / 2;
	size_t size = sizeof(*range);

	if (nr <= 256 && fz_once_in(rng, 16)) {
		static const size_t sizes[] = {0, 16, 32, 64, 4096, 4097, 60000};

		size = sizes[fz_below(rng, 7)];
	}
	arg->range_size = (uint32_t)size;
	if (size == 0 || size > 4096) {
		req->must |= size ? FZ_SET(E2BIG) : FZ_SET(EINVAL);
		size = sizeof(*range);
	}
	memset(image, 0, nr * size);
	for (size_t i = 0; i < nr; i++) {
		memcpy(image + i * size, &range[i],
		       size < sizeof(*range) ? size : sizeof(*range));
		if (size > sizeof(*range) && fz_once_in(rng, 1000)) {
			image[i * size + size - 1] = 1;
			req->must |= FZ_SET(E2BIG);
		}
		if (size < sizeof(*range)) { /* no node, no flags: node 0 */
			range[i].node = 0;
			range[i].flags = 0;
		}
	}
	arg->ranges = (uintptr_t)put(req, rng, image, nr * size, req->in + FZ_BUFFER / 4,
				     req->edge[1]);
}

static size_t some_number(struct fz_rng *rng)
{
	if (fz_once_in(rng, 2000))
		return kt.info.max_ranges;
	return 1 + fz_below(rng, fz_once_in(rng, 10) ? 200 : 6);
}

static void put_results(struct fz_request *req, struct fz_rng *rng, size_t nr)
{
	struct ferry_ioc_migrate *arg = &req->migrate;

	if (fz_once_in(rng, 8)) /* wants none */
		return;
	arg->result_size = sizeof(struct ferry_ioc_result);
	if (fz_once_in(rng, 12)) {
		static const uint32_t sizes[] = {0, 1, 8, 16, 80, 4096, 4097};

		arg->result_size = sizes[fz_below(rng, 7)];
	}
	/* A place and no size is refused; neither of them would be to want none. */
	arg->results = arg->result_size ? answer_at(req, rng, nr * arg->result_size)
					: (uintptr_t)req->out;
}

/* What the struct's own fields make of it, once they are what the module sees */
static void judge_migrate(struct fz_request *req)
{
	const struct ferry_ioc_migrate *arg = &req->migrate;

	if (arg->flags & ~MIGRATE_FLAGS)
		req->must |= FZ_SET(EINVAL);
	if ((arg->flags & FERRY_MIGRATE_SHARED) && fz_round.unprivileged)
		req->must |= FZ_SET(EPERM);
	if (arg->copy_mode > FERRY_COPY_DMA)
		req->must |= FZ_SET(EINVAL);
#ifndef FERRY_FEATURE_COPY_PARALLEL
	else if (arg->copy_mode > FERRY_COPY_CPU)
		req->must |= FZ_SET(EOPNOTSUPP);
#endif
	if (!arg->nr_ranges || arg->nr_ranges > kt.info.max_ranges || !arg->range_size ||
	    !arg->results != !arg->result_size)
		req->must |= FZ_SET(EINVAL);
	if (arg->range_size > 4096 || arg->result_size > 4096)
		req->must |= FZ_SET(E2BIG);
}

static void make_migrate(struct fz_request *req, struct fz_rng *rng)
{
	struct ferry_ioc_migrate *arg = &req->migrate;
	struct ferry_ioc_range *range =
		(struct ferry_ioc_range *)(req->in + 3 * (FZ_BUFFER / 4));
	size_t nr = some_number(rng);

	*arg = (struct ferry_ioc_migrate){.nr_ranges = (uint32_t)nr};
	if (fz_once_in(rng, 6))
		arg->flags = (uint32_t)fz_random(rng) & MIGRATE_FLAGS;
	if (fz_once_in(rng, 100))
		arg->flags |= 1U << fz_below(rng, 32);
	if (fz_once_in(rng, 8))
		arg->copy_mode = (uint32_t)fz_below(rng, FERRY_COPY_DMA + 3);
	some_ranges(rng, range, nr);
	put_ranges(req, rng, range, nr);
	judge_ranges(req, range, nr);
	put_results(req, rng, nr);
	if (fz_once_in(rng, 100))
		arg->nr_ranges = fz_once_in(rng, 2) ? 0 : kt.info.max_ranges + 1;
	req->cmd = FERRY_IOC_MIGRATE;
	req->arg = put_struct(req, rng, arg, sizeof(*arg));
	/* Cut short, it may be wrong, and then what it pointed to does not matter. */
	if (arg->size < sizeof(*arg)) {
		req->may |= req->must;
		req->out_kept &= arg->results != 0;
	}
	judge_migrate(req);
	req->ranges = range;
}

/* ---- FERRY_IOC_QUERY and FERRY_IOC_SCAN ------------------------------------------- */

/* Granules that a range meets */
static uint64_t granules(uint64_t addr, uint64_t len, uint64_t bytes)
{
	return (addr + len - 1) / bytes - addr / bytes + 1;
}

static uint64_t some_granule(struct fz_rng *rng)
{
	static const uint64_t odd[] = {0,         1,         2048,      4097,     12288,
				       1UL << 28, 1UL << 43, 1UL << 44, 1UL << 63};

	return fz_once_in(rng, 16) ? odd[fz_below(rng, 9)] : 4096UL << fz_below(rng, 12);
}

/* Too little room is told, too much is not minded. */
static uint64_t some_room(struct fz_request *req, struct fz_rng *rng, uint64_t need)
{
	if (need && fz_once_in(rng, 20)) {
		req->must |= FZ_SET(ENOSPC);
		return fz_below(rng, need);
	}
	return fz_once_in(rng, 4) ? UINT64_MAX : need;
}

static void make_query(struct fz_request *req, struct fz_rng *rng)
{
	struct ferry_ioc_query *arg = &req->query;
	uint64_t need;

	*arg = (struct ferry_ioc_query){.mode = (uint32_t)fz_below(rng, 3)};
	some_range(rng, &arg->addr, &arg->len);
	if (arg->mode == FERRY_QUERY_COUNTS) {
		arg->nr_nodes = 1 + (uint32_t)fz_below(rng, 8);
		arg->granule_bytes = some_granule(rng);
	}
	if (fz_once_in(rng, 30))
		spoil_extent(rng, &arg->addr, &arg->len);
	if (fz_once_in(rng, 30))
		arg->flags = 1U << fz_below(rng, 32);
	if (fz_once_in(rng, 30))
		arg->mode = (uint32_t)fz_below(rng, 5);
	if (fz_once_in(rng, 30))
		arg->nr_nodes = (uint32_t)fz_below(rng, 3) * 1023;

	if (arg->granule_bytes & (arg->granule_bytes - 1) || arg->granule_bytes < 4096)
		need = arg->len / 4096 * 2;
	else
		need = granules(arg->addr, arg->len, arg->granule_bytes) * arg->nr_nodes *
		       4;
	if (arg->mode != FERRY_QUERY_COUNTS)
		need = arg->len / 4096 * 2;
	if (need > FZ_BUFFER) { /* of a spoilt range; no room for so much anyway */
		req->must |= FZ_SET(ENOSPC);
		req->may |= FZ_SET(EINVAL);
		arg->out = answer_at(req, rng, 0);
	} else {
		arg->out_bytes = some_room(req, rng, need);
		arg->out = answer_at(req, rng, need);
	}
	req->cmd = FERRY_IOC_QUERY;
	req->arg = put_struct(req, rng, arg, sizeof(*arg));
	if (arg->size < sizeof(*arg)) {
		req->may |= req->must | FZ_SET(ENOSPC) | FZ_SET(EINVAL) | FZ_SET(EFAULT);
		req->out_kept = false;
	}

	judge_extent(req, arg->addr, arg->len);
	if (arg->flags || arg->mode > FERRY_QUERY_HELD)
		req->must |= FZ_SET(EINVAL);
	if (arg->mode != FERRY_QUERY_COUNTS && (arg->nr_nodes || arg->granule_bytes))
		req->must |= FZ_SET(EINVAL);
	if (arg->mode == FERRY_QUERY_COUNTS &&
	    (!arg->nr_nodes || arg->nr_nodes > 1024 || arg->granule_bytes < 4096 ||
	     arg->granule_bytes & (arg->granule_bytes - 1)))
		req->must |= FZ_SET(EINVAL);
	/* "fewer than 2^32 pages" */
	if (arg->mode == FERRY_QUERY_COUNTS && arg->granule_bytes >= 1UL << 44)
		req->must |= FZ_SET(EINVAL);
}

static void make_scan(struct fz_request *req, struct fz_rng *rng)
{
	struct ferry_ioc_scan *arg = &req->scan;
	uint64_t need = 0;

	*arg = (struct ferry_ioc_scan){.granule_bytes = some_granule(rng)};
	some_range(rng, &arg->addr, &arg->len);
	if (fz_once_in(rng, 2))
		arg->flags = FERRY_SCAN_PEEK;
	if (fz_once_in(rng, 30))
		arg->flags = 1U << fz_below(rng, 32);
	if (fz_once_in(rng, 30))
		spoil_extent(rng, &arg->addr, &arg->len);
	if (arg->granule_bytes >= 4096)
		need = granules(arg->addr, arg->len, arg->granule_bytes) *
		       sizeof(struct ferry_scan_row);
	if (need > FZ_BUFFER) {
		req->must |= FZ_SET(ENOSPC);
		arg->out = answer_at(req, rng, 0);
	} else {
		arg->out_bytes = some_room(req, rng, need);
		arg->out = answer_at(req, rng, need);
	}
	req->cmd = FERRY_IOC_SCAN;
	req->arg = put_struct(req, rng, arg, sizeof(*arg));
	if (arg->size < sizeof(*arg)) {
		req->may |= req->must | FZ_SET(ENOSPC) | FZ_SET(EINVAL) | FZ_SET(EFAULT);
		req->out_kept = false;
	}

	judge_extent(req, arg->addr, arg->len);
	if (arg->flags & ~FERRY_SCAN_PEEK || arg->granule_bytes < 4096 ||
	    arg->granule_bytes > FERRY_SCAN_GRANULE_MAX ||
	    arg->granule_bytes & (arg->granule_bytes - 1))
		req->must |= FZ_SET(EINVAL);
}

/* ---- the rest ------------------------------------------------------------------------
 */

static void make_info(struct fz_request *req, struct fz_rng *rng)
{
	struct ferry_ioc_info info = {0};

	req->cmd = FERRY_IOC_INFO;
	req->arg = put_struct(req, rng, &info, sizeof(info));
}

/* No request at all */
static void make_other(struct fz_request *req, struct fz_rng *rng)
{
	static const unsigned int cmd[] = {
		0,
		_IO(FERRY_IOC_TYPE, 2),
		_IOW(FERRY_IOC_TYPE, 2, char),
		_IOR(FERRY_IOC_TYPE, 3, struct ferry_ioc_query),
		_IOW(FERRY_IOC_TYPE, 0x7f, struct ferry_ioc_scan),
		UINT_MAX,
	};

	req->cmd = cmd[fz_below(rng, sizeof(cmd) / sizeof(cmd[0]))];
	req->arg = nowhere(rng);
}

void fz_request_make(struct fz_request *req, struct fz_rng *rng)
{
	static void (*const make[])(struct fz_request *, struct fz_rng *) = {
		[FZ_MIGRATE] = make_migrate, [FZ_QUERY] = make_query,
		[FZ_SCAN] = make_scan,       [FZ_INFO] = make_info,
		[FZ_OTHER] = make_other,
	};
	static const enum fz_op op[] = {FZ_MIGRATE, FZ_MIGRATE, FZ_MIGRATE, FZ_MIGRATE,
					FZ_MIGRATE, FZ_MIGRATE, FZ_MIGRATE, FZ_QUERY,
					FZ_QUERY,   FZ_SCAN,    FZ_SCAN};

	req->op = op[fz_below(rng, sizeof(op) / sizeof(op[0]))];
	if (fz_once_in(rng, 30))
		req->op = fz_once_in(rng, 2) ? FZ_INFO : FZ_OTHER;
	req->foreign = fz_once_in(rng, 60);
	req->bad_uring = fz_once_in(rng, 60);
	req->out_kept = req->wild = false;
	req->out_bytes = 0;
	req->must = 0;
	/* The kernel's memory, and the signals of this program */
	req->may = FZ_SET(ENOMEM) | FZ_SET(EINTR);
	make[req->op](req, rng);
}
