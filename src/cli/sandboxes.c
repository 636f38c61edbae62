/* SPDX-License-Identifier: Apache-2.0 */
/* msb ls, stop, rm: the sandboxes there are. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"

static const char *status(const struct sandbox_entry *e)
{
	return e->running ? "running" : "stopped";
}

struct ls_args {
	bool json, quiet, running, stopped;
};

static const struct opt ls_opts[] = {
	{0, "running", NULL, "Only those that run", opt_set_flag, offsetof(struct ls_args, running),
	 0},
	{0, "stopped", NULL, "Only those that do not", opt_set_flag,
	 offsetof(struct ls_args, stopped), 0},
	{0, "format", "json|table", "How to show them [table]", opt_set_format,
	 offsetof(struct ls_args, json), 0},
	{'q', "quiet", NULL, "Only names", opt_set_flag, offsetof(struct ls_args, quiet), 0},
};

static void ls_json(const struct sandbox_list *l, json_t *out)
{
	for (size_t i = 0; i < l->count; i++) {
		const struct sandbox_record *r = l->items[i].record;
		char created[32];

		json_array_append_new(out, json_pack("{s:s,s:s,s:s,s:s}", "name", r->name, "status",
						     status(&l->items[i]), "created_at",
						     cli_time(r->created_at, created), "image",
						     r->image));
	}
}

static void ls_table(const struct sandbox_list *l)
{
	enum { COLUMNS = 4 };
	cleanup_free const char **cells = calloc((l->count + 1) * COLUMNS, sizeof(*cells));
	cleanup_free char(*ages)[32] = calloc(l->count + 1, sizeof(*ages));
	size_t n = 0;

	if (!cells || !ages)
		return;
	cells[n++] = "NAME";
	cells[n++] = "IMAGE";
	cells[n++] = "STATUS";
	cells[n++] = "CREATED";
	for (size_t i = 0; i < l->count; i++) {
		const struct sandbox_record *r = l->items[i].record;

		cells[n++] = r->name;
		cells[n++] = r->image;
		cells[n++] = status(&l->items[i]);
		cells[n++] = cli_age(r->created_at, ages[i]);
	}
	cli_table(cells, COLUMNS, l->count + 1);
}

static int ls(struct cli *cli, int argc, char **argv)
{
	struct ls_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_sandbox_list struct sandbox_list l = {0};
	struct err err = ERR_INIT;
	size_t kept = 0;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	if (store_open(&store, NULL, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	sandbox_dir_heal(store, true);
	if (sandbox_dir_list(store, NULL, &l, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	for (size_t i = 0; i < l.count; i++) {
		bool keep = l.items[i].running ? !a.stopped || a.running : !a.running || a.stopped;
		struct sandbox_entry e = l.items[i];

		if (!keep)
			continue;
		/* Swapped, not copied: all of them are freed later. */
		l.items[i] = l.items[kept];
		l.items[kept++] = e;
	}
	struct sandbox_list shown = {l.items, kept};

	if (a.json) {
		json_t *out = json_array();

		ls_json(&shown, out);
		return cli_json(out);
	}
	if (a.quiet) {
		for (size_t i = 0; i < kept; i++)
			puts(shown.items[i].record->name);
	} else {
		ls_table(&shown);
	}
	return cli_finish();
}

const struct verb verb_ls = {
	.name = "list",
	.alias = "ls",
	.group = "Sandboxes",
	.args = "[OPTIONS]",
	.summary = "List the sandboxes",
	.opts = ls_opts,
	.nopts = ARRAY_SIZE(ls_opts),
	.run = ls,
};

struct end_args {
	bool force, quiet;
	uint64_t timeout_ms;
};

static int set_seconds(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct end_args *a = target;
	uint64_t ns;
	int r = str_to_duration(value, "timeout", &ns, err);

	(void)o;
	if (r < 0)
		return r;
	a->timeout_ms = MIN(ns / 1000000, (uint64_t)INT32_MAX);
	return 0;
}

static const struct opt stop_opts[] = {
	{'f', "force", NULL, "At once, without the guest's own shutdown", opt_set_flag,
	 offsetof(struct end_args, force), 0},
	{'t', "timeout", "SECONDS", "How long to wait before using force [10]", set_seconds, 0, 0},
	{'q', "quiet", NULL, "Do not print names", opt_set_flag, offsetof(struct end_args, quiet),
	 0},
};

static const struct opt rm_opts[] = {
	{'f', "force", NULL, "Stop those that run", opt_set_flag, offsetof(struct end_args, force),
	 0},
	{'q', "quiet", NULL, "Do not print names", opt_set_flag, offsetof(struct end_args, quiet),
	 0},
};

/* stop and rm: the same for each name; one that fails does not keep the others from it. */
static int end_each(struct cli *cli, int argc, char **argv, bool remove)
{
	struct end_args a = {.timeout_ms = SANDBOX_STOP_TIMEOUT_MS};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;
	int code, failed = 0;

	if (cli_parse_operands(cli, &a, argc, argv, 1, SIZE_MAX, &words, &code))
		return code;
	if (store_open(&store, NULL, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	sandbox_dir_heal(store, true);
	for (size_t i = 0; i < words.n; i++) {
		const char *name = words.words[i];
		int r;

		err_clear(&err);
		if (remove)
			r = sandbox_remove(store, name, a.force, &err);
		else
			r = sandbox_stop(store, name, a.force, (int)a.timeout_ms, &err);
		if (r == -ETIMEDOUT) {
			cli_warn("%s", err.msg);
		} else if (r < 0) {
			cli_error(&err);
			failed = EXIT_FAILURE;
			continue;
		}
		if (!a.quiet)
			puts(name);
	}
	code = cli_finish();
	return failed ? failed : code;
}

static int stop(struct cli *cli, int argc, char **argv)
{
	return end_each(cli, argc, argv, false);
}

static int rm(struct cli *cli, int argc, char **argv)
{
	return end_each(cli, argc, argv, true);
}

const struct verb verb_stop = {
	.name = "stop",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.summary = "Stop sandboxes that run",
	.opts = stop_opts,
	.nopts = ARRAY_SIZE(stop_opts),
	.run = stop,
};

const struct verb verb_rm = {
	.name = "remove",
	.alias = "rm",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME…",
	.summary = "Delete sandboxes and what was written in them",
	.opts = rm_opts,
	.nopts = ARRAY_SIZE(rm_opts),
	.run = rm,
};
