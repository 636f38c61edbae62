/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What killed processes left behind: directories, sockets, and rows that say what is not so.
 *
 * Theory of operation. What a sandbox is, and how it lives, is said by its files, its row and its
 * machine, and no single step changes them together. The steps have an order in which everything
 * between two of them can be told from what is meant, by the next command:
 *
 * Steps, in order, and what is found after a kill between two of them:
 *
 *	create	directory, row, claim, config.json, "starting", machine, "running"
 *		no config.json		nobody's: all of it goes
 *		never had a machine	goes as well: who wanted it was not told that it is there
 *		"starting", lock free	crashed
 *		"starting" for long	as its machine says
 *	stop	"stopping", signal
 *		"stopping" for long	as its machine says
 *	pause, resume, drain		mark, machine, row, no mark
 *		mark			as its machine says
 *	modify	mark, config.json, labels, machine, no mark
 *		mark			labels as in config.json, the rest with the next machine
 *	end	of the machine, row, machine.json, sockets
 *		sockets, lock free	row and files are finished
 *	rm, --replace			config.json, row and claim, directory
 *		no config.json		nobody's
 *	the database was lost
 *		no row			as its machine says; lock free: as machine.json says
 *
 * Of one that lives, whether the row is in doubt is seen from the directory alone, so that machines
 * are asked only then, and without the lock on sandboxes/.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/change.h"
#include "sandbox/control_client.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir_impl.h"
#include "sandbox/sandbox_impl.h"
#include "sandbox/state.h"
#include "store/store.h"

#define KILLED "its owner was killed"

/* Until then those who write "starting" and "stopping" may be about to go on: seconds. */
enum { LONG = 2, ASK_MS = 500 };

