/* SPDX-License-Identifier: Apache-2.0 */
/* msb run: a sandbox, a command in it, and (unless it was given a name) nothing left. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/attach.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "cli/pull.h"
#include "cli/spec_opts.h"
#include "image/image.h"
#include "project/life.h"
#include "sandbox/patch.h"
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
	const char *sandbox, *file, *exec;
	bool image; /* of exe, without effect */
	/* Of --sandbox. */
	struct project_at at;
	struct project_sandbox *entry; /* NULL: none */
	bool made;		       /* its disk is new */
	/* In place of what the image's rules make of the words; empty: nothing. */
	struct strv argv;
};

#define ARGS(field) offsetof(struct run_args, field)

static const struct opt run_opts[] = {
	{'s', "sandbox", "ENTRY[~SCRIPT]", "Run a project's sandbox, after what it depends on",
	 opt_set_text, ARGS(sandbox), 0},
	PROJECT_FILE_OPT('f', ARGS(file)),
	{'x', "exec", "PROGRAM", "Program in place of all that would be run", opt_set_text,
	 ARGS(exec), 0},
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

/* --net in the words of older files. */
static int set_scope(const struct opt *o, void *target, const char *value, struct err *err)
{
	static const char *const words[][2] = {
		{"none", "none"}, {"public", "public"}, {"any", "all"}};
	struct run_args *a = target;

	(void)o;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (str_eq(words[i][0], value))
			return spec_args_say(&a->with, "network.profiles", words[i][1], err);
	}
	err_set(err, ERR_USAGE, "there is no scope \"%.60s\"", value);
	return err_hint(err, "it is none, public or any");
}

static const struct opt exe_opts[] = {
	{'i', "image", NULL, "IMAGE is an image: it always is", opt_set_flag, ARGS(image), 0},
	{'x', "exec", "PROGRAM", "Program in place of all that would be run", opt_set_text,
	 ARGS(exec), 0},
	{0, "scope", "none|public|any", "What the guest may reach", set_scope, 0, 0},
	{'t', "tty", NULL, "Give the command a terminal [when stdin and stdout are terminals]",
	 opt_set_flag, ARGS(tty), 0},
	{0, "no-tty", NULL, "Give it none", opt_set_flag, ARGS(no_tty), 0},
	{0, "timeout", "DURATION",
	 "Kill the command after this time, as in 30s or 5m; exit code 124", opt_set_timeout,
	 ARGS(timeout_ns), 0},
};

static int resolve(struct run_args *a, struct sandbox *sb, const struct opt_words *words, bool tty,
		   struct strv *argv, struct err *err)
{
	cleanup_command struct sandbox_command c = {0};
	const char *shell = sandbox_get_spec(sb)->shell;
	int r = sandbox_command_resolve(sandbox_get_spec(sb), sandbox_get_config(sb), words->rest,
					words->nrest, &c, err);

	if (r < 0)
		return r;
	if (a->argv.n) {
		*argv = a->argv;
		a->argv = (struct strv){0};
		return 0;
	}
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
	if (sandbox_reused(sb) && !a->entry)
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
	if (r == 0 && !a->argv.n && !c.argv.n &&
	    (!attach->start.tty ||
	     strv_add(&c.argv, record.spec.shell ? record.spec.shell : "/bin/sh") < 0)) {
		r = err_set(err, ERR_USAGE, "image %s does not say what to run", record.image);
		err_hint(err, "name a command: msb run %s -- COMMAND", record.image);
	}
	if (r < 0) {
		close_fd(attach->fd);
		return r;
	}
	if (a->argv.n) {
		strv_done(&c.argv);
		c.argv = a->argv;
		a->argv = (struct strv){0};
	}
	if (a->entry)
		;
	else if (sandbox_source_parse(words->words[0], &asked, NULL) < 0 ||
		 !str_eq(asked.text, record.image))
		warn_kept(a, attach->name, record.image, words->words[0]);
	else
		warn_kept(a, attach->name, NULL, NULL);
	attach->start.argv = &c.argv;
	return attach_run(attach, died, err);
}

/* Make or find the sandbox. */
static int open_it(struct store *store, struct run_args *a, const char *image, struct sandbox **ret,
		   struct err *err)
{
	const struct sandbox_open how = {
		.replace = a->with.replace,
		.timeout_ms = a->with.replace_ms,
	};

