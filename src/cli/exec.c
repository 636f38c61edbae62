/* SPDX-License-Identifier: Apache-2.0 */
/* msb exec, shell: a command in a sandbox that is there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/attach.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "image/image.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/session_msg.h"
#include "store/store.h"

struct exec_args {
	struct sandbox_spec wishes; /* env, user, workdir, rlimits */
	bool tty, no_tty, quiet, stream, script, detach;
	uint64_t timeout_ns;
	const char *session, *file;
	struct keys keys;
};

static int set_env(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)o;
	return sandbox_spec_env(&((struct exec_args *)target)->wishes, value, err);
}

static int set_rlimit(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)o;
	return sandbox_spec_rlimit(&((struct exec_args *)target)->wishes, value, err);
}

static int set_session(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)o;
	((struct exec_args *)target)->session = value;
	return session_name_check(value, err);
}

static int set_text(const struct opt *o, void *target, const char *value, struct err *err)
{
	char **at = (char **)((char *)target + o->offset), *copy = strdup(value);

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	free(*at);
	*at = copy;
	return 0;
}

#define ARGS(field) offsetof(struct exec_args, field)

static const struct opt exec_opts[] = {
	PROJECT_FILE_OPT('f', ARGS(file)),
	{'e', "env", "KEY[=VALUE]", "Set an environment variable, or pass on ours (repeatable)",
	 set_env, 0, 0},
	{'u', "user", "USER[:GROUP]", "Run as this user, by name or number [the sandbox's]",
	 set_text, ARGS(wishes.user), 0},
	{'w', "workdir", "PATH", "Working directory [the sandbox's]", set_text,
	 ARGS(wishes.workdir), 0},
	{0, "rlimit", "RES=SOFT[:HARD]", "Resource limit, as in nofile=1024:4096 (repeatable)",
	 set_rlimit, 0, 0},
	{'t', "tty", NULL, "Give the command a terminal [when stdin and stdout are terminals]",
	 opt_set_flag, ARGS(tty), 0},
	{0, "no-tty", NULL, "Give it none", opt_set_flag, ARGS(no_tty), 0},
	{0, "timeout", "DURATION",
	 "Kill the command after this time, as in 30s or 5m; exit code 124", opt_set_timeout,
	 ARGS(timeout_ns), 0},
	{'d', "detach", NULL, "Leave it to itself and print the name of its session (msb attach)",
	 opt_set_flag, ARGS(detach), 0},
	{0, "session", "NAME", "Name the session [a number]", set_session, 0, 0},
	{0, "detach-keys", "KEYS", "Keys that leave a command on a terminal to itself [ctrl-]]",
	 keys_set, ARGS(keys), 0},
	{0, "stream", NULL, "Input and output always go through as they come: no difference",
	 opt_set_flag, ARGS(stream), 0},
	{'q', "quiet", NULL, "Show no warnings", opt_set_flag, ARGS(quiet), 0},
};

/* What a command is resolved against: the sandbox as it was made, and its image. */
struct home {
	struct sandbox_record record;
	struct image_info image; /* empty for a disk */
};

static void home_done(struct home *h)
{
	record_done(&h->record);
	image_info_done(&h->image);
}
#define cleanup_home __attribute__((cleanup(home_done)))

static int look_home(struct store *store, const char *name, struct home *h, struct err *err)
{
	cleanup_close int dir = sandbox_dir_open(store, name, err);
	int r = dir < 0 ? dir : record_read(dir, &h->record, err);

	if (r < 0 || !h->record.image_id[0])
		return r;
	r = image_find(store, h->record.image_id, &h->image, err);
	return r < 0 ? err_wrap(err, "sandbox \"%s\"", name) : 0;
}

/* A script in the sandbox's shell, or (no script) that shell itself. */
static int shell_command(const char *shell, const struct opt_words *words, struct strv *argv)
{
	int r = strv_add(argv, shell);

	if (r == 0 && words->nrest)
		r = strv_add(argv, "-c");
	for (size_t i = 0; i < words->nrest && r == 0; i++) {
		r = strv_add(argv, words->rest[i]);
		/* The script's $0; what follows are its arguments. */
		if (r == 0 && i == 0)
			r = strv_add(argv, shell);
	}
	return r;
}

/* An explicit command stands for itself; without one there is the entrypoint's, or a shell. */
static int resolve(struct store *store, const struct exec_args *a, const struct opt_words *words,
		   bool tty, struct strv *argv, struct err *err)
{
	cleanup_command struct sandbox_command c = {0};
	cleanup_home struct home home = {0};
	const char *name = words->words[0], *shell;
	int r = 0;

	if (words->nrest && !a->script) {
		for (size_t i = 0; i < words->nrest && r == 0; i++)
			r = strv_add(argv, words->rest[i]);
		return r < 0 ? err_set(err, ENOMEM, "out of memory") : 0;
	}
	r = look_home(store, name, &home, err);
	if (r < 0)
		return r;
	shell = home.record.spec.shell ? home.record.spec.shell : "/bin/sh";
	if (!a->script) {
		r = sandbox_command_resolve(&home.record.spec, &home.image.config, NULL, 0, &c,
					    err);
		if (r < 0)
			return r;
	}
	if (c.argv.n) {
		*argv = c.argv;
		c.argv = (struct strv){0};
		return 0;
	}
	if (!a->script && !tty) {
		err_set(err, ERR_USAGE, "image %s does not say what to run", home.record.image);
		return err_hint(err, "name a command: msb exec %s -- COMMAND", name);
	}
	return shell_command(shell, words, argv) < 0 ? err_set(err, ENOMEM, "out of memory") : 0;
}

