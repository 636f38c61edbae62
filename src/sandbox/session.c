/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/session.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/str.h"
#include "sandbox/record.h"
#include "sandbox/session_history.h"
#include "sandbox/session_msg.h"

enum {
	CHUNK = 32 << 10,
	/* Queued for a client beyond what its socket takes: its place in the history says the rest.
	 */
	CLIENT_OUT = 64 << 10,
	/* A frame of the largest size is a request with its environment. */
	CLIENT_IN = FRAME_WIRE_MAX + CHUNK,
	/* How far behind even the fastest client may be before the command has to wait. */
	BEHIND_HIGH = 128 << 10,
	BEHIND_LOW = 32 << 10,
	COMMAND_SHOWN = 256,
	CODE_TIMEOUT = 124,
	CODE_LOST = 125,
};
/* Once its time is over and it was killed, its last output gets this long to arrive. */
#define KILL_GRACE_NS ((uint64_t)1000000000)

enum phase { ASKED, RUNNING, ENDED };

struct session {
	struct session_host *host;
	struct session *next; /* oldest first */
	char *name, *command;
	struct msg_exec_request request; /* until it is sent */
	enum phase phase;
	bool paused;
	struct agent_client *agent;
	struct agent_exec *exec; /* while there is one */
	uint32_t pid;
	bool tty;
	struct session_history history;
	int code;
	bool has_failed;
	struct msg_exec_failed failed; /* why it could not be run */
	bool told;		       /* somebody has got its exit code */
	int64_t started_at, ended_at;
	uint64_t timeout_ns; /* 0: it may take as long as it likes */
	struct loop_timer timeout;
	bool timed_out;
	bool sent; /* the agent was asked for it */
};

struct client {
	struct session_host *host;
	struct client *next;
	struct loop_source source;
	struct buf in, out;
	struct session *session; /* NULL: not attached */
	uint32_t id;		 /* of its session */
	uint64_t at;		 /* in the history */
	bool asked;		 /* it is for this client that the session runs */
	bool started;		 /* it was told that its session runs */
	bool stay_away;		 /* it only wants to know that */
	bool full;		 /* the command takes no more input now */
	bool dead;
};

struct session_host {
	struct loop *loop;
	const struct session_host_ops *ops;
	void *arg;
	struct loop_source listener;
	struct loop_timer sweep; /* frees what could not be freed where it ended */
	struct session *sessions;
	struct client *clients;
	unsigned nclients, last;
	size_t history;
};

/* ---- clients ---- */

static void client_gone(struct client *c)
{
	struct session *s = c->session;

	if (c->dead)
		return;
	c->dead = true;
	loop_del(&c->source);
	c->session = NULL;
	if (s && c->asked && s->exec)
		agent_exec_signal(s->exec, SIGHUP);
	(void)loop_timer_in(c->host->loop, &c->host->sweep, 0);
}

static void watch(struct client *c)
{
	if (!c->dead)
		loop_mod(&c->source, (c->full ? 0 : EPOLLIN) | (buf_size(&c->out) ? EPOLLOUT : 0));
}

static void client_flush(struct client *c)
{
	while (!c->dead && buf_size(&c->out)) {
		ssize_t n = send(c->source.fd, buf_ptr(&c->out), buf_size(&c->out),
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n >= 0) {
			buf_consume(&c->out, (size_t)n);
		} else if (errno == EAGAIN) {
			break;
		} else if (errno != EINTR) {
			client_gone(c);
			return;
		}
	}
	watch(c);
}

/* Something was appended with result @r. */
static void client_sent(struct client *c, int r)
{
	if (r < 0 || buf_failed(&c->out))
		client_gone(c);
	else
		client_flush(c);
}

static void refuse(struct client *c, uint32_t id, const char *why)
{
	/* CORE_ERROR's kinds are about the protocol; none fits better. */
	struct msg_error m = {.kind = CORE_INVALID_SESSION, .message = (char *)(uintptr_t)why};

	client_sent(c, frame_put_msg(&c->out, id, MSG_ERROR, &m));
}

