/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One reader of the log for each sandbox, all woken by one inotify. A line is shown when it is
 * complete, or its session has ended: the lines of two sandboxes never mix.
 */
#include "cli/follow.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "sandbox/log_reader.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/state.h"

enum {
	/* Lines that have begun, of so many sessions and streams of one sandbox, and so long. */
	LINES_MAX = 16,
	LINE_BYTES = 64 << 10,
	/* How often quiet sandboxes are asked whether they still run. */
	ALIVE_MS = 500,
};

struct begun {
	uint32_t id;
	enum log_source source;
	struct buf text;
};

struct one {
	const char *name, *shown;
	int dir;
	struct log_reader *log;
	struct begun lines[LINES_MAX];
	size_t nlines;
	bool ended;
	const char *color;
};

struct follow {
	struct store *store;
	struct one *v;
	size_t n, width;
	int64_t since;
	int notify, signals, code;
};

int64_t follow_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void put_line(const struct follow *f, const struct one *o, const void *p, size_t n)
{
	printf("%s%-*s |%s ", o->color, (int)f->width, o->shown, o->color[0] ? "\033[0m" : "");
	fwrite(p, 1, n, stdout);
	putchar('\n');
}

static void end_line(const struct follow *f, struct one *o, size_t i)
{
	struct begun *l = &o->lines[i];

	if (buf_size(&l->text))
		put_line(f, o, buf_ptr(&l->text), buf_size(&l->text));
	buf_done(&l->text);
	*l = o->lines[--o->nlines];
}

static struct begun *line_of(const struct follow *f, struct one *o, const struct log_entry *e)
{
	for (size_t i = 0; i < o->nlines; i++) {
		if (o->lines[i].id == e->id && o->lines[i].source == e->source)
			return &o->lines[i];
	}
	if (o->nlines == LINES_MAX)
		end_line(f, o, 0);
	o->lines[o->nlines] = (struct begun){.id = e->id, .source = e->source, .text = BUF_INIT};
	return &o->lines[o->nlines++];
}

static void add_text(const struct follow *f, struct one *o, const struct log_entry *e)
{
	const char *p = e->data, *end = p + e->n;

	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((nl ? nl : end) - p);
		struct begun *l = line_of(f, o, e);
		size_t cr = nl && n && p[n - 1] == '\r';

		buf_add(&l->text, p, n - cr);
		if (nl) {
			put_line(f, o, buf_ptr(&l->text), buf_size(&l->text));
			buf_reset(&l->text);
		} else if (buf_size(&l->text) > LINE_BYTES) {
			end_line(f, o, (size_t)(l - o->lines));
		}
		p += n + (nl != NULL);
	}
}

static void end_session(const struct follow *f, struct one *o, uint32_t id)
{
	for (size_t i = o->nlines; i-- > 0;) {
		if (!id || o->lines[i].id == id)
			end_line(f, o, i);
	}
}

static void read_log(const struct follow *f, struct one *o)
{
	struct log_entry e;
	int r;

	while ((r = log_reader_next(o->log, &e)) == 1 || r == -ENODATA) {
		if (r == -ENODATA)
			cli_warn("%s: some of what it printed is missing", o->shown);
		else if (e.source == LOG_SYSTEM)
			end_session(f, o, e.id);
		else if (e.ns >= f->since)
			add_text(f, o, &e);
	}
}

/* It has ended: say how. */
static void tell_end(struct follow *f, struct one *o, const struct sandbox_entry *e)
{
	char text[256];
	int code = e ? e->status.exit_code : -1;
	const char *reason = e && e->status.reason ? e->status.reason : "";

	read_log(f, o);
	end_session(f, o, 0);
	o->ended = true;
	if (code < 0 && e && e->status.state != SANDBOX_STOPPED)
		code = EXIT_OURS;
	if (code > 0 && !f->code)
		f->code = code;
	if (e && e->status.exit_code >= 0)
		snprintf(text, sizeof(text), "ended with %d", code);
	else
		snprintf(text, sizeof(text), "%s%s%.150s",
			 e ? sandbox_state_name(e->status.state) : "gone", *reason ? ": " : "",
			 reason);
	put_line(f, o, text, strlen(text));
}

