/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agentd, the guest's PID 1.
 *
 * The kernel starts it as /init from an initramfs which also holds the boot message. It sets the
 * guest up (boot.h), listens for relay clients on vsock port AGENT_PORT, connects to the host's
 * AGENT_CONTROL_PORT, says core.ready there, and serves (server.h) until core.shutdown, a signal,
 * or the end of the control connection, which is the host's way of pulling the plug.
 *
 * When the guest cannot be set up, the reason goes to the host as core.error and to the console,
 * and the machine goes off. With an init of the image's (init.c) this is another process than PID
 * 1, and that init decides how the machine ends.
 */
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "boot.h"
#include "reaper.h"
#include "server.h"
#include "shutdown.h"
#include "version.h"

enum {
	/* How long a boot error may take to reach the host before the machine goes off. */
	BOOT_ERROR_LINGER_MS = 300,
};

struct agent {
	struct server sv;
	struct loop_source signals;
	struct work reap;
	bool beside_init; /* PID 1 is somebody else */
	uint32_t grace_ms;
};

static struct agent agent;

static uint64_t boot_time_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void on_shutdown(struct server *sv, uint32_t grace_ms)
{
	agent.grace_ms = grace_ms;
	sv->quit = true;
}

static void reap(struct work *w)
{
	if (reaper_run() == 1)
		server_defer(&agent.sv, w);
}

static void on_signal(struct loop_source *src, uint32_t events)
{
	struct signalfd_siginfo info[8];
	ssize_t n = read(src->fd, info, sizeof(info));

	(void)events;
	for (ssize_t i = 0; i < n / (ssize_t)sizeof(info[0]); i++) {
		if (info[i].ssi_signo == SIGCHLD)
			server_defer(&agent.sv, &agent.reap);
		else if (!agent.beside_init)
			/* An init that is shutting down sends these to everybody, and does the
			 * rest. */
			agent.sv.quit = true;
	}
}

static int watch_signals(struct err *err)
{
	static const int signals[] = {SIGCHLD, SIGTERM, SIGINT,	 SIGHUP,
				      SIGQUIT, SIGPWR,	SIGUSR1, SIGUSR2};
	sigset_t set;
	int r;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* Ctrl-Alt-Del becomes SIGINT for us. */
	reboot(RB_DISABLE_CAD);
	agent.signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	agent.signals.fn = on_signal;
	agent.reap.fn = reap;
	if (agent.signals.fd < 0)
		return err_errno(err, "cannot watch signals");
	r = loop_add(agent.sv.loop, &agent.signals, EPOLLIN);
	return r < 0 ? err_set(err, r, "cannot watch signals: %s", err_name(r)) : 0;
}

static int vsock_listen(struct err *err)
{
	struct sockaddr_vm a = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = AGENT_PORT,
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 128) < 0) {
		int r = err_errno(err, "cannot listen on vsock port %d", AGENT_PORT);

		close_fd(fd);
		return r;
	}
	return fd;
}

static int vsock_connect(struct err *err)
{
	struct sockaddr_vm a = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_HOST,
		.svm_port = AGENT_CONTROL_PORT,
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int r = err_errno(err, "cannot connect to the host on vsock port %d",
				  AGENT_CONTROL_PORT);

		close_fd(fd);
		return r;
	}
	return fd;
}

/* 0, 1 and 2 must be taken, or a command's pipes could get these numbers. */
static void fill_stdio(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd < 3);
	close_fd(fd);
}

static void boot_failed(const struct err *reason)
{
	struct msg_error m = {
		.kind = CORE_INITIALIZATION_FAILED,
		.message = (char *)reason->msg,
	};
	cleanup_buf struct buf b = BUF_INIT;
	int fd = vsock_connect(NULL);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	boot_log("boot failed: %s", reason->msg);
	if (fd >= 0 && !frame_put_msg(&b, 0, MSG_ERROR, &m) &&
	    send(fd, buf_ptr(&b), buf_size(&b), MSG_NOSIGNAL) > 0)
		/* The host closes when it has read it; bytes under way die with us. */
		poll(&p, 1, BOOT_ERROR_LINGER_MS);
	sync();
	shutdown_now();
}

static int serve(uint64_t started, struct err *err)
{
	struct msg_ready ready = {
		.boot_time_ns = started,
		.agent_version = (char *)AGENTD_VERSION,
	};
	struct conn *control;
	int fd = vsock_listen(err);
	int r;

	if (fd < 0)
		return fd;
	r = server_listen(&agent.sv, fd, err);
	if (r < 0)
		return r;
	fd = vsock_connect(err);
	if (fd < 0)
		return fd;
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	control = server_adopt(&agent.sv, fd, true);
	if (!control)
		return err_set(err, ENOMEM, "cannot serve the control connection");
	ready.ready_time_ns = boot_time_ns();
	ready.init_time_ns = ready.ready_time_ns - started;
	conn_send(control, 0, MSG_READY, &ready);
	server_flush(&agent.sv);
	return 0;
}

int main(int argc, char **argv)
{
	static struct msg_bootstrap boot;
	uint64_t started = boot_time_ns();
	struct err err = ERR_INIT;
	int r;

	(void)argc;
	if (getpid() != 1) {
		static const char text[] = "agentd is the init of a sandbox and nothing else\n";

		(void)!write(2, text, sizeof(text) - 1);
		return 1;
	}
	r = boot_read("/msb-boot", &boot, &err);
	if (!r)
		r = boot_guest(&boot, &err);
	if (!r && boot.has_handoff_init) {
		r = init_handoff(&boot, argv[0], &err);
		agent.beside_init = !r;
	}
	fill_stdio();
	if (!r)
		r = server_init(&agent.sv, &boot, &err);
	if (!r) {
		agent.sv.on_shutdown = on_shutdown;
		agent.sv.defaults.cgroup_fd = boot_cgroup();
		r = watch_signals(&err);
	}
	if (!r)
		r = serve(started, &err);
	if (r < 0)
		boot_failed(&err);
	boot_late(&boot);
	server_run(&agent.sv);
	if (agent.beside_init)
		init_shutdown(agent.grace_ms);
	shutdown_machine(agent.signals.fd, agent.grace_ms);
}
