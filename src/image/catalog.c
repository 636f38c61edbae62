/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images in the database. images.disk holds the disk as u32 metadata blocks and u32 CRC-32C of
 * them, then for each layer 32 bytes of diff_id and u32 blocks, little-endian: with it `msb run`
 * needs one row.
 */
#include <endian.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/catalog.h"
#include "image/crc32c.h"
#include "image/reference.h"

#define DISK_HEAD  8u
#define DISK_ENTRY 36u

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

void image_info_done(struct image_info *i)
{
	free(i->id);
	free(i->manifest_digest);
	str_list_free(i->references);
	free(i->config_json);
	oci_config_done(&i->config);
	for (size_t k = 0; k < i->layer_count; k++)
		free(i->layers[k].diff_id);
	free(i->layers);
	for (size_t k = 0; k < i->extent_count; k++)
		free(i->extents[k].path);
	free(i->extents);
	*i = (struct image_info)IMAGE_INFO_INIT;
}

void image_list_done(struct image_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		image_info_done(&l->items[i]);
	free(l->items);
	*l = (struct image_list){0};
}

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
	sqlite3_bind_text(st, at, text, -1, SQLITE_TRANSIENT);
}

static char *column_dup(sqlite3_stmt *st, int at)
{
	const char *t = (const char *)sqlite3_column_text(st, at);

	return strdup(t ? t : "");
}

