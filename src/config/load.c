/* SPDX-License-Identifier: Apache-2.0 */
#include "config/load.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "sandbox/patch.h"
#include "sandbox/source.h"

const struct conf_scope conf_scopes[] = {
	{"conf", "Read what the sandbox is from this YAML file (repeatable, in the order given)",
	 NULL, FIELD_ANYWHERE},
	{"resource-conf", "The same, CPUs, memory and limits alone", NULL, FIELD_RESOURCE},
	{"runtime-conf", "The same, what and how commands run alone", NULL, FIELD_RUNTIME},
	{"fs-conf", "The same, files and disks alone", NULL, FIELD_FS},
	{"net-conf", "The same, the network alone", "network", FIELD_ANYWHERE},
	{"script-conf", "The same, a map of scripts alone", "scripts", FIELD_ANYWHERE},
};
const size_t nconf_scopes = ARRAY_SIZE(conf_scopes);

/* Keys that mean something elsewhere. One with a row in the table of fields is not looked up. */
static const struct {
	const char *key, *why;
} refused[] = {
	{"name", "a sandbox's name is said with --name, since a file may serve several"},
	{"description", "there is nothing that would show a description"},
	{"sandboxes", "this file describes one sandbox, not a project"},
	{"layers", "files are put above each other by naming several, as in --conf A --conf B"},
	{"depends_on", "this file describes one sandbox, not a project"},
	{"volumes", "volumes are not there yet"},
	{"mounts", "volumes are not there yet; \"patches\" can copy files into the root"},
	{"secrets", "secrets are not there yet"},
	{"network.tls", "looking into TLS is not there yet"},
	{"network.trust_host_cas", "looking into TLS is not there yet"},
	{"cpu_placement", "the host's kernel places CPUs"},
	{"placement_profile", "the host's kernel places CPUs"},
	{"thp", "large pages in the guest are its kernel's choice"},
	{"deployment_profile", "there are no deployment profiles"},
};

const char *conf_refused(const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		if (str_eq(refused[i].key, key))
			return refused[i].why;
	}
	return NULL;
}

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

/* ---- values ---- */

int conf_expected(const struct conf_loading *l, const char *key, const struct conf_node *n,
		  const char *want, struct err *err)
{
	if (n->kind == CONF_TEXT)
		return conf_error(err, l->file->name, n->at, "%s: %s is expected, not \"%.40s\"%s",
				  key, want, n->text, n->quoted ? " in quotes" : "");
	return conf_error(err, l->file->name, n->at, "%s: %s is expected, not %s", key, want,
			  conf_what(n));
}

/* @path if it is absolute, else below the file's directory. NULL without memory. */
char *conf_resolve(const struct conf_loading *l, const char *path)
{
	if (path[0] == '/')
		return strdup(path);
	return str_fmt("%s/%s", str_eq(l->file->dir, "/") ? "" : l->file->dir, path);
}

/* Hand words to the field's setter, and say where they stood if it objects. */
int conf_say(struct conf_loading *l, const struct field *f, const char *key,
	     const struct conf_node *n, const char *words, struct err *err)
{
	cleanup_free char *from = str_fmt("%s:%u", l->file->name, n->at.line);
	int r = from ? field_set(f, l->m, words, from, err) : no_memory(err);

	return r < 0 ? err_wrap(err, "%.200s:%u:%u: %s", l->file->name, n->at.line, n->at.column,
				key)
		     : 0;
}

static bool is_digits(const char *s)
{
	return *s && strspn(s, "0123456789") == strlen(s);
}

int conf_load_plain(struct conf_loading *l, const struct field *f, const char *key,
		    const struct conf_node *n, struct err *err)
{
	static const char *const wants[] = {
		[FIELD_TEXT] = "a text",
		[FIELD_WORD] = "a word",
		[FIELD_NUMBER] = "a whole number",
		[FIELD_SIZE] = "a size like 512M",
		[FIELD_DURATION] = "a duration like 30s or 5m",
		[FIELD_PATH] = "a path",
		[FIELD_SOURCE] = "a text",
		[FIELD_LIST] = "a text",
		[FIELD_MAP] = "a text",
	};
	cleanup_free char *path = NULL;

	if (n->kind != CONF_TEXT || (f->kind == FIELD_NUMBER && (n->quoted || !is_digits(n->text))))
		return conf_expected(l, key, n, wants[f->kind], err);
	if (f->kind == FIELD_PATH || (f->kind == FIELD_SOURCE && sandbox_source_is_path(n->text))) {
		path = conf_resolve(l, n->text);
		if (!path)
			return no_memory(err);
	}
	return conf_say(l, f, key, n, path ? path : n->text, err);
}

