/* SPDX-License-Identifier: Apache-2.0 */
/* msb up, down, apply: the sandboxes of a project together. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/attach.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/follow.h"
#include "cli/project.h"
#include "cli/pull.h"
#include "cli/select.h"
#include "project/life.h"
#include "project/ready.h"
#include "sandbox/keeper.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/state.h"

/* Booting takes CPU time first of all: more at once than this makes nothing faster. */
#define AT_ONCE 8

struct up_args {
	const char *file, *group;
	bool detach, quiet, force;
	uint64_t timeout_ms;
};

static int set_seconds(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct up_args *a = target;
	uint64_t ns;
	int r = str_to_duration(value, "timeout", &ns, err);

	(void)o;
	if (r == 0)
		a->timeout_ms = MIN(ns / 1000000, (uint64_t)INT32_MAX);
	return r;
}

#define ARGS(field) offsetof(struct up_args, field)

static const struct opt up_opts[] = {
	PROJECT_FILE_OPT('f', ARGS(file)),
	{'g', "group", "GROUP", "Those of this group", opt_set_text, ARGS(group), 0},
	{'d', "detach", NULL, "Leave them running, and return when all are ready", opt_set_flag,
	 ARGS(detach), 0},
	{'q', "quiet", NULL, "Do not print names", opt_set_flag, ARGS(quiet), 0},
};
static const struct opt apply_opts[] = {
	PROJECT_FILE_OPT('f', ARGS(file)),
	{'d', "detach", NULL, "Leave them running, and return when all are ready", opt_set_flag,
	 ARGS(detach), 0},
	{'q', "quiet", NULL, "Do not print names", opt_set_flag, ARGS(quiet), 0},
};
static const struct opt down_opts[] = {
	PROJECT_FILE_OPT('f', ARGS(file)),
	{'g', "group", "GROUP", "Those of this group", opt_set_text, ARGS(group), 0},
	{0, "force", NULL, "At once, without the guests' own shutdown", opt_set_flag, ARGS(force),
	 0},
	{'t', "timeout", "SECONDS", "How long to wait before using force", set_seconds, 0, 0, "10"},
	{'q', "quiet", NULL, "Do not print names", opt_set_flag, ARGS(quiet), 0},
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

/* ---- starting ---- */

/* One that is being started. */
struct starting {
	struct project_sandbox *e;
	struct keeper keeper;
	char *name;
	bool made; /* its disk is new */
	bool begun;
};

/* 1: it runs already. */
static int begin_one(struct project_at *a, struct starting *st, bool quiet, struct err *err)
{
	cleanup_project_view struct project_view v = {0};
	cleanup_main struct sandbox_main m = {0};
	struct project_sandbox *e = st->e;
	struct sandbox *sb = NULL;
	int r = project_look(a->store, &a->p, &a->home, e, &v, err);

	if (r < 0)
		return r;
	st->name = strdup(v.name);
	if (!st->name)
		return no_memory(err);
	if (v.state == PROJECT_RUNNING) {
		if (v.changed && !quiet)
			cli_warn("%s runs as it was started: `msb apply` takes over what the file "
				 "says now",
				 e->name);
		return 1;
	}
	r = cli_project_pull(a, e, v.name, quiet, err);
	if (r < 0)
		return err_wrap(err, "%s", e->name);
	/* The words of the file's command outlive the model's wishes, which opening takes. */
	r = project_open(a->store, &a->p, &a->home, e, &sb, &st->made, err);
	if (r < 0)
		return r;
	r = project_main(e, sandbox_get_spec(sb), sandbox_get_config(sb), &m, err);
	if (r == 0)
		r = sandbox_set_main(sb, &m, err);
	if (r < 0) {
		sandbox_free(sb);
		return r;
	}
	r = keeper_start(&st->keeper, sb, KEEPER_MAIN, err);
	st->begun = r == 0;
	return r < 0 ? err_wrap(err, "%s", e->name) : 0;
}

static void undo(struct project_at *a, const struct starting *st)
{
	if (st->made)
		project_undo(a->store, &a->home, st->e);
}

/* Its keeper's word, and what it has to answer besides. */
static int finish_one(struct cli *cli, struct project_at *a, struct starting *st, bool quiet)
{
	cleanup_close int cancel = background_signals();
	struct err err = ERR_INIT;
	int code = st->begun ? background_wait(cli, &st->keeper) : 0;

	if (code) {
		undo(a, st);
		return code;
	}
	if (project_wait_ready(a->store, st->name, &st->e->ready, cancel, &err) < 0) {
		if (attach_pending_signal())
			return EXIT_SIGNAL + attach_pending_signal();
		err_wrap(&err, "%s is not ready", st->e->name);
		err_hint(&err, "`msb logs %s` shows what it printed", st->name);
		return cli_fail(&err, EXIT_FAILURE);
	}
	if (!quiet)
		puts(st->e->name);
	(void)fflush(stdout);
	return 0;
}

static int start_some(struct cli *cli, struct project_at *a, struct project_sandbox **v, size_t n,
		      bool quiet)
{
	struct starting st[AT_ONCE];
	int code = 0;
	size_t begun = 0;

	memset(st, 0, sizeof(st));
	for (; begun < n && !code; begun++) {
		struct err err = ERR_INIT;

		st[begun].e = v[begun];
		st[begun].keeper = (struct keeper)KEEPER_INIT;
		if (attach_pending_signal())
			code = EXIT_SIGNAL + attach_pending_signal();
		else if (begin_one(a, &st[begun], quiet, &err) < 0)
			code = cli_fail(&err, EXIT_FAILURE);
	}
	/* Whatever goes wrong with one, the others have been started. */
	for (size_t i = 0; i < begun; i++) {
		if (st[i].name && (st[i].begun || !code)) {
			int r = finish_one(cli, a, &st[i], quiet);

			code = code ? code : r;
		} else if (st[i].name) {
			undo(a, &st[i]);
		}
		free(st[i].name);
	}
	return code;
}

static void choose_depends(const struct project *p, bool *chosen, size_t i)
{
	for (size_t j = 0; j < p->v[i].depends.n; j++) {
		const struct project_sandbox *d = project_get(p, p->v[i].depends.v[j].name, false);

		chosen[d - p->v] = true;
		choose_depends(p, chosen, (size_t)(d - p->v));
	}
}

int cli_project_up(struct cli *cli, struct project_at *a, bool *chosen, const struct up_how *how)
{
	cleanup_free bool *named = calloc(a->p.n + 1, sizeof(*named));
	struct err err = ERR_INIT;
	int code = 0;

	if (!named) {
		no_memory(&err);
		return cli_fail(&err, EXIT_FAILURE);
	}
	memcpy(named, chosen, a->p.n * sizeof(*named));
	/* Levels from above: what is added has a lower one. */
	for (unsigned level = a->p.levels; level-- > 0;) {
		for (size_t i = 0; i < a->p.n; i++) {
			if (chosen[i] && a->p.v[i].level == level)
				choose_depends(&a->p, chosen, i);
		}
	}
	for (unsigned level = 0; level < a->p.levels && !code; level++) {
		struct project_sandbox *some[AT_ONCE];
		size_t n = 0;

		for (size_t i = 0; i <= a->p.n && !code; i++) {
			bool take = i < a->p.n && chosen[i] && a->p.v[i].level == level &&
				    !a->p.v[i].build && !(how->only_depends && named[i]);

			if (take)
				some[n++] = &a->p.v[i];
			if (n == AT_ONCE || (n && i == a->p.n)) {
				code = start_some(cli, a, some, n, how->quiet);
				n = 0;
			}
		}
	}
	return code;
}

/* ---- stopping ---- */

/* What is not in the file any more goes first: nobody knows what it depends on. */
static unsigned level_of(const struct project_at *a, const struct sandbox_entry *s)
{
	const struct project_sandbox *e =
		project_get(&a->p, project_label(s, PROJECT_LABEL_SANDBOX), false);

	return e ? e->level : a->p.levels;
}

static bool is_chosen(const struct project_at *a, const bool *chosen, const struct sandbox_entry *s)
{
	const struct project_sandbox *e =
		project_get(&a->p, project_label(s, PROJECT_LABEL_SANDBOX), false);

	return !chosen || (e && chosen[e - a->p.v]);
}

int cli_project_down(struct project_at *a, const bool *chosen, bool force, uint64_t timeout_ms,
		     bool quiet)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	struct err err = ERR_INIT;
	int code = 0;

	if (!a->home.dir)
		return 0;
	if (project_all(a->store, &a->home, &l, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	for (unsigned level = a->p.levels + 1; level-- > 0;) {
		cleanup_strv struct strv names = {0}, shown = {0};
		int r = 0;

		for (size_t i = 0; i < l.count && r == 0; i++) {
			const struct sandbox_entry *s = &l.items[i];

			if (!s->running || level_of(a, s) != level || !is_chosen(a, chosen, s))
				continue;
			r = strv_add(&names, s->record->name);
			if (r == 0)
				r = strv_add(&shown, project_label(s, PROJECT_LABEL_SANDBOX));
		}
		if (r < 0) {
			no_memory(&err);
			return cli_fail(&err, EXIT_FAILURE);
		}
		r = cli_stop_all(a->store, &names, force, timeout_ms, quiet ? NULL : shown.v, NULL);
		(void)fflush(stdout);
		code = code ? code : r;
	}
	return code;
}

/* ---- the verbs ---- */

/* In the foreground: what they print, until all have ended; a signal stops them. */
static int stay(struct project_at *a, const bool *chosen, int64_t since)
{
	cleanup_free struct follow_of *of = calloc(a->p.n + 1, sizeof(*of));
	cleanup_strv struct strv names = {0};
	struct follow *f = NULL;
	struct err err = ERR_INIT;
	size_t n = 0;
	int code, r = of ? 0 : no_memory(&err);

	for (size_t i = 0; i < a->p.n && r == 0; i++) {
		cleanup_free char *name =
			chosen[i] ? project_sandbox_name(&a->home, a->p.v[i].name) : NULL;

		if (!chosen[i])
			continue;
		r = name ? strv_add(&names, name) : -ENOMEM;
		if (r < 0)
			r = no_memory(&err);
		else
			of[n++].shown = a->p.v[i].name;
	}
	for (size_t i = 0; i < n; i++)
		of[i].name = names.v[i];
	if (r == 0)
		r = follow_new(&f, a->store, of, n, since, &err);
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	/* Others may change it while we only watch. */
	a->home.lock = close_fd(a->home.lock);
	code = follow_run(f);
	if (code > EXIT_SIGNAL && code <= EXIT_SIGNAL + 64)
		(void)cli_project_down(a, chosen, false, SANDBOX_STOP_TIMEOUT_MS, true);
	follow_free(f);
	return code;
}

static int run_up(struct cli *cli, struct project_at *a, bool *chosen, const struct up_args *args)
{
	const struct up_how how = {.quiet = args->quiet || !args->detach};
	int64_t since = follow_now();
	int code = cli_project_up(cli, a, chosen, &how);

	if (code || args->detach) {
		/* In the foreground nothing outlives us. */
		if (code && !args->detach)
			(void)cli_project_down(a, chosen, false, SANDBOX_STOP_TIMEOUT_MS, true);
		return code ? code : cli_finish();
	}
	code = stay(a, chosen, since);
	return code ? code : cli_finish();
}

static int begin(struct cli *cli, struct up_args *a, int argc, char **argv, int how, size_t max,
		 struct project_at *at, bool **chosen, int *code)
{
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	int r;

	if (cli_parse_operands(cli, a, argc, argv, 0, max, &words, code))
		return 1;
	attach_block_signals();
	r = cli_project_open(a->file, how, at, &err);
	*chosen = r == 0 ? calloc(at->p.n + 1, sizeof(**chosen)) : NULL;
	if (r == 0)
		r = *chosen ? cli_project_select(at, words.words, words.n, a->group, *chosen, &err)
			    : no_memory(&err);
	if (r < 0)
		*code = attach_pending_signal() ? EXIT_SIGNAL + attach_pending_signal()
						: cli_fail(&err, EXIT_FAILURE);
	return r < 0;
}

static int up(struct cli *cli, int argc, char **argv)
{
	cleanup_project_at struct project_at at = PROJECT_AT_INIT;
	cleanup_free bool *chosen = NULL;
	struct up_args a = {0};
	int code;

	if (begin(cli, &a, argc, argv, PROJECT_MAKE | PROJECT_LOCK, SIZE_MAX, &at, &chosen, &code))
		return code;
	return run_up(cli, &at, chosen, &a);
}

static int down(struct cli *cli, int argc, char **argv)
{
	cleanup_project_at struct project_at at = PROJECT_AT_INIT;
	cleanup_free bool *chosen = NULL;
	struct up_args a = {.timeout_ms = SANDBOX_STOP_TIMEOUT_MS};
	bool all = true;
	int code, end;

	if (begin(cli, &a, argc, argv, PROJECT_LOCK, SIZE_MAX, &at, &chosen, &code))
		return code;
	for (size_t i = 0; i < at.p.n; i++)
		all &= chosen[i] || at.p.v[i].build;
	code = cli_project_down(&at, all ? NULL : chosen, a.force, a.timeout_ms, a.quiet);
	end = cli_finish();
	return code ? code : end;
}

/* Stop what is not in the file any more, or is there as something else. */
static int stop_old(struct project_at *a, bool quiet, struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	cleanup_strv struct strv names = {0}, shown = {0};
	int code, r = project_all(a->store, &a->home, &l, err);

	for (size_t i = 0; i < l.count && r == 0; i++) {
		const struct sandbox_entry *s = &l.items[i];
		const char *name = project_label(s, PROJECT_LABEL_SANDBOX);
		const struct project_sandbox *e = project_get(&a->p, name, false);
		cleanup_project_view struct project_view v = {0};

		if (e)
			r = project_look(a->store, &a->p, &a->home, e, &v, err);
		if (r < 0 || !s->running || (e && !v.changed))
			continue;
		r = strv_add(&names, s->record->name);
		if (r == 0)
			r = strv_addf(&shown, "%s (stopped: %s)", name,
				      e ? "the file says something else now" : "not in the file");
		if (r < 0)
			r = no_memory(err);
	}
	if (r < 0)
		return r;
	code = cli_stop_all(a->store, &names, false, SANDBOX_STOP_TIMEOUT_MS,
			    quiet ? NULL : shown.v, NULL);
	/* Their disks stay, should the file change its mind. */
	for (size_t i = 0; i < l.count && r == 0; i++) {
		const struct sandbox_entry *s = &l.items[i];

		if (!project_get(&a->p, project_label(s, PROJECT_LABEL_SANDBOX), false) &&
		    s->record->spec.root == SANDBOX_ROOT_FILE)
			r = sandbox_remove(a->store, s->record->name, false, err);
	}
	return r < 0 ? r : code;
}

static int apply(struct cli *cli, int argc, char **argv)
{
	cleanup_project_at struct project_at at = PROJECT_AT_INIT;
	cleanup_free bool *chosen = NULL;
	struct up_args a = {0};
	struct err err = ERR_INIT;
	int code, r;

	if (begin(cli, &a, argc, argv, PROJECT_MAKE | PROJECT_LOCK, 0, &at, &chosen, &code))
		return code;
	r = stop_old(&at, a.quiet, &err);
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	code = run_up(cli, &at, chosen, &a);
	return code ? code : r;
}

const struct verb verb_up = {
	.name = "up",
	.group = "Projects",
	.args = "[OPTIONS] [ENTRY…]",
	.summary = "Start the sandboxes of a project",
	.details = "All of them, or those named and what they depend on, in that order: each waits "
		   "until\n"
		   "those it depends on are ready. Their output is shown under their names until "
		   "all have\n"
		   "ended, and Ctrl-C stops them; with -d they are left running. The exit code is "
		   "the\n"
		   "first of theirs that is not 0.",
	.examples = "msb up -d  # and leave them running\n"
		    "msb up web  # and what it depends on",
	.opts = up_opts,
	.nopts = ARRAY_SIZE(up_opts),
	.run = up,
};

const struct verb verb_down = {
	.name = "down",
	.group = "Projects",
	.args = "[OPTIONS] [ENTRY…]",
	.summary = "Stop the sandboxes of a project",
	.details = "Those that others depend on are stopped last. What was written in them stays.",
	.examples = "msb down\n"
		    "msb down web --timeout 60",
	.opts = down_opts,
	.nopts = ARRAY_SIZE(down_opts),
	.run = down,
};

const struct verb verb_apply = {
	.name = "apply",
	.group = "Projects",
	.args = "[OPTIONS]",
	.summary = "Make what runs be what the project's file says",
	.details = "Starts what does not run, stops what is not in the file any more, and starts "
		   "anew what\n"
		   "the file says something else about now.",
	.examples = "msb apply -d",
	.opts = apply_opts,
	.nopts = ARRAY_SIZE(apply_opts),
	.run = apply,
};
