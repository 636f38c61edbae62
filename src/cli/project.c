/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/project.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/attach.h"
#include "cli/cli.h"
#include "cli/pull.h"
#include "image/image.h"
#include "project/life.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"

/* Another command of the project's is waited for; it boots machines. */
#define LOCK_RETRY_MS 50

void project_at_done(struct project_at *a)
{
	project_done(&a->p);
	project_home_done(&a->home);
	a->store = store_close(a->store);
}

static int take_lock(struct project_home *h, struct err *err)
{
	bool told = false;
	int r;

	for (;;) {
		r = project_home_lock(h, err);
		if (r != -EWOULDBLOCK)
			return r;
		if (attach_pending_signal())
			return -EINTR;
		if (!told)
			cli_warn("%s: waiting for it", err->msg);
		told = true;
		err_clear(err);
		(void)poll(NULL, 0, LOCK_RETRY_MS);
	}
}

int cli_project_open(const char *file, int how, struct project_at *ret, struct err *err)
{
	cleanup_project_at struct project_at a = PROJECT_AT_INIT;
	cleanup_sandbox_list struct sandbox_list l = {0};
	cleanup_free char *path = NULL;
	cleanup_free char *home = store_default_home(err);
	cleanup_free char *defaults = home ? str_fmt("%s/config.json", home) : NULL;
	int r = defaults ? project_find(file, &path, err) : -ENOMEM;

	if (r == 0)
		r = project_load(path, defaults, &a.p, err);
	if (r == 0)
		r = store_open(&a.store, NULL, err);
	if (r < 0)
		return r;
	sandbox_dir_heal(a.store, true);
	r = project_home_open(a.p.dir, a.p.config, how & PROJECT_MAKE, &a.home, err);
	if (r == -ERR_NOT_FOUND && !(how & PROJECT_MAKE)) {
		err_clear(err);
		r = 0;
	}
	if (r == 0 && (how & PROJECT_LOCK) && a.home.dir)
		r = take_lock(&a.home, err);
	if (r < 0)
		return r;
	if (sandbox_dir_list(a.store, NULL, &l, NULL) == 0)
		(void)project_heal(a.store, &l);
	*ret = a;
	a = (struct project_at)PROJECT_AT_INIT;
	return 0;
}

int cli_project_select(const struct project_at *a, const char *const *names, size_t n,
		       const char *group, bool *chosen, struct err *err)
{
	bool known = false;

	for (size_t i = 0; i < n; i++) {
		struct project_sandbox *e;
		int r = project_want(&a->p, names[i], &e, err);

		if (r < 0)
			return r;
		chosen[e - a->p.v] = true;
	}
	for (size_t i = 0; i < a->p.ngroups && group; i++)
		known |= str_eq(a->p.groups[i].name, group);
	if (group && !known)
		return err_set(err, ERR_NOT_FOUND, "there is no group \"%.100s\" in %s", group,
			       a->p.path);
	for (size_t i = 0; i < a->p.n; i++) {
		const struct project_sandbox *e = &a->p.v[i];

		if (!e->build && ((!n && !group) || (group && project_in_group(e, group))))
			chosen[i] = true;
	}
	return 0;
}

static bool is_there(struct store *s, const char *name)
{
	cleanup_sandbox_list struct sandbox_list l = {0};

	return sandbox_name_check(name, NULL) == 0 && sandbox_dir_list(s, name, &l, NULL) == 0 &&
	       l.count;
}

int cli_project_name(const struct cli *cli, struct store *s, const char *file, const char *word,
		     char **ret, struct err *err)
{
	cleanup_project_at struct project_at a = PROJECT_AT_INIT;
	struct project_sandbox *e;
	int r;

	*ret = NULL;
	if (file || (cli->verb->entries && access(PROJECT_FILE, F_OK) == 0 && !is_there(s, word))) {
		r = cli_project_open(file, PROJECT_READ, &a, err);
		if (r < 0)
			return r;
		if (file) {
			r = project_want(&a.p, word, &e, err);
			if (r < 0)
				return r;
		}
		if (project_get(&a.p, word, false)) {
			if (a.home.dir)
				*ret = project_sandbox_name(&a.home, word);
			if (!*ret || !is_there(s, *ret)) {
				free(*ret);
				*ret = NULL;
				err_set(err, ERR_NOT_FOUND,
					"sandbox \"%s\" of this project was not started yet", word);
				return err_hint(err, "`msb up %s` does, or `msb run --sandbox %s`",
						word, word);
			}
			return 0;
		}
	}
	*ret = strdup(word);
	return *ret ? 0 : err_set(err, ENOMEM, "out of memory");
}

