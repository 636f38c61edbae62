/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image of another one and what was written above it.
 *
 * An overlay's upper directory says "removed" with a character device 0/0 and "nothing of what is
 * below" with an attribute of a directory; a layer says it with files called .wh.NAME and
 * .wh..wh..opq. The stream is a guest's, so it is read as any archive of a stranger's, and the
 * layer that comes out is converted like one.
 */
#include <errno.h>
#include <jansson.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "image/commit.h"
#include "image/limits.h"
#include "image/load.h"
#include "image/reference.h"
#include "tree/tar.h"
#include "tree/tar_write.h"

#define LAYER_NAME   "layer.tar"
#define WHITEOUT     ".wh."
#define OPAQUE	     ".wh..wh..opq"
#define OVERLAY_ATTR "trusted.overlay."
#define CHUNK	     ((size_t)256 << 10)

struct commit {
	int in;
	struct store_temp *out;
	struct hasher hash;
	struct buf b;
	uint8_t *chunk;
	uint64_t bytes, entries;
	void *whiteouts; /* tree of paths: others may be links to them */
	struct image_limits limits;
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static int next_piece(void *arg, const uint8_t **ret, size_t *len, struct err *err)
{
	struct commit *c = arg;
	ssize_t n = io_read_full(c->in, c->chunk, CHUNK);

	if (n < 0)
		return err_set(err, (int)n, "cannot read what was written: %s", err_name((int)n));
	*ret = c->chunk;
	*len = (size_t)n;
	return n > 0;
}

static int put(struct commit *c, const void *p, size_t n, struct err *err)
{
	int r;

	c->bytes += n;
	if (c->bytes > c->limits.layer_bytes)
		return err_set(err, ERR_LIMIT, "the layer would be larger than %llu bytes",
			       (unsigned long long)c->limits.layer_bytes);
	hasher_add(&c->hash, p, n);
	r = io_write_full(c->out->fd, p, n);
	return r < 0 ? store_write_error(c->out->store, r, err) : 0;
}

static int put_buf(struct commit *c, struct err *err)
{
	int r = buf_failed(&c->b) ? no_memory(err) : put(c, buf_ptr(&c->b), buf_size(&c->b), err);

	buf_reset(&c->b);
	return r;
}

static int put_entry(struct commit *c, const struct tar_entry *e, struct err *err)
{
	tar_put_entry(&c->b, e, NULL, 0);
	return put_buf(c, err);
}

/* Zeros: holes are told in a way that not everybody reads. */
static int put_hole(struct commit *c, uint64_t n, struct err *err)
{
	static const uint8_t zeros[64 << 10];
	int r = 0;

	for (; n && r == 0; n -= MIN(n, sizeof(zeros)))
		r = put(c, zeros, (size_t)MIN(n, sizeof(zeros)), err);
	return r;
}

static int put_data(struct commit *c, struct tar *t, uint64_t size, struct err *err)
{
	const uint8_t *p;
	uint64_t at = 0, off;
	size_t n;
	int r;

	while ((r = tar_data(t, &p, &n, &off, err)) > 0) {
		r = put_hole(c, off - at, err);
		if (r == 0)
			r = put(c, p, n, err);
		if (r < 0)
			return r;
		at = off + n;
	}
	if (r == 0)
		r = put_hole(c, size - at, err);
	if (r < 0)
		return r;
	tar_put_padding(&c->b, size);
	return put_buf(c, err);
}

/* An empty file of that name beside, or (for @inside) in, @path. */
static int put_mark(struct commit *c, const char *path, const char *mark, bool inside,
		    struct err *err)
{
	const char *slash = strrchr(path, '/');
	cleanup_free char *name = NULL;
	struct tar_entry e = {.type = TAR_FILE, .mode = 0644};

	if (inside)
		name = str_fmt("%s/%s", path, mark);
	else
		name = str_fmt("%.*s%s%s", slash ? (int)(slash + 1 - path) : 0, path, mark,
			       slash ? slash + 1 : path);
	if (!name)
		return no_memory(err);
	e.path = name;
	return put_entry(c, &e, err);
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int remember(struct commit *c, const char *path, struct err *err)
{
	char *copy = strdup(path), **at;

	at = copy ? tsearch(copy, &c->whiteouts, compare) : NULL;
	if (!at || *at != copy)
		free(copy);
	return at ? 0 : no_memory(err);
}

/* "a/b" of "./a/b/"; "" is the top. Into the tar reader's own memory. */
static const char *clean_path(char *path)
{
	size_t n;

	while (path[0] == '.' && path[1] == '/')
		path += 2;
	n = strlen(path);
	while (n && path[n - 1] == '/')
		path[--n] = '\0';
	return str_eq(path, ".") ? "" : path;
}

/* The overlay's own attributes say what they say, and stay behind. */
static int take_attributes(struct tar_entry *e, struct tar_xattr *kept, bool *opaque,
			   struct err *err)
{
	size_t n = 0;

