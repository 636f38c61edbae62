/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/attach.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "cli/cli.h"
#include "cli/stream.h"
#include "cli/term.h"
#include "sandbox/agent_client.h"
#include "sandbox/reach.h"
#include "sandbox/sandbox.h"
#include "sandbox/session.h"
#include "sandbox/session_msg.h"

/* Once the timeout has killed the command, its last output gets this long to arrive. */
#define KILL_GRACE_NS ((uint64_t)1000000000)
/* How long the host of our session may take to let us go. */
#define DETACH_GRACE_NS ((uint64_t)2000000000)
/* Between the end of the agent's connection and msb-vm's word on why. */
#define REPORT_GRACE_NS ((uint64_t)3000000000)

enum phase { BOOTING, RUNNING, FLUSHING, OVER };

struct session {
	struct sandbox *sb; /* NULL: not ours */
	const struct attach *a;
	struct loop *loop;
	struct agent_client *client;
	struct agent_exec *exec;
	struct out_stream out[2]; /* stdout, stderr */
	struct in_stream in;
	struct loop_source report, vm, signals;
	struct loop_timer timeout, grace;
	enum phase phase;
	bool timed_out, disconnected, detached;
	bool started; /* the command has */
	bool over;    /* ...and is over */
	bool hung_up; /* our terminal has */
	bool tty;     /* the command has a terminal */
	struct keys keys;
	char session[SESSION_NAME_MAX + 1];
	struct session_host *host; /* of a sandbox of ours */
	uint64_t seen;		   /* signals that have come once, by bit */
	int code;		   /* the result */
	int died;
	struct err why; /* of a machine that has ended; code 0: it has not */
	struct err *err;
};

static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

static void signal_set(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigaddset(set, forwarded[i]);
}

