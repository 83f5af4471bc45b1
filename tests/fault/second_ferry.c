/* SPDX-License-Identifier: MIT */
/* What a second Ferry in a process shows of itself. */
#include "fault/first_touch.h"

int second_start(const char **why);
int second_add(uintptr_t addr, size_t len);

int second_start(const char **why)
{
	return first_touch_start(1, why);
}

int second_add(uintptr_t addr, size_t len)
{
	return first_touch_add(addr, len);
}
