/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing images out: an OCI layout as a tar archive, and for Docker the same with the
 * manifest.json that its older versions read, as its newer ones write it.
 *
 * Layers go uncompressed: their digests and lengths are known beforehand then, so that everything
 * is written in one pass, to a pipe if need be, and the same images make the same bytes wherever
 * and whenever they are saved. The configuration is the original's, and so is the image's id.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "image/image.h"
#include "image/layer_tar.h"
#include "image/reference.h"

#define TAR_BLOCK 512u
#define MEDIA	  "application/vnd.oci.image."

static const uint8_t zeros[2 * TAR_BLOCK];

struct saved_layer {
	struct digest diff_id;
	uint64_t bytes;
};

struct saved_image {
	struct image_info info;
	struct strv names;
	struct digest id, manifest_id;
	char *manifest;
	struct saved_layer *layers;
};

struct save {
	struct store *store;
	enum image_archive format;
	int fd;
	image_progress_fn *progress;
	void *progress_arg;
	struct saved_image *images;
	size_t count;
	/* Blobs that are in the archive already; images share layers. */
	struct digest *done;
	size_t done_count;
	unsigned layer, layers; /* for progress */
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static int put(struct save *s, const void *p, size_t n, struct err *err)
{
	int r = io_write_full(s->fd, p, n);

	if (r == -ENOSPC || r == -EDQUOT) {
		err_set(err, r, "cannot write the archive: %s", err_name(-r));
		return err_hint(err, "free some space, or write it elsewhere");
	}
	return r < 0 ? err_set(err, r, "cannot write the archive: %s", err_name(-r)) : 0;
}

/* ustar, with GNU's binary size where eleven octal digits do not do. */
static int put_header(struct save *s, const char *name, uint64_t size, struct err *err)
{
	uint8_t h[TAR_BLOCK] = {0};
	unsigned sum = 0;

	snprintf((char *)h, 100, "%s", name);
	memcpy(h + 100,
	       "0000644\0"
	       "0000000\0"
	       "0000000\0",
	       24);
	if (size >> 33) {
		h[124] = 0x80;
		for (unsigned i = 0; i < 8; i++)
			h[124 + 4 + i] = (uint8_t)(size >> (56 - 8 * i));
	} else {
		snprintf((char *)h + 124, 12, "%011llo", (unsigned long long)size);
	}
	memcpy(h + 136, "00000000000", 11);
	h[156] = '0';
	memcpy(h + 257,
	       "ustar\0"
	       "00",
	       8);
	memset(h + 148, ' ', 8);
	for (unsigned i = 0; i < TAR_BLOCK; i++)
		sum += h[i];
	snprintf((char *)h + 148, 8, "%06o", sum);
	return put(s, h, sizeof(h), err);
}

static int put_padding(struct save *s, uint64_t size, struct err *err)
{
	return put(s, zeros, (size_t)(-size & (TAR_BLOCK - 1)), err);
}

static int put_file(struct save *s, const char *name, const void *p, size_t n, struct err *err)
{
	int r = put_header(s, name, n, err);

	if (r >= 0)
		r = put(s, p, n, err);
	return r < 0 ? r : put_padding(s, n, err);
}

static int put_json(struct save *s, const char *name, const json_t *j, struct err *err)
{
	cleanup_free char *text = json_dumps(j, JSON_COMPACT);

	return text ? put_file(s, name, text, strlen(text), err) : no_memory(err);
}

static void blob_name(const struct digest *d, char out[80])
{
	char hex[65];

	snprintf(out, 80, "blobs/sha256/%s", digest_hex(d, hex));
}

/* false if that blob is there already; else it is about to be. */
static bool first_time(struct save *s, const struct digest *d)
{
	for (size_t i = 0; i < s->done_count; i++)
		if (digest_equal(&s->done[i], d))
			return false;
	s->done[s->done_count++] = *d;
	return true;
}

static int put_blob(struct save *s, const struct digest *d, const char *text, struct err *err)
{
	char name[80];

	if (!first_time(s, d))
		return 0;
	blob_name(d, name);
	return put_file(s, name, text, strlen(text), err);
}

static int put_layer(struct save *s, const struct saved_layer *l, struct err *err)
{
	cleanup_layer_tar struct layer_tar *t = NULL;
	cleanup_hasher struct hasher h = {0};
	char name[80], text[IMAGE_DIGEST_LEN + 1];
	struct image_progress report = {.stage = IMAGE_STAGE_SAVE, .total = l->bytes};
	struct digest is;
	const uint8_t *p;
	size_t n;
	int r;

	if (!first_time(s, &l->diff_id))
		return 0;
	report.layer = s->layer++;
	report.layers = s->layers;
	report.text = digest_text(&l->diff_id, text);
	blob_name(&l->diff_id, name);
	r = layer_tar_open(&t, s->store, &l->diff_id, err);
	if (r >= 0)
		r = hasher_init(&h, err);
	if (r >= 0)
		r = put_header(s, name, l->bytes, err);
	while (r >= 0 && (r = layer_tar_next(t, &p, &n, err)) > 0) {
		hasher_add(&h, p, n);
		r = put(s, p, n, err);
		report.done += n;
		if (s->progress)
			s->progress(s->progress_arg, &report);
	}
	if (r >= 0)
		r = hasher_finish(&h, &is, err);
	if (r >= 0 && !digest_equal(&is, &l->diff_id))
		r = err_set(err, ERR_CORRUPT, "it makes another tar stream than it was");
	if (r == -ERR_CORRUPT) {
		err_wrap(err, "layer %s is damaged", text);
		return err_hint(err, "run `msb image verify` and load the image again, which mends "
				     "it");
	}
	return r < 0 ? r : put_padding(s, l->bytes, err);
}

static json_t *descriptor(const char *type, const struct digest *d, uint64_t size)
{
	char text[IMAGE_DIGEST_LEN + 1];

	return json_pack("{s:s,s:s,s:I}", "mediaType", type, "digest", digest_text(d, text), "size",
			 (json_int_t)size);
}

static int make_manifest(struct saved_image *i, struct err *err)
{
	json_t *layers = json_array(), *root;
	int r;

	for (size_t k = 0; k < i->info.layer_count; k++)
		json_array_append_new(layers,
				      descriptor(MEDIA "layer.v1.tar", &i->layers[k].diff_id,
						 i->layers[k].bytes));
	root = json_pack("{s:i,s:s,s:o,s:o}", "schemaVersion", 2, "mediaType",
			 MEDIA "manifest.v1+json", "config",
			 descriptor(MEDIA "config.v1+json", &i->id, strlen(i->info.config_json)),
			 "layers", layers);
	i->manifest = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (!i->manifest)
		return no_memory(err);
	r = digest_of(i->manifest, strlen(i->manifest), &i->manifest_id, err);
	return r;
}

/* One entry per name, since that is how a name is looked up; one without for an image of none. */
static void index_add(json_t *manifests, const struct saved_image *i)
{
	const struct image_config *c = &i->info.config;

	for (size_t k = 0; k < i->names.n || k == 0; k++) {
		json_t *d =
			descriptor(MEDIA "manifest.v1+json", &i->manifest_id, strlen(i->manifest));
		json_t *platform =
			json_pack("{s:s,s:s}", "architecture", c->architecture, "os", c->os);

		if (c->variant[0])
			json_object_set_new(platform, "variant", json_string(c->variant));
		if (k < i->names.n)
			json_object_set_new(
				d, "annotations",
				json_pack("{s:s,s:s}", "io.containerd.image.name", i->names.v[k],
					  "org.opencontainers.image.ref.name", i->names.v[k]));
		json_object_set_new(d, "platform", platform);
		json_array_append_new(manifests, d);
	}
}

static int put_index(struct save *s, struct err *err)
{
	json_t *manifests = json_array();
	json_t *root = json_pack("{s:i,s:s,s:o}", "schemaVersion", 2, "mediaType",
				 MEDIA "index.v1+json", "manifests", manifests);
	int r;

	for (size_t i = 0; i < s->count; i++)
		index_add(manifests, &s->images[i]);
	r = put_json(s, "index.json", root, err);
	json_decref(root);
	return r;
}

static int put_docker_manifest(struct save *s, struct err *err)
{
	json_t *root = json_array();
	char name[80];
	int r;

	for (size_t i = 0; i < s->count; i++) {
		const struct saved_image *img = &s->images[i];
		json_t *layers = json_array(), *tags = json_array();

		for (size_t k = 0; k < img->info.layer_count; k++) {
			blob_name(&img->layers[k].diff_id, name);
			json_array_append_new(layers, json_string(name));
		}
		/* A tag is what it can have; a name with a digest is for registries. */
		for (size_t k = 0; k < img->names.n; k++)
			if (!strchr(img->names.v[k], '@'))
				json_array_append_new(tags, json_string(img->names.v[k]));
		blob_name(&img->id, name);
		json_array_append_new(root, json_pack("{s:s,s:o,s:o}", "Config", name, "RepoTags",
						      tags, "Layers", layers));
	}
	r = put_json(s, "manifest.json", root, err);
	json_decref(root);
	return r;
}

static void image_done(struct saved_image *i)
{
	image_info_done(&i->info);
	strv_done(&i->names);
	free(i->manifest);
	free(i->layers);
}

/* Everything about an image but the contents of its layers. */
static int prepare(struct save *s, struct saved_image *i, struct err *err)
{
	struct digest is;
	int r = digest_parse(i->info.id, "the image id", &i->id, err);

	if (r >= 0)
		r = digest_of(i->info.config_json, strlen(i->info.config_json), &is, err);
	if (r >= 0 && !digest_equal(&is, &i->id)) {
		err_set(err, ERR_CORRUPT, "the configuration of %s is damaged", i->info.id);
		r = err_hint(err, "load the image again, which mends it");
	}
	if (r < 0)
		return r;
	i->layers = calloc(i->info.layer_count + 1, sizeof(*i->layers));
	if (!i->layers)
		return no_memory(err);
	for (size_t k = 0; k < i->info.layer_count; k++) {
		cleanup_layer struct layer_reader *l = NULL;

		r = digest_parse(i->info.layers[k].diff_id, "a diff_id", &i->layers[k].diff_id,
				 err);
		if (r >= 0)
			r = layer_open(&l, s->store, &i->layers[k].diff_id, err);
		if (r < 0) {
			err_wrap(err, "layer %zu of %s", k + 1, i->info.id);
			return err_hint(err, "load the image again, which mends it");
		}
		i->layers[k].bytes = layer_info(l)->tar_bytes;
	}
	s->layers += (unsigned)i->info.layer_count;
	return make_manifest(i, err);
}

/* The image that @ref names joins those to save, or only its name does. */
static int add_image(struct save *s, const char *ref, struct err *err)
{
	cleanup_image_info struct image_info info = IMAGE_INFO_INIT;
	struct saved_image *to = NULL;
	char full[IMAGE_REFERENCE_MAX];
	int r = image_inspect(s->store, ref, &info, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < s->count && !to; i++)
		if (str_eq(s->images[i].info.id, info.id))
			to = &s->images[i];
	if (!to) {
		to = &s->images[s->count++];
		to->info = info;
		info = (struct image_info)IMAGE_INFO_INIT;
		r = prepare(s, to, err);
	}
	if (r < 0 || reference_normalise(ref, full, NULL) < 0)
		return r < 0 ? r : 0;
	/* An id can look like a name. */
	for (char **p = to->info.references; *p; p++)
		if (str_eq(*p, full) && strv_add(&to->names, full) < 0)
			return no_memory(err);
	return 0;
}

static int write_archive(struct save *s, struct err *err)
{
	static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	size_t blobs = s->layers + 2 * s->count;
	int r;

	s->done = calloc(blobs + 1, sizeof(*s->done));
	if (!s->done)
		return no_memory(err);
	r = put_file(s, "oci-layout", layout, sizeof(layout) - 1, err);
	if (r >= 0)
		r = put_index(s, err);
	if (r >= 0 && s->format == IMAGE_ARCHIVE_DOCKER)
		r = put_docker_manifest(s, err);
	for (size_t i = 0; r >= 0 && i < s->count; i++) {
		const struct saved_image *img = &s->images[i];

		r = put_blob(s, &img->manifest_id, img->manifest, err);
		if (r >= 0)
			r = put_blob(s, &img->id, img->info.config_json, err);
		for (size_t k = 0; r >= 0 && k < img->info.layer_count; k++)
			r = put_layer(s, &img->layers[k], err);
	}
	return r < 0 ? r : put(s, zeros, sizeof(zeros), err);
}

int image_save(struct store *store, const char *const *refs, const struct image_save_options *o,
	       int fd, struct err *err)
{
	struct save s = {.store = store,
			 .format = o->format,
			 .fd = fd,
			 .progress = o->progress,
			 .progress_arg = o->progress_arg};
	cleanup_close int hold = store_hold(store, err);
	size_t n = 0;
	int r = hold;

	while (refs[n])
		n++;
	s.images = calloc(n + 1, sizeof(*s.images));
	if (!s.images)
		return no_memory(err);
	for (size_t i = 0; r >= 0 && i < n; i++)
		r = add_image(&s, refs[i], err);
	if (r >= 0)
		r = write_archive(&s, err);
	for (size_t i = 0; i < s.count; i++)
		image_done(&s.images[i]);
	free(s.images);
	free(s.done);
	return r;
}
