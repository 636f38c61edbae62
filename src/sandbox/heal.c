/* SPDX-License-Identifier: Apache-2.0 */
/* What killed processes left behind: directories, sockets, and rows that say what is not so. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir_impl.h"
#include "sandbox/state.h"
#include "store/store.h"

#define KILLED "its owner was killed"

void sandbox_state_guess(int dirfd, struct sandbox_status *s)
{
	cleanup_machine struct sandbox_machine m = {0};
	bool started = s->reason; /* as its row says */

	free(s->reason);
	s->reason = NULL;
	if (record_machine_read(dirfd, &m, NULL) < 0) {
		s->state = started ? SANDBOX_CRASHED : SANDBOX_CREATED;
		s->reason = started ? strdup(KILLED) : NULL;
		return;
	}
	s->started_at = m.started_at;
	s->state = m.ended_at ? SANDBOX_STOPPED : SANDBOX_CRASHED;
	s->reason = strdup(m.ended_at && m.end ? m.end : KILLED);
}

/* A row for a sandbox that has none: of a store that was older, or whose database was lost. */
static int adopt_row(struct store *s, int dirfd, const struct sandbox_record *record,
		     struct err *err)
{
	cleanup_status struct sandbox_status now = {0};
	struct sandbox_end end = {.was_ready = true, .exit_code = -1};
	int r = sandbox_state_new(s, record->name, false, record->created_at, &record->spec.labels,
				  err);

	sandbox_state_guess(dirfd, &now);
	end.asked = now.state == SANDBOX_STOPPED;
	end.reason = now.reason;
	if (r == 0 && now.state != SANDBOX_CREATED) {
		r = sandbox_state_change(s, record->name, SANDBOX_STARTING, "", err);
		if (r == 0)
			r = sandbox_state_end(s, record->name, &end, err);
	}
	/* Without its image it cannot start, but can be looked at and removed. */
	if (r == 0 && record->image_id[0])
		(void)store_use_image(s, record->name, record->image_id, NULL);
	return r;
}

int sandbox_heal_row(struct store *s, int dirfd, const struct sandbox_record *record,
		     struct err *err)
{
	cleanup_status struct sandbox_status now = {0};
	struct sandbox_end end = {.was_ready = true, .exit_code = -1};
	int r = sandbox_state_read(s, record->name, &now, err);

	if (r == -ERR_NOT_FOUND)
		return adopt_row(s, dirfd, record, err);
	if (r < 0 || !sandbox_state_alive(now.state))
		return r;
	sandbox_state_guess(dirfd, &now);
	end.asked = now.state == SANDBOX_STOPPED;
	end.reason = now.reason;
	return sandbox_state_end(s, record->name, &end, err);
}

static void heal_kept(struct store *s, int dirfd, const struct sandbox_status *row)
{
	cleanup_record struct sandbox_record record = {0};

	/* Whoever ended it in order has cleaned up. */
	if (row && !sandbox_state_alive(row->state))
		return;
	sandbox_dir_clean(dirfd);
	if (record_read(dirfd, &record, NULL) == 0)
		(void)sandbox_heal_row(s, dirfd, &record, NULL);
}

static void heal_gone(struct store *s, const char *name)
{
	const struct sandbox_end end = {.was_ready = true, .reason = KILLED, .exit_code = -1};

	(void)sandbox_state_remove(s, name, &end, NULL);
}

/* Best effort: what is not healed now is by the next command, and no command takes it for life. */
void sandbox_dir_heal(struct store *s, bool wait)
{
	cleanup_states struct sandbox_states rows = {0};
	cleanup_dir DIR *dir = NULL;
	cleanup_free bool *there = NULL; /* by row */
	int names = sandbox_names_lock(s, wait);
	bool known;
	struct dirent *de;

	dir = names < 0 ? NULL : fdopendir(names);
	if (!dir) {
		close_fd(names);
		return;
	}
	known = sandbox_states_read(s, &rows, NULL) == 0;
	there = calloc(rows.n + 1, sizeof(*there));
	while ((de = readdir(dir))) {
		cleanup_close int lock = -1;
		cleanup_close int fd = sandbox_entry_open(names, de->d_name, &lock);
		struct sandbox_status *row = sandbox_states_find(&rows, de->d_name);
		char path[4096];

		if (row && there)
			there[container_of(row, struct sandbox_state_row, status) - rows.rows] =
				true;
		if (fd < 0 || (lock < 0 && errno != ENOENT))
			continue;
		if (lock >= 0 && io_flock(lock, true, false) < 0)
			continue;
		if (de->d_name[0] != '.' && sandbox_dir_kept(fd)) {
			if (known)
				heal_kept(s, fd, row);
			continue;
		}
		if (row)
			heal_gone(s, de->d_name);
		if (store_path(s, STORE_SANDBOXES, de->d_name, path, sizeof(path), NULL) >= 0)
			(void)io_remove_tree(path, NULL);
	}
	/* Rows of ephemeral ones whose directories went with their machines. */
	for (size_t i = 0; i < rows.n && there; i++) {
		if (!there[i])
			heal_gone(s, rows.rows[i].name);
	}
}