	for (size_t i = 0; i < e->xattr_count; i++) {
		const struct tar_xattr *x = &e->xattrs[i];

		if (!str_starts(x->name, OVERLAY_ATTR)) {
			kept[n++] = *x;
			continue;
		}
		if (str_eq(x->name, OVERLAY_ATTR "opaque"))
			*opaque = x->len == 1 && x->value[0] == 'y';
		else if (str_eq(x->name, OVERLAY_ATTR "redirect") ||
			 str_eq(x->name, OVERLAY_ATTR "metacopy"))
			return err_set(err, ERR_UNSUPPORTED,
				       "%.200s was moved in a way that no layer can tell", e->path);
	}
	e->xattrs = kept;
	e->xattr_count = n;
	return 0;
}

static bool is_left_out(const char *path)
{
	static const char *const names[] = {"etc/hosts", "etc/hostname", "etc/resolv.conf"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(path, names[i]))
			return true;
	}
	return false;
}

static int take_entry(struct commit *c, struct tar *t, struct tar_entry *e, struct err *err)
{
	cleanup_free struct tar_xattr *kept = calloc(e->xattr_count + 1, sizeof(*kept));
	cleanup_free char *own = strdup(e->path);
	cleanup_free char *own_link = strdup(e->link ? e->link : "");
	const char *path = own ? clean_path(own) : NULL, *slash, *link;
	bool opaque = false;
	int r;

	if (!kept || !path || !own_link)
		return no_memory(err);
	if (++c->entries > c->limits.entries)
		return err_set(err, ERR_LIMIT, "the layer would have more than %llu entries",
			       (unsigned long long)c->limits.entries);
	/* The top is the image's; what is written anew at each start is nobody's. */
	if (!*path || (is_left_out(path) && e->type == TAR_FILE))
		return 0;
	slash = strrchr(path, '/');
	if (str_starts(slash ? slash + 1 : path, WHITEOUT))
		return err_set(err, ERR_UNSUPPORTED,
			       "%.200s has a name that means something else "
			       "in an image",
			       path);
	link = clean_path(own_link);
	if (e->type == TAR_HARDLINK && tfind(link, &c->whiteouts, compare))
		return put_mark(c, path, WHITEOUT, false, err);
	if (e->type == TAR_CHARDEV && !e->major && !e->minor) {
		r = remember(c, path, err);
		return r < 0 ? r : put_mark(c, path, WHITEOUT, false, err);
	}
	r = take_attributes(e, kept, &opaque, err);
	if (r < 0)
		return r;
	e->path = path;
	if (e->type == TAR_HARDLINK)
		e->link = link;
	if (e->type == TAR_DIRECTORY) {
		cleanup_free char *dir = str_fmt("%s/", path);

		if (!dir)
			return no_memory(err);
		e->path = dir;
		r = put_entry(c, e, err);
		return r == 0 && opaque ? put_mark(c, path, OPAQUE, true, err) : r;
	}
	r = put_entry(c, e, err);
	return r == 0 && e->type == TAR_FILE ? put_data(c, t, e->size, err) : r;
}

static int take_entries(struct commit *c, struct err *err)
{
	cleanup_tar struct tar *t = NULL;
	struct tar_entry e;
	int r = tar_open(&t, next_piece, NULL, c, err);

	while (r >= 0 && (r = tar_next(t, &e, err)) > 0)
		r = take_entry(c, t, &e, err);
	if (r == 0 && !tar_complete(t))
		r = err_set(err, ERR_CORRUPT, "what was written has not come whole");
	if (r < 0)
		return r;
	tar_put_end(&c->b);
	return put_buf(c, err);
}

int commit_layer(struct store_temp *out, int upper, const struct image_limits *l,
		 struct digest *ret, struct err *err)
{
	struct commit c = {.in = upper, .out = out, .limits = *l, .b = BUF_INIT};
	int r = hasher_init(&c.hash, err);