int catalog_has(struct store *s, const struct digest *id, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	cleanup_close int fd = -1;
	char text[IMAGE_DIGEST_LEN + 1], name[80], hex[65];
	uint32_t head[2], crc = 0;
	struct digest is;
	int r = store_prepare(s, &st, "SELECT disk, config FROM images WHERE id = ?1", err);

	if (r < 0)
		return r;
	bind_text(st, 1, digest_text(id, text));
	r = store_step(s, st, err);
	if (r <= 0 || sqlite3_column_bytes(st, 0) < (int)sizeof(head))
		return r < 0 ? r : 0;
	memcpy(head, sqlite3_column_blob(st, 0), sizeof(head));
	r = digest_of(sqlite3_column_text(st, 1), (size_t)sqlite3_column_bytes(st, 1), &is, err);
	if (r < 0 || !digest_equal(&is, id))
		return r;
	snprintf(name, sizeof(name), "%s.erofs", digest_hex(id, hex));
	fd = openat(store_dirfd(s, STORE_IMAGES), name, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && crc32c_file(fd, (uint64_t)le32toh(head[0]) * EROFS_BLOCK, &crc) == 0 &&
	       crc == le32toh(head[1]);
}

/* What images.disk is for such an image: a new string of *ret_size bytes, or NULL. */
static uint8_t *make_disk(const struct digest *diff_ids, const struct layer_info *infos,
			  size_t layers, const struct merge_result *meta, size_t *ret_size)
{
	uint8_t *disk = malloc(DISK_HEAD + layers * DISK_ENTRY), *p = disk;
	const uint32_t head[2] = {htole32((uint32_t)meta->meta_blocks), htole32(meta->crc)};

	if (!disk)
		return NULL;
	memcpy(p, head, sizeof(head));
	p += DISK_HEAD;
	for (size_t i = 0; i < layers; i++, p += DISK_ENTRY) {
		const uint32_t v = htole32((uint32_t)infos[i].data_blocks);

		memcpy(p, diff_ids[i].sha256, 32);
		memcpy(p + 32, &v, 4);
	}
	*ret_size = (size_t)(p - disk);
	return disk;
}

static int add_image(struct store *s, const struct oci_image *img, const struct layer_info *infos,
		     const struct merge_result *meta, const char *id, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	cleanup_free struct digest *diff_ids = calloc(img->layer_count + 1, sizeof(*diff_ids));
	cleanup_free uint8_t *disk = NULL;
	uint64_t size = 0, stored = meta->meta_blocks * EROFS_BLOCK;
	size_t disk_size = 0;
	int r;

	for (size_t i = 0; diff_ids && i < img->layer_count; i++) {
		diff_ids[i] = img->layers[i].diff_id;
		size += infos[i].bytes;
		stored += infos[i].stored;
	}
	if (diff_ids)
		disk = make_disk(diff_ids, infos, img->layer_count, meta, &disk_size);
	if (!disk)
		return no_memory(err);
	r = store_prepare(s, &st,
			  "INSERT INTO images VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)"
			  " ON CONFLICT(id) DO UPDATE SET manifest_digest ="
			  " CASE WHEN excluded.manifest_digest = '' THEN manifest_digest"
			  " ELSE excluded.manifest_digest END, stored = excluded.stored,"
			  " config = excluded.config, meta_bytes = excluded.meta_bytes,"
			  " loaded_at = excluded.loaded_at,"
			  " disk = excluded.disk",
			  err);
	if (r < 0)
		return r;
	bind_text(st, 1, id);
	bind_text(st, 2, img->manifest_digest);
	bind_text(st, 3, img->config_json);
	bind_text(st, 4, img->config.architecture);
	bind_text(st, 5, img->config.os);
	bind_text(st, 6, img->config.created);
	sqlite3_bind_int64(st, 7, (sqlite3_int64)size);
	sqlite3_bind_int64(st, 8, (sqlite3_int64)stored);
	sqlite3_bind_int64(st, 9, (sqlite3_int64)(meta->meta_blocks * EROFS_BLOCK));
	sqlite3_bind_int64(st, 10, time(NULL));
	sqlite3_bind_blob(st, 11, disk, (int)disk_size, SQLITE_TRANSIENT);
	return store_step(s, st, err);
}

int catalog_mend(struct store *s, const struct digest *id, const struct digest *diff_ids,
		 const struct layer_info *infos, size_t layers, const struct merge_result *meta,
		 struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	cleanup_free uint8_t *disk = NULL;
	char text[IMAGE_DIGEST_LEN + 1];
	size_t size = 0;
	int r = store_prepare(s, &st,
			      "UPDATE images SET disk = ?2, meta_bytes = ?3"
			      " WHERE id = ?1 AND disk != ?2",
			      err);

	if (r < 0)
		return r;
	disk = make_disk(diff_ids, infos, layers, meta, &size);
	if (!disk)
		return no_memory(err);
	bind_text(st, 1, digest_text(id, text));
	sqlite3_bind_blob(st, 2, disk, (int)size, SQLITE_TRANSIENT);
	sqlite3_bind_int64(st, 3, (sqlite3_int64)(meta->meta_blocks * EROFS_BLOCK));
	r = store_step(s, st, err);
	return r < 0 ? r : sqlite3_changes(store_db(s)) > 0;
}

static int add_layers(struct store *s, const struct oci_image *img, const struct layer_info *infos,
		      const char *id, struct err *err)
{
	cleanup_stmt sqlite3_stmt *layer = NULL, *use = NULL;
	int r = store_prepare(s, &layer, "INSERT OR REPLACE INTO layers VALUES(?1,?2,?3,?4,?5)",
			      err);

	if (r >= 0)
		r = store_prepare(s, &use,
				  "INSERT OR REPLACE INTO image_layers VALUES(?1,?2,?3,?4,?5,?6)",
				  err);
	for (size_t i = 0; r >= 0 && i < img->layer_count; i++) {
		const struct oci_layer *l = &img->layers[i];
		char diff_id[IMAGE_DIGEST_LEN + 1], digest[IMAGE_DIGEST_LEN + 1] = "";

		sqlite3_reset(layer);
		bind_text(layer, 1, digest_text(&l->diff_id, diff_id));
		sqlite3_bind_int64(layer, 2, (sqlite3_int64)infos[i].bytes);
		sqlite3_bind_int64(layer, 3, (sqlite3_int64)infos[i].entries);
		sqlite3_bind_int64(layer, 4, (sqlite3_int64)infos[i].data_blocks);
		sqlite3_bind_int64(layer, 5, (sqlite3_int64)infos[i].stored);
		r = store_step(s, layer, err);
		if (r < 0)
			break;
		sqlite3_reset(use);
		bind_text(use, 1, id);
		sqlite3_bind_int64(use, 2, (sqlite3_int64)i);
		bind_text(use, 3, diff_id);
		bind_text(use, 4, l->has_digest ? digest_text(&l->digest, digest) : "");
		bind_text(use, 5, l->media_type);
		sqlite3_bind_int64(use, 6, l->size == UINT64_MAX ? 0 : (sqlite3_int64)l->size);
		r = store_step(s, use, err);
	}
	return r;
}

int catalog_add(struct store *s, const struct oci_image *img, const struct layer_info *infos,
		const struct merge_result *meta, struct err *err)
{
	char id[IMAGE_DIGEST_LEN + 1];
	/* REPLACE on layers would trip the references to them until the end of the transaction. */
	int r = store_exec(s, "PRAGMA defer_foreign_keys=ON", err);

	if (r >= 0)
		r = add_image(s, img, infos, meta, digest_text(&img->id, id), err);
	return r < 0 ? r : add_layers(s, img, infos, id, err);
}

int catalog_set_ref(struct store *s, const char *ref, const struct digest *id, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	char text[IMAGE_DIGEST_LEN + 1];
	int r = store_prepare(s, &st, "INSERT OR REPLACE INTO refs VALUES(?1,?2)", err);

	if (r < 0)
		return r;
	bind_text(st, 1, ref);
	bind_text(st, 2, digest_text(id, text));
	return store_step(s, st, err);
}

/* --- Finding --- */

static const char image_columns[] = "SELECT i.id, i.manifest_digest, i.config, i.size, i.stored,"
				    " i.loaded_at, i.disk FROM images i ";

static int damaged_row(struct store *s, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "the database of the store at %s holds a damaged image",
		       store_home(s));
}