	if (a->entry)
		return project_open(store, &a->at.p, &a->at.home, a->entry, ret, &a->made, err);
	return sandbox_open_how(ret, store, &a->with.model.spec, image, &how, err);
}

/* In the background: an exit code. */
static int run_detached(const struct cli *cli, struct store *store, struct run_args *a,
			const struct opt_words *words)
{
	cleanup_main struct sandbox_main m = {.tty = a->tty, .timeout_ms = a->timeout_ns / 1000000};
	cleanup_free char *name = NULL;
	struct sandbox *sb = NULL;
	struct err err = ERR_INIT;
	int r;

	cli_busy(a->with.quiet, "preparing %s", words->words[0]);
	r = open_it(store, a, words->words[0], &sb, &err);
	cli_busy_end();

	if (r == -EBUSY)
		err_hint(&err, "`msb exec -d` runs a command in it");
	if (r < 0)
		return cli_fail(&err, EXIT_OURS);
	r = resolve(a, sb, words, a->tty, &m.argv, &err);
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
static int run_typed(const struct cli *cli, struct store *store, struct run_args *a,
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
	a->at.home.lock = close_fd(a->at.home.lock);
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
	const char *image = words->words[0];
	struct sandbox *sb = NULL;
	struct err late = ERR_INIT;
	cleanup_free char *name = a->with.model.spec.name ? strdup(a->with.model.spec.name) : NULL;
	int r;

	for (;;) {
		cli_busy(a->with.quiet, "preparing %s", image);
		r = open_it(store, a, image, &sb, err);
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
	r = resolve(a, sb, words, attach.start.tty, &argv, err);
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
			a->at.home.lock = close_fd(a->at.home.lock);
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

static void args_done(struct run_args *a)
{
	spec_args_done(&a->with);
	project_at_done(&a->at);
	strv_done(&a->argv);
}

/* NAME~SCRIPT: NAME into *name, SCRIPT is returned, or NULL. */
static const char *split_script(const char *word, char **name)
{
	const char *tilde = sandbox_source_is_path(word) ? NULL : strchr(word, '~');

	*name = tilde ? strndup(word, (size_t)(tilde - word)) : strdup(word);
	return tilde ? tilde + 1 : NULL;
}

/* What --sandbox, --exec and the like ask for instead of the image's own. */
static int own_words(struct run_args *a, const char *script, const struct opt_words *words,
		     struct err *err)
{
	static const struct project_sandbox none = {.name = (char *)(uintptr_t) ""};
	int r = 0;

	if (script && a->exec)
		return err_set(err, ERR_USAGE, "a script and --exec exclude each other");
	if (a->entry)
		r = project_words(a->entry, script, a->exec, words->rest, words->nrest, &a->argv,
				  err);
	else if (a->exec)
		r = project_words(&none, NULL, a->exec, words->rest, words->nrest, &a->argv, err);
	return MIN(r, 0);
}

/* Load the project, and find the entry and the words that it is to run. */
static int look_entry(struct run_args *a, int how, const char *name, struct err *err)
{
	int r = cli_project_open(a->file, how, &a->at, err);

	return r < 0 ? r : project_want(&a->at.p, name, &a->entry, err);
}

/*
 * Start what the entry depends on, which stays when we have gone. In a process of its own, so that
 * their keepers are no children of ours: those we wait for. An exit code.
 */
static int up_depends(struct cli *cli, const char *file, const char *name)
{
	const struct up_how how = {.quiet = true, .only_depends = true};
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		struct run_args a = {.file = file, .at = PROJECT_AT_INIT};
		struct err err = ERR_INIT;
		bool *chosen = NULL;
		int r = look_entry(&a, PROJECT_MAKE | PROJECT_LOCK, name, &err);

		if (r == 0) {
			chosen = calloc(a.at.p.n, sizeof(*chosen));
			r = chosen ? 0 : err_set(&err, ENOMEM, "out of memory");
		}
		if (r == 0) {
			chosen[a.entry - a.at.p.v] = true;
			r = cli_project_up(cli, &a.at, chosen, &how);
		} else {
			r = cli_fail(&err, EXIT_OURS);
		}
		free(chosen);
		project_at_done(&a.at);
		_exit(r);
	}
	if (pid < 0) {
		struct err err = ERR_INIT;

		err_errno(&err, "cannot start what %s depends on", name);
		return cli_fail(&err, EXIT_OURS);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_OURS;
}

/* An entry of a project: what it depends on first. Positive: an exit code, after a message. */
static int begin_entry(struct cli *cli, struct run_args *a, struct opt_words *words,
		       struct err *err)
{
	cleanup_free char *name = NULL;
	const char *script = split_script(a->sandbox, &name);
	bool depends;
	int r;

	if (!name)
		return err_set(err, ENOMEM, "out of memory");
	if (a->with.nwords || a->with.nfiles) {
		err_set(err, ERR_USAGE, "--%s does not go with a project's sandbox",
			a->with.nwords ? a->with.words[0].field->opt : a->with.files[0].scope->opt);
		return err_hint(err, "what it is says the project's file");
	}
	if (words->n) {
		err_set(err, ERR_USAGE, "\"%s\" is too much", words->words[0]);
		return err_hint(err, "arguments stand behind --");
	}
	attach_block_signals();
	r = look_entry(a, PROJECT_READ, name, err);
	if (r == 0)
		r = own_words(a, script, words, err);
	if (r < 0)
		return r;
	depends = a->entry->depends.n;
	project_at_done(&a->at);
	a->entry = NULL;
	r = depends ? up_depends(cli, a->file, name) : 0;
	if (r == 0)
		r = look_entry(a, PROJECT_MAKE | PROJECT_LOCK, name, err);
	if (r)
		return r;
	free(a->with.model.spec.name);
	a->with.model.spec.name = project_sandbox_name(&a->at.home, name);
	if (!a->with.model.spec.name)
		return err_set(err, ENOMEM, "out of memory");
	words->words[words->n++] = a->entry->model.image;
	if (!words->nrest) {
		words->rest = (const char *const *)a->entry->model.cmd.v;
		words->nrest = a->entry->model.cmd.n;
	}
	return 0;
}

/* IMAGE~SCRIPT of exe is a script that --script makes, or the shell. */
static int exe_script(struct run_args *a, struct opt_words *words, struct err *err)
{
	struct project_sandbox e = {.name = (char *)(uintptr_t)words->words[0]};
	cleanup_free char *image = NULL;
	const char *script = split_script(words->words[0], &image);
	int r;

	if (!image)
		return err_set(err, ENOMEM, "out of memory");
	if (!script)
		return 0;
	for (size_t i = 0; i < a->with.model.spec.npatches; i++) {
		const struct sandbox_patch *p = &a->with.model.spec.patches[i];

		if (p->kind >= SANDBOX_SCRIPT && strv_add(&e.scripts, strrchr(p->dst, '/') + 1) < 0)
			return err_set(err, ENOMEM, "out of memory");
	}
	r = a->exec ? err_set(err, ERR_USAGE, "a script and --exec exclude each other")
		    : project_words(&e, script, NULL, words->rest, words->nrest, &a->argv, err);
	strv_done(&e.scripts);
	/* Shorter than what was there, which is argv's. */
	if (r > 0)
		((char *)(uintptr_t)words->words[0])[strlen(image)] = '\0';
	return MIN(r, 0);
}

static int begin_image(struct run_args *a, const struct cli *cli, struct opt_words *words,
		       struct err *err)
{
	int r = cli->verb == &verb_exe && words->n ? exe_script(a, words, err) : 0;

	if (r == 0)
		r = spec_args_operands(&a->with, words, err);
	return r < 0 || a->argv.n ? r : own_words(a, NULL, words, err);
}

/* What the words ask for. Positive: an exit code, after a message. */
static int begin(struct cli *cli, struct run_args *a, struct opt_words *words, struct err *err)
{
	int r = 0;

	if (cli->verb == &verb_msr && !words->n)
		r = err_set(err, ERR_USAGE, "which sandbox?");
	else if (a->tty && a->no_tty)
		r = err_set(err, ERR_USAGE, "--tty and --no-tty exclude each other");
	else if (a->with.replace && !a->with.model.spec.name)
		r = err_set(err, ERR_USAGE, "--replace needs a --name");
	else if (a->file && !a->sandbox && cli->verb != &verb_msr)
		r = err_set(err, ERR_USAGE, "--file needs a --sandbox");
	if (r == 0 && cli->verb == &verb_msr) {
		a->sandbox = words->words[0];
		words->n = 0;
	}
	if (r == 0)
		r = a->sandbox ? begin_entry(cli, a, words, err) : begin_image(a, cli, words, err);
	if (r == -ERR_USAGE)
		err_hint(err, "usage: msb %s %s", cli->verb->name, cli->verb->args);
	return r;
}

static int run(struct cli *cli, int argc, char **argv)
{
	CLEANUP(args_done) struct run_args a = {.at = PROJECT_AT_INIT, .keys = KEYS_INIT};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;
	int code, died = 0, r;

	spec_args_init(&a.with);
	if (cli_parse(cli, &a, argc, argv, &words, &code))
		return code;
	cli->quiet = a.with.quiet;
	r = begin(cli, &a, &words, &err);
	if (r > 0)
		return r;
	if (r == 0)
		r = spec_args_level(&a.with, cli, &err);
	if (r == 0)
		r = store_open(&store, NULL, &err);
	/* Ctrl-C still ends us here, and that is all it has to do. */
	if (r == 0 && a.entry)
		r = cli_project_pull(&a.at, a.entry, a.with.model.spec.name, a.with.quiet, &err);
	else if (r == 0)
		r = cli_pull_for_run(store, words.words[0], a.with.model.spec.name, &a.with.model,
				     a.with.quiet, &err);
	attach_block_signals();
	if (r == 0 && a.detach) {
		r = run_detached(cli, store, &a, &words);
		if (r && a.made)
			project_undo(store, &a.at.home, a.entry);
		return r;
	}
	if (r == 0)
		store_leave_log(store);
	if (r == 0)
		r = run_in(cli, store, &a, &words, &died, &err);
	if (r < 0 && a.made)
		project_undo(store, &a.at.home, a.entry);
	args_done(&a);
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
		"A sandbox that it starts, new or kept, stops with COMMAND, also under those who "
		"have come in by\n"
		"`exec` or `attach` meanwhile. With the --name of one that runs, COMMAND runs in "
		"that, which goes on.\n"
		"\n"
		"PATH (./ or / in front) is a directory, or a disk image: .raw, .img, .qcow2, "
		".vmdk.\n"
		"Both stay as they are. A disk takes options behind a colon: rw, format=, "
		"fstype=,\n"
		"partition=, backing=.\n"
		"\n"
		"With --sandbox it is an entry of a project's file: what is written in it stays. "
		"ENTRY~SCRIPT\n"
		"runs one of its scripts, ENTRY~shell its shell.",
	.examples = "msb run alpine -- uname -a  # pulled if it is not here\n"
		    "msb run debian  # a shell, on a terminal\n"
		    "msb run -c 2 -m 1G -e MODE=test -w /srv python:3.12 -- python3 app.py\n"
		    "msb run -d -n web -p 8080:80 nginx  # in the background, under a name\n"
		    "msb run --timeout 30s alpine -- sleep 100  # exit code 124\n"
		    "msb run --conf app.yaml  # as a file says\n"
		    "msb run --copy ./app:/srv/app ./rootfs -- /srv/app/start"
		    "\nmsb run --sandbox web~test",
	.opts = run_opts,
	.nopts = ARRAY_SIZE(run_opts),
	.shared = &spec_opts,
	.run = run,
	.operands = 1,
	.usage_code = EXIT_OURS,
};

const struct verb verb_exe = {
	.name = "exe",
	.alias = "x",
	.group = "Projects",
	.args = "[OPTIONS] IMAGE[~SCRIPT] [-- ARG…]",
	.summary = "Run something once in a sandbox that is thrown away",
	.details = "As `run`, in the words of older releases: IMAGE~SCRIPT runs a script that "
		   "--script makes,\n"
		   "IMAGE~shell the shell. msx is another name for it.",
	.examples = "msb exe alpine -- uname -a\n"
		    "msb exe --script 'hi=echo hi' alpine~hi",
	.opts = exe_opts,
	.nopts = ARRAY_SIZE(exe_opts),
	.shared = &spec_opts,
	.run = run,
	.operands = 1,
	.usage_code = EXIT_OURS,
};

const struct verb verb_msr = {
	.name = "msr",
	.hidden = true,
	.group = "Projects",
	.args = "[OPTIONS] ENTRY[~SCRIPT] [-- ARG…]",
	.summary = "Run a project's sandbox (msb run --sandbox)",
	.examples = "msr web~test",
	.opts = run_opts,
	.nopts = ARRAY_SIZE(run_opts),
	.shared = &spec_opts,
	.run = run,
	.operands = 1,
	.usage_code = EXIT_OURS,
};
