/* SPDX-License-Identifier: MIT */
/*
 * The engine `relocate`: relocation (relocate.h) of granules that one huge page
 * maps, or comes to map (collapse.h), by threads of its own, the copiers. What
 * else is in a batch, and what could not be relocated, goes to move_pages(2),
 * which also says why.
 *
 * A batch is given to the copiers by `queue`, whose lock is held for looking at
 * it only. Copiers are started when there is work for one more, up to as many
 * as batches may be in flight, and never end. Lock order: migrate.c's, the
 * worker's queue, this queue, the gate of relocate.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "heap/region.h"
#include "migrate/collapse.h"
#include "migrate/engine.h"
#include "migrate/held.h"
#include "migrate/mapping.h"
#include "migrate/relocate.h"
#include "migrate/staging.h"
#include "migrate/worker.h"
#include "os/thread.h"

/* What is to be done with a piece. */
enum way {
	COLLAPSE,       /* small pages: to become a huge one first */
	RELOCATE,       /* a huge page, not on the target */
	RELOCATE_SMALL, /* small pages: to become a huge one there */
	SETTLED,        /* counted, or move_pages(2)'s */
};

/* A batch in the copiers' hands. */
struct task {
	struct batch *batch;
	struct batch rest; /* what move_pages(2) is to do */
	enum way how[BATCH_PIECES];
	int16_t node[BATCH_PIECES];   /* RELOCATE: where they come from */
	uint16_t there[BATCH_PIECES]; /* small pages that were on the target before */
	bool asynchronous;            /* to be reaped; else somebody waits for done */
	bool done;
	struct task *next;
};

#define COPIER_STACK ((size_t)512 << 10)

/* How long vacated pages are kept for what moves next. */
#define KEPT_SECONDS 5

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work, finished;
	struct task *first, **last; /* not begun */
	struct task *reapable;
	unsigned int copiers, idle;
	bool complained; /* on stderr, once, children included */
	int wake_fd;     /* eventfd: something can be reaped */
	char *stacks;
} queue = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.work = PTHREAD_COND_INITIALIZER,
	.finished = PTHREAD_COND_INITIALIZER,
	.last = &queue.first,
	.wake_fd = -1,
};

/* ---- a batch ------------------------------------------------------------- */

static void to_rest(struct task *task, size_t piece)
{
	task->how[piece] = SETTLED;
	task->rest.piece[task->rest.count++] = task->batch->piece[piece];
}

/* A granule that is on the target, @there pages of it since before the batch. */
static void count(struct task *task, size_t piece, unsigned int there)
{
	task->batch->result.moved += GRANULE_PAGES - there;
	task->batch->result.already += there;
	task->how[piece] = SETTLED;
}

/* The mapping that was looked at last, and whether its small pages may become huge. */
struct view {
	struct mapping_reader reader;
	struct mapping mapping;
	enum { UNKNOWN, NO, YES } advised;
};

/* A granule of plain memory. 1, 0 or -errno. */
static int is_plain(struct view *view, const struct piece *piece)
{
	uintptr_t before = view->mapping.start;
	const struct mapping *mapping = &view->mapping;
	int found;

	if (piece->len != GRANULE_BYTES)
		return 0;
	found = mapping_find(&view->reader, piece->addr, &view->mapping);
	if (found <= 0)
		return found;
	if (mapping->start != before)
		view->advised = UNKNOWN;
	return mapping->start <= piece->addr &&
	       mapping->end >= piece->addr + GRANULE_BYTES && mapping->anonymous &&
	       mapping->writable;
}

/* Asked once a mapping, as it may take long. */
static bool is_advised(struct view *view, uintptr_t granule)
{
	if (view->advised == UNKNOWN)
		view->advised = collapse_advised(granule) ? YES : NO;
	return view->advised == YES;
}

/* Asks the module first, as it takes least time to answer. */
static int nodes_of(uintptr_t addr, size_t len, int16_t *nodes)
{
	return held_nodes(addr, len, nodes) ? engine_syscall.query(addr, len, nodes) : 0;
}

/*
 * What a huge page maps: to be relocated, if it is not there; @there: how many of
 * its pages are there of old, if it is.
 */
static void sort_huge(struct task *task, size_t i, unsigned int there)
{
	const struct piece *piece = &task->batch->piece[i];

	if (nodes_of(piece->addr, PAGE_BYTES, &task->node[i]) || task->node[i] < 0)
		to_rest(task, i);
	else if (task->node[i] == piece->node)
		count(task, i, there);
	else
		task->how[i] = RELOCATE;
}

