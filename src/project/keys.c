/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of an entry that only projects have, or that they spell in a way of their own. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "config/load.h"
#include "project/project.h"

/* Of a file of variables. */
#define ENV_FILE_MAX ((size_t)1 << 20)

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

int project_refs_add(struct project_refs *l, const char *name, struct conf_mark at)
{
	struct project_ref *v = reallocarray(l->v, l->n + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	l->v = v;
	v[l->n] = (struct project_ref){strdup(name), at};
	if (!v[l->n].name)
		return -ENOMEM;
	l->n++;
	return 0;
}

static bool has_ref(const struct project_refs *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++) {
		if (str_eq(l->v[i].name, name))
			return true;
	}
	return false;
}

static int load_depends(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			struct err *err)
{
	struct project_sandbox *s = l->arg;

	if (n->kind != CONF_LIST)
		return conf_expected(l, f->key, n, "a list of sandboxes", err);
	for (const struct conf_node *c = n->first; c; c = c->next) {
		if (c->kind != CONF_TEXT)
			return conf_expected(l, f->key, c, "the name of a sandbox", err);
		if (has_ref(&s->depends, c->text))
			return conf_error(err, l->file->name, c->at, "%s: \"%.60s\" is there twice",
					  f->key, c->text);
		if (project_refs_add(&s->depends, c->text, c->at) < 0)
			return no_memory(err);
	}
	return 0;
}

/* {exec: [program, …], tcp: 5432, timeout: 30s, interval: 500ms} */
static int load_ready(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	static const char *const keys[] = {"exec", "tcp", "timeout", "interval"};
	struct project_ready *r = &((struct project_sandbox *)l->arg)->ready;

	if (n->kind != CONF_MAP)
		return conf_expected(l, f->key, n, "a map with exec or tcp", err);
	for (const struct conf_node *c = n->first; c; c = c->next) {
		char key[80];
		uint64_t v;
		int e = 0;

		snprintf(key, sizeof(key), "%s.%.60s", f->key, c->key);
		if (str_eq(c->key, "exec") && c->kind == CONF_LIST && c->first) {
			for (const struct conf_node *w = c->first; w && e == 0; w = w->next) {
				if (w->kind != CONF_TEXT)
					return conf_expected(l, key, w, "a text", err);
				e = strv_add(&r->exec, w->text);
			}
			if (e < 0)
				return no_memory(err);
		} else if (str_eq(c->key, "exec")) {
			return conf_expected(l, key, c, "a list, a program and its arguments,",
					     err);
		} else if (str_eq(c->key, "tcp")) {
			if (c->kind != CONF_TEXT || str_to_u64(c->text, 65535, &v) < 0 || !v)
				return conf_expected(l, key, c, "a port", err);
			r->tcp = (uint16_t)v;
		} else if (str_eq(c->key, "timeout") || str_eq(c->key, "interval")) {
			if (c->kind != CONF_TEXT)
				return conf_expected(l, key, c, "a duration like 30s", err);
			if (str_to_duration(c->text, c->key, &v, err) < 0)
				return err_wrap(err, "%.200s:%u:%u: %s", l->file->name, c->at.line,
						c->at.column, key);
			if (v < 1000000 || v / 1000000 > INT32_MAX)
				return conf_expected(l, key, c,
						     "at least 1ms and less than a month", err);
			*(c->key[0] == 't' ? &r->timeout_ms : &r->interval_ms) = v / 1000000;
		} else {
			return conf_unknown(l, key, c, keys, ARRAY_SIZE(keys), err);
		}
	}
	return r->exec.n || r->tcp
		       ? 0
		       : conf_error(err, l->file->name, n->at,
				    "%s: one of \"exec\" and \"tcp\" is missing", f->key);
}

