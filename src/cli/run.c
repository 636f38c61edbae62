/* SPDX-License-Identifier: Apache-2.0 */
/* msb run: a sandbox, a command in it, and (unless it was given a name) nothing left. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/attach.h"
#include "cli/cli.h"
#include "cli/pull.h"
#include "sandbox/patch.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"

struct run_args {
	struct sandbox_spec spec;
	bool tty, no_tty, quiet;
	uint64_t timeout_ns;
	bool created; /* an option was given that only counts for a new sandbox */
	enum pull_policy pull;
};

/* Setters that hand the words to the spec. */
typedef int spec_fn(struct sandbox_spec *s, const char *text, struct err *err);

static spec_fn *const spec_fns[] = {
	sandbox_spec_env,  sandbox_spec_cpus,	sandbox_spec_memory,
	sandbox_spec_root, sandbox_spec_rlimit,
};
enum { SPEC_ENV, SPEC_CPUS, SPEC_MEMORY, SPEC_ROOT, SPEC_RLIMIT };

static int set_patch(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct run_args *a = target;

	a->created = true;
	return sandbox_patch_add(&a->spec, (enum sandbox_patch_kind)o->number, value, err);
}

static int set_spec(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct run_args *a = target;

	a->created = true;
	return spec_fns[o->number](&a->spec, value, err);
}

/* Texts of the spec; number 1 marks those that say nothing about a sandbox that is there. */
static int set_text(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct run_args *a = target;
	char **at = (char **)((char *)&a->spec + o->offset), *copy = strdup(value);

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	free(*at);
	*at = copy;
	a->created |= !o->number;
	return 0;
}

static int set_timeout(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct run_args *a = target;
	uint64_t ns;
	int r = str_to_duration(value, "timeout", &ns, err);

	(void)o;
	if (r < 0)
		return r;
	if (ns == 0)
		return err_set(err, ERR_USAGE, "a timeout of nothing leaves no time to run");
	a->timeout_ns = ns;
	return 0;
}

static int set_log_level(const struct opt *o, void *target, const char *value, struct err *err)
{
	enum log_level level;

	if (log_level_parse(value, &level) < 0 || level == LOG_OFF) {
		err_set(err, ERR_USAGE, "there is no log level \"%s\"", value);
		return err_hint(err, "it is one of error, warn, info, debug, trace");
	}
	return set_text(o, target, value, err);
}

static int set_pull(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)o;
	return pull_policy_parse(value, &((struct run_args *)target)->pull, err);
}

static int set_name(const struct opt *o, void *target, const char *value, struct err *err)
{
	int r = sandbox_name_check(value, err);

	return r < 0 ? r : set_text(o, target, value, err);
}

#define SPEC(field) offsetof(struct sandbox_spec, field)
#define ARGS(field) offsetof(struct run_args, field)

static const struct opt run_opts[] = {
	{'e', "env", "KEY[=VALUE]", "Set an environment variable, or pass on ours (repeatable)",
	 set_spec, 0, SPEC_ENV},
	{'u', "user", "USER[:GROUP]", "Run as this user, by name or number [image's, or root]",
	 set_text, SPEC(user), 0},
	{'w', "workdir", "PATH", "Working directory [image's, or /]", set_text, SPEC(workdir), 0},
	{0, "entrypoint", "PROGRAM", "Program to run in place of the image's entrypoint", set_text,
	 SPEC(entrypoint), 0},
	{'c', "cpus", "N", "Virtual CPUs [1]", set_spec, 0, SPEC_CPUS},
	{'m', "memory", "SIZE", "Memory, as in 512M or 1.5G; a bare number is MiB [512M]", set_spec,
	 0, SPEC_MEMORY},
	{0, "root-disk", "SIZE|tmpfs[:SIZE]|FILE",
	 "Room for changes to the root file system [8G], or a disk of yours for them", set_spec, 0,
	 SPEC_ROOT},
	{0, "shell", "PATH", "Shell, and what runs scripts [/bin/sh]", set_text, SPEC(shell), 0},
	{0, "copy", "SRC:DST",
	 "Copy a file or directory into the root (repeatable, as those below)", set_patch, 0,
	 SANDBOX_COPY},
	{0, "copy-file", "SRC:DST", "Copy a file", set_patch, 0, SANDBOX_COPY_FILE},
	{0, "copy-dir", "SRC:DST", "Copy a directory", set_patch, 0, SANDBOX_COPY_DIR},
	{0, "mkdir", "PATH", "Make a directory in the root", set_patch, 0, SANDBOX_MKDIR},
	{0, "rm", "PATH", "Remove a file or directory from the root", set_patch, 0, SANDBOX_RM},
	{0, "script", "NAME=BODY",
	 "Put a script on the PATH; \\n, \\t, \\\" and the like are understood", set_patch, 0,
	 SANDBOX_SCRIPT},
	{0, "script-raw", "NAME=BODY", "The same, as it stands", set_patch, 0, SANDBOX_SCRIPT_RAW},
	{0, "script-path", "NAME:FILE", "The same from a file", set_patch, 0, SANDBOX_SCRIPT_PATH},
	{'t', "tty", NULL, "Give the command a terminal [when stdin and stdout are terminals]",
	 opt_set_flag, ARGS(tty), 0},
	{0, "no-tty", NULL, "Give it none", opt_set_flag, ARGS(no_tty), 0},
	{0, "timeout", "DURATION",
	 "Kill the command after this time, as in 30s or 5m; exit code 124", set_timeout, 0, 0},
	{'n', "name", "NAME", "Keep the sandbox under this name, and use it again next time",
	 set_name, SPEC(name), 1},
	{'H', "hostname", "NAME", "Host name in the guest [from the sandbox's name]", set_text,
	 SPEC(hostname), 0},
	{0, "rlimit", "RES=SOFT[:HARD]", "Resource limit, as in nofile=1024:4096 (repeatable)",
	 set_spec, 0, SPEC_RLIMIT},
	{0, "pull", "always|missing|never", "When to ask the image's registry [missing]", set_pull,
	 0, 0},
	{0, "kernel", "PATH", "Boot this kernel (an uncompressed vmlinux)", set_text, SPEC(kernel),
	 0},
	{0, "engine", "auto|kvm|qemu", "What runs the CPU [auto]", set_text, SPEC(engine), 0},
	{0, "jail", "on|off", "Walls around the process that runs the machine [on]", set_text,
	 SPEC(jail), 0},
	{0, "log-level", "LEVEL", "Log level of the sandbox's process", set_log_level,
	 SPEC(log_level), 1},
	{'q', "quiet", NULL, "Show no warnings", opt_set_flag, ARGS(quiet), 0},
};

