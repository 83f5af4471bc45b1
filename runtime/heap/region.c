/* SPDX-License-Identifier: MIT */
/* Regions: see region.h, which also has the locking rule. */
#include "heap/region.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "heap/hbm_limit.h"
#include "heap/huge.h"
#include "heap/range_set.h"
#include "heap/region_policy.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

#define RESERVE_LEAST    ((size_t)64 << 30) /* where nothing limits address space */
#define RESERVE_MOST     ((size_t)16 << 40) /* of the 128 TiB that x86-64 has */
#define RESERVE_MEMORY   16                 /* times the machine's memory */
#define RESERVE_LIMITED  32                 /* the part of RLIMIT_AS, where that is set */
#define OPEN_STEP        CHUNK_SIZE
#define RESERVATIONS_MAX 256

/* ---- where the regions are: written under the lock, read without --------- */

struct reservation {
	uintptr_t start, end;
	enum region_kind kind;
};

static struct reservation reservations[RESERVATIONS_MAX];
static atomic_int reservation_count; /* entries below it never change */

/* ---- the regions: under the lock ----------------------------------------- */

static struct region {
	struct range_set free;          /* open and not in use */
	uintptr_t opened, reserved_end; /* of the latest reservation */
	size_t reserved_bytes;
	size_t used_bytes, peak_bytes, charged_bytes;

	/* Parts of a byte that count against the HBM limit: set by region_init() */
	unsigned int hbm_weight;
} regions[REGION_KINDS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t overflow_bytes;

/* What REGION_AUTO may still open as HBM; under the lock. */
static uint64_t auto_hbm_left;

/* Set once. */
static _Atomic(const struct region_filler *) filler;

static uint64_t memory_bytes; /* never changes after region_init() */

static uintptr_t chunk_up(uintptr_t value)
{
	return (value + CHUNK_SIZE - 1) & ~(CHUNK_SIZE - 1);
}

int region_of(const void *addr)
{
	int count = atomic_load_explicit(&reservation_count, memory_order_acquire);

	for (int i = 0; i < count; i++)
		if ((uintptr_t)addr >= reservations[i].start &&
		    (uintptr_t)addr < reservations[i].end)
			return (int)reservations[i].kind;
	return -1;
}

bool region_has(enum region_kind kind, uintptr_t start, uintptr_t *end)
{
	int count = atomic_load_explicit(&reservation_count, memory_order_acquire);
	bool has = region_of((void *)start) == (int)kind;

	for (int i = 0; i < count; i++) {
		const struct reservation *r = &reservations[i];
		uintptr_t until = has ? r->end : r->start;

		if (r->kind == kind && until > start && until < *end &&
		    (!has || r->start <= start))
			*end = until;
	}
	return has;
}

/* ---- at the start --------------------------------------------------------- */

static uint64_t tier_bytes(const struct topology *topology, enum ferry_tier tier)
{
	uint64_t bytes = 0;

	for (int i = 0; i < topology->node_count; i++)
		if (topology->node[i].tier == (int)tier)
			bytes += topology->node[i].total_bytes;
	return bytes;
}

int region_init(const struct topology *topology, uint64_t hbm_limit)
{
	const struct interleave interleaved = region_policy_init(topology);

	auto_hbm_left = hbm_limit;
	if (auto_hbm_left > tier_bytes(topology, FERRY_TIER_HBM))
		auto_hbm_left = tier_bytes(topology, FERRY_TIER_HBM);
	auto_hbm_left /= 2;

	hbm_limit_init(hbm_limit, interleaved.parts);
	regions[REGION_HBM].hbm_weight = region_has_policy() ? interleaved.parts : 0;
	regions[REGION_INTERLEAVE].hbm_weight = interleaved.hbm;

	for (int i = 0; i < topology->node_count; i++)
		memory_bytes += topology->node[i].total_bytes;
	return region_policy_try();
}

/* ---- reserving and opening ----------------------------------------------- */

/* How much to ask for where anything from @need bytes on will do. */
static size_t reservation_size(const struct region *region, size_t need)
{
	struct rlimit limit;
	size_t size = RESERVE_LEAST;

	if (!getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY)
		size = limit.rlim_cur / RESERVE_LIMITED + region->reserved_bytes / 4;
	else if (memory_bytes > RESERVE_LEAST / RESERVE_MEMORY)
		size = memory_bytes > RESERVE_MOST / RESERVE_MEMORY
			       ? RESERVE_MOST
			       : memory_bytes * RESERVE_MEMORY;
	return chunk_up(size > need ? size : need);
}

/*
 * Address space of @size bytes that begins as a chunk does; 0: there is none. A page
 * on each side stays out of reach, or the kernel could join what is in it with a
 * neighbour of the same policy: numa_maps would then tell of both in one line.
 */
static uintptr_t map_aligned(size_t size)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const size_t len = size + CHUNK_SIZE + 2 * page;
	char *mapped = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *first, *end;

	if (mapped == MAP_FAILED)
		return 0;
	first = (char *)chunk_up((uintptr_t)mapped + page);
	end = first + size + page;
	if (first - page > mapped)
		munmap(mapped, (size_t)(first - page - mapped));
	if (end < mapped + len)
		munmap(end, (size_t)(mapped + len - end));
	return (uintptr_t)first;
}