static int load_map(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		    struct err *err)
{
	int r = n->kind == CONF_MAP ? 0
				    : conf_expected(l, f->key, n, "a map of names to texts", err);

	for (const struct conf_node *c = n->first; c && r == 0; c = c->next) {
		cleanup_free char *key = str_fmt("%s.%.100s", f->key, c->key);
		cleanup_free char *words = NULL;

		if (!key)
			return no_memory(err);
		if (!c->key[0] || strchr(c->key, '='))
			return conf_error(err, l->file->name, c->name, "%s: this is not a name",
					  key);
		if (c->kind != CONF_TEXT) {
			r = conf_expected(l, key, c, "a text", err);
			return c->kind != CONF_NULL
				       ? r
				       : err_hint(err,
						  "write \"\" for an empty one, ${NAME} for the "
						  "value of a variable here");
		}
		words = str_fmt("%s=%s", c->key, c->text);
		r = words ? conf_say(l, f, key, c, words, err) : no_memory(err);
	}
	return r;
}

/* The items of a list, in place of what was there. */
static int load_list(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		     struct err *err)
{
	size_t i = 0;
	int r = n->kind == CONF_LIST ? 0 : conf_expected(l, f->key, n, "a list", err);

	if (r == 0 && field_clear(f, l->m) < 0)
		return no_memory(err);
	for (const struct conf_node *c = n->first; c && r == 0; c = c->next) {
		char key[96];

		snprintf(key, sizeof(key), "%s[%zu]", f->key, i++);
		r = conf_load_plain(l, f, key, c, err);
	}
	return r;
}

static int load_value(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	if (f->load)
		return f->load(l, f, n, err);
	if (f->kind == FIELD_MAP)
		return load_map(l, f, n, err);
	if (f->kind == FIELD_LIST)
		return load_list(l, f, n, err);
	return conf_load_plain(l, f, f->key, n, err);
}

/* ---- values that have a form of their own ---- */

int conf_unknown(struct conf_loading *l, const char *key, const struct conf_node *n,
		 const char *const *keys, size_t nkeys, struct err *err)
{
	const char *like = str_suggest(n->key, keys, nkeys);

	conf_error(err, l->file->name, n->name, "there is no key \"%.100s\"", key);
	if (like)
		return err_hint(err, "did you mean %s?", like);
	return err_hint(err, "`msb schema` prints all that can be said");
}

int conf_take_form(struct conf_loading *l, const char *key, const struct conf_node *n,
		   struct conf_form *form, struct err *err)
{
	if (n->kind != CONF_MAP)
		return conf_expected(l, key, n, "a map", err);
	for (const struct conf_node *c = n->first; c; c = c->next) {
		cleanup_free char *path = str_fmt("%s.%.60s", key, c->key);
		size_t i;

		for (i = 0; i < form->n && !str_eq(form->keys[i], c->key); i++)
			;
		if (!path)
			return no_memory(err);
		if (i == form->n)
			return conf_unknown(l, path, c, form->keys, form->n, err);
		if (c->kind != CONF_TEXT)
			return conf_expected(l, path, c, "a text", err);
		form->node[i] = c;
	}
	return 0;
}

int conf_missing(struct conf_loading *l, const char *key, const struct conf_node *n,
		 const char *what, struct err *err)
{
	return conf_error(err, l->file->name, n->at, "%s: \"%s\" is missing", key, what);
}

/* IMAGE, {oci: IMAGE, upper_size: SIZE}, {bind: DIRECTORY}, {disk: FILE, fstype, format} */
int conf_load_image(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		    struct err *err)
{
	static const char *const keys[] = {"oci",    "upper_size", "bind",    "disk",
					   "fstype", "format",	   "snapshot"};
	enum { OCI, UPPER, BIND, DISK, FSTYPE, FORMAT, SNAPSHOT };
	struct conf_form form = {keys, ARRAY_SIZE(keys)};
	const struct conf_node *const *v = form.node;
	cleanup_free char *path = NULL;
	cleanup_free char *words = NULL;
	int r;

	if (n->kind == CONF_TEXT)
		return conf_load_plain(l, f, f->key, n, err);
	r = conf_take_form(l, f->key, n, &form, err);
	if (r < 0)
		return r;
	if (v[SNAPSHOT])
		return conf_error(err, l->file->name, v[SNAPSHOT]->name,
				  "image.snapshot: snapshots are not there yet");
	if (!!v[OCI] + !!v[BIND] + !!v[DISK] != 1)
		return conf_error(err, l->file->name, n->at,
				  "image: one of \"oci\", \"bind\" and \"disk\" is expected");
	if ((v[UPPER] && !v[OCI]) || ((v[FSTYPE] || v[FORMAT]) && !v[DISK]))
		return conf_error(err, l->file->name, n->at,
				  "image: \"upper_size\" belongs to \"oci\", \"fstype\" and "
				  "\"format\" to \"disk\"");
	if (v[OCI]) {
		r = conf_say(l, f, "image.oci", v[OCI], v[OCI]->text, err);
		if (r == 0 && v[UPPER])
			r = conf_say(l, field_by_key("root_disk"), "image.upper_size", v[UPPER],
				     v[UPPER]->text, err);
		return r;
	}
	path = conf_resolve(l, v[DISK] ? v[DISK]->text : v[BIND]->text);
	if (!path)
		return no_memory(err);
	if (v[BIND])
		return conf_say(l, f, "image.bind", v[BIND], path, err);
	words = str_fmt("%s%s%s%s%s", path,
			v[FSTYPE]   ? ":fstype="
			: v[FORMAT] ? ":format="
				    : "",
			v[FSTYPE]   ? v[FSTYPE]->text
			: v[FORMAT] ? v[FORMAT]->text
				    : "",
			v[FSTYPE] && v[FORMAT] ? ",format=" : "",
			v[FSTYPE] && v[FORMAT] ? v[FORMAT]->text : "");
	return words ? conf_say(l, f, "image.disk", v[DISK], words, err) : no_memory(err);
}