/* What small pages map: to become huge, if it may, and is not all there. */
static void sort_small(struct task *task, size_t i, struct view *view)
{
	const struct piece *piece = &task->batch->piece[i];
	int16_t node[GRANULE_PAGES];

	if (!collapse_allowed(piece->addr) || !is_advised(view, piece->addr) ||
	    !relocate_is_full(piece->addr) ||
	    nodes_of(piece->addr, GRANULE_BYTES, node)) {
		to_rest(task, i);
		return;
	}
	for (size_t k = 0; k < GRANULE_PAGES; k++)
		task->there[i] += node[k] == piece->node;
	if (task->there[i] == GRANULE_PAGES)
		count(task, i, GRANULE_PAGES);
	/* Of Ferry's regions nothing is unmapped. */
	else if (relocate_takes_small() && region_of((void *)piece->addr) >= 0)
		task->how[i] = RELOCATE_SMALL;
	else
		task->how[i] = COLLAPSE;
}

static int sort_out(struct task *task)
{
	struct batch *batch = task->batch;
	struct view view = {.advised = UNKNOWN};
	int err = mapping_open(&view.reader, false);

	if (err)
		return err;
	for (size_t i = 0; i < batch->count && !err; i++) {
		int found = is_plain(&view, &batch->piece[i]);

		task->there[i] = 0;
		if (found < 0)
			err = found;
		else if (!found)
			to_rest(task, i);
		else if (relocate_is_huge(batch->piece[i].addr))
			sort_huge(task, i, GRANULE_PAGES);
		else
			sort_small(task, i, &view);
	}
	mapping_close(&view.reader);
	return err;
}

/* The pieces from @first on, @most at most, that lie together and go the same way. */
static size_t run_length(const struct task *task, size_t first, size_t most)
{
	const struct piece *piece = task->batch->piece;
	size_t n = 1;

	while (first + n < task->batch->count && n < most &&
	       task->how[first + n] == task->how[first] &&
	       piece[first + n].addr == piece[first + n - 1].addr + GRANULE_BYTES)
		n++;
	return n;
}

/*
 * The huge page comes up on the node that most of the small ones are on; where
 * that is the target, those on other nodes have been moved.
 */
static void collapse_small(struct task *task)
{
	struct batch *batch = task->batch;

	for (size_t i = 0, n; i < batch->count; i += n) {
		n = 1;
		if (task->how[i] != COLLAPSE)
			continue;
		n = run_length(task, i, batch->count);
		collapse(batch->piece[i].addr, n * GRANULE_BYTES);
		for (size_t k = i; k < i + n; k++)
			if (relocate_is_huge(batch->piece[k].addr))
				sort_huge(task, k, task->there[k]);
			else
				to_rest(task, k);
	}
}

static void relocate_pieces(struct task *task)
{
	struct batch *batch = task->batch;

	for (size_t i = 0, n; i < batch->count; i += n) {
		bool small = task->how[i] == RELOCATE_SMALL;
		uint32_t there;

		n = 1;
		if (task->how[i] != RELOCATE && !small)
			continue;
		n = run_length(task, i, WINDOW_GRANULES);
		there = relocate_run(batch->piece[i].addr, n,
				     small ? NULL : &task->node[i], batch->piece[i].node);
		for (size_t k = 0; k < n; k++)
			if (there & 1U << k)
				count(task, i + k, task->there[i + k]);
			else
				to_rest(task, i + k);
	}
}

static int by_addr(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return (x->addr > y->addr) - (x->addr < y->addr);
}

static void carry_out(struct task *task)
{
	struct batch *batch = task->batch, *rest = &task->rest;

	rest->count = 0;
	rest->result = (struct ferry_result){0};
	batch->result.error = sort_out(task);
	if (!batch->result.error) {
		collapse_small(task);
		relocate_pieces(task);
		qsort(rest->piece, rest->count, sizeof(*rest->piece), by_addr);
		if (rest->count)
			engine_syscall.move(rest);
		result_add(&batch->result, &rest->result);
	}
}

/* ---- copiers ------------------------------------------------------------- */

/*
 * Waits for work, with the lock. What is kept for the next pages to be moved is given
 * back when none came for some time.
 */
static void wait_for_work(void)
{
	struct timespec end;
	bool none = false;

	queue.idle++;
	if (staging_keeps()) {
		clock_gettime(CLOCK_MONOTONIC, &end);
		end.tv_sec += KEPT_SECONDS;
		none = pthread_cond_clockwait(&queue.work, &queue.lock, CLOCK_MONOTONIC,
					      &end) == ETIMEDOUT;
	} else {
		pthread_cond_wait(&queue.work, &queue.lock);
	}
	queue.idle--;
	if (!none || queue.first)
		return;
	pthread_mutex_unlock(&queue.lock);
	staging_trim();
	pthread_mutex_lock(&queue.lock);
}

static void *copier_main(void *unused)
{
	(void)unused;
	pthread_setname_np(pthread_self(), "ferry-copier");
	pthread_mutex_lock(&queue.lock);
	for (;;) {
		struct task *task = queue.first;
		uint64_t one = 1;

		if (!task) {
			wait_for_work();
			continue;
		}
		queue.first = task->next;
		if (!queue.first)
			queue.last = &queue.first;
		pthread_mutex_unlock(&queue.lock);
		carry_out(task);
		pthread_mutex_lock(&queue.lock);
		task->done = true;
		if (task->asynchronous) {
			task->next = queue.reapable;
			queue.reapable = task;
			(void)!write(queue.wake_fd, &one, sizeof(one));
		} else {
			pthread_cond_broadcast(&queue.finished);
		}
	}
	return NULL;
}

