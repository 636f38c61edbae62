/* SPDX-License-Identifier: Apache-2.0 */
#include "project/project.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "config/global.h"
#include "config/load.h"

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static void refs_done(struct project_refs *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].name);
	free(l->v);
}

static void sandbox_done(struct project_sandbox *s)
{
	free(s->name);
	free(s->version);
	model_done(&s->model);
	refs_done(&s->depends);
	refs_done(&s->groups);
	strv_done(&s->ready.exec);
	strv_done(&s->scripts);
	for (size_t i = 0; i < s->nsteps; i++) {
		free(s->steps[i].name);
		free(s->steps[i].script);
	}
	free(s->steps);
}

void project_done(struct project *p)
{
	for (size_t i = 0; i < p->n; i++)
		sandbox_done(&p->v[i]);
	for (size_t i = 0; i < p->ngroups; i++)
		free(p->groups[i].name);
	free(p->v);
	free(p->groups);
	free(p->path);
	free(p->file);
	free(p->dir);
	free(p->config);
	*p = (struct project){0};
}

int project_find(const char *word, char **ret, struct err *err)
{
	cleanup_free char *inside = NULL;
	const char *path = word ? word : ".";
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		inside = str_fmt("%s/" PROJECT_FILE, path);
		if (!inside)
			return no_memory(err);
		path = inside;
	}
	*ret = realpath(path, NULL);
	if (*ret)
		return 0;
	if (errno != ENOENT && errno != ENOTDIR)
		return err_errno(err, "cannot find the project's file %s", path);
	err_set(err, ERR_NOT_FOUND, "there is no %s",
		word ? path : PROJECT_FILE " in this directory");
	return err_hint(err,
			word ? "check the name" : "`msb init` makes one, --file names another");
}

struct project_sandbox *project_get(const struct project *p, const char *name, bool build)
{
	for (size_t i = 0; i < p->n; i++) {
		if (p->v[i].build == build && str_eq(p->v[i].name, name))
			return &p->v[i];
	}
	return NULL;
}

static const char *suggest(const struct project *p, const char *name, bool build)
{
	const char *names[PROJECT_SANDBOXES_MAX];
	size_t n = 0;

	for (size_t i = 0; i < p->n; i++) {
		if (p->v[i].build == build)
			names[n++] = p->v[i].name;
	}
	return str_suggest(name, names, n);
}

int project_want(const struct project *p, const char *name, struct project_sandbox **ret,
		 struct err *err)
{
	const char *like;

	*ret = project_get(p, name, false);
	if (*ret)
		return 0;
	like = suggest(p, name, false);
	err_set(err, ERR_NOT_FOUND, "there is no sandbox \"%.100s\" in %s", name, p->path);
	return like ? err_hint(err, "did you mean %s?", like)
		    : err_hint(err, "`msb list --file %s` shows those there are", p->path);
}

bool project_in_group(const struct project_sandbox *s, const char *group)
{
	for (size_t i = 0; i < s->groups.n; i++) {
		if (str_eq(s->groups.v[i].name, group))
			return true;
	}
	return false;
}

bool project_has_script(const struct project_sandbox *s, const char *name)
{
	return strv_has(&s->scripts, name);
}

/* ---- reading ---- */

struct loading {
	const struct conf_file *f;
	const char *defaults;
	struct project *p;
};

static int add_sandbox(struct loading *l, const struct conf_node *map, const char *name,
		       struct conf_mark at, bool build, struct err *err)
{
	struct project *p = l->p;
	struct project_sandbox *s, *v;
	int r = sandbox_name_check(name, err);

