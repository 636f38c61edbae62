/* SPDX-License-Identifier: Apache-2.0 */
#include "project/life.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/image.h"
#include "sandbox/patch.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/source.h"
#include "wire/patch.h"

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

void project_view_done(struct project_view *v)
{
	free(v->name);
	sandbox_list_done(&v->list);
	*v = (struct project_view){0};
}

const char *project_label(const struct sandbox_entry *e, const char *key)
{
	const struct strv *labels = &e->record->spec.labels;
	size_t n = strlen(key);

	for (size_t i = 0; i < labels->n; i++) {
		if (strncmp(labels->v[i], key, n) == 0 && labels->v[i][n] == '=')
			return labels->v[i] + n + 1;
	}
	return NULL;
}

/* ---- wishes, as one number ---- */

/* FNV-1a: it tells apart what a person wrote yesterday and today, and need do no more. */
static void mix(uint64_t *h, const char *text)
{
	for (const char *c = text; *c; c++)
		*h = (*h ^ (unsigned char)*c) * 0x100000001b3u;
	*h = (*h ^ 0xff) * 0x100000001b3u;
}

static void mix_all(uint64_t *h, const struct strv *list)
{
	for (size_t i = 0; i < list->n; i++)
		mix(h, list->v[i]);
	mix(h, "");
}

/* Two projects at different places differ by their disks' paths. */
static void spec_id(const struct project_home *home, const struct project_sandbox *e, char ret[17])
{
	uint64_t h = 0xcbf29ce484222325u;
	const struct model *m = &e->model;

	mix(&h, home->dir);
	for (size_t i = 0; i < m->nsaid; i++) {
		mix(&h, m->said[i].field->key ? m->said[i].field->key : m->said[i].field->opt);
		mix(&h, m->said[i].text);
	}
	mix_all(&h, &m->spec.entrypoint);
	mix_all(&h, &m->spec.env);
	mix_all(&h, &m->cmd);
	snprintf(ret, 17, "%016llx", (unsigned long long)h);
}

int project_look(struct store *s, const struct project *p, const struct project_home *h,
		 const struct project_sandbox *e, struct project_view *ret, struct err *err)
{
	cleanup_project_view struct project_view v = {0};
	const char *made_of;
	char id[17];
	int r;

	(void)p;
	v.name = project_sandbox_name(h, e->name);
	if (!v.name)
		return no_memory(err);
	r = sandbox_dir_list(s, v.name, &v.list, err);
	if (r == -ERR_NOT_FOUND)
		err_clear(err);
	else if (r < 0)
		return r;
	if (v.list.count) {
		v.state = v.list.items[0].running ? PROJECT_RUNNING : PROJECT_STOPPED;
		made_of = project_label(&v.list.items[0], PROJECT_LABEL_SPEC);
		spec_id(h, e, id);
		v.changed = !made_of || !str_eq(made_of, id);
	}
	*ret = v;
	v = (struct project_view){0};
	return 0;
}

int project_all(struct store *s, const struct project_home *h, struct sandbox_list *ret,
		struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	size_t n = 0;
	int r = sandbox_dir_list(s, NULL, &l, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < l.count; i++) {
		const struct sandbox_entry e = l.items[i];
		const char *id = project_label(&e, PROJECT_LABEL);

		if (!id || !str_eq(id, h->id) || !project_label(&e, PROJECT_LABEL_SANDBOX))
			continue;
		/* Swapped, not copied: all of them are freed with the list. */
		l.items[i] = l.items[n];
		l.items[n++] = e;
	}
	*ret = (struct sandbox_list){0};
	ret->items = calloc(n + 1, sizeof(*ret->items));
	if (!ret->items)
		return no_memory(err);
	memcpy(ret->items, l.items, n * sizeof(*ret->items));
	ret->count = n;
	memmove(l.items, l.items + n, (l.count - n) * sizeof(*l.items));
	l.count -= n;
	return 0;
}

/* ---- opening ---- */

/* Paths in the project are written down from its directory, which may move. */
static char *image_words(const struct project *p, const char *image)
{
	size_t n = strlen(p->dir);

	if (strncmp(image, p->dir, n) == 0 && image[n] == '/')
		return str_fmt(".%s", image + n);
	return strdup(image);
}

