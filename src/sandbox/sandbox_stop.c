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
#include "base/str.h"
#include "sandbox/sandbox.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
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

/* True when it had to be killed although that was not asked for. */
static bool end_vm(int vm, bool force, int timeout_ms)
{
	(void)syscall(SYS_pidfd_send_signal, vm, force ? SIGKILL : SIGTERM, NULL, 0);
	if (wait_end(vm, force ? OWNER_GRACE_MS : timeout_ms))
		return false;
	(void)syscall(SYS_pidfd_send_signal, vm, SIGKILL, NULL, 0);
	(void)wait_end(vm, OWNER_GRACE_MS);
	return true;
}

int sandbox_stop(struct store *s, const char *name, bool force, int timeout_ms, struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	cleanup_sandbox_dir struct sandbox_dir d = SANDBOX_DIR_INIT;
	uint64_t patience = now_ns() + (uint64_t)OWNER_GRACE_MS * 1000000u;
	cleanup_close int vm = -1;
	bool killed = false;
	int r = sandbox_dir_list(s, name, &l, err);

	if (r < 0)
		return r;
	if (!l.items[0].running)
		return 0;
	/* Only so that its end is seen for what it is; one that ends meanwhile refuses. */
	(void)sandbox_state_change(s, name, SANDBOX_STOPPING, force ? "killed" : "asked", NULL);
	do {
		vm = sandbox_dir_vm(s, name);
		if (vm >= 0)
			killed = end_vm(vm, force, timeout_ms);
		/* Its owner sees the end, too, and lets go; without a machine, it may yet start
		 * one. */
		r = sandbox_dir_take_wait(s, name, vm < 0 ? START_RETRY_MS : OWNER_GRACE_MS, &d,
					  err);
	} while (r == -EBUSY && vm < 0 && now_ns() < patience);
	if (r == -EBUSY) {
		err_set(err, EBUSY, "sandbox \"%s\" is held by another command", name);
		return err_hint(err, "end the `msb` that runs it");
	}
	if (r < 0 && r != -ERR_NOT_FOUND)
		return r;
	if (r == 0 && !d.kept)
		(void)sandbox_dir_remove(&d, NULL);
	if (killed)
		return err_set(err, ETIMEDOUT,
			       "sandbox \"%s\" did not stop in %d ms and was killed", name,
			       timeout_ms);
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
	/*
	 * Row and claim go first: killed in between, a sandbox that lost them still has its files
	 * and can be removed again.
	 */
	r = sandbox_state_remove(s, name, NULL, err);
	return r < 0 ? r : sandbox_dir_remove(&d, err);
}