/* There is one text for what went wrong and what to do. */
static void refuse_for(struct client *c, uint32_t id, const struct err *why)
{
	cleanup_free char *text = str_fmt("%s; %s", why->msg, why->hint);

	refuse(c, id, why->hint[0] && text ? text : why->msg);
}

static void tell_end(struct client *c)
{
	struct session *s = c->session;
	struct msg_exec_exited m = {.code = s->code};

	c->session = NULL;
	s->told = true;
	client_sent(c, s->has_failed ? frame_put_msg(&c->out, c->id, MSG_EXEC_FAILED, &s->failed)
				     : frame_put_msg(&c->out, c->id, MSG_EXEC_EXITED, &m));
	(void)loop_timer_in(c->host->loop, &c->host->sweep, 0);
}

static void tell_started(struct client *c)
{
	struct session *s = c->session;
	struct session_started m = {.name = s->name, .tty = s->tty};
	struct msg_exec_started started = {.pid = s->pid};
	int r;

	c->started = true;
	r = frame_put_typed(&c->out, c->id, &session_types[SESSION_STARTED], &m);
	if (c->stay_away)
		c->session = NULL;
	else if (r == 0)
		r = frame_put_msg(&c->out, c->id, MSG_EXEC_STARTED, &started);
	client_sent(c, r);
}

/* Hand on what the client has not got yet, as far as it takes it. */
static void client_pump(struct client *c)
{
	struct session *s = c->session;
	const struct session_history *h = &s->history;

	if (s->phase != ASKED && !c->started && !s->has_failed)
		tell_started(c);
	while (!c->dead && c->session == s && c->at < h->end && buf_size(&c->out) < CLIENT_OUT) {
		const void *p;
		int stream;
		size_t n;

		if (c->at < history_first(h)) {
			struct session_gap m = {.bytes = history_first(h) - c->at};

			c->at += m.bytes;
			client_sent(c, frame_put_typed(&c->out, c->id, &session_types[SESSION_GAP],
						       &m));
			continue;
		}
		n = history_at(h, c->at, CHUNK, &stream, &p);
		c->at += n;
		client_sent(c,
			    frame_put_data(&c->out, c->id,
					   stream == 2 ? MSG_EXEC_STDERR : MSG_EXEC_STDOUT, p, n));
	}
	if (!c->dead && c->session == s && s->phase == ENDED && c->at == h->end)
		tell_end(c);
}

/* ---- sessions ---- */

static size_t count(const struct session_host *h, bool ended)
{
	size_t n = 0;

	for (const struct session *s = h->sessions; s; s = s->next)
		n += (s->phase == ENDED) == ended;
	return n;
}

size_t session_host_running(const struct session_host *h)
{
	return count(h, false);
}

static struct session *find(const struct session_host *h, const char *name)
{
	struct session *s = h->sessions;

	while (s && strcmp(s->name, name) != 0)
		s = s->next;
	return s;
}

/* Does the command have to wait for those who read it? */
static void pace(struct session *s)
{
	uint64_t behind = UINT64_MAX;

	if (!s->agent || s->phase == ENDED)
		return;
	for (const struct client *c = s->host->clients; c; c = c->next) {
		if (c->session == s && !c->stay_away)
			behind = MIN(behind, s->history.end - c->at);
	}
	if (behind == UINT64_MAX)
		behind = 0;
	if (s->paused ? behind > BEHIND_LOW : behind <= BEHIND_HIGH)
		return;
	s->paused = !s->paused;
	agent_client_pause(s->agent, s->paused);
}

static void pump_all(struct session *s)
{
	for (struct client *c = s->host->clients; c; c = c->next) {
		if (c->session == s)
			client_pump(c);
	}
}

static void session_free(struct session *s)
{
	loop_timer_stop(&s->timeout);
	free(s->name);
	free(s->command);
	msg_free(MSG_EXEC_REQUEST, &s->request);
	msg_free(MSG_EXEC_FAILED, &s->failed);
	agent_client_free(s->agent);
	history_done(&s->history);
	free(s);
}

