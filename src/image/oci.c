/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/oci.h"

static void json_done(json_t **j)
{
	json_decref(*j);
}
#define cleanup_json __attribute__((cleanup(json_done)))

enum blob_kind {
	KIND_UNKNOWN,
	KIND_MANIFEST,
	KIND_INDEX,
	KIND_LAYER,
	KIND_FOREIGN,
	KIND_ENCRYPTED
};

static const struct {
	const char *media_type;
	enum blob_kind kind;
} media_types[] = {
	{"application/vnd.oci.image.manifest.v1+json", KIND_MANIFEST},
	{"application/vnd.docker.distribution.manifest.v2+json", KIND_MANIFEST},
	{"application/vnd.oci.image.index.v1+json", KIND_INDEX},
	{"application/vnd.docker.distribution.manifest.list.v2+json", KIND_INDEX},
	{"application/vnd.oci.image.layer.v1.tar", KIND_LAYER},
	{"application/vnd.oci.image.layer.v1.tar+gzip", KIND_LAYER},
	{"application/vnd.oci.image.layer.v1.tar+zstd", KIND_LAYER},
	{"application/vnd.docker.image.rootfs.diff.tar", KIND_LAYER},
	{"application/vnd.docker.image.rootfs.diff.tar.gzip", KIND_LAYER},
	{"application/vnd.docker.image.rootfs.diff.tar.zstd", KIND_LAYER},
	{"application/vnd.oci.image.layer.nondistributable.v1.tar", KIND_FOREIGN},
	{"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", KIND_FOREIGN},
	{"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", KIND_FOREIGN},
	{"application/vnd.docker.image.rootfs.foreign.diff.tar", KIND_FOREIGN},
	{"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", KIND_FOREIGN},
};

static enum blob_kind kind_of(const char *media_type)
{
	for (size_t i = 0; i < ARRAY_SIZE(media_types); i++)
		if (str_eq(media_types[i].media_type, media_type))
			return media_types[i].kind;
	return str_ends(media_type, "+encrypted") ? KIND_ENCRYPTED : KIND_UNKNOWN;
}

/* What is found on the way to the images. */
struct search {
	const struct source *src;
	const char *architecture, *variant; /* variant: "" for any */
	const struct image_limits *limits;
	struct oci_images found;
	unsigned seen;	      /* manifests and indexes visited */
	char others[256];     /* platforms passed over, for the message */
	struct err first_err; /* why the first unfit manifest was passed over */
};

struct descriptor {
	const char *media_type, *platform_os, *platform_arch, *platform_variant, *name;
	struct digest digest;
	uint64_t size; /* UINT64_MAX if not said */
};

const char *oci_host_architecture(void)
{
	static const struct {
		const char *machine, *arch;
	} map[] = {
		{"x86_64", "amd64"},	{"aarch64", "arm64"},	    {"armv7l", "arm"},
		{"riscv64", "riscv64"}, {"ppc64le", "ppc64le"},	    {"s390x", "s390x"},
		{"i686", "386"},	{"loongarch64", "loong64"},
	};
	struct utsname u;

	if (uname(&u) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(map); i++)
			if (str_eq(u.machine, map[i].machine))
				return map[i].arch;
	return "unknown";
}

static void oci_image_done(struct oci_image *i)
{
	free(i->manifest_digest);
	free(i->config_json);
	oci_config_done(&i->config);
	for (char **p = i->names; p && *p; p++)
		free(*p);
	free(i->names);
	for (size_t k = 0; k < i->layer_count; k++) {
		free(i->layers[k].name);
		free(i->layers[k].media_type);
	}
	free(i->layers);
	*i = (struct oci_image){0};
}
#define cleanup_oci_image __attribute__((cleanup(oci_image_done)))

void oci_images_done(struct oci_images *l)
{
	for (size_t i = 0; i < l->count; i++)
		oci_image_done(&l->items[i]);
	free(l->items);
	*l = (struct oci_images){0};
}

