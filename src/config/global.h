/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holds for all sandboxes: $MSB_HOME/config.json.
 *
 *	{"sandbox_defaults": {"cpus": 2, "memory": "1G", "engine": "qemu"},
 *	 "registries": …, "images": …}        registry/config.h, image/limits.h
 *
 * sandbox_defaults has keys of files that describe a sandbox, those of a single value each. One
 * thread.
 */
#ifndef CONFIG_GLOBAL_H
#define CONFIG_GLOBAL_H

#include "config/field.h"
#include "config/node.h"

/* A missing file says nothing. */
int conf_load_global(const char *path, struct model *m, struct err *err);
int conf_load_global_file(const struct conf_file *f, struct model *m, struct err *err);

#endif