static void session_ended(struct session *s, int code)
{
	if (s->phase == ENDED)
		return;
	s->phase = ENDED;
	loop_timer_stop(&s->timeout);
	s->exec = NULL;
	s->code = s->timed_out ? CODE_TIMEOUT : code;
	s->ended_at = time(NULL);
	log_debug("session %s ended with %d", s->name, s->code);
	pump_all(s);
	(void)loop_timer_in(s->host->loop, &s->host->sweep, 0);
	if (s->host->ops->ended)
		s->host->ops->ended(s->host->arg, s->name,
				    &(struct session_end){
					    .code = s->code,
					    .timed_out = s->timed_out,
					    .why = s->has_failed ? &s->failed : NULL,
				    });
}

static char *copy_text(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void session_failed(struct session *s, const struct msg_exec_failed *m)
{
	int code = agent_exec_why(m, s->command, NULL);

	if (s->phase == ENDED)
		return;
	s->has_failed = true;
	/* Without its words, should there be no memory for them. */
	s->failed = (struct msg_exec_failed){
		.kind = m->kind,
		.has_errno = m->has_errno,
		.error = m->error,
		.errno_name = copy_text(m->errno_name),
		.message = copy_text(m->message),
		.stage = copy_text(m->stage),
	};
	session_ended(s, code);
}

static void session_lost(struct session *s, const char *why)
{
	struct msg_exec_failed m = {.kind = EXEC_OTHER, .message = (char *)(uintptr_t)why};

	session_failed(s, &m);
}

/* Its time is over, and then what it was given to come to its end. */
static void on_timeout(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, timeout);

	if (s->timed_out || !s->exec) {
		session_ended(s, CODE_TIMEOUT);
		return;
	}
	s->timed_out = true;
	/* Whoever reads slowly does not put it off. */
	if (s->paused)
		agent_client_pause(s->agent, s->paused = false);
	agent_exec_signal(s->exec, SIGKILL);
	if (loop_timer_in(s->host->loop, t, KILL_GRACE_NS) < 0)
		session_ended(s, CODE_TIMEOUT);
}

static void on_started(void *arg, uint32_t pid)
{
	struct session *s = arg;

	s->phase = RUNNING;
	s->pid = pid;
	pump_all(s);
	if (s->host->ops->started)
		s->host->ops->started(s->host->arg, s->name);
}

static void on_output(void *arg, int stream, const void *p, size_t n)
{
	struct session *s = arg;

	if (history_add(&s->history, stream, p, n) < 0)
		log_warn("session %s: out of memory for its output", s->name);
	pump_all(s);
	pace(s);
}

static void on_stdin_room(void *arg)
{
	struct session *s = arg;

	for (struct client *c = s->host->clients; c; c = c->next) {
		if (c->session == s) {
			c->full = false;
			watch(c);
		}
	}
}

static void on_exited(void *arg, int code)
{
	session_ended(arg, code);
}

static void on_failed(void *arg, const struct msg_exec_failed *m)
{
	session_failed(arg, m);
}

static const struct agent_exec_ops exec_ops = {
	.started = on_started,
	.output = on_output,
	.stdin_room = on_stdin_room,
	.exited = on_exited,
	.failed = on_failed,
};

static void on_ready(void *arg, const struct msg_ready *ready)
{
	struct session *s = arg;
	struct err err = ERR_INIT;

	(void)ready;
	s->sent = true;
	if (agent_exec_open(&s->exec, s->agent, &msg_types[MSG_EXEC_REQUEST], &s->request,
			    &exec_ops, s, &err) < 0)
		session_lost(s, err.msg);
	else if (!s->tty && s->exec)
		agent_exec_stdin_eof(s->exec);
	msg_free(MSG_EXEC_REQUEST, &s->request);
	if (s->timeout_ns && s->phase != ENDED &&
	    loop_timer_in(s->host->loop, &s->timeout, s->timeout_ns) < 0)
		log_warn("session %s: out of memory for its timeout", s->name);
}

static void on_closed(void *arg, const struct err *why)
{
	struct session *s = arg;

	log_debug("session %s: %s", s->name, why->msg);
	if (why->code == ERR_GUEST) {
		session_lost(s, why->msg);
		return;
	}
	for (struct client *c = s->host->clients; c && !s->sent; c = c->next) {
		if (c->session == s)
			client_gone(c);
	}
	session_lost(s, "the sandbox has ended");
}

