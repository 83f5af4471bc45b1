/* SPDX-License-Identifier: MIT */
/* The choice of the sampler (sampler.h). No state. */
#include "fault/sampler.h"

/* In order of preference: the cheapest first. */
static const struct sampler *const samplers[] = {&sampler_abit};

const struct sampler *sampler_open(const char **why)
{
	for (size_t i = 0; i < sizeof(samplers) / sizeof(samplers[0]); i++)
		if (!samplers[i]->open(why))
			return samplers[i];
	return NULL;
}

const char *sampler_name(const char **why)
{
	const struct sampler *sampler = sampler_open(why);

	if (sampler)
		sampler->close();
	return sampler ? sampler->name : "none";
}
