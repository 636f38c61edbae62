/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes that another process runs: stopping and removing them. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/point.h"
#include "base/str.h"
#include "sandbox/sandbox.h"
#include "sandbox/state.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir_impl.h"
#include "store/store.h"

/* What the owner needs after its machine has gone: a directory to remove, a lock to let go. */
enum { OWNER_GRACE_MS = 5000, START_RETRY_MS = 20 };

const char *sandbox_end_words(const char *reason)
{
	static const struct {
		const char *reason, *text;
	} words[] = {
		{"max-duration", "the sandbox was stopped: its maximal duration was over"},
		{"idle", "the sandbox was stopped: nobody had done anything in it for its idle "
			 "timeout"},
		{"drained", "the sandbox was drained and stopped"},
		{"drain-timeout", "the sandbox was stopped: the time to drain it was over"},
		{"left", "nobody was left in the sandbox, and it was stopped"},
		{"shutdown", "the guest switched itself off"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (reason && str_eq(reason, words[i].reason))
			return words[i].text;
	}
	return "the machine was shut down";
}

static bool wait_end(int pidfd, int timeout_ms)
{
	struct pollfd pfd = {.fd = pidfd, .events = POLLIN};

	return poll(&pfd, 1, timeout_ms) > 0;
}

/* Ask the machine to end, with the time that we give it; it has one of its own for who says none. */
static void signal_vm(const struct sandbox_stopping *st)
{
	siginfo_t info = {.si_signo = SIGTERM, .si_code = SI_QUEUE};

	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = st->timeout_ms;
	if (st->force)
		(void)syscall(SYS_pidfd_send_signal, st->vm, SIGKILL, NULL, 0);
	else
		(void)syscall(SYS_pidfd_send_signal, st->vm, SIGTERM, &info, 0);
}

int sandbox_stop_begin(struct store *s, const char *name, bool force, int timeout_ms,
		       struct sandbox_stopping *ret, struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	int r = sandbox_dir_list(s, name, &l, err);

	*ret = (struct sandbox_stopping){
		.name = name, .force = force, .timeout_ms = timeout_ms, .vm = -1};
	if (r < 0)
		return r;
	ret->done = !l.items[0].running;
	if (ret->done)
		return 0;
	/* So that its end is seen for what it is. */
	(void)sandbox_state_change(s, name, SANDBOX_STOPPING, force ? "killed" : "asked", NULL);
	point("stop:row");
	ret->vm = sandbox_dir_vm(s, name);
	if (ret->vm >= 0)
		signal_vm(ret);
	ret->began = now_ns();
	return 0;
}

/* The machine's end; true when it had to be killed although that was not asked for. */
static bool end_vm(struct sandbox_stopping *st)
{
	uint64_t gone = (now_ns() - st->began) / 1000000;
	int left = gone < (uint64_t)st->timeout_ms ? st->timeout_ms - (int)gone : 0;

	if (wait_end(st->vm, st->force ? OWNER_GRACE_MS : left))
		return false;
	(void)syscall(SYS_pidfd_send_signal, st->vm, SIGKILL, NULL, 0);
	(void)wait_end(st->vm, OWNER_GRACE_MS);
	return true;
}

int sandbox_stop_finish(struct store *s, struct sandbox_stopping *st, struct err *err)
{
	cleanup_sandbox_dir struct sandbox_dir d = SANDBOX_DIR_INIT;
	cleanup_record struct sandbox_record record = {0};
	uint64_t patience = now_ns() + (uint64_t)OWNER_GRACE_MS * 1000000u;
	bool killed = false;
	int r;

	if (st->done)
		return 0;
	for (;;) {
		bool had = st->vm >= 0;

		if (had)
			killed = end_vm(st);
		st->vm = close_fd(st->vm);
		/* Its owner sees the end, too, and lets go; without a machine, it may yet start
		 * one. */
		r = sandbox_dir_take_wait(s, st->name, had ? OWNER_GRACE_MS : START_RETRY_MS, &d,
					  err);
		if (r != -EBUSY || had || now_ns() >= patience)
			break;
		(void)sandbox_state_change(s, st->name, SANDBOX_STOPPING,
					   st->force ? "killed" : "asked", NULL);
		st->vm = sandbox_dir_vm(s, st->name);
		if (st->vm >= 0)
			signal_vm(st);
		st->began = now_ns();
	}
	if (r == -EBUSY) {
		err_set(err, EBUSY, "sandbox \"%s\" is held by another command", st->name);
		return err_hint(err, "end the `msb` that runs it");
	}
	if (r < 0 && r != -ERR_NOT_FOUND)
		return r;
	err_clear(err);
	/* Should its owner have been killed, too. */
	if (r == 0 && d.kept && sandbox_dir_hold(&d, NULL) == 0 &&
	    record_read(d.fd, &record, NULL) == 0)
		(void)sandbox_heal_row(s, d.fd, &record, NULL);
	if (r == 0 && !d.kept) {
		(void)sandbox_state_remove(s, st->name, NULL, NULL);
		(void)sandbox_dir_remove(&d, NULL);
	}
	if (killed)
		return err_set(err, ETIMEDOUT,
			       "sandbox \"%s\" did not stop in %d ms and was killed", st->name,
			       st->timeout_ms);
	return 0;
}

int sandbox_wait_end(struct store *s, const char *name, int timeout_ms, struct err *err)
{
	uint64_t end = timeout_ms < 0 ? UINT64_MAX : now_ns() + (uint64_t)timeout_ms * 1000000u;

	for (;;) {
		cleanup_sandbox_list struct sandbox_list l = {0};
		cleanup_close int vm = -1;
		uint64_t now = now_ns();
		int r = sandbox_dir_list(s, name, &l, err);

		/* An ephemeral one went with its machine. */
		if (r == -ERR_NOT_FOUND)
			err_clear(err);
		if (r < 0 || !l.items[0].running)
			return r == -ERR_NOT_FOUND ? 0 : r;
		if (now >= end)
			return err_set(err, ETIMEDOUT, "sandbox \"%s\" still runs", name);
		/* Between its machine's end and its owner's there is nothing to wait for but time.
		 */
		vm = sandbox_dir_vm(s, name);
		if (vm < 0)
			(void)poll(NULL, 0, START_RETRY_MS);
		else
			(void)wait_end(vm, end == UINT64_MAX ? -1
							     : (int)MIN((end - now) / 1000000,
									(uint64_t)INT_MAX));
	}
}

int sandbox_stop(struct store *s, const char *name, bool force, int timeout_ms, struct err *err)
{
	struct sandbox_stopping st;
	int r = sandbox_stop_begin(s, name, force, timeout_ms, &st, err);

	return r < 0 ? r : sandbox_stop_finish(s, &st, err);
}

int sandbox_remove(struct store *s, const char *name, bool force, struct err *err)
{
	cleanup_sandbox_dir struct sandbox_dir d = SANDBOX_DIR_INIT;
	int r = sandbox_name_check(name, err);

	if (r < 0)
		return r;
	if (force) {
		r = sandbox_stop(s, name, true, 0, err);
		if (r < 0)
			return r;
	}
	r = sandbox_dir_take(s, name, false, &d, err);
	if (r == -ERR_NOT_FOUND && force)
		return 0; /* an ephemeral one went with its machine */
	if (r == -EBUSY) {
		err_set(err, EBUSY, "sandbox \"%s\" is running", name);
		return err_hint(err, "stop it first, or use -f");
	}
	if (r < 0)
		return r;
	r = sandbox_dir_hold(&d, err);
	if (r < 0)
		return r;
	/*
	 * What keeps it goes before its row does, as from there on it is nobody's, and heals; but
	 * not when the row cannot go.
	 */
	r = store_begin(s, err);
	if (r == 0)
		r = sandbox_state_drop(s, name, NULL, err);
	if (r == 0)
		r = sandbox_dir_give_up(&d, err);
	if (r < 0) {
		store_rollback(s);
		return r;
	}
	point("rm:record");
	if (store_commit(s, NULL) < 0)
		store_rollback(s);
	point("rm:row");
	return sandbox_dir_remove(&d, err);
}
