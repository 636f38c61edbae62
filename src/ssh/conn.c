/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/server.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"
#include "sandbox/agent_client.h"
#include "ssh/ssh.h"
#include "wire/frame.h"

#define LOGIN_NS      ((uint64_t)60000000000)
#define KEYS_FILE_MAX ((size_t)1 << 20)
/* Kept for a client that does not read; then the agent is not read either. */
#define OUT_HIGH ((size_t)256 << 10)
#define OUT_LOW	 ((size_t)64 << 10)
#define ENV_MAX	 64

struct conn;

enum chan_kind { CHAN_IDLE, CHAN_EXEC, CHAN_SFTP, CHAN_TCP };

struct chan {
	struct conn *conn;
	struct chan *next;
	ssh_channel ch;
	struct ssh_channel_callbacks_struct cb;
	enum chan_kind kind;
	struct agent_client *agent;
	struct agent_exec *exec;
	struct agent_stream *tcp, *home; /* home: asked for */
	struct sftp *sftp;
	struct buf out[2]; /* to the client: output, error output */
	struct strv argv, env;
	char *host;
	uint16_t port, rows, cols;
	bool tty, connected, in_eof, eof_told, ended, closed, status;
	int code;
};

struct conn {
	const struct ssh_options *o;
	int agents;
	struct buf keys; /* the authorized_keys file, as it was when the client came */
	struct loop *loop;
	struct loop_source sock;
	struct loop_timer idle;
	ssh_session session;
	ssh_event event;
	struct chan *chans;
	unsigned nchans;
	char user[64];
	bool in, over;
};

static void touch(struct conn *c)
{
	if (c->in && c->o->idle_ns)
		(void)loop_timer_in(c->loop, &c->idle, c->o->idle_ns);
}

/* ---- to the client ---- */

static void end_channel(struct chan *h)
{
	if (h->closed)
		return;
	h->closed = true;
	if (h->status)
		(void)ssh_channel_request_send_exit_status(h->ch, h->code);
	(void)ssh_channel_send_eof(h->ch);
	(void)ssh_channel_close(h->ch);
}

/* As much as its window takes; what is left waits for a larger one. */
static void flush_channel(struct chan *h)
{
	for (int i = 0; i < 2 && !h->closed; i++) {
		while (buf_size(&h->out[i])) {
			uint32_t n = (uint32_t)MIN(buf_size(&h->out[i]), (size_t)32768);
			int w = i ? ssh_channel_write_stderr(h->ch, buf_ptr(&h->out[i]), n)
				  : ssh_channel_write(h->ch, buf_ptr(&h->out[i]), n);

			if (w <= 0)
				break;
			buf_consume(&h->out[i], (size_t)w);
		}
	}
	if (h->agent && buf_size(&h->out[0]) < OUT_LOW && buf_size(&h->out[1]) < OUT_LOW)
		agent_client_pause(h->agent, false);
	if (h->ended && !buf_size(&h->out[0]) && !buf_size(&h->out[1]))
		end_channel(h);
}

static void to_client(struct chan *h, int stream, const void *p, size_t n)
{
	struct buf *b = &h->out[stream - 1];

	if (h->closed)
		return;
	touch(h->conn);
	buf_add(b, p, n);
	if (buf_failed(b)) {
		h->ended = true;
		buf_reset(b);
	}
	flush_channel(h);
	if (h->agent && buf_size(b) >= OUT_HIGH)
		agent_client_pause(h->agent, true);
}

static void end(struct chan *h, bool status, int code)
{
	h->ended = true;
	h->status = status;
	h->code = code;
	flush_channel(h);
}

/* ---- commands ---- */

static void exec_started(void *arg, uint32_t pid)
{
	(void)arg;
	(void)pid;
}

static void exec_output(void *arg, int stream, const void *p, size_t n)
{
	to_client(arg, stream, p, n);
}

static void more_input(void *arg);

static void exec_stdin_closed(void *arg)
{
	((struct chan *)arg)->eof_told = true;
}

