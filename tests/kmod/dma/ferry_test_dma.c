// SPDX-License-Identifier: GPL-2.0-only
/*
 * A DMA engine in software, for tests of those who use one: it offers
 * DMA_MEMCPY on channels whose descriptors are copied by a worker thread, and
 * does wrong what it is told to. Only for machines made for tests.
 *
 * Parameters, in /sys/module/ferry_test_dma/parameters:
 *   fault         what happens to every nth descriptor (`every`):
 *                   none, map (mapping its pages fails), prep, submit (these
 *                   calls fail), read, write (it ends with that error, its data
 *                   spoilt), residue (it ends half copied), hang (it never
 *                   ends), slow (it takes `delay_ms`)
 *   every         see there; 1: all
 *   delay_ms      see there
 *   reverse       the last descriptor issued is the first one copied
 *   terminable    the engine can be stopped; set when the module is loaded
 *   answer        written: what hung ends now, carried out
 *   copied        so many descriptors were carried out without fault
 *   faults        faults that happened
 *   mapped        mappings that exist; -1 where this kernel does not let a
 *                 driver see them
 *
 * Locking: the lock of a channel protects its lists. Descriptors are on one of
 * them, or belong to the worker.
 */
#include <linux/delay.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/io.h>
#include <linux/list.h>
#include <linux/llist.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

#define NR_CHANNELS 2
/* Time for clients to unmap what was aborted */
#define UNMAP_MS 200

enum fault {
	FAULT_NONE,
	FAULT_MAP,
	FAULT_PREP,
	FAULT_SUBMIT,
	FAULT_READ,
	FAULT_WRITE,
	FAULT_RESIDUE,
	FAULT_HANG,
	FAULT_SLOW,
};

static const char * const fault_names[] = {
	[FAULT_NONE] = "none",
	[FAULT_MAP] = "map",
	[FAULT_PREP] = "prep",
	[FAULT_SUBMIT] = "submit",
	[FAULT_READ] = "read",
	[FAULT_WRITE] = "write",
	[FAULT_RESIDUE] = "residue",
	[FAULT_HANG] = "hang",
	[FAULT_SLOW] = "slow",
};

static enum fault fault;
static unsigned int every = 1;
module_param(every, uint, 0644);
static unsigned int delay_ms = 10;
module_param(delay_ms, uint, 0644);
static bool reverse;
module_param(reverse, bool, 0644);
static bool terminable = true;
module_param(terminable, bool, 0444);

static atomic_t copied = ATOMIC_INIT(0);
static atomic_t faults = ATOMIC_INIT(0);
static atomic_t turn = ATOMIC_INIT(0);

/**
 * struct test_desc - a descriptor
 * @tx: what the client knows of it
 * @list: entry in a list of its channel
 * @dst: where to
 * @src: where from
 * @len: how much
 */
struct test_desc {
	struct dma_async_tx_descriptor tx;
	struct list_head list;
	dma_addr_t dst;
	dma_addr_t src;
	size_t len;
};

/**
 * struct test_chan - a channel
 * @chan: what clients know of it
 * @lock: protects the lists
 * @submitted: descriptors that are not yet issued
 * @issued: those that are to be copied
 * @hung: those that nobody will end
 * @gone: the driver was unbound
 * @work: copies what is issued
 */
struct test_chan {
	struct dma_chan chan;
	spinlock_t lock; /* see above */
	struct list_head submitted;
	struct list_head issued;
	struct list_head hung;
	bool gone;
	struct work_struct work;
};

struct test_engine {
	struct dma_device device;
	struct test_chan chan[NR_CHANNELS];
	struct llist_node released;
};

static struct platform_device *platform;
static struct test_engine *engine;	/* while it is bound */
static DEFINE_MUTEX(engine_lock);
/*
 * Engines that nobody uses any more, freed with the module. Not before: where
 * the driver was unbound at work, dma_release_channel() lets go of the device and
 * then writes to it.
 */
static LLIST_HEAD(released);

static bool happens(enum fault what)
{
	if (READ_ONCE(fault) != what)
		return false;
	if (atomic_inc_return(&turn) % max(READ_ONCE(every), 1U))
		return false;
	atomic_inc(&faults);
	return true;
}

/* ---- mapping pages ---- */

