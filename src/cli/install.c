/* SPDX-License-Identifier: Apache-2.0 */
/* msb install, uninstall: a sandbox as a command of the user's, in ~/.local/bin. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "cli/attach.h"
#include "cli/cli.h"
#include "cli/entries.h"
#include "cli/project.h"
#include "cli/spec_opts.h"
#include "project/edit.h"
#include "sandbox/sandbox.h"
#include "sandbox/source.h"
#include "store/store.h"

#define MARKER	    "# MSB-ALIAS: "
#define ALIAS_MAX   ((size_t)64 << 10)
#define LOCK_MS	    50
#define BIN_IN_HOME "/.local/bin"

struct install_args {
	struct spec_args with; /* first: spec_opts sets it */
	const char *sandbox, *file, *exec, *scope;
	bool image;
};

#define ARGS(field) offsetof(struct install_args, field)

static const struct opt install_opts[] = {
	{'s', "sandbox", "ENTRY[~SCRIPT]", "A sandbox of a project, as its file describes it",
	 opt_set_text, ARGS(sandbox), 0},
	PROJECT_FILE_OPT('f', ARGS(file)),
	{'i', "image", NULL, "IMAGE is an image: it always is", opt_set_flag, ARGS(image), 0},
	{'x', "exec", "COMMAND", "What it runs, as a script of its shell", opt_set_text, ARGS(exec),
	 0},
	{0, "scope", "none|public|any", "What the guest may reach", opt_set_text, ARGS(scope), 0},
};

static char *bin_path(const char *alias)
{
	const char *home = getenv("HOME");

	return home && *home ? str_fmt("%s" BIN_IN_HOME "/%s", home, alias) : NULL;
}

/* Is there a command of that name already? */
static int check_path(const char *alias, const char *own, struct err *err)
{
	cleanup_free char *dirs = strdup(getenv("PATH") ? getenv("PATH") : "");
	char *save = NULL;
	struct stat st;

	if (!dirs)
		return err_set(err, ENOMEM, "out of memory");
	if (lstat(own, &st) == 0) {
		err_set(err, EEXIST, "%s is there already", own);
		return err_hint(err, "`msb uninstall %s` removes it, if msb made it", alias);
	}
	for (char *d = strtok_r(dirs, ":", &save); d; d = strtok_r(NULL, ":", &save)) {
		cleanup_free char *path = str_fmt("%s/%s", d, alias);

		if (path && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
		    access(path, X_OK) == 0) {
			err_set(err, EEXIST, "there is a command \"%s\" already: %s", alias, path);
			return err_hint(err, "choose another name: msb install … IMAGE NAME");
		}
	}
	return 0;
}

/* A name for a command, and for an entry. */
static int check_alias(const char *alias, struct err *err)
{
	return sandbox_name_check(alias, err) < 0
		       ? err_wrap(err, "this cannot be the name of a command")
		       : 0;
}

/* 'text' for a shell. */
static void put_quoted(struct buf *b, const char *text)
{
	buf_add_u8(b, '\'');
	for (; *text; text++) {
		if (*text == '\'')
			buf_add_str(b, "'\\''");
		else
			buf_add_u8(b, (uint8_t)*text);
	}
	buf_add_u8(b, '\'');
}

static int write_alias(const char *path, const char *alias, const char *file, const char *entry,
		       struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_free char *dir = strdup(path);
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const char *home = getenv("MSB_HOME");
	int r;

	if (n < 0)
		return err_errno(err, "cannot find the running program in /proc");
	if (!dir)
		return err_set(err, ENOMEM, "out of memory");
	exe[n] = '\0';
	*strrchr(dir, '/') = '\0';
	buf_addf(&b, "#!/bin/sh\n" MARKER "%s\n# `msb uninstall %s` removes it.\n", alias, alias);
	if (home && *home) {
		buf_add_str(&b, "export MSB_HOME=");
		put_quoted(&b, home);
		buf_add_u8(&b, '\n');
	}
	buf_add_str(&b, "exec ");
	put_quoted(&b, exe);
	buf_add_str(&b, " run --quiet --file ");
	put_quoted(&b, file);
	buf_add_str(&b, " --sandbox ");
	put_quoted(&b, entry);
	buf_add_str(&b, " -- \"$@\"\n");
	if (buf_failed(&b))
		return err_set(err, ENOMEM, "out of memory");
	r = io_mkdir_p(dir, 0755, err);
	return r < 0 ? r : io_write_file_atomic(path, buf_ptr(&b), buf_size(&b), 0755, err);
}

/* The last word of what an image is called: python of ghcr.io/x/python:3.12. */
static char *name_of_image(const char *image)
{
	const char *slash = strrchr(image, '/'), *base = slash ? slash + 1 : image;

	return strndup(base, strcspn(base, ":@"));
}

