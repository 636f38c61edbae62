/* SPDX-License-Identifier: Apache-2.0 */
#include "exec.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "boot.h"
#include "flow.h"
#include "reaper.h"
#include "rlimits.h"
#include "spawn.h"
#include "wire/patch.h"

static const char scripts[] = PATCH_SCRIPTS_DIR;
static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

enum { OUT, ERR, OUTPUTS };

struct exec {
	struct stream st;
	struct child child;
	pid_t pid;
	bool tty, exited, graced, stdin_reported, abandoned;
	int code;
	struct outlet in;
	struct inlet out[OUTPUTS];
	uint64_t owed[OUTPUTS]; /* out[i].total at which all output of the command has been read */
	struct loop_timer grace;
	unsigned graces;
};

static void exec_abandon(struct stream *s);
static const struct stream_ops exec_ops = {.abandon = exec_abandon};

bool exec_is(const struct stream *s)
{
	return s->ops == &exec_ops;
}

static struct exec *of(struct stream *s)
{
	return container_of(s, struct exec, st);
}

/* Environment and arguments */

static bool env_has(char *const *v, size_t n, const char *key, size_t key_len, size_t *at)
{
	for (size_t i = 0; i < n; i++) {
		if (!strncmp(v[i], key, key_len) && v[i][key_len] == '=') {
			*at = i;
			return true;
		}
	}
	return false;
}

struct env_build {
	char **v;
	size_t n;
	char *p; /* next free byte behind the vector */
};

static void env_put(struct env_build *e, const char *key, size_t key_len, const char *value)
{
	size_t at = e->n, n = strlen(value);

	if (!env_has(e->v, e->n, key, key_len, &at))
		e->n++;
	e->v[at] = e->p;
	memcpy(e->p, key, key_len);
	e->p[key_len] = '=';
	memcpy(e->p + key_len + 1, value, n + 1);
	e->p += key_len + n + 2;
}

char **exec_environment(const struct wire_list *defaults, const struct wire_texts *env,
			const char *home, bool tty)
{
	const struct boot_env *d = defaults->v;
	size_t bytes = 2 * sizeof(default_path) + strlen(home) + sizeof(scripts) + 64,
	       n = defaults->n + env->n + 4, at;
	struct env_build e;
	char **v;

	for (size_t i = 0; i < defaults->n; i++)
		bytes += strlen(d[i].key) + strlen(d[i].value) + 2;
	/* The last PATH may be needed again, with the scripts in front. */
	for (size_t i = 0; i < defaults->n; i++)
		bytes += strcmp(d[i].key, "PATH") ? 0 : strlen(d[i].value);
	for (size_t i = 0; i < env->n; i++)
		bytes += (strlen(env->v[i]) + 2) * (strncmp(env->v[i], "PATH=", 5) ? 1 : 2);
	v = malloc(n * sizeof(*v) + bytes);
	if (!v)
		return NULL;
	e = (struct env_build){v, 0, (char *)(v + n)};
	for (size_t i = 0; i < defaults->n; i++)
		env_put(&e, d[i].key, strlen(d[i].key), d[i].value);
	for (size_t i = 0; i < env->n; i++) {
		const char *eq = strchr(env->v[i], '=');

		if (eq && eq != env->v[i])
			env_put(&e, env->v[i], (size_t)(eq - env->v[i]), eq + 1);
	}
	if (!env_has(v, e.n, "PATH", 4, &at))
		env_put(&e, "PATH", 4, default_path);
	if (patch_scripts() && env_has(v, e.n, "PATH", 4, &at)) {
		const char *path = v[at] + 5;

		v[at] = e.p;
		e.p += sprintf(e.p, "PATH=%s:%s", scripts, path) + 1;
	}
	if (!env_has(v, e.n, "HOME", 4, &at))
		env_put(&e, "HOME", 4, home);
	if (tty && !env_has(v, e.n, "TERM", 4, &at))
		env_put(&e, "TERM", 4, "xterm");
	v[e.n] = NULL;
	return v;
}

static const char *env_get(char *const *v, const char *key)
{
	size_t n = strlen(key);

	for (; *v; v++) {
		if (!strncmp(*v, key, n) && (*v)[n] == '=')
			return *v + n + 1;
	}
	return NULL;
}

/* The end of a session */

static void exec_free(struct exec *x)
{
	stream_close(&x->st);
	for (int i = 0; i < OUTPUTS; i++)
		inlet_stop(&x->out[i]);
	outlet_stop(&x->in);
	loop_timer_stop(&x->grace);
	if (x->child.pid)
		reaper_forget(&x->child);
	free(x);
}

