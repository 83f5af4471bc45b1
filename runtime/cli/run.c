/* SPDX-License-Identifier: MIT */
/*
 * `ferry run`: checks what is asked, puts it into the environment together
 * with LD_PRELOAD, and becomes the program, so that its exit status, signals
 * and terminal are its own. One thread.
 */
#include "cli/cli.h"
#include "cli/program.h"
#include "fault/sampler.h"
#include "policy/filling.h"
#include "config/config.h"
#include "topology/topology.h"

#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <numa.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRELOAD_NAME "libferry-preload.so"

static const char usage[] = "Usage: ferry run [OPTION...] [--] PROGRAM [ARG...]\n";

static const char help[] =
	"\n"
	"Runs PROGRAM with its memory placed by a policy, by way of LD_PRELOAD.\n"
	"\n"
	"Options:\n"
	"  --policy POLICY    where memory goes                            (hbm)\n"
	"      hbm         all of it to HBM, and to DDR when HBM is full\n"
	"      ddr         all of it to DDR\n"
	"      interleave  over DDR and HBM, by their bandwidth\n"
	"      threshold   to HBM what is allocated in pieces of at least --min-size\n"
	"      auto        moves what is hot to HBM and what is cold to DDR as it runs\n"
	"  --min-size SIZE    threshold's least size, and the least private anonymous\n"
	"                     mmap(2) that is placed at all                 (1M)\n"
	"                     threshold takes 16K or more\n"
	"  --manage WHAT      which memory is placed at all             (heap,mmap)\n"
	"      heap        what the program allocates\n"
	"      mmap        its private anonymous mappings\n"
	"      static      its static arrays (.data, .bss)\n"
	"      stack       its threads' stacks\n"
	"  --hbm-limit SIZE   most HBM that each process takes              (no limit)\n"
	"  --hbm-weight N     share HBM by weight with other processes that have one,\n"
	"                     such as MPI ranks: 1 to 10000       (does not share)\n"
	"  --move-limit SIZE  most bytes a second that auto moves           (no limit)\n"
	"  --overhead PERCENT most of a CPU that auto takes to find what is hot    (1)\n"
	"  --sampler SAMPLER  what tells auto which memory is accessed             "
	"(auto)\n"
	"      auto        abit, or else pebs\n"
	"      abit        accessed bits, by the module\n"
	"      fault       hint faults: takes few pages out of their place for moments\n"
	"      pebs        loads with addresses, by the CPU's PMU\n"
	"  --hbm-nodes NODES  these nodes are the HBM: \"1\", \"2-3\", \"!0\"; \"\" for "
	"none\n"
	"                     (found by bandwidth, see ferry info)\n"
	"  --huge MODE        huge pages for memory that is placed          (auto)\n"
	"      auto        as the system has it; where it has `madvise`, for what is\n"
	"                  allocated in pieces of 32 MiB and more\n"
	"      always      for all of it\n"
	"      never       for none\n"
	"  --first-touch      memory that is touched is filled by a thread of Ferry's,\n"
	"                     many pages at once, where pages are small\n"
	"  --stats            write a summary to stderr at each process's exit\n"
	"  -h, --help         show this text\n"
	"\n"
	"SIZE is a number of bytes, or one with a suffix K, M, G or T (powers of 1024).\n"
	"Each option sets an environment variable, which is used where the option is "
	"not\n"
	"given: FERRY_POLICY, FERRY_MIN_SIZE, FERRY_MANAGE, FERRY_HBM_LIMIT,\n"
	"FERRY_HBM_WEIGHT, FERRY_MOVE_LIMIT, FERRY_OVERHEAD, FERRY_SAMPLER,\n"
	"FERRY_HBM_NODES, FERRY_HUGE, "
	"FERRY_FIRST_TOUCH, FERRY_STATS.\n"
	"Programs that PROGRAM starts inherit them.\n"
	"\n"
	"Exit status: PROGRAM's; 127 if it is not found, 126 if it cannot be executed,\n"
	"2 for wrong usage, 125 if ferry itself failed.\n";

/* Options that set a variable; their index is what getopt_long() returns. */
enum { OPTION_HELP = 'h', OPTION_FIRST = LONG_OPTION };