static int open_installs(struct project_home *h, char **file, struct err *err)
{
	cleanup_free char *home = store_default_home(err);
	cleanup_free char *dir = home ? str_fmt("%s/" ENTRIES_INSTALLS, home) : NULL;
	int r;

	if (!dir)
		return home ? err_set(err, ENOMEM, "out of memory") : -ERR_USAGE;
	r = io_mkdir_p(dir, 0700, err);
	if (r < 0)
		return r;
	*file = str_fmt("%s/" PROJECT_FILE, dir);
	r = *file ? entries_ensure_file(*file, err) : err_set(err, ENOMEM, "out of memory");
	if (r >= 0)
		r = project_home_open(dir, PROJECT_FILE, true, h, err);
	return r < 0 ? r : project_home_lock(h, err);
}

static int install_image(struct install_args *a, const char *word, const char *asked, char **ret,
			 struct err *err)
{
	cleanup_project_home struct project_home h = PROJECT_HOME_INIT;
	const char *tilde = sandbox_source_is_path(word) ? NULL : strchr(word, '~');
	cleanup_free char *image = tilde ? strndup(word, (size_t)(tilde - word)) : strdup(word);
	cleanup_free char *alias = asked   ? strdup(asked)
				   : tilde ? strdup(tilde + 1)
				   : image ? name_of_image(image)
					   : NULL;
	const struct project_extra extra = {.scope = a->scope};
	cleanup_free char *file = NULL;
	cleanup_free char *path = alias ? bin_path(alias) : NULL;
	cleanup_free char *entry = NULL;
	cleanup_buf struct buf lines = BUF_INIT;
	cleanup_store struct store *store = NULL;
	int r;

	if (!alias || !image)
		return err_set(err, ENOMEM, "out of memory");
	r = check_alias(alias, err);
	if (r == 0 && !path)
		r = err_set(err, ERR_USAGE, "HOME is not set");
	if (r == 0)
		r = check_path(alias, path, err);
	/* A path means the same from anywhere. */
	if (r == 0 && sandbox_source_is_path(image)) {
		cleanup_source_text struct sandbox_source src = {0};

		r = sandbox_source_parse(image, &src, err);
		if (r == 0) {
			free(image);
			image = take_ptr(src.text);
		}
	}
	if (r == 0)
		r = entries_render(&a->with.model, image, a->exec, &extra, &lines, err);
	entry = tilde ? str_fmt("%s~%s", alias, tilde + 1) : strdup(alias);
	if (r == 0 && !entry)
		r = err_set(err, ENOMEM, "out of memory");
	/* Nothing is written into a store of another version. */
	if (r == 0)
		r = store_open(&store, NULL, err);
	if (r == 0)
		r = open_installs(&h, &file, err);
	if (r == 0)
		r = project_edit_add(file, (const char *const *)&alias, 1,
				     (const char *)buf_ptr(&lines), err);
	if (r == 0) {
		r = write_alias(path, alias, file, entry, err);
		if (r < 0)
			(void)project_edit_remove(file, (const char *const *)&alias, 1, NULL);
	}
	if (r == 0)
		*ret = take_ptr(path);
	return r;
}

static int install_entry(const struct install_args *a, const char *asked, char **ret,
			 struct err *err)
{
	cleanup_project_at struct project_at at = PROJECT_AT_INIT;
	cleanup_free char *name = strndup(a->sandbox, strcspn(a->sandbox, "~"));
	const char *tilde = strchr(a->sandbox, '~');
	const char *alias = asked ? asked : tilde ? tilde + 1 : name;
	cleanup_free char *path = alias ? bin_path(alias) : NULL;
	struct project_sandbox *e;
	int r = alias ? check_alias(alias, err) : err_set(err, ENOMEM, "out of memory");

	if (r == 0 && (a->with.nwords || a->with.nfiles || a->exec || a->scope))
		r = err_set(err, ERR_USAGE, "what a project's sandbox is says the project's file");
	if (r == 0 && !path)
		r = err_set(err, ERR_USAGE, "HOME is not set");
	if (r == 0)
		r = cli_project_open(a->file, PROJECT_READ, &at, err);
	if (r == 0)
		r = project_want(&at.p, name, &e, err);
	if (r == 0 && tilde && !str_eq(tilde + 1, "shell") && !project_has_script(e, tilde + 1))
		r = err_set(err, ERR_NOT_FOUND, "sandbox \"%s\" has no script \"%s\"", name,
			    tilde + 1);
	if (r == 0)
		r = check_path(alias, path, err);
	if (r == 0)
		r = write_alias(path, alias, at.p.file, a->sandbox, err);
	if (r == 0)
		*ret = take_ptr(path);
	return r;
}