/* A group's name, or a map of them with nothing that we cannot give. */
static int load_groups(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		       struct err *err)
{
	struct project_sandbox *s = l->arg;

	if (n->kind != CONF_MAP && n->kind != CONF_LIST)
		return conf_expected(l, f->key, n, "a list of groups", err);
	for (const struct conf_node *c = n->first; c; c = c->next) {
		const char *name = n->kind == CONF_MAP ? c->key : c->text;

		if (n->kind == CONF_LIST && c->kind != CONF_TEXT)
			return conf_expected(l, f->key, c, "the name of a group", err);
		if (n->kind == CONF_MAP && c->kind != CONF_NULL &&
		    !(c->kind == CONF_MAP && !c->first)) {
			if (c->kind != CONF_MAP)
				return conf_expected(l, f->key, c, "a map", err);
			conf_error(err, l->file->name, c->first->name,
				   "groups.%.60s.%.60s: a group has no %s of its own yet", name,
				   c->first->key,
				   str_eq(c->first->key, "volumes") ? "volumes" : "network");
			return err_hint(err,
					"a group is a name for some sandboxes: leave it empty");
		}
		if (has_ref(&s->groups, name))
			return conf_error(err, l->file->name, c->at, "%s: \"%.60s\" is there twice",
					  f->key, name);
		if (project_refs_add(&s->groups, name, n->kind == CONF_MAP ? c->name : c->at) < 0)
			return no_memory(err);
	}
	return 0;
}

/* KEY=VALUE, each in place of the image's. */
static int load_envs(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		     struct err *err)
{
	int r = n->kind == CONF_LIST ? 0 : conf_expected(l, f->key, n, "a list of KEY=VALUE", err);

	for (const struct conf_node *c = n->first; c && r == 0; c = c->next) {
		if (c->kind != CONF_TEXT || !strchr(c->text, '='))
			return conf_expected(l, f->key, c, "KEY=VALUE", err);
		r = conf_say(l, field_by_key("env"), f->key, c, c->text, err);
	}
	return r;
}

/* Lines of KEY=VALUE; # begins a comment, quotes around a value are taken off. */
static int take_env_line(struct conf_loading *l, const char *path, unsigned number, char *line,
			 struct err *err)
{
	const struct field *env = field_by_key("env");
	cleanup_free char *from = str_fmt("%s:%u", path, number);
	char *value, *end = line + strlen(line);
	int r;

	while (end > line && isspace((unsigned char)end[-1]))
		*--end = '\0';
	line += strspn(line, " \t");
	if (!*line || *line == '#')
		return 0;
	if (str_starts(line, "export "))
		line += 7 + strspn(line + 7, " ");
	value = strchr(line, '=');
	if (!value || value == line)
		return err_set(err, ERR_USAGE, "%s:%u: KEY=VALUE is expected, not \"%.40s\"", path,
			       number, line);
	value++;
	if ((value[0] == '"' || value[0] == '\'') && end - value >= 2 && end[-1] == value[0]) {
		end[-1] = '\0';
		memmove(value, value + 1, (size_t)(end - value));
	}
	r = from ? field_set(env, l->m, line, from, err) : no_memory(err);
	return r < 0 ? err_wrap(err, "%s:%u", path, number) : 0;
}

static int take_env_file(struct conf_loading *l, const char *key, const struct conf_node *n,
			 struct err *err)
{
	cleanup_free char *path = NULL;
	cleanup_buf struct buf b = BUF_INIT;
	unsigned number = 0;
	char *text, *next;
	int r;

	if (n->kind != CONF_TEXT)
		return conf_expected(l, key, n, "a path", err);
	path = conf_resolve(l, n->text);
	if (!path)
		return no_memory(err);
	r = io_read_file(path, ENV_FILE_MAX, &b, err);
	if (r < 0)
		return err_wrap(err, "%.200s:%u:%u: %s", l->file->name, n->at.line, n->at.column,
				key);
	if (memchr(buf_ptr(&b), '\0', buf_size(&b)))
		return conf_error(err, l->file->name, n->at, "%s: %s is no text", key, path);
	buf_add_u8(&b, 0);
	if (buf_failed(&b))
		return no_memory(err);
	for (text = (char *)buf_ptr(&b); text && r == 0; text = next) {
		next = strchr(text, '\n');
		if (next)
			*next++ = '\0';
		r = take_env_line(l, path, ++number, text, err);
	}
	return r;
}

