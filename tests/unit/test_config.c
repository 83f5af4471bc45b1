/* SPDX-License-Identifier: MIT */
/* Proves that the FERRY_* variables are taken as documented, and that a wrong
 * one gives one message and the defaults. One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "config/config.h"

static char error[256];

static int read_one(struct config *out, const char *variable)
{
	char *envp[] = {(char *)"HOME=/", (char *)variable, NULL};

	error[0] = '\0';
	return config_read(out, envp, error, sizeof(error));
}

static void assert_defaults(const struct config *config)
{
	assert_int_equal(config->policy, POLICY_DDR);
	assert_int_equal(config->min_size, 1 << 20);
	assert_true(config->hbm_limit == UINT64_MAX);
	assert_null(config->hbm_nodes);
	assert_int_equal(config->huge, HUGE_AUTO);
	assert_int_equal(config->engine, ENGINE_AUTO);
	assert_int_equal(config->first_touch, FIRST_TOUCH_KERNEL);
	assert_false(config->stats);
	assert_int_equal(config->overhead, 1);
	assert_int_equal(config->hbm_weight, 0); /* takes no part */
}

static void sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} right[] = {
		{"0", 0},
		{"1", 1},
		{"4096", 4096},
		{"64K", 64 << 10},
		{"64k", 64 << 10},
		{"1M", 1 << 20},
		{"2G", UINT64_C(2) << 30},
		{"3T", UINT64_C(3) << 40},
		{"18446744073709551615", UINT64_MAX},
		{"16777215T", UINT64_C(16777215) << 40},
	};
	static const char *const wrong[] = {
		"",
		"K",
		"-1",
		"+1",
		"1.5G",
		"1 M",
		" 1",
		"1KB",
		"1Ki",
		"0x10",
		"1P",
		"1\n",
		"16777216T",
		"18446744073709551616",
		"99999999999999999999",
		"1\x0b",
	};
	uint64_t bytes;

	(void)state;
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		assert_int_equal(config_parse_size(right[i].text, &bytes), 0);
		assert_true(bytes == right[i].bytes);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		bytes = 7;
		assert_int_equal(config_parse_size(wrong[i], &bytes), -EINVAL);
		assert_int_equal(bytes, 7);
	}
}

static void defaults(void **state)
{
	struct config config;
	char *none[] = {NULL};

	(void)state;
	assert_int_equal(config_read(&config, none, error, sizeof(error)), 0);
	assert_defaults(&config);
	assert_int_equal(config_read(&config, NULL, error, sizeof(error)), 0);
	assert_defaults(&config);
	/* neither unknown ones nor longer names */
	assert_int_equal(read_one(&config, "FERRY_POLICY_X=hbm"), 0);
	assert_defaults(&config);
	assert_int_equal(read_one(&config, "FERRY_OTHER=1"), 0);
	assert_defaults(&config);
}

static void every_variable(void **state)
{
	char *envp[] = {
		(char *)"FERRY_POLICY=threshold",
		(char *)"FERRY_MIN_SIZE=64K",
		(char *)"FERRY_HBM_LIMIT=8G",
		(char *)"FERRY_HBM_NODES=1,3",
		(char *)"FERRY_HUGE=never",
		(char *)"FERRY_ENGINE=syscall",
		(char *)"FERRY_STATS=1",
		(char *)"FERRY_FIRST_TOUCH=1",
		NULL,
	};
	struct config config;

	(void)state;
	assert_int_equal(config_read(&config, envp, error, sizeof(error)), 0);
	assert_int_equal(config.policy, POLICY_THRESHOLD);
	assert_int_equal(config.min_size, 64 << 10);
	assert_true(config.hbm_limit == UINT64_C(8) << 30);
	assert_string_equal(config.hbm_nodes, "1,3");
	assert_int_equal(config.huge, HUGE_NEVER);
	assert_int_equal(config.engine, ENGINE_SYSCALL);
	assert_true(config.stats);
	assert_int_equal(config.first_touch, FIRST_TOUCH_SAFE);
	assert_int_equal(config.sampler, SAMPLER_AUTO);
	assert_int_equal(read_one(&config, "FERRY_SAMPLER=abit"), 0);
	assert_int_equal(config.sampler, SAMPLER_ABIT);
	assert_int_equal(read_one(&config, "FERRY_SAMPLER=fault"), 0);
	assert_int_equal(config.sampler, SAMPLER_FAULT);
	assert_int_equal(read_one(&config, "FERRY_SAMPLER=pebs"), 0);
	assert_int_equal(config.sampler, SAMPLER_PEBS);
	assert_int_equal(read_one(&config, "FERRY_SAMPLER=none"), -EINVAL);
	assert_non_null(strstr(error, "auto, abit, fault or pebs"));
	assert_int_equal(read_one(&config, "FERRY_FIRST_TOUCH=always"), 0);
	assert_int_equal(config.first_touch, FIRST_TOUCH_ALWAYS);
	assert_int_equal(read_one(&config, "FERRY_FIRST_TOUCH=yes"), -EINVAL);
	assert_non_null(strstr(error, "0, 1 or always"));
}

