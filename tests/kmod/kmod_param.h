/* SPDX-License-Identifier: MIT */
/*
 * Parameters and counters of the module in sysfs, for the tests of those. They
 * belong to the whole machine, so a case that sets one sets all back with
 * kt_param_reset() at its begin and its end. For the main thread.
 */
#ifndef KMOD_PARAM_H
#define KMOD_PARAM_H

/* Sets a parameter of a kernel module: 0, or -1 with errno. */
int kt_param_set(const char *module, const char *name, const char *value);
/* A parameter's number; the case ends if there is none. */
long kt_param_number(const char *module, const char *name);

/* A parameter of ferry.ko; the case ends if it cannot be set. */
void kt_ferry_set(const char *name, const char *value);
/* All parameters of ferry.ko as they are after loading. */
void kt_param_reset(void);

/* A file in stats/ of the device. */
long kt_stat(const char *name);

#endif /* KMOD_PARAM_H */
