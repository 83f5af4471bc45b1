/* SPDX-License-Identifier: MIT */
/* The choice of the sampler (sampler.h). No state. */
#include "fault/sampler.h"

static const struct sampler *const samplers[] = {
	[SAMPLER_AUTO] = &sampler_abit,
	[SAMPLER_ABIT] = &sampler_abit,
	[SAMPLER_FAULT] = &sampler_fault,
};

const struct sampler *sampler_open(enum sampler_choice choice, const char **why)
{
	return samplers[choice]->open(why) ? NULL : samplers[choice];
}

const char *sampler_name(enum sampler_choice choice, const char **why)
{
	const struct sampler *sampler = sampler_open(choice, why);

	if (sampler)
		sampler->close();
	return sampler ? sampler->name : "none";
}
