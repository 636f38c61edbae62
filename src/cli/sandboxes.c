/* SPDX-License-Identifier: Apache-2.0 */
/* msb ls, ps: the sandboxes there are. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "project/home.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/state.h"
#include "store/store.h"

/* What there is to tell; each adds one cell, or one value. */
enum column { NAME, IMAGE, STATUS, CREATED, COMMAND, CPUS, MEMORY, PORTS, LABELS, REASON, COLUMNS };

static const struct {
	const char *name, *heading;
} columns[COLUMNS] = {
	[NAME] = {"name", "NAME"},	    [IMAGE] = {"image", "IMAGE"},
	[STATUS] = {"status", "STATUS"},    [CREATED] = {"created", "CREATED"},
	[COMMAND] = {"command", "COMMAND"}, [CPUS] = {"cpus", "CPUS"},
	[MEMORY] = {"memory", "MEM"},	    [PORTS] = {"ports", "PORTS"},
	[LABELS] = {"labels", "LABELS"},    [REASON] = {"reason", "REASON"},
};
enum { COMMAND_SHOWN = 40 }; /* characters */
static const enum column ls_columns[] = {NAME, IMAGE, STATUS, CREATED};
static const enum column ps_columns[] = {NAME, IMAGE, COMMAND, CPUS, MEMORY, STATUS, PORTS};

struct list_args {
	bool json, quiet, running, stopped, all;
	struct strv labels;
	enum column show[COLUMNS];
	size_t nshow; /* 0: the verb's own */
	const char *file;
};

static int set_format(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct list_args *a = target;
	cleanup_free char *words = strdup(value);
	char *save = NULL;

	(void)o;
	if (!words)
		return err_set(err, ENOMEM, "out of memory");
	a->json = str_eq(value, "json");
	a->nshow = 0;
	if (a->json || str_eq(value, "table"))
		return 0;
	for (char *w = strtok_r(words, ", ", &save); w; w = strtok_r(NULL, ", ", &save)) {
		const char *names[COLUMNS + 2] = {[COLUMNS] = "json", "table"};
		size_t found = COLUMNS;

		for (size_t i = 0; i < COLUMNS; i++) {
			names[i] = columns[i].name;
			if (str_eq(names[i], w))
				found = i;
		}
		if (found == COLUMNS)
			return opt_no_word("format or column", w, names, ARRAY_SIZE(names), err);
		if (a->nshow == COLUMNS)
			return err_set(err, ERR_USAGE, "more columns than there are");
		a->show[a->nshow++] = (enum column)found;
	}
	return a->nshow ? 0 : err_set(err, ERR_USAGE, "a format of no columns shows nothing");
}

static int add_label(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct list_args *a = target;
	int r = sandbox_label_parse(value, NULL, err);

	(void)o;
	if (r == 0 && strv_add(&a->labels, value) < 0)
		r = err_set(err, ENOMEM, "out of memory");
	return r;
}

#define ARGS(field) offsetof(struct list_args, field)

/* What both verbs have. */
static const struct opt list_rows[] = {
	{0, "label", "KEY[=VALUE]", "Only those with this label (repeated: with all of them)",
	 add_label, 0, 0},
	{0, "format", "table|json|COLUMN,…", "How to show them [table]", set_format, 0, 0},
	{'q', "quiet", NULL, "Only names", opt_set_flag, ARGS(quiet), 0},
	{'f', "file", "FILE|DIR", "The entries of this project's file instead", opt_set_text,
	 ARGS(file), 0},
};
static const struct opt_set list_opts = {list_rows, ARRAY_SIZE(list_rows)};

static const struct opt ls_opts[] = {
	{0, "running", NULL, "Only those that run", opt_set_flag, ARGS(running), 0},
	{0, "stopped", NULL, "Only those that do not", opt_set_flag, ARGS(stopped), 0},
};

static const struct opt ps_opts[] = {
	{'a', "all", NULL, "Those that do not run as well", opt_set_flag, ARGS(all), 0},
};

static const char *status(const struct sandbox_entry *e)
{
	return sandbox_state_name(e->status.state);
}

/* Words of a command, or labels, in one line. */
static void join(const struct strv *list, const char *between, struct buf *b)
{
	for (size_t i = 0; i < list->n; i++)
		buf_addf(b, "%s%s", i ? between : "", list->v[i]);
}

