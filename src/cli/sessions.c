/* SPDX-License-Identifier: Apache-2.0 */
/* msb attach: back to a command that was left to itself, and a list of those. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/attach.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "sandbox/reach.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/session_msg.h"
#include "store/store.h"

struct attach_args {
	bool list, json, quiet, no_replay;
	struct keys keys;
};

#define ARGS(field) offsetof(struct attach_args, field)

static const struct opt attach_opts[] = {
	{'l', "list", NULL, "List the sessions there are", opt_set_flag, ARGS(list), 0},
	{0, "format", "json|table", "How to list them [table]", opt_set_format, ARGS(json), 0},
	{0, "detach-keys", "KEYS", "Keys that leave the session, as in ctrl-p,ctrl-q [ctrl-]]",
	 keys_set, ARGS(keys), 0},
	{0, "no-replay", NULL, "Without what it has printed so far", opt_set_flag, ARGS(no_replay),
	 0},
	{'q', "quiet", NULL, "Show no warnings; list only names", opt_set_flag, ARGS(quiet), 0},
};

/* ---- the list ---- */

struct listing {
	struct loop *loop;
	struct agent_client *client;
	struct agent_exec *exec;
	struct session_listing rows;
	struct err *err;
	int r;
};

static void on_other(void *arg, const struct envelope *env)
{
	struct listing *l = arg;

	if (session_kind_find(env->name, env->name_len) != SESSION_LISTING)
		return;
	l->r = wire_decode(session_types[SESSION_LISTING].table, env->payload, env->payload_len,
			   &l->rows, l->err);
	loop_quit(l->loop, 0);
}

static void on_failed(void *arg, const struct msg_exec_failed *m)
{
	struct listing *l = arg;

	l->r = err_set(l->err, ERR_PROTOCOL, "%s", m->message ? m->message : "refused");
	loop_quit(l->loop, 0);
}

static const struct agent_exec_ops list_ops = {.other = on_other, .failed = on_failed};

static void on_ready(void *arg, const struct msg_ready *ready)
{
	struct listing *l = arg;

	(void)ready;
	l->r = agent_exec_open(&l->exec, l->client, &session_types[SESSION_LIST],
			       &(struct msg_empty){0}, &list_ops, l, l->err);
	if (l->r < 0)
		loop_quit(l->loop, 0);
}

static void on_closed(void *arg, const struct err *why)
{
	struct listing *l = arg;

	l->r = err_copy(l->err, why);
	loop_quit(l->loop, 0);
}

static const struct agent_client_ops client_ops = {.ready = on_ready, .closed = on_closed};

static int ask_list(int fd, struct session_listing *ret, struct err *err)
{
	struct listing l = {.err = err};
	int r = loop_new(&l.loop, err);

	if (r < 0) {
		close_fd(fd);
		return r;
	}
	r = agent_client_new(&l.client, l.loop, fd, &client_ops, &l, err);
	if (r == 0)
		r = loop_run(l.loop);
	agent_client_free(l.client);
	loop_free(l.loop);
	*ret = l.rows;
	return r < 0 ? r : l.r;
}

static const char *status(const struct session_row *r, char b[32])
{
	if (r->running)
		return "running";
	snprintf(b, 32, "ended (%d)", r->code);
	return b;
}

static void list_table(const struct session_row *rows, size_t n)
{
	enum { COLUMNS = 6 };
	cleanup_free const char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells));
	cleanup_free char(*texts)[4][32] = calloc(n + 1, sizeof(*texts));
	static const char *const heads[] = {"SESSION", "COMMAND", "STATUS",
					    "CLIENTS", "DROPPED", "STARTED"};

	if (!cells || !texts)
		return;
	memcpy(cells, heads, sizeof(heads));
	for (size_t i = 0; i < n; i++) {
		const char **row = cells + (i + 1) * COLUMNS;

		row[0] = rows[i].name;
		row[1] = rows[i].command;
		row[2] = status(&rows[i], texts[i][0]);
		snprintf(texts[i][1], sizeof(texts[i][1]), "%u", rows[i].clients);
		row[3] = texts[i][1];
		row[4] = rows[i].dropped ? str_size(rows[i].dropped, texts[i][3]) : "-";
		row[5] = cli_age(rows[i].started_at, texts[i][2]);
	}
	cli_table(cells, COLUMNS, n + 1);
}