#if defined(CONFIG_DMA_OPS) || defined(CONFIG_ARCH_HAS_DMA_OPS)

static atomic_t mapped = ATOMIC_INIT(0);

static dma_addr_t map_at(phys_addr_t addr)
{
	if (happens(FAULT_MAP))
		return DMA_MAPPING_ERROR;
	atomic_inc(&mapped);
	return addr;
}

#ifdef FERRY_HAVE_DMA_MAP_PHYS

static dma_addr_t test_map(struct device *dev, phys_addr_t addr, size_t size,
			   enum dma_data_direction dir, unsigned long attrs)
{
	return map_at(addr);
}

#else

static dma_addr_t test_map(struct device *dev, struct page *page,
			   unsigned long offset, size_t size,
			   enum dma_data_direction dir, unsigned long attrs)
{
	return map_at(page_to_phys(page) + offset);
}

#endif

static void test_unmap(struct device *dev, dma_addr_t addr, size_t size,
		       enum dma_data_direction dir, unsigned long attrs)
{
	atomic_dec(&mapped);
}

static const struct dma_map_ops test_map_ops = {
#ifdef FERRY_HAVE_DMA_MAP_PHYS
	.map_phys = test_map,
	.unmap_phys = test_unmap,
#else
	.map_page = test_map,
	.unmap_page = test_unmap,
#endif
};

static void watch_mappings(struct device *dev)
{
	set_dma_ops(dev, &test_map_ops);
}

#else

static atomic_t mapped = ATOMIC_INIT(-1);

static void watch_mappings(struct device *dev)
{
}

#endif

/* ---- a channel ---- */

static struct test_chan *to_test_chan(struct dma_chan *chan)
{
	return container_of(chan, struct test_chan, chan);
}

static void end(struct test_desc *desc, enum dmaengine_tx_result result,
		u32 residue)
{
	const struct dmaengine_result told = {
		.result = result, .residue = residue,
	};
	dma_async_tx_callback_result fn = desc->tx.callback_result;
	void *param = desc->tx.callback_param;

	kfree(desc);
	if (fn)
		fn(param, &told);
}

static void copy(const struct test_desc *desc, size_t len)
{
	memcpy(phys_to_virt(desc->dst), phys_to_virt(desc->src), len);
}

static void hang(struct test_chan *chan, struct test_desc *desc)
{
	spin_lock_bh(&chan->lock);
	list_add_tail(&desc->list, &chan->hung);
	spin_unlock_bh(&chan->lock);
}

static void carry_out(struct test_chan *chan, struct test_desc *desc)
{
	if (happens(FAULT_HANG)) {
		hang(chan, desc);
	} else if (happens(FAULT_READ)) {
		memset(phys_to_virt(desc->dst), 0x5a, desc->len);
		end(desc, DMA_TRANS_READ_FAILED, desc->len);
	} else if (happens(FAULT_WRITE)) {
		memset(phys_to_virt(desc->dst), 0x5a, desc->len);
		end(desc, DMA_TRANS_WRITE_FAILED, 0);
	} else if (happens(FAULT_RESIDUE)) {
		copy(desc, desc->len / 2);
		end(desc, DMA_TRANS_NOERROR, desc->len - desc->len / 2);
	} else {
		if (happens(FAULT_SLOW))
			msleep(delay_ms);
		copy(desc, desc->len);
		atomic_inc(&copied);
		end(desc, DMA_TRANS_NOERROR, 0);
	}
}

static struct test_desc *next_issued(struct test_chan *chan)
{
	struct test_desc *desc = NULL;

	spin_lock_bh(&chan->lock);
	if (!list_empty(&chan->issued)) {
		desc = READ_ONCE(reverse) ?
			list_last_entry(&chan->issued, struct test_desc, list) :
			list_first_entry(&chan->issued, struct test_desc, list);
		list_del(&desc->list);
	}
	spin_unlock_bh(&chan->lock);
	return desc;
}

static void work_on(struct work_struct *work)
{
	struct test_chan *chan = container_of(work, struct test_chan, work);
	struct test_desc *desc;

	while ((desc = next_issued(chan)))
		carry_out(chan, desc);
}

