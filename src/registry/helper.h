/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Docker's credential helpers: programs docker-credential-NAME that get a verb as their argument
 * and a registry, or JSON, on their standard input. Any thread.
 */
#ifndef REGISTRY_HELPER_H
#define REGISTRY_HELPER_H

#include "registry/credentials.h"

/* A helper may ask a person to unlock something; one that takes longer hangs. */
#define HELPER_TIMEOUT_MS 60000
#define HELPER_OUTPUT_MAX 65536u

/* An empty *ret when the helper knows nobody. */
int helper_get(const char *name, const char *key, struct credential *ret, struct err *err);
int helper_store(const char *name, const char *key, const struct credential *c, struct err *err);
int helper_erase(const char *name, const char *key, struct err *err);

#endif
