/* SPDX-License-Identifier: MIT */
/*
 * The `ferry` command: one file for each subcommand, and what they share. One
 * thread; static storage is fine.
 */
#ifndef FERRY_CLI_H
#define FERRY_CLI_H

/* Exit statuses of the command itself; `ferry run` otherwise has the program's. */
enum {
	EXIT_USAGE = 2,
	EXIT_OWN = 125,            /* ferry run could not do its own part */
	EXIT_NOT_EXECUTABLE = 126, /* as in a shell */
	EXIT_NOT_FOUND = 127,
};

/* Each gets the arguments from its own name on and returns the exit status. */
int run_command(int argc, char *argv[]);
int info_command(int argc, char *argv[]);

/* Writes "ferry NAME: " and a message to stderr; returns @status. */
__attribute__((format(printf, 3, 4))) int fail(int status, const char *name,
					       const char *format, ...);

/* Values of options that have no letter begin here. */
#define LONG_OPTION 256

/*
 * Says what is wrong with an option, for getopt_long() with a leading ":" in
 * its letters. @option: what that returned; @given: argv[optind - 1]. Returns
 * EXIT_USAGE.
 */
int bad_option(const char *name, const char *usage, int option, const char *given);

#endif /* FERRY_CLI_H */
