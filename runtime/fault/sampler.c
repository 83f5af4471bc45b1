/* SPDX-License-Identifier: MIT */
/* The choice of the sampler (sampler.h). One thread's. */
#include "fault/sampler.h"

#include <stdio.h>

/* In order of preference: the cheapest first. */
static const struct sampler *const samplers[] = {&sampler_abit, &sampler_fault};

const struct sampler *sampler_open(const char **why)
{
	static char lacks[512];
	size_t used = 0;

	for (size_t i = 0; i < sizeof(samplers) / sizeof(samplers[0]); i++) {
		int n;

		if (!samplers[i]->open(why))
			return samplers[i];
		n = snprintf(lacks + used, sizeof(lacks) - used, "%s%s", used ? "; " : "",
			     *why);
		if (n > 0 && (size_t)n < sizeof(lacks) - used)
			used += (size_t)n;
	}
	*why = lacks;
	return NULL;
}

const char *sampler_name(const char **why)
{
	const struct sampler *sampler = sampler_open(why);

	if (sampler)
		sampler->close();
	return sampler ? sampler->name : "none";
}
