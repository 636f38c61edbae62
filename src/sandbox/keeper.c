/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "sandbox/agent_client.h"
#include "sandbox/control_client.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/session.h"
#include "sandbox/session_msg.h"
#include "store/store.h"
#include "wire/packet.h"

extern char **environ;

#define KEEPER_LOG "logs/keeper.log"
/* A few lines for each life of the sandbox: this much is years of them. */
#define KEEPER_LOG_MAX ((off_t)1 << 20)
/* Exit code of a command that went with its agent. */
enum { CODE_LOST = 125 };
/* For the machine to say who is in it. */
enum { LEAVE_TIMEOUT_MS = 10000 };
/* Between the loss of the agent and the machine's word on why; a guest may be shutting down. */
#define LOST_GRACE_NS ((uint64_t)15000000000)

/* ---- what the keeper says to its caller ---- */

struct report {
	bool ready;
	uint32_t code; /* an errno-like code of base/err.h */
	uint32_t exit; /* of a command that could not be run; else 0 */
	char *message, *hint, *logs;
};

#define FIELD(member, kind)                                                                        \
	{                                                                                          \
		.key = #member, .type = kind, .offset = offsetof(struct report, member)            \
	}
static const struct wire_field report_fields[] = {
	FIELD(ready, WIRE_BOOL),   FIELD(code, WIRE_U32),  FIELD(exit, WIRE_U32),
	FIELD(message, WIRE_TEXT), FIELD(hint, WIRE_TEXT), FIELD(logs, WIRE_TEXT),
};
static const struct wire_table report_table = {
	.name = "keeper's report",
	.size = sizeof(struct report),
	.fields = report_fields,
	.nfields = ARRAY_SIZE(report_fields),
};

/* Logs are cut to some 32 KiB by sandbox_logs(); no report is near this. */
#define REPORT_MAX ((size_t)1 << 20)

/* ---- the caller's side ---- */

/* Our environment, with the store where it is and not where it is from here. */
static int make_env(struct store *s, struct strv *env)
{
	int r = strv_addf(env, "MSB_HOME=%s", store_home(s));

	for (char **e = environ; *e && r == 0; e++) {
		if (strncmp(*e, "MSB_HOME=", 9) != 0)
			r = strv_add(env, *e);
	}
	return r;
}

int keeper_start(struct keeper *k, struct sandbox *sb, enum keeper_until until, struct err *err)
{
	cleanup_strv struct strv env = {0};
	cleanup_close int ours = -1, its = -1;
	int lock, pair[2], r;

	*k = (struct keeper)KEEPER_INIT;
	k->sb = sb;
	lock = sandbox_hand_over(sb, err);
	if (lock < 0)
		goto failed;
	if (make_env(sandbox_store(sb), &env) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		lock = err_set(err, ENOMEM, "cannot start a keeper: %s", err_name(ENOMEM));
		goto failed;
	}
	ours = pair[0];
	its = pair[1];
	const char *argv[6] = {"msb", KEEPER_VERB};
	const struct proc_fd fds[] = {{lock, KEEPER_FD_LOCK}, {its, KEEPER_FD_REPORT}};
	static const char *const flags[] = {
		[KEEPER_STOPPED] = NULL,
		[KEEPER_MAIN] = "--main",
		[KEEPER_LEFT] = "--left",
		[KEEPER_SESSION] = "--session",
	};
	unsigned n = 2;

	if (!sandbox_reused(sb))
		argv[n++] = "--fresh";
	if (flags[until])
		argv[n++] = flags[until];
	argv[n++] = sandbox_name(sb);
	r = proc_spawn(&k->proc,
		       &(struct proc_spec){
			       .path = "/proc/self/exe",
			       .argv = argv,
			       .envp = (const char *const *)env.v,
			       .fds = fds,
			       .nfds = ARRAY_SIZE(fds),
			       .new_session = true,
		       },
		       err);
	if (r == 0) {
		k->report = take_fd(&ours);
		return 0;
	}
	lock = r;
failed:
	k->sb = sandbox_free(k->sb);
	return lock;
}