void attach_block_signals(void)
{
	sigset_t set;

	signal_set(&set);
	sigaddset(&set, SIGWINCH);
	sigaddset(&set, SIGCONT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* A closed output is an error like others until it is time to die from it. */
	signal(SIGPIPE, SIG_IGN);
}

int attach_pending_signal(void)
{
	sigset_t set;

	if (sigpending(&set) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++) {
		if (sigismember(&set, forwarded[i]) == 1)
			return forwarded[i];
	}
	return 0;
}

static void over(struct session *s, int code)
{
	if (s->phase == OVER)
		return;
	s->phase = OVER;
	s->code = code;
	loop_quit(s->loop, 0);
}

/* Over by a failure of ours, which @why describes. */
static void over_failed(struct session *s, const struct err *why)
{
	if (s->phase != OVER)
		over(s, err_copy(s->err, why));
}

static bool flushed(const struct session *s)
{
	return !out_stream_kept(&s->out[0]) && !out_stream_kept(&s->out[1]);
}

/* The command has ended: what it wrote is still to be delivered. */
static void ended(struct session *s, int code)
{
	s->exec = NULL;
	s->over = true;
	if (s->phase == OVER)
		return;
	in_stream_enable(&s->in, false);
	if (s->timed_out)
		code = EXIT_TIMEOUT;
	s->code = code;
	s->phase = FLUSHING;
	if (flushed(s))
		over(s, code);
}

static void out_failed(struct session *s, struct out_stream *o)
{
	struct err why = ERR_INIT;

	/* EIO is a terminal that was hung up. */
	if (o->error == EPIPE || o->error == ECONNRESET || o->error == EIO) {
		s->died = o->error == EIO ? SIGHUP : SIGPIPE;
		s->hung_up |= s->died == SIGHUP;
		over(s, EXIT_SIGNAL + s->died);
		return;
	}
	err_set(&why, o->error, "cannot write the command's %s: %s",
		o == &s->out[0] ? "output" : "error output", err_name(o->error));
	over_failed(s, &why);
}

static void out_changed(struct session *s, struct out_stream *o)
{
	if (o->error) {
		out_failed(s, o);
		return;
	}
	if (s->phase == FLUSHING && flushed(s))
		over(s, s->code);
	else if (out_stream_kept(&s->out[0]) <= OUT_QUEUE_HIGH / 2 &&
		 out_stream_kept(&s->out[1]) <= OUT_QUEUE_HIGH / 2)
		agent_client_pause(s->client, false);
}

static void stdout_changed(struct out_stream *o)
{
	out_changed(container_of(o, struct session, out[0]), o);
}

static void stderr_changed(struct out_stream *o)
{
	out_changed(container_of(o, struct session, out[1]), o);
}

/* Off the session: its host closes the connection when it knows. */
static void detach(struct session *s)
{
	s->detached = true;
	in_stream_done(&s->in);
	agent_exec_send(s->exec, &session_types[SESSION_DETACH], &(struct msg_empty){0});
	if (s->phase != OVER && loop_timer_in(s->loop, &s->grace, DETACH_GRACE_NS) < 0)
		over(s, 0);
}

/* What a person types, in which there may be the keys to leave. */
static long read_typed(struct session *s, uint8_t *to)
{
	uint8_t typed[4096];
	bool done;
	long n = in_stream_read(&s->in, typed, sizeof(typed));
	size_t put;

	if (n <= 0)
		return n;
	put = keys_filter(&s->keys, typed, (size_t)n, to, &done);
	s->detached |= done;
	/* Without a terminal, a command has no input from us. */
	if (s->a->how == ATTACH_TO && !s->tty)
		put = 0;
	return put ? (long)put : -EAGAIN;
}

static void on_stdin(struct in_stream *i)
{
	struct session *s = container_of(i, struct session, in);
	void *to;
	long n;

	if (!s->exec || !agent_exec_stdin_room(s->exec)) {
		in_stream_enable(i, false);
		return;
	}
	to = agent_exec_stdin_begin(s->exec);
	if (!to)
		n = 0;
	else if (s->keys.n)
		n = read_typed(s, to);
	else
		n = in_stream_read(i, to, AGENT_STDIN_CHUNK);
	if (to)
		agent_exec_stdin_end(s->exec, n > 0 ? (size_t)n : 0);
	if (n == 0 && i->error)
		cli_warn("cannot read standard input: %s", err_name(i->error));
	if (n == 0)
		in_stream_done(i);
	if (!s->exec)
		return;
	if (s->detached)
		detach(s);
	else if (n == 0)
		agent_exec_stdin_eof(s->exec);
}

static void on_stdin_room(void *arg)
{
	struct session *s = arg;

	in_stream_enable(&s->in, true);
}

static void on_stdin_closed(void *arg)
{
	struct session *s = arg;

	in_stream_done(&s->in);
}

static void forward_size(struct session *s)
{
	uint16_t rows, cols;

	if (!s->exec || !s->tty)
		return;
	term_size(STDOUT_FILENO, &rows, &cols);
	agent_exec_resize(s->exec, rows, cols);
}

static int connect_own(void *arg, struct err *err)
{
	return sandbox_connect(((struct session *)arg)->sb, err);
}

static const struct session_host_ops host_ops = {.connect = connect_own};

/* While our command runs, others may leave theirs. */
static void serve_sessions(struct session *s)
{
	struct err err = ERR_INIT;
	int fd = sandbox_listen(s->sb, SESSION_SOCKET, &err);

	if (fd < 0 || session_host_new(&s->host, s->loop, fd, &host_ops, s, &err) < 0)
		log_warn("%s", err.msg);
	else
		session_host_set_history(s->host, sandbox_get_spec(s->sb)->session_history);
}

static void on_started(void *arg, uint32_t pid)
{
	struct session *s = arg;
	bool typed = isatty(STDIN_FILENO);

	s->started = true;
	log_debug("the command runs as process %u of the guest", pid);
	if (s->tty && typed)
		(void)term_raw(STDIN_FILENO);
	else if (s->a->how == ATTACH_TO && typed && s->keys.n)
		(void)term_keys(STDIN_FILENO);
	/* A session without a terminal has no input; of one with, the end of ours is not its. */
	if (s->a->how == ATTACH_AGENT || (typed && (s->tty || s->keys.n)))
		in_stream_enable(&s->in, true);
	if (s->a->how == ATTACH_TO)
		forward_size(s);
	/* The command has begun: by now this delays nobody. */
	if (s->sb) {
		sandbox_note_machine(s->sb);
		serve_sessions(s);
	}
}

static void on_session(struct session *s, const struct session_started *m)
{
	snprintf(s->session, sizeof(s->session), "%s", m->name);
	s->tty = m->tty;
	if (!s->a->detached)
		return;
	puts(s->session);
	s->exec = NULL;
	over(s, cli_finish());
}

static void on_other(void *arg, const struct envelope *env)
{
	struct session *s = arg;
	int kind = session_kind_find(env->name, env->name_len);
	union {
		struct session_started started;
		struct session_gap gap;
	} m = {0};
	struct err why = ERR_INIT;

	if (kind != SESSION_STARTED && kind != SESSION_GAP)
		return;
	if (wire_decode(session_types[kind].table, env->payload, env->payload_len, &m, &why) < 0) {
		over_failed(s, &why);
		return;
	}
	if (kind == SESSION_STARTED)
		on_session(s, &m.started);
	else if (!s->a->quiet)
		cli_warn(m.gap.before ? "the first %llu bytes of its output are not kept any more"
				      : "%llu bytes of output came faster than they were taken: "
					"they are missing",
			 (unsigned long long)m.gap.bytes);
	wire_free(session_types[kind].table, &m);
}

static void on_output(void *arg, int stream, const void *p, size_t n)
{
	struct session *s = arg;
	struct out_stream *o = &s->out[stream - 1];

	if (s->phase == OVER)
		return;
	if (out_stream_write(o, p, n) < 0)
		out_failed(s, o);
	else if (out_stream_kept(o) > OUT_QUEUE_HIGH)
		agent_client_pause(s->client, true);
}

static void on_exited(void *arg, int code)
{
	ended(arg, code);
}

static void on_failed(void *arg, const struct msg_exec_failed *m)
{
	struct session *s = arg;
	const char *cmd = s->a->how == ATTACH_TO ? "it" : s->a->start.argv->v[0];
	const char *what = m->message && m->message[0] ? m->message : err_name(m->error);
	struct err why = ERR_INIT;
	int code = agent_exec_why(m, cmd, &why);

	/* What the host of the sessions says is about those. */
	if (s->a->how != ATTACH_AGENT && m->kind == EXEC_OTHER)
		err_set(&why, ERR_GUEST, "sandbox \"%s\": %s", s->a->name, what);
	if (s->a->how == ATTACH_TO && !s->session[0])
		err_hint(&why, "`msb attach -l %s` lists them", s->a->name);
	if (s->a->holds && m->kind == EXEC_OTHER) {
		s->exec = NULL;
		over_failed(s, &why);
		return;
	}
	cli_error(&why);
	ended(s, code);
}

static void on_timeout(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, timeout);

	s->timed_out = true;
	if (s->phase == FLUSHING)
		s->code = EXIT_TIMEOUT;
	if (s->exec)
		agent_exec_signal(s->exec, SIGKILL);
	if (loop_timer_in(s->loop, &s->grace, KILL_GRACE_NS) < 0)
		over(s, EXIT_TIMEOUT);
}