static void policies_by_name(void **state)
{
	static const char *const names[] = {"ddr", "hbm", "interleave", "threshold"};
	struct config config;

	(void)state;
	for (int policy = POLICY_DDR; policy <= POLICY_THRESHOLD; policy++) {
		char variable[64] = "FERRY_POLICY=";

		assert_string_equal(config_policy_name((enum policy_kind)policy),
				    names[policy]);
		strcat(variable, names[policy]);
		assert_int_equal(read_one(&config, variable), 0);
		assert_int_equal(config.policy, policy);
	}
}

static void an_empty_node_list_is_a_value(void **state)
{
	struct config config;

	(void)state;
	assert_int_equal(read_one(&config, "FERRY_HBM_NODES="), 0);
	assert_string_equal(config.hbm_nodes, "");
}

static void wrong_values(void **state)
{
	/* variable, what the message must name besides */
	static const struct {
		const char *variable, *name, *value, *allowed;
	} cases[] = {
		{"FERRY_POLICY=HBM", "FERRY_POLICY", "\"HBM\"", "threshold"},
		{"FERRY_POLICY=", "FERRY_POLICY", "\"\"", "ddr"},
		{"FERRY_MIN_SIZE=big", "FERRY_MIN_SIZE", "\"big\"", "suffix"},
		{"FERRY_HBM_LIMIT=-1", "FERRY_HBM_LIMIT", "\"-1\"", "suffix"},
		{"FERRY_HUGE=hugetlb", "FERRY_HUGE", "\"hugetlb\"", "always"},
		{"FERRY_ENGINE=dma", "FERRY_ENGINE", "\"dma\"", "syscall"},
		{"FERRY_STATS=yes", "FERRY_STATS", "\"yes\"", "0 or 1"},
		{"FERRY_STATS=11", "FERRY_STATS", "\"11\"", "0 or 1"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config config;

		memset(&config, 0xaa, sizeof(config));
		assert_int_equal(read_one(&config, cases[i].variable), -EINVAL);
		assert_defaults(&config);
		assert_non_null(strstr(error, cases[i].name));
		assert_non_null(strstr(error, cases[i].value));
		assert_non_null(strstr(error, cases[i].allowed));
		assert_null(strchr(error, '\n'));
	}
}

static void threshold_takes_large_sizes_only(void **state)
{
	char *envp[] = {(char *)"FERRY_MIN_SIZE=16383", (char *)"FERRY_POLICY=threshold",
			NULL};
	struct config config;

	(void)state;
	assert_int_equal(config_read(&config, envp, error, sizeof(error)), -EINVAL);
	assert_defaults(&config);
	assert_non_null(strstr(error, "FERRY_MIN_SIZE=\"16383\""));
	assert_non_null(strstr(error, "16K or more"));
	envp[0] = (char *)"FERRY_MIN_SIZE=16K";
	assert_int_equal(config_read(&config, envp, error, sizeof(error)), 0);
	assert_int_equal(config.min_size, THRESHOLD_LEAST);
	/* other policies take it for mmap only */
	assert_int_equal(read_one(&config, "FERRY_MIN_SIZE=4K"), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(defaults),
		cmocka_unit_test(every_variable),
		cmocka_unit_test(policies_by_name),
		cmocka_unit_test(wrong_values),
		cmocka_unit_test(an_empty_node_list_is_a_value),
		cmocka_unit_test(threshold_takes_large_sizes_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