static void add_to_filler(const struct reservation *r)
{
	const struct region_filler *set = atomic_load(&filler);

	if (set && r->kind != REGION_METADATA)
		set->add(r->start, r->end - r->start);
}

void region_set_filler(const struct region_filler *set)
{
	pthread_mutex_lock(&lock);
	atomic_store(&filler, set);
	for (int i = 0; i < reservation_count; i++)
		add_to_filler(&reservations[i]);
	pthread_mutex_unlock(&lock);
}

void region_fill(void *addr, size_t size, bool by_filler)
{
	const struct region_filler *set = atomic_load(&filler);
	uintptr_t start = granule_up((uintptr_t)addr);
	uintptr_t end = granule_down((uintptr_t)addr + size);

	if (set && start < end)
		(by_filler ? set->add : set->remove)(start, end - start);
}

static bool reserve(enum region_kind kind, size_t need)
{
	struct region *region = &regions[kind];
	size_t size = reservation_size(region, need);
	int count = atomic_load_explicit(&reservation_count, memory_order_relaxed);
	uintptr_t start = 0;

	if (count == RESERVATIONS_MAX)
		return false;
	for (;;) {
		start = map_aligned(size);
		if (start || size <= need)
			break;
		size = chunk_up(size / 2 > need ? size / 2 : need);
	}
	if (!start)
		return false;
	if (kind == REGION_METADATA) /* where the kernel knows huge pages */
		madvise((void *)start, size, MADV_NOHUGEPAGE);
	else
		huge_advise_region((void *)start, size);
	/* Stripes come as it is opened. */
	if (!region_is_striped(kind) &&
	    region_apply_policy((void *)start, size, kind, 0)) {
		munmap((void *)start, size);
		return false;
	}
	reservations[count] = (struct reservation){start, start + size, kind};
	atomic_store_explicit(&reservation_count, count + 1, memory_order_release);
	add_to_filler(&reservations[count]);
	region->opened = start;
	region->reserved_end = start + size;
	region->reserved_bytes += size;
	return true;
}

/* REGION_AUTO's memory is HBM's as long as that lasts. */
static void prefer_hbm(uintptr_t start, size_t size)
{
	if (size <= auto_hbm_left &&
	    !region_apply_policy((void *)start, size, REGION_HBM, 0))
		auto_hbm_left -= size;
}

/* Opens @size bytes more of the latest reservation. */
static bool open_bytes(enum region_kind kind, size_t size)
{
	struct region *region = &regions[kind];
	uintptr_t start = region->opened;

	/* First the entry in the set, so that nothing need be undone. */
	if (!size || range_set_reserve(&region->free, 1))
		return false;
	if (kind == REGION_AUTO)
		prefer_hbm(start, size);
	if (region_is_striped(kind) &&
	    region_apply_stripes(start, start + size, region->used_bytes))
		return false;
	if (mprotect((void *)start, size, PROT_READ | PROT_WRITE))
		return false;
	region->opened += size;
	range_set_add(&region->free, start, start + size);
	return true;
}

/* Makes space for a cut of @need bytes, which include those for alignment. */
static bool open_more(enum region_kind kind, size_t need)
{
	struct region *region = &regions[kind];
	size_t left = region->reserved_end - region->opened;
	size_t step;

	need = chunk_up(need);
	if (left < need) {
		open_bytes(kind, left);
		if (!reserve(kind, need))
			return false;
		left = region->reserved_end - region->opened;
	}
	/* In proportion, so that a large heap needs few steps. */
	step = chunk_up(OPEN_STEP + region->used_bytes / 16);
	if (step > need && step <= left && open_bytes(kind, step))
		return true;
	return open_bytes(kind, need);
}

