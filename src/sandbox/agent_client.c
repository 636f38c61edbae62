/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/agent_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "wire/cbor.h"

enum {
	GREETING = 8,		 /* id_start, id_end */
	READ_CHUNK = 256 * 1024, /* one read; four socket buffers' worth */
	/* Below this much queued, input may flow again: half, so that turns are long. */
	QUEUE_LOW = AGENT_QUEUE_HIGH / 2,
};

struct agent_exec {
	struct agent_client *client;
	const struct agent_exec_ops *ops;
	void *arg;
	uint32_t id;
	bool wants_room; /* somebody was told that there is none */
	struct frame_data chunk;
};

struct agent_stream {
	struct agent_client *client;
	const struct agent_stream_ops *ops;
	void *arg;
	struct agent_stream *next;
	uint32_t id;
	bool wants_room;
};

struct agent_client {
	struct loop_source source;
	const struct agent_client_ops *ops;
	void *arg;
	struct buf in, out;
	struct loop *loop;
	bool greeted, ready, paused, closed;
	bool dispatching; /* dispatch() is further up the stack and will see that we go on */
	uint32_t id_start, id_end, id_next;
	struct agent_exec *execs[AGENT_EXECS_MAX];
	struct agent_stream *streams;
	unsigned nstreams;
};

static void watch(struct agent_client *c)
{
	uint32_t events = 0;

	if (c->closed)
		return;
	if (!c->paused)
		events |= EPOLLIN;
	if (c->ready && buf_size(&c->out))
		events |= EPOLLOUT;
	loop_mod(&c->source, events);
}

static void close_client(struct agent_client *c, const struct err *why)
{
	if (c->closed)
		return;
	c->closed = true;
	loop_del(&c->source);
	c->ops->closed(c->arg, why);
}

static void close_oom(struct agent_client *c)
{
	struct err why = ERR_INIT;

	err_set(&why, ENOMEM, "the connection to the agent ended: out of memory");
	close_client(c, &why);
}

static void tell_room(struct agent_client *c)
{
	if (!c->ready || buf_size(&c->out) > QUEUE_LOW)
		return;
	for (size_t i = 0; i < AGENT_EXECS_MAX && !c->closed; i++) {
		struct agent_exec *e = c->execs[i];

		if (!e || !e->wants_room)
			continue;
		e->wants_room = false;
		e->ops->stdin_room(e->arg);
	}
	/* A callback may end streams: start over after each. */
	for (struct agent_stream *s = c->streams;
	     s && !c->closed && buf_size(&c->out) <= QUEUE_LOW;) {
		if (!s->wants_room) {
			s = s->next;
			continue;
		}
		s->wants_room = false;
		s->ops->room(s->arg);
		s = c->streams;
	}
}

/* Write what the socket takes. */
static void flush(struct agent_client *c)
{
	while (c->ready && !c->closed && buf_size(&c->out)) {
		ssize_t n = send(c->source.fd, buf_ptr(&c->out), buf_size(&c->out),
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n >= 0) {
			buf_consume(&c->out, (size_t)n);
			continue;
		}
		if (errno == EINTR)
			continue;
		/* A broken connection is reported by its reading side, after its last words. */
		if (errno != EAGAIN)
			buf_reset(&c->out);
		break;
	}
	watch(c);
}

/* A frame was appended to the queue with result @r. */
static void sent(struct agent_client *c, int r)
{
	if (r == -ENOMEM || buf_failed(&c->out))
		close_oom(c);
	else
		flush(c);
}

static struct agent_exec *find_exec(struct agent_client *c, uint32_t id)
{
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		if (c->execs[i] && c->execs[i]->id == id)
			return c->execs[i];
	}
	return NULL;
}

static void drop_exec(struct agent_exec *e)
{
	struct agent_client *c = e->client;

	for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
		if (c->execs[i] == e)
			c->execs[i] = NULL;
	}
	free(e);
}

static struct agent_stream *find_stream(struct agent_client *c, uint32_t id)
{
	struct agent_stream *s = c->streams;

	while (s && s->id != id)
		s = s->next;
	return s;
}

void agent_stream_drop(struct agent_stream *s)
{
	struct agent_stream **p;

	if (!s)
		return;
	p = &s->client->streams;
	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	s->client->nstreams--;
	free(s);
}

static void on_stream(struct agent_stream *s, const struct envelope *env, uint8_t flags)
{
	bool last = flags & FRAME_TERMINAL || msg_kind_of(env->type) == MSG_ERROR;
	struct agent_client *c = s->client;
	uint32_t id = s->id;

	s->ops->message(s->arg, env, last);
	/* It may have been dropped in there. */
	if (last)
		agent_stream_drop(find_stream(c, id));
}

