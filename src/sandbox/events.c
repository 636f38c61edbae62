/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/events.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "store/store.h"

/* The name that store.h gives the database; its log has "-wal" behind it. */
#define DATABASE "msb.db"

void sandbox_events_done(struct sandbox_events *l)
{
	for (size_t i = 0; i < l->n; i++) {
		struct sandbox_event *e = &l->v[i];

		free(e->sandbox);
		free(e->old);
		free(e->new);
		free(e->reason);
		free(e->labels);
	}
	free(l->v);
	*l = (struct sandbox_events){0};
}

int sandbox_events_watch(struct store *s, struct err *err)
{
	cleanup_close int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	/* The directory: the log may come and go, and so may the database. */
	if (fd < 0 || inotify_add_watch(fd, store_home(s),
					IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE) < 0) {
		int r = err_errno(err, "cannot watch %s", store_home(s));

		if (errno == EMFILE || errno == ENOSPC)
			err_hint(err, "raise fs.inotify.max_user_instances and max_user_watches, "
				      "or use --no-follow");
		return r;
	}
	return take_fd(&fd);
}

int sandbox_events_noticed(int watch, struct err *err)
{
	_Alignas(struct inotify_event) char b[4096];
	ssize_t n;

	while ((n = read(watch, b, sizeof(b))) > 0) {
		const struct inotify_event *e;

		for (char *at = b; at < b + n; at += sizeof(*e) + e->len) {
			e = (const struct inotify_event *)at;
			if (e->mask & IN_IGNORED ||
			    (e->mask & ~IN_MODIFY && e->len && str_eq(e->name, DATABASE))) {
				err_set(err, ERR_NOT_FOUND,
					"the database was moved away or removed, and with it the "
					"events");
				return err_hint(err, "start again to follow the new one");
			}
		}
	}
	return 0;
}

static char *column(sqlite3_stmt *st, int i)
{
	const char *text = (const char *)sqlite3_column_text(st, i);

	return strdup(text ? text : "");
}

static int take_row(sqlite3_stmt *st, struct sandbox_events *l, struct err *err)
{
	struct sandbox_event *v = reallocarray(l->v, l->n + 1, sizeof(*v)), *e;

	if (!v)
		return err_set(err, ENOMEM, "cannot read events: out of memory");
	l->v = v;
	e = &v[l->n++];
	*e = (struct sandbox_event){
		.seq = sqlite3_column_int64(st, 0),
		.at = sqlite3_column_int64(st, 1),
		.sandbox = column(st, 2),
		.old = column(st, 3),
		.new = column(st, 4),
		.reason = column(st, 5),
		.labels = column(st, 7),
		.exit_code =
			sqlite3_column_type(st, 6) == SQLITE_NULL ? -1 : sqlite3_column_int(st, 6),
	};
	if (!e->sandbox || !e->old || !e->new || !e->reason || !e->labels)
		return err_set(err, ENOMEM, "cannot read events: out of memory");
	return 0;
}

static int read_rows(struct store *s, int64_t after, size_t max, struct sandbox_events *l,
		     struct err *err)
{
	cleanup_stmt sqlite3_stmt *first = NULL;
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = store_prepare(s, &first, "SELECT coalesce(min(seq), 0) FROM events", err);

	if (r == 0)
		r = store_step(s, first, err);
	if (r < 0)
		return r;
	l->first = sqlite3_column_int64(first, 0);
	r = store_prepare(s, &st,
			  "SELECT seq, at, sandbox, old, new, reason, exit_code, labels FROM events"
			  " WHERE seq > ?1 ORDER BY seq LIMIT ?2",
			  err);
	if (r < 0)
		return r;
	sqlite3_bind_int64(st, 1, after);
	sqlite3_bind_int64(st, 2, (int64_t)max);
	while ((r = store_step(s, st, err)) > 0) {
		r = take_row(st, l, err);
		if (r < 0)
			return r;
	}
	return r;
}

int sandbox_events_read(struct store *s, int64_t after, size_t max, struct sandbox_events *ret,
			struct err *err)
{
	cleanup_events struct sandbox_events l = {0};
	int r = store_begin(s, err);

	if (r < 0)
		return r;
	r = read_rows(s, after, max, &l, err);
	store_rollback(s);
	if (r < 0)
		return r;
	*ret = l;
	l = (struct sandbox_events){0};
	return 0;
}
