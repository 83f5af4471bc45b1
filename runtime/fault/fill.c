/* SPDX-License-Identifier: MIT */
/* Filling what is touched for the first time: see fill.h. */
#include "fault/fill.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "fault/room.h"
#include "fault/uffd.h"
#include "migrate/page.h"

/* What one UFFDIO_COPY copies: small enough to stay in a cache. */
#define CHUNK BLOCK_BYTES

/* Threads that touch memory in order, each its own, and some that have ended. */
#define STREAMS 256

/*
 * What was filled and not followed by a touch in order may have been filled in vain.
 * Of all memory, the part that may be; and what does not matter.
 */
#define VAIN_PART  16
#define VAIN_LEAST (16 * GRANULE_BYTES)

/* Of all memory, the part that is to be left; how much is filled before looking. */
#define LEFT_PART 16
#define LOOK_PART 64

static int uffd;
static const char zeros[CHUNK] __attribute__((aligned(4096)));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Memory touched in order; under the lock. */
static struct stream {
	uintptr_t end; /* of what was filled last */
	size_t part;   /* in parts of this size */
	size_t filled; /* of the last one */
} streams[STREAMS];
static unsigned int oldest;

/* Under the lock, but for ends. */
static struct {
	uint64_t filled, in_vain;
	uint64_t look_at; /* to look at what is left when so much is filled */
	struct room room;
	_Atomic(const char *) ends;
} account;

void fill_open(int fd)
{
	/* Those of a parent may be as its threads left them. */
	pthread_mutex_init(&lock, NULL);
	memset(streams, 0, sizeof(streams));
	memset(&account, 0, sizeof(account));
	uffd = fd;
	room_open();
}

const char *fill_ends(void)
{
	return atomic_load_explicit(&account.ends, memory_order_relaxed);
}

/* Under the lock. */
static void judge(void)
{
	const char *ends = NULL;

	if (account.filled >= account.look_at) {
		account.room = room_look();
		account.look_at = account.filled + account.room.left / LOOK_PART;
		if (account.room.left < account.room.total / LEFT_PART)
			ends = "memory is scarce";
	}
	if (account.in_vain > account.room.total / VAIN_PART ||
	    (account.in_vain > VAIN_LEAST && account.in_vain > account.filled / 2))
		ends = "memory is touched here and there";
	if (ends)
		atomic_store(&account.ends, ends);
}

/* The stream that ends at @addr, or whose last part it is in; NULL: neither. */
static struct stream *stream_at(uintptr_t addr)
{
	struct stream *within = NULL;

	for (unsigned int i = 0; i < STREAMS; i++) {
		struct stream *stream = &streams[i];

		if (stream->end == addr)
			return stream;
		if (stream->end - addr <= stream->filled)
			within = stream;
	}
	return within;
}

/* Where to end that begins at @addr; notes it for what follows. */
static uintptr_t plan(uintptr_t addr)
{
	struct stream *stream;
	uintptr_t end;

	pthread_mutex_lock(&lock);
	stream = stream_at(addr);
	/*
	 * Several threads touch the same memory, or it was discarded and is touched
	 * again: no more memory is taken than before.
	 */
	if (stream && stream->end != addr) {
		end = stream->end;
		pthread_mutex_unlock(&lock);
		return end;
	}
	if (stream) {
		account.in_vain -= stream->filled;
		if (stream->part < GRANULE_BYTES)
			stream->part *= 2;
	} else {
		stream = &streams[oldest++ % STREAMS];
		stream->part = BLOCK_BYTES;
	}
	end = (addr & ~(stream->part - 1)) + stream->part;
	stream->end = end;
	stream->filled = end - addr;
	account.in_vain += stream->filled;
	account.filled += stream->filled;
	judge();
	pthread_mutex_unlock(&lock);
	return end;
}

/* Fills [at, end) up to what is there already; in *@done, how much. 0 or -errno. */
static int fill_run(uintptr_t at, uintptr_t end, bool write, size_t *done)
{
	const uintptr_t start = at;
	int err = 0;

	while (at < end && !err) {
		size_t len = end - at < CHUNK ? end - at : CHUNK, filled;

		err = write ? uffd_copy(uffd, at, zeros, len, UFFDIO_COPY_MODE_DONTWAKE,
					&filled)
			    : uffd_zero(uffd, at, len, UFFDIO_ZEROPAGE_MODE_DONTWAKE,
					&filled);
		at += filled;
		if (filled && err == -EAGAIN)
			err = 0;
	}
	*done = at - start;
	return err;
}

int fill(uintptr_t addr, bool write, size_t *filled)
{
	uintptr_t end = plan(addr);
	int err = fill_run(addr, end, write, filled);

	/*
	 * A mapping that ends within is refused as a whole; the page itself may
	 * fit where all of it did not.
	 */
	if (err && !*filled && err != -EEXIST)
		err = fill_run(addr, addr + PAGE_BYTES, write, filled);
	return *filled || err == -EEXIST ? 0 : err;
}
