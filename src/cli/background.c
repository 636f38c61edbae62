/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/background.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/str.h"
#include "cli/attach.h"
#include "cli/cli.h"
#include "sandbox/control_client.h"
#include "sandbox/keeper.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/state.h"

/* Booting takes CPU time first of all: more at once than this makes nothing faster. */
#define AT_ONCE 8
/* For a sandbox that another command is starting. */
#define OTHERS_NS ((uint64_t)60000000000)
#define RETRY_MS  10

static void show(const struct cli *cli, const struct buf *logs)
{
	if (cli->level >= LOG_DEBUG)
		fwrite(buf_ptr(logs), 1, buf_size(logs), stderr);
}

int background_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* Wait for its word or for a signal to us: 0, or the signal. */
static int wait_word(const struct keeper *k)
{
	cleanup_close int fd = background_signals();
	struct pollfd p[] = {{.fd = k->report, .events = POLLIN}, {.fd = fd, .events = POLLIN}};

	while (poll(p, ARRAY_SIZE(p), -1) < 0 && errno == EINTR)
		;
	return p[0].revents ? 0 : attach_pending_signal();
}

int background_ready(const struct cli *cli, struct keeper *k, struct err *err)
{
	cleanup_buf struct buf logs = BUF_INIT;
	int sig, r;

	cli_busy(cli->quiet, "starting %s", k->sb ? sandbox_name(k->sb) : "the sandbox");
	sig = wait_word(k);
	cli_busy_end();
	if (sig) {
		keeper_done(k);
		return EXIT_SIGNAL + sig;
	}
	r = keeper_wait(k, &logs, err);
	if (r) {
		show(cli, &logs);
		keeper_forget(k);
	}
	return r;
}

/* With nothing more to do with it: an exit code. */
int background_wait(const struct cli *cli, struct keeper *k)
{
	struct err err = ERR_INIT;
	int r = background_ready(cli, k, &err);

	if (r == 0)
		keeper_forget(k);
	else if (err.code)
		r = cli_fail(&err, r > 0 ? r : cli->verb->usage_code ? cli->verb->usage_code : 1);
	return r;
}

int background_hold(struct sandbox *sb, enum keeper_until until, struct keeper *k, struct err *err)
{
	if (attach_pending_signal()) {
		sandbox_free(sb);
		return EXIT_SIGNAL + attach_pending_signal();
	}
	return keeper_start(k, sb, until, err);
}

int background_leave(const struct cli *cli, struct keeper *k, int r, enum attach_end end,
		     struct err *err)
{
	cleanup_buf struct buf logs = BUF_INIT;
	struct err why = ERR_INIT;

	/* After a failure the machine may have something to say, and needs no help in ending. */
	keeper_leave(k, end == ATTACH_CUT && r >= 0);
	if (end != ATTACH_LEFT && !wait_word(k) && keeper_last(k, &logs, &why) < 0 && r < 0) {
		show(cli, &logs);
		*err = why;
	}
	keeper_forget(k);
	return r;
}

int background_start(const struct cli *cli, struct sandbox *sb, enum keeper_until until)
{
	struct keeper k;
	struct err err = ERR_INIT;

	if (attach_pending_signal()) {
		sandbox_free(sb);
		return EXIT_SIGNAL + attach_pending_signal();
	}
	if (keeper_start(&k, sb, until, &err) < 0)
		return cli_fail(&err, cli->verb->usage_code ? cli->verb->usage_code : 1);
	return background_wait(cli, &k);
}

/*
 * Open @name to start it. 1: somebody else has. One that another command is just starting is
 * waited for: should that fail, it is our turn.
 */
static int open_stopped(struct store *s, const char *name, struct sandbox **ret, struct err *err)
{
	uint64_t end = now_ns() + OTHERS_NS;

	for (;;) {
		cleanup_status struct sandbox_status now = {0};
		int r;

		err_clear(err);
		r = sandbox_open_kept(ret, s, name, err);
		if (r != -EBUSY || now_ns() >= end || attach_pending_signal())
			return r;
		/* One that was started for the time being is to stay from here on. */
		if (sandbox_state_read(s, name, &now, NULL) == 0 &&
		    (now.state == SANDBOX_RUNNING || now.state == SANDBOX_PAUSED ||
		     now.state == SANDBOX_DRAINING) &&
		    control_request(s, name, &(struct control_request){.op = CONTROL_STAY}, NULL,
				    NULL) == 0)
			return 1;
		(void)poll(NULL, 0, RETRY_MS);
	}
}

int background_start_all(const struct cli *cli, struct store *s, char *const *names, size_t n,
			 bool quiet)
{
	struct keeper k[AT_ONCE];
	bool begun[AT_ONCE];
	int failed = 0;

	attach_block_signals();
	for (size_t i = 0; i < n && !attach_pending_signal(); i += AT_ONCE) {
		size_t some = MIN(n - i, (size_t)AT_ONCE);

		for (size_t j = 0; j < some; j++) {
			struct err err = ERR_INIT;
			struct sandbox *sb = NULL;
			int r = open_stopped(s, names[i + j], &sb, &err);

			begun[j] = false;
			if (r == 0) {
				r = keeper_start(&k[j], sb, KEEPER_MAIN, &err);
				begun[j] = r == 0;
			} else if (r > 0 && !quiet) {
				puts(names[i + j]);
			}
			if (r < 0)
				failed = cli_fail(&err, EXIT_FAILURE);
		}
		for (size_t j = 0; j < some; j++) {
			if (!begun[j])
				continue;
			if (background_wait(cli, &k[j]))
				failed = EXIT_FAILURE;
			else if (!quiet)
				puts(names[i + j]);
		}
	}
	return attach_pending_signal() ? EXIT_SIGNAL + attach_pending_signal() : failed;
}