static bool want_tty(const struct run_args *a)
{
	return !a->no_tty && (a->tty || (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)));
}

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

static void warn_reused(const struct run_args *a, const struct sandbox *sb, const char *image)
{
	if (a->quiet || !sandbox_reused(sb))
		return;
	if (!sandbox_has_image(sb, image))
		cli_warn("sandbox \"%s\" exists and stays with image %s, not %s", sandbox_name(sb),
			 sandbox_image(sb), image);
	if (a->created)
		cli_warn("sandbox \"%s\" exists: options for its creation are ignored",
			 sandbox_name(sb));
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

static int run_in(const struct cli *cli, struct store *store, struct run_args *a,
		  const struct opt_words *words, int *died, struct err *err)
{
	cleanup_strv struct strv argv = {0};
	struct attach attach = {.argv = &argv, .tty = want_tty(a), .timeout_ns = a->timeout_ns};
	const char *image = words->words[0];
	struct sandbox *sb = NULL;
	struct err late = ERR_INIT;
	int r = sandbox_open(&sb, store, &a->spec, image, err);

	if (r < 0)
		return r;
	r = resolve(sb, words, attach.tty, &argv, err);
	if (r == 0 && attach_pending_signal()) {
		r = EXIT_SIGNAL + attach_pending_signal();
	} else if (r == 0) {
		r = sandbox_start(sb, err);
		if (r == 0) {
			/* The machine boots; what can wait is done meanwhile. */
			warn_reused(a, sb, image);
			sandbox_note(sb);
			sandbox_dir_heal(store);
			r = attach_run(sb, &attach, died, err);
		}
		if (r < 0)
			show_logs(cli, sb);
	}
	if (sandbox_end(sb, &late) < 0 && !a->quiet)
		cli_warn("%s", late.msg);
	sandbox_free(sb);
	return r;
}

/*
 * What our children leave behind when they are killed (an engine whose msb-vm is gone) becomes our
 * child and is on its way out; when we return, nothing is left.
 */
static void reap(void)
{
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct run_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;
	int code, died = 0, r;

	sandbox_spec_init(&a.spec);
	if (cli_parse(cli, &a, argc, argv, &words, &code)) {
		sandbox_spec_done(&a.spec);
		return code;
	}
	if (words.n == 0)
		r = err_set(&err, ERR_USAGE, "which image?");
	else if (a.tty && a.no_tty)
		r = err_set(&err, ERR_USAGE, "--tty and --no-tty exclude each other");
	else
		r = 0;
	if (r < 0)
		err_hint(&err, "usage: msb run %s", cli->verb->args);
	if (r == 0 && !a.spec.log_level && cli->level != LOG_OFF) {
		a.spec.log_level = strdup(log_level_name(cli->level));
		r = a.spec.log_level ? 0 : err_set(&err, ENOMEM, "out of memory");
	}
	if (r == 0)
		r = store_open(&store, NULL, &err);
	/* Ctrl-C still ends us here, and that is all it has to do. */
	if (r == 0)
		r = cli_pull_for_run(store, words.words[0], a.spec.name, a.pull, a.quiet, &err);
	attach_block_signals();
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (r == 0)
		r = run_in(cli, store, &a, &words, &died, &err);
	sandbox_spec_done(&a.spec);
	reap();
	if (died) {
		signal(died, SIG_DFL);
		sigprocmask(SIG_UNBLOCK, &(sigset_t){{1ul << (died - 1)}}, NULL);
		raise(died);
	}
	return r < 0 ? cli_fail(&err, EXIT_OURS) : r;
}

const struct verb verb_run = {
	.name = "run",
	.group = "Sandboxes",
	.args = "[OPTIONS] IMAGE|PATH [-- COMMAND…]",
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
	.opts = run_opts,
	.nopts = ARRAY_SIZE(run_opts),
	.run = run,
	.operands = 1,
	.usage_code = EXIT_OURS,
};