static const struct agent_client_ops client_ops = {.ready = on_ready, .closed = on_closed};

static char *command_text(const struct msg_exec_request *m)
{
	cleanup_buf struct buf b = BUF_INIT;
	char *text;

	buf_add_str(&b, m->cmd);
	for (size_t i = 0; i < m->args.n && buf_size(&b) <= COMMAND_SHOWN; i++)
		buf_addf(&b, " %s", m->args.v[i]);
	text = buf_cstr(&b);
	if (text && buf_size(&b) > COMMAND_SHOWN) {
		size_t n = COMMAND_SHOWN;

		/* Not within a character. */
		while (n && ((uint8_t)text[n] & 0xc0) == 0x80)
			n--;
		return str_fmt("%.*s…", (int)n, text);
	}
	return text ? strdup(text) : NULL;
}

static int name_session(struct session_host *h, const char *name, char **ret, struct err *err)
{
	char number[16];
	int r = name ? session_name_check(name, err) : 0;

	if (r < 0)
		return r;
	if (name && find(h, name)) {
		err_set(err, EEXIST, "there is a session \"%s\" already", name);
		return err_hint(err, "attach to it, or choose another name");
	}
	while (!name) {
		snprintf(number, sizeof(number), "%u", ++h->last);
		name = find(h, number) ? NULL : number;
	}
	*ret = strdup(name);
	return *ret ? 0 : err_set(err, ENOMEM, "cannot start a session: out of memory");
}

/* @request is taken over, also on failure. */
static int session_new(struct session_host *h, const char *name, struct msg_exec_request *request,
		       uint64_t timeout_ms, struct session **ret, struct err *err)
{
	struct session *s = calloc(1, sizeof(*s)), **last = &h->sessions;
	int r = s ? 0 : err_set(err, ENOMEM, "cannot start a session: out of memory"), fd;

	if (!s) {
		msg_free(MSG_EXEC_REQUEST, request);
		return r;
	}
	s->host = h;
	s->request = *request;
	*request = (struct msg_exec_request){0};
	s->tty = s->request.tty;
	s->started_at = time(NULL);
	s->timeout_ns = MIN(timeout_ms, UINT64_MAX / 1000000) * 1000000;
	s->timeout.fn = on_timeout;
	history_init(&s->history, h->history);
	if (session_host_running(h) >= SESSION_RUNNING_MAX)
		r = err_set(err, ERR_LIMIT, "%d sessions run already", SESSION_RUNNING_MAX);
	if (r == 0)
		r = name_session(h, name, &s->name, err);
	if (r == 0 && !(s->command = command_text(&s->request)))
		r = err_set(err, ENOMEM, "cannot start a session: out of memory");
	if (r == 0) {
		r = fd = h->ops->connect(h->arg, err);
		if (fd >= 0)
			r = agent_client_new(&s->agent, h->loop, fd, &client_ops, s, err);
	}
	if (r < 0) {
		session_free(s);
		return r;
	}
	while (*last)
		last = &(*last)->next;
	*last = s;
	*ret = s;
	return 0;
}

int session_host_start(struct session_host *h, const char *name,
		       const struct agent_exec_start *start, uint64_t timeout_ms, struct err *err)
{
	struct msg_exec_request m = {0};
	struct session *s;
	int r = agent_exec_request(start, &m, err);

	if (r < 0) {
		msg_free(MSG_EXEC_REQUEST, &m);
		return r;
	}
	return session_new(h, name, &m, timeout_ms, &s, err);
}

/* ---- what clients ask for ---- */

static void attach(struct client *c, uint32_t id, struct session *s, uint64_t at)
{
	c->session = s;
	c->id = id;
	c->at = at;
	c->started = c->full = false;
}