/* The texts of a list, in place of the entrypoint there is. */
static int set_entrypoint(struct model *m, const struct conf_node *list, struct err *err)
{
	int r = sandbox_spec_entrypoint(&m->spec, list->first->text, err);

	for (const struct conf_node *c = list->first->next; c && r == 0; c = c->next)
		r = strv_add(&m->spec.entrypoint, c->text) < 0 ? no_memory(err) : 0;
	return r;
}

static bool is_texts(const struct conf_node *list)
{
	const struct conf_node *c = list->kind == CONF_LIST ? list->first : NULL;

	while (c && c->kind == CONF_TEXT && c->next)
		c = c->next;
	return c && c->kind == CONF_TEXT;
}

int conf_entrypoint(struct model *m, const char *text, struct err *err)
{
	cleanup_conf_file struct conf_file file = {0};
	int r;

	/* A program may be called "[". */
	if (text[0] != '[' || !str_ends(text, "]"))
		return sandbox_spec_entrypoint(&m->spec, text, err);
	r = conf_parse_words("--entrypoint", text, &file, err);
	if (r < 0)
		return r;
	if (is_texts(file.root))
		return set_entrypoint(m, file.root, err);
	err_set(err, ERR_USAGE, "\"%.100s\" is no list of a program and its arguments", text);
	return err_hint(err, "write it like --entrypoint '[python3, -u]'");
}

/* A program, or a list of it and its arguments. */
int conf_load_entrypoint(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			 struct err *err)
{
	cleanup_free char *words = NULL;
	json_t *list = json_array();
	int r;

	if (is_texts(n)) {
		for (const struct conf_node *c = n->first; c; c = c->next)
			json_array_append_new(list, json_string(c->text));
		words = json_dumps(list, 0);
		r = words ? conf_say(l, f, f->key, n, words, err) : no_memory(err);
	} else if (n->kind == CONF_TEXT) {
		r = conf_load_plain(l, f, f->key, n, err);
	} else {
		r = conf_expected(l, f->key, n, "a program, or a list of it and its arguments,",
				  err);
	}
	json_decref(list);
	return r;
}

/* Texts that begin with a path, each. */
int conf_load_sockets(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	size_t i = 0;
	int r = n->kind == CONF_LIST ? 0 : conf_expected(l, f->key, n, "a list", err);

	if (r == 0)
		(void)field_clear(f, l->m);
	for (const struct conf_node *c = n->first; c && r == 0; c = c->next) {
		cleanup_free char *words = c->kind == CONF_TEXT ? conf_resolve(l, c->text) : NULL;
		char key[32];

		snprintf(key, sizeof(key), "%s[%zu]", f->key, i++);
		if (c->kind != CONF_TEXT)
			return conf_expected(l, key, c, "a text", err);
		r = words ? conf_say(l, f, key, c, words, err) : no_memory(err);
	}
	return r;
}

