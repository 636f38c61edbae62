/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/term.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "base/cleanup.h"

static int raw_fd = -1;
static struct termios found;
static volatile sig_atomic_t is_raw;

static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};

/*
 * A process in the background that sets its terminal gets SIGTTOU and would stop half-way to its
 * end: that signal is held off meanwhile.
 */
static void set_mode(int fd, const struct termios *mode)
{
	sigset_t ttou, old;

	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	sigprocmask(SIG_BLOCK, &ttou, &old);
	while (tcsetattr(fd, TCSADRAIN, mode) < 0 && errno == EINTR)
		;
	sigprocmask(SIG_SETMASK, &old, NULL);
}

void term_restore(void)
{
	if (!is_raw)
		return;
	is_raw = 0;
	set_mode(raw_fd, &found);
}

bool term_is_raw(void)
{
	return is_raw;
}

static void on_fatal(int sig)
{
	int saved = errno;

	term_restore();
	errno = saved;
	/* The handler was for once: this time it ends us, with a core dump if those are wanted. */
	raise(sig);
}

static void catch_fatal(void)
{
	struct sigaction sa = {.sa_handler = on_fatal, .sa_flags = SA_RESETHAND | SA_NODEFER};
	static bool done;

	if (done)
		return;
	done = true;
	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
		sigaction(fatal[i], &sa, NULL);
	atexit(term_restore);
}

int term_raw(int fd)
{
	struct termios mode;

	if (!is_raw) {
		if (tcgetattr(fd, &found) < 0)
			return -errno;
		raw_fd = fd;
		catch_fatal();
	}
	mode = found;
	cfmakeraw(&mode);
	is_raw = 1;
	set_mode(fd, &mode);
	return 0;
}

void term_size(int fd, uint16_t *rows, uint16_t *cols)
{
	struct winsize ws;
	bool known = ioctl(fd, TIOCGWINSZ, &ws) == 0 && ws.ws_row && ws.ws_col;

	*rows = known ? ws.ws_row : 24;
	*cols = known ? ws.ws_col : 80;
}
