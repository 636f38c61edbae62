/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/session_msg.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "wire/frame.h"

#define FIELD(type_, member, kind, ...)                                                            \
	{                                                                                          \
		.key = #member, .type = kind, .offset = offsetof(struct type_, member),            \
		__VA_ARGS__                                                                        \
	}
#define TABLE(type_)                                                                               \
	static const struct wire_table type_##_table = {                                           \
		.name = #type_,                                                                    \
		.size = sizeof(struct type_),                                                      \
		.fields = type_##_fields,                                                          \
		.nfields = ARRAY_SIZE(type_##_fields),                                             \
	}

static const struct wire_field session_start_fields[] = {
	FIELD(session_start, request, WIRE_BYTES),
	FIELD(session_start, name, WIRE_TEXT, .flags = WIRE_OPTIONAL),
	FIELD(session_start, detached, WIRE_BOOL),
	FIELD(session_start, timeout_ms, WIRE_U64),
};
TABLE(session_start);

static const struct wire_field session_attach_fields[] = {
	FIELD(session_attach, name, WIRE_TEXT, .flags = WIRE_OPTIONAL),
	FIELD(session_attach, quiet, WIRE_BOOL),
};
TABLE(session_attach);

static const struct wire_field session_started_fields[] = {
	FIELD(session_started, name, WIRE_TEXT),
	FIELD(session_started, tty, WIRE_BOOL),
};
TABLE(session_started);

static const struct wire_field session_gap_fields[] = {
	FIELD(session_gap, bytes, WIRE_U64),
	FIELD(session_gap, before, WIRE_BOOL),
};
TABLE(session_gap);

static const struct wire_field session_row_fields[] = {
	FIELD(session_row, name, WIRE_TEXT),	  FIELD(session_row, command, WIRE_TEXT),
	FIELD(session_row, tty, WIRE_BOOL),	  FIELD(session_row, running, WIRE_BOOL),
	FIELD(session_row, code, WIRE_I32),	  FIELD(session_row, clients, WIRE_U32),
	FIELD(session_row, printed, WIRE_U64),	  FIELD(session_row, dropped, WIRE_U64),
	FIELD(session_row, started_at, WIRE_I64), FIELD(session_row, ended_at, WIRE_I64),
};
TABLE(session_row);

static const struct wire_field session_listing_fields[] = {
	FIELD(session_listing, rows, WIRE_STRUCTS, .table = &session_row_table),
};
TABLE(session_listing);

static const struct wire_table empty_table = {.name = "empty", .size = sizeof(struct msg_empty)};

#define TYPE(kind, name_, flags_, table_)                                                          \
	[kind] = {.name = "session." name_, .flags = flags_, .table = &table_}

const struct msg_type session_types[SESSION_KINDS] = {
	TYPE(SESSION_START, "start", FRAME_SESSION_START, session_start_table),
	TYPE(SESSION_ATTACH, "attach", FRAME_SESSION_START, session_attach_table),
	TYPE(SESSION_STARTED, "started", 0, session_started_table),
	TYPE(SESSION_GAP, "gap", 0, session_gap_table),
	TYPE(SESSION_DETACH, "detach", 0, empty_table),
	TYPE(SESSION_LIST, "list", FRAME_SESSION_START, empty_table),
	TYPE(SESSION_LISTING, "listing", FRAME_TERMINAL, session_listing_table),
};

int session_kind_find(const char *name, size_t n)
{
	for (int i = 0; i < SESSION_KINDS; i++) {
		if (strlen(session_types[i].name) == n && !memcmp(session_types[i].name, name, n))
			return i;
	}
	return -1;
}

int session_past_read(int dirfd, struct session_listing *ret, struct err *err)
{
	/* 128 rows with a few hundred bytes of a command each. */
	enum { PAST_MAX = 1 << 20 };
	cleanup_close int fd = openat(dirfd, SESSION_PAST, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	cleanup_buf struct buf b = BUF_INIT;
	int r;

	if (fd < 0)
		return err_errno(err, "cannot read " SESSION_PAST);
	r = io_read_fd(fd, PAST_MAX, &b);
	if (r < 0)
		return err_set(err, r, "cannot read " SESSION_PAST ": %s", err_name(r));
	return wire_decode(&session_listing_table, buf_ptr(&b), buf_size(&b), ret, err);
}

int session_name_check(const char *name, struct err *err)
{
	static const char first[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
			  rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				   "._-";
	size_t n = strlen(name);

	if (n && n <= SESSION_NAME_MAX && strchr(first, name[0]) && strspn(name, rest) == n)
		return 0;
	err_set(err, ERR_USAGE, "\"%s\" cannot be the name of a session", name);
	return err_hint(err, "use letters, digits and ._-, a letter or digit first, %d at most",
			SESSION_NAME_MAX);
}
