/* SPDX-License-Identifier: MIT */
/*
 * Proves that processes share by weight what they want, that those that are
 * killed, in the middle of whatever they do, do not count, and that a directory
 * with anything else in it does no harm. Processes are real; HBM is a number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy/ledger.h"

#define MIB   ((uint64_t)1 << 20)
#define TOTAL (1000 * MIB)
#define ALL   UINT64_MAX

static char path[64];
static unsigned int said;

static void say(const char *format, ...)
{
	(void)format;
	said++;
}

static void remove_path(void)
{
	char name[400];
	DIR *directory = opendir(path);
	struct dirent *entry;

	while (directory && (entry = readdir(directory))) {
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (unlink(name))
			rmdir(name);
	}
	if (directory)
		closedir(directory);
	if (rmdir(path))
		unlink(path);
}

static int set_up(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/dev/shm/ferry-test.%d", (int)getpid());
	remove_path();
	said = 0;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	ledger_leave();
	remove_path();
	return 0;
}

static size_t files(void)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	size_t n = 0;

	while (directory && (entry = readdir(directory)))
		n += *entry->d_name != '.';
	if (directory)
		closedir(directory);
	return n;
}

/* ---- the division -------------------------------------------------------- */

static uint64_t divide(uint32_t weight, const struct ledger_entry *others, size_t n)
{
	return ledger_divide(TOTAL, weight, others, n) / MIB;
}

static void by_weight(void **state)
{
	const struct ledger_entry all[] = {{.weight = 1, .want = ALL},
					   {.weight = 3, .want = ALL}};
	const struct ledger_entry little[] = {{.weight = 1, .want = 100 * MIB},
					      {.weight = 1, .want = ALL}};
	const struct ledger_entry chain[] = {{.weight = 1, .want = 20 * MIB},
					     {.weight = 1, .want = 300 * MIB},
					     {.weight = 1, .want = 330 * MIB}};
	const struct ledger_entry shell[] = {{.weight = 1000, .want = 15 * MIB},
					     {.weight = 1000, .want = 0}};

	(void)state;
	assert_int_equal(divide(7, NULL, 0), 1000);
	assert_int_equal(divide(1, all, 2), 200);
	assert_int_equal(divide(4, all, 2), 500);
	/* 100 of it are wanted by one, the rest is halved. */
	assert_int_equal(divide(1, little, 2), 450);
	/* 20 leave 980 to three; 300 leave 680 to two; 330 leave 350. */
	assert_int_equal(divide(1, chain, 3), 350);
	/* What wants next to nothing is not counted. */
	assert_int_equal(divide(1, shell, 2), 1000);
	assert_int_equal(ledger_divide(0, 1, all, 2), 0);
}

/* Nobody's part depends on the order, and no more than there is is given away. */
static void parts_add_up(void **state)
{
	struct ledger_entry entry[10];

	(void)state;
	srand(1);
	for (int round = 0; round < 2000; round++) {
		uint64_t given = 0, wanted = 0;

		for (size_t i = 0; i < 10; i++) {
			entry[i].weight = 1 + (uint32_t)rand() % 20;
			entry[i].want = (16 + (uint64_t)rand() % 400) * MIB;
			wanted += entry[i].want;
		}
		for (size_t i = 0; i < 10; i++) {
			struct ledger_entry others[9];
			uint64_t part;

			for (size_t k = 0, n = 0; k < 10; k++)
				if (k != i)
					others[n++] = entry[k];
			part = ledger_divide(TOTAL, entry[i].weight, others, 9);
			given += part < entry[i].want ? part : entry[i].want;
		}
		assert_true(given <= TOTAL + 10);
		/* And all of it, if it is wanted. */
		assert_true(given + 10 >= (wanted < TOTAL ? wanted : TOTAL));
	}
}

/* ---- processes ----------------------------------------------------------- */

/* A process that takes part and waits, or writes without end. */
static pid_t start(uint32_t weight, uint64_t want, bool busy)
{
	int ready[2];
	char byte;
	pid_t child;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ledger_leave();
		if (ledger_enter(path, weight, say))
			_exit(1);
		ledger_want(want);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		while (busy) {
			ledger_want(500 * MIB);
			ledger_want(want);
			ledger_leave();
			ledger_enter(path, weight, say);
		}
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return child;
}

