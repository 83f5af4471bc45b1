/* SPDX-License-Identifier: MIT */
/* Units (syscall_job.h). */
#include "migrate/syscall_job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "migrate/mapping.h"
#include "migrate/pagemap.h"

/*
 * Pages from which on it pays to look for huge pages: opening the page map
 * costs about what moving a page does. Without a look every page is named,
 * which is right too.
 */
#define WORTH_A_SCAN 16

static void add_unit(struct job *job, uintptr_t addr, uintptr_t end, bool populate)
{
	job->unit[job->units++] = (struct unit){
		.addr = addr,
		.pages = (uint16_t)((end - addr) / PAGE_BYTES),
		.populate = populate,
	};
}

/* Units for [addr, end), a page each, or a granule each where it is @huge. */
static void add_run(struct job *job, uintptr_t addr, uintptr_t end, bool huge,
		    bool populate)
{
	while (addr < end) {
		uintptr_t stop = huge ? granule_end(addr) : addr + PAGE_BYTES;

		if (stop > end)
			stop = end;
		add_unit(job, addr, stop, populate);
		addr = stop;
	}
}

/* Units for a part of a piece that is one mapping. */
static void add_mapped(struct job *job, uintptr_t addr, uintptr_t end, bool populate)
{
	struct huge_run run[PAGEMAP_RUNS];

	while (addr < end && job->pagemap >= 0) {
		uintptr_t walked;
		int found = pagemap_huge_runs(job->pagemap, addr, end, run, &walked);

		if (found < 0) {
			/* Linux before 6.7 */
			close(job->pagemap);
			job->pagemap = -1;
			break;
		}
		for (int i = 0; i < found; i++) {
			add_run(job, addr, run[i].start, false, populate);
			add_run(job, run[i].start, run[i].end, true, populate);
			addr = run[i].end;
		}
		if (walked > addr) {
			add_run(job, addr, walked, false, populate);
			addr = walked;
		}
	}
	add_run(job, addr, end, false, populate);
}

static int add_piece(struct job *job, struct mapping_reader *reader,
		     const struct piece *piece, struct ferry_result *result)
{
	uintptr_t addr = piece->addr, end = addr + piece->len;

	while (addr < end) {
		struct mapping mapping;
		uintptr_t stop = end;
		int found = mapping_find(reader, addr, &mapping);

		if (found < 0)
			return found;
		if (!found || mapping.start > addr) {
			if (found && mapping.start < end)
				stop = mapping.start;
			result->hole += (stop - addr) / PAGE_BYTES;
		} else {
			if (mapping.end < end)
				stop = mapping.end;
			if (mapping.anonymous)
				add_mapped(job, addr, stop,
					   piece->flags & FERRY_POPULATE &&
						   mapping.writable);
			else
				result->unsupported += (stop - addr) / PAGE_BYTES;
		}
		addr = stop;
	}
	return 0;
}

void job_split_unit(struct job *job, size_t i)
{
	size_t pages = job->unit[i].pages;

	job->unit[i].pages = 1;
	for (size_t k = 1; k < pages; k++) {
		struct unit *page = &job->unit[job->units++];

		*page = job->unit[i];
		page->addr += k * PAGE_BYTES;
	}
}

int job_add_units(struct job *job, struct batch *batch)
{
	struct mapping_reader reader;
	int err = mapping_open(&reader, false);

	if (err)
		return err;
	if (job->pages >= WORTH_A_SCAN)
		job->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; i < batch->count && !err; i++)
		err = add_piece(job, &reader, &batch->piece[i], &batch->result);
	mapping_close(&reader);
	return err;
}

int job_make(struct job *job, const struct batch *batch)
{
	size_t pages = batch->piece[0].len / PAGE_BYTES;

	for (size_t i = 1; i < batch->count; i++)
		pages += batch->piece[i].len / PAGE_BYTES;
	*job = (struct job){.node = batch->piece[0].node, .pagemap = -1, .pages = pages};
	job->unit = malloc(pages * sizeof(*job->unit));
	job->page = malloc(pages * sizeof(*job->page));
	job->target = malloc(pages * sizeof(*job->target));
	job->status = malloc(pages * sizeof(*job->status));
	job->index = malloc(pages * sizeof(*job->index));
	if (job->unit && job->page && job->target && job->status && job->index)
		return 0;
	return -ENOMEM;
}

void job_free(struct job *job)
{
	if (job->pagemap >= 0)
		close(job->pagemap);
	free(job->unit);
	free(job->page);
	free(job->target);
	free(job->status);
	free(job->index);
}