/* "" for a directory: what it holds may change, and is what the user wants. */
static int image_id(struct store *s, const char *image, char **ret, struct err *err)
{
	cleanup_image_info struct image_info info = IMAGE_INFO_INIT;
	int r = sandbox_source_is_path(image) ? 0 : image_find(s, image, &info, err);

	if (r < 0)
		return r;
	*ret = strdup(info.id ? info.id : "");
	return *ret ? 0 : no_memory(err);
}

/* A disk of the project's, made on @image or found; *image may become the one it lies on. */
static int take_disk(struct store *s, const struct project *p, const struct project_home *h,
		     const struct project_sandbox *e, uint64_t size, char **image, bool *made,
		     struct project_disk *disk, struct err *err)
{
	cleanup_free char *words = image_words(p, *image);
	cleanup_free char *id = NULL;
	int r = words ? image_id(s, *image, &id, err) : no_memory(err);

	if (r < 0)
		return r;
	r = project_disk_read(h, e->name, disk, err);
	if (r == -ERR_NOT_FOUND) {
		err_clear(err);
		*made = true;
		return project_disk_make(h, s, e->name, words, id, size, disk, err);
	}
	if (r < 0)
		return r;
	if (!str_eq(disk->image, words)) {
		err_set(err, EEXIST,
			"%s: what was written in it lies on image %s, and the file says %s now",
			e->name, disk->image, words);
		return err_hint(err, "`msb clean %s` throws it away; or put the image back",
				e->name);
	}
	if (str_eq(disk->id, id))
		return 0;
	/* The image's name has gone on to another one: ours stays with what it was made on. */
	free(id);
	id = NULL;
	r = image_id(s, disk->id, &id, err);
	if (r == -ERR_NOT_FOUND) {
		err_set(err, r, "%s: the image it was made on (%.19s…) is gone", e->name, disk->id);
		return err_hint(err, "`msb clean %s` throws away what was written in it", e->name);
	}
	if (r < 0)
		return r;
	free(*image);
	*image = take_ptr(id);
	return 0;
}

static int set_labels(struct sandbox_spec *spec, const struct project_home *h,
		      const struct project_sandbox *e, const char *spec_hash, struct err *err)
{
	const char *const values[][2] = {
		{PROJECT_LABEL, h->id},
		{PROJECT_LABEL_SANDBOX, e->name},
		{PROJECT_LABEL_DIR, h->dir},
		{PROJECT_LABEL_SPEC, spec_hash},
	};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		cleanup_free char *label = str_fmt("%s=%s", values[i][0], values[i][1]);
		int r = label ? sandbox_spec_label(spec, label, err) : no_memory(err);

		if (r < 0)
			return err_wrap(err, "%s", e->name);
	}
	return 0;
}

static bool has_pending_patch(struct store *s, const char *name)
{
	cleanup_close int dir = sandbox_dir_open(s, name, NULL);

	return dir >= 0 && faccessat(dir, SANDBOX_PATCH_FILE, F_OK, 0) == 0;
}

static int open_new(struct store *s, const struct project *p, const struct project_home *h,
		    struct project_sandbox *e, const struct project_view *v, const char *hash,
		    struct sandbox **ret, bool *made, struct err *err)
{
	const struct sandbox_open how = {
		.keep = true,
		.replace = v->state != PROJECT_NONE,
		.fresh = true,
		.timeout_ms = SANDBOX_STOP_TIMEOUT_MS,
	};
	cleanup_project_disk struct project_disk disk = {0};
	cleanup_source_text struct sandbox_source src = {0};
	struct sandbox_spec *spec = &e->model.spec;
	int r = sandbox_source_parse(e->model.image, &src, err);

	if (r < 0)
		return err_wrap(err, "%s", e->name);
	if (src.kind == SOURCE_DISK && v->state != PROJECT_NONE && !src.writable) {
		err_set(err, EEXIST,
			"%s: the file has changed, and what was written above a disk image would "
			"be lost",
			e->name);
		return err_hint(err, "`msb clean %s` throws it away; or undo the change", e->name);
	}
	free(spec->name);
	spec->name = strdup(v->name);
	if (!spec->name)
		return no_memory(err);
	if (src.kind != SOURCE_DISK && spec->root == SANDBOX_ROOT_DISK) {
		/* It never came up: its changes are still to be made, on a disk that has none. */
		if (v->state != PROJECT_NONE && has_pending_patch(s, v->name))
			r = project_disk_remove(h, e->name, err);
		if (r == 0)
			r = take_disk(s, p, h, e, spec->root_size, &e->model.image, made, &disk,
				      err);
		if (r < 0)
			return r;
		free(spec->root_file);
		spec->root_file = str_fmt("%s:format=raw", disk.path);
		if (!spec->root_file)
			return no_memory(err);
		spec->root = SANDBOX_ROOT_FILE;
		spec->root_size = 0;
		spec->root_asked = true;
		if (!*made)
			sandbox_patches_clear(spec);
	}
	r = set_labels(spec, h, e, hash, err);
	return r < 0 ? r : sandbox_open_how(ret, s, spec, e->model.image, &how, err);
}

