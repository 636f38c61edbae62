/* SPDX-License-Identifier: Apache-2.0 */
/* msb logs: what commands in a sandbox have printed. */
#include <errno.h>
#include <poll.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "sandbox/log_reader.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/spec.h"
#include "store/store.h"

enum {
	/* Lines that have begun: of so many sessions and streams at once, and so long. */
	PARTIALS_MAX = 64,
	PARTIAL_BYTES = 256 << 10,
	/* How often a quiet sandbox is asked whether it still runs; twice no is no. */
	ALIVE_MS = 500,
	NETWORK = 1 << LOG_NETWORK,
	/* The last lines are looked for in so much, and in so many times that if they are more. */
	TAIL_BYTES = 256 << 10,
	TAIL_FACTOR = 8,
	/* What was left unfinished so many lines before those is too old to be one of them. */
	STALE_LINES = 1000,
};

struct logs_args {
	bool follow, timestamps, json, no_color, show_id, color_sessions, has_tail, has_grep;
	bool has_since, has_until;
	uint64_t tail;
	unsigned sources; /* by bit; 0: what commands printed */
	int64_t since, until;
	regex_t grep;
	const char *color, *file;
};

static int set_tail(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct logs_args *a = target;

	(void)o;
	if (str_to_u64(value, UINT32_MAX, &a->tail) < 0)
		return err_set(err, ERR_USAGE, "\"%s\" is no number of lines", value);
	a->has_tail = true;
	return 0;
}

static int set_time(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct logs_args *a = target;

	*(o->number ? &a->has_until : &a->has_since) = true;
	return cli_past_time(value, o->number ? &a->until : &a->since, err);
}

static int set_source(const struct opt *o, void *target, const char *value, struct err *err)
{
	static const char *const names[] = {"stdout", "stderr",	 "output",
					    "system", "network", "all"};
	struct logs_args *a = target;
	cleanup_free char *copy = strdup(value);
	char *rest = NULL, *word;

	(void)o;
	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	for (word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
		size_t i = 0;

		while (i < ARRAY_SIZE(names) && !str_eq(names[i], word))
			i++;
		if (i == ARRAY_SIZE(names))
			return opt_no_word("source", word, names, ARRAY_SIZE(names), err);
		a->sources |= str_eq(word, "all") ? NETWORK - 1 : 1u << i;
	}
	/* They are in a log of their own. */
	if (a->sources & NETWORK && a->sources != NETWORK) {
		err_set(err, ERR_USAGE, "connections cannot be shown among what commands printed");
		return err_hint(err, "--source network shows them alone");
	}
	return 0;
}

static int set_grep(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct logs_args *a = target;
	char why[128];
	int r;

	(void)o;
	if (a->has_grep)
		regfree(&a->grep);
	r = regcomp(&a->grep, value, REG_EXTENDED | REG_NOSUB);
	a->has_grep = r == 0;
	if (r == 0)
		return 0;
	regerror(r, &a->grep, why, sizeof(why));
	return err_set(err, ERR_USAGE, "\"%s\" is no regular expression: %s", value, why);
}

static int set_color(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)o;
	if (!str_eq(value, "auto") && !str_eq(value, "always") && !str_eq(value, "never")) {
		err_set(err, ERR_USAGE, "\"%s\" does not say when to use colours", value);
		return err_hint(err, "it is auto, always or never");
	}
	((struct logs_args *)target)->color = value;
	return 0;
}

#define ARGS(field) offsetof(struct logs_args, field)