static int load_env_file(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			 struct err *err)
{
	int r = 0;

	if (n->kind != CONF_LIST)
		return take_env_file(l, f->key, n, err);
	for (const struct conf_node *c = n->first; c && r == 0; c = c->next)
		r = take_env_file(l, f->key, c, err);
	return r;
}

/* A port alone is the same on both sides. */
static int load_ports(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	int r = n->kind == CONF_LIST ? 0 : conf_expected(l, f->key, n, "a list of ports", err);

	for (const struct conf_node *c = n->first; c && r == 0; c = c->next) {
		cleanup_free char *words = NULL;

		if (c->kind != CONF_TEXT)
			return conf_expected(l, f->key, c, "a port or HOST:GUEST", err);
		if (strchr(c->text, ':'))
			words = strdup(c->text);
		else
			words = str_fmt("%.*s:%s", (int)strcspn(c->text, "/"), c->text, c->text);
		r = words ? conf_say(l, field_by_opt("port"), f->key, c, words, err)
			  : no_memory(err);
	}
	return r;
}

/* The program in place of the image's entrypoint, and arguments in place of the image's command. */
static int load_command(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			struct err *err)
{
	int r;

	if (n->kind != CONF_LIST || !n->first)
		return conf_expected(l, f->key, n, "a list, a program and its arguments,", err);
	if (n->first->kind != CONF_TEXT)
		return conf_expected(l, f->key, n->first, "a program", err);
	r = conf_say(l, field_by_key("entrypoint"), f->key, n->first, n->first->text, err);
	for (const struct conf_node *c = n->first->next; c && r == 0; c = c->next) {
		if (c->kind != CONF_TEXT)
			return conf_expected(l, f->key, c, "a text", err);
		r = conf_say(l, field_by_key("cmd"), f->key, c, c->text, err);
	}
	return r;
}

/* Who may be talked to, in the words of older files. */
static int load_scope(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	static const char *const words[] = {"none", "public", "any", "group"};
	static const char *const profiles[] = {"none", "public", "all"};

	if (n->kind != CONF_TEXT)
		return conf_expected(l, f->key, n, "none, public or any", err);
	for (size_t i = 0; i < ARRAY_SIZE(profiles); i++) {
		if (str_eq(words[i], n->text))
			return conf_say(l, field_by_key("network.profiles"), f->key, n, profiles[i],
					err);
	}
	if (str_eq(n->text, "group")) {
		conf_error(err, l->file->name, n->at,
			   "%s: sandboxes of a group have no network in common yet", f->key);
		return err_hint(err, "publish a port of one, and give the other network.profiles: "
				     "host, with which it is at host.microsandbox.internal");
	}
	return conf_expected(l, f->key, n, "none, public or any", err);
}