/* No huge page may come to map a stack: it could then be out of place. */
static int map_stacks(void)
{
	size_t len = MAX_COPIERS * COPIER_STACK;
	char *mem;

	if (queue.stacks)
		return 0; /* the parent's; its threads are not here */
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return -errno;
	madvise(mem, len, MADV_NOHUGEPAGE);
	queue.stacks = mem;
	return 0;
}

static int start_copier(void)
{
	char *stack = queue.stacks + queue.copiers * COPIER_STACK;
	int err;

	/* The lowest page is a guard. */
	mprotect(stack, PAGE_BYTES, PROT_NONE);
	err = thread_start_on(stack + PAGE_BYTES, COPIER_STACK - PAGE_BYTES, copier_main,
			      NULL);
	queue.copiers += !err;
	return err;
}

/* Not silent: it is slower without them. */
static void complain(int err)
{
	if (!queue.complained)
		fprintf(stderr,
			"ferry: no thread can be started to relocate huge pages (%s); "
			"they are "
			"moved by move_pages(2)\n",
			strerror(-err));
	queue.complained = true;
}

/* Gives a task to the copiers. 0, or -errno if there are none. */
static int give(struct task *task)
{
	unsigned int waiting = 1;
	int err = 0;

	pthread_mutex_lock(&queue.lock);
	for (const struct task *t = queue.first; t; t = t->next)
		waiting++;
	if (waiting > queue.idle && queue.copiers < worker_limit())
		err = start_copier();
	if (!err || queue.copiers) {
		err = 0;
		task->next = NULL;
		*queue.last = task;
		queue.last = &task->next;
		pthread_cond_signal(&queue.work);
	} else {
		complain(err);
	}
	pthread_mutex_unlock(&queue.lock);
	return err;
}

static struct task *task_make(struct batch *batch, bool asynchronous)
{
	struct task *task = malloc(sizeof(*task));

	if (!task)
		return NULL;
	task->batch = batch;
	task->asynchronous = asynchronous;
	task->done = false;
	return task;
}

static void relocate_move(struct batch *batch)
{
	struct task *task = task_make(batch, false);
	int err = task ? give(task) : -ENOMEM;

	if (!err) {
		pthread_mutex_lock(&queue.lock);
		while (!task->done)
			pthread_cond_wait(&queue.finished, &queue.lock);
		pthread_mutex_unlock(&queue.lock);
	} else {
		engine_syscall.move(batch);
	}
	free(task);
}

static int relocate_start(struct batch *batch)
{
	struct task *task = task_make(batch, true);

	if (!task || give(task)) {
		free(task);
		return -EOPNOTSUPP;
	}
	return 0;
}

static struct batch *relocate_reap(void)
{
	struct batch *batch = NULL;
	struct task *task;
	uint64_t count;

	pthread_mutex_lock(&queue.lock);
	task = queue.reapable;
	if (task)
		queue.reapable = task->next;
	else
		(void)!read(queue.wake_fd, &count, sizeof(count));
	pthread_mutex_unlock(&queue.lock);
	if (task)
		batch = task->batch;
	free(task);
	return batch;
}

static int relocate_wait_fd(void)
{
	return queue.wake_fd;
}

/* ---- the engine ---------------------------------------------------------- */

static int engine_open(const char **why)
{
	int err;

	queue.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue.wake_fd < 0)
		return -errno;
	*why = "no memory for the copiers' stacks";
	err = map_stacks();
	if (!err)
		err = relocate_open(why);
	collapse_open();
	if (err) {
		close(queue.wake_fd);
		queue.wake_fd = -1;
		return err;
	}
	*why = relocate_vouched()
		       ? "userfaultfd with UFFDIO_MOVE; the module tells which pages are "
			 "held"
		       : "userfaultfd with UFFDIO_MOVE; without the module pages held by "
			 "vmsplice(2) or direct I/O on network file systems cannot be "
			 "told";
	return 0;
}

static void engine_forget(void)
{
	relocate_forget();
	if (queue.wake_fd >= 0)
		close(queue.wake_fd);
	queue.wake_fd = -1;
	pthread_mutex_init(&queue.lock, NULL);
	pthread_cond_init(&queue.work, NULL);
	pthread_cond_init(&queue.finished, NULL);
	queue.first = queue.reapable = NULL;
	queue.last = &queue.first;
	queue.copiers = queue.idle = 0;
}

static int engine_query(uintptr_t addr, size_t len, int16_t *nodes)
{
	return engine_syscall.query(addr, len, nodes);
}

const struct engine engine_relocate = {
	.name = "relocate",
	.open = engine_open,
	.forget = engine_forget,
	.move = relocate_move,
	.start = relocate_start,
	.reap = relocate_reap,
	.wait_fd = relocate_wait_fd,
	.query = engine_query,
};