static void end(pid_t child)
{
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

/* The share of this process, once it is read anew. */
static uint64_t share(void)
{
	usleep(150000);
	return ledger_share(TOTAL) / MIB;
}

static void ranks_share_and_die(void **state)
{
	pid_t child[3];

	(void)state;
	assert_int_equal(ledger_share(TOTAL), TOTAL); /* without taking part */
	assert_int_equal(ledger_enter(path, 1, say), 0);
	assert_true(ledger_is_entered());
	ledger_want(ALL);
	assert_int_equal(share(), 1000);
	child[0] = start(1, ALL, false);
	assert_int_equal(share(), 500);
	child[1] = start(2, ALL, false);
	child[2] = start(4, 15 * MIB, false); /* no want to speak of */
	assert_int_equal(share(), 250);
	assert_int_equal(files(), 4);
	end(child[1]);
	assert_int_equal(share(), 500);
	end(child[0]);
	end(child[2]);
	assert_int_equal(share(), 1000);
	assert_int_equal(files(), 1); /* what they left behind is gone */
	ledger_leave();
	assert_int_equal(files(), 0);
	assert_int_equal(said, 0);
}

static void killed_in_the_middle(void **state)
{
	(void)state;
	assert_int_equal(ledger_enter(path, 1, say), 0);
	ledger_want(ALL);
	for (int i = 0; i < 60; i++) {
		struct ledger_entry entry[8];
		pid_t child = start(3, ALL, true);
		ssize_t n;

		usleep((useconds_t)(i * 137 % 3000));
		n = ledger_read(path, entry, 8);
		assert_in_range(n, 1, 2);
		end(child);
		n = ledger_read(path, entry, 8);
		assert_int_equal(n, 1);
		assert_int_equal(entry[0].pid, getpid());
		assert_true(entry[0].want == ALL);
	}
	assert_int_equal(share(), 1000);
	assert_int_equal(files(), 1);
	assert_int_equal(said, 0);
}

static void a_child_takes_part(void **state)
{
	pid_t child;
	int status;

	(void)state;
	assert_int_equal(ledger_enter(path, 1, say), 0);
	ledger_want(ALL);
	ledger_fork_prepare();
	child = fork();
	if (!child) {
		ledger_fork_child();
		ledger_want(ALL);
		_exit(files() == 2 && ledger_share(TOTAL) / MIB == 500 ? 0 : 1);
	}
	ledger_fork_parent();
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(share(), 1000);
	/* As after an exec: the same process again. */
	assert_int_equal(ledger_enter(path, 5, say), 0);
	assert_int_equal(files(), 1);
}

/* ---- what is wrong ------------------------------------------------------- */

static void put(const char *name, const void *data, size_t size)
{
	char full[200];
	int fd;

	snprintf(full, sizeof(full), "%s/%s", path, name);
	fd = open(full, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
}

static void garbage_is_left_alone(void **state)
{
	char full[400], garbage[4096], slot[64];
	ssize_t size;
	int fd;

	(void)state;
	assert_int_equal(ledger_enter(path, 1, say), 0);
	ledger_want(ALL);
	memset(garbage, 0xa5, sizeof(garbage));
	put("1.1", garbage, 0);
	put("garbage", garbage, sizeof(garbage));
	put("1.2", garbage, 40);
	snprintf(full, sizeof(full), "%s/link", path);
	assert_int_equal(symlink("/etc/passwd", full), 0);
	snprintf(full, sizeof(full), "%s/fifo", path);
	assert_int_equal(mkfifo(full, 0666), 0);
	snprintf(full, sizeof(full), "%s/directory", path);
	assert_int_equal(mkdir(full, 0777), 0);
	/* A slot by another's name. */
	{
		struct dirent **names;
		int n = scandir(path, &names, NULL, alphasort);

		fd = -1;
		for (int i = 0; i < n; i++) {
			char own[32];

			snprintf(own, sizeof(own), "%d.", (int)getpid());
			snprintf(full, sizeof(full), "%s/%s", path, names[i]->d_name);
			if (!strncmp(names[i]->d_name, own, strlen(own)))
				fd = open(full, O_RDONLY);
			free(names[i]);
		}
		free(names);
	}
	size = read(fd, slot, sizeof(slot));
	close(fd);
	assert_true(size > 0);
	put("1.3", slot, (size_t)size);
	assert_int_equal(said, 0);
	assert_int_equal(share(), 1000);
	assert_int_equal(share(), 1000);
	assert_int_equal(said, 1); /* once for all of it */
	assert_int_equal(files(), 8);
}

static void a_wrong_directory(void **state)
{
	int fd;

	(void)state;
	/* Not for everybody: others could not enter, or its owner's only could. */
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(chmod(path, 0755), 0);
	assert_int_equal(ledger_enter(path, 1, say), -EPERM);
	assert_false(ledger_is_entered());
	assert_int_equal(ledger_share(TOTAL), TOTAL);
	assert_int_equal(rmdir(path), 0);
	fd = open(path, O_WRONLY | O_CREAT, 0666);
	close(fd);
	assert_int_equal(ledger_enter(path, 1, say), -ENOTDIR);
	unlink(path);
	assert_int_equal(symlink("/tmp", path), 0); /* which is 1777 */
	assert_true(ledger_enter(path, 1, say) < 0);
	unlink(path);
	assert_int_equal(ledger_enter("/no/such/place", 1, say), -ENOENT);
}

/* Other users take part, and nobody removes another's entry. */
static void several_users(void **state)
{
	pid_t child;
	int status;

	(void)state;
	if (geteuid())
		skip();
	assert_int_equal(ledger_enter(path, 1, say), 0);
	ledger_want(ALL);
	child = fork();
	if (!child) {
		char full[400];
		struct dirent *entry;
		DIR *directory;

		if (setgid(65534) || setuid(65534) || ledger_enter(path, 1, say))
			_exit(1);
		ledger_want(ALL);
		if (ledger_share(TOTAL) / MIB != 500)
			_exit(2);
		directory = opendir(path);
		while ((entry = readdir(directory))) {
			snprintf(full, sizeof(full), "%s/%s", path, entry->d_name);
			unlink(full);
		}
		_exit(files() == 1 ? 0 : 3); /* its own only could go */
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(share(), 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_weight),
		cmocka_unit_test(parts_add_up),
		cmocka_unit_test_setup_teardown(ranks_share_and_die, set_up, tear_down),
		cmocka_unit_test_setup_teardown(killed_in_the_middle, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_child_takes_part, set_up, tear_down),
		cmocka_unit_test_setup_teardown(garbage_is_left_alone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_wrong_directory, set_up, tear_down),
		cmocka_unit_test_setup_teardown(several_users, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
