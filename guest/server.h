/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agentd's server: connections, the streams on them, and the turns of the loop.
 *
 * One thread. A turn of the loop handles the events that are there, runs work that was put off,
 * then writes out what the turn produced. A connection is one relay client; a stream is one id on
 * it (a command, a file transfer, a TCP connection). Connections share nothing but the loop.
 *
 * Memory is bounded everywhere. Output: above CONN_OUT_HIGH a connection's producers wait (see
 * conn_full() and conn_wait_room()), above CONN_OUT_STOP its requests are not read either. Input:
 * a stream that cannot take more data yet blocks the reading of its connection only. Each event
 * reads a bounded amount, and epoll hands out ready descriptors in turn, so that one flood does
 * not stall another stream.
 *
 * A connection that is closed stays in memory until the end of the turn; `dead` tells.
 */
#ifndef GUEST_SERVER_H
#define GUEST_SERVER_H

#include "base/buf.h"
#include "base/loop.h"
#include "wire/frame.h"

enum {
	CONN_OUT_HIGH = 1 << 20,
	CONN_OUT_LOW = 256 << 10,
	CONN_OUT_STOP = 4 << 20,
	/* One frame of the largest size and a read more. */
	CONN_IN_MAX = FRAME_WIRE_MAX + (512 << 10),
	CONN_READ = 256 << 10,
	CONN_FRAMES_PER_TURN = 256,
	CONNS_MAX = FRAME_CLIENTS_MAX + 8,
	STREAMS_MAX = 1024, /* per connection */
	STREAM_BUCKETS = 64,
	LISTEN_PAUSE_MS = 100, /* after running out of descriptors */
	/* Late frames for these are silently dropped: the client could not know yet. */
	CONN_ENDED_IDS = 64,
};

/* Something to do later in this turn or when there is room. Embedded in its owner. */
struct work {
	struct work *next, *prev; /* NULL when not queued */
	void (*fn)(struct work *w);
};
void work_list_init(struct work *head);
void work_cancel(struct work *w);

struct conn;
struct fs_handles;
struct stream;
struct server;

struct stream_ops {
	/* The client has gone, or the relay says so: release everything and say nothing. */
	void (*abandon)(struct stream *s);
};

struct stream {
	const struct stream_ops *ops;
	struct conn *conn;
	struct stream *next; /* in its bucket */
	uint32_t id;
};

struct conn {
	struct server *sv;
	struct conn *next, *next_dirty;
	struct loop_source src;
	struct buf in, out;
	struct stream *buckets[STREAM_BUCKETS];
	unsigned nstreams;
	uint32_t ended[CONN_ENDED_IDS];
	unsigned nended;
	struct work waiting; /* list of producers that wait for room */
	struct work more;    /* frames left in `in` for the next turn */
	unsigned blocked;    /* streams that take no more data now */
	struct fs_handles *fs;
	bool control, dirty, dead, full;
};

/* What a session gets unless it says otherwise; from core.bootstrap. */
struct session_defaults {
	const struct msg_bootstrap *boot;
	const struct wire_list *env; /* struct boot_env */
	const char *cwd;	     /* NULL: / */
	int cgroup_fd;		     /* commands are born there; -1: nowhere in particular */
};

struct server {
	struct loop *loop;
	struct conn *conns, *dirty;
	unsigned nconns;
	struct loop_source listener;
	struct loop_timer listen_again;
	struct work ready; /* list of work for this turn */
	struct session_defaults defaults;
	struct msg_host_defaults own; /* what the host replaced of them */
	uint64_t activity_seq;
	bool draining; /* no new sessions */
	bool quit;
	/* core.shutdown came, or the control connection is gone. */
	void (*on_shutdown)(struct server *sv, uint32_t grace_ms);
};

int server_init(struct server *sv, const struct msg_bootstrap *boot, struct err *err);
void server_done(struct server *sv);
/* Accept clients from @fd, a listening stream socket, which now belongs to the server. */
int server_listen(struct server *sv, int fd, struct err *err);
/* Take over a connected socket. NULL (and the socket closed) on failure. */
struct conn *server_adopt(struct server *sv, int fd, bool control);
/* Turn until sv->quit. */
void server_run(struct server *sv);
/* Write out what is queued, as far as it goes; server_run() does it every turn. */
void server_flush(struct server *sv);
void server_defer(struct server *sv, struct work *w);

void conn_close(struct conn *c);
/* Queue a message. */
void conn_send(struct conn *c, uint32_t id, enum msg_kind kind, const void *msg);
/* core.error. @type is the offending type or NULL. */
void conn_error(struct conn *c, uint32_t id, enum core_error kind, const char *type,
		const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* After appending to c->out oneself. */
void conn_produced(struct conn *c);
static inline bool conn_full(const struct conn *c)
{
	return c->full;
}
/* Run @w when the connection has room again. */
void conn_wait_room(struct conn *c, struct work *w);
/* A stream stops or starts taking data. */
void conn_block(struct conn *c, bool on);

struct stream *conn_stream(struct conn *c, uint32_t id);
/* Register: -EMFILE when there are too many. */
int stream_open(struct conn *c, struct stream *s, uint32_t id, const struct stream_ops *ops);
/* Unregister. */
void stream_close(struct stream *s);
/* Did a stream or request with this id end a short while ago? */
bool conn_ended(const struct conn *c, uint32_t id);
/* Abandon the streams and handles with ids in [start, end). */
void conn_abandon_range(struct conn *c, uint32_t start, uint32_t end);

/* dispatch.c: one frame. */
void dispatch_frame(struct conn *c, const struct frame *f);

#endif