void keeper_done(struct keeper *k)
{
	k->report = close_fd(k->report);
	buf_done(&k->in);
	/* Seeing nobody there, it ends its sandbox. */
	if (k->proc.pidfd >= 0)
		(void)proc_wait(&k->proc, -1);
	k->sb = sandbox_release(k->sb);
}

/* It left no word. Its machine ends by itself; what it was to look after is ours again. */
static int keeper_lost(struct keeper *k, struct err *err)
{
	const char *name = sandbox_name(k->sb);

	sandbox_set_end(k->sb, "its owner was killed", -1);
	int code = k->proc.pidfd >= 0 ? proc_wait(&k->proc, -1) : 0;

	if (code > 128)
		err_set(err, ERR_GUEST,
			"the process that was to keep sandbox \"%s\" was ended by signal %d", name,
			code - 128);
	else
		err_set(err, ERR_GUEST,
			"the process that was to keep sandbox \"%s\" ended without a word", name);
	k->sb = sandbox_free(k->sb);
	return -ERR_GUEST;
}

/* Its next word: 1, 0 at the end of them, negative when that cannot be read. */
static int read_report(struct keeper *k, struct report *ret)
{
	enum { CHUNK = 4096 };

	for (;;) {
		int r = packet_take(&report_table, REPORT_MAX, &k->in, ret, NULL);
		void *to = r == 0 ? buf_reserve(&k->in, CHUNK) : NULL;
		ssize_t n = to ? read(k->report, to, CHUNK) : -1;

		if (r != 0)
			return r;
		if (n < 0 && to && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 || buf_size(&k->in) ? -EIO : 0;
		buf_commit(&k->in, (size_t)n);
	}
}

/* How the sandbox failed, as @m says. */
static int failure(const struct report *m, struct buf *logs, struct err *err)
{
	err_set(err, (int)m->code, "%s", m->message ? m->message : "");
	if (m->hint && *m->hint)
		err_hint(err, "%s", m->hint);
	if (logs && m->logs)
		buf_add(logs, m->logs, strlen(m->logs));
	return m->code ? -(int)m->code : -ERR_GUEST;
}

int keeper_wait(struct keeper *k, struct buf *logs, struct err *err)
{
	struct report m = {0};
	int r = read_report(k, &m);

	if (r <= 0)
		return keeper_lost(k, err);
	r = 0;
	if (!m.ready) {
		r = failure(&m, logs, err);
		if (m.exit)
			r = (int)m.exit;
		/* By now it has cleaned up. */
		(void)proc_wait(&k->proc, -1);
	}
	wire_free(&report_table, &m);
	k->sb = sandbox_release(k->sb);
	return r;
}

void keeper_forget(struct keeper *k)
{
	k->report = close_fd(k->report);
	buf_done(&k->in);
	close_fd(k->proc.pidfd);
	k->proc = (struct proc)PROC_INIT;
}

void keeper_leave(struct keeper *k, bool end)
{
	if (end)
		(void)proc_kill(&k->proc, SIGTERM);
	(void)shutdown(k->report, SHUT_WR);
}

int keeper_last(struct keeper *k, struct buf *logs, struct err *err)
{
	struct report m = {0};
	int r = read_report(k, &m);

	if (r > 0)
		r = failure(&m, logs, err);
	wire_free(&report_table, &m);
	/* What cannot be read is nothing to tell; the end of it is waited for all the same. */
	return r < 0 && err->code ? r : 0;
}

/* ---- the keeper ---- */

struct keep {
	struct store *store;
	struct sandbox *sb;
	struct loop *loop;
	struct session_host *sessions;
	struct loop_source report, vm, signals, caller;
	struct loop_timer lost, leave;
	enum keeper_until until;
	bool main;	   /* its command is to be run, or runs */
	bool started;	   /* it does */
	bool told;	   /* the caller knows */
	bool caller_waits; /* for what comes after that */
	int exit;	   /* of the command that could not be run */
	int last;	   /* what the last session has ended with, or -1 */
	struct err why;
};

static void say(const struct report *m)
{
	cleanup_buf struct buf b = BUF_INIT;

	packet_put(&report_table, m, &b);
	if (!buf_failed(&b))
		(void)io_write_full(KEEPER_FD_REPORT, buf_ptr(&b), buf_size(&b));
}

static void let_caller_go(struct keep *k)
{
	loop_del(&k->caller);
	close(KEEPER_FD_REPORT);
	k->caller_waits = false;
}

static void say_ready(struct keep *k)
{
	log_info("ready");
	sandbox_note_machine(k->sb);
	say(&(struct report){.ready = true});
	k->told = true;
	k->caller_waits = k->until >= KEEPER_LEFT;
	if (k->caller_waits)
		loop_mod(&k->caller, EPOLLRDHUP);
	else
		let_caller_go(k);
}

static void say_failed(const struct keep *k, const char *logs)
{
	say(&(struct report){
		.code = (uint32_t)(k->why.code ? k->why.code : ERR_GUEST),
		.exit = (uint32_t)k->exit,
		.message = (char *)(uintptr_t)k->why.msg,
		.hint = (char *)(uintptr_t)k->why.hint,
		.logs = (char *)(uintptr_t)logs,
	});
}

static void over(struct keep *k)
{
	loop_quit(k->loop, 0);
}

/* ---- sessions ---- */

static int on_connect(void *arg, struct err *err)
{
	return sandbox_connect(((struct keep *)arg)->sb, err);
}

static void on_started(void *arg, const char *name)
{
	struct keep *k = arg;

	if (!str_eq(name, MAIN_SESSION) || !k->main)
		return;
	k->started = true;
	if (!k->told)
		say_ready(k);
}

static void on_ended(void *arg, const char *name, const struct session_end *end)
{
	struct keep *k = arg;
	const struct sandbox_main *m = sandbox_get_main(k->sb);

	if (!str_eq(name, MAIN_SESSION) || !k->main) {
		k->last = end->code;
		return;
	}
	k->main = false;
	if (end->why && k->started) {
		/* It ran, and was lost: most likely with the machine, which knows more. */
		if (loop_timer_in(k->loop, &k->lost, LOST_GRACE_NS) < 0)
			over(k);
		return;
	}
	if (end->why) {
		/* Who began it knows why, and its name. */
		if (!k->told)
			k->exit = agent_exec_why(end->why, m->argv.v[0], &k->why);
		sandbox_set_end(k->sb, "its command could not be run", end->code);
	} else if (end->timed_out) {
		sandbox_set_end(k->sb, "its command took too long", end->code);
	} else {
		sandbox_set_end(k->sb, "completed", end->code);
	}
	log_info("the command has ended: %d", end->code);
	over(k);
}

static const struct session_host_ops session_ops = {
	.connect = on_connect,
	.started = on_started,
	.ended = on_ended,
};

static void on_lost(struct loop_timer *t)
{
	struct keep *k = container_of(t, struct keep, lost);
	cleanup_status struct sandbox_status now = {0};

	/* Who stops it uses force when the time is over that was said, and the machine does so, too. */
	if (sandbox_state_read(sandbox_store(k->sb), sandbox_name(k->sb), &now, NULL) == 0 &&
	    now.state == SANDBOX_STOPPING && loop_timer_in(k->loop, t, LOST_GRACE_NS) == 0)
		return;
	sandbox_set_end(k->sb, "its command was lost", CODE_LOST);
	over(k);
}

static void on_ready(struct keep *k)
{
	const struct sandbox_main *m = sandbox_get_main(k->sb);
	const struct agent_exec_start start = {
		.argv = &m->argv,
		.tty = m->tty,
		.rows = 24,
		.cols = 80,
	};

	if (k->until == KEEPER_MAIN)
		k->main = m->argv.n > 0;
	if (k->until != KEEPER_MAIN || !k->main) {
		say_ready(k);
		return;
	}
	if (session_host_start(k->sessions, MAIN_SESSION, &start, m->timeout_ms, &k->why) < 0)
		over(k);
}

/* ---- the loop's events ---- */

static void read_reports(struct keep *k, bool last)
{
	const char *reason;
	int r;

	do {
		r = sandbox_report(k->sb, &k->why);
		if (r > 0)
			on_ready(k);
	} while (r > 0 || (last && r == 0 && sandbox_report_fd(k->sb) >= 0));
	if (r >= 0)
		return;
	log_info("the machine has ended: %s", k->why.msg);
	reason = sandbox_end_reason(k->sb);
	if (k->why.code == ESHUTDOWN && !k->told)
		err_set(&k->why, ERR_GUEST, "the sandbox was stopped while it started");
	else if (k->why.code == ESHUTDOWN && (!reason || str_eq(reason, "stopped")))
		err_set(&k->why, ERR_GUEST, "the sandbox was stopped while the command ran");
	loop_del(&k->report);
	loop_del(&k->vm);
	over(k);
}

static void on_report(struct loop_source *s, uint32_t events)
{
	(void)events;
	read_reports(container_of(s, struct keep, report), false);
}

static void on_vm_end(struct loop_source *s, uint32_t events)
{
	(void)events;
	loop_del(s);
	read_reports(container_of(s, struct keep, vm), true);
}

static void on_caller(struct loop_source *s, uint32_t events)
{
	struct keep *k = container_of(s, struct keep, caller);

	(void)events;
	loop_del(s);
	if (k->told) {
		/* After what there is to do at once: the connection of a session that has ended. */
		if (loop_timer_in(k->loop, &k->leave, 0) < 0)
			over(k);
		return;
	}
	err_set(&k->why, ECANCELED, "the command that started the sandbox has gone");
	log_info("%s", k->why.msg);
	over(k);
}

/* The caller has left: the machine is to stop with its last client. */
static void on_leave(struct loop_timer *t)
{
	struct keep *k = container_of(t, struct keep, leave);
	const struct control_request q = {.op = CONTROL_LEAVE};
	cleanup_answer struct control_answer a = {0};
	cleanup_close int dir = -1, fd = -1;
	struct err err = ERR_INIT;
	int r;

	dir = sandbox_dir_open(k->store, sandbox_name(k->sb), NULL);
	if (dir >= 0)
		fd = sandbox_socket_connect(dir, SANDBOX_CONTROL_SOCKET, NULL);
	r = fd < 0 ? fd : control_ask(fd, &q, LEAVE_TIMEOUT_MS, &a, &err);
	if (r == -ETIMEDOUT)
		log_warn("%s", err.msg);
	if (r == 0)
		log_info("its caller has left, and %u others are in", a.clients);
	/* Otherwise it ends, which is worth waiting for. */
	if (r == -ETIMEDOUT || (r == 0 && a.clients))
		let_caller_go(k);
}

static void on_signal(struct loop_source *s, uint32_t events)
{
	struct keep *k = container_of(s, struct keep, signals);
	struct signalfd_siginfo si;
	uint32_t sig;

	(void)events;
	if (read(s->fd, &si, sizeof(si)) != sizeof(si))
		return;
	sig = si.ssi_signo;
	log_info("signal %u", sig);
	err_set(&k->why, ERR_GUEST, "the sandbox's keeper was told to stop");
	over(k);
}

static int watch(struct keep *k, struct loop_source *s, int fd, loop_io_fn *fn, uint32_t events)
{
	s->fn = fn;
	s->fd = fd;
	return loop_add(k->loop, s, events);
}

static int block_signals(struct err *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_errno(err, "cannot receive signals") : fd;
}

static void open_log(int dirfd, const struct sandbox_spec *spec)
{
	int fd = openat(dirfd, KEEPER_LOG, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW,
			0600);
	enum log_level level = LOG_INFO;
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_size > KEEPER_LOG_MAX)
		(void)!ftruncate(fd, 0);
	if (spec->log_level)
		(void)log_level_parse(spec->log_level, &level);
	log_open(fd, level, NULL);
	/* What a library has to say of its last moment. */
	(void)dup2(fd, STDERR_FILENO);
}

