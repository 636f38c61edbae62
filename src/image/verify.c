/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading images back and comparing them with their checksums.
 *
 * What can be made again is: an image's metadata from its layers, its row from both. A layer
 * cannot; a damaged one is set aside, so that no sandbox starts with it and the next load or pull
 * of an image that has it makes it anew.
 */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "image/catalog.h"
#include "image/crc32c.h"
#include "image/limits.h"

#define COMPARE_PIECE 65536u

struct verify {
	struct store *store;
	const struct image_limits *limits;
	image_verify_fn *fn;
	void *arg;
	struct image_verified res;
	/* Layers that have been looked at, and whether they are sound; images share them. */
	struct seen {
		struct digest diff_id;
		bool sound;
	} * seen;
	size_t seen_count;
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static void tell(struct verify *v, enum image_verify_event event, const char *what,
		 const struct err *err)
{
	if (event == IMAGE_VERIFY_DAMAGED)
		v->res.damaged++;
	else if (event == IMAGE_VERIFY_MENDED)
		v->res.mended++;
	if (v->fn)
		v->fn(v->arg, event, what, err);
}

static int check_layer(struct verify *v, const struct digest *diff_id, bool *ret, struct err *err)
{
	cleanup_lock struct store_lock lock = STORE_LOCK_INIT;
	char hex[65], text[IMAGE_DIGEST_LEN + 1];
	struct err why = ERR_INIT;
	struct seen *seen;
	bool data = false;
	int r;

	for (size_t i = 0; i < v->seen_count; i++)
		if (digest_equal(&v->seen[i].diff_id, diff_id)) {
			*ret = v->seen[i].sound;
			return 0;
		}
	seen = realloc(v->seen, (v->seen_count + 1) * sizeof(*seen));
	if (!seen)
		return no_memory(err);
	v->seen = seen;
	r = store_lock(v->store, digest_hex(diff_id, hex), &lock, err);
	if (r < 0)
		return r;
	tell(v, IMAGE_VERIFY_LAYER, digest_text(diff_id, text), NULL);
	r = layer_verify(v->store, diff_id, &data, &why);
	if (r == -ENOMEM || r == -EMFILE || r == -ENFILE)
		return err_copy(err, &why);
	if (r < 0) {
		err_wrap(&why, "layer %s", text);
		err_hint(&why, "load an image that has it again, which mends it");
		layer_set_aside(v->store, diff_id, data);
		tell(v, IMAGE_VERIFY_DAMAGED, text, &why);
	}
	v->seen[v->seen_count++] = (struct seen){*diff_id, r >= 0};
	v->res.layers++;
	*ret = r >= 0;
	return 0;
}

/* 1 if the first @size bytes of both are the same and @b has no more. */
static int same_bytes(int a, int b, uint64_t size, struct err *err)
{
	cleanup_free uint8_t *buf = malloc(2 * COMPARE_PIECE);

	if (!buf)
		return no_memory(err);
	for (uint64_t at = 0;; at += COMPARE_PIECE) {
		uint64_t left = at < size ? size - at : 0;
		size_t want = (size_t)MIN(left, (uint64_t)COMPARE_PIECE);
		ssize_t n = io_pread_full(a, buf, want, at);
		ssize_t m = io_pread_full(b, buf + COMPARE_PIECE, COMPARE_PIECE, at);

		if (n < 0)
			return err_set(err, (int)n, "cannot read the store");
		if (n != m || memcmp(buf, buf + COMPARE_PIECE, (size_t)n) != 0)
			return 0;
		if (n == 0)
			return 1;
	}
}

/* Metadata and row, against what the layers make of them. */
static int check_meta(struct verify *v, const struct digest *id, const struct digest *diff_ids,
		      size_t layers, struct err *err)
{
	cleanup_temp struct store_temp temp = STORE_TEMP_INIT;
	cleanup_free struct layer_info *infos = calloc(layers + 1, sizeof(*infos));
	cleanup_lock struct store_lock lock = STORE_LOCK_INIT;
	cleanup_close int fd = -1;
	struct merge_result meta;
	char hex[65], name[80], text[IMAGE_DIGEST_LEN + 1];
	int r, same;

	if (!infos)
		return no_memory(err);
	snprintf(name, sizeof(name), "image-%s", digest_hex(id, hex));
	r = store_lock(v->store, name, &lock, err);
	for (size_t k = 0; r >= 0 && k < layers; k++) {
		cleanup_layer struct layer_reader *l = NULL;

		r = layer_open(&l, v->store, &diff_ids[k], err);
		if (r >= 0)
			infos[k] = *layer_info(l);
	}
	if (r >= 0)
		r = store_temp_new(v->store, &temp, err);
	if (r >= 0)
		r = merge_layers(v->store, diff_ids, layers, v->limits, id->sha256, temp.fd, &meta,
				 err);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%s.erofs", hex);
	fd = openat(store_dirfd(v->store, STORE_IMAGES), name, O_RDONLY | O_CLOEXEC);
	same = fd < 0 ? 0 : same_bytes(temp.fd, fd, meta.meta_blocks * EROFS_BLOCK, err);
	if (same < 0)
		return same;
	if (!same) {
		r = store_temp_publish(&temp, STORE_IMAGES, name, err);
		if (r >= 0)
			r = store_sync_dir(v->store, STORE_IMAGES, err);
	}
	if (r >= 0)
		r = catalog_mend(v->store, id, diff_ids, infos, layers, &meta, err);
	if (r < 0)
		return r;
	if (!same || r > 0)
		tell(v, IMAGE_VERIFY_MENDED, digest_text(id, text), NULL);
	return 0;
}

static int check_config(const struct image_info *i, const struct digest *id, struct err *err)
{
	struct digest is;
	int r = digest_of(i->config_json, strlen(i->config_json), &is, err);

	if (r < 0 || digest_equal(&is, id))
		return r;
	err_set(err, ERR_CORRUPT, "the configuration of image %s is damaged", i->id);
	return err_hint(err, "load the image again, which mends it");
}

static int check_image(struct verify *v, const char *ref, struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	cleanup_free struct digest *diff_ids = NULL;
	struct err why = ERR_INIT;
	struct digest id;
	bool sound = true;
	int r = image_inspect(v->store, ref, &i, &why);

	if (r == -ERR_NOT_FOUND || r == -ERR_USAGE)
		return err_copy(err, &why);
	v->res.images++;
	tell(v, IMAGE_VERIFY_IMAGE, ref, NULL);
	diff_ids = calloc(i.layer_count + 1, sizeof(*diff_ids));
	if (!diff_ids)
		return no_memory(err);
	if (r >= 0)
		r = digest_parse(i.id, "the image id", &id, &why);
	if (r >= 0)
		r = check_config(&i, &id, &why);
	for (size_t k = 0; r >= 0 && k < i.layer_count; k++) {
		bool good = false;

		r = digest_parse(i.layers[k].diff_id, "a diff_id", &diff_ids[k], &why);
		if (r >= 0)
			r = check_layer(v, &diff_ids[k], &good, &why);
		sound &= good;
	}
	if (r >= 0 && sound)
		r = check_meta(v, &id, diff_ids, i.layer_count, &why);
	/* That of one image says nothing about the others. */
	if (r == -ERR_CORRUPT || r == -EIO) {
		tell(v, IMAGE_VERIFY_DAMAGED, ref, &why);
		return 0;
	}
	return r < 0 ? err_copy(err, &why) : 0;
}

/* SQLite's own opinion. */
static int check_database(struct verify *v, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	struct err why = ERR_INIT;
	const char *text;
	int r = store_prepare(v->store, &st, "PRAGMA integrity_check(1)", err);

	if (r >= 0)
		r = store_step(v->store, st, err);
	if (r < 0)
		return r;
	text = r ? (const char *)sqlite3_column_text(st, 0) : NULL;
	if (text && str_eq(text, "ok"))
		return 0;
	err_set(&why, ERR_CORRUPT, "the database of the store at %s is damaged: %s",
		store_home(v->store), text ? text : "no answer");
	err_hint(&why, "move msb.db away (with its -wal and -shm) and load the images again; "
		       "layers that are still good are found and reused");
	tell(v, IMAGE_VERIFY_DAMAGED, "msb.db", &why);
	return 0;
}

static int all_ids(struct store *s, struct strv *ids, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = store_prepare(s, &st, "SELECT id FROM images ORDER BY id", err);

	while (r >= 0 && (r = store_step(s, st, err)) > 0)
		if (strv_add(ids, (const char *)sqlite3_column_text(st, 0)) < 0)
			return no_memory(err);
	return r;
}

int image_verify(struct store *s, const char *const *refs, image_verify_fn *fn, void *arg,
		 struct image_verified *ret, struct err *err)
{
	struct image_limits limits = {0};
	struct verify v = {.store = s, .limits = &limits, .fn = fn, .arg = arg};
	cleanup_close int hold = store_hold(s, err);
	cleanup_strv struct strv ids = {0};
	int r = hold < 0 ? hold : image_limits_of(s, NULL, &limits, err);

	if (r >= 0 && !refs) {
		r = check_database(&v, err);
		if (r >= 0)
			r = all_ids(s, &ids, err);
		refs = (const char *const *)ids.v;
	}
	for (; r >= 0 && refs && *refs; refs++)
		r = check_image(&v, *refs, err);
	free(v.seen);
	if (r < 0)
		return r;
	*ret = v.res;
	return v.res.damaged ? err_set(err, ERR_CORRUPT, "%llu damaged",
				       (unsigned long long)v.res.damaged)
			     : 0;
}

int image_check(int hold, const struct image_info *i, struct err *err)
{
	uint32_t crc = 0;
	int r = i->extent_count ? crc32c_file(hold, i->extents[0].blocks * IMAGE_BLOCK, &crc) : 0;

	if (r == 0 && crc == i->meta_crc)
		return 0;
	if (r < 0 && r != -ERR_CORRUPT && r != -EIO)
		return err_set(err, r, "cannot read the image %s: %s", i->id, err_name(-r));
	err_set(err, ERR_CORRUPT, "the metadata of image %s is damaged", i->id);
	return err_hint(err, "`msb image verify` mends it");
}