static dma_cookie_t test_submit(struct dma_async_tx_descriptor *tx)
{
	struct test_desc *desc = container_of(tx, struct test_desc, tx);
	struct test_chan *chan = to_test_chan(tx->chan);
	bool gone;

	if (happens(FAULT_SUBMIT)) {
		kfree(desc);
		return -EIO;
	}
	spin_lock_bh(&chan->lock);
	gone = chan->gone;
	if (!gone) {
		tx->cookie = ++chan->chan.cookie;
		list_add_tail(&desc->list, &chan->submitted);
	}
	spin_unlock_bh(&chan->lock);
	if (gone) {
		kfree(desc);
		return -ENODEV;
	}
	return chan->chan.cookie;
}

static struct dma_async_tx_descriptor *
test_prep(struct dma_chan *chan, dma_addr_t dst, dma_addr_t src, size_t len,
	  unsigned long flags)
{
	struct test_desc *desc;

	if (happens(FAULT_PREP))
		return NULL;
	desc = kzalloc(sizeof(*desc), GFP_NOWAIT);
	if (!desc)
		return NULL;
	dma_async_tx_descriptor_init(&desc->tx, chan);
	desc->tx.tx_submit = test_submit;
	desc->tx.flags = flags;
	desc->dst = dst;
	desc->src = src;
	desc->len = len;
	return &desc->tx;
}

static void test_issue(struct dma_chan *dma_chan)
{
	struct test_chan *chan = to_test_chan(dma_chan);

	spin_lock_bh(&chan->lock);
	list_splice_tail_init(&chan->submitted, &chan->issued);
	spin_unlock_bh(&chan->lock);
	schedule_work(&chan->work);
}

/* As with engines whose descriptors may overtake each other. */
static enum dma_status test_status(struct dma_chan *chan, dma_cookie_t cookie,
				   struct dma_tx_state *state)
{
	return DMA_OUT_OF_ORDER;
}

/* Forget all descriptors, or end them as aborted. */
static void drop_all(struct test_chan *chan, bool tell)
{
	struct test_desc *desc, *next;
	LIST_HEAD(all);

	spin_lock_bh(&chan->lock);
	list_splice_tail_init(&chan->submitted, &all);
	list_splice_tail_init(&chan->issued, &all);
	list_splice_tail_init(&chan->hung, &all);
	spin_unlock_bh(&chan->lock);
	list_for_each_entry_safe(desc, next, &all, list) {
		if (tell)
			end(desc, DMA_TRANS_ABORTED, desc->len);
		else
			kfree(desc);
	}
}

static int test_terminate(struct dma_chan *chan)
{
	drop_all(to_test_chan(chan), false);
	return 0;
}

static void test_synchronize(struct dma_chan *chan)
{
	flush_work(&to_test_chan(chan)->work);
}

static void test_free_chan(struct dma_chan *chan)
{
	flush_work(&to_test_chan(chan)->work);
	drop_all(to_test_chan(chan), false);
}

/* ---- the device ---- */

static void test_release(struct dma_device *device)
{
	llist_add(&container_of(device, struct test_engine, device)->released,
		  &released);
}

static void init_chan(struct test_engine *e, struct test_chan *chan)
{
	spin_lock_init(&chan->lock);
	INIT_LIST_HEAD(&chan->submitted);
	INIT_LIST_HEAD(&chan->issued);
	INIT_LIST_HEAD(&chan->hung);
	INIT_WORK(&chan->work, work_on);
	chan->chan.device = &e->device;
	chan->chan.cookie = DMA_MIN_COOKIE;
	list_add_tail(&chan->chan.device_node, &e->device.channels);
}

/* Clients may still hold channels; what they have under way is aborted. */
static void test_unbind(void *data)
{
	struct test_engine *e = data;
	unsigned int i;

	mutex_lock(&engine_lock);
	engine = NULL;
	mutex_unlock(&engine_lock);
	for (i = 0; i < NR_CHANNELS; i++) {
		spin_lock_bh(&e->chan[i].lock);
		e->chan[i].gone = true;
		spin_unlock_bh(&e->chan[i].lock);
		drop_all(&e->chan[i], true);
		flush_work(&e->chan[i].work);
	}
	/* The kernel's checker wants nothing mapped when the driver is gone. */
	msleep(UNMAP_MS);
	dma_async_device_unregister(&e->device);
}

