/* SPDX-License-Identifier: Apache-2.0 */
/* msb inspect: everything that is known about a sandbox. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "image/image.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/upper.h"
#include "sandbox/walls.h"
#include "store/store.h"

struct subject {
	struct sandbox_list list; /* of one */
	const struct sandbox_entry *entry;
	struct sandbox_machine machine; /* without an engine: it had none yet */
	struct wall walls[WALLS_MAX];
	size_t nwalls;
	struct image_info image; /* without an id: it is gone */
	char path[4096];
	json_t *config, *active; /* written down; what the machine has, NULL: there is none */
	int64_t updated_at;
	bool upper; /* there is a disk, as follows */
	uint64_t upper_size, upper_stored;
};

static void subject_done(struct subject *s)
{
	sandbox_list_done(&s->list);
	record_machine_done(&s->machine);
	image_info_done(&s->image);
	json_decref(s->config);
	json_decref(s->active);
}

/* The newest of the files that say something about it. */
static int64_t updated(int dir)
{
	static const char *const names[] = {RECORD_KEPT, RECORD_EPHEMERAL, RECORD_MACHINE};
	int64_t newest = 0;
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (fstatat(dir, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
			newest = MAX(newest, (int64_t)st.st_mtim.tv_sec);
	}
	return newest;
}

static int look(struct store *store, const char *name, struct subject *s, struct err *err)
{
	cleanup_close int dir = -1;
	struct stat st;
	int r = sandbox_dir_list(store, name, &s->list, err);

	if (r < 0)
		return r;
	s->entry = &s->list.items[0];
	dir = sandbox_dir_open(store, name, err);
	if (dir < 0)
		return dir;
	r = store_path(store, STORE_SANDBOXES, name, s->path, sizeof(s->path), err);
	if (r < 0)
		return r;
	/* It is not synchronised, so that a power cut may have left nothing in it. */
	r = record_machine_read(dir, &s->machine, err);
	if (r == -ERR_CORRUPT || r == -ERR_UNSUPPORTED)
		cli_warn("sandbox \"%s\": %s", name, err->msg);
	else if (r < 0 && r != -ENOENT)
		return err_wrap(err, "sandbox \"%s\"", name);
	err_clear(err);
	if (!s->entry->unreadable)
		s->config = record_written(s->entry->record);
	if (s->entry->running && s->config) {
		s->active = record_active_read(dir);
		if (!s->active)
			s->active = json_incref(s->config);
	}
	s->nwalls = walls_parse(s->machine.jail, s->walls);
	s->updated_at = updated(dir);
	s->upper = fstatat(dir, UPPER_FILE, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (s->upper) {
		s->upper_size = (uint64_t)st.st_size;
		s->upper_stored = (uint64_t)st.st_blocks * 512;
	}
	/* A disk has none. */
	if (!s->entry->record->image_id[0])
		return 0;
	r = image_find(store, s->entry->record->image_id, &s->image, err);
	return r < 0 && r != -ERR_NOT_FOUND ? r : 0;
}

static const char *status(const struct subject *s)
{
	return sandbox_state_name(s->entry->status.state);
}

static uint64_t image_size(const struct subject *s)
{
	return s->image.blocks * IMAGE_BLOCK;
}

/* ---- for machines ---- */

static json_t *text_or_null(const char *text)
{
	return text && *text ? json_string(text) : json_null();
}

static json_t *time_or_null(int64_t t)
{
	char b[32];

	return t ? json_string(cli_time(t, b)) : json_null();
}

static json_t *machine_json(const struct subject *s)
{
	const struct sandbox_machine *m = &s->machine;
	json_t *jail, *ports;

	if (!m->engine)
		return json_null();
	ports = json_array();
	for (size_t i = 0; i < m->ports.n; i++)
		json_array_append_new(ports, json_string(m->ports.v[i]));
	jail = json_array();
	for (size_t i = 0; i < s->nwalls; i++)
		json_array_append_new(jail,
				      json_pack("{s:s,s:b,s:s}", "name", s->walls[i].name, "held",
						s->walls[i].held, "detail", s->walls[i].detail));
	return json_pack("{s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "engine", m->engine, "ports", ports,
			 "pid", s->entry->pid ? json_integer(s->entry->pid) : json_null(),
			 "started_at", time_or_null(m->started_at), "ready_ms",
			 m->ready_ms ? json_integer((json_int_t)m->ready_ms) : json_null(),
			 "ended_at", time_or_null(m->ended_at), "end", text_or_null(m->end), "jail",
			 jail);
}

static json_t *disks_json(const struct subject *s)
{
	json_t *disks = json_array();

	if (s->image.id)
		json_array_append_new(disks,
				      json_pack("{s:s,s:b,s:I,s:I}", "name", "image", "read_only",
						true, "size_bytes", (json_int_t)image_size(s),
						"stored_bytes", (json_int_t)s->image.stored));
	if (s->upper)
		json_array_append_new(disks,
				      json_pack("{s:s,s:b,s:I,s:I}", "name", "upper", "read_only",
						false, "size_bytes", (json_int_t)s->upper_size,
						"stored_bytes", (json_int_t)s->upper_stored));
	return disks;
}

static void add_pending(json_t *list, const char *key, json_t *from, json_t *to)
{
	if (!json_equal(from, to))
		json_array_append_new(list, json_pack("{s:s,s:O?,s:O?}", "field", key, "from", from,
						      "to", to));
}

/* What is written down, and the machine has not. */
static json_t *pending_json(const struct subject *s)
{
	json_t *list = json_array(), *value;
	const char *key;

	if (!s->active)
		return list;
	json_object_foreach(s->config, key, value)
		add_pending(list, key, json_object_get(s->active, key), value);
	json_object_foreach(s->active, key, value)
	{
		if (!json_object_get(s->config, key))
			add_pending(list, key, value, NULL);
	}
	return list;
}

static json_t *to_json(const struct subject *s)
{
	const struct sandbox_record *r = s->entry->record;

	return json_pack(
		"{s:s,s:s,s:s,s:o,s:s*,s:O?,s:O?,s:o,s:s,s:s,s:o,s:b,s:s,s:o,s:o,s:o,s:o,s:o}",
		"name", r->name, "status", status(s), "reason", s->entry->status.reason,
		"exit_code",
		s->entry->status.exit_code < 0 ? json_null()
					       : json_integer(s->entry->status.exit_code),
		"error", s->entry->unreadable, "config", s->config, "active_config", s->active,
		"pending_changes", pending_json(s), "image", r->image, "image_id", r->image_id,
		"image_digest", text_or_null(s->image.manifest_digest), "ephemeral", r->ephemeral,
		"directory", s->path, "created_at", time_or_null(r->created_at), "updated_at",
		time_or_null(s->updated_at), "changed_at",
		time_or_null(s->entry->status.changed_at), "machine", machine_json(s), "disks",
		disks_json(s));
}

/* ---- for people ---- */

static void line(const char *name, const char *value)
{
	if (!value || !*value)
		return;
	printf("%-14s", name);
	cli_put_line(stdout, value);
	putchar('\n');
}

static void print_time(const char *name, int64_t t)
{
	char at[32], age[32];

	if (t)
		printf("%-14s%s (%s)\n", name, cli_time(t, at), cli_age(t, age));
}

/* What a key of the configuration is called here; NULL: it is shown in a way of its own. */
static const struct {
	const char *key, *title;
} titles[] = {
	{"cpus", NULL},
	{"max_cpus", NULL},
	{"memory", NULL},
	{"max_memory", NULL},
	{"root_disk", NULL},
	{"root_size", NULL},
	{"rlimits", NULL},
	{"engine", NULL},
	{"env", "Environment"},
	{"root_file", "Root"},
	{"max_duration_ms", "Ends after"},
	{"idle_timeout_ms", "Ends idle"},
	{"session_history", "History"},
	{"net", "Network"},
	{"net_egress", "Net out"},
	{"net_ingress", "Net in"},
	{"net_rules", "Net rules"},
	{"net_limits", "Net limits"},
	{"net_names", "Net names"},
	{"dns_servers", "Name servers"},
	{"dns_hosts", "Hosts"},
	{"ports", "Publish"},
	{"proxy_user", "Proxy user"},
	{"proxy_password_env", "Password from"},
	{"vsock_listen", "Vsock listen"},
	{"init_args", "Init args"},
	{"init_env", "Init env"},
};

/* What has no title is called as its key is. */
static const char *title_of(const char *key, char ret[32])
{
	for (size_t i = 0; i < ARRAY_SIZE(titles); i++) {
		if (str_eq(titles[i].key, key))
			return titles[i].title;
	}
	snprintf(ret, 32, "%s", key);
	for (char *p = ret; *p; p++)
		*p = *p == '_' ? ' ' : *p;
	ret[0] = (char)(ret[0] >= 'a' && ret[0] <= 'z' ? ret[0] - 'a' + 'A' : ret[0]);
	return ret;
}

static void print_value(const char *key, const char *title, const json_t *value)
{
	const json_int_t n = json_integer_value(value);
	const size_t len = strlen(key);
	char text[32];

	if (json_is_string(value)) {
		line(title, json_string_value(value));
	} else if (json_is_integer(value)) {
		if (len > 3 && str_eq(key + len - 3, "_ms"))
			snprintf(text, sizeof(text), "%.15g s", (double)n / 1000);
		else
			str_size((uint64_t)n, text);
		line(title, text);
	}
	for (size_t i = 0; i < json_array_size(value); i++)
		line(i ? "" : title, json_string_value(json_array_get(value, i)));
}

static void print_limits(const struct sandbox_spec *c)
{
	for (size_t i = 0; i < c->nrlimits; i++) {
		const struct sandbox_rlimit *l = &c->rlimits[i];
		char soft[24] = "unlimited", hard[24] = "unlimited";

		if (l->soft != UINT64_MAX)
			snprintf(soft, sizeof(soft), "%llu", (unsigned long long)l->soft);
		if (l->hard != UINT64_MAX)
			snprintf(hard, sizeof(hard), "%llu", (unsigned long long)l->hard);
		printf("%-14s%s=%s:%s\n", i ? "" : "Limits", l->resource, soft, hard);
	}
}

static void print_config(const struct subject *s)
{
	const struct sandbox_record *r = s->entry->record;
	const struct sandbox_spec *c = &r->spec;
	char size[24], most[24] = "", name[32];
	const char *key, *title;
	json_t *value;

	printf("%-14s%u", "CPUs", c->cpus);
	if (c->max_cpus > c->cpus)
		printf(", at most %u", c->max_cpus);
	putchar('\n');
	if (c->max_memory > c->memory)
		str_size(c->max_memory, most);
	printf("%-14s%s%s%s\n", "Memory", str_size(c->memory, size), *most ? ", at most " : "",
	       most);
	if (c->root == SANDBOX_ROOT_TMPFS)
		printf("%-14stmpfs%s%s\n", "Root disk", c->root_size ? ", " : "",
		       c->root_size ? str_size(c->root_size, size) : "");
	for (size_t i = 0; i < r->main.argv.n; i++)
		line(i ? "" : "Command", r->main.argv.v[i]);
	if (!c->net && !c->net_egress)
		line("Network", "public");
	json_object_foreach(s->config, key, value)
	{
		title = json_object_get(r->odd, key) ? NULL : title_of(key, name);
		if (title)
			print_value(key, title, value);
	}
	print_limits(c);
	/* With which it does not start. */
	json_object_foreach(r->odd, key, value)
	{
		cleanup_free char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
		cleanup_free char *pair = str_fmt("%s = %s", key, text ? text : "");

		line("Not known", pair);
	}
}

static void print_disk(const char *name, uint64_t size, uint64_t stored)
{
	char a[24], b[24];

	printf("%-14s%s, %s on the host's disk\n", name, str_size(size, a), str_size(stored, b));
}

static void print_machine(const struct subject *s)
{
	const struct sandbox_machine *m = &s->machine;

	line("Engine", m->engine ? m->engine : s->entry->record->spec.engine);
	if (s->entry->pid)
		printf("%-14s%d\n", "Process", s->entry->pid);
	print_time("Started", m->started_at);
	if (m->ready_ms)
		printf("%-14safter %llu ms\n", "Ready", (unsigned long long)m->ready_ms);
	print_time("Ended", m->ended_at);
	line("End", m->end);
	for (size_t i = 0; i < m->ports.n; i++)
		line(i ? "" : "Ports", m->ports.v[i]);
	for (size_t i = 0; i < s->nwalls; i++) {
		const struct wall *w = &s->walls[i];
		const char *colour = w->held ? "" : cli_yellow(stdout);

		printf("%-14s%s%-14s%s%s%s\n", i ? "" : "Jail", colour, w->name,
		       w->held ? "" : "no: ", w->detail, *colour ? cli_reset(stdout) : "");
	}
}

/* By a change that was left for the next start, or did not work. */
static void print_pending(const struct subject *s)
{
	json_t *list = pending_json(s), *p;
	size_t i;

	json_array_foreach(list, i, p)
	{
		cleanup_free char *from = json_dumps(json_object_get(p, "from"), JSON_ENCODE_ANY);
		cleanup_free char *text = str_fmt(
			"%s: it has %s", json_string_value(json_object_get(p, "field")), from);

		line(i ? "" : "Next start", text);
	}
	json_decref(list);
}

static void print_subject(const struct subject *s)
{
	const struct sandbox_record *r = s->entry->record;

	line("Name", r->name);
	line("Status", status(s));
	line("Reason", s->entry->status.reason);
	if (s->entry->status.exit_code >= 0)
		printf("%-14s%d\n", "Exit code", s->entry->status.exit_code);
	printf("%-14s%s%s\n", "Image", r->image, s->image.id ? "" : " (gone)");
	line("Image ID", r->image_id);
	line("Digest", s->image.manifest_digest);
	line("Kept", r->ephemeral ? "no" : "yes");
	line("Directory", s->path);
	print_time("Created", r->created_at);
	line("Error", s->entry->unreadable);
	if (s->config)
		print_config(s);
	if (s->image.id)
		print_disk("Image disk", image_size(s), s->image.stored);
	if (s->upper)
		print_disk("Upper disk", s->upper_size, s->upper_stored);
	print_machine(s);
	print_pending(s);
}

struct inspect_args {
	bool json;
};

static const struct opt inspect_opts[] = {
	{0, "format", "json|table", "How to show it [table]", opt_set_format,
	 offsetof(struct inspect_args, json), 0},
};

static int inspect(struct cli *cli, int argc, char **argv)
{
	struct inspect_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	__attribute__((cleanup(subject_done))) struct subject s = {.image = IMAGE_INFO_INIT};
	cleanup_free char *name = NULL;
	struct err err = ERR_INIT;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code))
		return code;
	if (store_open(&store, NULL, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	sandbox_dir_heal(store, true);
	if (cli_project_name(cli, store, NULL, words.words[0], &name, &err) < 0 ||
	    look(store, name, &s, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	if (a.json)
		return cli_json(to_json(&s));
	print_subject(&s);
	return cli_finish();
}

const struct verb verb_inspect = {
	.name = "inspect",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME",
	.entries = true,
	.summary = "Show what a sandbox is, its machine and the walls around it",
	.examples = "msb inspect box\n"
		    "msb inspect box --format json | jq .status",
	.opts = inspect_opts,
	.nopts = ARRAY_SIZE(inspect_opts),
	.run = inspect,
};