static int install(struct cli *cli, int argc, char **argv)
{
	struct install_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_free char *path = NULL;
	struct err err = ERR_INIT;
	int code, r;

	spec_args_init(&a.with);
	if (cli_parse_operands(cli, &a, argc, argv, 0, 2, &words, &code)) {
		spec_args_done(&a.with);
		return code;
	}
	if (words.n > (a.sandbox ? 1 : 2))
		r = err_set(&err, ERR_USAGE, "\"%s\" is too much", words.words[words.n - 1]);
	else if (a.sandbox)
		r = install_entry(&a, words.n ? words.words[0] : NULL, &path, &err);
	else if (!words.n)
		r = err_set(&err, ERR_USAGE, "which image?");
	else
		r = install_image(&a, words.words[0], words.n > 1 ? words.words[1] : NULL, &path,
				  &err);
	spec_args_done(&a.with);
	if (r < 0)
		return cli_fail(&err, r == -ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE);
	puts(path);
	return cli_finish();
}

/* ---- uninstall ---- */

struct uninstall_args {
	bool quiet;
};

static const struct opt uninstall_opts[] = {
	{'q', "quiet", NULL, "Do not print its path", opt_set_flag,
	 offsetof(struct uninstall_args, quiet), 0},
};

static int check_marker(const char *path, const char *alias, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_free char *line = str_fmt("\n" MARKER "%s\n", alias);
	int r = line ? io_read_file(path, ALIAS_MAX, &b, err) : -ENOMEM;

	if (r == -ENOENT)
		return err_set(err, ERR_NOT_FOUND, "there is no %s", path);
	if (r >= 0 && !memmem(buf_ptr(&b), buf_size(&b), line, strlen(line)))
		return err_set(err, ERR_USAGE, "%s was not made by msb", path);
	return MIN(r, 0);
}

/* Its entry, sandbox and disk, if they are those of an image that was installed. */
static int drop_entry(const char *alias, struct err *err)
{
	cleanup_project_home struct project_home h = PROJECT_HOME_INIT;
	cleanup_store struct store *store = NULL;
	cleanup_free char *file = NULL;
	cleanup_free char *name = NULL;
	int r = store_open(&store, NULL, err);

	if (r == 0)
		r = open_installs(&h, &file, err);
	name = r == 0 ? project_sandbox_name(&h, alias) : NULL;
	if (r == 0 && !name)
		r = err_set(err, ENOMEM, "out of memory");
	/* A project's sandbox stays the project's: that has another name. */
	if (r == 0)
		r = sandbox_remove(store, name, true, err);
	if (r == 0 || r == -ERR_NOT_FOUND)
		r = project_disk_remove(&h, alias, err);
	/* Last, so that what could not be done is found again. */
	if (r == 0)
		r = project_edit_remove(file, &alias, 1, err);
	if (r == -ERR_NOT_FOUND) {
		err_clear(err);
		r = 0;
	}
	return r;
}

static int uninstall(struct cli *cli, int argc, char **argv)
{
	struct uninstall_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_free char *path = NULL;
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code))
		return code;
	r = check_alias(words.words[0], &err);
	path = r == 0 ? bin_path(words.words[0]) : NULL;
	if (r == 0 && !path)
		r = err_set(&err, ERR_USAGE, "HOME is not set");
	if (r == 0)
		r = check_marker(path, words.words[0], &err);
	if (r == 0)
		r = drop_entry(words.words[0], &err);
	if (r == 0 && unlink(path) < 0)
		r = err_errno(&err, "cannot remove %s", path);
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	if (!a.quiet)
		puts(path);
	return cli_finish();
}

const struct verb verb_install = {
	.name = "install",
	.group = "Projects",
	.args = "[OPTIONS] IMAGE[~SCRIPT] [COMMAND]",
	.summary = "Make a command of the user's that runs in a sandbox",
	.details = "The command goes to ~/.local/bin, under the image's name unless told "
		   "otherwise; with\n"
		   "--sandbox it runs a project's sandbox: msb install --sandbox ENTRY [COMMAND]. "
		   "What it\n"
		   "writes in its sandbox stays. `msb uninstall` removes both.",
	.examples = "msb install alpine\n"
		    "msb install --sandbox web~test webtest",
	.opts = install_opts,
	.nopts = ARRAY_SIZE(install_opts),
	.shared = &spec_opts,
	.run = install,
};

const struct verb verb_uninstall = {
	.name = "uninstall",
	.group = "Projects",
	.args = "[OPTIONS] COMMAND",
	.summary = "Remove a command that `msb install` made, and its sandbox",
	.examples = "msb uninstall alpine",
	.opts = uninstall_opts,
	.nopts = ARRAY_SIZE(uninstall_opts),
	.run = uninstall,
};
