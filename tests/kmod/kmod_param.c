/* SPDX-License-Identifier: MIT */
/* Parameters and counters of the module; see kmod_param.h. No state. */
#include "kmod_param.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kmod_test.h"

static const char *const defaults[][2] = {
	{"workers", "0"},        {"chunk_bytes", "262144"},
	{"dma_channels", "0"},   {"copy_threshold", "131072"},
	{"streaming_copy", "1"},
};

int kt_param_set(const char *module, const char *name, const char *value)
{
	char path[256];
	ssize_t len = (ssize_t)strlen(value);
	int fd, ret;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ret = write(fd, value, (size_t)len) == len ? 0 : -1;
	close(fd);
	return ret;
}

long kt_param_number(const char *module, const char *name)
{
	char path[256], text[64];

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, name);
	KT_REQUIRE(kt_read_file(path, text, sizeof(text)), "%s: %m", path);
	return strtol(text, NULL, 10);
}

void kt_ferry_set(const char *name, const char *value)
{
	KT_REQUIRE(kt_param_set("ferry", name, value) == 0, "%s=%s: %m", name, value);
}

void kt_param_reset(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	char text[24];

	snprintf(text, sizeof(text), "%ld", cpus < 16 ? cpus : 16);
	kt_ferry_set("max_in_flight", text);
	for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
		if (kt_param_set("ferry", defaults[i][0], defaults[i][1]) != 0)
			KT_EXPECT(!strcmp(defaults[i][0], "streaming_copy"),
				  "cannot set %s: %m", defaults[i][0]);
}

long kt_stat(const char *name)
{
	char path[256], text[64];

	snprintf(path, sizeof(path), "/sys/class/misc/ferry/stats/%s", name);
	KT_REQUIRE(kt_read_file(path, text, sizeof(text)), "%s: %m", path);
	return strtol(text, NULL, 10);
}