	if (r < 0)
		return err_wrap(err, "%.200s:%u:%u", l->f->name, at.line, at.column);
	if (p->n == PROJECT_SANDBOXES_MAX)
		return conf_error(err, l->f->name, at, "more than %u sandboxes are too many",
				  PROJECT_SANDBOXES_MAX);
	v = reallocarray(p->v, p->n + 1, sizeof(*v));
	if (!v)
		return no_memory(err);
	p->v = v;
	s = &v[p->n];
	*s = (struct project_sandbox){
		.name = strdup(name),
		.at = at,
		.build = build,
		.ready = {.timeout_ms = PROJECT_READY_TIMEOUT_MS,
			  .interval_ms = PROJECT_READY_INTERVAL_MS},
	};
	model_init(&s->model);
	p->n++;
	if (!s->name)
		return no_memory(err);
	if (l->defaults) {
		r = conf_load_global(l->defaults, &s->model, err);
		if (r < 0)
			return r;
	}
	if (map->kind != CONF_MAP)
		return conf_error(err, l->f->name, map->at, "%s: a map is expected, not %s", name,
				  conf_what(map));
	r = conf_load_map(&project_scope, l->f, map, &s->model, s, err);
	if (r == 0 && !s->model.image)
		r = conf_error(err, l->f->name, at, "%s: \"image\" is missing", name);
	if (r == 0 && sandbox_spec_check(&s->model.spec, err) < 0)
		r = err_wrap(err, "%.200s:%u:%u: %s", l->f->name, at.line, at.column, name);
	return r;
}

static int add_all(struct loading *l, const struct conf_node *map, bool build, struct err *err)
{
	int r = 0;

	/* A fresh file has the key and nothing in it. */
	if (map->kind == CONF_NULL)
		return 0;
	if (map->kind != CONF_MAP)
		return conf_error(err, l->f->name, map->at, "%s: a map is expected, not %s",
				  map->key, conf_what(map));
	for (const struct conf_node *c = map->first; c && r == 0; c = c->next)
		r = add_sandbox(l, c, c->key, c->name, build, err);
	return r;
}