static void finish_if_done(struct exec *x)
{
	struct msg_exec_exited m = {.code = x->code};

	if (!x->exited)
		return;
	for (int i = 0; i < OUTPUTS; i++) {
		if (inlet_open(&x->out[i]) && !(x->graced && x->out[i].total >= x->owed[i]))
			return;
	}
	conn_send(x->st.conn, x->st.id, MSG_EXEC_EXITED, &m);
	exec_free(x);
}

static void on_output_end(struct inlet *in, int error)
{
	(void)error;
	finish_if_done(of(in->st));
}

static void on_output(struct inlet *in)
{
	struct exec *x = of(in->st);

	if (x->graced)
		finish_if_done(x);
}

/*
 * What a pipe held when the command exited is known (owed). A terminal's buffers are not all
 * visible, so there the session ends after a grace in which nothing came and nothing was held back
 * by a slow client; a daemon that goes on talking is cut off after EXEC_TTY_GRACES of them.
 */
static bool terminal_busy(struct exec *x)
{
	struct inlet *in = &x->out[OUT];
	bool moved = in->total != x->owed[OUT];

	if (!x->tty || !inlet_open(in))
		return false;
	x->owed[OUT] = in->total;
	return inlet_waiting(in) || (moved && x->graces++ < EXEC_TTY_GRACES);
}

static void on_grace(struct loop_timer *t)
{
	struct exec *x = container_of(t, struct exec, grace);

	if (terminal_busy(x) && !loop_timer_in(x->st.conn->sv->loop, t, EXEC_GRACE_MS * 1000000ull))
		return;
	x->graced = true;
	finish_if_done(x);
}

static void on_command_exit(struct child *child, int status)
{
	struct exec *x = container_of(child, struct exec, child);

	x->exited = true;
	x->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	outlet_stop(&x->in);
	for (int i = 0; i < OUTPUTS; i++) {
		int n = 0;

		if (!x->tty && inlet_open(&x->out[i]) &&
		    ioctl(x->out[i].src.fd, FIONREAD, &n) == 0 && n > 0)
			x->owed[i] = x->out[i].total + (uint64_t)n;
	}
	x->grace.fn = on_grace;
	if (loop_timer_in(x->st.conn->sv->loop, &x->grace, EXEC_GRACE_MS * 1000000ull) < 0)
		x->graced = true;
	finish_if_done(x);
}

static void exec_abandon(struct stream *s)
{
	struct exec *x = of(s);

	/* After the exit its group may be somebody else's, or deliberately left running. */
	if (!x->exited)
		kill(-x->pid, SIGKILL);
	exec_free(x);
}

void exec_hang_up(struct stream *s)
{
	const struct exec *x = of(s);

	if (x->tty && !x->exited)
		kill(-x->pid, SIGHUP);
}

/* Input */

static void report_stdin(struct exec *x, int error)
{
	struct msg_exec_stdin_error m = {
		.has_errno = true,
		.error = -error,
		.errno_name = (char *)errno_name(-error),
		.message = (char *)err_name(error),
	};

	if (x->stdin_reported)
		return;
	x->stdin_reported = true;
	conn_send(x->st.conn, x->st.id, MSG_EXEC_STDIN_ERROR, &m);
}

static void on_input_end(struct outlet *o, int error)
{
	struct exec *x = container_of(o, struct exec, in);

	outlet_stop(o);
	if (error < 0)
		report_stdin(x, error);
}

void exec_stdin(struct stream *s, const uint8_t *p, size_t n)
{
	struct exec *x = of(s);

	if (x->exited)
		return;
	if (!outlet_open(&x->in) || x->in.eof) {
		if (n)
			report_stdin(x, -EPIPE);
		return;
	}
	if (n) {
		outlet_write(&x->in, p, n);
		return;
	}
	if (x->tty) {
		/* A terminal has no end; its reader is told so by the EOF character. */
		struct termios t;
		uint8_t eof = 4;

		if (!tcgetattr(x->in.src.fd, &t))
			eof = t.c_cc[VEOF];
		outlet_write(&x->in, &eof, 1);
		return;
	}
	outlet_eof(&x->in);
}

void exec_resize(struct stream *s, const struct msg_exec_resize *m)
{
	struct exec *x = of(s);
	struct winsize ws = {.ws_row = m->rows, .ws_col = m->cols};

	if (!x->tty) {
		conn_error(s->conn, s->id, CORE_INVALID_SESSION, "core.exec.resize",
			   "the session has no terminal");
		return;
	}
	if (inlet_open(&x->out[OUT]))
		(void)ioctl(x->out[OUT].src.fd, TIOCSWINSZ, &ws);
}

