/* SPDX-License-Identifier: Apache-2.0 */
#include "project/home.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/upper.h"

#define IDENTITY     "project.json"
#define LOCK	     "lock"
#define DISK_NOTE    "disk.json"
#define NOTE_MAX     ((size_t)64 << 10)
#define ID_WORDS_MAX 40

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

void project_home_done(struct project_home *h)
{
	free(h->id);
	free(h->dir);
	close_fd(h->lock);
	*h = (struct project_home)PROJECT_HOME_INIT;
}

/* ---- notes: small objects of texts ---- */

/* NULL when there is none that can be read. */
static json_t *note_read(const char *path)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (io_read_file(path, NOTE_MAX, &b, NULL) < 0)
		return NULL;
	return json_loadb((const char *)buf_ptr(&b), buf_size(&b), JSON_REJECT_DUPLICATES, NULL);
}

static char *note_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? strdup(s) : NULL;
}

/* Takes @o. */
static int note_write(const char *path, json_t *o, struct err *err)
{
	cleanup_free char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
	int r = text ? io_write_file_atomic(path, text, strlen(text), 0600, err) : no_memory(err);

	json_decref(o);
	return r;
}

/* ---- who it is ---- */

static bool is_id(const char *s)
{
	return s && sandbox_name_check(s, NULL) == 0 && !strchr(s, '.');
}

static char *new_id(const char *dir, const char *config)
{
	const char *slash = strrchr(dir, '/');
	char words[ID_WORDS_MAX + 1];
	unsigned char salt[3];
	size_t n = 0;

	/* A file of another name is a project of its own. */
	cleanup_free char *from = str_eq(config, PROJECT_FILE)
					  ? strdup(slash ? slash + 1 : dir)
					  : str_fmt("%s-%.*s", slash ? slash + 1 : dir,
						    (int)strcspn(config, "."), config);

	if (!from || getrandom(salt, sizeof(salt), 0) != (ssize_t)sizeof(salt))
		return NULL;
	for (const char *c = from; *c && n < ID_WORDS_MAX; c++) {
		if (isalnum((unsigned char)*c) || (n && (*c == '_' || *c == '-')))
			words[n++] = *c;
		else if (n && words[n - 1] != '-')
			words[n++] = '-';
	}
	words[n] = '\0';
	return str_fmt("%s%s%02x%02x%02x", n ? words : "project",
		       n && words[n - 1] == '-' ? "" : "-", salt[0], salt[1], salt[2]);
}

/* Is the project that calls itself @id still at @dir? */
static bool still_there(const char *dir, const char *config, const char *id)
{
	cleanup_free char *path = str_fmt("%s/" PROJECT_HOME "/%s/" IDENTITY, dir, config);
	json_t *o = path ? note_read(path) : NULL;
	cleanup_free char *there = note_text(o, "id");

	json_decref(o);
	return there && str_eq(there, id);
}

static int write_identity(const char *path, const char *id, const char *dir, struct err *err)
{
	return note_write(path, json_pack("{s:s,s:s}", "id", id, "dir", dir), err);
}

static int open_identity(const char *dir, const char *config, bool make, struct project_home *h,
			 struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" IDENTITY, h->dir);
	cleanup_free char *was = NULL;
	json_t *o;
	int r;

	if (!path)
		return no_memory(err);
	o = note_read(path);
	h->id = note_text(o, "id");
	was = note_text(o, "dir");
	json_decref(o);
	if (!h->id && access(path, F_OK) < 0 && errno == ENOENT) {
		if (!make)
			return err_set(err, ERR_NOT_FOUND, "nothing was started in %s yet", dir);
		r = io_mkdir_p(h->dir, 0700, err);
		if (r < 0)
			return r;
		h->id = new_id(dir, config);
		return h->id ? write_identity(path, h->id, dir, err) : no_memory(err);
	}
	if (!is_id(h->id) || !was) {
		err_set(err, ERR_CORRUPT, "%s is damaged", path);
		return err_hint(err, "delete it: what was installed stays, in the disks beside it");
	}
	if (str_eq(was, dir))
		return 0;
	/* Moved; or copied, when the original is where it was. */
	if (still_there(was, config, h->id)) {
		free(h->id);
		h->id = new_id(dir, config);
		if (!h->id)
			return no_memory(err);
	}
	return write_identity(path, h->id, dir, err);
}

int project_home_open(const char *dir, const char *config, bool make, struct project_home *ret,
		      struct err *err)
{
	cleanup_project_home struct project_home h = PROJECT_HOME_INIT;
	int r;

	h.dir = str_fmt("%s/" PROJECT_HOME "/%s", str_eq(dir, "/") ? "" : dir, config);
	if (!h.dir)
		return no_memory(err);
	r = open_identity(dir, config, make, &h, err);
	if (r < 0)
		return r;
	*ret = h;
	h = (struct project_home)PROJECT_HOME_INIT;
	return 0;
}

int project_home_lock(struct project_home *h, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" LOCK, h->dir);
	cleanup_close int fd = -1;
	int r;

	if (!path)
		return no_memory(err);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(err, "cannot open %s", path);
	r = io_flock(fd, true, false);
	if (r < 0)
		return err_set(err, r, "another command is at work on this project");
	h->lock = take_fd(&fd);
	return 0;
}

char *project_sandbox_name(const struct project_home *h, const char *name)
{
	return str_fmt("%s.%s", h->id, name);
}

