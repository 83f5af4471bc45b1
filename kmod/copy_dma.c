// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copying the pages of a run by a DMA engine: all descriptors are submitted,
 * then there is one wait for all of them. What the engine does not do, the CPU
 * does: zeros and pages without a descriptor while the engine works, failed
 * ones afterwards. Those are counted, so that nobody takes the CPU's work for
 * the engine's.
 *
 * A channel is exclusive, and a batch holds it from its begin to its end, so a
 * provider can be unloaded between batches. (Its driver should not be unbound
 * from the device meanwhile: dma_release_channel() of 6.12 then writes to the
 * device after it has let go of it.) Each descriptor reports its own
 * end: engines may complete them in any order, and only so is it known which
 * one failed.
 *
 * An engine that does not answer in time must not write any more before its
 * pages are used for anything else. If the channel can be terminated, that is
 * enough, and the CPU copies the pages. If not (drivers for Intel's engines
 * have no way to), the pages under way are abandoned: the caller's pages stay
 * where they are, and the new ones, the channel and the module are kept until
 * the engine has answered after all. In both cases no request uses DMA any more
 * until the administrator sets dma_channels anew.
 *
 * Locking: a struct ferry_dma is used by one request. A segment is handed from
 * the request to the engine and back by its @state; the last one to be finished
 * wakes the request up, or frees what was abandoned.
 */
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "ferry.h"

/*
 * An engine that answers nothing for so long is dead. One that does not answer
 * all in so many times as long is, too: the application waits for its pages.
 */
#define ANSWER_JIFFIES (HZ / 2)
#define ANSWER_TIMES 10

static void changed(void);

static struct ferry_param dma_channels = {
	.value = 0, .min = 0, .max = 64, .changed = changed,
};

module_param_cb(dma_channels, &ferry_param_ops, &dma_channels, 0644);
__MODULE_PARM_TYPE(dma_channels, "uint");
MODULE_PARM_DESC(dma_channels,
		 "DMA channels that may be in use for copying at a time; 0: no DMA");

/* Channels in use, not above the parameter */
static atomic_t channels = ATOMIC_INIT(0);
/* An engine has not answered. */
static bool dead;

enum segment_state {
	SEGMENT_FLYING,		/* the engine's */
	SEGMENT_COPIED,
	SEGMENT_FAILED,
	SEGMENT_ABANDONED,	/* the engine's, and nobody waits for it */
};

/**
 * struct ferry_segment - neighbouring pages that one descriptor copies
 * @dma: whose it is
 * @state: enum segment_state
 * @first: index of its first page in struct ferry_copy
 * @nr: number of pages
 * @dst_pfn: frame of the first page to be written
 * @dst_addr: the same for the engine
 * @src_addr: where it is to read
 */
struct ferry_segment {
	struct ferry_dma *dma;
	atomic_t state;
	unsigned int first;
	unsigned int nr;
	unsigned long dst_pfn;
	dma_addr_t dst_addr;
	dma_addr_t src_addr;
};

/**
 * struct ferry_dma - a channel and what it is doing
 * @chan: the channel
 * @dev: the device that pages are mapped for
 * @max_pages: most pages of a segment
 * @flying: segments that have not been answered, and one while more may come
 * @answered: @flying has come to 0
 * @abandoned: frees what is kept for the engine; run when @flying comes to 0
 * @is_abandoned: there is nobody who waits for @answered
 * @nr: number of segments
 * @segment: the segments
 */
struct ferry_dma {
	struct dma_chan *chan;
	struct device *dev;
	unsigned int max_pages;
	atomic_t flying;
	struct completion answered;
	struct work_struct abandoned;
	bool is_abandoned;
	unsigned int nr;
	struct ferry_segment segment[FERRY_CHUNK_PAGES];
};

static void changed(void)
{
	WRITE_ONCE(dead, false);
}

static bool take_turn(void)
{
	int limit = ferry_param(&dma_channels), old = atomic_read(&channels);

	if (READ_ONCE(dead))
		return false;
	do {
		if (old >= limit)
			return false;
	} while (!atomic_try_cmpxchg(&channels, &old, old + 1));
	return true;
}

static void release(struct ferry_dma *dma)
{
	dma_release_channel(dma->chan);
	put_device(dma->dev);
	atomic_dec(&channels);
	kvfree(dma);
}

static void unmap(const struct ferry_dma *dma, const struct ferry_segment *seg)
{
	const size_t len = seg->nr << PAGE_SHIFT;

	dma_unmap_page(dma->dev, seg->src_addr, len, DMA_TO_DEVICE);
	dma_unmap_page(dma->dev, seg->dst_addr, len, DMA_FROM_DEVICE);
}

/* The engine has answered after all. */
static void free_abandoned(struct work_struct *work)
{
	struct ferry_dma *dma = container_of(work, struct ferry_dma, abandoned);
	unsigned int i, page;

	for (i = 0; i < dma->nr; i++) {
		struct ferry_segment *seg = &dma->segment[i];

		if (atomic_read(&seg->state) != SEGMENT_ABANDONED)
			continue;
		unmap(dma, seg);
		for (page = 0; page < seg->nr; page++) {
			struct page *dst = pfn_to_page(seg->dst_pfn + page);

			unlock_page(dst);
			__free_page(dst);
		}
	}
	release(dma);
	/* The module's exit waits for the workqueue, and so for this to end. */
	module_put(THIS_MODULE);
}

