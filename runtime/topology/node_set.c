/* SPDX-License-Identifier: MIT */
/* Sets of nodes and their text form. Pure functions; see node_set.h. */
#include "topology/node_set.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int node_set_count(const struct node_set *set)
{
	int count = 0;

	for (int i = 0; i < NODE_SET_WORDS; i++)
		count += __builtin_popcountll(set->word[i]);
	return count;
}

int node_set_next(const struct node_set *set, int from)
{
	if (from < 0)
		from = 0;
	for (int i = from / 64; i < NODE_SET_WORDS; i++) {
		uint64_t word = set->word[i];

		if (i == from / 64)
			word &= ~UINT64_C(0) << (from % 64);
		if (word)
			return i * 64 + __builtin_ctzll(word);
	}
	return -1;
}

bool node_set_is_subset(const struct node_set *a, const struct node_set *b)
{
	for (int i = 0; i < NODE_SET_WORDS; i++)
		if (a->word[i] & ~b->word[i])
			return false;
	return true;
}

/* Reads a node index at *text and steps over it. */
static int parse_index(const char **text, int *index)
{
	const char *p = *text;
	int value = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		value = value * 10 + (*p - '0');
		if (value >= FERRY_MAX_NODES)
			return -ERANGE;
	}
	*text = p;
	*index = value;
	return 0;
}

/* "N" or "N-M", separated by commas. */
static int parse_list(struct node_set *out, const char *text)
{
	for (;;) {
		int first, last, err;

		err = parse_index(&text, &first);
		if (err)
			return err;
		last = first;
		if (*text == '-') {
			text++;
			err = parse_index(&text, &last);
			if (err)
				return err;
		}
		if (last < first)
			return -EINVAL;
		for (int node = first; node <= last; node++)
			node_set_add(out, node);
		if (!*text)
			return 0;
		if (*text++ != ',')
			return -EINVAL;
	}
}

int node_set_parse(struct node_set *out, const char *text, const struct node_set *all)
{
	struct node_set set = {0};
	bool complement = *text == '!';
	int err = 0;

	if (complement)
		text++;
	if (!strcmp(text, "all"))
		set = *all;
	else
		err = parse_list(&set, text);
	if (err)
		return err;
	if (complement)
		for (int i = 0; i < NODE_SET_WORDS; i++)
			set.word[i] = all->word[i] & ~set.word[i];
	*out = set;
	return 0;
}

const char *node_set_format(const struct node_set *set, char *text, size_t size)
{
	size_t used = 0;

	if (size)
		text[0] = '\0';
	for (int first = node_set_next(set, 0); first >= 0;) {
		char part[16];
		int last = first, len;

		while (node_set_has(set, last + 1))
			last++;
		len = snprintf(part, sizeof(part), last > first ? "%s%d-%d" : "%s%d",
			       used ? "," : "", first, last);
		if (used + (size_t)len >= size)
			break;
		memcpy(text + used, part, (size_t)len + 1);
		used += (size_t)len;
		first = node_set_next(set, last + 1);
	}
	return text;
}
