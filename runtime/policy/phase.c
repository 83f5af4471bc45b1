/* SPDX-License-Identifier: MIT */
/* Phases: see phase.h, which also has the locking rule. */
#include "policy/phase.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* All below is guarded by the lock. */
static struct known {
	char name[PHASE_NAME];
	uint64_t id;    /* 0: a free slot */
	uint64_t named; /* when last, by `names_used` */
} known[PHASES];
static uint64_t last_id, names_used;

static unsigned int stack[PHASE_DEPTH]; /* slots of the phases begun */
static unsigned int depth;
static int ready_for = -1; /* slot of a phase to be got ready for */

static bool is_name(const char *name)
{
	return name && *name && strnlen(name, PHASE_NAME) < PHASE_NAME;
}

static bool is_begun(unsigned int slot)
{
	for (unsigned int i = 0; i < depth; i++)
		if (stack[i] == slot)
			return true;
	return false;
}

/* The phase's slot; one is made for a new name. PHASE_DEPTH of PHASES are in use at most.
 */
static unsigned int slot_of(const char *name)
{
	unsigned int oldest = PHASES;

	for (unsigned int i = 0; i < PHASES; i++) {
		if (known[i].id && !strcmp(known[i].name, name)) {
			known[i].named = ++names_used;
			return i;
		}
		if (!is_begun(i) &&
		    (oldest == PHASES || known[i].named < known[oldest].named))
			oldest = i;
	}
	if (ready_for == (int)oldest)
		ready_for = -1;
	known[oldest].id = ++last_id;
	known[oldest].named = ++names_used;
	memcpy(known[oldest].name, name, strlen(name) + 1);
	return oldest;
}

int phase_begin(const char *name)
{
	int err = 0;

	if (!is_name(name))
		return -EINVAL;
	pthread_mutex_lock(&lock);
	if (depth == PHASE_DEPTH) {
		err = -ENOSPC;
	} else {
		stack[depth] = slot_of(name);
		depth++;
		ready_for = -1;
	}
	pthread_mutex_unlock(&lock);
	return err;
}

int phase_end(const char *name)
{
	int err = -EINVAL;

	if (!is_name(name))
		return -EINVAL;
	pthread_mutex_lock(&lock);
	if (depth && !strcmp(known[stack[depth - 1]].name, name)) {
		depth--;
		err = 0;
	}
	pthread_mutex_unlock(&lock);
	return err;
}

int phase_prefetch(const char *name)
{
	if (!is_name(name))
		return -EINVAL;
	pthread_mutex_lock(&lock);
	ready_for = (int)slot_of(name);
	pthread_mutex_unlock(&lock);
	return 0;
}

struct phase phase_now(void)
{
	struct phase now = {0};

	pthread_mutex_lock(&lock);
	if (ready_for >= 0)
		now.slot = (unsigned int)ready_for;
	else if (depth)
		now.slot = stack[depth - 1];
	if (ready_for >= 0 || depth) {
		now.id = known[now.slot].id;
		now.begun = is_begun(now.slot);
	}
	pthread_mutex_unlock(&lock);
	return now;
}

void phase_fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

void phase_fork_done(void)
{
	pthread_mutex_unlock(&lock);
}