static int add_extent(struct store *s, struct image_info *i, enum store_dir dir, const char *name,
		      uint64_t blocks, struct err *err)
{
	char path[PATH_MAX];
	int r;

	if (!blocks)
		return 0;
	r = store_path(s, dir, name, path, sizeof(path), err);
	if (r < 0)
		return r;
	i->extents[i->extent_count].path = strdup(path);
	if (!i->extents[i->extent_count].path)
		return no_memory(err);
	i->extents[i->extent_count].blocks = blocks;
	i->extent_count++;
	i->blocks += blocks;
	return 0;
}

static int read_disk(struct store *s, struct image_info *i, const uint8_t *p, size_t n,
		     struct err *err)
{
	const size_t layers = n >= DISK_HEAD ? (n - DISK_HEAD) / DISK_ENTRY : 0;
	char name[80], hex[65];
	uint32_t v, head[2];
	int r;

	if (n < DISK_HEAD || n != DISK_HEAD + layers * DISK_ENTRY)
		return damaged_row(s, err);
	i->extents = calloc(layers + 1, sizeof(*i->extents));
	if (!i->extents)
		return no_memory(err);
	memcpy(head, p, sizeof(head));
	i->meta_crc = le32toh(head[1]);
	snprintf(name, sizeof(name), "%s.erofs", i->id + strlen("sha256:"));
	r = add_extent(s, i, STORE_IMAGES, name, le32toh(head[0]), err);
	p += DISK_HEAD;
	for (size_t k = 0; r >= 0 && k < layers; k++, p += DISK_ENTRY) {
		memcpy(&v, p + 32, 4);
		str_hex(p, 32, hex);
		snprintf(name, sizeof(name), "%s.data", hex);
		r = add_extent(s, i, STORE_LAYERS, name, le32toh(v), err);
	}
	return r;
}

/* What of a row is read, and whether one with a damaged configuration is a row as well. */
enum { ROW_DISK = 1, ROW_ANY = 2 };

static int read_config(const char *json, unsigned flags, struct image_config *ret, struct err *err)
{
	static const char nothing[] = "{\"architecture\":\"\",\"os\":\"\",\"rootfs\":{\"type\":"
				      "\"layers\",\"diff_ids\":[]}}";
	int r = oci_parse_config(json, strlen(json), ret, NULL, NULL, err);

	if (r != -ERR_CORRUPT || !(flags & ROW_ANY))
		return r;
	err_clear(err);
	return oci_parse_config(nothing, sizeof(nothing) - 1, ret, NULL, NULL, err);
}