static const struct opt logs_opts[] = {
	PROJECT_FILE_OPT(0, offsetof(struct logs_args, file)),
	{'n', "tail", "N", "Only the last N lines", set_tail, 0, 0},
	{0, "since", "TIME", "Only what is younger, as 2h30m (ago) or 2026-01-31T12:00 (here)",
	 set_time, 0, 0},
	{0, "until", "TIME", "Only what is older", set_time, 0, 1},
	{'f', "follow", NULL, "Go on with what comes, until the sandbox has ended", opt_set_flag,
	 ARGS(follow), 0},
	{0, "timestamps", NULL, "Put the time before each line", opt_set_flag, ARGS(timestamps), 0},
	{0, "source", "SOURCE,…",
	 "stdout, stderr, output (of terminals), system (what became of commands and machine) or "
	 "all of these; or network (connections) [stdout,stderr,output]",
	 set_source, 0, 0},
	{0, "grep", "REGEX", "Only lines that match, an extended regular expression", set_grep, 0,
	 0},
	{0, "json", NULL, "The entries as they are stored, one a line", opt_set_flag, ARGS(json),
	 0},
	{0, "color", "auto|always|never", "Tell sources apart by colour [auto]", set_color, 0, 0},
	{0, "no-color", NULL, "The same as --color never", opt_set_flag, ARGS(no_color), 0},
	{0, "show-id", NULL, "Put the session's number before each line", opt_set_flag,
	 ARGS(show_id), 0},
	{0, "color-sessions", NULL, "The same in a colour of the session's", opt_set_flag,
	 ARGS(color_sessions), 0},
};

/*
 * A line, or the beginning of one. It is unsure where we did not begin at the log's beginning, as
 * long as there may be more of it, or of another that belongs before it, in front of what was read.
 */
struct line {
	struct buf text;
	int64_t ns;
	enum log_source source;
	uint32_t id;
	bool unsure;
	uint64_t at, at_unsure; /* what view's `taken` and `unsure` were with its last bytes */
};

struct view {
	const struct logs_args *args;
	bool lines, color, midline; /* by lines; in colour; the last byte shown was no newline */
	struct line partial[PARTIALS_MAX];
	size_t partials;
	struct line *kept; /* a ring: the last lines, while only those are wanted */
	size_t first, nkept;
	bool keeping;
	uint64_t taken, unsure; /* lines, while keeping */
	uint32_t known;		/* sessions from this number on began in what was read */
	struct {
		uint32_t id;
		enum log_source source;
	} begun[PARTIALS_MAX]; /* older ones, of which a line has ended in it */
	size_t nbegun;
};

static bool matches(const struct logs_args *a, const void *p, size_t n)
{
	regmatch_t m = {.rm_so = 0, .rm_eo = (regoff_t)n};

	return !a->has_grep || regexec(&a->grep, n ? p : "", 1, &m, REG_STARTEND) == 0;
}

