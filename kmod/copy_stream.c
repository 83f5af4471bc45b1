// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copying pages, and filling them with zeros, by streaming (non-temporal)
 * stores: they leave the caches to the application, and the memory written is
 * not read first. The pages of a whole run would not stay in the cache until
 * they are used anyway. It also takes fewer instructions than copy_page() and
 * clear_page() of a CPU without fast strings.
 *
 * The vector registers are the kernel's between kernel_fpu_begin() and _end(),
 * during which there is no preemption; so that is done for a few pages at a
 * time.
 *
 * Only on x86-64 with AVX, and not for KMSAN, which has to see the copy.
 *
 * Locking: as in copy.c.
 */
#include <linux/highmem.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>

#include "ferry.h"

#if defined(CONFIG_X86_64) && !defined(CONFIG_KMSAN)

#include <asm/cpufeature.h>
#include <asm/fpu/api.h>
#include <asm/fpu/xstate.h>

/* 128 KiB: some 20 microseconds without preemption */
#define STREAM_PAGES 32
/* Fewer pages are not worth saving the registers of the task. */
#define STREAM_MIN 4

static bool streaming_copy = true;
module_param(streaming_copy, bool, 0644);
MODULE_PARM_DESC(streaming_copy, "Copy with streaming stores, past the caches");

static bool usable(void)
{
	return READ_ONCE(streaming_copy) && boot_cpu_has(X86_FEATURE_AVX) &&
	       cpu_has_xfeatures(XFEATURE_MASK_SSE | XFEATURE_MASK_YMM, NULL) &&
	       irq_fpu_usable();
}

/* 512 bytes at a time, through all of ymm0 to ymm15 */
static void stream_page(void *dst, const void *src)
{
	const void *end = src + PAGE_SIZE;

	do {
		asm volatile(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
			     "vmovdqa (\\n * 32)(%0), %%ymm\\n\n\t"
			     ".endr\n\t"
			     ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
			     "vmovntdq %%ymm\\n, (\\n * 32)(%1)\n\t"
			     ".endr"
			     : : "r" (src), "r" (dst) : "memory");
		src += 512;
		dst += 512;
	} while (src != end);
}

static void stream_zeros(void *dst)
{
	const void *end = dst + PAGE_SIZE;

	do {
		asm volatile("vpxor %%xmm0, %%xmm0, %%xmm0\n\t"
			     ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
			     "vmovntdq %%ymm0, (\\n * 32)(%0)\n\t"
			     ".endr"
			     : : "r" (dst) : "memory");
		dst += 512;
	} while (dst != end);
}

static void copy_one(struct page *dst, struct page *src)
{
	if (src)
		stream_page(page_address(dst), page_address(src));
	else
		stream_zeros(page_address(dst));
}

/**
 * ferry_stream_pages() - copy or zero pages with streaming stores
 * @copy: the pages
 * @first: the first one
 * @end: where to end
 *
 * Return: true if all are copied, false if none is.
 */
bool ferry_stream_pages(const struct ferry_copy *copy, unsigned int first,
			unsigned int end)
{
	if (end - first < STREAM_MIN || !usable())
		return false;
	while (first < end) {
		const unsigned int stop = min(end, first + STREAM_PAGES);

		kernel_fpu_begin();
		for (; first < stop; first++)
			copy_one(copy->dst[first], copy->src[first]);
		/* Before anyone can see the pages by their new entries */
		asm volatile("sfence\n\tvzeroupper" : : : "memory");
		kernel_fpu_end();
	}
	return true;
}

#else

bool ferry_stream_pages(const struct ferry_copy *copy, unsigned int first,
			unsigned int end)
{
	return false;
}

#endif