static int read_row(struct store *s, sqlite3_stmt *st, unsigned flags, struct image_info *ret,
		    struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	const char *json = (const char *)sqlite3_column_text(st, 2);
	int r;

	i.id = column_dup(st, 0);
	i.manifest_digest = column_dup(st, 1);
	i.config_json = column_dup(st, 2);
	i.references = calloc(1, sizeof(*i.references));
	if (!i.id || !i.manifest_digest || !i.config_json || !i.references)
		return no_memory(err);
	if (strlen(i.id) != IMAGE_DIGEST_LEN || !json)
		return damaged_row(s, err);
	i.size = (uint64_t)sqlite3_column_int64(st, 3);
	i.stored = (uint64_t)sqlite3_column_int64(st, 4);
	i.loaded_at = sqlite3_column_int64(st, 5);
	r = read_config(json, flags, &i.config, err);
	if (r == -ERR_CORRUPT) {
		err_wrap(err, "image %s", i.id);
		return err_hint(err, "load the image again, which mends it");
	}
	if (r >= 0 && flags & ROW_DISK)
		r = read_disk(s, &i, sqlite3_column_blob(st, 6),
			      (size_t)sqlite3_column_bytes(st, 6), err);
	if (r < 0)
		return r;
	*ret = i;
	i = (struct image_info)IMAGE_INFO_INIT;
	return 0;
}

/* 1 and the image, 0 if there is none, -ERR_USAGE if several fit. */
static int find_where(struct store *s, const char *where, const char *a, const char *b,
		      unsigned flags, struct image_info *ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	char sql[512];
	int r;

	snprintf(sql, sizeof(sql), "%s%s", image_columns, where);
	r = store_prepare(s, &st, sql, err);
	if (r < 0)
		return r;
	bind_text(st, 1, a);
	if (b)
		bind_text(st, 2, b);
	r = store_step(s, st, err);
	if (r <= 0)
		return r;
	r = read_row(s, st, flags, ret, err);
	if (r < 0)
		return r;
	r = store_step(s, st, err);
	if (r == 0)
		return 1;
	image_info_done(ret);
	return r < 0 ? r
		     : err_set(err, ERR_USAGE, "several images fit \"%s\"; give more of the id", a);
}

/* "sha256:ab12" or "ab12" to its bounds as an id; false if it cannot be one. */
static bool id_prefix(const char *ref, char lo[IMAGE_DIGEST_LEN + 1], char hi[IMAGE_DIGEST_LEN + 2])
{
	const char *hex = str_starts(ref, "sha256:") ? ref + 7 : ref;
	size_t n = strlen(hex);

	if (n < IMAGE_ID_PREFIX_MIN || n > 64 || strspn(hex, "0123456789abcdef") != n)
		return false;
	snprintf(lo, IMAGE_DIGEST_LEN + 1, "sha256:%.64s", hex);
	snprintf(hi, IMAGE_DIGEST_LEN + 2, "sha256:%.64sg", hex);
	return true;
}

static int find(struct store *s, const char *ref, unsigned flags, struct image_info *ret,
		struct err *err)
{
	struct image_info i = IMAGE_INFO_INIT;
	struct reference parsed;
	struct err bad = ERR_INIT;
	char full[IMAGE_REFERENCE_MAX], lo[IMAGE_DIGEST_LEN + 1], hi[IMAGE_DIGEST_LEN + 2];
	const bool is_ref = reference_parse(ref, &parsed, &bad) >= 0;
	const bool is_id = id_prefix(ref, lo, hi);
	int r = 0;

	if (!is_ref && !is_id)
		return err_copy(err, &bad);
	if (is_ref && !str_starts(ref, "sha256:")) {
		reference_format(&parsed, full);
		r = find_where(s, "JOIN refs r ON r.image_id = i.id WHERE r.reference = ?1", full,
			       NULL, flags, &i, err);
		if (r == 0 && parsed.digest[0])
			r = find_where(s, "WHERE i.manifest_digest = ?1 OR i.id = ?1",
				       parsed.digest, NULL, flags, &i, err);
	}
	if (r == 0 && is_id)
		r = find_where(s, "WHERE i.id >= ?1 AND i.id < ?2 LIMIT 2", lo, hi, flags, &i, err);
	if (r < 0)
		return r;
	if (r == 0) {
		err_set(err, ERR_NOT_FOUND, "there is no image \"%.200s\" in the store", ref);
		return err_hint(
			err, "`msb image ls` lists the images; `msb load -i FILE` brings one in");
	}
	*ret = i;
	return 0;
}

int image_find(struct store *s, const char *ref, struct image_info *ret, struct err *err)
{
	return find(s, ref, ROW_DISK, ret, err);
}

