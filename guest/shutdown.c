/* SPDX-License-Identifier: Apache-2.0 */
#include "shutdown.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "boot.h"
#include "reaper.h"

/* Reap until nobody is left: kernel threads are not our children. False at the deadline. */
static bool wait_for_all(int sigfd, uint64_t deadline)
{
	for (;;) {
		struct pollfd p = {.fd = sigfd, .events = POLLIN};
		struct signalfd_siginfo info[8];
		uint64_t now;
		pid_t pid;

		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0 && errno == ECHILD)
			return true;
		now = now_ns();
		if (now >= deadline || poll(&p, 1, (int)((deadline - now) / 1000000) + 1) == 0)
			return false;
		(void)!read(sigfd, info, sizeof(info));
	}
}

void shutdown_now(void)
{
	/*
	 * A reset, not a power-off: these machines have no ACPI to ask for one, and the VMM ends
	 * at a reset.
	 */
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

void shutdown_machine(int sigfd, uint32_t grace_ms)
{
	const uint64_t least = SHUTDOWN_GRACE_MS * 1000000ull;

	if (kill(-1, SIGTERM) == 0 || errno != ESRCH) {
		kill(-1, SIGCONT);
		if (!wait_for_all(sigfd, now_ns() + MAX(grace_ms * 1000000ull, least))) {
			kill(-1, SIGKILL);
			wait_for_all(sigfd, now_ns() + least);
		}
	}
	sync();
	mount_seal();
	shutdown_now();
}