/* Names of groups; what they would have of their own is not there. */
static int load_groups(struct loading *l, const struct conf_node *map, struct err *err)
{
	static const char *const keys[] = {"version", "meta", "network", "volumes"};
	struct conf_loading inner = {.file = l->f, .scope = &project_scope};

	if (map->kind == CONF_NULL)
		return 0;
	if (map->kind != CONF_MAP)
		return conf_error(err, l->f->name, map->at, "groups: a map is expected, not %s",
				  conf_what(map));
	for (const struct conf_node *c = map->first; c; c = c->next) {
		struct project_group *v = reallocarray(l->p->groups, l->p->ngroups + 1, sizeof(*v));

		if (!v)
			return no_memory(err);
		l->p->groups = v;
		v[l->p->ngroups] = (struct project_group){strdup(c->key), c->name};
		l->p->ngroups++;
		if (!v[l->p->ngroups - 1].name)
			return no_memory(err);
		if (c->kind != CONF_MAP && c->kind != CONF_NULL)
			return conf_expected(&inner, "groups", c, "a map", err);
		for (const struct conf_node *k = c->first; k; k = k->next) {
			char key[160];
			int r = 0;

			snprintf(key, sizeof(key), "groups.%.60s.%.60s", c->key, k->key);
			if (str_eq(k->key, "version")) {
				r = k->kind == CONF_TEXT
					    ? 0
					    : conf_expected(&inner, key, k, "a text", err);
			} else if (str_eq(k->key, "meta")) {
				const struct field meta = {.key = "meta"};

				r = project_load_meta(&inner, &meta, k, err);
			} else if (str_eq(k->key, "network") || str_eq(k->key, "volumes")) {
				bool empty =
					k->kind == CONF_NULL || (k->kind != CONF_TEXT && !k->first);

				if (!empty) {
					conf_error(err, l->f->name, k->name,
						   "%s: a group has no %s of its own yet", key,
						   k->key);
					return err_hint(err, "a group is a name for some "
							     "sandboxes: leave it empty");
				}
			} else {
				r = conf_unknown(&inner, key, k, keys, ARRAY_SIZE(keys), err);
			}
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* Parts of other projects. */
static int load_modules(struct loading *l, const struct conf_node *map, struct err *err)
{
	if (map->kind == CONF_NULL || (map->kind == CONF_MAP && !map->first))
		return 0;
	conf_error(err, l->f->name, map->name, "modules: there are no modules to take parts from");
	return err_hint(err, "copy the entry of the other file into \"sandboxes\"");
}

/* Do the names that are mentioned exist? */
static int check_names(const struct loading *l, struct err *err)
{
	const struct project *p = l->p;

	for (size_t i = 0; i < p->n; i++) {
		const struct project_sandbox *s = &p->v[i];

		for (size_t j = 0; j < s->depends.n; j++) {
			const struct project_ref *d = &s->depends.v[j];
			const char *like;

			if (project_get(p, d->name, s->build))
				continue;
			like = suggest(p, d->name, s->build);
			conf_error(err, l->f->name, d->at, "depends_on: there is no %s \"%.60s\"",
				   s->build ? "build" : "sandbox", d->name);
			return like ? err_hint(err, "did you mean %s?", like)
				    : err_hint(err, "it has to be an entry of \"%s\"",
					       s->build ? "builds" : "sandboxes");
		}
		for (size_t j = 0; j < s->groups.n; j++) {
			const struct project_ref *g = &s->groups.v[j];
			bool found = false;

			for (size_t k = 0; k < p->ngroups; k++)
				found |= str_eq(p->groups[k].name, g->name);
			if (found)
				continue;
			conf_error(err, l->f->name, g->at, "groups: there is no group \"%.60s\"",
				   g->name);
			return err_hint(err, "declare it at the top: groups: {%.60s: {}}", g->name);
		}
	}
	return 0;
}

/* The name of the one sandbox of a file: app for /srv/app.yaml. */
static char *name_of_file(const char *config)
{
	cleanup_free char *name = strdup(config);
	char *dot = name ? strrchr(name, '.') : NULL;

	if (dot && dot > name)
		*dot = '\0';
	return name && sandbox_name_check(name, NULL) == 0 ? take_ptr(name) : strdup("sandbox");
}

static bool is_project(const struct conf_file *f)
{
	/* The others may be in an entry, too. */
	static const char *const keys[] = {"modules", "builds", "sandboxes"};

	if (f->root->kind != CONF_MAP)
		return f->root->kind == CONF_NULL;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (conf_get(f->root, keys[i]))
			return true;
	}
	return !conf_get(f->root, "image");
}

static int load_top(struct loading *l, struct err *err)
{
	static const char *const keys[] = {"meta", "modules", "builds", "sandboxes", "groups"};
	const struct conf_node *builds = NULL;
	const struct field meta = {.key = "meta"};
	struct conf_loading inner = {.file = l->f, .scope = &project_scope};
	int r = 0;

	for (const struct conf_node *c = l->f->root->first; c && r == 0; c = c->next) {
		if (str_eq(c->key, "meta"))
			r = project_load_meta(&inner, &meta, c, err);
		else if (str_eq(c->key, "modules"))
			r = load_modules(l, c, err);
		else if (str_eq(c->key, "groups"))
			r = load_groups(l, c, err);
		else if (str_eq(c->key, "sandboxes"))
			r = add_all(l, c, false, err);
		else if (str_eq(c->key, "builds"))
			builds = c;
		else
			r = conf_unknown(&inner, c->key, c, keys, ARRAY_SIZE(keys), err);
	}
	return r == 0 && builds ? add_all(l, builds, true, err) : r;
}

int project_load_file(const struct conf_file *f, const char *defaults, struct project *ret,
		      struct err *err)
{
	cleanup_project struct project p = {0};
	struct loading l = {f, defaults, &p};
	const char *slash = strrchr(f->name, '/');
	int r;

	p.path = strdup(f->name);
	p.dir = strdup(f->dir);
	p.config = strdup(slash ? slash + 1 : f->name);
	p.file = p.config ? str_fmt("%s/%s", str_eq(f->dir, "/") ? "" : f->dir, p.config) : NULL;
	if (!p.path || !p.dir || !p.config || !p.file)
		return no_memory(err);
	if (is_project(f)) {
		r = load_top(&l, err);
	} else {
		cleanup_free char *name = name_of_file(p.config);

		r = name ? add_sandbox(&l, f->root, name, f->root->at, false, err) : no_memory(err);
	}
	if (r == 0)
		r = check_names(&l, err);
	if (r == 0)
		r = project_order(&p, err);
	if (r < 0)
		return r;
	*ret = p;
	p = (struct project){0};
	return 0;
}

int project_load(const char *path, const char *defaults, struct project *ret, struct err *err)
{
	cleanup_conf_file struct conf_file f = {0};
	int r = conf_read_yaml(path, &f, err);

	return r < 0 ? r : project_load_file(&f, defaults, ret, err);
}
