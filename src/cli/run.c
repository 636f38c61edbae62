/* SPDX-License-Identifier: Apache-2.0 */
/* msb run: a sandbox, a command in it, and (unless it was given a name) nothing left. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/attach.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/pull.h"
#include "cli/spec_opts.h"
#include "image/image.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/source.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"

struct run_args {
	struct spec_args with; /* first: spec_opts sets it */
	bool tty, no_tty, detach;
	uint64_t timeout_ns;
	struct keys keys;
};

#define ARGS(field) offsetof(struct run_args, field)

static const struct opt run_opts[] = {
	{'d', "detach", NULL, "Run it in the background, and print the sandbox's name",
	 opt_set_flag, ARGS(detach), 0},
	{'t', "tty", NULL, "Give the command a terminal [when stdin and stdout are terminals]",
	 opt_set_flag, ARGS(tty), 0},
	{0, "no-tty", NULL, "Give it none", opt_set_flag, ARGS(no_tty), 0},
	{0, "timeout", "DURATION",
	 "Kill the command after this time, as in 30s or 5m; exit code 124", opt_set_timeout,
	 ARGS(timeout_ns), 0},
	{0, "detach-keys", "KEYS", "Keys that leave a command on a terminal to itself [ctrl-]]",
	 keys_set, ARGS(keys), 0},
};

static int resolve(struct sandbox *sb, const struct opt_words *words, bool tty, struct strv *argv,
		   struct err *err)
{
	cleanup_command struct sandbox_command c = {0};
	const char *shell = sandbox_get_spec(sb)->shell;
	int r = sandbox_command_resolve(sandbox_get_spec(sb), sandbox_get_config(sb), words->rest,
					words->nrest, &c, err);

	if (r < 0)
		return r;
	if (!c.argv.n && !tty) {
		err_set(err, ERR_USAGE, "image %s does not say what to run", sandbox_image(sb));
		return err_hint(err, "name a command: msb run %s -- COMMAND", sandbox_image(sb));
	}
	if (!c.argv.n && strv_add(&c.argv, shell ? shell : "/bin/sh") < 0)
		return err_set(err, ENOMEM, "out of memory");
	*argv = c.argv;
	c.argv = (struct strv){0};
	return 0;
}

/* What is there differs from what was asked for, and stays as it is. */
static void warn_kept(const struct run_args *a, const char *name, const char *has,
		      const char *image)
{
	if (a->with.quiet)
		return;
	if (has)
		cli_warn("sandbox \"%s\" exists and stays with image %s, not %s", name, has, image);
	if (a->with.model.creates)
		cli_warn("sandbox \"%s\" exists: options for its creation are ignored", name);
}

static void warn_reused(const struct run_args *a, const struct sandbox *sb, const char *image)
{
	if (sandbox_reused(sb))
		warn_kept(a, sandbox_name(sb),
			  sandbox_has_image(sb, image) ? NULL : sandbox_image(sb), image);
}

/* The machine's own words, for who asked for details. */
static void show_logs(const struct cli *cli, const struct sandbox *sb)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (cli->level < LOG_DEBUG)
		return;
	sandbox_logs(sb, &b);
	fwrite(buf_ptr(&b), 1, buf_size(&b), stderr);
}

/* The command in a sandbox of that name that runs already, which goes on afterwards. */
static int run_joined(struct store *store, struct run_args *a, const struct opt_words *words,
		      struct attach *attach, int *died, struct err *err)
{
	cleanup_record struct sandbox_record record = {0};
	__attribute__((cleanup(image_info_done))) struct image_info image = IMAGE_INFO_INIT;
	cleanup_command struct sandbox_command c = {0};
	cleanup_source_text struct sandbox_source asked = {0};
	cleanup_close int dir = sandbox_dir_open(store, attach->name, err);
	int r = dir < 0 ? dir : record_read(dir, &record, err);

