/* SPDX-License-Identifier: Apache-2.0 */
/* The OCI image configuration. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/oci.h"

static void json_done(json_t **j)
{
	json_decref(*j);
}
#define cleanup_json __attribute__((cleanup(json_done)))

void image_limits_default(struct image_limits *l)
{
	const struct image_limits d = {
		IMAGE_LAYER_BYTES_MAX, IMAGE_FILE_BYTES_MAX, IMAGE_ENTRIES_MAX,
		IMAGE_ALL_ENTRIES_MAX, IMAGE_LAYERS_MAX,     IMAGE_PATH_MAX,
		IMAGE_DEPTH_MAX,       IMAGE_LINK_MAX,	     IMAGE_XATTR_BYTES_MAX,
	};

	l->layer_bytes = l->layer_bytes ? l->layer_bytes : d.layer_bytes;
	l->file_bytes = l->file_bytes ? l->file_bytes : d.file_bytes;
	l->entries = l->entries ? l->entries : d.entries;
	l->image_entries = l->image_entries ? l->image_entries : d.image_entries;
	l->layers = l->layers ? l->layers : d.layers;
	l->path_bytes = l->path_bytes ? l->path_bytes : d.path_bytes;
	l->depth = l->depth ? l->depth : d.depth;
	l->link_bytes = l->link_bytes ? l->link_bytes : d.link_bytes;
	l->xattr_bytes = l->xattr_bytes ? l->xattr_bytes : d.xattr_bytes;
}

void oci_config_done(struct image_config *c)
{
	char **lists[] = {c->entrypoint, c->cmd,    c->env,  c->exposed,
			  c->volumes,	 c->labels, c->shell};
	char *texts[] = {c->user,    c->workdir, c->stop_signal, c->architecture,
			 c->variant, c->os,	 c->created,	 c->author};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		str_list_free(lists[i]);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		free(texts[i]);
	*c = (struct image_config){0};
}

static int wrong(const char *key, const char *want, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "bad image configuration: \"%s\" is not %s", key, want);
}

/* A string or nothing; JSON strings here cannot hold NUL, jansson refuses \u0000. */
static int get_text(const json_t *o, const char *key, char **ret, struct err *err)
{
	const json_t *v = json_object_get(o, key);
	char *s;

	if (v && !json_is_null(v) && !json_is_string(v))
		return wrong(key, "a string", err);
	s = strdup(json_is_string(v) ? json_string_value(v) : "");
	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	*ret = s;
	return 0;
}

static int get_list(const json_t *o, const char *key, char ***ret, struct err *err)
{
	const json_t *v = json_object_get(o, key);
	size_t n = json_array_size(v);
	char **list;

	if (v && !json_is_null(v) && !json_is_array(v))
		return wrong(key, "a list", err);
	if (n > OCI_LIST_MAX)
		return err_set(err, ERR_LIMIT, "\"%s\" has more than %u items", key, OCI_LIST_MAX);
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return err_set(err, ENOMEM, "out of memory");
	*ret = list;
	for (size_t i = 0; i < n; i++) {
		const char *s = json_string_value(json_array_get(v, i));

		if (!s)
			return wrong(key, "a list of strings", err);
		list[i] = strdup(s);
		if (!list[i])
			return err_set(err, ENOMEM, "out of memory");
	}
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The keys of an object, sorted; with @values as "key=value". */
static int get_keys(json_t *o, const char *key, bool values, char ***ret, struct err *err)
{
	json_t *v = json_object_get(o, key), *item;
	size_t n = json_object_size(v), i = 0;
	const char *name;
	char **list;

	if (v && !json_is_null(v) && !json_is_object(v))
		return wrong(key, "an object", err);
	if (n > OCI_LIST_MAX)
		return err_set(err, ERR_LIMIT, "\"%s\" has more than %u items", key, OCI_LIST_MAX);
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return err_set(err, ENOMEM, "out of memory");
	*ret = list;
	json_object_foreach(v, name, item)
	{
		if (values && !json_is_string(item))
			return wrong(key, "an object of strings", err);
		list[i] = values ? str_fmt("%s=%s", name, json_string_value(item)) : strdup(name);
		if (!list[i])
			return err_set(err, ENOMEM, "out of memory");
		i++;
	}
	if (n)
		qsort(list, n, sizeof(*list), by_text);
	return 0;
}

static int get_diff_ids(const json_t *root, struct digest **ret, size_t *ret_count, struct err *err)
{
	const json_t *list = json_object_get(json_object_get(root, "rootfs"), "diff_ids");
	size_t n = json_array_size(list);
	cleanup_free struct digest *d = NULL;

	if (!json_is_array(list))
		return err_set(err, ERR_CORRUPT, "bad image configuration: no rootfs.diff_ids");
	if (n > OCI_LIST_MAX)
		return err_set(err, ERR_LIMIT, "an image of more than %u layers", OCI_LIST_MAX);
	d = calloc(n + 1, sizeof(*d));
	if (!d)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		const char *s = json_string_value(json_array_get(list, i));
		int r;

		if (!s)
			return wrong("diff_ids", "a list of strings", err);
		r = digest_parse(s, "a diff_id", &d[i], err);
		if (r < 0)
			return r;
	}
	*ret_count = n;
	*ret = take_ptr(d);
	return 0;
}

static int parse_fields(json_t *root, struct image_config *c, struct err *err)
{
	json_t *o = json_object_get(root, "config");
	int r;

	if (o && !json_is_null(o) && !json_is_object(o))
		return wrong("config", "an object", err);
	r = get_text(root, "architecture", &c->architecture, err);
	if (r >= 0)
		r = get_text(root, "variant", &c->variant, err);
	if (r >= 0)
		r = get_text(root, "os", &c->os, err);
	if (r >= 0)
		r = get_text(root, "created", &c->created, err);
	if (r >= 0)
		r = get_text(root, "author", &c->author, err);
	if (r >= 0)
		r = get_text(o, "User", &c->user, err);
	if (r >= 0)
		r = get_text(o, "WorkingDir", &c->workdir, err);
	if (r >= 0)
		r = get_text(o, "StopSignal", &c->stop_signal, err);
	if (r >= 0)
		r = get_list(o, "Entrypoint", &c->entrypoint, err);
	if (r >= 0)
		r = get_list(o, "Cmd", &c->cmd, err);
	if (r >= 0)
		r = get_list(o, "Env", &c->env, err);
	if (r >= 0)
		r = get_list(o, "Shell", &c->shell, err);
	if (r >= 0)
		r = get_keys(o, "ExposedPorts", false, &c->exposed, err);
	if (r >= 0)
		r = get_keys(o, "Volumes", false, &c->volumes, err);
	if (r >= 0)
		r = get_keys(o, "Labels", true, &c->labels, err);
	return r;
}

int oci_parse_config(const char *json, size_t len, struct image_config *ret,
		     struct digest **ret_diff_ids, size_t *ret_count, struct err *err)
{
	json_error_t je;
	cleanup_json json_t *root = json_loadb(json, len, 0, &je);
	struct image_config c = {0};
	int r;

	if (!root)
		return err_set(err, ERR_CORRUPT, "bad image configuration: %s, line %d", je.text,
			       je.line);
	if (!json_is_object(root))
		return err_set(err, ERR_CORRUPT, "bad image configuration: not an object");
	r = parse_fields(root, &c, err);
	if (r >= 0 && ret_diff_ids)
		r = get_diff_ids(root, ret_diff_ids, ret_count, err);
	if (r < 0) {
		oci_config_done(&c);
		return r;
	}
	*ret = c;
	return 0;
}