int agent_stream_bytes(const struct envelope *env, struct msg_data *owned, const uint8_t **ret,
		       size_t *n, struct err *err)
{
	int r = frame_data(env, ret, n, err);

	if (r != -ERR_UNSUPPORTED)
		return r;
	err_clear(err);
	r = frame_payload(env, owned, err);
	if (r < 0)
		return r;
	*ret = owned->data.p;
	*n = owned->data.n;
	return 0;
}

static int on_data(struct agent_exec *e, const struct envelope *env, struct err *err)
{
	int stream = msg_kind_of(env->type) == MSG_EXEC_STDERR ? 2 : 1, r;
	const uint8_t *p;
	struct msg_data m = {0};
	size_t n;

	r = agent_stream_bytes(env, &m, &p, &n, err);
	if (r >= 0 && n)
		e->ops->output(e->arg, stream, p, n);
	msg_free(MSG_EXEC_STDOUT, &m);
	return r < 0 ? r : 0;
}

/* A core.error in place of a session's end: the agent did not understand us. */
static void exec_refused(struct agent_exec *e, const struct msg_error *m)
{
	struct msg_exec_failed why = {.kind = EXEC_OTHER, .message = m->message};

	e->ops->failed(e->arg, &why);
}

static int on_exec(struct agent_exec *e, const struct envelope *env, struct err *err)
{
	enum msg_kind kind = msg_kind_of(env->type);
	union {
		struct msg_exec_started started;
		struct msg_exec_exited exited;
		struct msg_exec_failed failed;
		struct msg_error error;
	} m;
	int r;

	switch (kind) {
	case MSG_EXEC_STDOUT:
	case MSG_EXEC_STDERR:
		return on_data(e, env, err);
	case MSG_EXEC_STDIN_ERROR:
		if (e->ops->stdin_closed)
			e->ops->stdin_closed(e->arg);
		return 0;
	case MSG_EXEC_STARTED:
	case MSG_EXEC_EXITED:
	case MSG_EXEC_FAILED:
	case MSG_ERROR:
		break;
	default:
		log_debug("the agent sent %.*s in a command's session", (int)env->name_len,
			  env->name);
		return 0;
	}
	memset(&m, 0, sizeof(m));
	r = frame_payload(env, &m, err);
	if (r < 0)
		return r;
	if (kind == MSG_EXEC_STARTED) {
		e->ops->started(e->arg, m.started.pid);
	} else {
		if (kind == MSG_EXEC_EXITED)
			e->ops->exited(e->arg, m.exited.code);
		else if (kind == MSG_EXEC_FAILED)
			e->ops->failed(e->arg, &m.failed);
		else
			exec_refused(e, &m.error);
		drop_exec(e);
	}
	msg_free(kind, &m);
	return 0;
}

static int on_ready(struct agent_client *c, const struct envelope *env, struct err *err)
{
	struct msg_ready m = {0};
	int r = frame_payload(env, &m, err);

	if (r < 0)
		return r;
	c->ready = true;
	c->ops->ready(c->arg, &m);
	msg_free(MSG_READY, &m);
	if (!c->closed) {
		flush(c);
		tell_room(c);
	}
	return 0;
}

/* Whoever is before the agent does not let us in. */
static int on_refusal(struct agent_client *c, const struct envelope *env, struct err *err)
{
	struct msg_error m = {0};
	struct err why = ERR_INIT;
	int r = frame_payload(env, &m, err);

	if (r < 0)
		return r;
	err_set(&why, ERR_GUEST, "%s", m.message);
	msg_free(MSG_ERROR, &m);
	close_client(c, &why);
	return 0;
}

static int on_frame(struct agent_client *c, const struct frame *f, struct err *err)
{
	struct envelope env;
	struct agent_exec *e;
	struct agent_stream *s;
	int r = frame_open(f, &env, err);

	if (r < 0)
		return r;
	e = find_exec(c, f->id);
	if (!env.type && e && e->ops->other) {
		e->ops->other(e->arg, &env);
		if (f->flags & FRAME_TERMINAL)
			drop_exec(e);
		return 0;
	}
	if (!env.type) {
		log_debug("the agent sent %.*s, which we do not know", (int)env.name_len, env.name);
		return 0;
	}
	if (f->id == 0) {
		if (!c->ready && msg_kind_of(env.type) == MSG_READY)
			return on_ready(c, &env, err);
		if (!c->ready && msg_kind_of(env.type) == MSG_ERROR)
			return on_refusal(c, &env, err);
		return 0;
	}
	s = find_stream(c, f->id);
	if (s) {
		on_stream(s, &env, f->flags);
		return 0;
	}
	/* A session that has just ended may have had more on its way. */
	return e ? on_exec(e, &env, err) : 0;
}

