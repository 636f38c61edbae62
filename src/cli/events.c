/* SPDX-License-Identifier: Apache-2.0 */
/* msb events: what happens to sandboxes, as it happens. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "sandbox/events.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/spec.h"
#include "sandbox/state.h"
#include "store/store.h"

enum {
	BATCH = 256, /* events read at once; writers wait meanwhile */
	/* An owner that was killed tells nobody: somebody has to look. */
	HEAL_MS = 5000,
	BUSY_MS = 200, /* when the database was, look again so soon */
};

struct events_args {
	bool no_follow, has_since, has_until;
	int64_t since, until; /* nanoseconds */
	struct strv names, labels;
	unsigned states; /* by bit; 0: all */
};

/* Behind those of enum sandbox_state. */
#define REMOVED	    "removed"
#define REMOVED_BIT (1u << SANDBOX_STATES)

static int set_time(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct events_args *a = target;

	*(o->number ? &a->has_until : &a->has_since) = true;
	return cli_past_time(value, o->number ? &a->until : &a->since, err);
}

static int add_state(struct events_args *a, const char *word, struct err *err)
{
	const char *names[SANDBOX_STATES + 1] = {[SANDBOX_STATES] = REMOVED};
	enum sandbox_state s;

	if (str_eq(word, REMOVED)) {
		a->states |= REMOVED_BIT;
		return 0;
	}
	if (sandbox_state_parse(word, &s) == 0) {
		a->states |= 1u << s;
		return 0;
	}
	for (size_t i = 0; i < SANDBOX_STATES; i++)
		names[i] = sandbox_state_name((enum sandbox_state)i);
	return opt_no_word("state", word, names, ARRAY_SIZE(names), err);
}

static int add_filter(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct events_args *a = target;
	int r;

	(void)o;
	if (str_starts(value, "state="))
		return add_state(a, value + strlen("state="), err);
	if (str_starts(value, "name="))
		return strv_add(&a->names, value + strlen("name=")) < 0
			       ? err_set(err, ENOMEM, "out of memory")
			       : 0;
	if (!str_starts(value, "label=")) {
		err_set(err, ERR_USAGE, "\"%s\" is no filter", value);
		return err_hint(err, "write name=NAME, label=KEY[=VALUE] or state=STATE");
	}
	value += strlen("label=");
	r = sandbox_label_parse(value, NULL, err);
	if (r == 0 && strv_add(&a->labels, value) < 0)
		r = err_set(err, ENOMEM, "out of memory");
	return r;
}

static const struct opt events_opts[] = {
	{0, "since", "TIME", "From then on, as 2h30m (ago) or 2026-01-31T12:00 (here)", set_time, 0,
	 0, "now"},
	{0, "until", "TIME", "Until then, and not for ever", set_time, 0, 1},
	{0, "filter", "name=NAME|label=KEY[=VALUE]|state=STATE",
	 "Only those (of one kind repeated: any of them, of labels: all)", add_filter, 0, 0},
	{0, "no-follow", NULL, "Only what has happened, all that is kept unless --since says less",
	 opt_set_flag, offsetof(struct events_args, no_follow), 0},
};

static bool has_labels(const struct events_args *a, const json_t *labels)
{
	for (size_t i = 0; i < a->labels.n; i++) {
		const char *text = a->labels.v[i], *eq = strchr(text, '=');
		cleanup_free char *key = eq ? strndup(text, (size_t)(eq - text)) : strdup(text);
		const char *value = key ? json_string_value(json_object_get(labels, key)) : NULL;

		if (!value || (eq && !str_eq(value, eq + 1)))
			return false;
	}
	return true;
}

static bool wanted(const struct events_args *a, const struct sandbox_event *e, const json_t *labels)
{
	enum sandbox_state s;

	if ((a->names.n && !strv_has(&a->names, e->sandbox)) || !has_labels(a, labels))
		return false;
	if (!a->states)
		return true;
	if (str_eq(e->new, REMOVED))
		return a->states & REMOVED_BIT;
	return sandbox_state_parse(e->new, &s) == 0 && a->states & 1u << s;
}

