/* SPDX-License-Identifier: MIT */
/* Running where another thread runs: see follow.h. */
#include "fault/follow.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "topology/topology.h"

/* Written by follow_open(). */
static struct {
	int tasks; /* /proc/self/task */
	int count;
	cpu_set_t cpus[FERRY_MAX_NODES]; /* of each node; those without are not in */
} follow = {.tasks = -1};

static const struct node_set none;

static bool read_file(int dir, const char *path, char *text, size_t size)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[len > 0 ? len : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return len > 0;
}

bool follow_is_needed(void)
{
	struct node_set nodes;
	char text[NODE_SET_TEXT_SIZE];

	return read_file(AT_FDCWD, TOPOLOGY_SYSFS "/has_cpu", text, sizeof(text)) &&
	       !node_set_parse(&nodes, text, &none) && node_set_count(&nodes) > 1;
}

/* A list of CPUs has the form of a list of nodes. */
static bool read_cpus(int node, cpu_set_t *cpus)
{
	char path[64], text[NODE_SET_TEXT_SIZE];
	struct node_set list;

	snprintf(path, sizeof(path), TOPOLOGY_SYSFS "/node%d/cpulist", node);
	if (!read_file(AT_FDCWD, path, text, sizeof(text)) || !*text ||
	    node_set_parse(&list, text, &none))
		return false;
	CPU_ZERO(cpus);
	for (int cpu = node_set_next(&list, 0); cpu >= 0 && cpu < CPU_SETSIZE;
	     cpu = node_set_next(&list, cpu + 1))
		CPU_SET((unsigned int)cpu, cpus);
	return true;
}

void follow_open(void)
{
	struct node_set nodes;
	char text[NODE_SET_TEXT_SIZE];

	follow.count = 0;
	if (!read_file(AT_FDCWD, TOPOLOGY_SYSFS "/has_cpu", text, sizeof(text)) ||
	    node_set_parse(&nodes, text, &none))
		return;
	for (int node = node_set_next(&nodes, 0); node >= 0;
	     node = node_set_next(&nodes, node + 1))
		follow.count += read_cpus(node, &follow.cpus[follow.count]);
	follow.tasks = open("/proc/self/task", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* The CPU that a thread last ran on, -1: unknown. The 39th word of its state. */
static int cpu_of(pid_t tid)
{
	char path[32], text[1024];
	const char *at;

	snprintf(path, sizeof(path), "%d/stat", (int)tid);
	if (!read_file(follow.tasks, path, text, sizeof(text)))
		return -1;
	/* The second word, a name in brackets, may have spaces in it. */
	at = strrchr(text, ')');
	for (int word = 3; at && word <= 39; word++) {
		at = strchr(at, ' ');
		at = at ? at + 1 : NULL;
	}
	return at ? (int)strtol(at, NULL, 10) : -1;
}

void follow_thread(pid_t tid)
{
	int cpu = cpu_of(tid), own = sched_getcpu();

	if (cpu < 0 || own < 0)
		return;
	for (int i = 0; i < follow.count; i++) {
		if (!CPU_ISSET((unsigned int)cpu, &follow.cpus[i]))
			continue;
		/* Refused where it may not run there: then it stays. */
		if (!CPU_ISSET((unsigned int)own, &follow.cpus[i]))
			sched_setaffinity(0, sizeof(follow.cpus[i]), &follow.cpus[i]);
		return;
	}
}
