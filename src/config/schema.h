/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON Schema of files that describe a sandbox, from the table of fields. */
#ifndef CONFIG_SCHEMA_H
#define CONFIG_SCHEMA_H

#include <stddef.h>

#include "base/buf.h"

struct field;
struct json_t;

/* Append it, as text that ends in a newline: 0 or -ENOMEM. */
int conf_schema(struct buf *b);

/* The object of a map with these keys, and those of the rows @more, which go first. */
struct json_t *conf_schema_object(const struct field *more, size_t nmore);
/* Append @root, which goes. */
int conf_schema_print(struct json_t *root, const char *title, struct buf *b);

#endif
