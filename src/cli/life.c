/* SPDX-License-Identifier: Apache-2.0 */
/* msb start, stop, kill, restart, rm, wait: the lives of sandboxes that are there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/attach.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/entries.h"
#include "cli/select.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/state.h"
#include "store/store.h"

struct life_args {
	struct select_args which; /* first: select_opts sets it */
	bool force;
	uint64_t timeout_ms;
	const char *file;
};

static int set_seconds(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct life_args *a = target;
	uint64_t ns;
	int r = str_to_duration(value, "timeout", &ns, err);

	(void)o;
	if (r < 0)
		return r;
	a->timeout_ms = MIN(ns / 1000000, (uint64_t)INT32_MAX);
	return 0;
}

#define ARGS(field) offsetof(struct life_args, field)

static const struct opt stop_opts[] = {
	{'f', "force", NULL, "At once, without the guest's own shutdown", opt_set_flag, ARGS(force),
	 0},
	{'t', "timeout", "SECONDS", "How long to wait before using force [10]", set_seconds, 0, 0},
};

static const struct opt rm_opts[] = {
	{'f', "force", NULL, "Stop those that run, at once", opt_set_flag, ARGS(force), 0},
	{0, "file", "FILE|DIR", "Take entries out of this project's file instead", opt_set_text,
	 ARGS(file), 0},
};

/* What these verbs begin with. 0, or 1 with the exit code. */
static int begin(struct cli *cli, struct life_args *a, int argc, char **argv, enum select_what what,
		 struct store **store, struct strv *names, int *code)
{
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	int r;

	if (cli_parse_operands(cli, a, argc, argv, 0, SIZE_MAX, &words, code))
		return 1;
	cli->quiet = a->which.quiet;
	r = store_open(store, NULL, &err);
	if (r == 0) {
		sandbox_dir_heal(*store, true);
		r = cli_select(cli, *store, &a->which, &words, what, names, &err);
	}
	if (r == -ERR_USAGE)
		err_hint(&err, "usage: msb %s %s", cli->verb->name, cli->verb->args);
	if (r < 0)
		*code = cli_fail(&err, r == -ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE);
	return r < 0;
}

static int leave(int failed)
{
	int code = cli_finish();

	return failed ? failed : code;
}

static int start(struct cli *cli, int argc, char **argv)
{
	struct life_args a = {0};
	cleanup_store struct store *store = NULL;
	cleanup_strv struct strv names = {0};
	int code;

	if (begin(cli, &a, argc, argv, SELECT_STOPPED, &store, &names, &code))
		return code;
	return leave(background_start_all(cli, store, names.v, names.n, a.which.quiet));
}

/* All are asked first, and then waited for; each name is printed when it has stopped. */
int cli_stop_all(struct store *store, const struct strv *names, bool force, uint64_t timeout_ms,
		 char *const *shown, bool *stopped)
{
	cleanup_free struct sandbox_stopping *st = calloc(names->n + 1, sizeof(*st));
	cleanup_free int *begun = calloc(names->n + 1, sizeof(*begun));
	struct err err = ERR_INIT;
	int failed = 0;

	if (!st || !begun) {
		err_set(&err, ENOMEM, "out of memory");
		return cli_fail(&err, EXIT_FAILURE);
	}
	for (size_t i = 0; i < names->n; i++) {
		begun[i] = sandbox_stop_begin(store, names->v[i], force, (int)timeout_ms, &st[i],
					      &err);
		if (begun[i] < 0)
			failed = cli_fail(&err, EXIT_FAILURE);
		err_clear(&err);
	}
	for (size_t i = 0; i < names->n; i++) {
		int r = begun[i];

		if (r < 0)
			continue;
		cli_busy(!shown, "stopping %s", names->v[i]);
		r = sandbox_stop_finish(store, &st[i], &err);
		cli_busy_end();
		if (r == -ETIMEDOUT)
			cli_warn("%s", err.msg);
		else if (r < 0)
			failed = cli_fail(&err, EXIT_FAILURE);
		err_clear(&err);
		if (r < 0 && r != -ETIMEDOUT)
			continue;
		if (stopped)
			stopped[i] = true;
		if (shown)
			puts(shown[i]);
	}
	return failed;
}