static int on_start(struct client *c, uint32_t id, const struct envelope *env, struct err *err)
{
	const struct wire_table *table = session_types[SESSION_START].table;
	struct session_start m = {0};
	struct msg_exec_request request = {0};
	struct err why = ERR_INIT;
	struct session *s;
	int r = wire_decode(table, env->payload, env->payload_len, &m, err), started;

	if (r == 0)
		r = wire_decode(msg_types[MSG_EXEC_REQUEST].table, m.request.p, m.request.n,
				&request, err);
	if (r == 0) {
		c->asked = !m.detached;
		c->stay_away = m.detached;
		started = session_new(c->host, m.name, &request, m.timeout_ms, &s, &why);
		if (started == -ECONNREFUSED || started == -ENOENT)
			client_gone(c);
		else if (started < 0)
			refuse_for(c, id, &why);
		else
			attach(c, id, s, 0);
	}
	wire_free(table, &m);
	return r;
}

/* It begins where a person can read, and is told what is missing. */
static void skip_dropped(struct client *c)
{
	struct session_gap m = {.bytes = history_start(&c->session->history), .before = true};

	c->at = m.bytes;
	if (m.bytes)
		client_sent(c, frame_put_typed(&c->out, c->id, &session_types[SESSION_GAP], &m));
}

static int on_attach(struct client *c, uint32_t id, const struct envelope *env, struct err *err)
{
	const struct wire_table *table = session_types[SESSION_ATTACH].table;
	struct session_attach m = {0};
	struct session *s;
	char why[128];
	int r = wire_decode(table, env->payload, env->payload_len, &m, err);

	if (r < 0)
		return r;
	s = m.name ? find(c->host, m.name) : c->host->sessions;
	if (m.name && !s)
		snprintf(why, sizeof(why), "there is no session \"%.64s\"", m.name);
	else if (!s)
		snprintf(why, sizeof(why), "there are no sessions");
	else if (!m.name && s->next)
		snprintf(why, sizeof(why), "there are several sessions: which one?");
	else
		why[0] = '\0';
	if (why[0]) {
		refuse(c, id, why);
	} else {
		c->asked = c->stay_away = false;
		attach(c, id, s, m.quiet ? s->history.end : 0);
		if (!m.quiet)
			skip_dropped(c);
		client_pump(c);
	}
	wire_free(table, &m);
	return 0;
}

static uint32_t attached(const struct session *s)
{
	uint32_t n = 0;

	for (const struct client *c = s->host->clients; c; c = c->next)
		n += c->session == s && !c->stay_away;
	return n;
}

/* Their texts are the sessions'. */
static int make_rows(const struct session_host *h, struct session_row **ret)
{
	size_t n = count(h, false) + count(h, true), i = 0;
	struct session_row *rows = calloc(n + 1, sizeof(*rows));

	if (!rows)
		return -ENOMEM;
	for (const struct session *s = h->sessions; s; s = s->next)
		rows[i++] = (struct session_row){
			.name = s->name,
			.command = s->command,
			.tty = s->tty,
			.running = s->phase != ENDED,
			.code = s->code,
			.clients = attached(s),
			.printed = s->history.end,
			.dropped = history_first(&s->history),
			.started_at = s->started_at,
			.ended_at = s->ended_at,
		};
	*ret = rows;
	return (int)n;
}

static void on_list(struct client *c, uint32_t id)
{
	cleanup_free struct session_row *rows = NULL;
	int n = make_rows(c->host, &rows);
	struct session_listing m = {.rows = {rows, (size_t)n}};

	if (n < 0)
		client_gone(c);
	else
		client_sent(c, frame_put_typed(&c->out, id, &session_types[SESSION_LISTING], &m));
}

static void type_in(struct client *c, const uint8_t *p, size_t n)
{
	struct agent_exec *e = c->session->exec;

	/* The end of a client's input is not that of the terminal's. */
	if (!c->session->tty)
		return;
	for (size_t done = 0; done < n;) {
		size_t k = MIN(n - done, AGENT_STDIN_CHUNK);
		void *to = agent_exec_stdin_begin(e);

		if (!to)
			return;
		memcpy(to, p + done, k);
		agent_exec_stdin_end(e, k);
		done += k;
	}
	if (!agent_exec_stdin_room(e)) {
		c->full = true;
		watch(c);
	}
}