/* Enough to know it again; JSON has all of it. */
static void add_command(const struct strv *argv, struct buf *b)
{
	cleanup_buf struct buf whole = BUF_INIT;
	size_t chars = 0, cut = 0, n;
	char *p;

	join(argv, " ", &whole);
	buf_add_u8(&whole, 0);
	if (buf_failed(&whole))
		return;
	p = (char *)buf_ptr(&whole);
	for (n = 0; p[n]; n++) {
		if (((unsigned char)p[n] & 0xc0) != 0x80 && ++chars == COMMAND_SHOWN)
			cut = n;
	}
	buf_add(b, p, chars > COMMAND_SHOWN ? cut : n);
	if (chars > COMMAND_SHOWN)
		buf_add_str(b, "…");
}

/* Where it can be reached; nothing for one that does not run. */
static void read_ports(struct store *store, const struct sandbox_entry *e,
		       struct sandbox_machine *ret)
{
	cleanup_close int dir = -1;

	if (!e->running || !e->record->spec.ports.n)
		return;
	dir = sandbox_dir_open(store, e->record->name, NULL);
	if (dir >= 0)
		(void)record_machine_read(dir, ret, NULL);
}

static void add_cell(struct store *store, enum column c, const struct sandbox_entry *e,
		     struct buf *b)
{
	cleanup_machine struct sandbox_machine machine = {0};
	const struct sandbox_record *r = e->record;
	const struct sandbox_spec *spec = &r->spec;
	char text[32];

	switch (c) {
	case NAME:
		buf_addf(b, "%s", r->name);
		break;
	case IMAGE:
		buf_addf(b, "%s", r->image);
		break;
	case STATUS:
		buf_addf(b, "%s", status(e));
		break;
	case CREATED:
		buf_addf(b, "%s", cli_age(r->created_at, text));
		break;
	case COMMAND:
		add_command(&r->main.argv, b);
		break;
	case CPUS:
	case MEMORY:
		if (e->unreadable) {
			buf_addf(b, "?");
			break;
		}
		if (c == CPUS) {
			buf_addf(b, "%u/%u", spec->cpus, MAX(spec->cpus, spec->max_cpus));
			break;
		}
		buf_addf(b, "%s/", str_size(spec->memory, text));
		buf_addf(b, "%s", str_size(MAX(spec->memory, spec->max_memory), text));
		break;
	case PORTS:
		read_ports(store, e, &machine);
		join(&machine.ports, ", ", b);
		break;
	case LABELS:
		join(&spec->labels, ",", b);
		break;
	case REASON:
		buf_addf(b, "%s", e->status.reason);
		break;
	default:
		break;
	}
	buf_add_u8(b, 0);
}

static int print_table(struct store *store, const struct sandbox_list *l, const enum column *show,
		       size_t n)
{
	cleanup_free const char **cells = calloc((l->count + 1) * n, sizeof(*cells));
	cleanup_buf struct buf text = BUF_INIT;
	const char *at;
	size_t k = 0;

	for (size_t i = 0; i < l->count; i++) {
		for (size_t j = 0; j < n; j++)
			add_cell(store, show[j], &l->items[i], &text);
	}
	if (!cells || buf_failed(&text))
		return -ENOMEM;
	for (size_t j = 0; j < n; j++)
		cells[k++] = columns[show[j]].heading;
	at = (const char *)buf_ptr(&text);
	for (; k < (l->count + 1) * n; at += strlen(at) + 1)
		cells[k++] = at;
	cli_table(cells, n, l->count + 1);
	return 0;
}

static json_t *labels_json(const struct strv *labels)
{
	json_t *o = json_object();

	for (size_t i = 0; i < labels->n; i++) {
		const char *text = labels->v[i], *eq = strchr(text, '=');
		cleanup_free char *key = eq ? strndup(text, (size_t)(eq - text)) : NULL;

		if (key)
			json_object_set_new(o, key, json_string(eq + 1));
	}
	return o;
}

static json_t *texts_json(const struct strv *list)
{
	json_t *o = json_array();

	for (size_t i = 0; i < list->n; i++)
		json_array_append_new(o, json_string(list->v[i]));
	return o;
}

static json_t *ls_json(const struct sandbox_entry *e)
{
	const struct sandbox_record *r = e->record;
	char created[32];

	return json_pack("{s:s,s:s,s:s,s:s,s:o}", "name", r->name, "status", status(e),
			 "created_at", cli_time(r->created_at, created), "image", r->image,
			 "labels", labels_json(&r->spec.labels));
}