/* The sandbox does not run: it does for as long as somebody is in it, to begin with us. */
static int start_stopped(const struct cli *cli, struct store *store, const char *name,
			 struct keeper *k, struct err *err)
{
	struct sandbox *sb = NULL;
	int r = sandbox_open_kept(&sb, store, name, err);

	if (r == 0)
		r = background_hold(sb, KEEPER_LEFT, k, err);
	return r ? r : background_ready(cli, k, err);
}

static int exec_in(const struct cli *cli, struct store *store, const struct exec_args *a,
		   const struct opt_words *words, int *died, struct err *err)
{
	cleanup_strv struct strv argv = {0};
	const char *name = words->words[0];
	struct attach attach = {
		.start =
			{
				.argv = &argv,
				.env = &a->wishes.env,
				.user = a->wishes.user,
				.workdir = a->wishes.workdir,
				.rlimits = a->wishes.rlimits,
				.nrlimits = a->wishes.nrlimits,
				.tty = attach_want_tty(a->tty, a->no_tty),
			},
		.timeout_ns = a->timeout_ns,
		.name = name,
		.session = a->session,
		.detached = a->detach,
		.quiet = a->quiet,
	};
	/* Each is lost to a sandbox that has ended meanwhile, or was started by another. */
	enum { TRIES = 20 };
	struct keeper k;
	bool held = false;
	int r = -EAGAIN;

	if (a->detach)
		attach.start.tty = a->tty;
	for (int i = 0; i < TRIES && (r == -EAGAIN || r == -EBUSY); i++) {
		err_clear(err);
		attach_find(&attach, store, a->detach || a->session, &a->keys, err);
		r = attach.fd < 0 && attach.fd != -ENOTCONN ? attach.fd : 0;
		if (r == 0 && !argv.n)
			r = resolve(store, a, words, attach.start.tty, &argv, err);
		if (r < 0) {
			close_fd(attach.fd);
			break;
		}
		attach.holds = held;
		if (attach.fd >= 0) {
			r = attach_run(&attach, died, err);
		} else if (!held) {
			r = start_stopped(cli, store, name, &k, err);
			held = r == 0;
			r = held ? -EAGAIN : r;
			continue;
		} else {
			r = -EAGAIN;
		}
		if (held)
			r = background_leave(cli, &k, r,
					     attach.end == ATTACH_LEFT ? ATTACH_LEFT : ATTACH_ENDED,
					     err);
		held = false;
	}
	if (held)
		background_leave(cli, &k, r, ATTACH_ENDED, err);
	return r;
}

static int exec(struct cli *cli, int argc, char **argv)
{
	struct exec_args a = {.script = cli->verb == &verb_shell, .keys = KEYS_INIT};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free char *name = NULL;
	struct err err = ERR_INIT;
	int code, died = 0, r = 0;

	if (cli_parse(cli, &a, argc, argv, &words, &code)) {
		sandbox_spec_done(&a.wishes);
		return code;
	}
	if (words.n == 0)
		r = err_set(&err, ERR_USAGE, "which sandbox?");
	else if (a.tty && a.no_tty)
		r = err_set(&err, ERR_USAGE, "--tty and --no-tty exclude each other");
	if (r < 0)
		err_hint(&err, "usage: msb %s %s", cli->verb->name, cli->verb->args);
	if (r == 0)
		r = sandbox_spec_check(&a.wishes, &err);
	cli->quiet = a.quiet;
	if (r == 0)
		r = store_open(&store, NULL, &err);
	if (r == 0)
		r = cli_project_name(cli, store, a.file, words.words[0], &name, &err);
	attach_block_signals();
	if (r == 0)
		words.words[0] = name;
	if (r == 0)
		r = exec_in(cli, store, &a, &words, &died, &err);
	sandbox_spec_done(&a.wishes);
	return attach_leave(r, died, &err);
}

const struct verb verb_exec = {
	.name = "exec",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME [-- COMMAND…]",
	.entries = true,
	.summary = "Run a command in a sandbox that is there",
	.details =
		"COMMAND is run as it stands, without the image's entrypoint. Without one, the "
		"image's\n"
		"entrypoint and command are run, or a shell on a terminal. Exit codes are those "
		"of `run`.\n"
		"\n"
		"A sandbox that does not run is started for it, and stopped when the last command "
		"in it has\n"
		"ended, whoever came first; what its last session (-d) ended with is what `msb "
		"wait` says then.\n"
		"`msb start` makes it stay. Without a sandbox of that NAME it is the one of the "
		"project in this\n"
		"directory.",
	.examples =
		"msb exec box -- ls -l /srv\n"
		"msb exec -u 1000 -w /srv -e MODE=test box -- ./check\n"
		"echo 'print(6*7)' | msb exec box -- python3 -\n"
		"msb exec -d --session web box -- ./serve  # left to itself: msb attach box web",
	.opts = exec_opts,
	.nopts = ARRAY_SIZE(exec_opts),
	.run = exec,
	.operands = 1,
	.usage_code = EXIT_OURS,
};

const struct verb verb_shell = {
	.name = "shell",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME [-- SCRIPT [ARG…]]",
	.entries = true,
	.summary = "Run the shell of a sandbox, or a script in it",
	.details = "The shell is what --shell said when the sandbox was made, else /bin/sh. "
		   "Otherwise as\n"
		   "`exec`.",
	.examples = "msb shell box  # a shell, on a terminal\n"
		    "msb shell box -- 'cd /srv && ls | wc -l'",
	.opts = exec_opts,
	.nopts = ARRAY_SIZE(exec_opts),
	.run = exec,
	.operands = 1,
	.usage_code = EXIT_OURS,
};