/* Is the image of @e what another entry, a build, makes? That one, or NULL. */
static const struct project_sandbox *build_of(const struct project *p,
					      const struct project_sandbox *e)
{
	const char *image = e->model.image, *colon = strchr(image, ':');
	cleanup_free char *name =
		colon && str_eq(colon, ":latest") ? strndup(image, (size_t)(colon - image)) : NULL;
	const struct project_sandbox *b = project_get(p, name ? name : image, true);

	return b != e ? b : NULL;
}

int cli_project_pull(struct project_at *a, struct project_sandbox *e, const char *name, bool quiet,
		     struct err *err)
{
	cleanup_image_info struct image_info info = IMAGE_INFO_INIT;
	const struct project_sandbox *b = build_of(&a->p, e);
	const char *image = e->model.image;
	int r;

	if (!b)
		return cli_pull_for_run(a->store, image, name, &e->model, quiet, err);
	if (name && is_there(a->store, name))
		return 0;
	r = image_find(a->store, image, &info, err);
	if (r == -ERR_NOT_FOUND) {
		err_set(err, r, "image %s is one of this project's builds, and not made yet",
			image);
		return err_hint(err, "`msb build %s` makes it", b->name);
	}
	return MIN(r, 0);
}

/* ---- lists ---- */

static void put_names(struct buf *b, const struct project_refs *l)
{
	for (size_t i = 0; i < l->n; i++)
		buf_addf(b, "%s%s", i ? ", " : "", l->v[i].name);
}

static json_t *texts(char *const *v, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_string(v[i]));
	return list;
}

static json_t *refs(const struct project_refs *l)
{
	json_t *list = json_array();

	for (size_t i = 0; i < l->n; i++)
		json_array_append_new(list, json_string(l->v[i].name));
	return list;
}

static json_t *entry_json(const struct project_sandbox *e)
{
	const struct sandbox_spec *s = &e->model.spec;

	return json_pack("{s:s,s:s,s:s,s:I,s:I,s:o,s:s,s:o,s:o,s:o}", "name", e->name, "kind",
			 e->build ? "build" : "sandbox", "image", e->model.image, "cpus",
			 (json_int_t)s->cpus, "memory", (json_int_t)s->memory, "ports",
			 texts(s->ports.v, s->ports.n), "network", s->net ? s->net : "public",
			 "scripts", texts(e->scripts.v, e->scripts.n), "depends_on",
			 refs(&e->depends), "groups", refs(&e->groups));
}

/* Cells that end in NULs, one after the other, as a table. */
static int table(const struct buf *text, size_t columns, size_t rows)
{
	cleanup_free const char **cells = calloc(columns * rows + 1, sizeof(*cells));
	const char *at = (const char *)buf_ptr(text);

	if (!cells || buf_failed(text))
		return EXIT_FAILURE;
	for (size_t i = 0; i < columns * rows; i++, at += strlen(at) + 1)
		cells[i] = at;
	cli_table(cells, columns, rows);
	return cli_finish();
}

