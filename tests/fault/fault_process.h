/* SPDX-License-Identifier: MIT */
/* Other processes, for tests of user faults. */
#ifndef FERRY_FAULT_PROCESS_H
#define FERRY_FAULT_PROCESS_H

#include <sys/types.h>

/* Waits for a child, which has to end with 0. */
void assert_child_ok(pid_t child);

/* A new folder for one dump_core(). */
const char *core_folder(void);

/* Ends this process by SIGABRT; a core that the kernel writes then is in @folder. */
_Noreturn void dump_core(const char *folder);

/* Waits for a child that has called it, and removes the folder. */
void assert_core_dumped(pid_t child, const char *folder);

/* Reads each mapping of @pid, as a debugger that writes a core does. 0, or why not. */
int read_all_memory(pid_t pid);

#endif /* FERRY_FAULT_PROCESS_H */
