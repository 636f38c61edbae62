/* SPDX-License-Identifier: Apache-2.0 */
/* jansson's values in our scopes. */
#ifndef REGISTRY_JSON_H
#define REGISTRY_JSON_H

#include <jansson.h>

static inline void json_done_fn(json_t **j)
{
	json_decref(*j);
}
#define cleanup_json __attribute__((cleanup(json_done_fn)))

#endif