/* One less of @flying; any context */
static void answer(struct ferry_dma *dma)
{
	/* The other side may free @dma as soon as it has seen the 0. */
	if (!atomic_dec_and_test(&dma->flying))
		return;
	if (READ_ONCE(dma->is_abandoned))
		ferry_parallel_queue(&dma->abandoned);
	else
		complete(&dma->answered);
}

/* The engine is done with a segment; in the context of its driver */
static void segment_done(void *arg, const struct dmaengine_result *result)
{
	struct ferry_segment *seg = arg;
	const bool ok = result && result->result == DMA_TRANS_NOERROR &&
			!result->residue;

	atomic_cmpxchg(&seg->state, SEGMENT_FLYING,
		       ok ? SEGMENT_COPIED : SEGMENT_FAILED);
	answer(seg->dma);
}

static bool usable(struct dma_chan *chan, void *unused)
{
	return chan->device->copy_align <= PAGE_SHIFT;
}

static struct dma_chan *request_channel(void)
{
	dma_cap_mask_t mask;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	return dma_request_channel(mask, usable, NULL);
}

/**
 * ferry_dma_open() - have a channel
 *
 * May sleep.
 *
 * Return: for ferry_dma_close(), or NULL if there is none or it may not be had.
 */
struct ferry_dma *ferry_dma_open(void)
{
	struct ferry_dma *dma;

	if (!take_turn())
		return NULL;
	dma = kvzalloc(sizeof(*dma), GFP_KERNEL_ACCOUNT);
	if (dma)
		dma->chan = request_channel();
	if (!dma || !dma->chan) {
		kvfree(dma);
		atomic_dec(&channels);
		return NULL;
	}
	/* It may be unbound from its driver before its pages are unmapped. */
	dma->dev = get_device(dmaengine_get_dma_device(dma->chan));
	dma->max_pages = min3(dma_max_mapping_size(dma->dev),
			      (size_t)dma_get_max_seg_size(dma->dev),
			      (size_t)FERRY_CHUNK_BYTES) >> PAGE_SHIFT;
	dma->max_pages = max(dma->max_pages, 1U);
	init_completion(&dma->answered);
	INIT_WORK(&dma->abandoned, free_abandoned);
	return dma;
}

/**
 * ferry_dma_close() - give a channel back
 * @dma: what ferry_dma_open() returned
 */
void ferry_dma_close(struct ferry_dma *dma)
{
	if (dma)
		release(dma);
}

/**
 * ferry_dma_available() - is there a channel now?
 *
 * May sleep.
 *
 * Return: true if there is one to be had, or one that the module has.
 */
bool ferry_dma_available(void)
{
	struct ferry_dma *dma;

	if (READ_ONCE(dead) || !ferry_param(&dma_channels))
		return false;
	dma = ferry_dma_open();
	if (!dma)
		return atomic_read(&channels) > 0;
	ferry_dma_close(dma);
	return true;
}

/* How many pages from @first on one descriptor can copy; 0: a page of zeros */
static unsigned int extent(const struct ferry_copy *copy, unsigned int first)
{
	unsigned int nr = 0;

	while (first + nr < copy->nr && nr < copy->dma->max_pages &&
	       copy->src[first + nr] &&
	       page_to_pfn(copy->src[first + nr]) ==
	       page_to_pfn(copy->src[first]) + nr &&
	       page_to_pfn(copy->dst[first + nr]) ==
	       page_to_pfn(copy->dst[first]) + nr)
		nr++;
	return nr;
}

static bool map(struct ferry_dma *dma, struct ferry_segment *seg,
		struct page *dst, struct page *src)
{
	const size_t len = seg->nr << PAGE_SHIFT;

	seg->src_addr = dma_map_page(dma->dev, src, 0, len, DMA_TO_DEVICE);
	if (dma_mapping_error(dma->dev, seg->src_addr))
		return false;
	seg->dst_addr = dma_map_page(dma->dev, dst, 0, len, DMA_FROM_DEVICE);
	if (!dma_mapping_error(dma->dev, seg->dst_addr))
		return true;
	dma_unmap_page(dma->dev, seg->src_addr, len, DMA_TO_DEVICE);
	return false;
}

/* Hand a mapped segment to the engine. */
static bool submit(struct ferry_dma *dma, struct ferry_segment *seg)
{
	struct dma_async_tx_descriptor *tx;

	tx = dmaengine_prep_dma_memcpy(dma->chan, seg->dst_addr, seg->src_addr,
				       seg->nr << PAGE_SHIFT,
				       DMA_PREP_INTERRUPT | DMA_CTRL_ACK);
	if (!tx)
		return false;
	atomic_set(&seg->state, SEGMENT_FLYING);
	tx->callback_result = segment_done;
	tx->callback_param = seg;
	atomic_inc(&dma->flying);
	if (!dma_submit_error(dmaengine_submit(tx)))
		return true;
	atomic_dec(&dma->flying);
	return false;
}

