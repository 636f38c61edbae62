/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/state.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "store/store.h"

static const char *const names[] = {
	[SANDBOX_CREATED] = "created",	 [SANDBOX_STARTING] = "starting",
	[SANDBOX_RUNNING] = "running",	 [SANDBOX_DRAINING] = "draining",
	[SANDBOX_STOPPING] = "stopping", [SANDBOX_STOPPED] = "stopped",
	[SANDBOX_PAUSED] = "paused",	 [SANDBOX_CRASHED] = "crashed",
	[SANDBOX_FAILED] = "failed",
};
/* The last event of a sandbox; no state. */
#define REMOVED "removed"

#define TO(state) (1u << (state))

/* Where it may go from each; everything about states is in this table. */
static const struct {
	unsigned to;
	bool alive;
} edges[] = {
	[SANDBOX_CREATED] = {TO(SANDBOX_STARTING), false},
	[SANDBOX_STARTING] = {TO(SANDBOX_RUNNING) | TO(SANDBOX_STOPPING) | TO(SANDBOX_STOPPED) |
				      TO(SANDBOX_CRASHED) | TO(SANDBOX_FAILED),
			      true},
	[SANDBOX_RUNNING] = {TO(SANDBOX_DRAINING) | TO(SANDBOX_PAUSED) | TO(SANDBOX_STOPPING) |
				     TO(SANDBOX_STOPPED) | TO(SANDBOX_CRASHED),
			     true},
	[SANDBOX_DRAINING] = {TO(SANDBOX_STOPPING) | TO(SANDBOX_STOPPED) | TO(SANDBOX_CRASHED),
			      true},
	[SANDBOX_STOPPING] = {TO(SANDBOX_STOPPED) | TO(SANDBOX_CRASHED), true},
	[SANDBOX_STOPPED] = {TO(SANDBOX_STARTING), false},
	[SANDBOX_PAUSED] = {TO(SANDBOX_RUNNING) | TO(SANDBOX_STOPPING) | TO(SANDBOX_STOPPED) |
				    TO(SANDBOX_CRASHED),
			    true},
	[SANDBOX_CRASHED] = {TO(SANDBOX_STARTING), false},
	[SANDBOX_FAILED] = {TO(SANDBOX_STARTING), false},
};
_Static_assert(ARRAY_SIZE(names) == SANDBOX_STATES && ARRAY_SIZE(edges) == SANDBOX_STATES,
	       "a name and a row for each state");

const char *sandbox_state_name(enum sandbox_state s)
{
	return names[s];
}

int sandbox_state_parse(const char *name, enum sandbox_state *ret)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(names); i++) {
		if (str_eq(names[i], name)) {
			*ret = (enum sandbox_state)i;
			return 0;
		}
	}
	return -ERR_CORRUPT;
}

bool sandbox_state_alive(enum sandbox_state s)
{
	return edges[s].alive;
}

bool sandbox_state_allowed(enum sandbox_state from, enum sandbox_state to)
{
	return edges[from].to & TO(to);
}

void sandbox_status_done(struct sandbox_status *s)
{
	free(s->reason);
	s->reason = NULL;
}

/* ---- the database ---- */

/* A statement with its values: t text, i int64_t; c an exit code, which is NULL below 0. */
static int query(struct store *s, sqlite3_stmt **ret, struct err *err, const char *sql,
		 const char *types, ...)
{
	sqlite3_stmt *st = NULL;
	int r = store_prepare(s, &st, sql, err);
	va_list ap;

	if (r < 0)
		return r;
	va_start(ap, types);
	for (int i = 0; types[i]; i++) {
		int64_t n;

		switch (types[i]) {
		case 't':
			sqlite3_bind_text(st, i + 1, va_arg(ap, const char *), -1,
					  SQLITE_TRANSIENT);
			break;
		case 'i':
			sqlite3_bind_int64(st, i + 1, va_arg(ap, int64_t));
			break;
		default:
			n = va_arg(ap, int);
			if (n >= 0)
				sqlite3_bind_int64(st, i + 1, n);
		}
	}
	va_end(ap);
	*ret = st;
	return 0;
}