static json_t *ps_json(struct store *store, const struct sandbox_entry *e)
{
	cleanup_machine struct sandbox_machine machine = {0};
	const struct sandbox_record *r = e->record;
	const struct sandbox_spec *spec = &r->spec;
	cleanup_buf struct buf command = BUF_INIT;

	join(&r->main.argv, " ", &command);
	buf_add_u8(&command, 0);
	read_ports(store, e, &machine);
	return json_pack("{s:s,s:s,s:s,s:s,s:i,s:i,s:I,s:I,s:o}", "name", r->name, "status",
			 status(e), "image", r->image, "command",
			 buf_failed(&command) ? "" : (const char *)buf_ptr(&command), "cpus",
			 spec->cpus, "max_cpus", MAX(spec->cpus, spec->max_cpus), "memory_mib",
			 (json_int_t)(spec->memory >> 20), "max_memory_mib",
			 (json_int_t)(MAX(spec->memory, spec->max_memory) >> 20), "ports",
			 texts_json(&machine.ports));
}

static int list(struct cli *cli, int argc, char **argv, bool ps)
{
	struct list_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_sandbox_list struct sandbox_list l = {0};
	cleanup_strv struct strv chosen = {0};
	struct err err = ERR_INIT;
	size_t kept = 0;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 0, ps ? SIZE_MAX : 0, &words, &code))
		return code;
	if (a.file)
		return ps ? cli_project_status(a.file, words.words, words.n, a.json)
			  : cli_project_list(a.file, a.json);
	if (words.n > 1) {
		err_set(&err, ERR_USAGE, "\"%s\" is too much", words.words[1]);
		return cli_fail(&err, EXIT_USAGE);
	}
	r = store_open(&store, NULL, &err);
	if (r == 0) {
		sandbox_dir_heal(store, true);
		r = sandbox_dir_list(store, words.n ? words.words[0] : NULL, &l, &err);
		if (r == 0 && project_heal(store, &l)) {
			sandbox_list_done(&l);
			r = sandbox_dir_list(store, words.n ? words.words[0] : NULL, &l, &err);
		}
	}
	if (r == 0 && a.labels.n)
		r = sandbox_state_select(store, &a.labels, &chosen, &err);
	if (r < 0) {
		strv_done(&a.labels);
		return cli_fail(&err, EXIT_FAILURE);
	}
	if (ps)
		a.running = !a.all && !words.n;
	for (size_t i = 0; i < l.count; i++) {
		struct sandbox_entry e = l.items[i];
		bool alive = sandbox_state_alive(e.status.state);
		bool keep = alive ? !a.stopped || a.running : !a.running || a.stopped;

		if (!keep || (a.labels.n && !strv_has(&chosen, e.record->name)))
			continue;
		/* Swapped, not copied: all of them are freed later. */
		l.items[i] = l.items[kept];
		l.items[kept++] = e;
	}
	strv_done(&a.labels);
	struct sandbox_list shown = {l.items, kept};

	if (a.json) {
		json_t *out = json_array();

		for (size_t i = 0; i < kept; i++)
			json_array_append_new(out, ps ? ps_json(store, &l.items[i])
						      : ls_json(&l.items[i]));
		return cli_json(out);
	}
	if (a.quiet) {
		for (size_t i = 0; i < kept; i++)
			puts(shown.items[i].record->name);
	} else if (a.nshow) {
		(void)print_table(store, &shown, a.show, a.nshow);
	} else if (ps) {
		(void)print_table(store, &shown, ps_columns, ARRAY_SIZE(ps_columns));
	} else {
		(void)print_table(store, &shown, ls_columns, ARRAY_SIZE(ls_columns));
	}
	return cli_finish();
}

static int ls(struct cli *cli, int argc, char **argv)
{
	return list(cli, argc, argv, false);
}

static int ps(struct cli *cli, int argc, char **argv)
{
	return list(cli, argc, argv, true);
}

const struct verb verb_ls = {
	.name = "list",
	.alias = "ls",
	.group = "Sandboxes",
	.args = "[OPTIONS]",
	.summary = "List the sandboxes",
	.details = "With -f, what a project's file describes, whether there is anything of it yet "
		   "or not.",
	.examples = "msb ls\n"
		    "msb ls --stopped -q\n"
		    "msb ls --format name,status,labels\n"
		    "msb ls --label team=core --format json",
	.opts = ls_opts,
	.nopts = ARRAY_SIZE(ls_opts),
	.shared = &list_opts,
	.run = ls,
};

const struct verb verb_ps = {
	.name = "status",
	.alias = "ps",
	.group = "Sandboxes",
	.args = "[OPTIONS] [NAME…]",
	.summary = "Show the sandboxes that run, and what they may use",
	.details = "With -f, those of a project, all or the entries named, and what became of "
		   "them.",
	.examples = "msb ps\n"
		    "msb ps -a\n"
		    "msb ps --format name,ports,reason",
	.opts = ps_opts,
	.nopts = ARRAY_SIZE(ps_opts),
	.shared = &list_opts,
	.run = ps,
};
