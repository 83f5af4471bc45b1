/* SPDX-License-Identifier: MIT */
/* Who fills memory when it is touched: see filling.h. */
#include "policy/filling.h"

#include "fault/first_touch.h"
#include "heap/huge.h"
#include "heap/region.h"

/* Of one read of the settings, the reason that can be known without trying. */
static const char *why_not(const struct config *config)
{
	if (!config->first_touch)
		return "FERRY_FIRST_TOUCH=1 is not set";
	if (huge_backs_all(config->huge))
		return "huge pages: one fault fills 2 MiB (FERRY_HUGE=never: none)";
	return NULL;
}

static bool pins(const struct config *config)
{
	return config->first_touch != FIRST_TOUCH_ALWAYS;
}

const char *filling_name(const struct config *config, const char **why)
{
	*why = why_not(config);
	return !*why && first_touch_possible(pins(config), why) ? "userfaultfd"
								: "kernel";
}

void filling_start(const struct config *config, bool said,
		   void (*say)(const char *format, ...))
{
	static const struct region_filler filler = {first_touch_add, first_touch_remove};
	const char *why = why_not(config);

	if (!config->first_touch)
		return;
	if (!why && first_touch_possible(pins(config), &why) &&
	    !first_touch_start(first_touch_threads(), &why))
		region_set_filler(&filler);
	else if (!said)
		say("first touch: %s; the kernel fills memory", why);
}
