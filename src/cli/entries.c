/* SPDX-License-Identifier: Apache-2.0 */
/* msb init, add, clean, and `remove --file`: a project's file, and what the project keeps. */
#include "cli/entries.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "cli/attach.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "cli/spec_opts.h"
#include "project/edit.h"
#include "project/life.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "store/store.h"

#define GITIGNORE_MAX ((size_t)1 << 20)

static const char fresh[] =
	"# The sandboxes of this project: `msb up` starts them, `msb down` stops them.\n"
	"# `msb add NAME --image IMAGE` adds one; `msb schema sandboxfile` has all that can be "
	"said.\n"
	"\n"
	"sandboxes:\n";

/* ---- init ---- */

struct init_args {
	const char *file;
};

static const struct opt init_opts[] = {
	{'f', "file", "FILE|DIR", "Where to make it [here]", opt_set_text,
	 offsetof(struct init_args, file), 0},
};

int entries_ensure_file(const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) == 0)
		return 0;
	if (errno != ENOENT)
		return err_errno(err, "cannot look at %s", path);
	return io_write_file_atomic(path, fresh, sizeof(fresh) - 1, 0644, err) < 0 ? -err->code : 1;
}

/* 1: it was not in it yet. */
static int ignore_home(const char *dir, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/.gitignore", dir);
	cleanup_buf struct buf b = BUF_INIT;
	const char *at, *end;
	int r = path ? io_read_file(path, GITIGNORE_MAX, &b, err) : -ENOMEM;

	if (r < 0 && r != -ENOENT)
		return r;
	err_clear(err);
	at = (const char *)buf_ptr(&b);
	end = at + buf_size(&b);
	while (at < end) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));
		size_t n = (size_t)((nl ? nl : end) - at);

		while (n && (at[n - 1] == ' ' || at[n - 1] == '\r' || at[n - 1] == '/'))
			n--;
		while (n && *at == '/')
			at++, n--;
		if (n == strlen(PROJECT_HOME) && memcmp(at, PROJECT_HOME, n) == 0)
			return 0;
		at = nl ? nl + 1 : end;
	}
	if (buf_size(&b) && buf_ptr(&b)[buf_size(&b) - 1] != '\n')
		buf_add_u8(&b, '\n');
	buf_add_str(&b, PROJECT_HOME "/\n");
	if (buf_failed(&b))
		return err_set(err, ENOMEM, "out of memory");
	r = io_write_file_atomic(path, buf_ptr(&b), buf_size(&b), 0644, err);
	return r < 0 ? r : 1;
}

/* The directory and the name of a file that need not be there. */
static int place(const char *word, char **dir, char **config, struct err *err)
{
	cleanup_free char *copy = strdup(word ? word : ".");
	struct stat st;
	char *slash;

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	*config = NULL;
	if (stat(copy, &st) == 0 && S_ISDIR(st.st_mode)) {
		*dir = realpath(copy, NULL);
		*config = strdup(PROJECT_FILE);
	} else {
		slash = strrchr(copy, '/');
		*config = strdup(slash ? slash + 1 : copy);
		if (slash)
			slash[slash == copy] = '\0';
		*dir = realpath(slash ? copy : ".", NULL);
	}
	if (!*dir || !*config || !**config) {
		err_set(err, ERR_NOT_FOUND, "there is no directory for %s", word ? word : ".");
		free(*dir);
		free(*config);
		*dir = *config = NULL;
		return -ERR_NOT_FOUND;
	}
	return 0;
}

static int init(struct cli *cli, int argc, char **argv)
{
	struct init_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_free char *dir = NULL;
	cleanup_free char *config = NULL;
	cleanup_free char *path = NULL;
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	r = place(a.file, &dir, &config, &err);
	path = r == 0 ? str_fmt("%s/%s", dir, config) : NULL;
	if (r == 0)
		r = path ? entries_ensure_file(path, &err) : err_set(&err, ENOMEM, "out of memory");
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	printf(r ? "made %s\n" : "%s is there already\n", path);
	r = ignore_home(dir, &err);
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	if (r)
		printf("added " PROJECT_HOME "/ to %s/.gitignore\n", dir);
	return cli_finish();
}

/* ---- add ---- */

struct add_args {
	struct spec_args with; /* first: spec_opts sets it */
	const char *file, *image, *start;
	struct project_extra extra;
};

static int refuse(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)target, (void)value;
	err_set(err, ERR_UNSUPPORTED, "--%s needs volumes, which are not there yet", o->name);
	return err_hint(err, "\"patches\" in the file can copy files into the root");
}

#define ADD(field) offsetof(struct add_args, field)