static void on_grace(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, grace);

	if (s->timed_out || s->detached) {
		over(s, s->timed_out ? EXIT_TIMEOUT : 0);
		return;
	}
	if (!s->why.code)
		err_set(&s->why, ERR_GUEST, "the connection to the machine broke");
	over_failed(s, &s->why);
}

static const struct agent_exec_ops exec_ops = {
	.started = on_started,
	.output = on_output,
	.stdin_room = on_stdin_room,
	.stdin_closed = on_stdin_closed,
	.exited = on_exited,
	.failed = on_failed,
	.other = on_other,
};

static int ask(struct session *s, const struct agent_exec_start *start, struct err *err)
{
	struct session_attach to = {.name = (char *)(uintptr_t)s->a->session,
				    .quiet = s->a->no_replay};
	struct session_start m = {
		.name = to.name,
		.detached = s->a->detached,
		/* Its host sees to it, whether we are still there or not. */
		.timeout_ms = (s->a->timeout_ns + 999999) / 1000000,
	};
	struct msg_exec_request request = {0};
	cleanup_buf struct buf b = BUF_INIT;
	int r;

	if (s->a->how == ATTACH_AGENT)
		return agent_exec_new(&s->exec, s->client, start, &exec_ops, s, err);
	if (s->a->how == ATTACH_TO)
		return agent_exec_open(&s->exec, s->client, &session_types[SESSION_ATTACH], &to,
				       &exec_ops, s, err);
	r = agent_exec_request(start, &request, err);
	if (r == 0)
		wire_encode(msg_types[MSG_EXEC_REQUEST].table, &request, &b);
	msg_free(MSG_EXEC_REQUEST, &request);
	if (r < 0)
		return r;
	if (buf_failed(&b))
		return err_set(err, ENOMEM, "cannot ask for a command: out of memory");
	m.request = (struct wire_bytes){buf_ptr(&b), buf_size(&b)};
	return agent_exec_open(&s->exec, s->client, &session_types[SESSION_START], &m, &exec_ops, s,
			       err);
}