static int test_probe(struct platform_device *pdev)
{
	struct test_engine *e = kzalloc(sizeof(*e), GFP_KERNEL);
	struct dma_device *device;
	unsigned int i;
	int err;

	if (!e)
		return -ENOMEM;
	err = dma_coerce_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (err)
		goto out;
	watch_mappings(&pdev->dev);
	dma_set_max_seg_size(&pdev->dev, SZ_256K);
	device = &e->device;
	device->dev = &pdev->dev;
	INIT_LIST_HEAD(&device->channels);
	for (i = 0; i < NR_CHANNELS; i++)
		init_chan(e, &e->chan[i]);
	dma_cap_set(DMA_MEMCPY, device->cap_mask);
	dma_cap_set(DMA_PRIVATE, device->cap_mask);
	dma_cap_set(DMA_COMPLETION_NO_ORDER, device->cap_mask);
	device->device_prep_dma_memcpy = test_prep;
	device->device_issue_pending = test_issue;
	device->device_tx_status = test_status;
	device->device_free_chan_resources = test_free_chan;
	device->device_release = test_release;
	if (terminable) {
		device->device_terminate_all = test_terminate;
		device->device_synchronize = test_synchronize;
	}
	err = dma_async_device_register(device);
	if (err)
		goto out;
	mutex_lock(&engine_lock);
	engine = e;
	mutex_unlock(&engine_lock);
	return devm_add_action_or_reset(&pdev->dev, test_unbind, e);
out:
	kfree(e);
	return err;
}

static struct platform_driver test_driver = {
	.probe = test_probe,
	.driver = { .name = "ferry_test_dma" },
};

/* ---- parameters with a meaning of their own ---- */

static int set_fault(const char *text, const struct kernel_param *kp)
{
	int index = sysfs_match_string(fault_names, text);

	if (index < 0)
		return index;
	WRITE_ONCE(fault, index);
	atomic_set(&turn, 0);
	return 0;
}

static int get_fault(char *text, const struct kernel_param *kp)
{
	return sysfs_emit(text, "%s\n", fault_names[fault]);
}

static const struct kernel_param_ops fault_ops = {
	.set = set_fault,
	.get = get_fault,
};
module_param_cb(fault, &fault_ops, NULL, 0644);

static int get_count(char *text, const struct kernel_param *kp)
{
	return sysfs_emit(text, "%d\n", atomic_read(kp->arg));
}

static const struct kernel_param_ops count_ops = {
	.get = get_count,
};
module_param_cb(copied, &count_ops, &copied, 0444);
module_param_cb(faults, &count_ops, &faults, 0444);
module_param_cb(mapped, &count_ops, &mapped, 0444);

static void answer(struct test_chan *chan)
{
	struct test_desc *desc, *next;
	LIST_HEAD(all);

	spin_lock_bh(&chan->lock);
	list_splice_tail_init(&chan->hung, &all);
	spin_unlock_bh(&chan->lock);
	list_for_each_entry_safe(desc, next, &all, list) {
		copy(desc, desc->len);
		end(desc, DMA_TRANS_NOERROR, 0);
	}
}

static int set_answer(const char *text, const struct kernel_param *kp)
{
	unsigned int i;

	mutex_lock(&engine_lock);
	for (i = 0; engine && i < NR_CHANNELS; i++)
		answer(&engine->chan[i]);
	mutex_unlock(&engine_lock);
	return 0;
}

static const struct kernel_param_ops answer_ops = {
	.set = set_answer,
};
module_param_cb(answer, &answer_ops, NULL, 0200);

static int __init test_init(void)
{
	int err = platform_driver_register(&test_driver);

	if (err)
		return err;
	platform = platform_device_register_simple("ferry_test_dma",
						   PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(platform)) {
		platform_driver_unregister(&test_driver);
		return PTR_ERR(platform);
	}
	return 0;
}
module_init(test_init);

static void __exit test_exit(void)
{
	struct test_engine *e, *next;

	platform_device_unregister(platform);
	platform_driver_unregister(&test_driver);
	llist_for_each_entry_safe(e, next, llist_del_all(&released), released)
		kfree(e);
}
module_exit(test_exit);

MODULE_DESCRIPTION("DMA engine in software that fails as it is told, for tests");
MODULE_AUTHOR("The Ferry developers");
MODULE_LICENSE("GPL");