int project_open(struct store *s, const struct project *p, const struct project_home *h,
		 struct project_sandbox *e, struct sandbox **ret, bool *made, struct err *err)
{
	cleanup_project_view struct project_view v = {0};
	char hash[17];
	int r = project_look(s, p, h, e, &v, err);

	*made = false;
	if (r == 0)
		r = sandbox_name_check(v.name, err);
	if (r < 0)
		return err_wrap(err, "%s", e->name);
	if (v.state == PROJECT_RUNNING)
		return err_set(err, EBUSY, "%s runs", e->name);
	if (v.state == PROJECT_STOPPED && !v.changed)
		return sandbox_open_kept(ret, s, v.name, err);
	spec_id(h, e, hash);
	r = open_new(s, p, h, e, &v, hash, ret, made, err);
	if (r < 0 && *made)
		(void)project_disk_remove(h, e->name, NULL);
	return r;
}

/* Changes that are still to be made are in the sandbox's directory, and gone with it. */
void project_undo(struct store *s, const struct project_home *h, const struct project_sandbox *e)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	cleanup_free char *name = project_sandbox_name(h, e->name);

	if (name && sandbox_dir_list(s, name, &l, NULL) == -ERR_NOT_FOUND)
		(void)project_disk_remove(h, e->name, NULL);
}

/* ---- what it runs ---- */

int project_words(const struct project_sandbox *e, const char *script, const char *exec,
		  const char *const *args, size_t nargs, struct strv *ret, struct err *err)
{
	cleanup_strv struct strv argv = {0};
	const char *shell = e->model.spec.shell ? e->model.spec.shell : "/bin/sh";
	int r = 0;

	if (!script && !exec && project_has_script(e, "start"))
		script = "start";
	if (!script && !exec)
		return 0;
	if (exec)
		r = strv_add(&argv, exec);
	else if (project_has_script(e, script))
		r = strv_addf(&argv, PATCH_SCRIPTS_DIR "/%s", script);
	else if (str_eq(script, "shell"))
		r = strv_add(&argv, shell);
	else {
		const char *like =
			str_suggest(script, (const char *const *)e->scripts.v, e->scripts.n);

		err_set(err, ERR_NOT_FOUND, "sandbox \"%s\" has no script \"%.60s\"", e->name,
			script);
		return like ? err_hint(err, "did you mean %s?", like) : -ERR_NOT_FOUND;
	}
	for (size_t i = 0; i < nargs && r == 0; i++)
		r = strv_add(&argv, args[i]);
	if (r < 0)
		return no_memory(err);
	*ret = argv;
	argv = (struct strv){0};
	return 1;
}

/* The image's command, when that only waits for somebody at a terminal. */
static bool is_shell(const struct strv *argv)
{
	static const char *const shells[] = {"sh", "ash", "bash", "dash", "zsh", "fish"};
	const char *slash = argv->n == 1 ? strrchr(argv->v[0], '/') : NULL;

	for (size_t i = 0; i < ARRAY_SIZE(shells) && argv->n == 1; i++) {
		if (str_eq(slash ? slash + 1 : argv->v[0], shells[i]))
			return true;
	}
	return false;
}

int project_main(const struct project_sandbox *e, const struct sandbox_spec *spec,
		 const struct image_config *image, struct sandbox_main *ret, struct err *err)
{
	cleanup_command struct sandbox_command c = {0};
	int r = project_words(e, NULL, NULL, NULL, 0, &ret->argv, err);

	if (r != 0)
		return MIN(r, 0);
	r = sandbox_command_resolve(spec, image, (const char *const *)e->model.cmd.v,
				    e->model.cmd.n, &c, err);
	if (r < 0)
		return err_wrap(err, "%s", e->name);
	if (!e->model.cmd.n && !spec->entrypoint.n && is_shell(&c.argv))
		return 0;
	ret->argv = c.argv;
	c.argv = (struct strv){0};
	return 0;
}