static json_t *parse(const char *what, const void *p, size_t n, struct err *err)
{
	json_error_t je;
	json_t *j = json_loadb(p, n, 0, &je);

	if (!j)
		err_set(err, ERR_CORRUPT, "%s is not JSON: %s, line %d", what, je.text, je.line);
	return j;
}

static int parse_descriptor(const json_t *j, const char *what, struct descriptor *ret,
			    struct err *err)
{
	const json_t *platform = json_object_get(j, "platform");
	const json_t *notes = json_object_get(j, "annotations");
	const json_t *size = json_object_get(j, "size");
	const char *text = json_string_value(json_object_get(j, "digest"));
	struct descriptor d = {.size = UINT64_MAX};
	int r;

	if (!text)
		return err_set(err, ERR_CORRUPT, "%s has no digest", what);
	r = digest_parse(text, what, &d.digest, err);
	if (r < 0)
		return r;
	if (size) {
		if (!json_is_integer(size) || json_integer_value(size) < 0)
			return err_set(err, ERR_CORRUPT, "%s has a bad size", what);
		d.size = (uint64_t)json_integer_value(size);
	}
	d.media_type = json_string_value(json_object_get(j, "mediaType"));
	if (!d.media_type)
		d.media_type = "";
	d.platform_os = json_string_value(json_object_get(platform, "os"));
	d.platform_arch = json_string_value(json_object_get(platform, "architecture"));
	d.platform_variant = json_string_value(json_object_get(platform, "variant"));
	/* containerd and Docker put the whole reference here and only the tag in the OCI one. */
	d.name = json_string_value(json_object_get(notes, "io.containerd.image.name"));
	if (!d.name)
		d.name = json_string_value(
			json_object_get(notes, "org.opencontainers.image.ref.name"));
	*ret = d;
	return 0;
}

/* A folder, "/sha256/" and 64 digits. */
#define BLOB_NAME_SIZE 96

static void blob_name(const char *folder, const struct digest *d, char out[BLOB_NAME_SIZE])
{
	char hex[65];

	snprintf(out, BLOB_NAME_SIZE, "%.20s/sha256/%s", folder, digest_hex(d, hex));
}

/* A small blob, verified. */
static int read_blob(const struct source *src, const char *folder, const struct descriptor *d,
		     size_t max, const char *what, struct buf *b, struct err *err)
{
	char name[BLOB_NAME_SIZE];
	struct digest is;
	int r;

	blob_name(folder, &d->digest, name);
	r = source_read(src, name, max, b, err);
	if (r == -ENOENT)
		return err_set(err, ERR_CORRUPT, "%s is missing: %s", what, name);
	if (r < 0)
		return err_wrap(err, "%s", what);
	if (d->size != UINT64_MAX && d->size != buf_size(b))
		return err_set(err, ERR_CORRUPT, "%s has %zu bytes instead of %llu", what,
			       buf_size(b), (unsigned long long)d->size);
	r = digest_of(buf_ptr(b), buf_size(b), &is, err);
	if (r < 0)
		return r;
	if (!digest_equal(&is, &d->digest)) {
		char want[IMAGE_DIGEST_LEN + 1], have[IMAGE_DIGEST_LEN + 1];

		return err_set(err, ERR_CORRUPT, "%s is damaged: its digest is %s instead of %s",
			       what, digest_text(&is, have), digest_text(&d->digest, want));
	}
	return 0;
}

static int check_platform(struct search *s, const struct image_config *c, struct err *err)
{
	if (str_eq(c->os, "linux") && str_eq(c->architecture, s->architecture))
		return 0;
	err_set(err, ERR_UNSUPPORTED, "the image is for %s/%s, not for linux/%s",
		c->os[0] ? c->os : "(no system)",
		c->architecture[0] ? c->architecture : "(no architecture)", s->architecture);
	return err_hint(err, "get the image for linux/%s", s->architecture);
}

