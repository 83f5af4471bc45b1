/* SPDX-License-Identifier: MIT */
/* The `ferry` command: picks the subcommand. One thread. */
#include "cli/cli.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <ferry/ferry.h>

static const char usage[] =
	"Usage: ferry COMMAND [ARG...]\n"
	"\n"
	"Places the memory of programs in DDR and high-bandwidth memory (HBM).\n"
	"\n"
	"Commands:\n"
	"  run     run a program with its memory placed by a policy\n"
	"  info    show tiers, nodes, engines, and what is missing\n"
	"  help    show this text, or that of a command: ferry help run\n"
	"\n"
	"Options:\n"
	"  -h, --help       show this text; ferry COMMAND --help explains a command\n"
	"  -V, --version    show the version\n"
	"\n"
	"See ferry(1) for the environment variables.\n";

static const struct {
	const char *name;
	int (*run)(int argc, char *argv[]);
} commands[] = {
	{"run", run_command},
	{"info", info_command},
};

int fail(int status, const char *name, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "ferry%s%s: ", *name ? " " : "", name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return status;
}

int bad_option(const char *name, const char *usage_line, int option, const char *given)
{
	if (option == ':')
		fail(EXIT_USAGE, name, "%s needs a value", given);
	else if (optopt >= LONG_OPTION)
		fail(EXIT_USAGE, name, "%s: the option takes no value", given);
	else if (optopt)
		fail(EXIT_USAGE, name, "-%c: no such option", optopt);
	else
		fail(EXIT_USAGE, name, "%s: no such option", given);
	fputs(usage_line, stderr);
	return EXIT_USAGE;
}

static int call(const char *name, int argc, char *argv[])
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].run(argc, argv);
	fail(EXIT_USAGE, "", "unknown command \"%s\"", name);
	fputs(usage, stderr);
	return EXIT_USAGE;
}

/* "help" alone or with a command's name. */
static int help(int argc, char *argv[])
{
	char *call_argv[] = {argc > 1 ? argv[1] : NULL, (char *)"--help", NULL};

	if (argc > 2)
		return fail(EXIT_USAGE, "help", "unexpected argument \"%s\"", argv[2]);
	if (argc == 2 && strcmp(argv[1], "help") != 0)
		return call(argv[1], 2, call_argv);
	fputs(usage, stdout);
	return 0;
}

int main(int argc, char *argv[])
{
	const char *name = argc > 1 ? argv[1] : "";

	if (argc < 2) {
		fail(EXIT_USAGE, "", "which command?");
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h"))
		return help(argc - 1, argv + 1);
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("ferry %d.%d.%d\n", FERRY_VERSION_MAJOR, FERRY_VERSION_MINOR,
		       FERRY_VERSION_PATCH);
		return 0;
	}
	return call(name, argc - 1, argv + 1);
}