static void put_time(int64_t ns)
{
	time_t s = (time_t)(ns / 1000000000);
	char when[32] = "";
	struct tm tm;

	if (gmtime_r(&s, &tm))
		(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	printf("%s.%06dZ ", when, (int)(ns % 1000000000 / 1000));
}

static void put_prefix(const struct view *v, const struct line *l)
{
	/* Those that are read well on dark and on light: cyan, green, yellow, magenta, blue. */
	static const int colors[] = {36, 32, 33, 35, 34};

	if (v->args->timestamps)
		put_time(l->ns);
	if (!v->args->show_id && !v->args->color_sessions)
		return;
	if (v->color && v->args->color_sessions && l->id)
		printf("\033[%dm", colors[l->id % ARRAY_SIZE(colors)]);
	if (l->id)
		printf("[%u]", l->id);
	else
		fputs("[-]", stdout);
	if (v->color && v->args->color_sessions && l->id)
		fputs("\033[0m", stdout);
	putchar(' ');
}

/* Each entry is a line by itself? */
static bool is_line(enum log_source s)
{
	return s == LOG_SYSTEM || s == LOG_NETWORK;
}

static void put_text(struct view *v, enum log_source source, const void *p, size_t n)
{
	const char *color = source == LOG_STDERR ? "\033[31m" : "\033[2m";
	bool colored = v->color && (source == LOG_STDERR || is_line(source));

	if (!n)
		return;
	if (colored)
		fputs(color, stdout);
	fwrite(p, 1, n, stdout);
	if (colored)
		fputs("\033[0m", stdout);
	v->midline = ((const char *)p)[n - 1] != '\n';
}

static void show_line(struct view *v, const struct line *l)
{
	size_t n = buf_size(&l->text);

	if (v->args->json) {
		fwrite(buf_ptr(&l->text), 1, n, stdout);
		return;
	}
	if (v->midline)
		putchar('\n');
	put_prefix(v, l);
	put_text(v, l->source, buf_ptr(&l->text), n);
}

/* A line is complete. Its text is taken or dropped. */
static void take_line(struct view *v, struct line *l)
{
	size_t room = (size_t)v->args->tail;

	if (!v->keeping) {
		show_line(v, l);
		buf_done(&l->text);
		return;
	}
	*(l->unsure ? &v->unsure : &v->taken) += 1;
	if (v->nkept == room) {
		if (!room) {
			buf_done(&l->text);
			return;
		}
		buf_done(&v->kept[v->first].text);
		v->kept[v->first] = *l;
		v->first = (v->first + 1) % room;
	} else {
		/* Grown by doubling: it is still in order from 0. */
		if ((v->nkept & (v->nkept - 1)) == 0) {
			size_t want = MIN(v->nkept ? 2 * v->nkept : 1, room);
			struct line *p = reallocarray(v->kept, want, sizeof(*p));

			if (!p) {
				buf_done(&l->text);
				l->text = (struct buf)BUF_INIT;
				return;
			}
			v->kept = p;
		}
		v->kept[v->nkept++] = *l;
	}
	l->text = (struct buf)BUF_INIT;
}

static void finish_partial(struct view *v, size_t i)
{
	struct line *l = &v->partial[i];
	size_t n = buf_size(&l->text);
	const char *p = (const char *)buf_ptr(&l->text);

	if (n && (l->unsure || matches(v->args, p, n - (p[n - 1] == '\n'))))
		take_line(v, l);
	buf_done(&l->text);
	/* They stay in the order in which they were begun. */
	memmove(l, l + 1, (--v->partials - i) * sizeof(*l));
}

static bool is_stale(const struct view *v, uint64_t at)
{
	return v->keeping && v->taken - at >= v->args->tail + STALE_LINES;
}

/* Not a newline ended it. */
static void cut_partial(struct view *v, size_t i)
{
	struct line *l = &v->partial[i];

	if (is_stale(v, l->at))
		buf_reset(&l->text);
	else
		l->unsure |= v->keeping && v->unsure != l->at_unsure;
	finish_partial(v, i);
}

/* Is there nothing in front of what was read that a line of this source could go on with? */
static bool is_known(const struct view *v, uint32_t id, enum log_source source)
{
	size_t i = 0;

	while (i < v->nbegun && (v->begun[i].id != id || v->begun[i].source != source))
		i++;
	return id >= v->known || i < v->nbegun || is_line(source);
}

static void now_known(struct view *v, uint32_t id, enum log_source source)
{
	if (is_known(v, id, source) || v->nbegun == PARTIALS_MAX)
		return;
	v->begun[v->nbegun].id = id;
	v->begun[v->nbegun++].source = source;
}

/* The line that bytes of this entry go on with. */
static size_t find_partial(struct view *v, const struct log_entry *e)
{
	size_t i = 0;

	while (i < v->partials && (v->partial[i].id != e->id || v->partial[i].source != e->source))
		i++;
	if (i < v->partials)
		return i;
	if (i == PARTIALS_MAX) {
		finish_partial(v, 0);
		i--;
	}
	v->partial[i] = (struct line){
		.source = e->source,
		.id = e->id,
		.unsure = v->keeping && !is_known(v, e->id, e->source),
	};
	v->partials = i + 1;
	return i;
}

static void add_lines(struct view *v, const struct log_entry *e)
{
	const char *p = e->data, *end = p + e->n;

	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = nl ? (size_t)(nl + 1 - p) : (size_t)(end - p), i = find_partial(v, e);
		struct line *l = &v->partial[i];

		if (!buf_size(&l->text))
			l->ns = e->ns;
		buf_add(&l->text, p, n);
		l->at = v->taken;
		l->at_unsure = v->unsure;
		if (nl)
			now_known(v, e->id, e->source);
		/* Events come without the end of their line. */
		if (!nl && is_line(e->source))
			buf_add_u8(&l->text, '\n');
		if (nl || is_line(e->source) || buf_size(&l->text) > PARTIAL_BYTES)
			finish_partial(v, i);
		p += n;
	}
}

