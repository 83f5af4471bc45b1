/* SPDX-License-Identifier: MIT */
/*
 * The parts of test_first_touch: in the process (its main file), by the kernel, and as
 * processes come and go.
 */
#ifndef FERRY_FIRST_TOUCH_TEST_H
#define FERRY_FIRST_TOUCH_TEST_H

/* How many threads fill; the name of this program. */
extern unsigned int filling_threads;
extern const char *self;

/* first_touch_kernel.c */
void system_calls(void **state);
void direct_io(void **state);
void io_uring(void **state);
void pinned_buffers(void **state);

/* first_touch_processes.c */
void forked(void **state);
void cloned(void **state);
void a_child_starts_its_own(void **state);
void vfork_and_spawn(void **state);
void exec_from_it(void **state);
void exits(void **state);
void who_outlives_the_threads(void **state);
void descriptors_closed(void **state);
void a_core_dump_ends(void **state);
void read_by_another(void **state);
void everything_read(void **state);
void little_memory_left(void **state);
void ends_when_it_does_not_pay(void **state);

#endif /* FERRY_FIRST_TOUCH_TEST_H */