static int stop_verb(struct cli *cli, int argc, char **argv, bool force)
{
	struct life_args a = {.force = force, .timeout_ms = SANDBOX_STOP_TIMEOUT_MS};
	cleanup_store struct store *store = NULL;
	cleanup_strv struct strv names = {0};
	int code;

	if (begin(cli, &a, argc, argv, SELECT_RUNNING, &store, &names, &code))
		return code;
	return leave(cli_stop_all(store, &names, a.force, a.timeout_ms,
				  a.which.quiet ? NULL : names.v, NULL));
}

static int stop(struct cli *cli, int argc, char **argv)
{
	return stop_verb(cli, argc, argv, false);
}

static int kill_verb(struct cli *cli, int argc, char **argv)
{
	return stop_verb(cli, argc, argv, true);
}

/* What did not run is started as well, as long as it could be stopped. */
static int restart(struct cli *cli, int argc, char **argv)
{
	struct life_args a = {.timeout_ms = SANDBOX_STOP_TIMEOUT_MS};
	cleanup_store struct store *store = NULL;
	cleanup_strv struct strv names = {0}, again = {0};
	cleanup_free bool *stopped = NULL;
	int code, failed, r;

	if (begin(cli, &a, argc, argv, SELECT_ANY, &store, &names, &code))
		return code;
	stopped = calloc(names.n + 1, sizeof(*stopped));
	failed = stopped ? cli_stop_all(store, &names, a.force, a.timeout_ms, NULL, stopped)
			 : EXIT_FAILURE;
	for (size_t i = 0; stopped && i < names.n; i++) {
		if (stopped[i] && strv_add(&again, names.v[i]) < 0)
			failed = EXIT_FAILURE;
	}
	r = background_start_all(cli, store, again.v, again.n, a.which.quiet);
	return leave(r ? r : failed);
}

static int rm(struct cli *cli, int argc, char **argv)
{
	struct life_args a = {0};
	cleanup_store struct store *store = NULL;
	cleanup_strv struct strv names = {0};
	struct err err = ERR_INIT;
	int code, failed = 0, r;

	if (begin(cli, &a, argc, argv, SELECT_ANY, &store, &names, &code))
		return code;
	if (a.file)
		return entries_remove(a.file, (const char *const *)names.v, names.n, a.which.quiet);
	for (size_t i = 0; i < names.n; i++) {
		err_clear(&err);
		cli_busy(a.which.quiet, "removing %s", names.v[i]);
		r = sandbox_remove(store, names.v[i], a.force, &err);
		cli_busy_end();
		if (r < 0)
			failed = cli_fail(&err, EXIT_FAILURE);
		else if (!a.which.quiet)
			puts(names.v[i]);
	}
	return leave(failed);
}

/* The exit code of what is over: its command's, else 0 for an end that was asked for. */
static int code_of(int exit_code, bool clean)
{
	return exit_code >= 0 ? exit_code : clean ? 0 : EXIT_OURS;
}