static const struct {
	const char *option;
	const char *variable;
	int argument;
} settings[] = {
	{"policy", "FERRY_POLICY", required_argument},
	{"min-size", "FERRY_MIN_SIZE", required_argument},
	{"manage", "FERRY_MANAGE", required_argument},
	{"hbm-limit", "FERRY_HBM_LIMIT", required_argument},
	{"hbm-weight", "FERRY_HBM_WEIGHT", required_argument},
	{"move-limit", "FERRY_MOVE_LIMIT", required_argument},
	{"overhead", "FERRY_OVERHEAD", required_argument},
	{"sampler", "FERRY_SAMPLER", required_argument},
	{"hbm-nodes", "FERRY_HBM_NODES", required_argument},
	{"huge", "FERRY_HUGE", required_argument},
	{"first-touch", "FERRY_FIRST_TOUCH", no_argument},
	{"stats", "FERRY_STATS", no_argument},
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* Puts one option into the environment, if the value is right. */
static int take_setting(size_t index, const char *value)
{
	char assignment[PATH_MAX], error[256];
	char *envp[] = {assignment, NULL};
	struct config config;
	int len = snprintf(assignment, sizeof(assignment), "%s=%s",
			   settings[index].variable, value);

	if ((size_t)len >= sizeof(assignment))
		return fail(EXIT_USAGE, "run", "--%s: the value is too long",
			    settings[index].option);
	if (config_read(&config, envp, error, sizeof(error)))
		return fail(EXIT_USAGE, "run", "--%s: %s", settings[index].option, error);
	if (setenv(settings[index].variable, value, 1))
		return fail(EXIT_OWN, "run", "%s", strerror(errno));
	return 0;
}

/* Reads options up to the program's name. Returns 0, or the exit status and *done. */
static int take_options(int argc, char *argv[], bool *done)
{
	struct option options[SETTINGS + 2] = {{"help", no_argument, NULL, OPTION_HELP}};
	int option, status;

	for (size_t i = 0; i < SETTINGS; i++)
		options[i + 1] = (struct option){settings[i].option, settings[i].argument,
						 NULL, OPTION_FIRST + (int)i};
	*done = true;
	opterr = 0;
	while ((option = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
		if (option == OPTION_HELP) {
			fputs(usage, stdout);
			fputs(help, stdout);
			return 0;
		}
		if (option < OPTION_FIRST)
			return bad_option("run", usage, option, argv[optind - 1]);
		status = take_setting((size_t)(option - OPTION_FIRST),
				      optarg ? optarg : "1");
		if (status)
			return status;
	}
	if (optind == argc) {
		fail(EXIT_USAGE, "run", "no program given");
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	*done = false;
	return 0;
}

/* Says once what keeps @policy from using HBM; the preload library then says nothing. */
static void say_without_hbm(enum policy_kind policy, const struct topology *topology)
{
	const struct node_set *hbm = &topology->tier[FERRY_TIER_HBM];
	struct bitmask *allowed;
	char text[NODE_SET_TEXT_SIZE];
	bool usable = false;

	if (policy == POLICY_DDR || getenv("FERRY_SAID_NO_HBM"))
		return;
	if (!node_set_count(hbm)) {
		fail(0, "run", "this machine has no HBM, all memory goes to DDR");
		setenv("FERRY_SAID_NO_HBM", "1", 1);
		return;
	}
	allowed = numa_available() < 0 ? NULL : numa_get_mems_allowed();
	for (int node = node_set_next(hbm, 0); node >= 0;
	     node = node_set_next(hbm, node + 1))
		if (!allowed || numa_bitmask_isbitset(allowed, (unsigned int)node))
			usable = true;
	if (allowed)
		numa_bitmask_free(allowed);
	if (!usable) {
		fail(0, "run",
		     "this cpuset allows no HBM node (HBM: %s), all memory goes to DDR",
		     node_set_format(hbm, text, sizeof(text)));
		setenv("FERRY_SAID_NO_HBM", "1", 1);
	}
}

/* Says once that huge pages are asked for in vain. */
static void say_without_huge(enum huge_mode mode)
{
	if (mode != HUGE_ALWAYS || huge_system() > HUGE_SYSTEM_NEVER ||
	    getenv("FERRY_SAID_NO_HUGE"))
		return;
	fail(0, "run", HUGE_MISSING);
	setenv("FERRY_SAID_NO_HUGE", "1", 1);
}

/* Says once that `auto` cannot see what is accessed; the libraries then say nothing. */
static void say_without_sampler(const struct config *config)
{
	const char *why;

	if (config->policy != POLICY_AUTO || getenv("FERRY_SAID_NO_HBM") ||
	    getenv("FERRY_SAID_NO_SAMPLER") ||
	    strcmp(sampler_name(config->sampler, &why), "none") != 0)
		return;
	fail(0, "run",
	     "policy auto: nothing tells what is accessed (%s); memory stays where it is "
	     "first touched",
	     why);
	setenv("FERRY_SAID_NO_SAMPLER", "1", 1);
}

/* Says once that the kernel fills memory though Ferry was asked to. */
static void say_without_first_touch(const struct config *config)
{
	const char *why;

	if (!config->first_touch || getenv("FERRY_SAID_NO_FIRST_TOUCH") ||
	    strcmp(filling_name(config, &why), "kernel") != 0)
		return;
	fail(0, "run", "first touch: %s; the kernel fills memory", why);
	setenv("FERRY_SAID_NO_FIRST_TOUCH", "1", 1);
}

/* Checks the whole environment, that is the options and what was there before. */
static int check_environment(void)
{
	static struct topology topology;
	struct config config;
	char error[512];

	if (!getenv("FERRY_POLICY"))
		setenv("FERRY_POLICY", config_policy_name(POLICY_HBM), 1);
	if (config_read(&config, environ, error, sizeof(error)) ||
	    topology_read(&topology, TOPOLOGY_SYSFS, config.hbm_nodes, error,
			  sizeof(error)))
		return fail(EXIT_USAGE, "run", "%s", error);
	say_without_hbm(config.policy, &topology);
	say_without_huge(config.huge);
	say_without_sampler(&config);
	say_without_first_touch(&config);
	return 0;
}

/* Finds the preload library: FERRY_PRELOAD_LIB, or where this command was built
 * or installed. */
static int find_library(char *path)
{
	static const char *const places[] = {"../lib", "../" FERRY_LIBDIR};
	const char *given = getenv("FERRY_PRELOAD_LIB");
	char self[PATH_MAX], candidate[2 * PATH_MAX];
	ssize_t len;

	if (given) {
		if (realpath(given, path) && !access(path, R_OK))
			return 0;
		return fail(EXIT_OWN, "run", "FERRY_PRELOAD_LIB=\"%s\": %s", given,
			    strerror(errno));
	}
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len < 0)
		return fail(EXIT_OWN, "run", "/proc/self/exe: %s", strerror(errno));
	self[len] = '\0';
	dirname(self);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(candidate, sizeof(candidate), "%s/%s/" PRELOAD_NAME, self,
			 places[i]);
		if (realpath(candidate, path) && !access(path, R_OK))
			return 0;
	}
	return fail(EXIT_OWN, "run",
		    "no " PRELOAD_NAME
		    " in %s/%s or %s/%s; build or install it, or name it in "
		    "FERRY_PRELOAD_LIB",
		    self, places[0], self, places[1]);
}

/* The library goes before what LD_PRELOAD names already. */
static int preload(const char *library)
{
	const char *before = getenv("LD_PRELOAD");
	char *value;
	int err;

	if (strpbrk(library, " :"))
		return fail(EXIT_OWN, "run",
			    "%s: LD_PRELOAD takes no path with a space or a colon in it",
			    library);
	if (asprintf(&value, "%s%s%s", library, before && *before ? ":" : "",
		     before ? before : "") < 0)
		return fail(EXIT_OWN, "run", "%s", strerror(ENOMEM));
	err = setenv("LD_PRELOAD", value, 1);
	free(value);
	return err ? fail(EXIT_OWN, "run", "%s", strerror(errno)) : 0;
}

static int check_program(const char *name)
{
	char path[PATH_MAX];
	const char *why;
	int err = program_find(name, path, sizeof(path));

	if (err)
		return fail(err == -ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE, "run",
			    "%s: %s", name,
			    err == -ENOENT ? "not found"
					   : "found, but it cannot be executed");
	why = program_refuses_preload(path);
	if (why)
		fail(0, "run",
		     "warning: %s %s, so LD_PRELOAD has no effect and its memory is not "
		     "placed",
		     name, why);
	return 0;
}

int run_command(int argc, char *argv[])
{
	char library[PATH_MAX];
	bool done;
	int status = take_options(argc, argv, &done);

	if (done)
		return status;
	argv += optind;
	status = check_environment();
	if (!status)
		status = check_program(argv[0]);
	if (!status)
		status = find_library(library);
	if (!status)
		status = preload(library);
	if (status)
		return status;
	execvp(argv[0], argv);
	return fail(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE, "run",
		    "%s: %s", argv[0], strerror(errno));
}
