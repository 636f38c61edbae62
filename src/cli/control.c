/* SPDX-License-Identifier: Apache-2.0 */
/* msb pause, resume, ping, touch, drain: asking the machines of sandboxes that run. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/point.h"
#include "cli/cli.h"
#include "cli/select.h"
#include "sandbox/change.h"
#include "sandbox/control_client.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/state.h"
#include "store/store.h"

struct control_args {
	struct select_args which; /* first: select_opts sets it */
	bool touch;
	uint64_t timeout_ns;
};

#define ARGS(field) offsetof(struct control_args, field)

/* What a verb does with one sandbox; prints what there is to say about it. */
typedef int control_verb_fn(struct store *s, const char *name, const struct control_args *a,
			    struct err *err);

/*
 * The same for each sandbox, and then another thing for those where that went well; one that fails
 * does not keep the others from it.
 */
static int each(struct cli *cli, int argc, char **argv, control_verb_fn *fn, control_verb_fn *after)
{
	struct control_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_strv struct strv names = {0};
	cleanup_free bool *failed = NULL;
	struct err err = ERR_INIT;
	bool any = false;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 0, SIZE_MAX, &words, &code))
		return code;
	r = store_open(&store, NULL, &err);
	if (r == 0) {
		sandbox_dir_heal(store, true);
		r = cli_select(cli, store, &a.which, &words, SELECT_RUNNING, &names, &err);
	}
	if (r == -ERR_USAGE)
		err_hint(&err, "usage: msb %s %s", cli->verb->name, cli->verb->args);
	if (r < 0)
		return cli_fail(&err, r == -ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE);
	failed = calloc(names.n + 1, sizeof(*failed));
	if (!failed) {
		err_set(&err, ENOMEM, "out of memory");
		return cli_fail(&err, EXIT_FAILURE);
	}
	for (size_t k = 0; k < names.n * 2; k++) {
		size_t i = k % names.n;
		control_verb_fn *f = k < names.n ? fn : after;

		if (!f || failed[i])
			continue;
		err_clear(&err);
		failed[i] = f(store, names.v[i], &a, &err) < 0;
		if (failed[i])
			cli_error(&err);
		any |= failed[i];
	}
	code = cli_finish();
	return any ? EXIT_FAILURE : code;
}

static int ask(struct store *s, const char *name, int32_t op, struct err *err)
{
	return control_request(s, name, &(struct control_request){.op = op}, NULL, err);
}

static void say(const struct control_args *a, const char *name)
{
	if (!a->which.quiet)
		puts(name);
}

/*
 * Have its machine do it, and its row say so. Once the machine has changed, a row that cannot be
 * written, or is on to something else, is no failure: the next command looks again.
 */
static int change(struct store *s, const char *name, const struct control_request *q,
		  const enum sandbox_state *states, size_t n, struct err *err)
{
	struct sandbox_change c = SANDBOX_CHANGE_INIT;
	int r = sandbox_change_begin(s, name, &c, err);
	bool told = true;

	if (r < 0)
		return r;
	r = control_request(s, name, q, NULL, err);
	point("change:machine");
	for (size_t i = 0; i < n && r == 0; i++)
		told = sandbox_state_change(s, name, states[i], "asked", NULL) >= 0;
	sandbox_change_end(&c, r < 0 || told);
	return r;
}

/* ---- pause, resume, touch ---- */

static int pause_one(struct store *s, const char *name, const struct control_args *a,
		     struct err *err)
{
	static const enum sandbox_state to[] = {SANDBOX_PAUSED};
	int r = change(s, name, &(struct control_request){.op = CONTROL_PAUSE}, to, 1, err);

	if (r == 0)
		say(a, name);
	return r;
}

static int resume_one(struct store *s, const char *name, const struct control_args *a,
		      struct err *err)
{
	static const enum sandbox_state to[] = {SANDBOX_RUNNING};
	int r = change(s, name, &(struct control_request){.op = CONTROL_RESUME}, to, 1, err);

	if (r == 0)
		say(a, name);
	return r;
}

static int touch_one(struct store *s, const char *name, const struct control_args *a,
		     struct err *err)
{
	int r = ask(s, name, CONTROL_TOUCH, err);

	if (r == 0)
		say(a, name);
	return r;
}

