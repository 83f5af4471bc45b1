/* SPDX-License-Identifier: MIT */
/* The ledger: see ledger.h, which also has the locking rule. */
#include "policy/ledger.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "config/config.h"

#define MAGIC   UINT64_C(0x31776572726566) /* "ferrew1", as bytes */
#define OTHERS  1024                       /* processes that are looked at */
#define KEEP_NS UINT64_C(100000000)

/* What is in a file: of the native byte order, for it never leaves the machine. */
struct slot {
	uint64_t magic;
	uint64_t namespace; /* of the pid: an inode number */
	uint64_t start;     /* of the process, in clock ticks since boot */
	int32_t pid;
	uint32_t weight;
	uint64_t want; /* the word that changes */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* This process; guarded by the lock but for `entered`, which the start sets. */
static struct {
	atomic_bool entered;
	bool complained;
	char path[128], name[48];
	struct slot slot;
	uint64_t share, total; /* found at: */
	uint64_t at;
	void (*say)(const char *format, ...);
} own;

/* ---- processes ----------------------------------------------------------- */

/* Field 22 of /proc/PID/stat; 0: no such process, or it is not to be seen. */
static uint64_t start_of(pid_t pid)
{
	char path[40], text[512], *at;
	uint64_t start = 0;
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len <= 0)
		return 0;
	text[len] = '\0';
	at = strrchr(text, ')'); /* the end of the name, which may be anything */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (at)
		start = strtoull(at + 1, NULL, 10);
	return start;
}

static uint64_t own_namespace(void)
{
	struct stat status;

	return stat("/proc/self/ns/pid", &status) ? 0 : status.st_ino;
}

static bool is_alive(const struct slot *slot)
{
	return start_of(slot->pid) == slot->start;
}

/* ---- the directory ------------------------------------------------------- */

static int open_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

/* Everybody may add a file, and remove no other's. */
static int check_directory(int fd)
{
	struct stat status;

	if (fstat(fd, &status))
		return -errno;
	return (status.st_mode & 07777) == 01777 ? 0 : -EPERM;
}

/* Opens the directory, made if need be. Who makes it may not be done yet. */
static int make_directory(const char *path)
{
	int fd = -ENOENT, err = 0;

	for (int tries = 0; tries < 50; tries++) {
		const struct timespec pause = {0, 2000000};

		if (!mkdir(path, 0777) && chmod(path, 01777))
			return -errno;
		fd = open_directory(path);
		err = fd < 0 ? fd : check_directory(fd);
		if (!err)
			return fd;
		if (fd >= 0)
			close(fd);
		if (err != -EPERM && err != -EACCES && err != -ENOENT)
			break;
		nanosleep(&pause, NULL);
	}
	return err;
}

/* 0, -ENOENT for what is gone or another namespace's, -EINVAL for what is no slot. */
static int read_slot(int directory, const char *name, struct slot *slot, uid_t *uid)
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char expected[48];
	struct stat status = {0};
	int err = -EINVAL;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT : -EINVAL;
	if (!fstat(fd, &status) && S_ISREG(status.st_mode) &&
	    status.st_size == sizeof(*slot) &&
	    read(fd, slot, sizeof(*slot)) == sizeof(*slot) && slot->magic == MAGIC &&
	    slot->weight && slot->weight <= HBM_WEIGHT_MOST && slot->pid > 0) {
		snprintf(expected, sizeof(expected), "%d.%llu", slot->pid,
			 (unsigned long long)slot->start);
		err = strcmp(name, expected) ? -EINVAL : 0;
	}
	close(fd);
	*uid = status.st_uid;
	return err;
}

static void complain(const char *path, const char *name)
{
	if (!own.complained && own.say)
		own.say("%s/%s is no entry of a process; it is left alone", path, name);
	own.complained = true;
}

/* Takes one file in. Whether it is that of a live process. */
static bool take(int directory, const char *path, const char *name, uint64_t namespace,
		 struct ledger_entry *out)
{
	struct slot slot;
	uid_t uid;
	int err = read_slot(directory, name, &slot, &uid);

	if (err == -EINVAL)
		complain(path, name);
	if (err || slot.namespace != namespace)
		return false;
	if (!is_alive(&slot)) {
		unlinkat(directory, name, 0); /* if it is ours */
		return false;
	}
	*out = (struct ledger_entry){slot.pid, uid, slot.weight, slot.want};
	return true;
}

struct linux_dirent64 {
	uint64_t inode;
	int64_t next;
	unsigned short length;
	unsigned char type;
	char name[];
};

/* readdir(3) would allocate. */
static ssize_t read_directory(int directory, const char *path, struct ledger_entry *out,
			      size_t max)
{
	_Alignas(8) char buffer[4096];
	uint64_t namespace = own_namespace();
	size_t count = 0;
	long n;

	while ((n = syscall(SYS_getdents64, directory, buffer, sizeof(buffer))) > 0)
		for (long at = 0; at < n;) {
			const struct linux_dirent64 *entry =
				(const struct linux_dirent64 *)(buffer + at);
			struct ledger_entry found;

			at += entry->length;
			if (*entry->name == '.' ||
			    !take(directory, path, entry->name, namespace, &found))
				continue;
			if (count < max)
				out[count] = found;
			count++;
		}
	return n < 0 ? -errno : (ssize_t)count;
}

ssize_t ledger_read(const char *path, struct ledger_entry *out, size_t max)
{
	int directory = open_directory(path);
	ssize_t n;

	if (directory < 0)
		return directory;
	n = read_directory(directory, path, out, max);
	close(directory);
	return n;
}

