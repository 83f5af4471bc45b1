/* SPDX-License-Identifier: MIT */
/*
 * Static arrays: see statics.h. All state is written by the constructor and
 * constant from then on.
 */
#include "preload/statics.h"

#include <errno.h>
#include <link.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "heap/huge.h"
#include "heap/range_set.h"
#include "preload/direct.h"
#include "preload/preload.h"

#define MOST 64 /* large ones are few */

/* Of one segment, page-aligned, [start, file_end) the part of the file. */
struct found {
	uintptr_t start, file_end, end;
};

static struct found found[MOST];
static size_t found_count;
static bool too_many;

static struct span placed[MOST]; /* ascending */
static size_t placed_count, placed_bytes;

static uintptr_t page_size;

static uintptr_t down(uintptr_t addr)
{
	return addr & ~(page_size - 1);
}

static uintptr_t up(uintptr_t addr)
{
	return down(addr + page_size - 1);
}

/* ---- finding ------------------------------------------------------------- */

/* What begins before the end of the part that is made read-only. */
static uintptr_t relro_end(const struct dl_phdr_info *object, uintptr_t start,
			   uintptr_t end)
{
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &object->dlpi_phdr[i];
		uintptr_t at = object->dlpi_addr + header->p_vaddr;

		if (header->p_type == PT_GNU_RELRO && at < end &&
		    at + header->p_memsz > start)
			start = up(at + header->p_memsz);
	}
	return start;
}

static void add(const struct dl_phdr_info *object, const ElfW(Phdr) * header)
{
	uintptr_t at = object->dlpi_addr + header->p_vaddr;
	struct found segment = {
		.file_end = up(at + header->p_filesz),
		.end = up(at + header->p_memsz),
	};
	uintptr_t own = (uintptr_t)&preload;

	segment.start = relro_end(object, down(at), segment.end);
	if (segment.file_end < segment.start)
		segment.file_end = segment.start;
	/* This library's own is in use by this very function. */
	if (own >= down(at) && own < segment.end)
		return;
	if (segment.end <= segment.start ||
	    segment.end - segment.start < preload.config.min_size)
		return;
	if (found_count == MOST)
		too_many = true;
	else
		found[found_count++] = segment;
}

static int look_at(struct dl_phdr_info *object, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &object->dlpi_phdr[i];

		if (header->p_type == PT_LOAD &&
		    (header->p_flags & (PF_R | PF_W | PF_X)) == (PF_R | PF_W))
			add(object, header);
	}
	return 0;
}

/* ---- placing ------------------------------------------------------------- */

/*
 * Puts an anonymous copy in the place of a file's private pages, in one step. 0
 * or -errno, with nothing changed.
 */
static int make_anonymous(uintptr_t start, uintptr_t end)
{
	size_t len = end - start;
	void *copy = __wrap_mmap(NULL, len, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err;

	if (copy == MAP_FAILED)
		return -errno;
	/* Interleaving moves nothing that is on one of its nodes; so before filling. */
	region_apply_policy(copy, len, preload.mapping_kind, 0);
	memcpy(copy, (void *)start, len);
	if (direct_mremap(copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start) !=
	    MAP_FAILED)
		return 0;
	err = -errno;
	__wrap_munmap(copy, len);
	return err;
}

static void place(const struct found *segment)
{
	size_t len = segment->end - segment->start;
	uintptr_t start = segment->start;
	int err;

	if (!region_charge(preload.mapping_kind, len))
		return;
	err = segment->file_end > start ? make_anonymous(start, segment->file_end) : 0;
	if (!err)
		err = region_apply_policy((void *)start, len, preload.mapping_kind,
					  MPOL_MF_MOVE);
	if (err) {
		say("static arrays of %zu bytes are not placed: %s", len, strerror(-err));
		region_uncharge(preload.mapping_kind, len);
		return;
	}
	if (preload.advise_mappings)
		huge_advise_mapping((void *)start, len);
	placed[placed_count++] = (struct span){start, segment->end};
	placed_bytes += len;
}

static void sort(void)
{
	for (size_t i = 1; i < placed_count; i++)
		for (size_t k = i; k && placed[k].start < placed[k - 1].start; k--) {
			struct span span = placed[k];

			placed[k] = placed[k - 1];
			placed[k - 1] = span;
		}
}

void statics_init(void)
{
	page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
	dl_iterate_phdr(look_at, NULL);
	if (too_many)
		say("more than %d libraries have large static arrays; the others are not "
		    "placed",
		    MOST);
	for (size_t i = 0; i < found_count; i++)
		place(&found[i]);
	sort();
}

/* ---- what is placed ------------------------------------------------------ */

size_t statics_spans(struct span *out, size_t max)
{
	size_t n = preload.mapping_kind == REGION_AUTO ? placed_count : 0;

	for (size_t i = 0; i < n && i < max; i++)
		out[i] = placed[i];
	return n;
}

bool statics_has_managed(uintptr_t start, uintptr_t *end)
{
	struct range_set set = {.span = placed, .count = placed_count};

	return preload.mapping_kind == REGION_AUTO && range_set_has(&set, start, end);
}

bool statics_has(const void *addr)
{
	for (size_t i = 0; i < placed_count; i++)
		if ((uintptr_t)addr >= placed[i].start && (uintptr_t)addr < placed[i].end)
			return true;
	return false;
}

void statics_usage(struct statics_usage *out)
{
	*out = (struct statics_usage){placed_count, placed_bytes};
}
