// SPDX-License-Identifier: GPL-2.0-only
/* Does a uring command point to its whole SQE? (since 6.4) */
#ifdef FERRY_HAVE_URING_CMD_H
#include <linux/io_uring/cmd.h>
#else
#include <linux/io_uring.h>
#endif

const void *ferry_probe(struct io_uring_cmd *cmd);
const void *ferry_probe(struct io_uring_cmd *cmd)
{
	return cmd->sqe->cmd;
}