/* The end of a session, or of all: what they had begun to say is all of it. */
static void finish_ended(struct view *v, const struct log_entry *e)
{
	static const char asked[] = "asked to run ";
	bool begins = e->n >= strlen(asked) && memcmp(e->data, asked, strlen(asked)) == 0;

	for (size_t i = 0; i < v->partials;) {
		if (!e->id || v->partial[i].id == e->id)
			cut_partial(v, i);
		else
			i++;
	}
	if (e->id && begins)
		v->known = MIN(v->known, e->id);
	/* What an older one had begun to say in front of what was read. */
	if (v->keeping && !v->args->json && e->id < v->known && !is_stale(v, 0)) {
		struct line l = {.id = e->id, .unsure = true};

		take_line(v, &l);
	}
	if (!e->id)
		v->known = 0;
}

static void show_entry(struct view *v, const struct log_entry *e)
{
	const struct logs_args *a = v->args;
	unsigned sources = a->sources ? a->sources : ~(1u << LOG_SYSTEM);

	if (e->source == LOG_SYSTEM)
		finish_ended(v, e);
	if (!(sources & 1u << e->source) || (a->has_since && e->ns < a->since) ||
	    (a->has_until && e->ns > a->until))
		return;
	if (a->json) {
		struct line l = {.ns = e->ns};

		if (!matches(a, e->data, e->n))
			return;
		buf_add(&l.text, e->line, e->line_n);
		buf_add_u8(&l.text, '\n');
		take_line(v, &l);
		buf_done(&l.text);
	} else if (v->lines) {
		add_lines(v, e);
	} else {
		if (is_line(e->source) && v->midline)
			putchar('\n');
		put_text(v, e->source, e->data, e->n);
		if (is_line(e->source))
			put_text(v, e->source, "\n", 1);
	}
}

static void forget(struct view *v)
{
	for (size_t i = 0; i < v->nkept; i++)
		buf_done(&v->kept[i].text);
	while (v->partials)
		buf_done(&v->partial[--v->partials].text);
	v->nkept = v->first = v->nbegun = 0;
	v->taken = v->unsure = 0;
}

/* Are those that were kept the last lines of the log? */
static bool is_sure(const struct view *v)
{
	bool sure = v->nkept == v->args->tail && is_stale(v, 0);

	for (size_t i = 0; i < v->nkept && sure; i++)
		sure = !v->kept[i].unsure;
	for (size_t i = 0; i < v->partials && sure; i++)
		sure = !v->partial[i].unsure;
	return sure;
}

/* The end of what was there. */
static void show_kept(struct view *v)
{
	for (size_t i = 0; i < v->nkept; i++) {
		struct line *l = &v->kept[(v->first + i) % v->nkept];

		show_line(v, l);
		buf_done(&l->text);
	}
	v->nkept = 0;
	v->keeping = false;
}

static void show_new(struct view *v, struct log_reader *r)
{
	struct log_entry e;
	int got;

	while ((got = log_reader_next(r, &e)) == 1 || got == -ENODATA) {
		if (got == 1)
			show_entry(v, &e);
		else
			cli_warn("the log was written faster than it could be read: some is "
				 "missing");
	}
	if (got < 0)
		cli_warn("cannot read the log: %s", err_name(got));
}

/* Of the lines that there are, the last. Lines of other sessions may be anywhere in one. */
static void keep_last(struct view *v, struct log_reader *r)
{
	uint64_t bytes = TAIL_BYTES;
	bool whole;

	do {
		forget(v);
		whole = log_reader_back(r, bytes) == 1;
		v->known = whole ? 0 : UINT32_MAX;
		show_new(v, r);
		/* A line that has only begun may go on; unless that was too long ago. */
		for (size_t i = v->partials; i-- > 0;) {
			if (is_stale(v, v->partial[i].at))
				cut_partial(v, i);
		}
		while (!v->args->follow && v->partials)
			cut_partial(v, 0);
		bytes *= TAIL_FACTOR;
	} while (!whole && !is_sure(v));
	show_kept(v);
}

