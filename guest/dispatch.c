/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From message type to handler. What is wrong with a frame is answered on its own id with
 * core.error, and the connection goes on.
 */
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "exec.h"
#include "fs.h"
#include "host.h"
#include "server.h"
#include "tcp.h"

union any_msg {
	struct msg_exec_request exec_request;
	struct msg_exec_resize exec_resize;
	struct msg_exec_signal exec_signal;
	struct msg_fs_request fs_request;
	struct msg_tcp_connect tcp_connect;
	struct msg_clock_sync clock_sync;
	struct msg_relay_client_disconnected disconnected;
	struct msg_data data;
	struct msg_host_cpus host_cpus;
	struct msg_host_defaults host_defaults;
	struct msg_shutdown shutdown;
	struct msg_empty empty;
};

static void do_shutdown(struct conn *c, uint32_t id, void *msg)
{
	const struct msg_shutdown *m = msg;

	(void)id;
	for (struct conn *each = c->sv->conns; each && m->grace_ms; each = each->next) {
		for (unsigned i = 0; i < STREAM_BUCKETS; i++) {
			for (struct stream *s = each->buckets[i]; s; s = s->next) {
				if (exec_is(s))
					exec_hang_up(s);
			}
		}
	}
	if (c->sv->on_shutdown)
		c->sv->on_shutdown(c->sv, m->grace_ms);
}

static void do_clock_sync(struct conn *c, uint32_t id, void *msg)
{
	const struct msg_clock_sync *m = msg;
	struct timespec ts = {
		.tv_sec = (time_t)(m->unix_time_nanos / 1000000000u),
		.tv_nsec = (long)(m->unix_time_nanos % 1000000000u),
	};

	if (clock_settime(CLOCK_REALTIME, &ts) < 0)
		conn_error(c, id, CORE_INVALID_PAYLOAD, "core.clock.sync",
			   "cannot set the clock: %s", strerror(errno));
}

static void do_ping(struct conn *c, uint32_t id, void *msg)
{
	struct msg_empty pong = {0};

	(void)msg;
	conn_send(c, id, MSG_PONG, &pong);
}

static void do_touch(struct conn *c, uint32_t id, void *msg)
{
	struct msg_touched touched = {.activity_seq = ++c->sv->activity_seq};

	(void)msg;
	conn_send(c, id, MSG_TOUCHED, &touched);
}

static void do_drain(struct conn *c, uint32_t id, void *msg)
{
	(void)id, (void)msg;
	c->sv->draining = true;
}

static void do_usage(struct conn *c, uint32_t id, void *msg)
{
	(void)msg;
	host_usage(c, id);
}

static void do_cpus(struct conn *c, uint32_t id, void *msg)
{
	host_cpus(c, id, msg);
}

static void do_defaults(struct conn *c, uint32_t id, void *msg)
{
	(void)id;
	host_defaults(c->sv, msg);
}

static void do_disconnected(struct conn *c, uint32_t id, void *msg)
{
	const struct msg_relay_client_disconnected *m = msg;

	(void)id;
	conn_abandon_range(c, m->id_start, m->id_end_exclusive);
}

static void do_nothing(struct conn *c, uint32_t id, void *msg)
{
	(void)c;
	(void)id;
	(void)msg;
}

static void do_exec(struct conn *c, uint32_t id, void *msg)
{
	exec_request(c, id, msg);
}

static void do_fs(struct conn *c, uint32_t id, void *msg)
{
	fs_request(c, id, msg);
}

static void do_tcp_connect(struct conn *c, uint32_t id, void *msg)
{
	tcp_connect(c, id, msg);
}

static bool on_resize(struct stream *s, const void *msg)
{
	if (!exec_is(s))
		return false;
	exec_resize(s, msg);
	return true;
}

static bool on_signal(struct stream *s, const void *msg)
{
	if (!exec_is(s))
		return false;
	exec_signal(s, msg);
	return true;
}

static bool on_tcp_eof(struct stream *s, const void *msg)
{
	(void)msg;
	if (!tcp_is(s))
		return false;
	tcp_eof(s);
	return true;
}

static bool on_tcp_close(struct stream *s, const void *msg)
{
	(void)msg;
	if (!tcp_is(s))
		return false;
	tcp_close(s);
	return true;
}

static bool on_exec_stdin(struct stream *s, const uint8_t *p, size_t n)
{
	if (!exec_is(s))
		return false;
	exec_stdin(s, p, n);
	return true;
}

static bool on_tcp_data(struct stream *s, const uint8_t *p, size_t n)
{
	if (!tcp_is(s))
		return false;
	tcp_data(s, p, n);
	return true;
}

/*
 * What the guest understands. `request` starts something or stands alone; `stream` and `data`
 * concern the running stream of their id and return false when that is of another kind. `anywhere`:
 * the control connection may address any client's stream with it. `host`: for that connection
 * alone.
 */
