// SPDX-License-Identifier: GPL-2.0-only
/*
 * The requests as io_uring commands (IORING_OP_URING_CMD).
 *
 * A request may sleep, so the submitter's attempt is answered with -EAGAIN.
 * io_uring then keeps a copy of the SQE and has the command issued again by an
 * io-wq worker: a thread of the submitter that shares its mm, its credentials
 * and its cgroup. There it runs as in the ioctl; several run in parallel. A
 * request in flight holds the file, and so the module. When the ring is closed
 * or the process is killed, the worker gets a signal and stops at the next
 * chunk.
 *
 * Some kernels, 6.12 among them, go on pointing to the SQE in the ring, where
 * another command may be by then. So the first attempt saves the command area
 * in the command's own room. That of a link comes when what it follows has
 * ended, or not at all if the worker that did that takes it at once; the link
 * comes to nothing if its SQE is not in the ring any more.
 *
 * Locking: none; a command is issued by one task at a time.
 */
#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/fs.h>

#include "compat.h"
#include "ferry.h"

static struct ferry_uring_cmd *saved(struct io_uring_cmd *cmd)
{
	BUILD_BUG_ON(sizeof(struct ferry_uring_cmd) > sizeof(cmd->pdu));
	return (struct ferry_uring_cmd *)cmd->pdu;
}

/* In cmd->flags, which begin as the SQE's, of which io_uring admits few bits */
#define IS_SAVED BIT(27)

/* Return: false if the SQE is another command's by now. */
static bool save(struct io_uring_cmd *cmd)
{
	const struct ferry_uring_cmd *in = ferry_uring_payload(cmd);

	saved(cmd)->arg = READ_ONCE(in->arg);
	saved(cmd)->reserved = READ_ONCE(in->reserved);
	if (!ferry_uring_is_kept(cmd))
		return false;
	cmd->flags |= IS_SAVED;
	return true;
}

static int run(struct io_uring_cmd *cmd)
{
	u64 arg;

	if (!(cmd->flags & IS_SAVED) && !save(cmd))
		return -EAGAIN;
	arg = saved(cmd)->arg;
	if (saved(cmd)->reserved)
		return -EINVAL;
	switch (cmd->cmd_op) {
	case FERRY_IOC_MIGRATE:
	case FERRY_IOC_QUERY:
	case FERRY_IOC_SCAN:
		return ferry_request(cmd->file->private_data, cmd->cmd_op,
				     u64_to_user_ptr(arg));
	default:
		return -EOPNOTSUPP;
	}
}

/**
 * ferry_uring_cmd() - the device's uring_cmd file operation
 * @cmd: the command
 * @issue_flags: IO_URING_F_*
 *
 * The result is handed over by io_uring_cmd_done(), not returned: kernels
 * before 6.7 or so take a positive value returned from an io-wq worker for
 * neither success nor error, and the request never completes.
 *
 * Return: -EAGAIN if it must not block, else -EIOCBQUEUED.
 */
int ferry_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	if (issue_flags & IO_URING_F_NONBLOCK) {
		save(cmd);
		return -EAGAIN;
	}
	ferry_uring_done(cmd, run(cmd), issue_flags);
	return -EIOCBQUEUED;
}