/* ---- cutting ------------------------------------------------------------- */

void region_limit_by(uint64_t (*limit)(uint64_t bytes))
{
	hbm_limit_by(limit);
	if (auto_hbm_left > limit(0) / 2)
		auto_hbm_left = limit(0) / 2;
}

static void count_use(enum region_kind kind, size_t bytes)
{
	struct region *region = &regions[kind];

	region->used_bytes += bytes;
	if (region->used_bytes > region->peak_bytes)
		region->peak_bytes = region->used_bytes;
}

/* The region that a cut comes from, with the cut charged; -1: none, for @strict. */
static int charge_cut(enum region_kind kind, size_t size, bool strict)
{
	if (hbm_limit_charge(size, regions[kind].hbm_weight))
		return (int)kind;
	if (strict)
		return -1;
	overflow_bytes += size;
	return REGION_DDR;
}

/* Takes note of a charged cut that came to @start, 0: to nothing. */
static void end_cut(enum region_kind kind, uintptr_t start, size_t size)
{
	if (start)
		count_use(kind, size);
	else
		hbm_limit_uncharge(size, regions[kind].hbm_weight);
}

/* 0: no space. */
static uintptr_t cut_any(enum region_kind kind, size_t size, size_t alignment)
{
	uintptr_t start = range_set_take(&regions[kind].free, size, alignment);

	if (!start && open_more(kind, size + alignment))
		start = range_set_take(&regions[kind].free, size, alignment);
	return start;
}

/* Puts a piece with room for @size bytes in the place of what is left of one. */
static bool refill(enum region_kind kind, struct region_piece *piece, size_t size)
{
	struct range_set *free = &regions[kind].free;
	size_t least = size > GRANULE_SIZE ? size : GRANULE_SIZE, got;
	uintptr_t start =
		range_set_take_piece(free, least, GRANULE_SIZE, CHUNK_SIZE, &got);

	if (!start && open_more(kind, CHUNK_SIZE))
		start = range_set_take_piece(free, least, GRANULE_SIZE, CHUNK_SIZE, &got);
	if (!start)
		return false;
	range_set_add(free, piece->start, piece->end); /* if not, just space is lost */
	*piece = (struct region_piece){start, start + got};
	return true;
}

/* 0: no space. */
static uintptr_t cut_small(enum region_kind kind, struct region_piece *piece, size_t size,
			   size_t alignment)
{
	uintptr_t start = (piece->start + alignment - 1) & ~(alignment - 1);

	if (start > piece->end || piece->end - start < size) {
		if (!refill(kind, piece, size))
			return 0;
		start = piece->start;
	}
	range_set_add(&regions[kind].free, piece->start, start);
	piece->start = start + size;
	return start;
}

/* The pages of [start, end) are with the kernel. 0 or -ENOMEM. */
static int put_back(uintptr_t start, uintptr_t end)
{
	int kind = region_of((void *)start);
	int err = start < end ? range_set_add(&regions[kind].free, start, end) : 0;

	if (!err && start < end) {
		regions[kind].used_bytes -= end - start;
		hbm_limit_uncharge(end - start, regions[kind].hbm_weight);
	}
	return err;
}

void *region_alloc(enum region_kind kind, size_t size, size_t alignment, bool strict)
{
	uintptr_t start = 0;
	size_t need;
	int from;

	if (__builtin_add_overflow(size, alignment, &need) || need > RESERVE_MOST)
		return NULL;
	pthread_mutex_lock(&lock);
	from = charge_cut(kind, size, strict);
	if (from >= 0) {
		start = cut_any((enum region_kind)from, size, alignment);
		end_cut((enum region_kind)from, start, size);
	}
	pthread_mutex_unlock(&lock);
	return (void *)start;
}

void *region_alloc_small(enum region_kind kind, struct region_chunk *chunk, size_t size,
			 size_t alignment, bool strict)
{
	uintptr_t start = 0;
	int from;

	pthread_mutex_lock(&lock);
	from = charge_cut(kind, size, strict);
	if (from >= 0) {
		start = cut_small((enum region_kind)from,
				  from == (int)kind ? &chunk->own : &chunk->overflow,
				  size, alignment);
		end_cut((enum region_kind)from, start, size);
	}
	pthread_mutex_unlock(&lock);
	return (void *)start;
}

