/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON Schema of files that describe a sandbox, from the table of fields. */
#ifndef CONFIG_SCHEMA_H
#define CONFIG_SCHEMA_H

#include "base/buf.h"

/* Append it, as text that ends in a newline: 0 or -ENOMEM. */
int conf_schema(struct buf *b);

#endif
