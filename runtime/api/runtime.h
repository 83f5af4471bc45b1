/* SPDX-License-Identifier: MIT */
/*
 * What every call of libferry needs first: the environment and the machine,
 * read once, at the first call. Thread-safe.
 */
#ifndef FERRY_RUNTIME_H
#define FERRY_RUNTIME_H

#include "config/config.h"
#include "topology/topology.h"

struct runtime {
	const struct config *config;
	const struct topology *topology;
};

/*
 * The process's runtime; NULL if the environment is wrong, which is said once
 * on stderr.
 */
const struct runtime *runtime_get(void);

#endif /* FERRY_RUNTIME_H */