#define run(s, err, ...)                                                                           \
	({                                                                                         \
		cleanup_stmt sqlite3_stmt *run_st_ = NULL;                                         \
		int run_r_ = query(s, &run_st_, err, __VA_ARGS__);                                 \
		run_r_ < 0 ? run_r_ : store_step(s, run_st_, err);                                 \
	})

static int no_row(const char *name, struct err *err)
{
	err_set(err, ERR_NOT_FOUND, "there is no sandbox \"%s\"", name);
	return err_hint(err, "`msb ls` shows what there is");
}

/* What is in a text column; never NULL. */
static const char *text_of(sqlite3_stmt *st, int column)
{
	const char *text = (const char *)sqlite3_column_text(st, column);

	return text ? text : "";
}

#define STATUS "state, reason, ephemeral, created_at, started_at, changed_at, exit_code"

static int take_status(sqlite3_stmt *st, int at, const char *name, struct sandbox_status *ret,
		       struct err *err)
{
	struct sandbox_status c = {0};

	if (sandbox_state_parse(text_of(st, at), &c.state) < 0) {
		err_set(err, ERR_CORRUPT, "the state of sandbox \"%s\" is \"%s\", which is none",
			name, text_of(st, at));
		return err_hint(err, "update microsandbox, or remove it with `msb rm %s`", name);
	}
	c.reason = strdup(text_of(st, at + 1));
	c.ephemeral = sqlite3_column_int(st, at + 2);
	c.created_at = sqlite3_column_int64(st, at + 3);
	c.started_at = sqlite3_column_int64(st, at + 4);
	c.changed_at = sqlite3_column_int64(st, at + 5);
	c.exit_code = sqlite3_column_type(st, at + 6) == SQLITE_NULL
			      ? -1
			      : sqlite3_column_int(st, at + 6);
	if (!c.reason)
		return err_set(err, ENOMEM, "cannot read the state of sandboxes: out of memory");
	*ret = c;
	return 0;
}

int sandbox_state_read(struct store *s, const char *name, struct sandbox_status *ret,
		       struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = query(s, &st, err, "SELECT " STATUS " FROM sandboxes WHERE name = ?1", "t", name);

	if (r == 0)
		r = store_step(s, st, err);
	if (r < 0)
		return r;
	return r ? take_status(st, 0, name, ret, err) : no_row(name, err);
}

/* One event, with the labels of that moment; the oldest make room. */
static int add_event(struct store *s, const char *name, const char *old, const char *new,
		     const char *reason, int exit_code, struct err *err)
{
	int r = run(s, err,
		    "INSERT INTO events(at, sandbox, old, new, reason, exit_code, labels)"
		    " VALUES(?1, ?2, ?3, ?4, ?5, ?6,"
		    " (SELECT json_group_object(key, value) FROM labels WHERE sandbox = ?2))",
		    "itttt"
		    "c",
		    (int64_t)time(NULL), name, old, new, reason ? reason : "", exit_code);

	if (r < 0)
		return r;
	return run(s, err, "DELETE FROM events WHERE seq <= ?1", "i",
		   (int64_t)sqlite3_last_insert_rowid(store_db(s)) - SANDBOX_EVENTS_MAX);
}

/* The end of a transaction that @r is the result of. */
static int finish(struct store *s, int r, struct err *err)
{
	if (r >= 0)
		r = store_commit(s, err);
	if (r < 0)
		store_rollback(s);
	return MIN(r, 0);
}

static int insert_labels(struct store *s, const char *name, const struct strv *labels,
			 struct err *err)
{
	int r = 0;

