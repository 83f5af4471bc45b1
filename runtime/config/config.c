/* SPDX-License-Identifier: MIT */
/*
 * The FERRY_* environment variables. Pure functions on values, no allocation;
 * config_get()'s result is written once.
 */
#include "config/config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const policy_names[] = {
	[POLICY_DDR] = "ddr",
	[POLICY_HBM] = "hbm",
	[POLICY_INTERLEAVE] = "interleave",
	[POLICY_THRESHOLD] = "threshold",
	[POLICY_AUTO] = "auto",
};

static const char *const engine_names[] = {
	[ENGINE_AUTO] = "auto",
	[ENGINE_KMOD] = "kmod",
	[ENGINE_KMOD_RELOCATE] = "kmod+relocate",
	[ENGINE_RELOCATE] = "relocate",
	[ENGINE_SYSCALL] = "syscall",
};

static const char *const huge_names[] = {
	[HUGE_AUTO] = "auto",
	[HUGE_ALWAYS] = "always",
	[HUGE_NEVER] = "never",
};

static const char *const sampler_names[] = {
	[SAMPLER_AUTO] = "auto",
	[SAMPLER_ABIT] = "abit",
	[SAMPLER_FAULT] = "fault",
	[SAMPLER_PEBS] = "pebs",
};

static const char *const first_touch_names[] = {
	[FIRST_TOUCH_KERNEL] = "0",
	[FIRST_TOUCH_SAFE] = "1",
	[FIRST_TOUCH_ALWAYS] = "always",
};

static const struct config defaults = {
	.policy = POLICY_DDR,
	.min_size = (size_t)1 << 20,
	.manage = MANAGE_HEAP | MANAGE_MMAP,
	.hbm_limit = UINT64_MAX,
	.engine = ENGINE_AUTO,
	.move_limit = UINT64_MAX,
	.overhead = 1,
};

#define SIZE_ALLOWED "a number of bytes, or one with a suffix K, M, G or T"

int config_parse_size(const char *text, uint64_t *bytes)
{
	static const char suffixes[] = "KMGT";
	uint64_t value = 0;
	unsigned int shift = 0;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, *text - '0', &value))
			return -EINVAL;
	if (*text) {
		const char *suffix = strchr(suffixes, *text & ~0x20); /* either case */

		if (!suffix || !*suffix || text[1])
			return -EINVAL;
		shift = 10 * (unsigned int)(suffix - suffixes + 1);
	}
	if (value > UINT64_MAX >> shift)
		return -EINVAL;
	*bytes = value << shift;
	return 0;
}

const char *config_policy_name(enum policy_kind policy)
{
	return policy_names[policy];
}

const char *config_huge_name(enum huge_mode huge)
{
	return huge_names[huge];
}

/* The index of @text in @names, or -1. */
static int find_name(const char *text, const char *const names[], int count)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(text, names[i]))
			return i;
	return -1;
}

/* One function for each variable: NULL, or what is allowed. */

static const char *set_policy(struct config *config, const char *value)
{
	int found = find_name(value, policy_names, POLICY_AUTO + 1);

	if (found < 0)
		return "ddr, hbm, interleave, threshold or auto";
	config->policy = (enum policy_kind)found;
	return NULL;
}

static const char *set_min_size(struct config *config, const char *value)
{
	uint64_t bytes;

	if (config_parse_size(value, &bytes) || bytes > SIZE_MAX)
		return SIZE_ALLOWED;
	config->min_size = (size_t)bytes;
	return NULL;
}

const char *config_manage_name(unsigned int bit)
{
	static const char *const names[] = {"heap", "mmap", "static", "stack"};

	return bit < sizeof(names) / sizeof(names[0]) ? names[bit] : NULL;
}

static const char *set_manage(struct config *config, const char *value)
{
	config->manage = 0;
	for (;;) {
		size_t len = strcspn(value, ",");
		unsigned int i = 0;
		const char *name;

		while ((name = config_manage_name(i)) &&
		       (strlen(name) != len || strncmp(value, name, len) != 0))
			i++;
		if (!name)
			return "one or more of heap, mmap, static and stack, with commas";
		config->manage |= 1U << i;
		if (!value[len])
			return NULL;
		value += len + 1;
	}
}

static const char *set_hbm_limit(struct config *config, const char *value)
{
	return config_parse_size(value, &config->hbm_limit) ? SIZE_ALLOWED : NULL;
}

/* Checked by topology_read(), which knows the nodes. */
static const char *set_hbm_nodes(struct config *config, const char *value)
{
	config->hbm_nodes = value;
	return NULL;
}

static const char *set_huge(struct config *config, const char *value)
{
	int found = find_name(value, huge_names, HUGE_NEVER + 1);

	if (found < 0)
		return "auto, always or never";
	config->huge = (enum huge_mode)found;
	return NULL;
}

static const char *set_engine(struct config *config, const char *value)
{
	int found = find_name(value, engine_names, ENGINE_SYSCALL + 1);

	if (found < 0)
		return "auto, kmod, kmod+relocate, relocate or syscall";
	config->engine = (enum engine_choice)found;
	return NULL;
}