void exec_signal(struct stream *s, const struct msg_exec_signal *m)
{
	struct exec *x = of(s);

	if (m->signal < 1 || m->signal >= _NSIG) {
		conn_error(s->conn, s->id, CORE_INVALID_PAYLOAD, "core.exec.signal",
			   "%d is not a signal", m->signal);
		return;
	}
	if (!x->exited)
		kill(-x->pid, m->signal);
}

/* The start of a session */

struct stdio {
	int ours[3]; /* ends for stdin, stdout, stderr; with a terminal the first two are one */
	int theirs[3];
};
#define STDIO_INIT                                                                                 \
	{                                                                                          \
		{-1, -1, -1},                                                                      \
		{                                                                                  \
			-1, -1, -1                                                                 \
		}                                                                                  \
	}

static void stdio_close(struct stdio *io)
{
	for (int i = 0; i < 3; i++) {
		io->ours[i] = close_fd(io->ours[i]);
		io->theirs[i] = close_fd(io->theirs[i]);
	}
}

static int open_pipes(struct stdio *io)
{
	for (int i = 0; i < 3; i++) {
		int p[2];

		if (pipe2(p, O_CLOEXEC) < 0)
			return -errno;
		io->ours[i] = i ? p[0] : p[1];
		io->theirs[i] = i ? p[1] : p[0];
		if (fcntl(io->ours[i], F_SETFL, O_NONBLOCK) < 0)
			return -errno;
	}
	return 0;
}