/* Cuts [start, end) out of the free space, opened as far as need be. */
static bool cut_at(enum region_kind kind, uintptr_t start, uintptr_t end)
{
	struct region *region = &regions[kind];

	if (start <= region->opened && end > region->opened &&
	    end <= region->reserved_end &&
	    range_set_overlap(&region->free, start, end) == region->opened - start)
		open_bytes(kind, chunk_up(end) > region->reserved_end
					 ? region->reserved_end - region->opened
					 : chunk_up(end) - region->opened);
	return range_set_overlap(&region->free, start, end) == end - start &&
	       !range_set_remove(&region->free, start, end, NULL);
}

static bool cut_next(struct region_piece *piece, uintptr_t start, size_t size)
{
	if (piece->start != start || piece->end - start < size)
		return false;
	piece->start += size;
	return true;
}

bool region_extend(void *addr, struct region_chunk *chunk, size_t size)
{
	uintptr_t start = (uintptr_t)addr, end;
	int kind = region_of(addr);
	bool done = false;

	if (kind < 0 || kind != region_of((char *)addr - 1) ||
	    __builtin_add_overflow(start, size, &end))
		return false;
	pthread_mutex_lock(&lock);
	if (hbm_limit_charge(size, regions[kind].hbm_weight)) {
		done = cut_next(&chunk->own, start, size) ||
		       cut_next(&chunk->overflow, start, size) ||
		       cut_at((enum region_kind)kind, start, end);
		end_cut((enum region_kind)kind, done ? start : 0, size);
	}
	pthread_mutex_unlock(&lock);
	return done;
}

/* Written once; let_go before hold, which tells that both are there. */
static void (*guard_let_go)(void);
static _Atomic(void (*)(const void *, size_t)) guard_hold;

void region_guard(void (*hold)(const void *addr, size_t size), void (*let_go)(void))
{
	guard_let_go = let_go;
	atomic_store(&guard_hold, hold);
}

int region_discard(void *addr, size_t size)
{
	void (*hold)(const void *, size_t) = atomic_load(&guard_hold);
	int err = 0;

	if (hold)
		hold(addr, size);
	if (madvise(addr, size, MADV_DONTNEED) &&
	    madvise(addr, size, MADV_DONTNEED_LOCKED))
		err = -errno;
	if (hold)
		guard_let_go();
	return err;
}

int region_free(void *addr, size_t size)
{
	int err;

	if (region_of(addr) < 0)
		return -EINVAL;
	err = region_discard(addr, size);
	if (err)
		return err;
	pthread_mutex_lock(&lock);
	err = put_back((uintptr_t)addr, (uintptr_t)addr + size);
	pthread_mutex_unlock(&lock);
	return err;
}

/* ---- mappings outside, counters ------------------------------------------ */

bool region_charge(enum region_kind kind, size_t bytes)
{
	bool within;

	pthread_mutex_lock(&lock);
	within = hbm_limit_charge(bytes, regions[kind].hbm_weight);
	if (within)
		regions[kind].charged_bytes += bytes;
	else
		overflow_bytes += bytes;
	pthread_mutex_unlock(&lock);
	return within;
}

void region_uncharge(enum region_kind kind, size_t bytes)
{
	pthread_mutex_lock(&lock);
	regions[kind].charged_bytes -= bytes;
	hbm_limit_uncharge(bytes, regions[kind].hbm_weight);
	pthread_mutex_unlock(&lock);
}

size_t region_spans(enum region_kind kind, struct span *out, size_t max)
{
	size_t n = 0;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < reservation_count; i++) {
		struct span span = {reservations[i].start, reservations[i].end};

		if (reservations[i].kind != kind)
			continue;
		if (span.end == regions[kind].reserved_end)
			span.end = regions[kind].opened;
		if (n < max)
			out[n] = span;
		n++;
	}
	pthread_mutex_unlock(&lock);
	return n;
}

void region_usage(struct region_usage *out)
{
	pthread_mutex_lock(&lock);
	out->reserved_bytes = 0;
	for (int kind = 0; kind < REGION_KINDS; kind++) {
		out->reserved_bytes += regions[kind].reserved_bytes;
		out->used_bytes[kind] = regions[kind].used_bytes;
		out->peak_bytes[kind] = regions[kind].peak_bytes;
	}
	for (int kind = 0; kind < REGION_PLACED; kind++)
		out->charged_bytes[kind] = regions[kind].charged_bytes;
	out->overflow_bytes = overflow_bytes;
	pthread_mutex_unlock(&lock);
}

/* ---- fork ---------------------------------------------------------------- */

void region_fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

void region_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

void region_fork_child(void)
{
	pthread_mutex_unlock(&lock);
}