/* Configuration @b into @img. */
static int take_config(struct search *s, struct buf *b, struct oci_image *img, struct err *err)
{
	cleanup_free struct digest *diff_ids = NULL;
	size_t n = 0;
	int r = oci_parse_config((const char *)buf_ptr(b), buf_size(b), &img->config, &diff_ids, &n,
				 err);

	if (r >= 0)
		r = check_platform(s, &img->config, err);
	if (r < 0)
		return r;
	if (n != img->layer_count)
		return err_set(err, ERR_CORRUPT,
			       "the configuration names %zu layers, the manifest %zu", n,
			       img->layer_count);
	for (size_t i = 0; i < n; i++)
		img->layers[i].diff_id = diff_ids[i];
	r = digest_of(buf_ptr(b), buf_size(b), &img->id, err);
	if (r < 0)
		return r;
	img->config_json = strdup(buf_cstr(b));
	return img->config_json ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int alloc_layers(struct search *s, struct oci_image *img, size_t n, struct err *err)
{
	if (n > s->limits->layers)
		return err_set(err, ERR_LIMIT, "an image of %zu layers; at most %u are allowed", n,
			       s->limits->layers);
	img->layers = calloc(n + 1, sizeof(*img->layers));
	if (!img->layers)
		return err_set(err, ENOMEM, "out of memory");
	img->layer_count = n;
	return 0;
}

static int add_name(struct oci_image *img, const char *name, struct err *err)
{
	size_t n = 0;
	char **v;

	while (img->names && img->names[n])
		n++;
	if (n >= OCI_IMAGES_MAX)
		return err_set(err, ERR_LIMIT, "an image of more than %u names", OCI_IMAGES_MAX);
	v = realloc(img->names, (n + 2) * sizeof(*v));
	if (!v)
		return err_set(err, ENOMEM, "out of memory");
	img->names = v;
	v[n] = name ? strdup(name) : NULL;
	v[n + 1] = NULL;
	return name && !v[n] ? err_set(err, ENOMEM, "out of memory") : 0;
}

/* Keep @img, or only its names if it has been found before. */
static int keep(struct search *s, struct oci_image *img, struct err *err)
{
	struct oci_image *v;

	for (size_t i = 0; i < s->found.count; i++) {
		struct oci_image *have = &s->found.items[i];
		int r = 0;

		if (!digest_equal(&have->id, &img->id))
			continue;
		for (char **p = img->names; *p && r >= 0; p++)
			r = add_name(have, *p, err);
		return r;
	}
	v = realloc(s->found.items, (s->found.count + 1) * sizeof(*v));
	if (!v)
		return err_set(err, ENOMEM, "out of memory");
	s->found.items = v;
	v[s->found.count++] = *img;
	*img = (struct oci_image){0};
	return 0;
}

static int parse_layer(const json_t *j, struct oci_layer *l, struct err *err)
{
	char name[BLOB_NAME_SIZE];
	struct descriptor d;
	int r = parse_descriptor(j, "a layer", &d, err);

	if (r < 0)
		return r;
	switch (kind_of(d.media_type)) {
	case KIND_LAYER:
		break;
	case KIND_FOREIGN:
		err_set(err, ERR_UNSUPPORTED,
			"a layer is foreign (%s): its contents are not part of the image",
			d.media_type);
		return err_hint(err,
				"Linux images have no such layers; this one is likely for Windows");
	case KIND_ENCRYPTED:
		err_set(err, ERR_UNSUPPORTED, "a layer is encrypted (%s)", d.media_type);
		return err_hint(
			err,
			"decrypt the image first, for example with skopeo copy --decryption-key");
	default:
		return err_set(err, ERR_UNSUPPORTED,
			       "a layer has the unknown media type \"%.120s\"", d.media_type);
	}
	blob_name("blobs", &d.digest, name);
	l->name = strdup(name);
	l->media_type = strdup(d.media_type);
	l->digest = d.digest;
	l->has_digest = true;
	l->size = d.size;
	return l->name && l->media_type ? 0 : err_set(err, ENOMEM, "out of memory");
}

/* Everything about a manifest that does not need another blob. */
static int parse_manifest(struct search *s, const json_t *root, struct oci_image *img,
			  struct descriptor *ret_config, struct err *err)
{
	const json_t *layers = json_object_get(root, "layers");
	int r;

	if (json_integer_value(json_object_get(root, "schemaVersion")) != 2) {
		err_set(err, ERR_UNSUPPORTED, "the manifest has schema version %lld, not 2",
			(long long)json_integer_value(json_object_get(root, "schemaVersion")));
		return err_hint(err, "copy the image with a current tool, which converts it");
	}
	if (!json_is_array(layers))
		return err_set(err, ERR_CORRUPT, "the manifest has no list of layers");
	r = parse_descriptor(json_object_get(root, "config"), "the configuration", ret_config, err);
	if (r >= 0)
		r = alloc_layers(s, img, json_array_size(layers), err);
	for (size_t i = 0; r >= 0 && i < img->layer_count; i++)
		r = parse_layer(json_array_get(layers, i), &img->layers[i], err);
	return r;
}

static int visit_manifest(struct search *s, const json_t *root, const struct descriptor *d,
			  const char *name, struct err *err)
{
	cleanup_oci_image struct oci_image img = {0};
	cleanup_buf struct buf b = BUF_INIT;
	struct descriptor config;
	char text[IMAGE_DIGEST_LEN + 1];
	int r;

	b.max = OCI_CONFIG_MAX + 2;
	r = parse_manifest(s, root, &img, &config, err);
	if (r >= 0)
		r = add_name(&img, name, err);
	if (r >= 0)
		r = read_blob(s->src, "blobs", &config, OCI_CONFIG_MAX, "the configuration", &b,
			      err);
	if (r >= 0)
		r = take_config(s, &b, &img, err);
	if (r < 0)
		return r;
	img.manifest_digest = strdup(digest_text(&d->digest, text));
	if (!img.manifest_digest)
		return err_set(err, ENOMEM, "out of memory");
	return keep(s, &img, err);
}

static void note_other(struct search *s, const struct descriptor *d)
{
	size_t n = strlen(s->others);

	/* Attestations carry "unknown". */
	if (d->platform_os && d->platform_arch && !str_eq(d->platform_os, "unknown"))
		snprintf(s->others + n, sizeof(s->others) - n, "%s%.20s/%.20s", n ? ", " : "",
			 d->platform_os, d->platform_arch);
}

static int visit_index(struct search *s, const json_t *root, const char *name, unsigned depth,
		       struct err *err);

static int visit(struct search *s, const struct descriptor *d, const char *name, unsigned depth,
		 struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_json json_t *root = NULL;
	const char *type;
	int r;

	b.max = OCI_MANIFEST_MAX + 2;
	if (++s->seen > OCI_IMAGES_MAX)
		return err_set(err, ERR_LIMIT, "more than %u manifests", OCI_IMAGES_MAX);
	r = read_blob(s->src, source_manifests(s->src), d, OCI_MANIFEST_MAX, "a manifest", &b, err);
	if (r < 0)
		return r;
	root = parse("the manifest", buf_ptr(&b), buf_size(&b), err);
	if (!root)
		return -ERR_CORRUPT;
	/* The descriptor's word counts; what the blob says must not contradict it. */
	type = json_string_value(json_object_get(root, "mediaType"));
	if (type && *d->media_type && !str_eq(type, d->media_type))
		return err_set(err, ERR_CORRUPT,
			       "a manifest calls itself \"%.100s\" but was announced as \"%.100s\"",
			       type, d->media_type);
	switch (kind_of(*d->media_type ? d->media_type : type ? type : "")) {
	case KIND_INDEX:
		if (depth >= OCI_INDEX_DEPTH)
			return err_set(err, ERR_LIMIT, "indexes nested more than %u deep",
				       OCI_INDEX_DEPTH);
		return visit_index(s, root, name, depth + 1, err);
	case KIND_MANIFEST:
		return visit_manifest(s, root, d, name, err);
	default:
		return err_set(err, ERR_UNSUPPORTED,
			       "a manifest has the unknown media type \"%.120s\"",
			       *d->media_type ? d->media_type
			       : type	      ? type
					      : "");
	}
}

/*
 * Below the top an index lists variants of one image, of which the first that fits is taken; the
 * top lists images, of which all that fit are.
 */
static int visit_index(struct search *s, const json_t *root, const char *name, unsigned depth,
		       struct err *err)
{
	const json_t *list = json_object_get(root, "manifests");
	const size_t before = s->found.count;

	if (!json_is_array(list))
		return err_set(err, ERR_CORRUPT, "an image index has no list of manifests");
	for (size_t i = 0; i < json_array_size(list); i++) {
		struct descriptor d;
		struct err e = ERR_INIT;
		int r = parse_descriptor(json_array_get(list, i), "a manifest", &d, err);

		if (r < 0)
			return r;
		if (d.platform_arch && d.platform_os &&
		    (!str_eq(d.platform_os, "linux") || !str_eq(d.platform_arch, s->architecture) ||
		     (s->variant[0] && d.platform_variant &&
		      !str_eq(d.platform_variant, s->variant)))) {
			note_other(s, &d);
			continue;
		}
		r = visit(s, &d, d.name ? d.name : name, depth, &e);
		if (r == -ERR_UNSUPPORTED) {
			/* Signatures, other architectures: there may be a better one. */
			if (!s->first_err.code)
				s->first_err = e;
			continue;
		}
		if (r < 0)
			return err_copy(err, &e);
		if (depth > 0 && s->found.count > before)
			break;
	}
	return 0;
}

static int nothing_found(struct search *s, struct err *err)
{
	if (s->first_err.code)
		return err_copy(err, &s->first_err);
	if (s->others[0]) {
		err_set(err, ERR_UNSUPPORTED, "the image is for %s, not for linux/%s", s->others,
			s->architecture);
		return err_hint(err, "get the image for linux/%s", s->architecture);
	}
	return err_set(err, ERR_NOT_FOUND, "there is no image in it");
}

static int find_in_layout(struct search *s, const struct buf *index, struct err *err)
{
	cleanup_json json_t *root = parse("index.json", buf_ptr(index), buf_size(index), err);

	if (!root)
		return -ERR_CORRUPT;
	return visit_index(s, root, NULL, 0, err);
}

/* Layer and configuration names in newer archives are "blobs/sha256/HEX": hold them to it. */
static bool name_digest(const char *name, struct digest *ret)
{
	char text[IMAGE_DIGEST_LEN + 1];

	if (!str_starts(name, "blobs/sha256/"))
		return false;
	snprintf(text, sizeof(text), "sha256:%s", name + strlen("blobs/sha256/"));
	return strlen(name) == strlen("blobs/sha256/") + 64 &&
	       digest_parse(text, "", ret, NULL) == 0;
}

static int visit_docker(struct search *s, const json_t *j, struct err *err)
{
	cleanup_oci_image struct oci_image img = {0};
	cleanup_buf struct buf b = BUF_INIT;
	const char *config = json_string_value(json_object_get(j, "Config"));
	const json_t *layers = json_object_get(j, "Layers"), *tags = json_object_get(j, "RepoTags");
	char hex[65];
	struct digest named;
	int r;

	b.max = OCI_CONFIG_MAX + 2;
	if (!config || !json_is_array(layers))
		return err_set(err, ERR_CORRUPT,
			       "manifest.json names no configuration or no layers");
	r = alloc_layers(s, &img, json_array_size(layers), err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < img.layer_count; i++) {
		struct oci_layer *l = &img.layers[i];
		const char *name = json_string_value(json_array_get(layers, i));

		if (!name)
			return err_set(err, ERR_CORRUPT, "manifest.json has a layer without name");
		l->name = strdup(name);
		l->media_type = strdup("application/vnd.docker.image.rootfs.diff.tar");
		l->size = UINT64_MAX;
		l->has_digest = name_digest(name, &l->digest);
		if (!l->name || !l->media_type)
			return err_set(err, ENOMEM, "out of memory");
	}
	r = add_name(&img, NULL, err);
	for (size_t i = 0; r >= 0 && i < json_array_size(tags); i++) {
		const char *tag = json_string_value(json_array_get(tags, i));

		if (tag && !str_eq(tag, "<none>:<none>"))
			r = add_name(&img, tag, err);
	}
	if (r >= 0)
		r = source_read(s->src, config, OCI_CONFIG_MAX, &b, err);
	if (r == -ENOENT)
		return err_set(err, ERR_CORRUPT, "the configuration is missing: %.200s", config);
	if (r >= 0)
		r = take_config(s, &b, &img, err);
	if (r < 0)
		return r;
	digest_hex(&img.id, hex);
	if ((name_digest(config, &named) && !digest_equal(&named, &img.id)) ||
	    (strlen(config) == 69 && str_ends(config, ".json") && memcmp(config, hex, 64) != 0))
		return err_set(
			err, ERR_CORRUPT,
			"the configuration is damaged: its digest is sha256:%s instead of %.200s",
			hex, config);
	img.manifest_digest = strdup("");
	if (!img.manifest_digest)
		return err_set(err, ENOMEM, "out of memory");
	return keep(s, &img, err);
}

static int find_in_archive(struct search *s, const struct buf *manifest, struct err *err)
{
	cleanup_json json_t *root =
		parse("manifest.json", buf_ptr(manifest), buf_size(manifest), err);

	if (!root)
		return -ERR_CORRUPT;
	if (!json_is_array(root) || json_array_size(root) > OCI_IMAGES_MAX)
		return err_set(err, ERR_CORRUPT, "manifest.json is not a list of images");
	for (size_t i = 0; i < json_array_size(root); i++) {
		struct err e = ERR_INIT;
		int r = visit_docker(s, json_array_get(root, i), &e);

		if (r == -ERR_UNSUPPORTED && !s->first_err.code)
			s->first_err = e;
		else if (r < 0 && r != -ERR_UNSUPPORTED)
			return err_copy(err, &e);
	}
	return 0;
}

int oci_find_images(const struct source *src, const char *architecture,
		    const struct image_limits *l, struct oci_images *ret, struct err *err)
{
	const char *slash = strchrnul(architecture, '/');
	cleanup_free char *arch = strndup(architecture, (size_t)(slash - architecture));
	struct search s = {
		.src = src, .architecture = arch, .variant = slash + (*slash != 0), .limits = l};
	cleanup_buf struct buf b = BUF_INIT;
	int r;

	if (!arch)
		return err_set(err, ENOMEM, "out of memory");

	b.max = OCI_MANIFEST_MAX + 2;
	r = source_read(src, "index.json", OCI_MANIFEST_MAX, &b, err);
	if (r >= 0) {
		r = find_in_layout(&s, &b, err);
	} else if (r == -ENOENT) {
		r = source_read(src, "manifest.json", OCI_MANIFEST_MAX, &b, err);
		if (r >= 0) {
			r = find_in_archive(&s, &b, err);
		} else if (r == -ENOENT) {
			err_set(err, ERR_UNSUPPORTED,
				"neither an OCI layout nor a `docker save` archive: "
				"no index.json and no manifest.json");
			r = err_hint(err, "make one with `docker save` or `skopeo copy`");
		}
	}
	if (r >= 0 && s.found.count == 0)
		r = nothing_found(&s, err);
	if (r < 0) {
		oci_images_done(&s.found);
		return r;
	}
	*ret = s.found;
	return 0;
}

int oci_check_manifest(const char *json, size_t len, struct err *err)
{
	cleanup_oci_image struct oci_image img = {0};
	cleanup_json json_t *root = parse("the manifest", json, len, err);
	struct image_limits l = {0};
	struct search s = {.architecture = "amd64", .variant = "", .limits = &l};
	struct descriptor config;

	image_limits_default(&l);
	return root ? parse_manifest(&s, root, &img, &config, err) : -ERR_CORRUPT;
}