static void exec_exited(void *arg, int code)
{
	struct chan *h = arg;

	h->exec = NULL;
	end(h, true, code);
}

static void say(struct chan *h, const char *what, const char *why)
{
	char text[400];
	int n = snprintf(text, sizeof(text), "%s%s%s", what, why, h->tty ? "\r\n" : "\n");

	to_client(h, 2, text, MIN((size_t)n, sizeof(text) - 1));
}

static void refuse(struct chan *h, const char *why)
{
	say(h, "cannot run it: ", why ? why : "no reason given");
}

static void exec_failed(void *arg, const struct msg_exec_failed *why)
{
	struct chan *h = arg;

	h->exec = NULL;
	refuse(h, why->message);
	end(h, true, why->kind == EXEC_NOT_FOUND ? 127 : 126);
}

static const struct agent_exec_ops exec_ops = {
	.started = exec_started,
	.output = exec_output,
	.stdin_room = more_input,
	.stdin_closed = exec_stdin_closed,
	.exited = exec_exited,
	.failed = exec_failed,
};

/* ---- TCP ---- */

static void tcp_message(void *arg, const struct envelope *env, bool last)
{
	struct chan *h = arg;
	struct msg_data owned = {0};
	const uint8_t *p;
	size_t n;

	switch (msg_kind_of(env->type)) {
	case MSG_TCP_CONNECTED:
		h->connected = true;
		break;
	case MSG_TCP_DATA:
		if (agent_stream_bytes(env, &owned, &p, &n, NULL) >= 0)
			to_client(h, 1, p, n);
		msg_free(MSG_TCP_DATA, &owned);
		break;
	case MSG_TCP_EOF:
		if (!buf_size(&h->out[0]) && !h->closed)
			(void)ssh_channel_send_eof(h->ch);
		break;
	default:
		break;
	}
	if (last) {
		h->tcp = NULL;
		end(h, false, 0);
	} else if (h->connected) {
		more_input(h);
	}
}

static const struct agent_stream_ops tcp_ops = {.message = tcp_message, .room = more_input};

/* ---- from the client ---- */

static bool room(struct chan *h)
{
	switch (h->kind) {
	case CHAN_EXEC:
		return h->exec && agent_exec_stdin_room(h->exec);
	case CHAN_TCP:
		return h->tcp && h->connected && agent_stream_room(h->tcp);
	case CHAN_SFTP:
		return h->sftp && sftp_pending(h->sftp) < SFTP_PENDING_MAX &&
		       buf_size(&h->out[0]) < OUT_HIGH;
	default:
		return false;
	}
}

static void give(struct chan *h, const uint8_t *p, size_t n)
{
	touch(h->conn);
	if (h->kind == CHAN_SFTP) {
		if (!sftp_input(h->sftp, p, n))
			end(h, false, 0);
		return;
	}
	while (n) {
		size_t piece = MIN(n, AGENT_STDIN_CHUNK);

		if (h->kind == CHAN_TCP) {
			agent_stream_data(h->tcp, MSG_TCP_DATA, p, piece);
		} else {
			void *to = agent_exec_stdin_begin(h->exec);

			if (!to)
				return;
			memcpy(to, p, piece);
			agent_exec_stdin_end(h->exec, piece);
		}
		p += piece;
		n -= piece;
	}
}

/* What libssh has kept for us, and then perhaps the end. */
static void more_input(void *arg)
{
	struct chan *h = arg;
	struct msg_empty none = {0};
	uint8_t chunk[16 << 10];

	while (!h->closed && room(h)) {
		int n = ssh_channel_read_nonblocking(h->ch, chunk, sizeof(chunk), 0);

		if (n <= 0)
			break;
		give(h, chunk, (size_t)n);
	}
	if (!h->in_eof || h->eof_told || h->closed || ssh_channel_poll(h->ch, 0) > 0 || !room(h))
		return;
	h->eof_told = true;
	if (h->kind == CHAN_EXEC)
		agent_exec_stdin_eof(h->exec);
	else if (h->kind == CHAN_TCP)
		agent_stream_send(h->tcp, MSG_TCP_EOF, &none);
	else if (!sftp_pending(h->sftp))
		end(h, true, 0);
}