static int open_terminal(struct stdio *io, const struct msg_exec_request *req, const struct user *u)
{
	struct winsize ws = {.ws_row = req->rows, .ws_col = req->cols};
	int unlock = 0;

	io->ours[OUT + 1] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (io->ours[1] < 0 || ioctl(io->ours[1], TIOCSPTLCK, &unlock) < 0)
		return -errno;
	io->theirs[0] = ioctl(io->ours[1], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (io->theirs[0] < 0)
		return -errno;
	/* Ownership is a courtesy (so that it can be opened by name); the mount set the group. */
	if (u->uid && fchown(io->theirs[0], u->uid, (gid_t)-1) < 0 && errno != EPERM)
		return -errno;
	if (ioctl(io->ours[1], TIOCSWINSZ, &ws) < 0)
		return -errno;
	for (int i = 1; i < 3; i++) {
		io->theirs[i] = fcntl(io->theirs[0], F_DUPFD_CLOEXEC, 3);
		if (io->theirs[i] < 0)
			return -errno;
	}
	io->ours[0] = fcntl(io->ours[1], F_DUPFD_CLOEXEC, 3);
	return io->ours[0] < 0 ? -errno : 0;
}

static void send_failed(struct conn *c, uint32_t id, enum exec_fail kind, const char *stage,
			int error, const char *message)
{
	struct msg_exec_failed m = {
		.kind = kind,
		.has_errno = error != 0,
		.error = error,
		.errno_name = error ? (char *)errno_name(error) : NULL,
		.message = (char *)message,
		.stage = (char *)stage,
	};

	conn_send(c, id, MSG_EXEC_FAILED, &m);
}

static void fail_spawn(struct conn *c, uint32_t id, const struct spawn *s)
{
	char text[512], where[160] = "";

	/* The command is known to who asked for it. */
	if (s->kind == EXEC_BAD_CWD)
		snprintf(where, sizeof(where), "'%.128s': ", s->cwd);
	else if (strcmp(s->stage, "exec"))
		snprintf(where, sizeof(where), "%s: ", s->stage);
	snprintf(text, sizeof(text), "%s%s%s%s%s", where, strerror(s->error), s->detail ? " (" : "",
		 s->detail ? s->detail : "", s->detail ? ")" : "");
	send_failed(c, id, s->kind, s->stage, s->error, text);
}

static char **make_argv(const struct msg_exec_request *req)
{
	char **v = malloc((req->args.n + 2) * sizeof(*v));

	if (!v)
		return NULL;
	v[0] = req->cmd;
	if (req->args.n)
		memcpy(v + 1, req->args.v, req->args.n * sizeof(*v));
	v[req->args.n + 1] = NULL;
	return v;
}

/* Give the started command's ends of our side to a session. */
static int attach(struct exec *x, struct stdio *io)
{
	static const enum msg_kind kinds[OUTPUTS] = {MSG_EXEC_STDOUT, MSG_EXEC_STDERR};
	int r = 0;

	outlet_start(&x->in, x->st.conn, take_fd(&io->ours[0]));
	x->in.pipe = !x->tty;
	x->in.ended = on_input_end;
	for (int i = 0; i < OUTPUTS && !r; i++) {
		if (io->ours[i + 1] < 0)
			continue;
		x->out[i].pipe = !x->tty;
		x->out[i].ended = on_output_end;
		x->out[i].moved = on_output;
		r = inlet_start(&x->out[i], &x->st, take_fd(&io->ours[i + 1]), kinds[i],
				EXEC_CHUNK_MAX);
	}
	return r;
}

static void run(struct conn *c, uint32_t id, const struct msg_exec_request *req, struct spawn *s,
		struct exec *x)
{
	const struct msg_bootstrap *boot = c->sv->defaults.boot;
	struct msg_exec_started started;
	struct stdio io = STDIO_INIT;
	pid_t pid;
	int r;

	r = req->tty ? open_terminal(&io, req, &s->user) : open_pipes(&io);
	if (r < 0) {
		stdio_close(&io);
		free(x);
		send_failed(c, id, req->tty ? EXEC_PTY_SETUP_FAILED : EXEC_RESOURCE_LIMIT,
			    req->tty ? "pty" : "pipe", -r, err_name(r));
		return;
	}
	memcpy(s->stdio, io.theirs, sizeof(s->stdio));
	s->tty = req->tty;
	s->restricted = boot->security_profile == BOOT_SECURITY_RESTRICTED;
	s->cgroup_fd = c->sv->defaults.cgroup_fd;
	pid = spawn_run(s);
	if (pid < 0) {
		stdio_close(&io);
		free(x);
		fail_spawn(c, id, s);
		return;
	}
	x->pid = pid;
	x->tty = req->tty;
	/* The caller made sure that there is a place. */
	(void)stream_open(c, &x->st, id, &exec_ops);
	reaper_watch(&x->child, pid, on_command_exit);
	started.pid = (uint32_t)pid;
	conn_send(c, id, MSG_EXEC_STARTED, &started);
	if (!c->dead && attach(x, &io) < 0) {
		conn_error(c, id, CORE_INVALID_SESSION, "core.exec.request",
			   "too many descriptors are in use; the command was killed");
		exec_abandon(&x->st);
	}
	stdio_close(&io);
}

void exec_request(struct conn *c, uint32_t id, const struct msg_exec_request *req)
{
	const struct msg_bootstrap *boot = c->sv->defaults.boot;
	struct err err = ERR_INIT;
	struct spawn s = {
		.cmd = req->cmd,
		.sandbox_rlimits = &boot->rlimits,
		.rlimits = &req->rlimits,
	};
	cleanup_free char **argv = NULL;
	cleanup_free char **envp = NULL;
	struct exec *x;
	int r;

	if (c->nstreams >= STREAMS_MAX) {
		send_failed(c, id, EXEC_RESOURCE_LIMIT, "session", EMFILE,
			    "too many sessions on this connection");
		return;
	}
	if (!*req->cmd || req->env.n > EXEC_ENV_MAX) {
		send_failed(c, id, EXEC_BAD_ARGS, "arguments", *req->cmd ? E2BIG : EINVAL,
			    *req->cmd ? "too many variables" : "the command is empty");
		return;
	}
	if (rlimits_check(&req->rlimits, &err) < 0) {
		send_failed(c, id, EXEC_BAD_ARGS, "rlimit", EINVAL, err.msg);
		return;
	}
	r = user_lookup(req->user ? req->user : boot->user, &s.user, &err);
	if (r < 0) {
		send_failed(c, id, EXEC_USER_SETUP_FAILED, "user", -r < 4096 ? -r : 0, err.msg);
		return;
	}
	argv = make_argv(req);
	envp = exec_environment(c->sv->defaults.env, &req->env, s.user.home, req->tty);
	x = calloc(1, sizeof(*x));
	if (!argv || !envp || !x) {
		free(x);
		send_failed(c, id, EXEC_OUT_OF_MEMORY, "memory", ENOMEM, "out of memory");
		return;
	}
	x->in.src.fd = x->out[OUT].src.fd = x->out[ERR].src.fd = -1;
	s.argv = argv;
	s.envp = envp;
	s.path = env_get(envp, "PATH");
	s.cwd = req->cwd && *req->cwd ? req->cwd : c->sv->defaults.cwd ? c->sv->defaults.cwd : "/";
	c->sv->activity_seq++;
	run(c, id, req, &s, x);
}
