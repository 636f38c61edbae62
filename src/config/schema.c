/* SPDX-License-Identifier: Apache-2.0 */
#include "config/schema.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/field.h"

/* Values that are plain texts in YAML whatever they look like. */
#define SCALAR "[\"string\",\"integer\",\"number\",\"boolean\"]"

static json_t *words(const char *list)
{
	json_t *o = json_array();

	for (const char *w = list; *w; w += w[0] == '|') {
		size_t n = strcspn(w, "|");

		json_array_append_new(o, json_stringn(w, n));
		/* YAML readers before 1.2, which editors have, take these for truth values. */
		if (n == 2 && memcmp(w, "on", 2) == 0)
			json_array_append_new(o, json_true());
		if (n == 3 && memcmp(w, "off", 3) == 0)
			json_array_append_new(o, json_false());
		w += n;
	}
	return o;
}

static json_t *of_kind(const struct field *f)
{
	static const char *const plain[] = {
		[FIELD_TEXT] = "{\"type\":" SCALAR "}",
		[FIELD_NUMBER] = "{\"type\":\"integer\",\"minimum\":1}",
		[FIELD_SIZE] = "{\"type\":[\"string\",\"integer\"]}",
		[FIELD_DURATION] = "{\"type\":[\"string\",\"integer\"]}",
		[FIELD_PATH] = "{\"type\":\"string\"}",
		[FIELD_SOURCE] = "{\"type\":[\"string\",\"integer\"]}",
		[FIELD_LIST] = "{\"type\":\"array\",\"items\":{\"type\":" SCALAR "}}",
		[FIELD_MAP] =
			"{\"type\":\"object\",\"additionalProperties\":{\"type\":" SCALAR "}}",
	};
	const char *text = f->schema ? f->schema : plain[f->kind];

	if (!f->schema && f->kind == FIELD_WORD)
		return json_pack("{s:o}", "enum", words(f->arg));
	return json_loads(text, 0, NULL);
}

/* Is the default a value, rather than words about where it comes from? */
static bool is_value(const char *def)
{
	return !strchr(def, ' ') && def[0] != '-';
}

static json_t *of_field(const struct field *f)
{
	json_t *o = of_kind(f);
	cleanup_free char *text =
		f->def && !is_value(f->def) ? str_fmt("%s [%s]", f->help, f->def) : strdup(f->help);

	json_object_set_new(o, "description", json_string(text ? text : f->help));
	if (f->opt)
		json_object_set_new(o, "x-option", json_sprintf("--%s", f->opt));
	if (f->def && is_value(f->def))
		json_object_set_new(o, "default",
				    f->kind == FIELD_NUMBER ? json_integer(atoll(f->def))
							    : json_string(f->def));
	return o;
}

static json_t *level(void)
{
	return json_pack("{s:s,s:b,s:{}}", "type", "object", "additionalProperties", 0,
			 "properties");
}

/* The object that holds the last word of @key; the levels above are made as needed. */
static json_t *level_of(json_t *root, const char *key, const char **last)
{
	json_t *at = root;

	for (size_t n; key[n = strcspn(key, ".")]; key += n + 1) {
		cleanup_free char *name = strndup(key, n);
		json_t *properties = json_object_get(at, "properties");

		at = json_object_get(properties, name ? name : "");
		if (!at) {
			at = level();
			json_object_set_new(properties, name ? name : "", at);
		}
	}
	*last = key;
	return json_object_get(at, "properties");
}

static int dump(const char *p, size_t n, void *arg)
{
	buf_add(arg, p, n);
	return 0;
}

json_t *conf_schema_object(const struct field *more, size_t nmore)
{
	json_t *root = level();

	/* Later ones take the place of earlier ones. */
	for (size_t i = 0; i < nfields + nmore; i++) {
		const struct field *f = i < nfields ? &fields[i] : &more[i - nfields];
		const char *last;
		json_t *at;

		if (!f->key)
			continue;
		at = level_of(root, f->key, &last);
		json_object_set_new(at, last, of_field(f));
	}
	return root;
}

int conf_schema_print(json_t *root, const char *title, struct buf *b)
{
	int r;

	json_object_set_new(root, "$schema",
			    json_string("https://json-schema.org/draft/2020-12/schema"));
	json_object_set_new(root, "title", json_string(title));
	r = json_dump_callback(root, dump, b, JSON_INDENT(2));
	json_decref(root);
	buf_add_u8(b, '\n');
	return r < 0 || buf_failed(b) ? -ENOMEM : 0;
}

int conf_schema(struct buf *b)
{
	return conf_schema_print(conf_schema_object(NULL, 0), "A sandbox of msb", b);
}