static int on_data(ssh_session s, ssh_channel ch, void *data, uint32_t len, int is_stderr,
		   void *arg)
{
	struct chan *h = arg;

	(void)s;
	(void)ch;
	if (is_stderr || h->closed || (h->kind == CHAN_EXEC && h->eof_told))
		return (int)len;
	if (!room(h) || ssh_channel_poll(h->ch, 0) > (int)len)
		return 0;
	give(h, data, len);
	return (int)len;
}

static void on_eof(ssh_session s, ssh_channel ch, void *arg)
{
	struct chan *h = arg;

	(void)s;
	(void)ch;
	h->in_eof = true;
}

static void on_close(ssh_session s, ssh_channel ch, void *arg)
{
	struct chan *h = arg;

	(void)s;
	(void)ch;
	h->closed = true;
}

/* ---- channels ---- */

static int ask_home(struct chan *h);

/* Who they are in the guest; empty: its default user. */
static const char *guest_user(const struct conn *c)
{
	return c->o->user ? c->o->user : c->user;
}

static void agent_ready(void *arg, const struct msg_ready *ready)
{
	struct chan *h = arg;
	const char *user = guest_user(h->conn);
	struct agent_exec_start start = {
		.argv = &h->argv,
		.env = &h->env,
		.user = *user ? user : NULL,
		.tty = h->tty,
		.rows = h->rows,
		.cols = h->cols,
	};
	struct msg_tcp_connect connect = {.host = h->host, .port = h->port};
	struct err err = ERR_INIT;
	int r = 0;

	(void)ready;
	if (h->kind == CHAN_EXEC)
		r = agent_exec_new(&h->exec, h->agent, &start, &exec_ops, h, &err);
	else if (h->kind == CHAN_TCP)
		r = agent_stream_new(&h->tcp, h->agent, MSG_TCP_CONNECT, &connect, &tcp_ops, h,
				     &err);
	else
		r = ask_home(h);
	if (r < 0 && h->kind != CHAN_TCP)
		refuse(h, err.msg);
	if (r < 0)
		end(h, true, 255);
}

static void agent_closed(void *arg, const struct err *why)
{
	struct chan *h = arg;

	if (h->kind != CHAN_TCP && !h->ended) {
		if (why->code == ERR_GUEST)
			refuse(h, why->msg);
		else
			say(h, "the sandbox has ended", "");
	}
	h->exec = NULL;
	h->tcp = h->home = NULL;
	end(h, h->kind != CHAN_TCP, 255);
}

static const struct agent_client_ops agent_ops = {.ready = agent_ready, .closed = agent_closed};

/* A connection to the agent for this channel. */
static int begin(struct chan *h, enum chan_kind kind)
{
	int fd;

	if (h->kind != CHAN_IDLE)
		return -1;
	fd = agent_connect(h->conn->agents);
	if (fd < 0 || agent_client_new(&h->agent, h->conn->loop, fd, &agent_ops, h, NULL) < 0)
		return -1;
	h->kind = kind;
	return 0;
}

static void sftp_send(void *arg, const void *p, size_t n)
{
	to_client(arg, 1, p, n);
}

/* Files are the business of a user, who may not be there. */
static void home_message(void *arg, const struct envelope *env, bool last)
{
	const struct sftp_out out = {.send = sftp_send, .arg = arg};
	struct chan *h = arg;
	struct msg_fs_response m = {0};

	if (!last)
		return;
	h->home = NULL;
	if (msg_kind_of(env->type) == MSG_FS_RESPONSE && frame_payload(env, &m, NULL) == 0 &&
	    m.ok && m.has_data && m.data.kind == FS_RESULT_PATH)
		h->sftp = sftp_new(h->agent, guest_user(h->conn), m.data.path, &out);
	if (h->sftp) {
		more_input(h);
	} else {
		refuse(h, m.error);
		end(h, true, 255);
	}
	msg_free(MSG_FS_RESPONSE, &m);
}

