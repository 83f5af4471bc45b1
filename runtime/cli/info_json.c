/* SPDX-License-Identifier: MIT */
/* `ferry info --json`: one object with stable keys, described in ferry(1). One
 * thread. */
#include "cli/info.h"
#include "config/config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <json-c/json.h>

/* What is unknown is null; json-c stands NULL for it. */
static struct json_object *known(uint64_t value)
{
	return value ? json_object_new_uint64(value) : NULL;
}

static struct json_object *setting(int value)
{
	return value < 0 ? NULL : json_object_new_int(value);
}

static struct json_object *text(const char *value)
{
	return value ? json_object_new_string(value) : NULL;
}

static struct json_object *error_name(int error)
{
	return error ? text(strerrorname_np(-error)) : NULL;
}

static void add(struct json_object *object, const char *key, struct json_object *value)
{
	json_object_object_add(object, key, value);
}

static struct json_object *node_list(const struct node_set *set)
{
	struct json_object *list = json_object_new_array();

	for (int node = node_set_next(set, 0); node >= 0;
	     node = node_set_next(set, node + 1))
		json_object_array_add(list, json_object_new_int(node));
	return list;
}

static struct json_object *tiers(const struct topology *t)
{
	struct json_object *list = json_object_new_array();

	for (int tier = 0; tier < FERRY_TIER_COUNT; tier++) {
		struct json_object *object = json_object_new_object();
		struct ferry_tier_info info;

		topology_tier_info(t, (enum ferry_tier)tier, &info);
		add(object, "name", text(info_tier(tier)));
		add(object, "nodes", node_list(&t->tier[tier]));
		add(object, "total_bytes", json_object_new_uint64(info.total_bytes));
		add(object, "free_bytes", json_object_new_uint64(info.free_bytes));
		add(object, "read_bandwidth_mbps", known(info.bandwidth_mbps));
		add(object, "read_latency_ns", known(info.latency_ns));
		json_object_array_add(list, object);
	}
	return list;
}

static struct json_object *nodes(const struct info *info)
{
	struct json_object *list = json_object_new_array();

	for (int i = 0; i < info->topology->node_count; i++) {
		const struct node_info *node = &info->topology->node[i];
		struct json_object *object = json_object_new_object();
		bool allowed = node_set_has(&info->probe.allowed, node->id);

		add(object, "id", json_object_new_int(node->id));
		add(object, "tier", text(info_tier(node->tier)));
		add(object, "has_cpu", json_object_new_boolean(node->has_cpu));
		add(object, "allowed", json_object_new_boolean(allowed));
		add(object, "nearest_cpu_node", setting(node->nearest_cpu_node));
		add(object, "cpu_distance", known((uint64_t)node->cpu_distance));
		add(object, "total_bytes", json_object_new_uint64(node->total_bytes));
		add(object, "free_bytes",
		    json_object_new_uint64(topology_free_bytes(node->id)));
		add(object, "read_bandwidth_mbps", known(node->read_mbps));
		add(object, "write_bandwidth_mbps", known(node->write_mbps));
		add(object, "read_latency_ns", known(node->read_ns));
		add(object, "write_latency_ns", known(node->write_ns));
		add(object, "hmat_class", setting(node->hmat_class));
		json_object_array_add(list, object);
	}
	return list;
}

static struct json_object *features(uint64_t bits)
{
	struct json_object *list = json_object_new_array();

	for (int bit = 0; bit < 64; bit++)
		if ((bits >> bit & 1) && info_feature(bit))
			json_object_array_add(list, text(info_feature(bit)));
	return list;
}

static struct json_object *module(const struct module_probe *module)
{
	static const char *const states[] = {
		[MODULE_READY] = "ready",           [MODULE_UNSUPPORTED] = "unsupported",
		[MODULE_NOT_LOADED] = "not-loaded", [MODULE_NO_NODE] = "no-device",
		[MODULE_FORBIDDEN] = "forbidden",   [MODULE_OTHER_ABI] = "other-abi",
		[MODULE_FAILED] = "failed",
	};
	struct json_object *object = json_object_new_object();
	const struct ferry_ioc_info *info = &module->info;
	bool answers = module->state == MODULE_READY || module->state == MODULE_OTHER_ABI;

	add(object, "state", text(states[module->state]));
	add(object, "error", error_name(module->error));
	add(object, "version", text(answers ? info->version : NULL));
	add(object, "abi", known(info->abi));
	add(object, "features", features(answers ? info->features : 0));
	add(object, "chunk_bytes", known(info->chunk_bytes));
	add(object, "max_ranges", known(info->max_ranges));
	add(object, "max_in_flight", known(info->max_in_flight));
	add(object, "max_bytes", known(info->max_bytes));
	return object;
}

/* What FERRY_MANAGE names. */
static struct json_object *manage(unsigned int bits)
{
	struct json_object *names = json_object_new_array();
	const char *name;

