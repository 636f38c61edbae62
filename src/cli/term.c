/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/term.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"

static int raw_fd = -1;
static struct termios found;
static volatile sig_atomic_t is_raw;
static bool only_keys;

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

static int change(int fd, bool raw)
{
	struct termios mode;

	if (!is_raw) {
		if (tcgetattr(fd, &found) < 0)
			return -errno;
		raw_fd = fd;
		catch_fatal();
	}
	mode = found;
	if (raw) {
		cfmakeraw(&mode);
	} else {
		mode.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		mode.c_cc[VMIN] = 1;
		mode.c_cc[VTIME] = 0;
	}
	is_raw = 1;
	only_keys = !raw;
	set_mode(fd, &mode);
	return 0;
}

int term_raw(int fd)
{
	return change(fd, true);
}

int term_keys(int fd)
{
	return change(fd, false);
}

void term_again(void)
{
	if (is_raw)
		(void)change(raw_fd, !only_keys);
}

/* By hand, because Ctrl-C must not leave a terminal behind that shows nothing. */
static int read_hidden(int fd, char *buf, size_t size)
{
	enum { CTRL_C = 3, CTRL_D = 4, BACKSPACE = 8, CTRL_U = 21, DELETE = 127 };
	size_t n = 0;
	char c;

	for (;;) {
		ssize_t r = read(fd, &c, 1);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0 || c == CTRL_C || (c == CTRL_D && !n))
			return -EINTR;
		if (c == '\n' || c == '\r' || c == CTRL_D)
			break;
		if (c == CTRL_U)
			n = 0;
		else if (c == BACKSPACE || c == DELETE)
			n -= n > 0;
		else if (n + 1 < size)
			buf[n++] = c;
		else
			return -E2BIG;
	}
	buf[n] = '\0';
	return 0;
}

static int read_shown(int fd, char *buf, size_t size)
{
	ssize_t n;

	do
		n = read(fd, buf, size - 1);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return -EINTR;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

int term_ask(const char *prompt, bool echo, char *buf, size_t size, struct err *err)
{
	cleanup_close int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
	struct termios was, mode;
	int r;

	if (fd < 0 || tcgetattr(fd, &was) < 0) {
		err_set(err, ENOTTY, "there is no terminal to ask at");
		return err_hint(err, "give --username NAME and --password-stdin");
	}
	(void)!write(fd, prompt, strlen(prompt));
	if (echo) {
		r = read_shown(fd, buf, size);
	} else {
		mode = was;
		mode.c_lflag &= ~(tcflag_t)(ECHO | ICANON | ISIG);
		mode.c_cc[VMIN] = 1;
		mode.c_cc[VTIME] = 0;
		set_mode(fd, &mode);
		r = read_hidden(fd, buf, size);
		set_mode(fd, &was);
		(void)!write(fd, "\n", 1);
	}
	if (r == -EINTR)
		return err_set(err, EINTR, "nothing was entered");
	return r < 0 ? err_set(err, r, "what was entered is too long") : 0;
}

void term_size(int fd, uint16_t *rows, uint16_t *cols)
{
	struct winsize ws;
	bool known = ioctl(fd, TIOCGWINSZ, &ws) == 0 && ws.ws_row && ws.ws_col;

	*rows = known ? ws.ws_row : 24;
	*cols = known ? ws.ws_col : 80;
}
