/* SPDX-License-Identifier: Apache-2.0 */
/* What passes between one client and the guest, as far as the log wants to know. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "machine/exec_log_impl.h"
#include "wire/frame.h"

enum {
	/* Requests longer than that are not looked into: their sessions have no name. */
	REQUEST_MAX = 64 << 10,
	/* The agent's own frames have at most 256 KiB of data. */
	ANSWER_MAX = 320 << 10,
	/* So much of a body tells what it is: its type's name comes first, as all write it. */
	KIND_BYTES = 32,
	/* As many as the agent lets one client have. */
	SESSIONS_MAX = 1024,
	BUF_KEEP = 64 << 10,
};

struct session {
	uint32_t id, number;
	bool tty;
};

/* One direction: the frame that the stream is in the middle of. */
struct framer {
	uint8_t head[FRAME_HEADER];
	unsigned have;
	uint32_t left;	  /* of its body */
	bool skip, big;	  /* not to be collected; too big for that */
	struct buf frame; /* what was collected, with the head */
};

struct exec_tap {
	struct exec_log *log;
	struct framer asked, answered;
	struct session *sessions;
	unsigned n, room;
};

typedef void frame_fn(struct exec_tap *t, const struct frame *f);

static struct session *find(struct exec_tap *t, uint32_t id)
{
	for (unsigned i = 0; i < t->n; i++) {
		if (t->sessions[i].id == id)
			return &t->sessions[i];
	}
	return NULL;
}

static struct session *find_or_add(struct exec_tap *t, uint32_t id)
{
	struct session *s = find(t, id);

	if (s)
		return s;
	if (t->n == t->room) {
		unsigned room = t->room ? 2 * t->room : 4;

		s = room > SESSIONS_MAX ? NULL : reallocarray(t->sessions, room, sizeof(*s));
		if (!s)
			return NULL;
		t->sessions = s;
		t->room = room;
	}
	s = &t->sessions[t->n++];
	*s = (struct session){.id = id, .number = exec_log_session(t->log)};
	return s;
}

static void forget(struct exec_tap *t, struct session *s)
{
	*s = t->sessions[--t->n];
}

static void on_request(struct exec_tap *t, const struct frame *f)
{
	struct msg_exec_request m = {0};
	struct envelope e;
	struct session *s;

	if (frame_open(f, &e, NULL) < 0 || !e.type || msg_kind_of(e.type) != MSG_EXEC_REQUEST ||
	    frame_payload(&e, &m, NULL) < 0)
		return;
	s = find_or_add(t, f->id);
	if (s) {
		s->tty = m.tty;
		exec_log_event(t->log, s->number, "asked to run %s", m.cmd);
	}
	msg_free(MSG_EXEC_REQUEST, &m);
}

static void on_data(struct exec_tap *t, const struct frame *f, const struct envelope *e)
{
	enum exec_log_source source = EXEC_LOG_STDOUT;
	struct msg_data m = {0};
	struct session *s;
	const uint8_t *p;
	size_t n;

	if (frame_data(e, &p, &n, NULL) < 0) {
		if (frame_payload(e, &m, NULL) < 0)
			return;
		p = m.data.p;
		n = m.data.n;
	}
	s = n ? find_or_add(t, f->id) : NULL;
	if (msg_kind_of(e->type) == MSG_EXEC_STDERR)
		source = EXEC_LOG_STDERR;
	else if (s && s->tty)
		source = EXEC_LOG_OUTPUT;
	exec_log_put(t->log, source, s ? s->number : 0, p, n);
	msg_free(MSG_EXEC_STDOUT, &m);
}

static void on_end(struct exec_tap *t, const struct frame *f, const struct envelope *e)
{
	struct session *s = find(t, f->id);
	struct msg_exec_exited exited = {0};
	struct msg_exec_failed failed = {0};

	if (!s)
		return;
	if (msg_kind_of(e->type) == MSG_EXEC_EXITED && frame_payload(e, &exited, NULL) >= 0) {
		exec_log_event(t->log, s->number, "ended with exit code %d", exited.code);
	} else if (msg_kind_of(e->type) == MSG_EXEC_FAILED &&
		   frame_payload(e, &failed, NULL) >= 0) {
		exec_log_event(t->log, s->number, "could not be run: %s",
			       failed.message ? failed.message : "");
		msg_free(MSG_EXEC_FAILED, &failed);
	}
	forget(t, s);
}