static int pause_verb(struct cli *cli, int argc, char **argv)
{
	return each(cli, argc, argv, pause_one, NULL);
}

static int resume_verb(struct cli *cli, int argc, char **argv)
{
	return each(cli, argc, argv, resume_one, NULL);
}

static int touch_verb(struct cli *cli, int argc, char **argv)
{
	return each(cli, argc, argv, touch_one, NULL);
}

const struct verb verb_pause = {
	.name = "pause",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.entries = true,
	.summary = "Hold sandboxes where they are",
	.details = "A paused sandbox takes no CPU time and keeps its memory. Commands and clients "
		   "wait; its\n"
		   "maximal duration goes on, its idle timeout does not.",
	.examples = "msb pause box\n"
		    "msb pause --all",
	.shared = &select_opts,
	.run = pause_verb,
};

const struct verb verb_resume = {
	.name = "resume",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.entries = true,
	.summary = "Let paused sandboxes go on",
	.examples = "msb resume box\n"
		    "msb resume --all",
	.shared = &select_opts,
	.run = resume_verb,
};

const struct verb verb_touch = {
	.name = "touch",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.entries = true,
	.summary = "Begin the idle timeout of sandboxes anew",
	.examples = "msb touch box  # its --idle-timeout begins anew",
	.shared = &select_opts,
	.run = touch_verb,
};

/* ---- ping ---- */

static const struct opt ping_opts[] = {
	{0, "touch", NULL, "Begin their idle timeout anew as well", opt_set_flag, ARGS(touch), 0},
};

static int ping_one(struct store *s, const char *name, const struct control_args *a,
		    struct err *err)
{
	const struct control_request q = {.op = CONTROL_PING};
	cleanup_answer struct control_answer answer = {0};
	int r = control_request(s, name, &q, &answer, err);

	if (r == 0 && a->touch)
		r = ask(s, name, CONTROL_TOUCH, err);
	if (r == 0 && !a->which.quiet)
		printf("%s: %.3f ms\n", name, (double)answer.elapsed_ns / 1e6);
	return r;
}

static int ping_verb(struct cli *cli, int argc, char **argv)
{
	return each(cli, argc, argv, ping_one, NULL);
}

const struct verb verb_ping = {
	.name = "ping",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.entries = true,
	.summary = "Ask the agents of sandboxes for a sign of life, and how long that takes",
	.details = "This is no activity: it does not keep a sandbox from its idle timeout.",
	.examples = "msb ping box\n"
		    "msb ping --touch box",
	.opts = ping_opts,
	.nopts = ARRAY_SIZE(ping_opts),
	.shared = &select_opts,
	.run = ping_verb,
};

/* ---- drain ---- */

static const struct opt drain_opts[] = {
	{'t', "timeout", "SECONDS", "Stop them after this, whatever runs [never]", opt_set_timeout,
	 ARGS(timeout_ns), 0},
};

static int drain_one(struct store *s, const char *name, const struct control_args *a,
		     struct err *err)
{
	const struct control_request q = {.op = CONTROL_DRAIN, .timeout_ns = a->timeout_ns};
	/* One that was paused goes on first. */
	static const enum sandbox_state to[] = {SANDBOX_RUNNING, SANDBOX_DRAINING};

	return change(s, name, &q, to, ARRAY_SIZE(to), err);
}

static int drained_one(struct store *s, const char *name, const struct control_args *a,
		       struct err *err)
{
	int r;

	cli_busy(a->which.quiet, "waiting for what runs in %s", name);
	r = sandbox_wait_end(s, name, -1, err);
	cli_busy_end();
	if (r == 0)
		say(a, name);
	return r;
}

static int drain_verb(struct cli *cli, int argc, char **argv)
{
	return each(cli, argc, argv, drain_one, drained_one);
}

const struct verb verb_drain = {
	.name = "drain",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.entries = true,
	.summary = "Let what runs in sandboxes finish, and stop them",
	.details = "New commands are refused from now on. Interrupted, this command only stops "
		   "waiting:\n"
		   "the sandboxes go on draining.",
	.examples = "msb drain web  # until its commands have ended\n"
		    "msb drain -t 60 --label team=core",
	.opts = drain_opts,
	.nopts = ARRAY_SIZE(drain_opts),
	.shared = &select_opts,
	.run = drain_verb,
};