static int on_greeting(struct agent_client *c, struct err *err)
{
	struct cur cur = cur_make(buf_ptr(&c->in), GREETING);
	uint32_t start = cur_be32(&cur), end = cur_be32(&cur);

	if (start == 0 || end <= start || end - start < AGENT_EXECS_MAX)
		return err_set(err, ERR_PROTOCOL, "the relay gave us ids %u to %u", start, end);
	buf_consume(&c->in, GREETING);
	c->id_start = c->id_next = start;
	c->id_end = end;
	c->greeted = true;
	return 0;
}

/* Deal with what has come, until there is no more or the owner has had enough. */
static int dispatch(struct agent_client *c, struct err *err)
{
	struct frame f;
	int r = 0;

	if (!c->greeted) {
		if (buf_size(&c->in) < GREETING)
			return 0;
		r = on_greeting(c, err);
	}
	c->dispatching = true;
	while (r >= 0 && !c->closed && !c->paused) {
		r = frame_peek(&c->in, &f, err);
		if (r <= 0)
			break;
		r = on_frame(c, &f, err);
		frame_consume(&c->in, &f);
	}
	c->dispatching = false;
	return r;
}

static void dispatch_or_close(struct agent_client *c)
{
	struct err why = ERR_INIT;

	if (dispatch(c, &why) < 0) {
		err_wrap(&why, "the agent broke the protocol");
		close_client(c, &why);
	}
}

static void on_readable(struct agent_client *c)
{
	struct err why = ERR_INIT;
	size_t want = READ_CHUNK;
	void *to;
	ssize_t n;

	to = buf_reserve(&c->in, want);
	if (!to) {
		close_oom(c);
		return;
	}
	n = recv(c->source.fd, to, want, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		if (n < 0)
			err_errno(&why, "the connection to the agent broke");
		else
			err_set(&why, ECONNRESET, "the connection to the agent ended");
		close_client(c, &why);
		return;
	}
	buf_commit(&c->in, (size_t)n);
	dispatch_or_close(c);
}

static void on_event(struct loop_source *s, uint32_t events)
{
	struct agent_client *c = container_of(s, struct agent_client, source);

	if (events & EPOLLOUT) {
		flush(c);
		tell_room(c);
	}
	if (c->closed)
		return;
	if (!c->paused && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
		on_readable(c);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		/* Level-triggered and not to be masked: step aside until the owner goes on. */
		loop_del(&c->source);
	}
}

int agent_client_new(struct agent_client **ret, struct loop *loop, int fd,
		     const struct agent_client_ops *ops, void *arg, struct err *err)
{
	struct agent_client *c = calloc(1, sizeof(*c));
	int r = c ? 0 : -ENOMEM;

	if (c) {
		c->ops = ops;
		c->arg = arg;
		c->source.fn = on_event;
		c->source.fd = fd;
		r = loop_add(loop, &c->source, EPOLLIN);
	}
	if (r < 0) {
		free(c);
		close_fd(fd);
		return err_set(err, r, "cannot watch the agent's connection: %s", err_name(r));
	}
	c->loop = loop;
	*ret = c;
	return 0;
}

struct agent_client *agent_client_free(struct agent_client *c)
{
	if (!c)
		return NULL;
	loop_del(&c->source);
	close_fd(c->source.fd);
	for (size_t i = 0; i < AGENT_EXECS_MAX; i++)
		free(c->execs[i]);
	while (c->streams)
		agent_stream_drop(c->streams);
	buf_done(&c->in);
	buf_done(&c->out);
	free(c);
	return NULL;
}

void agent_client_pause(struct agent_client *c, bool pause)
{
	if (c->paused == pause || c->closed)
		return;
	c->paused = pause;
	if (!pause && !loop_source_active(&c->source) &&
	    loop_add(c->loop, &c->source, EPOLLIN) < 0) {
		close_oom(c);
		return;
	}
	watch(c);
	if (!pause && !c->dispatching)
		dispatch_or_close(c);
}

static int copy_texts(struct wire_texts *to, const struct strv *from, size_t skip)
{
	to->v = calloc(from->n + 1, sizeof(char *));
	if (!to->v)
		return -ENOMEM;
	for (size_t i = skip; i < from->n; i++) {
		to->v[to->n] = strdup(from->v[i]);
		if (!to->v[to->n])
			return -ENOMEM;
		to->n++;
	}
	return 0;
}