static const struct {
	void (*request)(struct conn *c, uint32_t id, void *msg);
	bool (*stream)(struct stream *s, const void *msg);
	bool (*data)(struct stream *s, const uint8_t *p, size_t n);
	bool anywhere, host;
} handlers[MSG_KINDS] = {
	[MSG_INIT_ACK] = {.request = do_nothing},
	[MSG_SHUTDOWN] = {.request = do_shutdown},
	[MSG_RELAY_CLIENT_DISCONNECTED] = {.request = do_disconnected},
	[MSG_CLOCK_SYNC] = {.request = do_clock_sync},
	[MSG_PING] = {.request = do_ping},
	[MSG_TOUCH] = {.request = do_touch},
	[MSG_EXEC_REQUEST] = {.request = do_exec},
	[MSG_EXEC_STDIN] = {.data = on_exec_stdin},
	[MSG_EXEC_RESIZE] = {.stream = on_resize, .anywhere = true},
	[MSG_EXEC_SIGNAL] = {.stream = on_signal, .anywhere = true},
	[MSG_FS_REQUEST] = {.request = do_fs},
	[MSG_FS_DATA] = {.data = fs_data},
	[MSG_TCP_CONNECT] = {.request = do_tcp_connect},
	[MSG_TCP_DATA] = {.data = on_tcp_data},
	[MSG_TCP_EOF] = {.stream = on_tcp_eof},
	[MSG_TCP_CLOSE] = {.stream = on_tcp_close},
	[MSG_HOST_DRAIN] = {.request = do_drain, .host = true},
	[MSG_HOST_USAGE] = {.request = do_usage, .host = true},
	[MSG_HOST_CPUS] = {.request = do_cpus, .host = true},
	[MSG_HOST_DEFAULTS] = {.request = do_defaults, .host = true},
};

static struct stream *find_stream(struct conn *c, uint32_t id, bool anywhere)
{
	struct stream *s = conn_stream(c, id);

	if (s || !anywhere || !c->control)
		return s;
	for (struct conn *other = c->sv->conns; other && !s; other = other->next)
		s = other->dead ? NULL : conn_stream(other, id);
	return s;
}

static void invalid_payload(struct conn *c, uint32_t id, const char *type, const struct err *err)
{
	conn_error(c, id, CORE_INVALID_PAYLOAD, type, "%s", err->msg);
}

static void dispatch_data(struct conn *c, uint32_t id, const struct envelope *e, struct stream *s,
			  bool (*handle)(struct stream *s, const uint8_t *p, size_t n))
{
	struct msg_data owned = {{NULL, 0}};
	struct err err = ERR_INIT;
	const uint8_t *p;
	size_t n;

	if (frame_data(e, &p, &n, &err) < 0) {
		if (frame_payload(e, &owned, &err) < 0) {
			invalid_payload(c, id, e->type->name, &err);
			return;
		}
		p = owned.data.p;
		n = owned.data.n;
	}
	if (!handle(s, p, n))
		conn_error(c, id, CORE_INVALID_SESSION, e->type->name,
			   "the session is of another kind");
	free(owned.data.p);
}

/* Flags and generation as the type asks for? */
static bool check_envelope(struct conn *c, const struct frame *f, const struct envelope *e)
{
	char name[64];

	if (!e->type) {
		snprintf(name, sizeof(name), "%.*s", (int)MIN(e->name_len, sizeof(name) - 1),
			 e->name);
		conn_error(c, f->id, CORE_UNSUPPORTED_MESSAGE_TYPE, name, "unknown message type");
		return false;
	}
	if (e->v < e->type->generation) {
		conn_error(c, f->id, CORE_UNSUPPORTED_PROTOCOL_GENERATION, e->type->name,
			   "the type came with generation %u, the message claims %u",
			   e->type->generation, e->v);
		return false;
	}
	if (f->flags != e->type->flags) {
		conn_error(c, f->id, CORE_INVALID_FLAGS, e->type->name,
			   "flags are 0x%02x, should be 0x%02x", f->flags, e->type->flags);
		return false;
	}
	return true;
}

void dispatch_frame(struct conn *c, const struct frame *f)
{
	struct err err = ERR_INIT;
	struct envelope e;
	union any_msg msg;
	enum msg_kind kind;
	struct stream *s;

	if (frame_open(f, &e, &err) < 0) {
		conn_error(c, f->id, CORE_MALFORMED_MESSAGE, NULL, "%s", err.msg);
		return;
	}
	if (!check_envelope(c, f, &e))
		return;
	kind = msg_kind_of(e.type);
	s = find_stream(c, f->id, handlers[kind].anywhere);
	if (handlers[kind].stream || handlers[kind].data) {
		if (!s) {
			if (!conn_ended(c, f->id))
				conn_error(c, f->id, CORE_INVALID_SESSION, e.type->name,
					   "no such session");
			return;
		}
		c->sv->activity_seq++;
	} else if (!handlers[kind].request || (handlers[kind].host && !c->control)) {
		conn_error(c, f->id, CORE_UNSUPPORTED_MESSAGE_TYPE, e.type->name,
			   "not a message for a guest");
		return;
	} else if (c->sv->draining && e.type->flags & FRAME_SESSION_START) {
		conn_error(c, f->id, CORE_INVALID_SESSION, e.type->name,
			   "the sandbox is draining: it takes no new commands");
		return;
	} else if (s && e.type->flags & FRAME_SESSION_START) {
		conn_error(c, f->id, CORE_INVALID_SESSION, e.type->name, "the id is in use");
		return;
	}
	if (handlers[kind].data) {
		dispatch_data(c, f->id, &e, s, handlers[kind].data);
		return;
	}
	if (frame_payload(&e, &msg, &err) < 0) {
		invalid_payload(c, f->id, e.type->name, &err);
		return;
	}
	if (handlers[kind].request)
		handlers[kind].request(c, f->id, &msg);
	else if (!handlers[kind].stream(s, &msg))
		conn_error(c, f->id, CORE_INVALID_SESSION, e.type->name,
			   "the session is of another kind");
	msg_free(kind, &msg);
}
