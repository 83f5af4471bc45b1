// SPDX-License-Identifier: GPL-2.0-only
/* Has a uring command its whole SQE, read by io_uring_sqe_cmd()? (since 6.4) */
#ifdef FERRY_HAVE_URING_CMD_H
#include <linux/io_uring/cmd.h>
#else
#include <linux/io_uring.h>
#endif

const void *ferry_probe(struct io_uring_cmd *cmd);
const void *ferry_probe(struct io_uring_cmd *cmd)
{
	return io_uring_sqe_cmd(cmd->sqe);
}