static int fill_request(const struct agent_exec_start *start, struct msg_exec_request *m)
{
	struct exec_rlimit *limits = calloc(start->nrlimits + 1, sizeof(*limits));

	m->rlimits = (struct wire_list){limits, limits ? start->nrlimits : 0};
	for (size_t i = 0; i < m->rlimits.n; i++) {
		limits[i].resource = strdup(start->rlimits[i].resource);
		limits[i].soft = start->rlimits[i].soft;
		limits[i].hard = start->rlimits[i].hard;
		if (!limits[i].resource)
			return -ENOMEM;
	}
	m->cmd = strdup(start->argv->v[0]);
	m->cwd = start->workdir ? strdup(start->workdir) : NULL;
	m->user = start->user ? strdup(start->user) : NULL;
	m->tty = start->tty;
	m->rows = start->rows;
	m->cols = start->cols;
	if (!limits || !m->cmd || !m->cwd != !start->workdir || !m->user != !start->user)
		return -ENOMEM;
	if (start->env && copy_texts(&m->env, start->env, 0) < 0)
		return -ENOMEM;
	return copy_texts(&m->args, start->argv, 1);
}

/* The protocol carries text: bytes that are none would arrive as something else. */
static int check_texts(const char *what, const struct strv *texts, struct err *err)
{
	for (size_t i = 0; texts && i < texts->n; i++) {
		if (cbor_utf8_valid((const uint8_t *)texts->v[i], strlen(texts->v[i])))
			continue;
		err_set(err, ERR_UNSUPPORTED, "%s is not valid UTF-8 and cannot be passed on",
			what);
		return err_hint(err, "pass such bytes through standard input");
	}
	return 0;
}

int agent_exec_request(const struct agent_exec_start *start, struct msg_exec_request *m,
		       struct err *err)
{
	int r = check_texts("an argument", start->argv, err);

	if (r == 0 && start->argv->n > WIRE_LIST_MAX) {
		err_set(err, E2BIG, "%zu arguments are more than the %d that can be passed on",
			start->argv->n - 1, WIRE_LIST_MAX - 1);
		return err_hint(err, "standard input takes more than a command line");
	}
	if (r == 0)
		r = check_texts("an environment variable", start->env, err);
	if (r == 0 && fill_request(start, m) < 0)
		r = err_set(err, ENOMEM, "cannot ask for a command: out of memory");
	return r;
}

static uint32_t next_id(struct agent_client *c)
{
	uint32_t id;

	do {
		id = c->id_next++;
		if (c->id_next == c->id_end)
			c->id_next = c->id_start;
	} while (find_exec(c, id) || find_stream(c, id));
	return id;
}

int agent_exec_open(struct agent_exec **ret, struct agent_client *c, const struct msg_type *type,
		    const void *msg, const struct agent_exec_ops *ops, void *arg, struct err *err)
{
	struct agent_exec *e;
	size_t slot = 0;
	int r;

	if (!c->ready || c->closed)
		return err_set(err, ENOTCONN, "the agent is not connected");
	while (slot < AGENT_EXECS_MAX && c->execs[slot])
		slot++;
	if (slot == AGENT_EXECS_MAX)
		return err_set(err, ERR_LIMIT, "%d commands run already over this connection",
			       AGENT_EXECS_MAX);
	e = calloc(1, sizeof(*e));
	r = e ? 0 : -ENOMEM;
	if (e) {
		*e = (struct agent_exec){.client = c, .ops = ops, .arg = arg, .id = next_id(c)};
		r = frame_put_typed(&c->out, e->id, type, msg);
	}
	if (r < 0) {
		free(e);
		if (r == -EMSGSIZE)
			return err_set(err, E2BIG, "the command and its environment are too long");
		return err_set(err, r, "cannot ask for a command: %s", err_name(r));
	}
	c->execs[slot] = e;
	*ret = e;
	sent(c, 0);
	return 0;
}

int agent_exec_new(struct agent_exec **ret, struct agent_client *c,
		   const struct agent_exec_start *start, const struct agent_exec_ops *ops,
		   void *arg, struct err *err)
{
	struct msg_exec_request m = {0};
	int r;

	if (!start->argv->n)
		return err_set(err, ERR_USAGE, "there is no command to run");
	r = agent_exec_request(start, &m, err);
	if (r == 0)
		r = agent_exec_open(ret, c, &msg_types[MSG_EXEC_REQUEST], &m, ops, arg, err);
	msg_free(MSG_EXEC_REQUEST, &m);
	return r;
}

void agent_exec_send(struct agent_exec *e, const struct msg_type *type, const void *msg)
{
	sent(e->client, frame_put_typed(&e->client->out, e->id, type, msg));
}