static bool there(int dirfd, const char *name)
{
	return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void sandbox_state_guess(int dirfd, struct sandbox_status *s)
{
	cleanup_machine struct sandbox_machine m = {0};
	bool started = s->reason; /* as its row says */

	free(s->reason);
	s->reason = NULL;
	if (record_machine_read(dirfd, &m, NULL) < 0) {
		s->state = started ? SANDBOX_CRASHED : SANDBOX_STOPPED;
		s->reason = strdup(started ? KILLED : "");
		return;
	}
	s->started_at = m.started_at;
	if (!m.ended_at || sandbox_state_parse(m.state, &s->state) < 0 ||
	    sandbox_state_alive(s->state))
		s->state = m.ended_at ? SANDBOX_STOPPED : SANDBOX_CRASHED;
	s->exit_code = m.exit_code - 1;
	s->reason = strdup(m.ended_at && m.end ? m.end : KILLED);
}

/* A row for a sandbox that has none: of a store that was older, or whose database was lost. */
static int adopt_row(struct store *s, const struct sandbox_record *record,
		     struct sandbox_status *is, struct err *err)
{
	int r;

	is->created_at = record->created_at;
	is->ephemeral = record->ephemeral;
	if (!is->reason)
		return err_set(err, ENOMEM, "out of memory");
	r = sandbox_state_put(s, record->name, NULL, is, &record->spec.labels, err);
	/* Without its image it cannot start, but can be looked at and removed. */
	if (r >= 0 && !record->ephemeral && record->image_id[0])
		(void)store_use_image(s, record->name, record->image_id, NULL);
	return MIN(r, 0);
}

/* Its row says how it ended; so shall the rest. */
static void finish_end(int dirfd, const struct sandbox_status *row)
{
	cleanup_machine struct sandbox_machine m = {0};
	cleanup_buf struct buf b = BUF_INIT;

	if (record_machine_read(dirfd, &m, NULL) == 0 && !m.ended_at) {
		m.ended_at = row->changed_at;
		m.end = strdup(row->reason);
		m.state = strdup(sandbox_state_name(row->state));
		m.exit_code = row->exit_code + 1;
		if (record_machine_encode(&m, &b) == 0)
			(void)record_put(dirfd, RECORD_MACHINE, &b);
	}
	sandbox_dir_clean(dirfd);
}

int sandbox_heal_row(struct store *s, int dirfd, const struct sandbox_record *record,
		     struct err *err)
{
	cleanup_status struct sandbox_status now = {0};
	struct sandbox_end end = {.was_ready = true, .exit_code = -1};
	int r = sandbox_state_read(s, record->name, &now, err);

	if (r == 0 && !sandbox_state_alive(now.state)) {
		if (there(dirfd, SANDBOX_AGENT_SOCKET))
			finish_end(dirfd, &now);
		return 0;
	}
	if (r < 0 && r != -ERR_NOT_FOUND)
		return r;
	sandbox_dir_clean(dirfd);
	if (r == -ERR_NOT_FOUND) {
		err_clear(err);
		sandbox_state_guess(dirfd, &now);
		return adopt_row(s, record, &now, err);
	}
	sandbox_state_guess(dirfd, &now);
	end.asked = now.state == SANDBOX_STOPPED;
	end.reason = now.reason;
	end.exit_code = now.exit_code;
	return sandbox_state_end(s, record->name, &end, NULL, err);
}

/* Whoever wanted it was killed before it had a machine. */
static bool never_lived(int dirfd, const struct sandbox_status *row)
{
	return row && row->state == SANDBOX_CREATED && !there(dirfd, RECORD_MACHINE) &&
	       !there(dirfd, VM_LOG);
}

static void heal_kept(struct store *s, int dirfd, const struct sandbox_status *row)
{
	cleanup_record struct sandbox_record record = {0};
	bool marked = sandbox_change_marked(dirfd);

	/* Whoever ended it in order has done all this. */
	if (row && !sandbox_state_alive(row->state) && !there(dirfd, SANDBOX_AGENT_SOCKET) &&
	    !marked)
		return;
	if (!sandbox_change_take(dirfd) || record_read(dirfd, &record, NULL) < 0 ||
	    sandbox_heal_row(s, dirfd, &record, NULL) < 0)
		return;
	if (marked && sandbox_state_labels(s, record.name, &record.spec.labels, NULL) >= 0)
		sandbox_change_unmark(dirfd);
}

static void heal_gone(struct store *s, const char *name)
{
	const struct sandbox_end end = {.was_ready = true, .reason = KILLED, .exit_code = -1};

	(void)sandbox_state_remove(s, name, &end, NULL);
}

/* ---- those that live ---- */

static bool is_long(const struct sandbox_status *row)
{
	/* Before our time is after a clock was set back. */
	int64_t age = time(NULL) - row->changed_at;

	return age >= LONG || age < 0;
}

/* May its row say what is not so? */
static bool in_doubt(int dirfd, int lock, const struct sandbox_status *row)
{
	if (!row || !sandbox_state_alive(row->state))
		/* Its owner writes the row before there is a machine, and after. */
		return io_owner(lock) > 0;
	if (row->state == SANDBOX_STARTING || row->state == SANDBOX_STOPPING)
		return is_long(row);
	return sandbox_change_marked(dirfd);
}

/* What its machine says; negative when it says nothing, or is on its way up or down. */
static int ask_machine(int dirfd, struct sandbox_status *ret)
{
	const struct control_request q = {.op = CONTROL_STATE};
	cleanup_answer struct control_answer a = {0};
	cleanup_machine struct sandbox_machine m = {0};
	cleanup_close int fd = sandbox_socket_connect(dirfd, SANDBOX_CONTROL_SOCKET, NULL);
	int r = fd < 0 ? fd : control_ask(fd, &q, ASK_MS, &a, NULL);

	if (r < 0)
		return r;
	if (!a.has_stats || !a.stats.uptime_ns)
		return -EAGAIN;
	ret->state = a.stats.paused	? SANDBOX_PAUSED
		     : a.stats.draining ? SANDBOX_DRAINING
					: SANDBOX_RUNNING;
	if (record_machine_read(dirfd, &m, NULL) == 0)
		ret->started_at = m.started_at;
	ret->exit_code = -1;
	ret->reason = strdup("");
	return ret->reason ? 0 : -ENOMEM;
}

static void heal_live(struct store *s, const char *name)
{
	/* Whoever changes it writes the row himself. */
	cleanup_close int dir = sandbox_change_lock(s, name, false, NULL);
	cleanup_record struct sandbox_record record = {0};
	cleanup_status struct sandbox_status seen = {0}, is = {0};
	int r;

	if (dir < 0)
		return;
	r = sandbox_state_read(s, name, &seen, NULL);
	if ((r < 0 && r != -ERR_NOT_FOUND) ||
	    (r == 0 && seen.state == SANDBOX_STOPPING && !is_long(&seen)))
		return;
	if (ask_machine(dir, &is) < 0 || record_read(dir, &record, NULL) < 0)
		return;
	if (r == -ERR_NOT_FOUND)
		r = adopt_row(s, &record, &is, NULL);
	else if (seen.state != is.state)
		r = sandbox_state_put(s, name, &seen, &is, NULL, NULL);
	else
		r = 0;
	if (r == 0 && sandbox_change_marked(dir))
		r = sandbox_state_labels(s, name, &record.spec.labels, NULL);
	if (r == 0)
		sandbox_change_unmark(dir);
}

/* ---- all of them ---- */

/* The names of those in doubt to @doubt. */
static void scan(struct store *s, bool wait, struct strv *doubt)
{
	cleanup_states struct sandbox_states rows = {0};
	cleanup_dir DIR *dir = NULL;
	cleanup_free bool *has = NULL; /* a directory, by row */
	int names = sandbox_names_lock(s, wait);
	bool known;
	struct dirent *de;

	dir = names < 0 ? NULL : fdopendir(names);
	if (!dir) {
		close_fd(names);
		return;
	}
	known = sandbox_states_read(s, &rows, NULL) == 0;
	has = calloc(rows.n + 1, sizeof(*has));
	while ((de = readdir(dir))) {
		cleanup_close int lock = -1;
		cleanup_close int fd = sandbox_entry_open(names, de->d_name, &lock);
		struct sandbox_status *row = sandbox_states_find(&rows, de->d_name);
		char path[4096];

		if (row && has)
			has[container_of(row, struct sandbox_state_row, status) - rows.rows] = true;
		if (fd < 0 || (lock < 0 && errno != ENOENT))
			continue;
		if (lock >= 0 && io_flock(lock, true, false) < 0) {
			if (known && in_doubt(fd, lock, row))
				(void)strv_add(doubt, de->d_name);
			continue;
		}
		if (de->d_name[0] != '.' && sandbox_dir_kept(fd)) {
			if (!known)
				continue;
			if (!never_lived(fd, row)) {
				heal_kept(s, fd, row);
				continue;
			}
			if (!sandbox_change_take(fd))
				continue;
			(void)unlinkat(fd, RECORD_KEPT, 0);
		}
		if (row)
			heal_gone(s, de->d_name);
		if (store_path(s, STORE_SANDBOXES, de->d_name, path, sizeof(path), NULL) >= 0)
			(void)io_remove_tree(path, NULL);
	}
	/* Rows of ephemeral ones whose directories went with their machines. */
	for (size_t i = 0; i < rows.n && has; i++) {
		if (!has[i])
			heal_gone(s, rows.rows[i].name);
	}
}

/* Best effort: what is not healed now is by the next command, and no command takes it for life. */
void sandbox_dir_heal(struct store *s, bool wait)
{
	cleanup_strv struct strv doubt = {0};

	scan(s, wait, &doubt);
	for (size_t i = 0; i < doubt.n; i++)
		heal_live(s, doubt.v[i]);
}