/* ---- sharing ------------------------------------------------------------- */

uint64_t ledger_divide(uint64_t total, uint32_t weight, const struct ledger_entry *others,
		       size_t n)
{
	double left = (double)total, weights = weight, fair;
	bool settled;

	for (size_t i = 0; i < n; i++)
		weights += others[i].want >= LEDGER_LEAST ? others[i].weight : 0;
	/*
	 * What somebody does not want of its part is the others'. Each turn the
	 * parts grow, and who wants no more than its part now did not before.
	 */
	fair = 0;
	do {
		double before = fair;

		settled = true;
		fair = left / weights;
		for (size_t i = 0; i < n; i++) {
			double want = (double)others[i].want / others[i].weight;

			if (others[i].want < LEDGER_LEAST || want <= before ||
			    want > fair)
				continue;
			left -= (double)others[i].want;
			weights -= others[i].weight;
			settled = false;
		}
	} while (!settled);
	fair *= weight;
	return fair < (double)total ? (uint64_t)fair : total;
}

/* ---- this process -------------------------------------------------------- */

/* Within the lock. A file without a name gets one when it is complete. */
static int link_slot(int directory)
{
	char by_fd[40];
	int fd = openat(directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
	int err = 0;

	if (fd < 0)
		return -errno;
	fchmod(fd, 0644); /* whatever the umask */
	snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
	/* What is there by this name is ours, of before an exec. */
	unlinkat(directory, own.name, 0);
	if (write(fd, &own.slot, sizeof(own.slot)) != sizeof(own.slot))
		err = -EIO;
	else if (linkat(AT_FDCWD, by_fd, directory, own.name, AT_SYMLINK_FOLLOW))
		err = -errno;
	close(fd);
	return err;
}

/* Within the lock. */
static int enter(void)
{
	int directory = make_directory(own.path), err;

	if (directory < 0)
		return directory;
	own.slot.pid = getpid();
	own.slot.start = start_of(own.slot.pid);
	own.slot.namespace = own_namespace();
	own.slot.want = 0;
	own.at = 0;
	snprintf(own.name, sizeof(own.name), "%d.%llu", own.slot.pid,
		 (unsigned long long)own.slot.start);
	err = own.slot.start ? link_slot(directory) : -ENOENT;
	close(directory);
	return err;
}

int ledger_enter(const char *path, uint32_t weight, void (*say)(const char *format, ...))
{
	int err;

	if (strlen(path) >= sizeof(own.path))
		return -ENAMETOOLONG;
	pthread_mutex_lock(&lock);
	strncpy(own.path, path, sizeof(own.path) - 1);
	own.say = say;
	own.slot = (struct slot){.magic = MAGIC, .weight = weight};
	err = enter();
	own.entered = !err;
	pthread_mutex_unlock(&lock);
	return err;
}

bool ledger_is_entered(void)
{
	return own.entered;
}

__attribute__((destructor)) void ledger_leave(void)
{
	char full[sizeof(own.path) + sizeof(own.name) + 1];

	/* Not that of the parent, where a child has none of its own. */
	if (!own.entered || own.slot.pid != getpid())
		return;
	own.entered = false;
	snprintf(full, sizeof(full), "%s/%s", own.path, own.name);
	unlink(full);
}

static void write_want(uint64_t bytes)
{
	char full[sizeof(own.path) + sizeof(own.name) + 1];
	int fd;

	snprintf(full, sizeof(full), "%s/%s", own.path, own.name);
	fd = open(full, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return; /* somebody removed it: this process counts no more */
	if (pwrite(fd, &bytes, sizeof(bytes), offsetof(struct slot, want)) ==
	    sizeof(bytes))
		own.slot.want = bytes;
	close(fd);
}

/* Whether others need to know: it is an eighth more or less. */
static bool is_news(uint64_t before, uint64_t now)
{
	uint64_t change = before < now ? now - before : before - now;

	return (before < LEDGER_LEAST) != (now < LEDGER_LEAST) ||
	       (change >= LEDGER_LEAST && change > before / 8);
}

void ledger_want(uint64_t bytes)
{
	if (!own.entered)
		return;
	pthread_mutex_lock(&lock);
	if (is_news(own.slot.want, bytes))
		write_want(bytes);
	pthread_mutex_unlock(&lock);
}

/* Within the lock. */
static uint64_t find_share(uint64_t total)
{
	static struct ledger_entry entry[OTHERS];
	ssize_t n = ledger_read(own.path, entry, OTHERS);
	size_t others = 0;

	for (ssize_t i = 0; i < n && i < OTHERS; i++)
		if (entry[i].pid != own.slot.pid)
			entry[others++] = entry[i];
	return ledger_divide(total, own.slot.weight, entry, others);
}

uint64_t ledger_share(uint64_t total)
{
	struct timespec time;
	uint64_t now, share;

	if (!own.entered)
		return total;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
	now = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
	pthread_mutex_lock(&lock);
	if (!own.at || own.total != total || now - own.at >= KEEP_NS) {
		own.share = find_share(total);
		own.total = total;
		own.at = now;
	}
	share = own.share;
	pthread_mutex_unlock(&lock);
	return share;
}

/* ---- fork ---------------------------------------------------------------- */

void ledger_fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

void ledger_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

void ledger_fork_child(void)
{
	if (own.entered)
		own.entered = !enter();
	pthread_mutex_unlock(&lock);
}
