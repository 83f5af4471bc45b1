/* SPDX-License-Identifier: MIT */
/*
 * The ledger: how processes of a machine, MPI ranks for example, share its HBM by
 * weight, without a server and without a lock.
 *
 * A directory (LEDGER_PATH, mode 1777 as /tmp has) with a file for each process
 * that takes part, PID.START-TIME, which nobody but that process writes. It is
 * linked in complete and later only one aligned word of it changes, so that a
 * reader never sees half of it, whenever its process is killed. A process is there
 * as long as its pid has that start time; the files of the dead do not count,
 * and the next reader who may removes them.
 *
 * A process has a weight and tells how much HBM it wants. It gets its part of
 * HBM by weight, and of what others do not want of theirs again its part by
 * weight. Processes of another pid namespace cannot be told alive from dead, and
 * do not count.
 *
 * Nothing here allocates or takes a lock, but for one that keeps the share of
 * this process, under which files are read. ledger_fork_* hold it over fork(2).
 */
#ifndef FERRY_LEDGER_H
#define FERRY_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LEDGER_PATH "/dev/shm/ferry-hbm"

/* Wants that are less are not counted: a shell that starts a rank has none. */
#define LEDGER_LEAST ((uint64_t)16 << 20)

/* Of a process that takes part. */
struct ledger_entry {
	pid_t pid;
	uid_t uid;
	uint32_t weight;
	uint64_t want; /* bytes; UINT64_MAX: all it can get */
};

/*
 * Enters this process with its weight, wanting nothing yet. @path: LEDGER_PATH,
 * or another for a test. @say: writes a line to stderr, for what is wrong in the
 * directory, once. 0; or -errno, and then this process does not take part, as
 * without this call: -EPERM (the directory is not as it should be), ...
 */
int ledger_enter(const char *path, uint32_t weight, void (*say)(const char *format, ...));

/* Whether this process takes part. */
bool ledger_is_entered(void);

/* Takes this process out; also done at exit. */
void ledger_leave(void);

/* How much this process wants. Cheap where that is about what it was. */
void ledger_want(uint64_t bytes);

/*
 * How much of @total bytes this process gets; all of it if it does not take
 * part. The ledger is read at most every 100 ms.
 */
uint64_t ledger_share(uint64_t total);

/* What one who wants all it can get has of @total, beside others. */
uint64_t ledger_divide(uint64_t total, uint32_t weight, const struct ledger_entry *others,
		       size_t n);

/*
 * Reads who takes part, up to @max, this process included; how many there are,
 * or -errno (-ENOENT: nobody).
 */
ssize_t ledger_read(const char *path, struct ledger_entry *out, size_t max);

/* Around fork(2). A child enters itself with its parent's weight. */
void ledger_fork_prepare(void);
void ledger_fork_parent(void);
void ledger_fork_child(void);

#endif /* FERRY_LEDGER_H */