/* {resource: nofile, soft: 1024, hard: 4096}, or nofile=1024:4096 */
int conf_load_rlimits(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	static const char *const keys[] = {"resource", "soft", "hard"};
	size_t i = 0;
	int r = n->kind == CONF_LIST ? 0 : conf_expected(l, f->key, n, "a list", err);

	if (r == 0)
		(void)field_clear(f, l->m);
	for (const struct conf_node *c = n->first; c && r == 0; c = c->next) {
		struct conf_form form = {keys, ARRAY_SIZE(keys)};
		cleanup_free char *words = NULL;
		char key[32];

		snprintf(key, sizeof(key), "%s[%zu]", f->key, i++);
		if (c->kind == CONF_TEXT) {
			r = conf_load_plain(l, f, key, c, err);
			continue;
		}
		r = conf_take_form(l, key, c, &form, err);
		if (r == 0 && (!form.node[0] || !form.node[1]))
			r = conf_missing(l, key, c, form.node[0] ? "soft" : "resource", err);
		if (r < 0)
			return r;
		words = str_fmt("%s=%s:%s", form.node[0]->text, form.node[1]->text,
				form.node[form.node[2] ? 2 : 1]->text);
		r = words ? conf_say(l, f, key, c, words, err) : no_memory(err);
	}
	return r;
}

/* ---- the file ---- */

/* Is there a field below @path? */
static bool is_level(const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < nfields; i++) {
		if (fields[i].key && strncmp(fields[i].key, path, n) == 0 &&
		    fields[i].key[n] == '.')
			return true;
	}
	return false;
}

static bool in_scope(const struct conf_loading *l, const struct field *f)
{
	return l->scope->scope == FIELD_ANYWHERE || f->scope == l->scope->scope;
}

/* The scope's own rows stand before the table's. */
static const struct field *row_of(const struct conf_loading *l, const char *key)
{
	for (size_t i = 0; i < l->scope->nmore; i++) {
		if (str_eq(l->scope->more[i].key, key))
			return &l->scope->more[i];
	}
	return field_by_key(key);
}

static int no_key(struct conf_loading *l, const char *prefix, const char *path,
		  const struct conf_node *n, struct err *err)
{
	const char *why = conf_refused(path);
	cleanup_strv struct strv names = {0};
	size_t skip = prefix[0] ? strlen(prefix) + 1 : 0;
	int r = 0;

	if (why)
		return conf_error(err, l->file->name, n->name, "%s: %s", path, why);
	for (size_t i = 0; i < nfields + l->scope->nmore && r == 0; i++) {
		const struct field *f = i < nfields ? &fields[i] : &l->scope->more[i - nfields];
		const char *key = f->key;

		if (key && in_scope(l, f) && strncmp(key, prefix, strlen(prefix)) == 0 &&
		    (!skip || key[skip - 1] == '.'))
			r = strv_addf(&names, "%.*s", (int)strcspn(key + skip, "."), key + skip);
	}
	if (r < 0)
		return no_memory(err);
	return conf_unknown(l, path, n, (const char *const *)names.v, names.n, err);
}

int conf_load_keys(struct conf_loading *l, const char *prefix, const struct conf_node *map,
		   struct err *err)
{
	int r = 0;

	if (map->kind != CONF_MAP)
		return conf_expected(l, prefix[0] ? prefix : "this file", map, "a map", err);
	for (const struct conf_node *c = map->first; c && r == 0; c = c->next) {
		cleanup_free char *path =
			str_fmt("%s%s%.100s", prefix, prefix[0] ? "." : "", c->key);
		const struct field *f = path ? row_of(l, path) : NULL;

		if (!path)
			return no_memory(err);
		if (f && !in_scope(l, f)) {
			conf_error(err, l->file->name, c->name,
				   "%s: this does not belong into a file of --%s", path,
				   l->scope->opt);
			return err_hint(err, "put it into one of --conf");
		}
		if (f)
			r = load_value(l, f, c, err);
		else if (is_level(path))
			r = conf_load_keys(l, path, c, err);
		else
			r = no_key(l, prefix, path, c, err);
	}
	return r;
}

int conf_load_file(const struct conf_scope *scope, const struct conf_file *file, struct model *m,
		   struct err *err)
{
	struct conf_loading l = {.file = file, .m = m, .scope = scope};
	const struct field *f = scope->prefix ? field_by_key(scope->prefix) : NULL;

	/* An empty file says nothing. */
	if (file->root->kind == CONF_NULL)
		return 0;
	return f ? load_value(&l, f, file->root, err)
		 : conf_load_keys(&l, scope->prefix ? scope->prefix : "", file->root, err);
}

int conf_load_map(const struct conf_scope *scope, const struct conf_file *file,
		  const struct conf_node *map, struct model *m, void *arg, struct err *err)
{
	struct conf_loading l = {.file = file, .m = m, .scope = scope, .arg = arg};

	return conf_load_keys(&l, "", map, err);
}

int conf_load(const struct conf_scope *scope, const char *path, struct model *m, struct err *err)
{
	cleanup_conf_file struct conf_file file = {0};
	int r = conf_read_yaml(path, &file, err);

	return r < 0 ? r : conf_load_file(scope, &file, m, err);
}