static int fill_references(struct store *s, struct image_info *i, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	size_t n = 0;
	int r = store_prepare(s, &st, "SELECT reference FROM refs WHERE image_id = ?1 ORDER BY 1",
			      err);

	if (r < 0)
		return r;
	bind_text(st, 1, i->id);
	while ((r = store_step(s, st, err)) > 0) {
		char **v = realloc(i->references, (n + 2) * sizeof(*v));

		if (!v)
			return no_memory(err);
		i->references = v;
		v[n + 1] = NULL;
		v[n] = column_dup(st, 0);
		if (!v[n++])
			return no_memory(err);
	}
	return r;
}

int catalog_find_any(struct store *s, const char *ref, struct image_info *ret, struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	int r = find(s, ref, ROW_ANY, &i, err);

	if (r >= 0)
		r = fill_references(s, &i, err);
	if (r < 0)
		return r;
	*ret = i;
	i = (struct image_info)IMAGE_INFO_INIT;
	return 0;
}

/* Space on disk that the file of that digest takes; 0 if it is not there. */
static uint64_t blob_space(struct store *s, enum store_dir dir, const char *digest,
			   const char *suffix)
{
	char name[96];
	struct stat st;

	snprintf(name, sizeof(name), "%.64s.%s",
		 str_starts(digest, "sha256:") ? digest + strlen("sha256:") : digest, suffix);
	return fstatat(store_dirfd(s, dir), name, &st, AT_SYMLINK_NOFOLLOW) == 0
		       ? (uint64_t)st.st_blocks * 512
		       : 0;
}

static uint64_t layer_space(struct store *s, const char *diff_id)
{
	uint64_t sum = 0;

	for (size_t k = 0; k < ARRAY_SIZE(layer_suffixes); k++)
		sum += blob_space(s, STORE_LAYERS, diff_id, layer_suffixes[k]);
	return sum;
}

static int fill_layers(struct store *s, struct image_info *i, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = store_prepare(
		s, &st,
		"SELECT l.diff_id, l.bytes, l.entries FROM image_layers u"
		" JOIN layers l USING(diff_id) WHERE u.image_id = ?1 ORDER BY u.position",
		err);

	if (r < 0)
		return r;
	bind_text(st, 1, i->id);
	i->stored = blob_space(s, STORE_IMAGES, i->id, "erofs");
	while ((r = store_step(s, st, err)) > 0) {
		struct image_layer_info *v =
			realloc(i->layers, (i->layer_count + 1) * sizeof(*i->layers));

		if (!v)
			return no_memory(err);
		i->layers = v;
		v[i->layer_count] =
			(struct image_layer_info){column_dup(st, 0),
						  (uint64_t)sqlite3_column_int64(st, 1),
						  (uint64_t)sqlite3_column_int64(st, 2), 0};
		if (!v[i->layer_count].diff_id)
			return no_memory(err);
		v[i->layer_count].stored = layer_space(s, v[i->layer_count].diff_id);
		i->stored += v[i->layer_count++].stored;
	}
	return r;
}

int image_inspect(struct store *s, const char *ref, struct image_info *ret, struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	int r = image_find(s, ref, &i, err);

	if (r >= 0)
		r = fill_references(s, &i, err);
	if (r >= 0)
		r = fill_layers(s, &i, err);
	if (r < 0)
		return r;
	*ret = i;
	i = (struct image_info)IMAGE_INFO_INIT;
	return 0;
}

int image_list(struct store *s, struct image_list *ret, struct err *err)
{
	cleanup_image_list struct image_list l = {0};
	cleanup_stmt sqlite3_stmt *st = NULL;
	char sql[512];
	int r;

	snprintf(sql, sizeof(sql), "%sORDER BY i.loaded_at DESC, i.id", image_columns);
	r = store_prepare(s, &st, sql, err);
	if (r < 0)
		return r;
	while ((r = store_step(s, st, err)) > 0) {
		struct image_info *v = realloc(l.items, (l.count + 1) * sizeof(*v));

		if (!v)
			return no_memory(err);
		l.items = v;
		v[l.count] = (struct image_info)IMAGE_INFO_INIT;
		r = read_row(s, st, ROW_ANY, &v[l.count++], err);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; r >= 0 && i < l.count; i++) {
		r = fill_references(s, &l.items[i], err);
		if (r >= 0)
			r = fill_layers(s, &l.items[i], err);
	}
	if (r < 0)
		return r;
	*ret = l;
	l = (struct image_list){0};
	return 0;
}
