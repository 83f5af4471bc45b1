/* SPDX-License-Identifier: MIT */
/*
 * The parts of test_hint_faults: in the process (its main file), by the kernel, and as
 * processes come and go; and what they share: memory with a page that is out.
 */
#ifndef FERRY_HINT_FAULT_TEST_H
#define FERRY_HINT_FAULT_TEST_H

#include <stdbool.h>
#include <stddef.h>

#include "trap_test.h"

#define PAGE  PAGE_BYTES
#define PAGES 16
#define SIZE  (PAGES * PAGE)
#define SEED  7
#define OUT   (5 * PAGE) /* where a page is out */

/* The name of this program. */
extern const char *self;

/* SIZE bytes of which one page in the middle is out. */
char *with_trap(void);
/* A whole huge page that is out, or NULL where there are none. */
char *with_huge_trap(void);
/* The memory of with_trap() has its data, and the page is back. */
void assert_whole(const char *mem);
bool zeros(const char *mem, size_t len);

/* hint_fault_kernel.c */
void system_calls(void **state);
void direct_io(void **state);
void io_uring(void **state);

/* hint_fault_processes.c */
void process_vm_readv_by_another(void **state);
void a_debugger_reads_everything(void **state);
void a_core_dump_ends(void **state);
void fork_puts_back(void **state);
void a_child_starts_its_own(void **state);
void raw_clone(void **state);
void vfork_and_spawn(void **state);
void exec_from_it(void **state);
void process_exit(void **state);
void descriptors_closed(void **state);
void stop_and_start(void **state);

#endif /* FERRY_HINT_FAULT_TEST_H */
