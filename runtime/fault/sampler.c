/* SPDX-License-Identifier: MIT */
/* The choice of the sampler (sampler.h). No state. */
#include "fault/sampler.h"

/* In the order in which they are tried. */
static const struct sampler *const samplers[][2] = {
	[SAMPLER_AUTO] = {&sampler_abit, &sampler_pebs},
	[SAMPLER_ABIT] = {&sampler_abit},
	[SAMPLER_FAULT] = {&sampler_fault},
	[SAMPLER_PEBS] = {&sampler_pebs},
};

const struct sampler *sampler_open(enum sampler_choice choice, const char **why)
{
	const struct sampler *const *sampler = samplers[choice];
	const char *others;

	if (!sampler[0]->open(why))
		return sampler[0];
	/* What the first one lacks is what can be done something about. */
	if (!sampler[1] || sampler[1]->open(&others))
		return NULL;
	*why = others;
	return sampler[1];
}

const char *sampler_name(enum sampler_choice choice, const char **why)
{
	const struct sampler *sampler = sampler_open(choice, why);

	if (sampler)
		sampler->close();
	return sampler ? sampler->name : "none";
}