static void on_ready(void *arg, const struct msg_ready *ready)
{
	struct session *s = arg;
	cleanup_strv struct strv env = {0};
	struct agent_exec_start start = s->a->start;
	const char *term = getenv("TERM");
	struct err err = ERR_INIT;

	cli_busy_end();
	log_info("the guest is ready (agent %s, %.1f ms after its kernel started)",
		 ready->agent_version, (double)ready->ready_time_ns / 1e6);
	if (start.tty) {
		term_size(STDOUT_FILENO, &start.rows, &start.cols);
		if (term && *term)
			(void)strv_addf(&env, "TERM=%s", term);
		for (size_t i = 0; start.env && i < start.env->n; i++)
			(void)strv_env_set(&env, start.env->v[i]);
		start.env = &env;
	}
	if (ask(s, &start, &err) < 0) {
		over_failed(s, &err);
		return;
	}
	s->phase = RUNNING;
	if (s->a->how == ATTACH_AGENT && s->a->timeout_ns &&
	    loop_timer_in(s->loop, &s->timeout, s->a->timeout_ns) < 0)
		over(s, err_set(s->err, ENOMEM, "cannot set the timeout: out of memory"));
}

/* The connection to somebody else's sandbox has ended, as happens when that does. */
static void left_alone(struct session *s)
{
	struct err why = ERR_INIT;

	/* A session's host lets those go without a word for whom it has done nothing. */
	if (s->phase == BOOTING || (s->a->how == ATTACH_START && !s->session[0]))
		err_set(&why, EAGAIN, "sandbox \"%s\" ended before the command could run",
			s->a->name);
	else
		err_set(&why, ERR_GUEST, "sandbox \"%s\" ended while the command ran", s->a->name);
	over_failed(s, &why);
}

static void refused(struct session *s, const struct err *why)
{
	struct err err = ERR_INIT;

	err_copy(&err, why);
	err_wrap(&err, "sandbox \"%s\"", s->a->name);
	over_failed(s, &err);
}

static void on_closed(void *arg, const struct err *why)
{
	struct session *s = arg;

	s->disconnected = true;
	s->exec = NULL;
	if (s->phase == FLUSHING || s->phase == OVER)
		return;
	log_debug("%s", why->msg);
	if (s->timed_out || s->detached)
		over(s, s->timed_out ? EXIT_TIMEOUT : 0);
	else if (s->why.code)
		over_failed(s, &s->why);
	else if (why->code == ERR_PROTOCOL)
		over_failed(s, why);
	else if (why->code == ERR_GUEST)
		refused(s, why);
	else if (!s->sb)
		left_alone(s);
	else if (loop_timer_in(s->loop, &s->grace, REPORT_GRACE_NS) < 0)
		over_failed(s, why);
}

static const struct agent_client_ops client_ops = {.ready = on_ready, .closed = on_closed};

/* The machine has ended, as s->why says; what it said before may still be on its way. */
static void machine_ended(struct session *s)
{
	loop_del(&s->report);
	loop_del(&s->vm);
	if (s->phase == BOOTING || s->disconnected)
		over_failed(s, &s->why);
}

static void read_reports(struct session *s, bool last)
{
	const char *reason;
	int r;

	do
		r = sandbox_report(s->sb, &s->why);
	while (r > 0 || (last && r == 0 && sandbox_report_fd(s->sb) >= 0));
	if (r >= 0)
		return;
	reason = sandbox_end_reason(s->a->sb);
	if (s->why.code == ESHUTDOWN && (!reason || str_eq(reason, "stopped")))
		err_set(&s->why, ERR_GUEST, "the sandbox was stopped while the command ran");
	machine_ended(s);
}

static void on_report(struct loop_source *src, uint32_t events)
{
	(void)events;
	read_reports(container_of(src, struct session, report), false);
}

static void on_vm_end(struct loop_source *src, uint32_t events)
{
	struct session *s = container_of(src, struct session, vm);

	(void)events;
	loop_del(src);
	read_reports(s, true);
}

static void on_signal(struct loop_source *src, uint32_t events)
{
	struct session *s = container_of(src, struct session, signals);
	struct signalfd_siginfo si;
	int sig;

	(void)events;
	while (s->phase != OVER && read(src->fd, &si, sizeof(si)) == sizeof(si)) {
		sig = (int)si.ssi_signo;
		if (sig == SIGCONT)
			term_again();
		if (sig == SIGCONT || sig == SIGWINCH) {
			forward_size(s);
			continue;
		}
		/* Our terminal has gone. A session's command has not lost its own: whether it is to
		 * end is for the host to say. */
		s->hung_up |= sig == SIGHUP;
		if (!s->exec || !s->started || (s->seen & 1u << sig) ||
		    (sig == SIGHUP && s->a->how != ATTACH_AGENT)) {
			over(s, EXIT_SIGNAL + sig);
			return;
		}
		s->seen |= 1u << sig;
		agent_exec_signal(s->exec, sig);
	}
}