/* Of a client that is attached, to its command. */
static int on_exec(struct client *c, const struct envelope *env, struct err *err)
{
	enum msg_kind kind = msg_kind_of(env->type);
	struct agent_exec *e = c->session->exec;
	union {
		struct msg_exec_resize resize;
		struct msg_exec_signal signal;
		struct msg_data data;
	} m = {0};
	const uint8_t *p;
	size_t n;
	int r;

	if (kind != MSG_EXEC_STDIN && kind != MSG_EXEC_RESIZE && kind != MSG_EXEC_SIGNAL)
		return err_set(err, ERR_PROTOCOL, "%s from a client", env->type->name);
	if (kind == MSG_EXEC_STDIN && frame_data(env, &p, &n, NULL) == 0) {
		if (e)
			type_in(c, p, n);
		return 0;
	}
	r = frame_payload(env, &m, err);
	if (r < 0)
		return r;
	if (e && kind == MSG_EXEC_STDIN)
		type_in(c, m.data.data.p, m.data.data.n);
	else if (e && kind == MSG_EXEC_RESIZE)
		agent_exec_resize(e, m.resize.rows, m.resize.cols);
	else if (e)
		agent_exec_signal(e, m.signal.signal);
	msg_free(kind, &m);
	return 0;
}

static int on_frame(struct client *c, const struct frame *f, struct err *err)
{
	struct envelope env;
	int r = frame_open(f, &env, err), kind;

	if (r < 0)
		return r;
	if (env.type)
		/* One whose session has just ended may not know. */
		return c->session && f->id == c->id ? on_exec(c, &env, err) : 0;
	kind = session_kind_find(env.name, env.name_len);
	if (kind == SESSION_LIST) {
		on_list(c, f->id);
		return 0;
	}
	if (kind == SESSION_DETACH) {
		/* The end of the connection tells it that this has come. */
		if (c->session) {
			c->session = NULL;
			client_gone(c);
		}
		return 0;
	}
	if ((kind == SESSION_START || kind == SESSION_ATTACH) && !c->session)
		return kind == SESSION_START ? on_start(c, f->id, &env, err)
					     : on_attach(c, f->id, &env, err);
	return err_set(err, ERR_PROTOCOL, "%.*s at this point", (int)env.name_len, env.name);
}

static void client_read(struct client *c)
{
	void *to = buf_reserve(&c->in, CHUNK);
	struct err err = ERR_INIT;
	struct frame f;
	ssize_t n = to ? recv(c->source.fd, to, CHUNK, MSG_DONTWAIT) : 0;
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_gone(c);
		return;
	}
	buf_commit(&c->in, (size_t)n);
	while (!c->dead && (r = frame_peek(&c->in, &f, &err)) != 0) {
		if (r > 0)
			r = on_frame(c, &f, &err);
		if (r < 0) {
			log_warn("a client of the sessions was dropped: %s", err.msg);
			client_gone(c);
			return;
		}
		frame_consume(&c->in, &f);
	}
}