static const struct agent_stream_ops home_ops = {.message = home_message, .room = more_input};

static int ask_home(struct chan *h)
{
	struct msg_fs_request m = {
		.op = {.kind = FS_REAL_PATH, .path = (char *)(uintptr_t) "."},
		.user = (char *)(uintptr_t)guest_user(h->conn),
	};

	return agent_stream_new(&h->home, h->agent, MSG_FS_REQUEST, &m, &home_ops, h, NULL);
}

static int on_pty(ssh_session s, ssh_channel ch, const char *term, int width, int height, int px,
		  int py, void *arg)
{
	struct chan *h = arg;

	(void)s, (void)ch, (void)px, (void)py;
	h->tty = true;
	h->cols = (uint16_t)MAX(MIN(width, 10000), 1);
	h->rows = (uint16_t)MAX(MIN(height, 10000), 1);
	(void)strv_addf(&h->env, "TERM=%.60s", term);
	return 0;
}

static int on_resize(ssh_session s, ssh_channel ch, int width, int height, int px, int py,
		     void *arg)
{
	struct chan *h = arg;

	(void)s, (void)ch, (void)px, (void)py;
	h->cols = (uint16_t)MAX(MIN(width, 10000), 1);
	h->rows = (uint16_t)MAX(MIN(height, 10000), 1);
	if (h->exec)
		agent_exec_resize(h->exec, h->rows, h->cols);
	return 0;
}

static int on_env(ssh_session s, ssh_channel ch, const char *name, const char *value, void *arg)
{
	struct chan *h = arg;

	(void)s, (void)ch;
	if (h->env.n >= ENV_MAX || !*name || strchr(name, '=') || strlen(name) > 256 ||
	    strlen(value) > 32768)
		return -1;
	return strv_addf(&h->env, "%s=%s", name, value) < 0 ? -1 : 0;
}

static int run(struct chan *h, const char *command)
{
	int r;

	if (h->kind != CHAN_IDLE)
		return -1;
	r = strv_add(&h->argv, h->conn->o->shell);
	if (r == 0)
		r = strv_add(&h->argv, command ? "-c" : "-l");
	if (r == 0 && command)
		r = strv_add(&h->argv, command);
	return r < 0 ? -1 : begin(h, CHAN_EXEC);
}

static int on_shell(ssh_session s, ssh_channel ch, void *arg)
{
	(void)s, (void)ch;
	return run(arg, NULL) < 0;
}

static int on_exec(ssh_session s, ssh_channel ch, const char *command, void *arg)
{
	(void)s, (void)ch;
	return run(arg, command) < 0;
}

static int on_subsystem(ssh_session s, ssh_channel ch, const char *name, void *arg)
{
	(void)s, (void)ch;
	return strcmp(name, "sftp") != 0 || begin(arg, CHAN_SFTP) < 0;
}

static void on_signal(ssh_session s, ssh_channel ch, const char *name, void *arg)
{
	static const struct {
		const char *name;
		int sig;
	} names[] = {{"INT", SIGINT},	{"TERM", SIGTERM}, {"HUP", SIGHUP},   {"KILL", SIGKILL},
		     {"QUIT", SIGQUIT}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"ALRM", SIGALRM}};
	struct chan *h = arg;

	(void)s, (void)ch;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (h->exec && !strcmp(names[i].name, name))
			agent_exec_signal(h->exec, names[i].sig);
	}
}