int cli_project_list(const char *file, bool json)
{
	static const char *const headings[] = {"NAME",	"IMAGE", "CPUS",    "MEM",
					       "PORTS", "NET",	 "SCRIPTS", "DEPENDS ON"};
	cleanup_project_at struct project_at a = PROJECT_AT_INIT;
	cleanup_buf struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	size_t rows = 1;

	if (cli_project_open(file, PROJECT_READ, &a, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	if (json) {
		json_t *list = json_array();

		for (size_t i = 0; i < a.p.n; i++)
			json_array_append_new(list, entry_json(&a.p.v[i]));
		return cli_json(list);
	}
	for (size_t i = 0; i < ARRAY_SIZE(headings); i++)
		buf_add(&b, headings[i], strlen(headings[i]) + 1);
	for (size_t i = 0; i < a.p.n; i++) {
		const struct project_sandbox *e = &a.p.v[i];
		const struct sandbox_spec *s = &e->model.spec;
		char size[24];

		buf_addf(&b, "%s%s%c%s%c%u%c%s%c", e->name, e->build ? " (build)" : "", 0,
			 e->model.image, 0, s->cpus, 0, str_size(s->memory, size), 0);
		for (size_t j = 0; j < s->ports.n; j++)
			buf_addf(&b, "%s%s", j ? ", " : "", s->ports.v[j]);
		buf_addf(&b, "%c%s%c", 0, s->net ? s->net : "public", 0);
		for (size_t j = 0; j < e->scripts.n; j++)
			buf_addf(&b, "%s%s", j ? ", " : "", e->scripts.v[j]);
		buf_add_u8(&b, 0);
		put_names(&b, &e->depends);
		buf_add_u8(&b, 0);
		rows++;
	}
	return table(&b, ARRAY_SIZE(headings), rows);
}

/* What it is doing; "-" when nothing was made of it yet. */
static const char *state_of(const struct project_view *v)
{
	return v->state == PROJECT_NONE ? "-" : sandbox_state_name(v->list.items[0].status.state);
}

static uint64_t disk_bytes(const struct project_at *a, const char *name)
{
	cleanup_free char *path =
		a->home.dir ? str_fmt("%s/rw/%s/upper.ext4", a->home.dir, name) : NULL;
	struct stat st;

	return path && stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static const char *remark(const struct project_view *v)
{
	const char *reason = v->list.count ? v->list.items[0].status.reason : "";

	if (v->state != PROJECT_NONE && v->changed)
		return "the file says something else now (msb apply)";
	return reason && !str_eq(reason, "stopped") && !str_eq(reason, "completed") ? reason : "";
}

static int add_status(const struct project_at *a, const struct project_sandbox *e, json_t *list,
		      struct buf *b, struct err *err)
{
	cleanup_project_view struct project_view v = {0};
	const struct sandbox_entry *s;
	char size[24];
	int r = a->home.dir ? project_look(a->store, &a->p, &a->home, e, &v, err) : 0;

	if (r < 0)
		return r;
	s = v.list.count ? &v.list.items[0] : NULL;
	json_array_append_new(list, json_pack("{s:s,s:s?,s:s,s:b,s:i,s:s,s:i,s:I}", "name", e->name,
					      "sandbox", s ? v.name : NULL, "status", state_of(&v),
					      "changed", v.state != PROJECT_NONE && v.changed,
					      "pid", s ? (int)s->pid : 0, "reason",
					      s && s->status.reason ? s->status.reason : "",
					      "exit_code", s ? s->status.exit_code : -1, "disk",
					      (json_int_t)disk_bytes(a, e->name)));
	buf_addf(b, "%s%c%s%c", e->name, 0, state_of(&v), 0);
	if (s && s->pid)
		buf_addf(b, "%d", (int)s->pid);
	buf_add_u8(b, 0);
	if (s && !s->running && s->status.exit_code >= 0)
		buf_addf(b, "%d", s->status.exit_code);
	buf_addf(b, "%c%s%c%s%c", 0, str_size(disk_bytes(a, e->name), size), 0, s ? v.name : "", 0);
	buf_addf(b, "%s%c", remark(&v), 0);
	return 0;
}

int cli_project_status(const char *file, const char *const *names, size_t n, bool json)
{
	static const char *const headings[] = {"NAME", "STATUS",  "PID",   "EXIT",
					       "DISK", "SANDBOX", "REMARK"};
	cleanup_project_at struct project_at a = PROJECT_AT_INIT;
	cleanup_free bool *chosen = NULL;
	cleanup_buf struct buf b = BUF_INIT;
	json_t *list = json_array();
	struct err err = ERR_INIT;
	size_t rows = 1;
	int code, r = cli_project_open(file, PROJECT_READ, &a, &err);

	chosen = r == 0 ? calloc(a.p.n + 1, sizeof(*chosen)) : NULL;
	if (r == 0)
		r = chosen ? cli_project_select(&a, names, n, NULL, chosen, &err)
			   : err_set(&err, ENOMEM, "out of memory");
	for (size_t i = 0; i < ARRAY_SIZE(headings); i++)
		buf_add(&b, headings[i], strlen(headings[i]) + 1);
	for (size_t i = 0; i < a.p.n && r == 0; i++) {
		if (!chosen[i])
			continue;
		r = add_status(&a, &a.p.v[i], list, &b, &err);
		rows++;
	}
	if (r < 0)
		code = cli_fail(&err, EXIT_FAILURE);
	else if (json)
		return cli_json(list);
	else
		code = table(&b, ARRAY_SIZE(headings), rows);
	json_decref(list);
	return code;
}