/* ---- disks ---- */

void project_disk_done(struct project_disk *d)
{
	free(d->path);
	free(d->image);
	free(d->id);
	*d = (struct project_disk){0};
}

int project_disk_read(const struct project_home *h, const char *name, struct project_disk *ret,
		      struct err *err)
{
	cleanup_project_disk struct project_disk d = {0};
	cleanup_free char *note = str_fmt("%s/rw/%s/" DISK_NOTE, h->dir, name);
	json_t *o;

	d.path = str_fmt("%s/rw/%s/" UPPER_FILE, h->dir, name);
	if (!d.path || !note)
		return no_memory(err);
	if (access(d.path, F_OK) < 0)
		return errno == ENOENT ? err_set(err, ERR_NOT_FOUND, "there is no %s", d.path)
				       : err_errno(err, "cannot look at %s", d.path);
	o = note_read(note);
	d.image = note_text(o, "image");
	d.id = note_text(o, "id");
	d.size = (uint64_t)json_integer_value(json_object_get(o, "size"));
	json_decref(o);
	if (!d.image || !d.id) {
		err_set(err, ERR_CORRUPT, "%s is damaged", note);
		return err_hint(err, "`msb clean %s` throws away what was written in that sandbox",
				name);
	}
	*ret = d;
	d = (struct project_disk){0};
	return 0;
}

/* The note first: a disk without one would be a riddle, a note without a disk is nothing. */
int project_disk_make(const struct project_home *h, struct store *s, const char *name,
		      const char *image, const char *id, uint64_t size, struct project_disk *ret,
		      struct err *err)
{
	cleanup_project_disk struct project_disk d = {.size = size};
	cleanup_free char *dir = str_fmt("%s/rw/%s", h->dir, name);
	cleanup_free char *note = str_fmt("%s/rw/%s/" DISK_NOTE, h->dir, name);
	cleanup_close int fd = -1;
	int r;

	d.path = str_fmt("%s/rw/%s/" UPPER_FILE, h->dir, name);
	d.image = strdup(image);
	d.id = strdup(id);
	if (!dir || !note || !d.path || !d.image || !d.id)
		return no_memory(err);
	r = io_mkdir_p(dir, 0700, err);
	if (r == 0)
		r = note_write(note,
			       json_pack("{s:s,s:s,s:I}", "image", image, "id", id, "size",
					 (json_int_t)size),
			       err);
	if (r < 0)
		return r;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, "cannot open %s", dir);
	r = upper_create(s, fd, UPPER_FILE, size, true, err);
	if (r < 0)
		return r;
	*ret = d;
	d = (struct project_disk){0};
	return 0;
}

int project_disk_remove(const struct project_home *h, const char *name, struct err *err)
{
	cleanup_free char *dir = str_fmt("%s/rw/%s", h->dir, name);

	return dir ? io_remove_tree(dir, err) : no_memory(err);
}

int project_disks(const struct project_home *h, struct strv *ret, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/rw", h->dir);
	cleanup_dir DIR *d = path ? opendir(path) : NULL;
	struct dirent *e;

	if (!path)
		return no_memory(err);
	if (!d)
		return errno == ENOENT ? 0 : err_errno(err, "cannot read %s", path);
	while ((e = readdir(d))) {
		struct stat st;

		if (sandbox_name_check(e->d_name, NULL) < 0 ||
		    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISDIR(st.st_mode))
			continue;
		if (strv_add(ret, e->d_name) < 0)
			return no_memory(err);
	}
	return 0;
}

int project_home_remove(struct project_home *h, struct err *err)
{
	cleanup_free char *top = strdup(h->dir);
	int r = top ? io_remove_tree(h->dir, err) : no_memory(err);

	if (r == 0) {
		*strrchr(top, '/') = '\0';
		(void)rmdir(top);
	}
	h->lock = close_fd(h->lock);
	return r;
}

/* ---- projects that are gone ---- */

static const char *label(const struct sandbox_spec *s, const char *key)
{
	size_t n = strlen(key);

	for (size_t i = 0; i < s->labels.n; i++) {
		if (strncmp(s->labels.v[i], key, n) == 0 && s->labels.v[i][n] == '=')
			return s->labels.v[i] + n + 1;
	}
	return NULL;
}

bool project_heal(struct store *s, const struct sandbox_list *l)
{
	bool any = false;

	for (size_t i = 0; i < l->count; i++) {
		const struct sandbox_record *rec = l->items[i].record;
		const char *id = label(&rec->spec, PROJECT_LABEL);
		const char *dir = label(&rec->spec, PROJECT_LABEL_DIR);
		cleanup_free char *path = dir ? str_fmt("%s/" IDENTITY, dir) : NULL;
		cleanup_free char *there = NULL;
		json_t *o;

		if (l->items[i].running || !id || !path || !str_starts(rec->name, id))
			continue;
		/* Only what is not there for certain. */
		if (access(path, F_OK) < 0 && errno != ENOENT && errno != ENOTDIR)
			continue;
		o = note_read(path);
		there = note_text(o, "id");
		json_decref(o);
		/* Its disk is where the project is: nothing is lost. */
		if ((!there || !str_eq(there, id)) && rec->spec.root == SANDBOX_ROOT_FILE)
			any |= sandbox_remove(s, rec->name, false, NULL) == 0;
	}
	return any;
}
