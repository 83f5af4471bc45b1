/* SPDX-License-Identifier: MIT */
/* Proves that sets of nodes count, step and compare right, and that exactly
 * numactl's nodestrings (without "+") are taken. One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "topology/node_set.h"

/* Nodes that "all" and "!" speak of in these tests: 0-3 and 8. */
static struct node_set all(void)
{
	struct node_set set = {.word = {0x10f}};

	return set;
}

static int parse(struct node_set *out, const char *text)
{
	struct node_set everything = all();

	memset(out, 0xaa, sizeof(*out));
	return node_set_parse(out, text, &everything);
}

static void steps_over_words(void **state)
{
	struct node_set set = {0};

	(void)state;
	assert_int_equal(node_set_count(&set), 0);
	assert_int_equal(node_set_next(&set, 0), -1);
	node_set_add(&set, 0);
	node_set_add(&set, 63);
	node_set_add(&set, 64);
	node_set_add(&set, FERRY_MAX_NODES - 1);
	assert_int_equal(node_set_count(&set), 4);
	assert_int_equal(node_set_next(&set, -5), 0);
	assert_int_equal(node_set_next(&set, 1), 63);
	assert_int_equal(node_set_next(&set, 64), 64);
	assert_int_equal(node_set_next(&set, 65), FERRY_MAX_NODES - 1);
	assert_int_equal(node_set_next(&set, FERRY_MAX_NODES), -1);
	assert_true(node_set_has(&set, 63));
	assert_false(node_set_has(&set, 62));
	assert_false(node_set_has(&set, -1));
	assert_false(node_set_has(&set, FERRY_MAX_NODES));
}

static void compares(void **state)
{
	struct node_set small = {.word = {0x5, 0x1}}, large = {.word = {0x7, 0x1}},
			none = {0};

	(void)state;
	assert_true(node_set_is_subset(&small, &large));
	assert_true(node_set_is_subset(&small, &small));
	assert_true(node_set_is_subset(&none, &small));
	assert_false(node_set_is_subset(&large, &small));
	large.word[1] = 0;
	assert_false(node_set_is_subset(&small, &large));
}

static void takes_nodestrings(void **state)
{
	static const struct {
		const char *text;
		uint64_t nodes;
	} cases[] = {
		{"0", 0x1},    {"1", 0x2},        {"0,2-3", 0xd},     {"2-2", 0x4},
		{"3,0", 0x9},  {"0-1,1-2", 0x7},  {"63", 1ULL << 63}, {"all", 0x10f},
		{"!0", 0x10e}, {"!1-3,8", 0x001}, {"!all", 0},        {"!5", 0x10f},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct node_set set;

		assert_int_equal(parse(&set, cases[i].text), 0);
		assert_int_equal(set.word[0], cases[i].nodes);
		for (int word = 1; word < NODE_SET_WORDS; word++)
			assert_int_equal(set.word[word], 0);
	}
}

static void refuses_anything_else(void **state)
{
	static const char *const wrong[] = {
		"",    "!",  "+0", "0,+1", "-1", "1-",    "3-1", "0,",    ",0",  "0,,1",
		"0 1", " 0", "0 ", "0x1",  "a",  "all,0", "All", "0-2-3", "!!0", "1!",
	};
	struct node_set set;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(parse(&set, wrong[i]), -EINVAL);
		assert_int_equal(set.word[0], 0xaaaaaaaaaaaaaaaaULL); /* untouched */
	}
	assert_int_equal(parse(&set, "1023"), 0);
	assert_int_equal(parse(&set, "1024"), -ERANGE);
	assert_int_equal(parse(&set, "0-99999999999999999999"), -ERANGE);
}

static void writes_what_it_reads(void **state)
{
	static const char *const texts[] = {"0", "0,2-3", "0-1,3,63-64,1023", "0-1023"};
	struct node_set set = {0}, again;
	char text[NODE_SET_TEXT_SIZE];

	(void)state;
	assert_string_equal(node_set_format(&set, text, sizeof(text)), "");
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		assert_int_equal(parse(&set, texts[i]), 0);
		assert_string_equal(node_set_format(&set, text, sizeof(text)), texts[i]);
	}
	/* The longest text there is: every second node. */
	memset(&set, 0x55, sizeof(set));
	node_set_format(&set, text, sizeof(text));
	assert_int_equal(parse(&again, text), 0);
	assert_memory_equal(&again, &set, sizeof(set));
}

static void writes_no_more_than_fits(void **state)
{
	struct node_set set;
	char text[8];

	(void)state;
	assert_int_equal(parse(&set, "0,2,100,200"), 0);
	memset(text, 'x', sizeof(text));
	assert_string_equal(node_set_format(&set, text, 4), "0,2");
	assert_int_equal(text[4], 'x');
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(steps_over_words),
		cmocka_unit_test(compares),
		cmocka_unit_test(takes_nodestrings),
		cmocka_unit_test(refuses_anything_else),
		cmocka_unit_test(writes_what_it_reads),
		cmocka_unit_test(writes_no_more_than_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