static int watch(struct session *s, struct loop_source *src, int fd, loop_io_fn *fn)
{
	src->fn = fn;
	src->fd = fd;
	return loop_add(s->loop, src, EPOLLIN);
}

static int set_up(struct session *s, int sigfd, int *agent, struct err *err)
{
	int r = loop_new(&s->loop, err), fd;

	if (r < 0)
		return r;
	s->timeout.fn = on_timeout;
	s->grace.fn = on_grace;
	r = watch(s, &s->signals, sigfd, on_signal);
	if (r == 0 && s->sb)
		r = watch(s, &s->report, sandbox_report_fd(s->sb), on_report);
	if (r == 0 && s->sb)
		r = watch(s, &s->vm, sandbox_pidfd(s->sb), on_vm_end);
	if (r < 0)
		return err_set(err, r, "cannot watch the machine: %s", err_name(r));
	r = out_stream_init(&s->out[0], s->loop, STDOUT_FILENO, stdout_changed, err);
	if (r == 0)
		r = out_stream_init(&s->out[1], s->loop, STDERR_FILENO, stderr_changed, err);
	if (r == 0)
		r = in_stream_init(&s->in, s->loop, STDIN_FILENO, on_stdin, err);
	if (r < 0)
		return r;
	fd = s->sb ? sandbox_connect(s->sb, err) : take_fd(agent);
	if (fd < 0) {
		/* A machine that has failed already closed its socket and will say why. */
		s->disconnected = true;
		return loop_timer_in(s->loop, &s->grace, REPORT_GRACE_NS) < 0 ? fd : 0;
	}
	return agent_client_new(&s->client, s->loop, fd, &client_ops, s, err);
}

void attach_reap(void)
{
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
}

bool attach_want_tty(bool tty, bool no_tty)
{
	return !no_tty && (tty || (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)));
}

int attach_leave(int result, int died, const struct err *err)
{
	if (died) {
		signal(died, SIG_DFL);
		sigprocmask(SIG_UNBLOCK, &(sigset_t){{1ul << (died - 1)}}, NULL);
		raise(died);
	}
	return result < 0 ? cli_fail(err, EXIT_OURS) : result;
}

int attach_find(struct attach *a, struct store *s, bool must, const struct keys *keys,
		struct err *err)
{
	bool types = a->start.tty && isatty(STDIN_FILENO);

	a->how = ATTACH_AGENT;
	a->keys = (struct keys){0};
	a->fd = must || types ? sandbox_reach_sessions(s, a->name, must, err) : -1;
	if (a->fd >= 0) {
		a->how = ATTACH_START;
		a->keys = *keys;
	}
	if (a->fd >= 0 || must)
		return a->fd;
	err_clear(err);
	a->fd = sandbox_reach(s, a->name, err);
	return a->fd;
}

int attach_run(struct attach *a, int *died, struct err *err)
{
	struct session s = {.sb = a->sb, .a = a, .err = err, .tty = a->start.tty, .keys = a->keys};
	cleanup_close int sigfd = -1, agent = a->sb ? -1 : a->fd;
	sigset_t set;
	int r;

	signal_set(&set);
	sigaddset(&set, SIGWINCH);
	sigaddset(&set, SIGCONT);
	sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (sigfd < 0)
		return err_errno(err, "cannot receive signals");
	r = set_up(&s, sigfd, &agent, err);
	if (r == 0) {
		r = loop_run(s.loop);
		if (r < 0)
			err_set(err, r, "cannot wait for events: %s", err_name(r));
		else
			r = s.code;
	}
	term_restore();
	/* A terminal that hung up is one that a session's command can do without. */
	if (s.over)
		a->end = ATTACH_ENDED;
	else if (a->how != ATTACH_AGENT && r >= 0 && (s.detached || s.hung_up || a->detached))
		a->end = ATTACH_LEFT;
	else
		a->end = ATTACH_CUT;
	if (s.detached && r == 0 && !a->quiet)
		fprintf(stderr, "\nleft session %s; `msb attach %s %s` comes back to it\n",
			s.session, a->name, s.session);
	if (s.sb)
		sandbox_note_sessions(s.sb, s.host);
	session_host_free(s.host);
	agent_client_free(s.client);
	in_stream_done(&s.in);
	out_stream_done(&s.out[0]);
	out_stream_done(&s.out[1]);
	loop_free(s.loop);
	*died = s.died;
	return r;
}