	for (size_t i = 0; labels && i < labels->n && r >= 0; i++) {
		const char *text = labels->v[i], *eq = strchr(text, '=');
		cleanup_free char *key = eq ? strndup(text, (size_t)(eq - text)) : strdup(text);

		if (!key)
			return err_set(err, ENOMEM, "cannot keep labels: out of memory");
		r = run(s, err, "INSERT OR REPLACE INTO labels VALUES(?1, ?2, ?3)", "ttt", name,
			key, eq ? eq + 1 : "");
	}
	return r;
}

int sandbox_state_new(struct store *s, const char *name, bool ephemeral, int64_t created_at,
		      const struct strv *labels, struct err *err)
{
	int r = store_begin(s, err);

	if (r < 0)
		return r;
	r = run(s, err, "DELETE FROM sandboxes WHERE name = ?1", "t", name);
	if (r >= 0)
		r = run(s, err, "INSERT INTO sandboxes VALUES(?1, ?2, '', ?3, ?4, 0, ?5, NULL)",
			"tt"
			"iii",
			name, names[SANDBOX_CREATED], (int64_t)ephemeral, created_at,
			(int64_t)time(NULL));
	if (r >= 0)
		r = insert_labels(s, name, labels, err);
	if (r >= 0)
		r = add_event(s, name, "", names[SANDBOX_CREATED], "", -1, err);
	return finish(s, r, err);
}

/* In a transaction. */
static int set_state(struct store *s, const char *name, enum sandbox_state from,
		     enum sandbox_state to, const char *reason, int exit_code, struct err *err)
{
	int64_t now = time(NULL);
	int r = run(s, err,
		    "UPDATE sandboxes SET state = ?2, reason = ?3, changed_at = ?4, exit_code = ?5"
		    " WHERE name = ?1",
		    "ttt"
		    "ic",
		    name, names[to], reason ? reason : "", now, exit_code);

	if (r >= 0 && to == SANDBOX_STARTING)
		r = run(s, err, "UPDATE sandboxes SET started_at = ?2 WHERE name = ?1", "ti", name,
			now);
	return r < 0 ? r : add_event(s, name, names[from], names[to], reason, exit_code, err);
}

int sandbox_state_change(struct store *s, const char *name, enum sandbox_state to,
			 const char *reason, struct err *err)
{
	cleanup_status struct sandbox_status now = {0};
	int r = store_begin(s, err);

	if (r < 0)
		return r;
	r = sandbox_state_read(s, name, &now, err);
	if (r == 0 && now.state != to) {
		if (sandbox_state_allowed(now.state, to))
			r = set_state(s, name, now.state, to, reason, -1, err);
		else
			r = err_set(err, EBUSY, "sandbox \"%s\" is %s", name, names[now.state]);
	}
	r = finish(s, r, err);
	return r < 0 ? r : now.state == to;
}

/* In a transaction. */
static int put_row(struct store *s, const char *name, bool there, const struct sandbox_status *is,
		   const struct strv *labels, struct err *err)
{
	int r;

	if (there)
		return run(s, err,
			   "UPDATE sandboxes SET state = ?2, reason = ?3, changed_at = ?4,"
			   " exit_code = ?5 WHERE name = ?1",
			   "ttt"
			   "ic",
			   name, names[is->state], is->reason, (int64_t)time(NULL), is->exit_code);
	r = run(s, err, "INSERT INTO sandboxes VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
		"ttt"
		"iiii"
		"c",
		name, names[is->state], is->reason, (int64_t)is->ephemeral, is->created_at,
		is->started_at, (int64_t)time(NULL), is->exit_code);
	return r < 0 ? r : insert_labels(s, name, labels, err);
}

int sandbox_state_put(struct store *s, const char *name, const struct sandbox_status *seen,
		      const struct sandbox_status *is, const struct strv *labels, struct err *err)
{
	cleanup_status struct sandbox_status now = {0};
	bool same;
	int r = store_begin(s, err);

	if (r < 0)
		return r;
	r = sandbox_state_read(s, name, &now, NULL);
	same = seen ? r == 0 && now.state == seen->state && now.changed_at == seen->changed_at
		    : r == -ERR_NOT_FOUND;
	r = same ? put_row(s, name, seen, is, labels, err) : 0;
	if (r >= 0 && same)
		r = add_event(s, name, seen ? names[seen->state] : "", names[is->state], is->reason,
			      is->exit_code, err);
	r = finish(s, r, err);
	return r < 0 ? r : !same;
}

