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
	/* As many as the agent lets one client have. */
	SESSIONS_MAX = 1024,
	BUF_KEEP = 64 << 10,
	/* One character lacks at least one byte. */
	CHAR_MAX_LESS_ONE = 3,
};

struct session {
	uint32_t id, number;
	bool tty;
};

/* Where the data of a frame goes that is not waited for as a whole. */
struct data {
	enum exec_log_source source;
	uint32_t number;
	uint8_t begun[CHAR_MAX_LESS_ONE]; /* of a character that the next piece completes */
	size_t nbegun;
};

/* One direction: what is done with the frame that the stream is in the middle of. */
struct side {
	enum { LOOK, COLLECT, DATA, PASS } what;
	struct buf body; /* LOOK: its beginning; COLLECT: what there is of it */
	struct data data;
};

struct exec_tap {
	struct exec_log *log;
	struct side asked, answered;
	struct session *sessions;
	unsigned n, room;
};

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

static bool is_output(enum msg_kind kind)
{
	return kind == MSG_EXEC_STDOUT || kind == MSG_EXEC_STDERR;
}

static void whose(struct exec_tap *t, struct data *d, uint32_t id, enum msg_kind kind)
{
	struct session *s = find_or_add(t, id);

	*d = (struct data){.source = EXEC_LOG_STDOUT, .number = s ? s->number : 0};
	if (kind == MSG_EXEC_STDERR)
		d->source = EXEC_LOG_STDERR;
	else if (s && s->tty)
		d->source = EXEC_LOG_OUTPUT;
}

/* How many bytes at the end are the beginning of a character? */
static size_t begun(const uint8_t *p, size_t n)
{
	for (size_t k = 1; k <= MIN(n, (size_t)CHAR_MAX_LESS_ONE); k++) {
		uint8_t c = p[n - k];

		if ((c & 0xc0) == 0x80)
			continue;
		return c >= 0xc0 && k < (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) ? k : 0;
	}
	return 0;
}

static void put_data(struct exec_tap *t, struct data *d, const uint8_t *p, size_t n, bool last)
{
	size_t keep = last ? 0 : begun(p, n);

	exec_log_put(t->log, d->source, d->number, d->begun, d->nbegun, p, n - keep);
	if (keep)
		memcpy(d->begun, p + n - keep, keep);
	d->nbegun = keep;
}

/* A frame of output that is not written as the agent writes them. */
static void on_data(struct exec_tap *t, const struct frame *f, const struct envelope *e)
{
	struct msg_data m = {0};
	struct data d;

	if (frame_payload(e, &m, NULL) < 0)
		return;
	if (m.data.n) {
		whose(t, &d, f->id, msg_kind_of(e->type));
		put_data(t, &d, m.data.p, m.data.n, true);
	}
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
	if (is_output(msg_kind_of(e.type)))
		on_data(t, f, &e);
	else if (msg_kind_of(e.type) == MSG_EXEC_EXITED || msg_kind_of(e.type) == MSG_EXEC_FAILED ||
		 msg_kind_of(e.type) == MSG_ERROR)
		on_end(t, f, &e);
}

static void collect(struct side *s, const struct frame_piece *p)
{
	if (p->n)
		buf_add(&s->body, p->p, p->n);
}

static void begin(struct side *s)
{
	if (buf_failed(&s->body) || s->body.cap > BUF_KEEP)
		buf_done(&s->body);
	buf_reset(&s->body);
}

/* What was collected is whole. */
static struct frame whole(const struct side *s, const struct frame_piece *p)
{
	return (struct frame){
		.id = p->id,
		.flags = p->flags,
		.body = buf_ptr(&s->body),
		.body_len = buf_size(&s->body),
		.wire_len = FRAME_HEADER + buf_size(&s->body),
	};
}

/* The beginning of an answer is there: what becomes of the rest? */
static void judge(struct exec_tap *t, struct side *s, const struct frame_piece *p)
{
	size_t have = buf_size(&s->body), at;
	const struct msg_type *type;

	if (buf_failed(&s->body)) {
		s->what = PASS;
	} else if (frame_data_at(buf_ptr(&s->body), have, p->len, &type, &at)) {
		s->what = is_output(msg_kind_of(type)) && p->len > at ? DATA : PASS;
		if (s->what == DATA) {
			whose(t, &s->data, p->id, msg_kind_of(type));
			put_data(t, &s->data, buf_ptr(&s->body) + at, have - at, have == p->len);
		}
	} else if (p->len > ANSWER_MAX) {
		exec_log_lose(t->log, p->len);
		s->what = PASS;
	} else {
		s->what = COLLECT;
	}
}

void exec_tap_asked(struct exec_tap *t, const struct frame_piece *p)
{
	struct side *s = t ? &t->asked : NULL;
	struct frame f;

	if (!t)
		return;
	if (p->at == 0) {
		begin(s);
		s->what = p->flags & FRAME_SESSION_START && p->len <= REQUEST_MAX ? COLLECT : PASS;
	}
	if (s->what == PASS)
		return;
	collect(s, p);
	if (!frame_piece_last(p) || buf_failed(&s->body))
		return;
	f = whole(s, p);
	on_request(t, &f);
}

void exec_tap_answered(struct exec_tap *t, const struct frame_piece *p)
{
	struct side *s = t ? &t->answered : NULL;
	struct frame_piece rest;

	if (!t)
		return;
	rest = *p;
	if (p->at == 0) {
		begin(s);
		s->what = LOOK;
	}
	if (s->what == LOOK) {
		size_t need = MIN(p->len, (uint32_t)FRAME_DATA_HEAD_MAX);

		rest.n = MIN(p->n, need - p->at);
		collect(s, &rest);
		if (rest.at + rest.n == need)
			judge(t, s, p);
		rest.p += rest.n;
		rest.at += (uint32_t)rest.n;
		rest.n = p->n - rest.n;
	}
	if (s->what == DATA && rest.n) {
		put_data(t, &s->data, rest.p, rest.n, frame_piece_last(&rest));
	} else if (s->what == COLLECT) {
		collect(s, &rest);
		if (frame_piece_last(&rest) && !buf_failed(&s->body)) {
			struct frame f = whole(s, &rest);

			on_answer(t, &f);
		}
	}
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
	buf_done(&t->asked.body);
	buf_done(&t->answered.body);
	free(t->sessions);
	free(t);
	return NULL;
}
