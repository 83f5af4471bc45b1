/* SPDX-License-Identifier: MIT */
/*
 * What the benchmarks of migration share: the ways of moving memory between two
 * nodes that are measured against each other, and the memory that they move.
 * Not for several threads at once, but for pages_on() and now_ns().
 */
#ifndef SUBJECTS_H
#define SUBJECTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <liburing.h>

#define PAGE ((size_t)4096)
#define HUGE ((size_t)2 << 20)

struct bench {
	char *mem;
	size_t bytes;
	size_t call_bytes; /* bytes moved by one call */
	bool huge;
	/*
	 * Small pages of Ferry's heap that are advised to be huge once they are
	 * there; made anew before each move, and moved one way.
	 */
	bool advised;
	char *copy; /* NULL, or as much memory on copy_node, to copy to and from */
	int copy_node;
	int device; /* -1 without the module */
	struct io_uring ring;
};

/* One way of moving all of bench->mem to a node */
struct subject {
	const char *name;
	bool needs_module;
	bool is_copy; /* moves nothing: what copying alone takes */
	void (*move)(struct bench *bench, int node);
};

/* The subject of that name, of which there must be one */
const struct subject *bench_subject(const char *name);

/* What a program of these is asked to do, with its defaults before options are read */
struct bench_task {
	struct bench bench;
	const char *subjects; /* a list with commas between its words */
	unsigned long rounds;
	int from, to;
	bool busy; /* a second thread works meanwhile */
};

/*
 * Reads the options --bytes, --call-pages, --rounds, --subjects, --from, --to, and of
 * --huge, --advised and --busy those whose first letter is in @flags. Ends the program
 * with @usage and the names of the subjects if there is anything else.
 */
void bench_options(struct bench_task *task, int argc, char **argv, const char *flags,
		   const char *usage);

/* Ends the program with a message that tells of errno. */
_Noreturn void die(const char *what);

uint64_t now_ns(void);

/* Opens the device, where there is one, and a ring; fills memory on @node. */
void bench_open(struct bench *bench, int node);
/*
 * Has @measure move the memory from node to node and back by each of the subjects, in
 * turns. Ends the program if one of them cannot be had here.
 */
void bench_rounds(struct bench_task *task,
		  void (*measure)(struct bench *bench, const struct subject *subject,
				  int node));
/* Pages of the memory, or for `copy` of the copy, that the kernel says are on @node */
size_t pages_on(const struct bench *bench, const struct subject *subject, int node);

#endif /* SUBJECTS_H */