static enum sandbox_state end_of(const struct sandbox_status *now, const struct sandbox_end *end)
{
	if (end->asked || now->state == SANDBOX_STOPPING)
		return SANDBOX_STOPPED;
	return !end->was_ready && now->state == SANDBOX_STARTING ? SANDBOX_FAILED : SANDBOX_CRASHED;
}

/* In a transaction: the end of what lives; nothing otherwise. */
static int end_row(struct store *s, const char *name, struct sandbox_status *now,
		   const struct sandbox_end *end, struct err *err)
{
	enum sandbox_state to = end_of(now, end);
	const char *reason = end->reason;
	int r;

	if (!sandbox_state_alive(now->state))
		return 0;
	if (now->state == SANDBOX_STOPPING && now->reason[0])
		reason = now->reason;
	r = set_state(s, name, now->state, to, reason, end->exit_code, err);
	now->state = to;
	return r;
}

int sandbox_state_end(struct store *s, const char *name, const struct sandbox_end *end,
		      enum sandbox_state *became, struct err *err)
{
	cleanup_status struct sandbox_status now = {.state = SANDBOX_STARTING};
	int r = store_begin(s, err);

	if (r == 0)
		r = sandbox_state_read(s, name, &now, err);
	if (became)
		*became = sandbox_state_alive(now.state) ? end_of(&now, end) : now.state;
	if (r == 0)
		r = end_row(s, name, &now, end, err);
	return finish(s, r, err);
}

int sandbox_state_drop(struct store *s, const char *name, const struct sandbox_end *end,
		       struct err *err)
{
	cleanup_status struct sandbox_status now = {0};
	int r = sandbox_state_read(s, name, &now, err);

	if (r == 0 && end)
		r = end_row(s, name, &now, end, err);
	/* A row whose state makes no sense goes as well. */
	if (r >= 0 || r == -ERR_CORRUPT)
		r = add_event(s, name, sandbox_state_name(now.state), REMOVED, "", -1, err);
	else if (r == -ERR_NOT_FOUND)
		r = 0;
	if (r >= 0)
		r = run(s, err, "DELETE FROM sandboxes WHERE name = ?1", "t", name);
	return r < 0 ? r : store_unuse_image(s, name, err);
}

int sandbox_state_remove(struct store *s, const char *name, const struct sandbox_end *end,
			 struct err *err)
{
	int r = store_begin(s, err);

	return r < 0 ? r : finish(s, sandbox_state_drop(s, name, end, err), err);
}

int sandbox_state_labels(struct store *s, const char *name, const struct strv *labels,
			 struct err *err)
{
	cleanup_status struct sandbox_status now = {0};
	int r = store_begin(s, err);

	if (r < 0)
		return r;
	r = sandbox_state_read(s, name, &now, err);
	if (r >= 0)
		r = run(s, err, "DELETE FROM labels WHERE sandbox = ?1", "t", name);
	if (r >= 0)
		r = insert_labels(s, name, labels, err);
	r = finish(s, r, err);
	/* Its record is synced, and nobody compares the two again. */
	return r < 0 ? r : store_sync(s, err);
}

int sandbox_state_select(struct store *s, const struct strv *labels, struct strv *ret,
			 struct err *err)
{
	cleanup_strv struct strv found = {0};
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = query(s, &st, err, "SELECT name FROM sandboxes ORDER BY name", "");