static bool look(struct follow *f)
{
	bool any = false, heal = false;

	for (size_t pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < f->n; i++) {
			cleanup_sandbox_list struct sandbox_list l = {0};
			struct one *o = &f->v[i];
			bool there;

			if (o->ended)
				continue;
			there = sandbox_dir_list(f->store, o->name, &l, NULL) == 0 && l.count;
			if (there && l.items[0].running)
				any |= pass == 0;
			else if (pass == 0)
				heal = true;
			else
				tell_end(f, o, there ? &l.items[0] : NULL);
		}
		/* One whose owner was killed had nobody to say how it ended. */
		if (pass == 0 && !heal)
			break;
		if (pass == 0)
			sandbox_dir_heal(f->store, true);
	}
	return any;
}

int follow_new(struct follow **ret, struct store *s, const struct follow_of *of, size_t n,
	       int64_t since_ns, struct err *err)
{
	static const char *const colors[] = {"\033[36m", "\033[33m", "\033[32m",
					     "\033[35m", "\033[34m", "\033[31m"};
	const bool colored = *cli_bold(stdout) != '\0';
	struct follow *f = calloc(1, sizeof(*f));
	sigset_t set;
	int r = 0;

	if (f)
		f->v = calloc(n + 1, sizeof(*f->v));
	if (!f || !f->v) {
		free(f);
		return err_set(err, ENOMEM, "out of memory");
	}
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	f->store = s;
	f->since = since_ns;
	f->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	f->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	for (size_t i = 0; i < n && r >= 0; i++) {
		struct one *o = &f->v[f->n];
		cleanup_free char *logs = NULL;

		*o = (struct one){of[i].name, of[i].shown};
		o->color = colored ? colors[i % ARRAY_SIZE(colors)] : "";
		r = o->dir = sandbox_dir_open(s, o->name, err);
		if (r >= 0)
			r = log_reader_new(&o->log, o->dir, "exec.log", err);
		if (r < 0) {
			close_fd(o->dir);
			break;
		}
		f->n++;
		f->width = MAX(f->width, strlen(o->shown));
		/* Without notices it is looked at each time that we wake up. */
		logs = str_fmt("/proc/self/fd/%d/" SANDBOX_LOGS, o->dir);
		if (f->notify >= 0 && logs)
			(void)inotify_add_watch(f->notify, logs, IN_MODIFY | IN_CREATE);
	}
	if (r < 0) {
		follow_free(f);
		return r;
	}
	*ret = f;
	return 0;
}

int follow_run(struct follow *f)
{
	struct pollfd p[] = {{.fd = f->notify, .events = POLLIN},
			     {.fd = f->signals, .events = POLLIN},
			     {.fd = STDOUT_FILENO}};
	char events[4096];

	while (look(f)) {
		struct signalfd_siginfo si;

		for (size_t i = 0; i < f->n; i++)
			read_log(f, &f->v[i]);
		(void)fflush(stdout);
		(void)poll(p, ARRAY_SIZE(p), ALIVE_MS);
		while (f->notify >= 0 && read(f->notify, events, sizeof(events)) > 0)
			;
		if (f->signals >= 0 && read(f->signals, &si, sizeof(si)) == (ssize_t)sizeof(si))
			return EXIT_SIGNAL + (int)si.ssi_signo;
		/* Nobody reads it any more. */
		if (p[2].revents & (POLLERR | POLLHUP) || ferror(stdout))
			return EXIT_SIGNAL + SIGPIPE;
	}
	return f->code;
}

struct follow *follow_free(struct follow *f)
{
	if (!f)
		return NULL;
	for (size_t i = 0; i < f->n; i++) {
		struct one *o = &f->v[i];

		if (!o->ended) {
			read_log(f, o);
			end_session(f, o, 0);
		}
		for (size_t j = 0; j < o->nlines; j++)
			buf_done(&o->lines[j].text);
		log_reader_free(o->log);
		close_fd(o->dir);
	}
	(void)fflush(stdout);
	close_fd(f->notify);
	close_fd(f->signals);
	free(f->v);
	free(f);
	return NULL;
}