static void on_client(struct loop_source *src, uint32_t events)
{
	struct client *c = container_of(src, struct client, source);
	struct session *s = c->session;

	if (events & EPOLLOUT) {
		client_flush(c);
		if (!c->dead && c->session)
			client_pump(c);
	}
	/* What it said last is read before its end is, also of one that had to wait. */
	if (!c->dead && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		client_read(c);
	if (s)
		pace(s);
}

static void on_listener(struct loop_source *src, uint32_t events)
{
	struct session_host *h = container_of(src, struct session_host, listener);
	struct msg_ready ready = {.agent_version = (char *)(uintptr_t) "sessions"};
	int fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c = fd < 0 ? NULL : calloc(1, sizeof(*c));

	(void)events;
	if (!c) {
		close_fd(fd);
		return;
	}
	c->host = h;
	c->source = (struct loop_source){.fn = on_client, .fd = fd};
	c->in.max = CLIENT_IN;
	c->next = h->clients;
	h->clients = c;
	if (++h->nclients == SESSION_CLIENTS_MAX)
		loop_mod(&h->listener, 0);
	if (loop_add(h->loop, &c->source, EPOLLIN) < 0) {
		client_gone(c);
		return;
	}
	buf_add_be32(&c->out, frame_client_start(0));
	buf_add_be32(&c->out, frame_client_end(0));
	client_sent(c, frame_put_msg(&c->out, 0, MSG_READY, &ready));
}

/* ---- the host ---- */

static void free_clients(struct session_host *h, bool all)
{
	for (struct client **at = &h->clients; *at;) {
		struct client *c = *at;

		if (!c->dead && !all) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		loop_del(&c->source);
		close_fd(c->source.fd);
		buf_done(&c->in);
		buf_done(&c->out);
		free(c);
		if (h->nclients-- == SESSION_CLIENTS_MAX)
			loop_mod(&h->listener, EPOLLIN);
	}
}

static void on_sweep(struct loop_timer *t)
{
	struct session_host *h = container_of(t, struct session_host, sweep);
	size_t ended;

	free_clients(h, false);
	ended = count(h, true);
	for (struct session **at = &h->sessions; *at;) {
		struct session *s = *at;

		if (s->phase == ENDED)
			s->agent = agent_client_free(s->agent);
		else
			pace(s);
		/* Those still being read stay, whatever the number. */
		if (s->phase == ENDED && !attached(s) && (s->told || ended > SESSION_ENDED_MAX)) {
			*at = s->next;
			session_free(s);
			ended--;
		} else {
			at = &s->next;
		}
	}
}

void session_host_set_history(struct session_host *h, size_t bytes)
{
	h->history = bytes;
}

int session_host_new(struct session_host **ret, struct loop *loop, int listenfd,
		     const struct session_host_ops *ops, void *arg, struct err *err)
{
	struct session_host *h = calloc(1, sizeof(*h));
	int r = h ? io_set_nonblock(listenfd, true) : -ENOMEM;

	if (h) {
		h->loop = loop;
		h->ops = ops;
		h->arg = arg;
		h->sweep.fn = on_sweep;
		h->listener = (struct loop_source){.fn = on_listener, .fd = listenfd};
		if (r == 0)
			r = loop_add(loop, &h->listener, EPOLLIN);
	}
	if (r < 0) {
		free(h);
		close_fd(listenfd);
		return err_set(err, r, "cannot serve sessions: %s", err_name(r));
	}
	*ret = h;
	return 0;
}

void session_host_close(struct session_host *h, const char *why)
{
	loop_del(&h->listener);
	h->listener.fd = close_fd(h->listener.fd);
	for (struct session *s = h->sessions; s; s = s->next) {
		if (s->phase != ENDED)
			session_lost(s, why);
	}
}

void session_host_finish(struct session_host *h)
{
	const struct client *c;

	do {
		for (c = h->clients; c; c = c->next) {
			if (!c->dead && (c->session || buf_size(&c->out)))
				break;
		}
	} while (c && loop_turn(h->loop, -1) >= 0);
}

void session_host_note(const struct session_host *h, int dirfd)
{
	cleanup_free struct session_row *rows = NULL;
	cleanup_buf struct buf b = BUF_INIT;
	int n = make_rows(h, &rows);
	struct session_listing m = {.rows = {rows, (size_t)n}};

	if (n <= 0)
		return;
	for (int i = 0; i < n; i++) {
		rows[i].clients = 0;
		if (!rows[i].running)
			continue;
		rows[i].running = false;
		rows[i].code = CODE_LOST;
		rows[i].ended_at = time(NULL);
	}
	wire_encode(session_types[SESSION_LISTING].table, &m, &b);
	if (record_put(dirfd, SESSION_PAST, &b) < 0)
		log_warn("what sessions ended with is not kept: it could not be written");
}

struct session_host *session_host_free(struct session_host *h)
{
	if (!h)
		return NULL;
	free_clients(h, true);
	while (h->sessions) {
		struct session *s = h->sessions;

		h->sessions = s->next;
		session_free(s);
	}
	loop_timer_stop(&h->sweep);
	loop_del(&h->listener);
	close_fd(h->listener.fd);
	free(h);
	return NULL;
}
