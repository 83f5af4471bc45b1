// SPDX-License-Identifier: GPL-2.0-only
/* Do uring commands have a header of their own? (since 6.7) */
#include <linux/io_uring/cmd.h>