/* Hand out what the engine is to copy. Its pages get their bit in @taken. */
static void launch(const struct ferry_copy *copy, unsigned long *taken)
{
	struct ferry_dma *dma = copy->dma;
	unsigned int first, nr;

	dma->nr = 0;
	reinit_completion(&dma->answered);
	atomic_set(&dma->flying, 1);
	for (first = 0; first < copy->nr; first += max(nr, 1U)) {
		struct ferry_segment *seg = &dma->segment[dma->nr];

		nr = extent(copy, first);
		if (!nr)
			continue;
		seg->dma = dma;
		seg->first = first;
		seg->nr = nr;
		seg->dst_pfn = page_to_pfn(copy->dst[first]);
		if (!map(dma, seg, copy->dst[first], copy->src[first]))
			continue;
		if (!submit(dma, seg)) {
			unmap(dma, seg);
			/* It has no more room, or is broken. */
			break;
		}
		bitmap_set(taken, first, nr);
		dma->nr++;
	}
	if (dma->nr)
		dma_async_issue_pending(dma->chan);
}

/* Have the CPU copy pages that DMA was asked for. */
static void fall_back(struct ferry_copy *copy, unsigned int first,
		      unsigned int end)
{
	unsigned int i;

	for (i = first; i < end; i++)
		copy->dma_fallback += !!copy->src[i];
	ferry_copy_pages(copy, first, end);
}

/* Take over what has been answered, and let go of it. Returns true if all is. */
static bool collect(struct ferry_copy *copy)
{
	struct ferry_dma *dma = copy->dma;
	bool all = true;
	unsigned int i;

	for (i = 0; i < dma->nr; i++) {
		struct ferry_segment *seg = &dma->segment[i];
		const int state = atomic_read(&seg->state);

		if (state == SEGMENT_ABANDONED) {
			memset(copy->dst + seg->first, 0,
			       seg->nr * sizeof(*copy->dst));
			all = false;
			continue;
		}
		/* A bounce buffer is copied by this, so it comes first. */
		unmap(dma, seg);
		if (state == SEGMENT_COPIED)
			copy->dma_bytes += seg->nr << PAGE_SHIFT;
		else
			fall_back(copy, seg->first, seg->first + seg->nr);
	}
	return all;
}

/* Leave to the engine what it has not answered, until it does. */
static bool abandon(struct ferry_copy *copy)
{
	struct ferry_dma *dma = copy->dma;
	unsigned int i;
	bool all;

	for (i = 0; i < dma->nr; i++)
		atomic_cmpxchg(&dma->segment[i].state, SEGMENT_FLYING,
			       SEGMENT_ABANDONED);
	all = collect(copy);
	__module_get(THIS_MODULE);
	WRITE_ONCE(dma->is_abandoned, true);
	answer(dma);
	return all;
}

/* The engine has not answered in time. Returns true if all pages are copied. */
static bool give_up(struct ferry_copy *copy)
{
	struct ferry_dma *dma = copy->dma;
	const struct dma_device *device = dma->chan->device;
	bool all;

	/* From here on no answer is the last one, unless it has come already. */
	if (!atomic_inc_not_zero(&dma->flying)) {
		wait_for_completion(&dma->answered);
		return collect(copy);
	}
	WRITE_ONCE(dead, true);
	pr_warn("ferry: DMA engine %s does not answer; no more DMA until dma_channels is set anew\n",
		dev_name(dma->dev));
	/* Without device_synchronize it may still be about to answer. */
	if (device->device_terminate_all && device->device_synchronize &&
	    !dmaengine_terminate_sync(dma->chan)) {
		all = collect(copy);
		ferry_dma_close(dma);
	} else {
		all = abandon(copy);
	}
	copy->dma = NULL;
	return all;
}

/* Wait for all answers, while there are some. Returns false if they fail to come. */
static bool wait_for_answers(struct ferry_dma *dma)
{
	int before, flying = atomic_read(&dma->flying);
	unsigned int i;

	for (i = 0; i < ANSWER_TIMES; i++) {
		if (wait_for_completion_timeout(&dma->answered, ANSWER_JIFFIES))
			return true;
		before = flying;
		flying = atomic_read(&dma->flying);
		if (flying == before)
			break;
	}
	return false;
}

/**
 * ferry_dma_copy() - copy all pages, those that it can by DMA
 * @copy: the pages; those in @dst that were not copied are NULL afterwards and
 *	kept here
 *
 * Return: true if all are copied.
 */
bool ferry_dma_copy(struct ferry_copy *copy)
{
	struct ferry_dma *dma = copy->dma;
	DECLARE_BITMAP(taken, FERRY_CHUNK_PAGES) = {};
	unsigned int first, end;

	if (dma)
		launch(copy, taken);
	for_each_clear_bitrange(first, end, taken, copy->nr)
		fall_back(copy, first, end);
	if (!dma)
		return true;
	answer(dma);
	if (!wait_for_answers(dma))
		return give_up(copy);
	return collect(copy);
}