static struct chan *add_channel(struct conn *c, ssh_channel ch)
{
	struct chan *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->conn = c;
	h->ch = ch;
	h->cb = (struct ssh_channel_callbacks_struct){
		.userdata = h,
		.channel_data_function = on_data,
		.channel_eof_function = on_eof,
		.channel_close_function = on_close,
		.channel_signal_function = on_signal,
		.channel_pty_request_function = on_pty,
		.channel_shell_request_function = on_shell,
		.channel_pty_window_change_function = on_resize,
		.channel_exec_request_function = on_exec,
		.channel_env_request_function = on_env,
		.channel_subsystem_request_function = on_subsystem,
	};
	ssh_callbacks_init(&h->cb);
	(void)ssh_set_channel_callbacks(ch, &h->cb);
	h->next = c->chans;
	c->chans = h;
	c->nchans++;
	return h;
}

static void free_channel(struct chan *h)
{
	struct chan **p = &h->conn->chans;

	while (*p != h)
		p = &(*p)->next;
	*p = h->next;
	h->conn->nchans--;
	sftp_free(h->sftp);
	if (h->home)
		agent_stream_drop(h->home);
	agent_client_free(h->agent);
	ssh_remove_channel_callbacks(h->ch, &h->cb);
	ssh_channel_free(h->ch);
	buf_done(&h->out[0]);
	buf_done(&h->out[1]);
	strv_done(&h->argv);
	strv_done(&h->env);
	free(h->host);
	free(h);
}

static ssh_channel open_session(ssh_session s, void *arg)
{
	struct conn *c = arg;
	ssh_channel ch = c->in && c->nchans < SSH_CHANNELS_MAX ? ssh_channel_new(s) : NULL;

	if (ch && !add_channel(c, ch)) {
		ssh_channel_free(ch);
		return NULL;
	}
	return ch;
}

/* What libssh has no callback for: forwarded connections. 1: refuse. */
static int on_message(ssh_session s, ssh_message m, void *arg)
{
	struct conn *c = arg;
	struct chan *h;
	ssh_channel ch;
	int port;

	if (ssh_message_type(m) != SSH_REQUEST_CHANNEL_OPEN ||
	    ssh_message_subtype(m) != SSH_CHANNEL_DIRECT_TCPIP || !c->in ||
	    c->nchans >= SSH_CHANNELS_MAX)
		return 1;
	port = ssh_message_channel_request_open_destination_port(m);
	if (port < 1 || port > 65535)
		return 1;
	ch = ssh_channel_new(s);
	h = ch ? add_channel(c, ch) : NULL;
	if (!h) {
		ssh_channel_free(ch);
		return 1;
	}
	h->host = strdup(ssh_message_channel_request_open_destination(m));
	h->port = (uint16_t)port;
	if (!h->host || ssh_message_channel_request_open_reply_accept_channel(m, ch) != SSH_OK ||
	    begin(h, CHAN_TCP) < 0)
		end(h, false, 0);
	return 0;
}

/* ---- who gets in ---- */

static bool line_is(const char *line, ssh_key key)
{
	char type[64], blob[16384];
	ssh_key known = NULL;
	bool same;

	/* A line that begins with options restricts: what we cannot restrict, we do not let in. */
	if (sscanf(line, "%63s %16383s", type, blob) != 2 ||
	    ssh_key_type_from_name(type) == SSH_KEYTYPE_UNKNOWN ||
	    ssh_pki_import_pubkey_base64(blob, ssh_key_type_from_name(type), &known) != SSH_OK)
		return false;
	same = ssh_key_cmp(known, key, SSH_KEY_CMP_PUBLIC) == 0;
	ssh_key_free(known);
	return same;
}

static int auth_key(ssh_session s, const char *user, struct ssh_key_struct *key, char state,
		    void *arg)
{
	struct conn *c = arg;
	cleanup_free char *text = strdup(buf_size(&c->keys) ? buf_cstr(&c->keys) : "");
	bool known = false;
	char *line, *rest;

	(void)s;
	if (strlen(user) >= sizeof(c->user) || !*user || strchr(user, '/'))
		return SSH_AUTH_DENIED;
	for (line = text ? strtok_r(text, "\n", &rest) : NULL; line && !known;
	     line = strtok_r(NULL, "\n", &rest))
		known = line_is(line, key);
	if (!known || (state != SSH_PUBLICKEY_STATE_NONE && state != SSH_PUBLICKEY_STATE_VALID))
		return SSH_AUTH_DENIED;
	if (state == SSH_PUBLICKEY_STATE_VALID) {
		strcpy(c->user, user);
		c->in = true;
		touch(c);
		if (!c->o->idle_ns)
			loop_timer_stop(&c->idle);
	}
	return SSH_AUTH_SUCCESS;
}