static const struct opt add_opts[] = {
	{'i', "image", "IMAGE|PATH", "Image, directory or disk that the root is made of",
	 opt_set_text, ADD(image), 0},
	PROJECT_FILE_OPT('f', ADD(file)),
	{0, "depends-on", "ENTRY", "Another that has to be ready before (repeatable)", opt_add_text,
	 ADD(extra.depends), 0},
	{0, "env-file", "FILE", "File with lines of KEY=VALUE (repeatable)", opt_add_text,
	 ADD(extra.env_files), 0},
	{0, "start", "COMMAND", "What it runs, as a script of its shell", opt_set_text, ADD(start),
	 0},
	{0, "scope", "none|public|any", "What the guest may reach", opt_set_text, ADD(extra.scope),
	 0},
	{'v', "volume", "HOST:GUEST", "Not there yet", refuse, 0, 0},
	{0, "import", "NAME=PATH", "Not there yet", refuse, 0, 0},
	{0, "export", "NAME=PATH", "Not there yet", refuse, 0, 0},
};

int entries_render(struct model *m, const char *image, const char *start,
		   const struct project_extra *extra, struct buf *out, struct err *err)
{
	cleanup_free char *script = start ? str_fmt("start=%s", start) : NULL;
	int r = field_set(field_by_key("image"), m, image, "command line", err);

	if (r == 0 && start)
		r = script ? field_set(field_by_key("scripts"), m, script, "command line", err)
			   : err_set(err, ENOMEM, "out of memory");
	return r < 0 ? r : project_render(m, extra, out, err);
}

static int add(struct cli *cli, int argc, char **argv)
{
	struct add_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_buf struct buf lines = BUF_INIT;
	cleanup_free char *path = NULL;
	struct err err = ERR_INIT;
	int code = 0, r = 0;

	spec_args_init(&a.with);
	if (cli_parse_operands(cli, &a, argc, argv, 1, SIZE_MAX, &words, &code))
		goto out;
	if (!a.image) {
		r = err_set(&err, ERR_USAGE, "which image?");
		err_hint(&err, "msb add %s --image IMAGE", words.words[0]);
	}
	if (r == 0)
		r = project_find(a.file, &path, &err);
	if (r == 0)
		r = entries_render(&a.with.model, a.image, a.start, &a.extra, &lines, &err);
	if (r == 0)
		r = project_edit_add(path, words.words, words.n, (const char *)buf_ptr(&lines),
				     &err);
	for (size_t i = 0; i < words.n && r == 0 && !a.with.quiet; i++)
		puts(words.words[i]);
	code = r < 0 ? cli_fail(&err, r == -ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE) : cli_finish();
out:
	strv_done(&a.extra.depends);
	strv_done(&a.extra.env_files);
	spec_args_done(&a.with);
	return code;
}

int entries_remove(const char *file, const char *const *names, size_t n, bool quiet)
{
	cleanup_free char *path = NULL;
	struct err err = ERR_INIT;
	int r = project_find(file, &path, &err);

	if (r == 0)
		r = project_edit_remove(path, names, n, &err);
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	for (size_t i = 0; i < n && !quiet; i++)
		puts(names[i]);
	return cli_finish();
}

/* ---- clean ---- */

struct clean_args {
	const char *file;
	bool user, all, force, quiet;
};

#define CLEAN(field) offsetof(struct clean_args, field)

static const struct opt clean_opts[] = {
	{'f', "file", "FILE|DIR", "The project's file [Sandboxfile here]", opt_set_text,
	 CLEAN(file), 0},
	{'u', "user", NULL, "What installed commands keep, instead", opt_set_flag, CLEAN(user), 0},
	{'a', "all", NULL, "Both", opt_set_flag, CLEAN(all), 0},
	{0, "force", NULL, "Even if the project's file is there; stop what runs", opt_set_flag,
	 CLEAN(force), 0},
	{'q', "quiet", NULL, "Do not print names", opt_set_flag, CLEAN(quiet), 0},
};

/* One sandbox and its disk. */
static int clean_one(struct store *s, const struct project_home *h, const char *name, bool force,
		     struct err *err)
{
	cleanup_free char *full = project_sandbox_name(h, name);
	cleanup_project_disk struct project_disk disk = {0};
	int there, r = full ? sandbox_name_check(full, err) : -ENOMEM;

	if (r < 0)
		return r;
	there = project_disk_read(h, name, &disk, NULL);
	r = sandbox_remove(s, full, force, err);
	if (r == -EBUSY)
		err_hint(err, "`msb down %s` stops it, --force does so at once", name);
	if (r == -ERR_NOT_FOUND && there != -ERR_NOT_FOUND)
		r = 0;
	if (r == -ERR_NOT_FOUND)
		return err_set(err, r, "there is nothing of a sandbox \"%.100s\" here", name);
	if (r < 0)
		return r;
	err_clear(err);
	return project_disk_remove(h, name, err);
}

