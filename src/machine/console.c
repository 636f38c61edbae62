/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/console.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"

/* One turn reads at most this much, so that a chatty guest does not starve the loop. */
enum { CHUNK = 16 * 1024, LINE = 256 };

struct console {
	struct loop_source source;
	int logfd;
	size_t written;
	char *path;
	char line[LINE];
	size_t line_n;
	char words[LINE];
};

static int open_log(struct console *c, int flags)
{
	struct stat st;

	c->logfd = open(c->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0600);
	if (c->logfd < 0)
		return -errno;
	c->written = fstat(c->logfd, &st) == 0 ? (size_t)st.st_size : 0;
	return 0;
}

static void rotate(struct console *c)
{
	cleanup_free char *old = str_fmt("%s.1", c->path);

	c->logfd = close_fd(c->logfd);
	/* Rather lose the old one than the ceiling. */
	(void)open_log(c, old && rename(c->path, old) == 0 ? 0 : O_TRUNC);
}

static bool tells_why(const char *line)
{
	static const char *const marks[] = {"Kernel panic", "Out of memory:", "agentd:"};

	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		if (strstr(line, marks[i]))
			return true;
	}
	return false;
}

static void watch_lines(struct console *c, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n' || c->line_n == LINE - 1) {
			c->line[c->line_n] = '\0';
			if (tells_why(c->line))
				memcpy(c->words, c->line, c->line_n + 1);
			c->line_n = 0;
		}
		if (p[i] != '\n' && p[i] != '\r')
			c->line[c->line_n++] = isprint((unsigned char)p[i]) ? p[i] : '?';
	}
}

static bool read_some(struct console *c)
{
	char b[CHUNK];
	ssize_t n = read(c->source.fd, b, sizeof(b));

	if (n <= 0)
		return false;
	watch_lines(c, b, (size_t)n);
	if (c->written + (size_t)n > CONSOLE_LOG_MAX)
		rotate(c);
	/* A full disk costs log lines, never the sandbox. What was written in part counts as well.
	 */
	if (c->logfd >= 0)
		(void)io_write_full(c->logfd, b, (size_t)n);
	c->written += (size_t)n;
	return true;
}

static void on_readable(struct loop_source *s, uint32_t events)
{
	struct console *c = container_of(s, struct console, source);

	if (!read_some(c) && (events & (EPOLLHUP | EPOLLERR)))
		loop_del(s);
}

void console_drain(struct console *c)
{
	while (read_some(c))
		;
}

const char *console_last_words(struct console *c)
{
	return c->words[0] ? c->words : NULL;
}

int console_new(struct console **ret, struct loop *loop, const char *dir, int *ret_fd,
		struct err *err)
{
	struct console *c = calloc(1, sizeof(*c));
	cleanup_close int wr = -1;
	int p[2], r;

	if (!c)
		return err_set(err, ENOMEM, "cannot create the console: out of memory");
	c->logfd = c->source.fd = -1;
	c->source.fn = on_readable;
	c->path = str_fmt("%s/logs/kernel.log", dir);
	r = c->path ? open_log(c, 0) : -ENOMEM;
	if (r < 0) {
		err_set(err, r, "cannot open %s/logs/kernel.log: %s", dir, err_name(r));
		goto fail;
	}
	if (pipe2(p, O_CLOEXEC) < 0) {
		r = err_errno(err, "cannot create the console");
		goto fail;
	}
	c->source.fd = p[0];
	wr = p[1];
	(void)io_set_nonblock(p[0], true);
	r = loop_add(loop, &c->source, EPOLLIN);
	if (r < 0) {
		err_set(err, r, "cannot watch the console: %s", err_name(r));
		goto fail;
	}
	*ret = c;
	*ret_fd = take_fd(&wr);
	return 0;
fail:
	console_free(c);
	return r;
}

struct console *console_free(struct console *c)
{
	if (!c)
		return NULL;
	loop_del(&c->source);
	close_fd(c->source.fd);
	close_fd(c->logfd);
	free(c->path);
	free(c);
	return NULL;
}
