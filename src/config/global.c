/* SPDX-License-Identifier: Apache-2.0 */
#include "config/global.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "config/load.h"

/* What others read from the file; they check what is in it. */
static const char *const others[] = {"registries", "images"};

/* Keys of the peer's file that mean nothing here. */
static const struct {
	const char *key, *why;
} refused[] = {
	{"home", "set MSB_HOME to where everything is kept"},
	{"log_level", "say --debug and the like, or sandbox_defaults.log_level"},
	{"paths", "MSB_LIBDIR and MSB_QEMU say where programs are"},
	{"database", "there is nothing to choose about it"},
	{"runtime", "there is nothing to choose about it yet"},
	{"deployment_profile", "there are no deployment profiles"},
	{"metrics", "there is nothing to choose about it yet"},
	{"ssh", "there is nothing to choose about it yet"},
	{"active_profile", "everything is done on this host"},
	{"profiles", "everything is done on this host"},
};

static const struct conf_scope defaults = {"sandbox_defaults", NULL, NULL, FIELD_ANYWHERE};

/* A default makes sense for one value; what is a list or a map is a sandbox's own. */
static bool may_default(const struct field *f)
{
	return f && f->opt && f->kind != FIELD_LIST && f->kind != FIELD_MAP && !f->load;
}

static int take_defaults(const struct conf_file *f, struct conf_node *map, struct model *m,
			 struct err *err)
{
	struct conf_file part = {f->name, f->dir, map};
	const bool creates = m->creates;
	int r;

	if (map->kind != CONF_MAP)
		return conf_error(err, f->name, map->at,
				  "sandbox_defaults: an object is expected, not %s",
				  conf_what(map));
	for (struct conf_node *c = map->first; c; c = c->next) {
		if (str_eq(c->key, "oci"))
			return conf_error(err, f->name, c->name,
					  "sandbox_defaults.oci: say sandbox_defaults.root_disk");
		/* The peer's name for it. */
		if (str_eq(c->key, "memory_mib") && !conf_get(map, "memory"))
			c->key[strlen("memory")] = '\0';
		if (field_by_key(c->key) && !may_default(field_by_key(c->key)))
			return conf_error(err, f->name, c->name,
					  "sandbox_defaults.%s: this has no default for all",
					  c->key);
	}
	r = conf_load_file(&defaults, &part, m, err);
	/* A sandbox that is there is none the worse for them. */
	m->creates = creates;
	return r;
}

int conf_load_global_file(const struct conf_file *f, struct model *m, struct err *err)
{
	static const char *const known[] = {"sandbox_defaults", "registries", "images"};
	int r = 0;

	if (f->root->kind != CONF_MAP)
		return conf_error(err, f->name, f->root->at, "an object is expected, not %s",
				  conf_what(f->root));
	for (struct conf_node *c = f->root->first; c && r == 0; c = c->next) {
		const char *like = str_suggest(c->key, known, ARRAY_SIZE(known));
		bool skip = false;

		for (size_t i = 0; i < ARRAY_SIZE(others); i++)
			skip |= str_eq(c->key, others[i]);
		for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
			if (str_eq(c->key, refused[i].key))
				return conf_error(err, f->name, c->name, "%s: %s", c->key,
						  refused[i].why);
		}
		if (str_eq(c->key, "sandbox_defaults")) {
			r = take_defaults(f, c, m, err);
		} else if (!skip) {
			conf_error(err, f->name, c->name, "there is no key \"%.100s\"", c->key);
			return like ? err_hint(err, "did you mean %s?", like)
				    : err_hint(err, "it may have sandbox_defaults, registries and "
						    "images");
		}
	}
	return r;
}

int conf_load_global(const char *path, struct model *m, struct err *err)
{
	cleanup_conf_file struct conf_file f = {0};
	int r;

	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = conf_read_json(path, &f, err);
	return r < 0 ? r : conf_load_global_file(&f, m, err);
}