static int add_once(struct strv *l, const char *name)
{
	return strv_has(l, name) ? 0 : strv_add(l, name);
}

static int clean_all(struct store *s, struct project_home *h, bool force, bool quiet,
		     struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	cleanup_strv struct strv names = {0};
	int r = project_all(s, h, &l, err);

	if (r == 0)
		r = project_disks(h, &names, err);
	for (size_t i = 0; i < l.count && r == 0; i++)
		r = add_once(&names, project_label(&l.items[i], PROJECT_LABEL_SANDBOX));
	for (size_t i = 0; i < names.n && r == 0; i++) {
		r = clean_one(s, h, names.v[i], force, err);
		if (r == 0 && !quiet)
			puts(names.v[i]);
	}
	return r < 0 ? r : project_home_remove(h, err);
}

static int clean_at(struct store *s, const char *dir, const char *config,
		    const struct clean_args *a, const struct opt_words *words, struct err *err)
{
	cleanup_project_home struct project_home h = PROJECT_HOME_INIT;
	cleanup_free char *path = str_fmt("%s/%s", dir, config);
	int r = path ? project_home_open(dir, config, false, &h, err) : -ENOMEM;

	if (r == -ERR_NOT_FOUND && !words->n) {
		err_clear(err);
		return 0;
	}
	if (r == 0 && !words->n && !a->force && access(path, F_OK) == 0) {
		err_set(err, EEXIST, "this deletes all that was written in the sandboxes of %s",
			path);
		return err_hint(err, "if that is what you want: msb clean --force");
	}
	if (r == 0)
		r = project_home_lock(&h, err);
	if (r == 0 && !words->n)
		return clean_all(s, &h, a->force, a->quiet, err);
	for (size_t i = 0; i < words->n && r == 0; i++) {
		r = clean_one(s, &h, words->words[i], a->force, err);
		if (r == 0 && !a->quiet)
			puts(words->words[i]);
	}
	return r;
}

static int clean(struct cli *cli, int argc, char **argv)
{
	struct clean_args a = {0};
	cleanup_words struct opt_words words = {0}, none = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free char *dir = NULL;
	cleanup_free char *config = NULL;
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 0, SIZE_MAX, &words, &code))
		return code;
	r = store_open(&store, NULL, &err);
	if (r == 0)
		sandbox_dir_heal(store, true);
	if (r == 0 && (!a.user || a.all)) {
		r = place(a.file, &dir, &config, &err);
		if (r == 0)
			r = clean_at(store, dir, config, &a, &words, &err);
	}
	if (r == 0 && (a.user || a.all)) {
		cleanup_free char *installs = str_fmt("%s/" ENTRIES_INSTALLS, store_home(store));

		r = installs ? clean_at(store, installs, PROJECT_FILE, &a, a.user ? &words : &none,
					&err)
			     : err_set(&err, ENOMEM, "out of memory");
	}
	return r < 0 ? cli_fail(&err, EXIT_FAILURE) : cli_finish();
}

const struct verb verb_init = {
	.name = "init",
	.group = "Projects",
	.args = "[OPTIONS]",
	.summary = "Begin a project: make its Sandboxfile",
	.examples = "msb init\n"
		    "msb init --file ci.yaml",
	.opts = init_opts,
	.nopts = ARRAY_SIZE(init_opts),
	.run = init,
};

const struct verb verb_add = {
	.name = "add",
	.group = "Projects",
	.args = "[OPTIONS] ENTRY… --image IMAGE",
	.summary = "Add sandboxes to a project's file",
	.details = "All else in the file stays as it is. `msb remove --file FILE ENTRY` takes one "
		   "out again.",
	.examples = "msb add db --image postgres:16 -p 5432:5432\n"
		    "msb add web --image python:3.12 --depends-on db --start 'exec ./serve'",
	.opts = add_opts,
	.nopts = ARRAY_SIZE(add_opts),
	.shared = &spec_opts,
	.run = add,
};

const struct verb verb_clean = {
	.name = "clean",
	.group = "Projects",
	.args = "[OPTIONS] [ENTRY…]",
	.summary = "Delete what was written in a project's sandboxes",
	.details = "All of them, which needs --force while the project's file is there, or those "
		   "named.",
	.examples = "msb clean web\n"
		    "msb clean --force  # all of them",
	.opts = clean_opts,
	.nopts = ARRAY_SIZE(clean_opts),
	.run = clean,
};