bool agent_exec_stdin_room(struct agent_exec *e)
{
	e->wants_room = e->client->closed || buf_size(&e->client->out) >= AGENT_QUEUE_HIGH;
	return !e->wants_room;
}

void *agent_exec_stdin_begin(struct agent_exec *e)
{
	return frame_data_begin(&e->client->out, &e->chunk, e->id, MSG_EXEC_STDIN,
				AGENT_STDIN_CHUNK);
}

void agent_exec_stdin_end(struct agent_exec *e, size_t n)
{
	frame_data_end(&e->client->out, &e->chunk, n);
	sent(e->client, 0);
}

void agent_exec_stdin_eof(struct agent_exec *e)
{
	sent(e->client, frame_put_data(&e->client->out, e->id, MSG_EXEC_STDIN, NULL, 0));
}

void agent_exec_resize(struct agent_exec *e, uint16_t rows, uint16_t cols)
{
	struct msg_exec_resize m = {.rows = rows, .cols = cols};

	sent(e->client, frame_put_msg(&e->client->out, e->id, MSG_EXEC_RESIZE, &m));
}

void agent_exec_signal(struct agent_exec *e, int sig)
{
	struct msg_exec_signal m = {.signal = sig};

	sent(e->client, frame_put_msg(&e->client->out, e->id, MSG_EXEC_SIGNAL, &m));
}

int agent_stream_new(struct agent_stream **ret, struct agent_client *c, enum msg_kind kind,
		     const void *msg, const struct agent_stream_ops *ops, void *arg,
		     struct err *err)
{
	struct agent_stream *s;
	int r;

	if (!c->ready || c->closed)
		return err_set(err, ENOTCONN, "the agent is not connected");
	if (c->nstreams == AGENT_STREAMS_MAX)
		return err_set(err, ERR_LIMIT, "%d sessions are open already over this connection",
			       AGENT_STREAMS_MAX);
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	*s = (struct agent_stream){.client = c, .ops = ops, .arg = arg, .id = next_id(c)};
	r = frame_put_msg(&c->out, s->id, kind, msg);
	if (r < 0) {
		free(s);
		return err_set(err, r, "cannot ask the agent (%s): %s", msg_types[kind].name,
			       err_name(r));
	}
	s->next = c->streams;
	c->streams = s;
	c->nstreams++;
	*ret = s;
	sent(c, 0);
	return 0;
}

bool agent_stream_room(struct agent_stream *s)
{
	s->wants_room = s->client->closed || buf_size(&s->client->out) >= AGENT_QUEUE_HIGH;
	return !s->wants_room;
}

void agent_stream_send(struct agent_stream *s, enum msg_kind kind, const void *msg)
{
	sent(s->client, frame_put_msg(&s->client->out, s->id, kind, msg));
}

void agent_stream_data(struct agent_stream *s, enum msg_kind kind, const void *p, size_t n)
{
	sent(s->client, frame_put_data(&s->client->out, s->id, kind, p, n));
}

int agent_exec_why(const struct msg_exec_failed *m, const char *cmd, struct err *why)
{
	enum { CODE_OURS = 125, CODE_CANNOT_EXECUTE, CODE_NO_COMMAND };
	const char *what = m->message && m->message[0] ? m->message : err_name(m->error);
	int code = CODE_OURS;

	switch ((enum exec_fail)m->kind) {
	case EXEC_NOT_FOUND:
		err_set(why, ERR_NOT_FOUND, "there is no command \"%s\" in the image", cmd);
		err_hint(why, strchr(cmd, '/') ? "check the path"
					       : "it is looked for in the guest's PATH");
		code = CODE_NO_COMMAND;
		break;
	case EXEC_PERMISSION_DENIED:
	case EXEC_NOT_EXECUTABLE:
		err_set(why, EACCES, "cannot execute \"%s\": %s", cmd, what);
		code = CODE_CANNOT_EXECUTE;
		break;
	case EXEC_BAD_CWD:
		err_set(why, ERR_NOT_FOUND, "cannot enter the working directory: %s", what);
		err_hint(why, "it must be in the image; name another with -w");
		break;
	case EXEC_USER_SETUP_FAILED:
		err_set(why, ERR_NOT_FOUND, "cannot become the command's user: %s", what);
		err_hint(why, "it must be in the image's /etc/passwd, or a number");
		break;
	default:
		err_set(why, ERR_GUEST, "cannot run \"%s\": %s", cmd, what);
		if (m->kind == EXEC_BAD_ARGS && m->error == E2BIG)
			err_hint(why, "standard input takes more than a command line");
		break;
	}
	return code;
}