/* ---- the connection ---- */

static void on_idle(struct loop_timer *t)
{
	container_of(t, struct conn, idle)->over = true;
}

static void on_socket(struct loop_source *s, uint32_t events)
{
	struct conn *c = container_of(s, struct conn, sock);

	if (events & EPOLLERR)
		c->over = true;
}

/* Let libssh read and write, then see to the channels. */
static void turn(struct conn *c)
{
	if (ssh_event_dopoll(c->event, 0) == SSH_ERROR || !ssh_is_connected(c->session))
		c->over = true;
	for (struct chan *h = c->chans, *next; h; h = next) {
		next = h->next;
		if (!h->closed)
			flush_channel(h);
		if (!h->closed)
			more_input(h);
		if (h->closed)
			free_channel(h);
	}
	loop_mod(&c->sock,
		 EPOLLIN | (ssh_get_poll_flags(c->session) & SSH_WRITE_PENDING ? (uint32_t)EPOLLOUT
									       : 0));
}

static int greet(struct conn *c, ssh_bind bind, int fd)
{
	static struct ssh_server_callbacks_struct server;
	char path[64];
	long timeout = 30;

	snprintf(path, sizeof(path), "/proc/self/fd/%d/" SSH_HOST_KEY, SSH_FD_DIR);
	if (ssh_bind_options_set(bind, SSH_BIND_OPTIONS_HOSTKEY, path) != SSH_OK)
		return -1;
	server = (struct ssh_server_callbacks_struct){
		.userdata = c,
		.auth_pubkey_function = auth_key,
		.channel_open_request_session_function = open_session,
	};
	ssh_callbacks_init(&server);
	if (ssh_bind_accept_fd(bind, c->session, fd) != SSH_OK)
		return -1;
	(void)ssh_options_set(c->session, SSH_OPTIONS_TIMEOUT, &timeout);
	(void)ssh_set_server_callbacks(c->session, &server);
	ssh_set_message_callback(c->session, on_message, c);
	ssh_set_auth_methods(c->session, SSH_AUTH_METHOD_PUBLICKEY);
	close(SSH_FD_DIR);
	if (walls_up() < 0 || ssh_handle_key_exchange(c->session) != SSH_OK)
		return -1;
	ssh_set_blocking(c->session, 0);
	return ssh_event_add_session(c->event, c->session) == SSH_OK ? 0 : -1;
}

int conn_serve(int fd, int agents, const struct ssh_options *o)
{
	struct conn c = {.o = o, .agents = agents};
	ssh_bind bind = ssh_bind_new();
	int r = loop_new(&c.loop, NULL);

	if (io_read_file(o->authorized, KEYS_FILE_MAX, &c.keys, NULL) < 0 || !buf_cstr(&c.keys))
		buf_reset(&c.keys);
	c.session = ssh_new();
	c.event = ssh_event_new();
	if (!bind || !c.session || !c.event || r < 0 || greet(&c, bind, fd) < 0)
		return 1;
	/* Else libssh would wait for a client in the middle of a write, which waits for us. */
	(void)io_set_nonblock(fd, true);
	c.idle.fn = on_idle;
	c.sock.fn = on_socket;
	c.sock.fd = ssh_get_fd(c.session);
	if (loop_timer_in(c.loop, &c.idle, LOGIN_NS) < 0 || loop_add(c.loop, &c.sock, EPOLLIN) < 0)
		return 1;
	turn(&c);
	while (!c.over && loop_turn(c.loop, -1) >= 0)
		turn(&c);
	while (c.chans)
		free_channel(c.chans);
	ssh_disconnect(c.session);
	return 0;
}