/* A number from 1 to @most, of digits only. 0 or -EINVAL. */
static int parse_number(const char *value, uint64_t most, unsigned int *out)
{
	uint64_t number;

	if (!*value || value[strspn(value, "0123456789")] ||
	    config_parse_size(value, &number) || number < 1 || number > most)
		return -EINVAL;
	*out = (unsigned int)number;
	return 0;
}

static const char *set_overhead(struct config *config, const char *value)
{
	return parse_number(value, 100, &config->overhead)
		       ? "a whole number of percent from 1 to 100"
		       : NULL;
}

static const char *set_move_limit(struct config *config, const char *value)
{
	uint64_t bytes;

	if (config_parse_size(value, &bytes) || bytes < MOVE_LIMIT_LEAST ||
	    bytes > INT64_MAX)
		return "64K or more, in bytes or with a suffix K, M, G or T";
	config->move_limit = bytes;
	return NULL;
}

static const char *set_hbm_weight(struct config *config, const char *value)
{
	return parse_number(value, HBM_WEIGHT_MOST, &config->hbm_weight)
		       ? "a whole number from 1 to 10000"
		       : NULL;
}

static const char *set_first_touch(struct config *config, const char *value)
{
	int found = find_name(value, first_touch_names, FIRST_TOUCH_ALWAYS + 1);

	if (found < 0)
		return "0, 1 or always";
	config->first_touch = (enum first_touch)found;
	return NULL;
}

static const char *set_sampler(struct config *config, const char *value)
{
	int found = find_name(value, sampler_names, SAMPLER_PEBS + 1);

	if (found < 0)
		return "auto, abit, fault or pebs";
	config->sampler = (enum sampler_choice)found;
	return NULL;
}

static const char *set_stats(struct config *config, const char *value)
{
	if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
		return "0 or 1";
	config->stats = *value == '1';
	return NULL;
}

static const struct {
	const char *name;
	const char *(*set)(struct config *config, const char *value);
} variables[] = {
	{"FERRY_POLICY", set_policy},
	{"FERRY_MIN_SIZE", set_min_size},
	{"FERRY_HBM_LIMIT", set_hbm_limit},
	{"FERRY_HBM_NODES", set_hbm_nodes},
	{"FERRY_HUGE", set_huge},
	{"FERRY_ENGINE", set_engine},
	{"FERRY_STATS", set_stats},
	{"FERRY_OVERHEAD", set_overhead},
	{"FERRY_HBM_WEIGHT", set_hbm_weight},
	{"FERRY_MANAGE", set_manage},
	{"FERRY_MOVE_LIMIT", set_move_limit},
	{"FERRY_FIRST_TOUCH", set_first_touch},
	{"FERRY_SAMPLER", set_sampler},
};

/* Like getenv(3), which may not work yet. */
static const char *find_variable(char *const envp[], const char *name)
{
	size_t len = strlen(name);

	for (; envp && *envp; envp++)
		if (!strncmp(*envp, name, len) && (*envp)[len] == '=')
			return *envp + len + 1;
	return NULL;
}

/* What holds between variables. */
static int check(const struct config *config, char *const envp[], char *error,
		 size_t error_size)
{
	if (config->sampler == SAMPLER_FAULT && config->first_touch) {
		snprintf(error, error_size,
			 "FERRY_FIRST_TOUCH=\"%s\" and FERRY_SAMPLER=fault exclude each "
			 "other: memory has one userfaultfd; allowed: one of them",
			 find_variable(envp, "FERRY_FIRST_TOUCH"));
		return -EINVAL;
	}
	if (config->policy != POLICY_THRESHOLD || config->min_size >= THRESHOLD_LEAST)
		return 0;
	snprintf(error, error_size,
		 "FERRY_MIN_SIZE=\"%s\" is too small for FERRY_POLICY=threshold; "
		 "allowed: %zuK or "
		 "more",
		 find_variable(envp, "FERRY_MIN_SIZE"), THRESHOLD_LEAST >> 10);
	return -EINVAL;
}

int config_read(struct config *out, char *const envp[], char *error, size_t error_size)
{
	struct config config = defaults;

	*out = defaults;
	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
		const char *value = find_variable(envp, variables[i].name);
		const char *allowed = value ? variables[i].set(&config, value) : NULL;

		if (allowed) {
			snprintf(error, error_size, "%s=\"%s\" is wrong; allowed: %s",
				 variables[i].name, value, allowed);
			return -EINVAL;
		}
	}
	if (check(&config, envp, error, error_size))
		return -EINVAL;
	*out = config;
	return 0;
}

static struct config own;
static char own_error[256];
static int own_result;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_own(void)
{
	own_result = config_read(&own, environ, own_error, sizeof(own_error));
}

const struct config *config_get(const char **error)
{
	pthread_once(&once, read_own);
	if (!own_result)
		return &own;
	if (error)
		*error = own_error;
	return NULL;
}
