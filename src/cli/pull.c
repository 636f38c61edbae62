/* SPDX-License-Identifier: Apache-2.0 */
/* msb pull: images from registries. */
#include "cli/pull.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/pull_view.h"
#include "image/reference.h"
#include "sandbox/artifacts.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/source.h"
#include "store/store.h"

int cli_pull(struct store *s, const char *ref, const struct pull_args *a, struct image_info *ret,
	     struct err *err)
{
	cleanup_free struct pull_view *view = calloc(1, sizeof(*view));
	cleanup_free char *program = NULL;
	struct image_pull_options o = {
		.platform = a->platform,
		.insecure = a->insecure,
		.force = a->force,
		.ca_files = a->ca_files.n ? (const char *const *)a->ca_files.v : NULL,
		.username = a->username,
		.password = a->password,
		.progress = pull_view_show,
		.progress_arg = view,
	};
	int r = artifact_find(ARTIFACT_FETCH, &program, err);

	if (r < 0)
		return r;
	if (!view)
		return err_set(err, ENOMEM, "out of memory");
	o.program = program;
	view->f = a->json ? stdout : stderr;
	view->mode = a->json		  ? VIEW_JSON
		     : a->quiet		  ? VIEW_NONE
		     : cli_screen(stderr) ? VIEW_BARS
					  : VIEW_LINES;
	r = image_pull(s, ref, &o, ret, err);
	pull_view_end(view);
	return r;
}

static bool is_kept(struct store *s, const char *name)
{
	cleanup_sandbox_list struct sandbox_list l = {0};

	return name && sandbox_dir_list(s, name, &l, NULL) >= 0 && l.count;
}

/* The login of a sandbox's own: a name, and where the password is. */
static int own_login(const struct model *m, struct pull_args *a, struct err *err)
{
	const char *variable = m->registry_password_env;

	if (!m->registry_username && !variable)
		return 0;
	if (!m->registry_username || !variable) {
		err_set(err, ERR_USAGE, "a login has a name and a password, and the %s is missing",
			variable ? "name" : "password");
		return err_hint(err, "say registry.username and registry.password_env, or neither");
	}
	a->username = m->registry_username;
	a->password = getenv(variable);
	if (a->password)
		return 0;
	err_set(err, ERR_USAGE, "the environment variable %s is not set here", variable);
	return err_hint(err, "it is to hold the password of %s", m->registry_username);
}

int cli_pull_for_run(struct store *s, const char *image, const char *name, const struct model *m,
		     bool quiet, struct err *err)
{
	cleanup_image_info struct image_info info = IMAGE_INFO_INIT;
	struct pull_args a = {.quiet = quiet};
	const enum pull_policy policy = m->pull;
	struct reference ref;
	int r;

	if (policy == PULL_NEVER || reference_parse(image, &ref, NULL) < 0)
		return 0;
	/* The name of a disk here: whoever forgot the "./" is told so, and no registry is asked. */
	if (sandbox_source_format(image) && access(image, F_OK) == 0)
		return 0;
	/* Not ours to judge here: whatever is wrong with it comes out when it is used. */
	if (policy == PULL_MISSING && image_find(s, image, &info, NULL) != -ERR_NOT_FOUND)
		return 0;
	if (is_kept(s, name))
		return 0;
	r = own_login(m, &a, err);
	return r < 0 ? r : cli_pull(s, image, &a, &info, err);
}

const struct opt pull_opts[PULL_OPTS] = {
	{0, "platform", "OS/ARCH", "Of a platform other than this machine's, as in linux/arm64",
	 opt_set_text, offsetof(struct pull_args, platform), 0},
	{0, "force", NULL, "Fetch and convert all of it again, and verify it", opt_set_flag,
	 offsetof(struct pull_args, force), 0},
	{0, "insecure", NULL, "Ask the registry by plain HTTP", opt_set_flag,
	 offsetof(struct pull_args, insecure), 0},
	{0, "ca-certs", "PATH", "Trust these certificates as well (repeatable)", opt_add_text,
	 offsetof(struct pull_args, ca_files), 0},
	{0, "format", "json|table", "json: one event a line on stdout", opt_set_format,
	 offsetof(struct pull_args, json), 0},
	{'q', "quiet", NULL, "Show no progress", opt_set_flag, offsetof(struct pull_args, quiet),
	 0},
};

static int print_done(const struct pull_args *a, const char *ref, const struct image_info *i,
		      struct err *err)
{
	char full[IMAGE_REFERENCE_MAX];
	json_t *j;
	int r = reference_normalise(ref, full, err);

	if (r < 0)
		return r;
	if (!a->json) {
		puts(full);
		return 0;
	}
	j = json_pack("{s:s,s:s,s:s,s:s,s:I}", "event", "done", "reference", full, "id", i->id,
		      "digest", i->manifest_digest, "size_bytes", (json_int_t)i->size);
	if (!j || json_dumpf(j, stdout, JSON_COMPACT) < 0)
		r = err_set(err, EIO, "cannot print JSON");
	json_decref(j);
	putchar('\n');
	return r;
}

static int pull_into(const struct pull_args *a, const char *ref, struct err *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_image_info struct image_info info = IMAGE_INFO_INIT;
	int r = store_open(&store, NULL, err);

	if (r >= 0)
		r = cli_pull(store, ref, a, &info, err);
	return r < 0 ? r : print_done(a, ref, &info, err);
}

int pull_run(struct cli *cli, int argc, char **argv)
{
	struct pull_args a = {0};
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code)) {
		strv_done(&a.ca_files);
		return code;
	}
	r = pull_into(&a, words.words[0], &err);
	strv_done(&a.ca_files);
	return r < 0 ? cli_fail(&err, EXIT_FAILURE) : cli_finish();
}

const struct verb verb_pull = {
	.name = "pull",
	.group = "Images",
	.args = "[OPTIONS] REFERENCE",
	.summary = "Fetch an image from a registry",
	.details = PULL_DETAILS,
	.examples = "msb pull alpine\n"
		    "msb pull ghcr.io/org/app:1.2\n"
		    "msb pull --platform linux/arm64 alpine\n"
		    "msb pull --insecure localhost:5000/app",
	.opts = pull_opts,
	.nopts = PULL_OPTS,
	.run = pull_run,
};