/* Boot it, and stay until it has ended. */
static int keep(struct keep *k, int sigfd)
{
	cleanup_close int dir = sandbox_dir_open(k->store, sandbox_name(k->sb), &k->why);
	int sessions, r;

	if (dir < 0)
		return dir;
	open_log(dir, sandbox_get_spec(k->sb));
	sessions = sandbox_socket_listen(dir, SESSION_SOCKET, &k->why);
	if (sessions < 0)
		return sessions;
	r = session_host_new(&k->sessions, k->loop, sessions, &session_ops, k, &k->why);
	if (r == 0) {
		session_host_set_history(k->sessions, sandbox_get_spec(k->sb)->session_history);
		r = sandbox_start(k->sb, &k->why);
	}
	if (r < 0)
		return r;
	sandbox_note(k->sb);
	k->lost.fn = on_lost;
	k->leave.fn = on_leave;
	r = watch(k, &k->signals, sigfd, on_signal, EPOLLIN);
	if (r == 0)
		r = watch(k, &k->report, sandbox_report_fd(k->sb), on_report, EPOLLIN);
	if (r == 0)
		r = watch(k, &k->vm, sandbox_pidfd(k->sb), on_vm_end, EPOLLIN);
	/* The other end of a socket has gone: it hangs up. */
	if (r == 0)
		r = watch(k, &k->caller, KEEPER_FD_REPORT, on_caller, 0);
	if (r == 0)
		r = loop_run(k->loop);
	return r < 0 ? err_set(&k->why, r, "cannot watch the machine: %s", err_name(r)) : 0;
}