static int print_event(const struct events_args *a, const struct sandbox_event *e, struct err *err)
{
	json_t *labels = json_loads(e->labels, 0, NULL), *o = NULL;
	char at[32];
	int r = 0;

	if (!json_is_object(labels)) {
		json_decref(labels);
		labels = json_object();
	}
	if (wanted(a, e, labels)) {
		o = json_pack("{s:I,s:s,s:s,s:s,s:s,s:s,s:o?,s:O}", "seq", (json_int_t)e->seq, "at",
			      cli_time(e->at, at), "sandbox", e->sandbox, "old", e->old, "new",
			      e->new, "reason", e->reason, "exit_code",
			      e->exit_code < 0 ? NULL : json_integer(e->exit_code), "labels",
			      labels);
		if (!o || json_dumpf(o, stdout, JSON_COMPACT) < 0)
			r = err_set(err, EIO, "cannot print event %lld", (long long)e->seq);
		else
			putchar('\n');
	}
	json_decref(o);
	json_decref(labels);
	return r;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* All that came after *seq. 1: what is wanted has ended. */
static int show_new(struct store *store, const struct events_args *a, int64_t *seq, struct err *err)
{
	for (;;) {
		cleanup_events struct sandbox_events l = {0};
		int r = sandbox_events_read(store, *seq, BATCH, &l, err);

		if (r < 0)
			return r;
		/* Somebody who reads slowly should know what that cost. */
		if (*seq > 0 && l.first > *seq + 1)
			cli_warn("%lld events were gone before they could be shown",
				 (long long)(l.first - *seq - 1));
		for (size_t i = 0; i < l.n && r == 0; i++) {
			const struct sandbox_event *e = &l.v[i];

			*seq = e->seq;
			/* Events have seconds. */
			if (a->has_until && e->at > a->until / 1000000000)
				return 1;
			if (!a->has_since || e->at >= a->since / 1000000000)
				r = print_event(a, e, err);
		}
		fflush(stdout);
		if (r < 0 || ferror(stdout))
			return r < 0 ? r : 1;
		if (l.n < BATCH)
			return 0;
	}
}

/* Until nobody reads us, or the time has come. */
static int follow(struct store *store, const struct events_args *a, int watch, int64_t *seq,
		  struct err *err)
{
	struct pollfd p[] = {{.fd = watch, .events = POLLIN}, {.fd = STDOUT_FILENO}};

	for (int wait = HEAL_MS, n, r;;) {
		int64_t left = a->has_until ? a->until - now_ns() : INT64_MAX;

		if (left <= 0)
			return 0;
		n = poll(p, ARRAY_SIZE(p), (int)MIN((int64_t)wait, left / 1000000 + 1));
		if (p[1].revents & (POLLERR | POLLHUP))
			return 0;
		if (n == 0)
			sandbox_dir_heal(store, false);
		r = sandbox_events_noticed(watch, err);
		if (r == 0)
			r = show_new(store, a, seq, err);
		wait = r == -EBUSY ? BUSY_MS : HEAL_MS;
		if (r == -EBUSY)
			err_clear(err);
		else if (r != 0)
			return MIN(r, 0);
	}
}

static int events_in(struct store *store, const struct events_args *a, struct err *err)
{
	cleanup_close int watch = -1;
	int64_t seq = 0;
	int r = 0;

	sandbox_dir_heal(store, true);
	if (!a->no_follow)
		r = watch = sandbox_events_watch(store, err);
	if (r >= 0 && !a->no_follow && !a->has_since)
		r = sandbox_events_last(store, &seq, err);
	if (r >= 0)
		r = show_new(store, a, &seq, err);
	return r == 0 && !a->no_follow ? follow(store, a, watch, &seq, err) : MIN(r, 0);
}

static int events(struct cli *cli, int argc, char **argv)
{
	struct events_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;
	int code, r = 0;

	if (cli_parse_operands(cli, &a, argc, argv, 0, SIZE_MAX, &words, &code))
		return code;
	for (size_t i = 0; i < words.n && r == 0; i++) {
		r = sandbox_name_check(words.words[i], &err);
		if (r == 0 && strv_add(&a.names, words.words[i]) < 0)
			r = err_set(&err, ENOMEM, "out of memory");
	}
	if (r == 0)
		r = store_open(&store, NULL, &err);
	if (r == 0)
		r = events_in(store, &a, &err);
	strv_done(&a.names);
	strv_done(&a.labels);
	return r < 0 ? cli_fail(&err, EXIT_FAILURE) : cli_finish();
}

const struct verb verb_events = {
	.name = "events",
	.group = "Sandboxes",
	.args = "[OPTIONS] [NAME…]",
	.summary = "Follow what happens to sandboxes, as lines of JSON",
	.details = "Each change of a state is one line, from now on or from --since, until Ctrl-C "
		   "or --until.\n"
		   "The last 10,000 are kept, those of sandboxes that are gone among them; a slow "
		   "reader\n"
		   "misses nothing as long as it is kept. A sandbox whose owner was killed is "
		   "noticed within\n"
		   "five seconds. The fields are in docs/json.md.",
	.examples = "msb events  # what happens from now on\n"
		    "msb events --since 1h --no-follow\n"
		    "msb events --filter label=team=core --filter state=crashed",
	.opts = events_opts,
	.nopts = ARRAY_SIZE(events_opts),
	.run = events,
};