static void on_answer(struct exec_tap *t, const struct frame *f)
{
	struct envelope e;

	if (frame_open(f, &e, NULL) < 0 || !e.type)
		return;
	switch (msg_kind_of(e.type)) {
	case MSG_EXEC_STDOUT:
	case MSG_EXEC_STDERR:
		on_data(t, f, &e);
		break;
	case MSG_EXEC_EXITED:
	case MSG_EXEC_FAILED:
	case MSG_ERROR:
		on_end(t, f, &e);
		break;
	default:
		break;
	}
}

/* With the first bytes of a body: is it of another kind for certain? */
static bool other_kind(const uint8_t body[KIND_BYTES])
{
	/* {"v": one byte, "t": a name of up to 23 characters */
	static const char plain[] = "\xa3\x61v", type[] = "\x61t", exec[] = "core.exec.",
			  error[] = "core.error";

	if (memcmp(body, plain, 3) || body[3] > 0x17 || memcmp(body + 4, type, 2) ||
	    body[6] < 0x60 || body[6] > 0x77)
		return false;
	return memcmp(body + 7, exec, sizeof(exec) - 1) &&
	       memcmp(body + 7, error, sizeof(error) - 1);
}

static void begin_frame(struct framer *fr, bool request)
{
	struct cur c = cur_make(fr->head, FRAME_HEADER);
	uint32_t len = cur_be32(&c);

	(void)cur_be32(&c);
	/* A length below the least has no body; the connection is about to be cut. */
	fr->left = len < FRAME_LEN_MIN ? 0 : len - FRAME_LEN_MIN;
	fr->big = fr->left > (request ? REQUEST_MAX : ANSWER_MAX);
	fr->skip = request && (fr->big || !(cur_u8(&c) & FRAME_SESSION_START));
	if (!fr->skip)
		buf_add(&fr->frame, fr->head, FRAME_HEADER);
}

/* Some of a body is there: is it worth the rest? */
static void judge(struct exec_tap *t, struct framer *fr)
{
	size_t n = buf_size(&fr->frame) - FRAME_HEADER;

	if (buf_failed(&fr->frame) || n < KIND_BYTES)
		return;
	fr->skip = other_kind(buf_ptr(&fr->frame) + FRAME_HEADER);
	if (fr->big && !fr->skip) {
		exec_log_lose(t->log, fr->left);
		fr->skip = true;
	}
}

static void end_frame(struct exec_tap *t, struct framer *fr, frame_fn *fn)
{
	struct frame f;

	if (!fr->skip && !buf_failed(&fr->frame) && frame_peek(&fr->frame, &f, NULL) > 0)
		fn(t, &f);
	fr->have = 0;
	if (buf_failed(&fr->frame) || fr->frame.cap > BUF_KEEP)
		buf_done(&fr->frame);
	buf_reset(&fr->frame);
}

static void feed(struct exec_tap *t, struct framer *fr, const uint8_t *p, size_t n, frame_fn *fn)
{
	bool request = fr == &t->asked;

	while (n) {
		size_t take;

		if (fr->have < FRAME_HEADER) {
			take = MIN(n, (size_t)FRAME_HEADER - fr->have);
			memcpy(fr->head + fr->have, p, take);
			fr->have += (unsigned)take;
			if (fr->have == FRAME_HEADER)
				begin_frame(fr, request);
		} else {
			take = MIN(n, (size_t)fr->left);
			if (!fr->skip) {
				buf_add(&fr->frame, p, take);
				judge(t, fr);
			}
			fr->left -= (uint32_t)take;
		}
		p += take;
		n -= take;
		if (fr->have == FRAME_HEADER && !fr->left)
			end_frame(t, fr, fn);
	}
}

void exec_tap_asked(struct exec_tap *t, const void *p, size_t n)
{
	if (t)
		feed(t, &t->asked, p, n, on_request);
}

void exec_tap_answered(struct exec_tap *t, const void *p, size_t n)
{
	if (t)
		feed(t, &t->answered, p, n, on_answer);
}

struct exec_tap *exec_tap_new(struct exec_log *l)
{
	struct exec_tap *t = l ? calloc(1, sizeof(*t)) : NULL;

	if (t)
		t->log = l;
	return t;
}

struct exec_tap *exec_tap_free(struct exec_tap *t)
{
	if (!t)
		return NULL;
	for (unsigned i = 0; i < t->n; i++)
		exec_log_event(t->log, t->sessions[i].number, "ended with its client");
	buf_done(&t->asked.frame);
	buf_done(&t->answered.frame);
	free(t->sessions);
	free(t);
	return NULL;
}
