/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/spec_opts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/install.h"
#include "base/str.h"
#include "sandbox/sandbox.h"
#include "config/global.h"
#include "store/store.h"

/* More fields than this cannot be: spec_opts_init() would end the program in any test of it. */
enum { ROWS_MAX = 192 };

static int note_word(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct spec_args *a = target;
	struct spec_word *v = reallocarray(a->words, a->nwords + 1, sizeof(*v));

	if (!v)
		return err_set(err, ENOMEM, "out of memory");
	a->words = v;
	v[a->nwords++] = (struct spec_word){&fields[o->number], value};
	return 0;
}

static int note_file(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct spec_args *a = target;
	struct spec_file *v = reallocarray(a->files, a->nfiles + 1, sizeof(*v));

	if (!v)
		return err_set(err, ENOMEM, "out of memory");
	a->files = v;
	v[a->nfiles++] = (struct spec_file){&conf_scopes[o->number], value};
	return 0;
}

/* Defaults of the user's, files as they were named, and the command line on top. */
static int finish(void *target, struct err *err)
{
	struct spec_args *a = target;
	cleanup_free char *home = store_default_home(err);
	cleanup_free char *global = home ? install_config(home, err) : NULL;
	int r;

	if (!global)
		return -ERR_USAGE;
	r = conf_load_global(global, &a->model, err);
	for (size_t i = 0; i < a->nfiles && r == 0; i++)
		r = conf_load(a->files[i].scope, a->files[i].path, &a->model, err);
	for (size_t i = 0; i < a->nwords && r == 0; i++)
		r = field_set(a->words[i].field, &a->model, a->words[i].value, SAID_BY_HAND, err);
	return r;
}

/* "0", "500ms", "5s", "2m": how long the old one gets. */
static int set_replace(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct spec_args *a = target;
	uint64_t ns;
	int r = str_to_duration(value, "timeout", &ns, err);

	(void)o;
	if (r < 0)
		return r;
	a->replace = true;
	a->replace_ms = (int)MIN(ns / 1000000, (uint64_t)INT32_MAX);
	return 0;
}

int spec_args_say(struct spec_args *a, const char *key, const char *word, struct err *err)
{
	const struct opt o = {.number = (int)(field_by_key(key) - fields)};

	return note_word(&o, a, word, err);
}

static int set_no_net(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)o, (void)value;
	return spec_args_say(target, "network.profiles", "none", err);
}

static int set_no_rebind(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)o, (void)value;
	return spec_args_say(target, "network.dns.rebind_protection", "off", err);
}

static int set_strict(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)o, (void)value;
	return spec_args_say(target, "network.strict", "on", err);
}

/* Headings. */
#define COMMANDS "Commands in the sandbox"
#define RESOURCE "Resources"
#define ROOT	 "Files of the root"
#define NETWORK	 "Network"
#define SANDBOX	 "The sandbox and its machine"
#define IN_FILES "All of this from files"

static const char *group_of(const struct field *f)
{
	switch (f->scope) {
	case FIELD_RUNTIME:
		return COMMANDS;
	case FIELD_RESOURCE:
		return RESOURCE;
	case FIELD_FS:
		return ROOT;
	case FIELD_NET:
		return NETWORK;
	default:
		break;
	}
	/* Entries of patches and scripts. */
	if (f->kind == FIELD_MAP || (f->kind == FIELD_LIST && !f->key))
		return ROOT;
	return f->kind == FIELD_LIST ? NETWORK : SANDBOX;
}

static const struct opt own[] = {
	{0, "replace", NULL, "Stop and remove a sandbox of that name first", opt_set_flag,
	 offsetof(struct spec_args, replace), .group = SANDBOX},
	{0, "replace-with-timeout", "DURATION",
	 "The same, with this long for it to stop before force is used", set_replace, 0, 0, "10s",
	 .group = SANDBOX},
	{0, "no-net", NULL, "The same as --net none", set_no_net, .group = NETWORK},
	{0, "no-dns-rebind-protection", NULL, "The same as --dns-rebind-protection off",
	 set_no_rebind, .group = NETWORK},
	{0, "net-strict", NULL,
	 "What a rule allows by name has to say that name: in TLS, or as the host of HTTP",
	 set_strict, .group = NETWORK},
	{'q', "quiet", NULL, "Show no warnings", opt_set_flag, offsetof(struct spec_args, quiet),
	 .group = SANDBOX},
};

static struct opt rows[ROWS_MAX];
struct opt_set spec_opts = {rows, 0, finish};

void spec_opts_init(void)
{
	size_t n = 0;

	if (nfields + nconf_scopes + ARRAY_SIZE(own) > ROWS_MAX)
		abort();
	for (size_t i = 0; i < nfields; i++) {
		const struct field *f = &fields[i];

		if (f->opt)
			rows[n++] = (struct opt){f->letter, f->opt, f->arg, f->help,	note_word,
						 0,	    (int)i, f->def, group_of(f)};
	}
	for (size_t i = 0; i < nconf_scopes; i++)
		rows[n++] = (struct opt){0,	    conf_scopes[i].opt,
					 "FILE",    conf_scopes[i].help,
					 note_file, 0,
					 (int)i,    NULL,
					 IN_FILES};
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		rows[n++] = own[i];
	spec_opts.n = n;
}

int spec_args_operands(struct spec_args *a, struct opt_words *words, struct err *err)
{
	if (words->n) {
		int r = field_set(field_by_key("image"), &a->model, words->words[0], "command line",
				  err);

		if (r < 0)
			return r;
	} else if (a->model.image) {
		words->words[words->n++] = a->model.image;
	} else {
		err_set(err, ERR_USAGE, "which image?");
		return err_hint(err, "name one, as in debian, ./rootfs or ./disk.qcow2, or a file "
				     "that does with --conf; `msb image ls` lists those here");
	}
	if (!words->nrest && a->model.cmd.n) {
		words->rest = (const char *const *)a->model.cmd.v;
		words->nrest = a->model.cmd.n;
	}
	return 0;
}

void spec_args_init(struct spec_args *a)
{
	*a = (struct spec_args){.replace_ms = SANDBOX_STOP_TIMEOUT_MS};
	model_init(&a->model);
}

void spec_args_done(struct spec_args *a)
{
	model_done(&a->model);
	free(a->words);
	free(a->files);
	*a = (struct spec_args){0};
}

int spec_args_level(struct spec_args *a, const struct cli *cli, struct err *err)
{
	struct sandbox_spec *spec = &a->model.spec;

	if (spec->log_level || cli->level == LOG_OFF)
		return 0;
	spec->log_level = strdup(log_level_name(cli->level));
	return spec->log_level ? 0 : err_set(err, ENOMEM, "out of memory");
}