static bool is_running(struct store *store, const char *name)
{
	cleanup_sandbox_list struct sandbox_list l = {0};

	return sandbox_dir_list(store, name, &l, NULL) == 0 && l.items[0].running;
}

static int64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Until the sandbox has ended, or our reader has gone. */
static void follow(struct view *v, struct log_reader *r, struct store *store, const char *name,
		   int dir)
{
	cleanup_close int notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	cleanup_free char *logs = str_fmt("/proc/self/fd/%d/" SANDBOX_LOGS, dir);
	struct pollfd p[] = {{.fd = notify, .events = POLLIN}, {.fd = STDOUT_FILENO}};
	char events[4096];
	int gone = 0;

	/* Without notices it is looked at each time that we wake up. */
	if (notify >= 0 && logs)
		(void)inotify_add_watch(notify, logs, IN_MODIFY | IN_CREATE);
	while (gone < 2 && !(v->args->has_until && wall_ns() > v->args->until)) {
		int n;

		fflush(stdout);
		n = poll(p, ARRAY_SIZE(p), ALIVE_MS);
		if (p[1].revents & (POLLERR | POLLHUP) || ferror(stdout))
			return;
		while (notify >= 0 && read(notify, events, sizeof(events)) > 0)
			;
		/* First whether it runs: what it said before its end is then there to be read. */
		if (n == 0)
			gone = is_running(store, name) ? 0 : gone + 1;
		show_new(v, r);
	}
}

static int show(struct store *store, const char *name, const struct logs_args *a, struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	struct view v = {.args = a, .keeping = a->has_tail};
	cleanup_close int dir = -1;
	struct log_reader *reader = NULL;
	int r = sandbox_name_check(name, err);

	if (r == 0)
		r = sandbox_dir_list(store, name, &l, err);
	if (r == 0)
		r = dir = sandbox_dir_open(store, name, err);
	if (r >= 0)
		r = log_reader_new(&reader, dir, a->sources == NETWORK ? "network.log" : "exec.log",
				   err);
	if (r < 0)
		return r;
	v.color = !a->no_color &&
		  (!a->color ? *cli_bold(stdout) != '\0'
			     : str_eq(a->color, "always") ||
				       (str_eq(a->color, "auto") && *cli_bold(stdout)));
	v.lines = a->timestamps || a->show_id || a->color_sessions || a->has_grep || a->has_tail;
	if (v.keeping)
		keep_last(&v, reader);
	else
		show_new(&v, reader);
	if (a->follow)
		follow(&v, reader, store, name, dir);
	while (v.partials)
		finish_partial(&v, 0);
	free(v.kept);
	log_reader_free(reader);
	return 0;
}

static int logs(struct cli *cli, int argc, char **argv)
{
	struct logs_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free char *name = NULL;
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code))
		return code;
	r = store_open(&store, NULL, &err);
	if (r >= 0)
		r = cli_project_name(cli, store, a.file, words.words[0], &name, &err);
	if (r >= 0)
		r = show(store, name, &a, &err);
	if (a.has_grep)
		regfree(&a.grep);
	return r < 0 ? cli_fail(&err, EXIT_FAILURE) : cli_finish();
}

const struct verb verb_logs = {
	.name = "logs",
	.alias = "log",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME",
	.entries = true,
	.summary = "Show what commands in a sandbox printed",
	.details = "Everything any command of a sandbox prints is kept, the last 30 to 40 MiB of "
		   "it, byte\n"
		   "for byte. With -f, what comes is shown until the sandbox has ended.",
	.examples = "msb logs -f box\n"
		    "msb logs --since 10m --timestamps box\n"
		    "msb logs -n 100 --source stderr --grep 'error|fail' box",
	.opts = logs_opts,
	.nopts = ARRAY_SIZE(logs_opts),
	.run = logs,
};
