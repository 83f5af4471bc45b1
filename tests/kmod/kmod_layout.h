/* SPDX-License-Identifier: MIT */
/*
 * Proves that the contract's structs have the layout of ABI version 1. Included
 * by a file compiled for 64 bits and by one compiled for 32 bits, so that both
 * kinds of callers are proven to agree. Compile time only.
 */
#ifndef KMOD_LAYOUT_H
#define KMOD_LAYOUT_H

#include <stddef.h>

#include <ferry/ferry_ioctl.h>

#define KT_AT(type, field, offset)                                                       \
	_Static_assert(offsetof(struct type, field) == (offset), #type "." #field)
#define KT_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)

KT_AT(ferry_ioc_info, size, 0);
KT_AT(ferry_ioc_info, abi, 4);
KT_AT(ferry_ioc_info, features, 8);
KT_AT(ferry_ioc_info, page_size, 16);
KT_AT(ferry_ioc_info, chunk_bytes, 20);
KT_AT(ferry_ioc_info, max_ranges, 24);
KT_AT(ferry_ioc_info, max_in_flight, 28);
KT_AT(ferry_ioc_info, max_bytes, 32);
KT_AT(ferry_ioc_info, nodes, 40);
KT_AT(ferry_ioc_info, version, 168);
KT_SIZE(ferry_ioc_info, 200);

KT_AT(ferry_ioc_range, addr, 0);
KT_AT(ferry_ioc_range, len, 8);
KT_AT(ferry_ioc_range, node, 16);
KT_AT(ferry_ioc_range, flags, 20);
KT_SIZE(ferry_ioc_range, 24);

KT_AT(ferry_ioc_result, error, 0);
KT_AT(ferry_ioc_result, reserved, 4);
KT_AT(ferry_ioc_result, moved, 8);
KT_AT(ferry_ioc_result, populated, 16);
KT_AT(ferry_ioc_result, already, 24);
KT_AT(ferry_ioc_result, busy, 32);
KT_AT(ferry_ioc_result, nomem, 40);
KT_AT(ferry_ioc_result, hole, 48);
KT_AT(ferry_ioc_result, unsupported, 56);
KT_AT(ferry_ioc_result, huge, 64);
KT_AT(ferry_ioc_result, dma_fallback, 72);
KT_SIZE(ferry_ioc_result, 80);

KT_AT(ferry_ioc_migrate, size, 0);
KT_AT(ferry_ioc_migrate, flags, 4);
KT_AT(ferry_ioc_migrate, copy_mode, 8);
KT_AT(ferry_ioc_migrate, nr_ranges, 12);
KT_AT(ferry_ioc_migrate, ranges, 16);
KT_AT(ferry_ioc_migrate, results, 24);
KT_AT(ferry_ioc_migrate, range_size, 32);
KT_AT(ferry_ioc_migrate, result_size, 36);
KT_SIZE(ferry_ioc_migrate, 40);

KT_AT(ferry_ioc_query, size, 0);
KT_AT(ferry_ioc_query, flags, 4);
KT_AT(ferry_ioc_query, mode, 8);
KT_AT(ferry_ioc_query, nr_nodes, 12);
KT_AT(ferry_ioc_query, addr, 16);
KT_AT(ferry_ioc_query, len, 24);
KT_AT(ferry_ioc_query, granule_bytes, 32);
KT_AT(ferry_ioc_query, out, 40);
KT_AT(ferry_ioc_query, out_bytes, 48);
KT_SIZE(ferry_ioc_query, 56);

KT_AT(ferry_uring_cmd, arg, 0);
KT_AT(ferry_uring_cmd, reserved, 8);
KT_SIZE(ferry_uring_cmd, 16);

_Static_assert(FERRY_IOC_INFO == 0xc0c8f701, "FERRY_IOC_INFO");
_Static_assert(FERRY_IOC_MIGRATE == 0x4028f702, "FERRY_IOC_MIGRATE");
_Static_assert(FERRY_IOC_QUERY == 0x4038f703, "FERRY_IOC_QUERY");

KT_AT(ferry_scan_row, present, 0);
KT_AT(ferry_scan_row, accessed, 2);
KT_AT(ferry_scan_row, dirty, 4);
KT_AT(ferry_scan_row, huge, 6);
KT_SIZE(ferry_scan_row, 8);

KT_AT(ferry_ioc_scan, size, 0);
KT_AT(ferry_ioc_scan, flags, 4);
KT_AT(ferry_ioc_scan, addr, 8);
KT_AT(ferry_ioc_scan, len, 16);
KT_AT(ferry_ioc_scan, granule_bytes, 24);
KT_AT(ferry_ioc_scan, out, 32);
KT_AT(ferry_ioc_scan, out_bytes, 40);
KT_SIZE(ferry_ioc_scan, 48);

#endif /* KMOD_LAYOUT_H */