static int load_scripts(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			struct err *err)
{
	struct project_sandbox *s = l->arg;

	(void)f;
	if (n->kind != CONF_MAP)
		return conf_expected(l, "scripts", n, "a map of names to texts", err);
	for (const struct conf_node *c = n->first; c; c = c->next) {
		cleanup_free char *key = str_fmt("scripts.%.100s", c->key);
		cleanup_free char *words = NULL;
		int r;

		if (!key)
			return no_memory(err);
		if (c->kind != CONF_TEXT)
			return conf_expected(l, key, c, "a text", err);
		words = str_fmt("%s=%s", c->key, c->text);
		if (!words)
			return no_memory(err);
		r = conf_say(l, field_by_key("scripts"), key, c, words, err);
		if (r == 0 && strv_add(&s->scripts, c->key) < 0)
			r = no_memory(err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int load_steps(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	struct project_sandbox *s = l->arg;

	if (!s->build)
		return conf_error(err, l->file->name, n->name,
				  "%s: only an entry of \"builds\" is made in steps", f->key);
	if (n->kind != CONF_MAP)
		return conf_expected(l, f->key, n, "a map of names to scripts", err);
	for (const struct conf_node *c = n->first; c; c = c->next) {
		struct project_step *v;

		if (c->kind != CONF_TEXT)
			return conf_expected(l, f->key, c, "a script", err);
		v = reallocarray(s->steps, s->nsteps + 1, sizeof(*v));
		if (!v)
			return no_memory(err);
		s->steps = v;
		v[s->nsteps] = (struct project_step){strdup(c->key), strdup(c->text)};
		s->nsteps++;
		if (!v[s->nsteps - 1].name || !v[s->nsteps - 1].script)
			return no_memory(err);
	}
	return 0;
}

/* MAJOR.MINOR.PATCH and maybe -… or +…, as semver.org has it. */
static bool is_version(const char *s)
{
	for (int i = 0; i < 3; i++) {
		size_t n = strspn(s, "0123456789");

		if (!n || (n > 1 && *s == '0'))
			return false;
		s += n;
		if (i < 2 && *s++ != '.')
			return false;
	}
	return !*s ||
	       ((*s == '-' || *s == '+') && s[1] &&
		strspn(s + 1, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			      ".-+") == strlen(s + 1));
}

static int load_version(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			struct err *err)
{
	struct project_sandbox *s = l->arg;

	if (n->kind != CONF_TEXT || !is_version(n->text))
		return conf_expected(l, f->key, n, "a version like 1.2.3", err);
	s->version = strdup(n->text);
	return s->version ? 0 : no_memory(err);
}

/* Keys that have a meaning for a person alone. */
int project_load_meta(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	static const char *const keys[] = {"authors", "description", "homepage", "repository",
					   "readme",  "tags",	     "icon"};

	if (n->kind != CONF_MAP && n->kind != CONF_NULL)
		return conf_expected(l, f->key, n, "a map", err);
	for (const struct conf_node *c = n->first; c; c = c->next) {
		const bool list = str_eq(c->key, "authors") || str_eq(c->key, "tags");
		char key[80];
		size_t i = 0;

		snprintf(key, sizeof(key), "meta.%.60s", c->key);
		while (i < ARRAY_SIZE(keys) && !str_eq(keys[i], c->key))
			i++;
		if (i == ARRAY_SIZE(keys))
			return conf_unknown(l, key, c, keys, ARRAY_SIZE(keys), err);
		if (c->kind != (list ? CONF_LIST : CONF_TEXT))
			return conf_expected(l, key, c, list ? "a list" : "a text", err);
		for (const struct conf_node *t = c->first; t; t = t->next) {
			if (t->kind != CONF_TEXT)
				return conf_expected(l, key, t, "a text", err);
		}
	}
	return 0;
}

/* Nothing in them is fine; something would need what is not there. */
static int load_nothing(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			struct err *err)
{
	if (n->kind == CONF_NULL || ((n->kind == CONF_LIST || n->kind == CONF_MAP) && !n->first))
		return 0;
	conf_error(err, l->file->name, n->name, "%s: %s", f->key, f->why);
	return err_hint(err, "\"patches\" can copy files into the root before the first command");
}

#define SCHEMA_TEXTS "{\"type\":\"array\",\"items\":{\"type\":\"string\"}}"
#define SCHEMA_NONE  "{\"maxItems\":0,\"maxProperties\":0}"

const char project_schema_meta[] =
	"{\"type\":[\"object\",\"null\"],\"additionalProperties\":false,\"properties\":{"
	"\"authors\":" SCHEMA_TEXTS ",\"description\":{\"type\":\"string\"},"
	"\"homepage\":{\"type\":\"string\"},\"repository\":{\"type\":\"string\"},"
	"\"readme\":{\"type\":\"string\"},\"tags\":" SCHEMA_TEXTS
	",\"icon\":{\"type\":\"string\"}}}";

static const char schema_ready[] =
	"{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"exec\":{\"type\":"
	"\"array\",\"minItems\":1,\"items\":{\"type\":\"string\"}},\"tcp\":{\"type\":\"integer\","
	"\"minimum\":1,\"maximum\":65535},\"timeout\":{\"type\":[\"string\",\"integer\"]},"
	"\"interval\":{\"type\":[\"string\",\"integer\"]}}}";
static const char schema_groups[] =
	"{\"oneOf\":[" SCHEMA_TEXTS ",{\"type\":\"object\",\"additionalProperties\":{\"type\":"
	"[\"object\",\"null\"],\"maxProperties\":0}}]}";
static const char schema_ports[] =
	"{\"type\":\"array\",\"items\":{\"type\":[\"string\",\"integer\"]}}";
static const char schema_env_file[] = "{\"oneOf\":[{\"type\":\"string\"}," SCHEMA_TEXTS "]}";
static const char schema_scope[] = "{\"enum\":[\"none\",\"public\",\"any\"]}";

#define NO_SHARING "files of the host and of other sandboxes need volumes, which are not there yet"

/* A row here goes before one of the same key in config/field.c. */
static const struct field rows[] = {
	{"envs", .help = "Environment variables, as KEY=VALUE", .kind = FIELD_LIST,
	 .load = load_envs},
	{"env_file", .help = "Files with lines of KEY=VALUE", .kind = FIELD_LIST,
	 .load = load_env_file, .schema = schema_env_file},
	{"ports", .help = "Ports that are published: HOST:GUEST, or one for both",
	 .kind = FIELD_LIST, .load = load_ports, .schema = schema_ports},
	{"command", .help = "Program and arguments in place of the image's", .kind = FIELD_LIST,
	 .load = load_command},
	{"scope", .help = "What the guest may reach", .kind = FIELD_WORD, .load = load_scope,
	 .schema = schema_scope},
	{"network.scope", .help = "The same as scope", .kind = FIELD_WORD, .load = load_scope,
	 .schema = schema_scope},
	{"scripts", .help = "Scripts on the PATH; the one named start is what the sandbox runs",
	 .kind = FIELD_MAP, .load = load_scripts},
	{"depends_on", .help = "Sandboxes that have to be ready before this one starts",
	 .kind = FIELD_LIST, .load = load_depends},
	{"ready", .help = "What has to succeed in it before it is ready", .kind = FIELD_MAP,
	 .load = load_ready, .schema = schema_ready},
	{"groups", .help = "Groups it is in", .kind = FIELD_LIST, .load = load_groups,
	 .schema = schema_groups},
	{"steps", .help = "Of builds: scripts that are run in this order to make the image",
	 .kind = FIELD_MAP, .load = load_steps},
	{"version", .help = "Version of what it is", .load = load_version},
	{"meta", .help = "For people", .kind = FIELD_MAP, .load = project_load_meta,
	 .schema = project_schema_meta},
	{"volumes", .why = NO_SHARING, .help = "Not there yet", .load = load_nothing,
	 .schema = SCHEMA_NONE},
	{"imports", .why = NO_SHARING, .help = "Not there yet", .load = load_nothing,
	 .schema = SCHEMA_NONE},
	{"exports", .why = NO_SHARING, .help = "Not there yet", .load = load_nothing,
	 .schema = SCHEMA_NONE},
};

const struct conf_scope project_scope = {
	.opt = "file", .scope = FIELD_ANYWHERE, .more = rows, .nmore = ARRAY_SIZE(rows)};