	if (r == 0 && record.image_id[0])
		r = image_find(store, record.image_id, &image, err);
	if (r == 0)
		r = sandbox_command_resolve(&record.spec, &image.config, words->rest, words->nrest,
					    &c, err);
	if (r == 0 && !c.argv.n &&
	    (!attach->start.tty ||
	     strv_add(&c.argv, record.spec.shell ? record.spec.shell : "/bin/sh") < 0)) {
		r = err_set(err, ERR_USAGE, "image %s does not say what to run", record.image);
		err_hint(err, "name a command: msb run %s -- COMMAND", record.image);
	}
	if (r < 0) {
		close_fd(attach->fd);
		return r;
	}
	if (sandbox_source_parse(words->words[0], &asked, NULL) < 0 ||
	    !str_eq(asked.text, record.image))
		warn_kept(a, attach->name, record.image, words->words[0]);
	else
		warn_kept(a, attach->name, NULL, NULL);
	attach->start.argv = &c.argv;
	return attach_run(attach, died, err);
}

/* In the background: an exit code. */
static int run_detached(const struct cli *cli, struct store *store, struct run_args *a,
			const struct opt_words *words)
{
	const struct sandbox_open how = {
		.replace = a->with.replace,
		.timeout_ms = a->with.replace_ms,
	};
	cleanup_main struct sandbox_main m = {.tty = a->tty, .timeout_ms = a->timeout_ns / 1000000};
	cleanup_free char *name = NULL;
	struct sandbox *sb = NULL;
	struct err err = ERR_INIT;
	int r;

	cli_busy(a->with.quiet, "preparing %s", words->words[0]);
	r = sandbox_open_how(&sb, store, &a->with.model.spec, words->words[0], &how, &err);
	cli_busy_end();

	if (r == -EBUSY)
		err_hint(&err, "`msb exec -d` runs a command in it");
	if (r < 0)
		return cli_fail(&err, EXIT_OURS);
	r = resolve(sb, words, a->tty, &m.argv, &err);
	if (r == 0)
		r = sandbox_set_main(sb, &m, &err);
	if (r == 0 && !(name = strdup(sandbox_name(sb))))
		r = err_set(&err, ENOMEM, "out of memory");
	if (r < 0) {
		sandbox_free(sb);
		return cli_fail(&err, EXIT_OURS);
	}
	warn_reused(a, sb, words->words[0]);
	sandbox_dir_heal(store, false);
	r = background_start(cli, sb, KEEPER_MAIN);
	if (r)
		return r;
	puts(name);
	return cli_finish();
}

/*
 * On a person's terminal: another process keeps the sandbox, so that the keys can leave it. The
 * command is a session there, with which the sandbox ends.
 */
static int run_typed(const struct cli *cli, struct store *store, const struct run_args *a,
		     struct sandbox *sb, struct attach *attach, int *died, struct err *err)
{
	cleanup_free char *name = strdup(sandbox_name(sb));
	struct keeper k;
	int r;

	if (!name) {
		sandbox_free(sb);
		return err_set(err, ENOMEM, "out of memory");
	}
	r = background_hold(sb, KEEPER_SESSION, &k, err);
	if (r)
		return r;
	sandbox_dir_heal(store, false);
	r = background_ready(cli, &k, err);
	if (r)
		return r;
	attach->name = name;
	attach->session = MAIN_SESSION;
	attach->holds = true;
	attach->end = ATTACH_CUT;
	r = attach_find(attach, store, true, &a->keys, err);
	if (r >= 0)
		r = attach_run(attach, died, err);
	return background_leave(cli, &k, r, attach->end, err);
}

