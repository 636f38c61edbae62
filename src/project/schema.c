/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>

#include "config/schema.h"
#include "project/project.h"

static json_t *map_of(json_t *entry)
{
	return json_pack("{s:[s,s],s:o}", "type", "object", "null", "additionalProperties", entry);
}

int project_schema(struct buf *b)
{
	json_t *entry = conf_schema_object(project_scope.more, project_scope.nmore);
	json_t *group = json_pack("{s:[s,s],s:b,s:{s:{s:s},s:o}}", "type", "object", "null",
				  "additionalProperties", 0, "properties", "version", "type",
				  "string", "meta", json_loads(project_schema_meta, 0, NULL));
	json_t *root = json_pack("{s:s,s:b,s:{s:o,s:o,s:o,s:o,s:{s:i}}}", "type", "object",
				 "additionalProperties", 0, "properties", "meta",
				 json_loads(project_schema_meta, 0, NULL), "sandboxes",
				 map_of(json_incref(entry)), "builds", map_of(entry), "groups",
				 map_of(group), "modules", "maxProperties", 0);

	json_object_set_new(entry, "required", json_pack("[s]", "image"));
	return conf_schema_print(root, "A project of msb", b);
}