	if (r < 0)
		return r;
	c.chunk = malloc(CHUNK);
	r = c.chunk ? take_entries(&c, err) : no_memory(err);
	if (r == 0)
		r = hasher_finish(&c.hash, ret, err);
	hasher_done(&c.hash);
	tdestroy(c.whiteouts, free);
	buf_done(&c.b);
	free(c.chunk);
	return r;
}

/* ---- the configuration ---- */

static json_t *texts(char *const *v)
{
	json_t *list = json_array();

	for (; v && *v; v++)
		json_array_append_new(list, json_string(*v));
	return list;
}

/* Later ones of a name take the place of earlier ones. */
static json_t *join_env(json_t *old, char *const *add)
{
	json_t *list = json_array(), *v;
	size_t i;

	json_array_foreach(old, i, v)
	{
		const char *text = json_string_value(v);
		size_t n = text ? strcspn(text, "=") : 0;
		bool replaced = !text;

		for (char *const *a = add; a && *a; a++)
			replaced |= strncmp(*a, text ? text : "", n) == 0 && (*a)[n] == '=';
		if (!replaced)
			json_array_append(list, v);
	}
	for (; add && *add; add++)
		json_array_append_new(list, json_string(*add));
	return list;
}

static json_t *member(json_t *o, const char *key, json_t *fresh)
{
	json_t *v = json_object_get(o, key);

	if (!v || json_typeof(v) != json_typeof(fresh))
		json_object_set(o, key, fresh);
	json_decref(fresh);
	return json_object_get(o, key);
}

static char *make_config(const char *base, const struct digest *diff_id,
			 const struct image_commit_options *o)
{
	json_t *root = json_loads(base, 0, NULL), *config, *layers, *history;
	char text[IMAGE_DIGEST_LEN + 1], created[32];
	time_t now = time(NULL);
	struct tm tm;
	char *out;

	if (!json_is_object(root) || !gmtime_r(&now, &tm)) {
		json_decref(root);
		return NULL;
	}
	strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_object_set_new(root, "created", json_string(created));
	config = member(root, "config", json_object());
	layers = member(member(root, "rootfs", json_object()), "diff_ids", json_array());
	json_array_append_new(layers, json_string(digest_text(diff_id, text)));
	/* One for each layer, or none at all. */
	history = json_object_get(root, "history");
	if (json_array_size(history))
		json_array_append_new(history, json_pack("{s:s,s:s}", "created", created,
							 "created_by", "msb build"));
	if (o->env && *o->env)
		json_object_set_new(config, "Env",
				    join_env(json_object_get(config, "Env"), o->env));
	if (o->entrypoint && *o->entrypoint) {
		json_object_set_new(config, "Entrypoint", texts(o->entrypoint));
		json_object_del(config, "Cmd");
	}
	if (o->cmd && *o->cmd)
		json_object_set_new(config, "Cmd", texts(o->cmd));
	if (o->workdir)
		json_object_set_new(config, "WorkingDir", json_string(o->workdir));
	if (o->user)
		json_object_set_new(config, "User", json_string(o->user));
	out = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return out;
}

/* Its own layer is in @layer; those of the base are in the store. */
static int load(struct store *s, int layer, const struct image_info *base,
		const struct digest *diff_id, const struct image_commit_options *o,
		struct image_info *ret, struct err *err)
{
	const char *tags[] = {o->tag, NULL};
	const struct image_load_options lo = {.tags = tags};
	cleanup_source struct source *src = NULL;
	cleanup_image_list struct image_list list = {0};
	cleanup_free char *config = make_config(base->config_json, diff_id, o);
	cleanup_free struct oci_layer *layers = calloc(base->layer_count + 1, sizeof(*layers));
	char *no_names[] = {NULL};
	struct oci_image img = {.manifest_digest = (char *)"",
				.config_json = config,
				.names = no_names,
				.layers = layers,
				.layer_count = base->layer_count + 1};
	const struct oci_images images = {&img, 1};
	int r = 0;

	if (!config || !layers)
		return no_memory(err);
	for (size_t i = 0; i < img.layer_count; i++) {
		struct oci_layer *l = &layers[i];

		l->name = (char *)LAYER_NAME;
		l->media_type = (char *)"application/vnd.oci.image.layer.v1.tar";
		l->size = UINT64_MAX;
		if (i == base->layer_count)
			l->diff_id = *diff_id;
		else
			r = digest_parse(base->layers[i].diff_id, "a layer", &l->diff_id, err);
		if (r < 0)
			return r;
	}
	r = digest_of(config, strlen(config), &img.id, err);
	if (r >= 0)
		r = oci_parse_config(config, strlen(config), &img.config, NULL, NULL, err);
	if (r < 0)
		return r;
	r = source_open_file(&src, layer, LAYER_NAME, err);
	if (r >= 0)
		r = load_images(s, src, &images, &lo, &list, err);
	oci_config_done(&img.config);
	if (r < 0)
		return r;
	*ret = list.items[0];
	list.count = 0;
	return 0;
}

int image_commit(struct store *s, const char *base, int upper, const struct image_commit_options *o,
		 struct image_info *ret, struct err *err)
{
	cleanup_image_info struct image_info info = IMAGE_INFO_INIT;
	cleanup_temp struct store_temp layer = STORE_TEMP_INIT;
	cleanup_close int hold = -1;
	struct image_limits limits = {0};
	struct store_gc_result gc;
	struct digest diff_id;
	char ref[IMAGE_REFERENCE_MAX];
	int r = reference_normalise(o->tag, ref, err);

	if (r >= 0)
		r = image_limits_of(s, NULL, &limits, err);
	if (r >= 0)
		r = hold = store_hold(s, err);
	if (r >= 0)
		r = image_inspect(s, base, &info, err);
	if (r >= 0)
		r = store_temp_new(s, &layer, err);
	if (r < 0)
		return r;
	store_temp_unname(&layer);
	r = commit_layer(&layer, upper, &limits, &diff_id, err);
	if (r == 0)
		r = load(s, layer.fd, &info, &diff_id, o, ret, err);
	if (r == 0)
		return 0;
	/* A layer may have been published; without its image it is waste. */
	hold = close_fd(hold);
	store_gc(s, &gc, NULL);
	return r;
}