	for (unsigned int bit = 0; (name = config_manage_name(bit)); bit++)
		if (bits >> bit & 1)
			json_object_array_add(names, text(name));
	return names;
}

/* A choice: its name and the reason. */
static struct json_object *chosen(const char *name, const char *why)
{
	struct json_object *object = json_object_new_object();

	add(object, "name", text(name));
	add(object, "why", text(why));
	return object;
}

static struct json_object *uffd(const struct uffd_probe *uffd)
{
	static const char *const ways[] = {
		[UFFD_DEVICE] = "device",
		[UFFD_SYSCALL] = "syscall",
		[UFFD_USER_ONLY] = "user-mode-only",
		[UFFD_NONE] = "none",
	};
	struct json_object *object = json_object_new_object();

	add(object, "access", text(ways[uffd->access]));
	add(object, "error", error_name(uffd->error));
	add(object, "move", json_object_new_boolean(uffd->move));
	add(object, "features", json_object_new_uint64(uffd->features));
	add(object, "unprivileged_userfaultfd", setting(uffd->unprivileged));
	return object;
}

static struct json_object *uring(const struct uring_probe *uring)
{
	struct json_object *object = json_object_new_object();

	add(object, "available", json_object_new_boolean(!uring->error));
	add(object, "error", error_name(uring->error));
	add(object, "uring_cmd", json_object_new_boolean(uring->uring_cmd));
	add(object, "io_uring_disabled", setting(uring->disabled));
	return object;
}

static struct json_object *advice(const struct info *info)
{
	struct json_object *list = json_object_new_array();

	for (int i = 0; i < info->advice_count; i++) {
		struct json_object *object = json_object_new_object();

		add(object, "about", text(info->advice[i].about));
		add(object, "text", text(info->advice[i].text));
		json_object_array_add(list, object);
	}
	return list;
}

static struct json_object *interleave(const struct interleave *interleave)
{
	struct json_object *object = json_object_new_object();

	add(object, "how", text(info_interleave(interleave->how)));
	add(object, "hbm_parts", json_object_new_uint64(interleave->hbm));
	add(object, "parts", json_object_new_uint64(interleave->parts));
	return object;
}

static struct json_object *ledger(const struct info_ledger *ledger)
{
	struct json_object *object = json_object_new_object();
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < ledger->shown; i++) {
		const struct ledger_entry *entry = &ledger->entry[i];
		struct json_object *process = json_object_new_object();

		add(process, "pid", json_object_new_int(entry->pid));
		add(process, "uid", json_object_new_uint64(entry->uid));
		add(process, "weight", json_object_new_uint64(entry->weight));
		add(process, "want_bytes",
		    entry->want == UINT64_MAX ? NULL
					      : json_object_new_uint64(entry->want));
		add(process, "share_bytes",
		    json_object_new_uint64(info_share(ledger, i)));
		json_object_array_add(list, process);
	}
	add(object, "total_bytes", json_object_new_uint64(ledger->total));
	add(object, "error", ledger->error == -ENOENT ? NULL : error_name(ledger->error));
	add(object, "processes", list);
	return object;
}

int info_json(const struct info *info)
{
	const struct probe *probe = &info->probe;
	struct json_object *root = json_object_new_object();
	const char *written;
	char version[32];

	snprintf(version, sizeof(version), "%d.%d.%d", FERRY_VERSION_MAJOR,
		 FERRY_VERSION_MINOR, FERRY_VERSION_PATCH);
	add(root, "version", text(version));
	add(root, "kernel", text(probe->kernel.release));
	add(root, "hbm_source", text(info_hbm_source(info->topology->hbm_source)));
	add(root, "tiers", tiers(info->topology));
	add(root, "nodes", nodes(info));
	add(root, "module", module(&probe->module));
	add(root, "engine", chosen(info->engine, info->engine_why));
	add(root, "huge_engine", chosen(info->huge_engine, info->huge_engine_why));
	add(root, "small_granules",
	    chosen(info->small_granules, info->small_granules_why));
	add(root, "sampler", chosen(info->sampler, info->sampler_why));
	add(root, "huge_split", chosen(info->huge_split, info->huge_split_why));
	add(root, "first_touch", chosen(info->filling, info->filling_why));
	add(root, "manage", manage(info->manage));
	add(root, "userfaultfd", uffd(&probe->uffd));
	add(root, "io_uring", uring(&probe->uring));
	add(root, "numa_balancing", setting(probe->numa_balancing));
	add(root, "huge_pages", json_object_new_string(info_huge(probe->huge)));
	add(root, "preferred_many", json_object_new_boolean(probe->preferred_many));
	add(root, "interleave", interleave(&info->interleave));
	add(root, "hbm_weights", ledger(&info->ledger));
	add(root, "advice", advice(info));
	written = json_object_to_json_string_ext(
		root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
			      JSON_C_TO_STRING_NOSLASHESCAPE);
	if (written)
		puts(written);
	json_object_put(root);
	return written ? 0 : -ENOMEM;
}
