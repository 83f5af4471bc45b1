/* SPDX-License-Identifier: MIT */
/* Whether memory that a userfaultfd is to fill can be pinned. No state. */
#ifndef FERRY_PIN_H
#define FERRY_PIN_H

/*
 * Pinning memory for long, as io_uring's registered buffers and network cards' are,
 * fills what was not touched yet. Before some Linux after 6.1 the kernel could not
 * wait for a userfaultfd there, and refused with EFAULT. Tried on a page, with a
 * thread to fill it: 0; -EFAULT: it is so; or the -errno that kept it from being
 * tried.
 */
int pin_try(void);

#endif /* FERRY_PIN_H */