/* Wait for the end of @name; its exit code. */
static int wait_one(struct store *store, const char *name, struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	const struct sandbox_status *now;
	int64_t since = 0;
	bool clean = false;
	int code = -1, r = sandbox_events_last(store, &since, err);

	if (r == 0)
		r = sandbox_dir_list(store, name, &l, err);
	/* One that has gone meanwhile, or before us, told how it ended. */
	if (r == -ERR_NOT_FOUND && sandbox_events_past(store, name, &code, &clean, NULL) > 0) {
		err_clear(err);
		return code_of(code, clean);
	}
	if (r < 0)
		return r;
	now = &l.items[0].status;
	if (!l.items[0].running)
		return code_of(now->exit_code,
			       now->state == SANDBOX_STOPPED || now->state == SANDBOX_CREATED);
	r = sandbox_wait_end(store, name, -1, err);
	if (r < 0)
		return r;
	/* Should its owner have had no time to say how it ended. */
	sandbox_dir_heal(store, true);
	r = sandbox_events_end(store, name, since, &code, &clean, err);
	/* Its owner had said so, and was about to go, when we came. */
	if (r == 0)
		r = sandbox_events_past(store, name, &code, &clean, err);
	return r < 0 ? r : code_of(code, clean);
}

static int wait_verb(struct cli *cli, int argc, char **argv)
{
	struct life_args a = {0};
	cleanup_store struct store *store = NULL;
	cleanup_strv struct strv names = {0};
	struct err err = ERR_INIT;
	int code, last = 0, failed = 0;

	if (begin(cli, &a, argc, argv, SELECT_RUNNING, &store, &names, &code))
		return code;
	for (size_t i = 0; i < names.n; i++) {
		err_clear(&err);
		last = wait_one(store, names.v[i], &err);
		if (last < 0)
			failed = last = cli_fail(&err, EXIT_FAILURE);
		else if (!a.which.quiet)
			printf("%d\n", last);
		(void)fflush(stdout);
	}
	return leave(failed ? failed : last);
}

const struct verb verb_start = {
	.name = "start",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.summary = "Start sandboxes that do not run",
	.details = "One that was made by `run -d` runs its command again.",
	.examples = "msb start box\n"
		    "msb start --label team=core",
	.shared = &select_opts,
	.run = start,
};

const struct verb verb_stop = {
	.name = "stop",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.entries = true,
	.summary = "Stop sandboxes that run",
	.details = "What runs in them gets SIGTERM (a terminal is hung up), and has most of the "
		   "timeout to end.",
	.examples = "msb stop box web\n"
		    "msb stop -t 60 db  # it may take its time\n"
		    "msb stop --all",
	.opts = stop_opts,
	.nopts = ARRAY_SIZE(stop_opts),
	.shared = &select_opts,
	.run = stop,
};

const struct verb verb_kill = {
	.name = "kill",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.entries = true,
	.summary = "End sandboxes at once; what they have not written to disk is lost",
	.examples = "msb kill box\n"
		    "msb kill --label team=core",
	.shared = &select_opts,
	.run = kill_verb,
};

const struct verb verb_restart = {
	.name = "restart",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.summary = "Stop sandboxes, if they run, and start them",
	.examples = "msb restart box\n"
		    "msb restart -t 30 db",
	.opts = stop_opts,
	.nopts = ARRAY_SIZE(stop_opts),
	.shared = &select_opts,
	.run = restart,
};

const struct verb verb_rm = {
	.name = "remove",
	.alias = "rm",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.summary = "Delete sandboxes and what was written in them",
	.details = "With --file, take entries out of a project's file; what there is of them stays "
		   "until\n"
		   "`msb apply` stops them and `msb clean ENTRY` deletes what was written.",
	.examples = "msb rm box\n"
		    "msb rm -f --all  # whatever runs",
	.opts = rm_opts,
	.nopts = ARRAY_SIZE(rm_opts),
	.shared = &select_opts,
	.run = rm,
};

const struct verb verb_wait = {
	.name = "wait",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.entries = true,
	.summary = "Wait until sandboxes have stopped, and print their exit codes",
	.details = "The exit code is that of the last one: its command's, 0 if it had none and "
		   "was stopped,\n"
		   "125 if it failed. What is gone already is remembered as long as `msb events` "
		   "does.",
	.examples = "msb run -d -n job alpine -- sh -c 'sleep 5; exit 7'\n"
		    "msb wait job  # prints 7",
	.shared = &select_opts,
	.run = wait_verb,
};