static json_t *list_json(const struct session_row *rows, size_t n)
{
	json_t *out = json_array();

	for (size_t i = 0; i < n; i++) {
		const struct session_row *r = &rows[i];
		char started[32], ended[32];
		json_t *j = json_pack("{s:s,s:s,s:b,s:s,s:i,s:I,s:I,s:s}", "session", r->name,
				      "command", r->command, "tty", r->tty, "status",
				      r->running ? "running" : "ended", "clients", (int)r->clients,
				      "printed_bytes", (json_int_t)r->printed, "dropped_bytes",
				      (json_int_t)r->dropped, "started_at",
				      cli_time(r->started_at, started));

		if (!r->running) {
			json_object_set_new(j, "exit_code", json_integer(r->code));
			json_object_set_new(j, "ended_at",
					    json_string(cli_time(r->ended_at, ended)));
		}
		json_array_append_new(out, j);
	}
	return out;
}

static int show_list(const struct session_listing *l, const struct attach_args *a)
{
	const struct session_row *rows = l->rows.v;
	int code = 0;

	if (a->json) {
		code = cli_json(list_json(rows, l->rows.n));
	} else if (a->quiet) {
		for (size_t i = 0; i < l->rows.n; i++)
			puts(rows[i].name);
	} else {
		list_table(rows, l->rows.n);
	}
	return code ? code : cli_finish();
}

static int list(int fd, const struct attach_args *a)
{
	struct session_listing l = {0};
	struct err err = ERR_INIT;
	int code;

	if (ask_list(fd, &l, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	code = show_list(&l, a);
	wire_free(session_types[SESSION_LISTING].table, &l);
	return code;
}

/* Of a sandbox that does not run, as @why says: what its sessions ended with. An exit code. */
static int past(struct store *store, const struct attach_args *a, const struct opt_words *words,
		const struct err *why)
{
	const char *name = words->words[0], *session = words->n > 1 ? words->words[1] : NULL;
	cleanup_close int dir = sandbox_dir_open(store, name, NULL);
	struct session_listing l = {0};
	const struct session_row *row = NULL;
	int code;

	if (dir < 0 || session_past_read(dir, &l, NULL) < 0)
		return cli_fail(why, EXIT_OURS);
	for (size_t i = 0; i < l.rows.n; i++) {
		const struct session_row *at = (const struct session_row *)l.rows.v + i;

		if (session ? str_eq(at->name, session) : l.rows.n == 1)
			row = at;
	}
	if (a->list || a->json) {
		code = show_list(&l, a);
	} else if (!row) {
		code = cli_fail(why, EXIT_OURS);
	} else {
		code = row->code;
		if (!a->quiet)
			cli_warn("session %s has ended, and so has the sandbox: `msb logs %s` "
				 "shows what was printed",
				 row->name, name);
	}
	wire_free(session_types[SESSION_LISTING].table, &l);
	return code;
}

static int attach(struct cli *cli, int argc, char **argv)
{
	struct attach_args a = {.keys = KEYS_INIT};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free char *name = NULL;
	struct attach to = {.how = ATTACH_TO};
	struct err err = ERR_INIT;
	int code, died = 0, r;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 2, &words, &code))
		return code;
	r = store_open(&store, NULL, &err);
	if (r >= 0)
		r = cli_project_name(cli, store, NULL, words.words[0], &name, &err);
	if (r >= 0)
		words.words[0] = name;
	if (r >= 0)
		r = to.fd = sandbox_reach_sessions(store, name, true, &err);
	if (r == -ENOTCONN)
		return past(store, &a, &words, &err);
	if (r < 0)
		return cli_fail(&err, EXIT_OURS);
	/* A format is of nothing else. */
	if (a.list || a.json)
		return list(to.fd, &a);
	attach_block_signals();
	to.name = name;
	to.session = words.n > 1 ? words.words[1] : NULL;
	to.keys = a.keys;
	to.no_replay = a.no_replay;
	to.quiet = a.quiet;
	r = attach_run(&to, &died, &err);
	return attach_leave(r, died, &err);
}

const struct verb verb_attach = {
	.name = "attach",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME [SESSION]",
	.entries = true,
	.summary = "Come back to a command that was left to itself",
	.details =
		"Sessions are commands run with `exec -d`, and those on a terminal that were left "
		"by the\n"
		"keys. What one has printed last is shown again, then what comes; its exit code is "
		"ours.\n"
		"Several may be attached to one at the same time. Without a SESSION, it is the "
		"only one.\n"
		"Once the sandbox has stopped, and until it starts again, there are still the "
		"exit codes that\n"
		"nobody has asked for; what was printed is in `msb logs`.",
	.examples = "msb attach -l box  # which there are\n"
		    "msb attach box  # ctrl-] leaves it again\n"
		    "msb attach --no-replay box web",
	.opts = attach_opts,
	.nopts = ARRAY_SIZE(attach_opts),
	.run = attach,
	.usage_code = EXIT_OURS,
};