	while (r >= 0 && (r = store_step(s, st, err)) > 0) {
		const char *name = text_of(st, 0);

		for (size_t i = 0; i < labels->n && r > 0; i++) {
			const char *text = labels->v[i], *eq = strchr(text, '=');
			cleanup_free char *key =
				eq ? strndup(text, (size_t)(eq - text)) : strdup(text);

			if (!key)
				return err_set(err, ENOMEM, "cannot select: out of memory");
			r = run(s, err,
				"SELECT 1 FROM labels WHERE sandbox = ?1 AND key = ?2"
				" AND (value = ?3 OR ?4)",
				"ttti", name, key, eq ? eq + 1 : "", (int64_t)!eq);
		}
		if (r > 0 && strv_add(&found, name) < 0)
			return err_set(err, ENOMEM, "cannot select: out of memory");
	}
	if (r < 0)
		return r;
	*ret = found;
	found = (struct strv){0};
	return 0;
}

void sandbox_states_done(struct sandbox_states *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->rows[i].name);
		sandbox_status_done(&l->rows[i].status);
	}
	free(l->rows);
	*l = (struct sandbox_states){0};
}

int sandbox_states_read(struct store *s, struct sandbox_states *ret, struct err *err)
{
	cleanup_states struct sandbox_states l = {0};
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = query(s, &st, err, "SELECT name, " STATUS " FROM sandboxes ORDER BY name", "");

	while (r >= 0 && (r = store_step(s, st, err)) > 0) {
		struct sandbox_state_row *rows = reallocarray(l.rows, l.n + 1, sizeof(*l.rows));

		if (!rows)
			return err_set(err, ENOMEM, "cannot list sandboxes: out of memory");
		l.rows = rows;
		rows[l.n] = (struct sandbox_state_row){.name = strdup(text_of(st, 0))};
		if (!rows[l.n++].name)
			return err_set(err, ENOMEM, "cannot list sandboxes: out of memory");
		r = take_status(st, 1, rows[l.n - 1].name, &rows[l.n - 1].status, err);
	}
	if (r < 0)
		return r;
	*ret = l;
	l = (struct sandbox_states){0};
	return 0;
}

static int by_name(const void *key, const void *row)
{
	return strcmp(key, ((const struct sandbox_state_row *)row)->name);
}

struct sandbox_status *sandbox_states_find(const struct sandbox_states *l, const char *name)
{
	struct sandbox_state_row *row =
		l->n ? bsearch(name, l->rows, l->n, sizeof(*l->rows), by_name) : NULL;

	return row ? &row->status : NULL;
}

int sandbox_events_last(struct store *s, int64_t *ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = query(s, &st, err, "SELECT coalesce(max(seq), 0) FROM events", "");

	if (r == 0)
		r = store_step(s, st, err);
	if (r < 0)
		return r;
	*ret = sqlite3_column_int64(st, 0);
	return 0;
}

#define ENDS "('stopped', 'crashed', 'failed')"

static int take_end(struct store *s, sqlite3_stmt *st, int *exit_code, bool *clean, struct err *err)
{
	int r = store_step(s, st, err);

	if (r <= 0)
		return r;
	*exit_code = sqlite3_column_type(st, 1) == SQLITE_NULL ? -1 : sqlite3_column_int(st, 1);
	*clean = str_eq(text_of(st, 0), "stopped");
	return 1;
}

int sandbox_events_end(struct store *s, const char *name, int64_t since, int *exit_code,
		       bool *clean, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = query(s, &st, err,
		      "SELECT new, exit_code FROM events WHERE sandbox = ?1 AND seq > ?2 AND"
		      " new IN " ENDS " ORDER BY seq LIMIT 1",
		      "ti", name, since);

	return r < 0 ? r : take_end(s, st, exit_code, clean, err);
}

int sandbox_events_past(struct store *s, const char *name, int *exit_code, bool *clean,
			struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = query(s, &st, err,
		      "SELECT new, exit_code FROM (SELECT new, exit_code FROM events"
		      " WHERE sandbox = ?1 AND new <> '" REMOVED "' ORDER BY seq DESC LIMIT 1)"
		      " WHERE new IN " ENDS,
		      "t", name);

	return r < 0 ? r : take_end(s, st, exit_code, clean, err);
}
