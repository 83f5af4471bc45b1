/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tracepoints ferry:batch_begin, batch_end, chunk_begin and chunk_end.
 *
 * A task carries out one batch at a time, so the events between a batch_begin
 * and the next batch_end of the same task are those of one batch; no event
 * needs to name it. (A batch submitted to io_uring runs in an io-wq worker, and
 * its events are the worker's.)
 *
 * This file is read several times over by define_trace.h, with TRACE_EVENT()
 * meaning something else each time. stats.c makes the tracepoints of it.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM ferry

#if !defined(FERRY_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define FERRY_TRACE_H

#include <linux/tracepoint.h>

#include "ferry.h"

TRACE_EVENT(batch_begin,
	TP_PROTO(const struct ferry_ioc_migrate *args),
	TP_ARGS(args),
	TP_STRUCT__entry(
		__field(u32, nr_ranges)
		__field(u32, flags)
		__field(u32, copy_mode)
	),
	TP_fast_assign(
		__entry->nr_ranges = args->nr_ranges;
		__entry->flags = args->flags;
		__entry->copy_mode = args->copy_mode;
	),
	TP_printk("ranges=%u flags=0x%x copy_mode=%u", __entry->nr_ranges,
		  __entry->flags, __entry->copy_mode)
);

/* ret: what the request returns */
TRACE_EVENT(batch_end,
	TP_PROTO(int ret),
	TP_ARGS(ret),
	TP_STRUCT__entry(
		__field(int, ret)
	),
	TP_fast_assign(
		__entry->ret = ret;
	),
	TP_printk("ret=%d", __entry->ret)
);

/* mmap_lock is held. */
TRACE_EVENT(chunk_begin,
	TP_PROTO(const struct ferry_chunk *chunk),
	TP_ARGS(chunk),
	TP_STRUCT__entry(
		__field(u64, addr)
		__field(u32, pages)
		__field(int, node)
	),
	TP_fast_assign(
		__entry->addr = chunk->start;
		__entry->pages = chunk->nr;
		__entry->node = chunk->node;
	),
	TP_printk("addr=0x%llx pages=%u node=%d", __entry->addr,
		  __entry->pages, __entry->node)
);

/*
 * nr: pages by outcome; passes: how often the chunk was gone over; copy_ns:
 * time to copy and zero pages; stall_ns: time mmap_lock was held, in all passes
 */
TRACE_EVENT(chunk_end,
	TP_PROTO(const struct ferry_chunk *chunk, const unsigned int *nr,
		 unsigned int passes),
	TP_ARGS(chunk, nr, passes),
	TP_STRUCT__entry(
		__field(u64, addr)
		__field(u64, copy_ns)
		__field(u64, stall_ns)
		__field(u32, pages)
		__field(int, node)
		__field(u32, passes)
		__field(u32, moved)
		__field(u32, populated)
		__field(u32, already)
		__field(u32, busy)
		__field(u32, nomem)
		__field(u32, hole)
		__field(u32, unsupported)
		__field(u32, huge)
	),
	TP_fast_assign(
		__entry->addr = chunk->start;
		__entry->copy_ns = chunk->copy.ns;
		__entry->stall_ns = chunk->stall_ns;
		__entry->pages = chunk->nr;
		__entry->node = chunk->node;
		__entry->passes = passes;
		__entry->moved = nr[FERRY_MOVED];
		__entry->populated = nr[FERRY_POPULATED];
		__entry->already = nr[FERRY_ALREADY];
		__entry->busy = nr[FERRY_BUSY] + nr[FERRY_PENDING];
		__entry->nomem = nr[FERRY_NOMEM];
		__entry->hole = nr[FERRY_HOLE];
		__entry->unsupported = nr[FERRY_UNSUPPORTED];
		__entry->huge = nr[FERRY_HUGE];
	),
	TP_printk("addr=0x%llx pages=%u node=%d moved=%u populated=%u already=%u busy=%u nomem=%u hole=%u unsupported=%u huge=%u passes=%u copy_ns=%llu stall_ns=%llu",
		  __entry->addr, __entry->pages, __entry->node, __entry->moved,
		  __entry->populated, __entry->already, __entry->busy,
		  __entry->nomem, __entry->hole, __entry->unsupported,
		  __entry->huge, __entry->passes, __entry->copy_ns,
		  __entry->stall_ns)
);

#endif /* FERRY_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE ferry_trace
#include <trace/define_trace.h>