static int run_in(const struct cli *cli, struct store *store, struct run_args *a,
		  const struct opt_words *words, int *died, struct err *err)
{
	cleanup_strv struct strv argv = {0};
	struct attach attach = {
		.start = {.argv = &argv, .tty = attach_want_tty(a->tty, a->no_tty)},
		.timeout_ns = a->timeout_ns,
		.quiet = a->with.quiet,
	};
	const struct sandbox_open how = {
		.replace = a->with.replace,
		.timeout_ms = a->with.replace_ms,
	};
	const char *image = words->words[0];
	struct sandbox *sb = NULL;
	struct err late = ERR_INIT;
	cleanup_free char *name = a->with.model.spec.name ? strdup(a->with.model.spec.name) : NULL;
	int r;

	for (;;) {
		cli_busy(a->with.quiet, "preparing %s", image);
		r = sandbox_open_how(&sb, store, &a->with.model.spec, image, &how, err);
		cli_busy_end();
		if (r != -EBUSY || !name)
			break;
		attach.name = name;
		r = attach_find(&attach, store, false, &a->keys, err);
		if (r >= 0)
			r = run_joined(store, a, words, &attach, died, err);
		/* It has ended meanwhile. */
		if (r != -EAGAIN && r != -ENOTCONN && r != -ERR_NOT_FOUND)
			return r;
		err_clear(err);
	}
	if (r < 0)
		return r;
	r = resolve(sb, words, attach.start.tty, &argv, err);
	if (r == 0 && attach.start.tty && isatty(STDIN_FILENO)) {
		warn_reused(a, sb, image);
		return run_typed(cli, store, a, sb, &attach, died, err);
	}
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (r == 0 && attach_pending_signal()) {
		r = EXIT_SIGNAL + attach_pending_signal();
	} else if (r == 0) {
		r = sandbox_start(sb, err);
		if (r == 0) {
			/* The machine boots; what can wait is done meanwhile. */
			warn_reused(a, sb, image);
			sandbox_note(sb);
			sandbox_dir_heal(store, false);
			attach.sb = sb;
			/* Until the guest is ready. */
			cli_busy(a->with.quiet, "starting %s", image);
			r = attach_run(&attach, died, err);
			cli_busy_end();
		}
		if (r < 0)
			show_logs(cli, sb);
	}
	if (r >= 0)
		sandbox_set_end(sb, "completed", r);
	if (sandbox_end(sb, &late) < 0 && !a->with.quiet)
		cli_warn("%s", late.msg);
	sandbox_free(sb);
	attach_reap();
	return r;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct run_args a = {.keys = KEYS_INIT};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;
	int code, died = 0, r;

	spec_args_init(&a.with);
	if (cli_parse(cli, &a, argc, argv, &words, &code)) {
		spec_args_done(&a.with);
		return code;
	}
	cli->quiet = a.with.quiet;
	r = spec_args_operands(&a.with, &words, &err);
	if (r == 0 && a.tty && a.no_tty)
		r = err_set(&err, ERR_USAGE, "--tty and --no-tty exclude each other");
	else if (r == 0 && a.with.replace && !a.with.model.spec.name)
		r = err_set(&err, ERR_USAGE, "--replace needs a --name");
	if (r < 0)
		err_hint(&err, "usage: msb run %s", cli->verb->args);
	if (r == 0)
		r = spec_args_level(&a.with, cli, &err);
	if (r == 0)
		r = store_open(&store, NULL, &err);
	/* Ctrl-C still ends us here, and that is all it has to do. */
	if (r == 0)
		r = cli_pull_for_run(store, words.words[0], a.with.model.spec.name, &a.with.model,
				     a.with.quiet, &err);
	attach_block_signals();
	if (r == 0 && a.detach) {
		r = run_detached(cli, store, &a, &words);
		spec_args_done(&a.with);
		return r;
	}
	if (r == 0)
		store_leave_log(store);
	if (r == 0)
		r = run_in(cli, store, &a, &words, &died, &err);
	spec_args_done(&a.with);
	return attach_leave(r, died, &err);
}

const struct verb verb_run = {
	.name = "run",
	.group = "Sandboxes",
	.args = "[OPTIONS] [IMAGE|PATH] [-- COMMAND…]",
	.summary = "Run a command in a new sandbox",
	.details =
		"COMMAND takes the place of the image's command; its entrypoint stays. The exit "
		"code is\n"
		"the command's, 128+N if signal N ended it, 124 after --timeout, 126 or 127 if it\n"
		"cannot be executed or is not there, 125 if the sandbox itself failed.\n"
		"\n"
		"PATH (./ or / in front) is a directory, or a disk image: .raw, .img, .qcow2, "
		".vmdk.\n"
		"Both stay as they are. A disk takes options behind a colon: rw, format=, "
		"fstype=,\n"
		"partition=, backing=.",
	.examples = "msb run alpine -- uname -a  # pulled if it is not here\n"
		    "msb run debian  # a shell, on a terminal\n"
		    "msb run -c 2 -m 1G -e MODE=test -w /srv python:3.12 -- python3 app.py\n"
		    "msb run -d -n web -p 8080:80 nginx  # in the background, under a name\n"
		    "msb run --timeout 30s alpine -- sleep 100  # exit code 124\n"
		    "msb run --conf app.yaml  # as a file says\n"
		    "msb run --copy ./app:/srv/app ./rootfs -- /srv/app/start",
	.opts = run_opts,
	.nopts = ARRAY_SIZE(run_opts),
	.shared = &spec_opts,
	.run = run,
	.operands = 1,
	.usage_code = EXIT_OURS,
};