/* Nothing is left but what some client is slow to take; who ends us now ends only that. */
static void finish(struct keep *k)
{
	struct signalfd_siginfo si;
	sigset_t all;

	loop_del(&k->signals);
	while (read(k->signals.fd, &si, sizeof(si)) > 0)
		;
	sigfillset(&all);
	sigprocmask(SIG_UNBLOCK, &all, NULL);
	session_host_finish(k->sessions);
}

int keeper_run(struct store *s, const char *name, bool fresh, enum keeper_until until)
{
	struct keep k = {.store = s, .until = until, .main = until == KEEPER_SESSION, .last = -1};
	cleanup_buf struct buf logs = BUF_INIT;
	cleanup_close int sigfd = -1;
	struct err late = ERR_INIT;
	int r;

	(void)io_set_cloexec(KEEPER_FD_LOCK, true);
	(void)io_set_cloexec(KEEPER_FD_REPORT, true);
	/* An engine whose msb-vm is gone becomes our child, and is waited for. */
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	(void)!chdir("/");
	sigfd = block_signals(&k.why);
	r = sigfd < 0 ? sigfd : sandbox_adopt(&k.sb, s, name, KEEPER_FD_LOCK, fresh, &k.why);
	if (r == 0)
		r = loop_new(&k.loop, &k.why);
	if (r == 0)
		r = keep(&k, sigfd);
	if (k.sb && (!k.told || k.caller_waits))
		sandbox_logs(k.sb, &logs);
	/* Whatever its command does from here on is of its end. */
	k.main = false;
	loop_del(&k.report);
	loop_del(&k.vm);
	loop_timer_stop(&k.lost);
	loop_timer_stop(&k.leave);
	/* One that ran for those in it alone ends with what the last of them did. */
	if (k.sb && until == KEEPER_LEFT && sandbox_end_reason(k.sb) &&
	    str_eq(sandbox_end_reason(k.sb), "left"))
		sandbox_set_end(k.sb, NULL, k.last);
	if (k.sessions)
		session_host_close(k.sessions, "the sandbox has ended");
	if (k.sb)
		sandbox_note_sessions(k.sb, k.sessions);
	if (k.sb && sandbox_end(k.sb, &late) < 0)
		log_warn("%s", late.msg);
	sandbox_free(k.sb);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	/* Last: whoever hears of a failure finds everything cleaned up. */
	buf_add_u8(&logs, 0);
	if (!k.told || (k.caller_waits && k.why.code))
		say_failed(&k, buf_failed(&logs) ? "" : (const char *)buf_ptr(&logs));
	if (!k.told || k.caller_waits)
		let_caller_go(&k);
	if (k.sessions)
		finish(&k);
	session_host_free(k.sessions);
	loop_free(k.loop);
	return r;
}
