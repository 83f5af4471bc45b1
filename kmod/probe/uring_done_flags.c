// SPDX-License-Identifier: GPL-2.0-only
/* Does io_uring_cmd_done() take a second result and the issue flags? */
#ifdef FERRY_HAVE_URING_CMD_H
#include <linux/io_uring/cmd.h>
#else
#include <linux/io_uring.h>
#endif

void ferry_probe(struct io_uring_cmd *cmd, unsigned int issue_flags);
void ferry_probe(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	io_uring_cmd_done(cmd, 0, 0, issue_flags);
}
