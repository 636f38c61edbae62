/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/install.h"
#include "base/io.h"
#include "base/str.h"
#include "image/image.h"
#include "image/limits.h"
#include "store/store.h"

#define CONFIG_FILE_MAX (1u << 20)

/*
 * What may be asked for. More than these either cannot be represented (EROFS has 32-bit block
 * numbers, Linux PATH_MAX) or would let an image exhaust us rather than itself.
 */
static const struct {
	const char *key;
	size_t offset;
	bool wide, bytes;
	uint64_t max;
} limits[] = {
#define WIDE(name, bytes, max)                                                                     \
	{                                                                                          \
#name, offsetof(struct image_limits, name), true, bytes, max                       \
	}
#define NARROW(name, bytes, max)                                                                   \
	{                                                                                          \
#name, offsetof(struct image_limits, name), false, bytes, max                      \
	}
	WIDE(layer_bytes, true, (uint64_t)4 << 40),
	WIDE(file_bytes, true, (uint64_t)4 << 40),
	WIDE(entries, false, 100000000),
	WIDE(image_entries, false, 100000000),
	NARROW(layers, false, IMAGE_LAYERS_MAX),
	NARROW(path_bytes, true, IMAGE_PATH_MAX),
	NARROW(depth, false, 1024),
	NARROW(link_bytes, true, IMAGE_LINK_MAX),
	NARROW(xattr_bytes, true, IMAGE_XATTR_BYTES_MAX),
#undef WIDE
#undef NARROW
};

static void json_done(json_t **j)
{
	json_decref(*j);
}

static int unknown_key(const char *where, const char *key, struct err *err)
{
	const char *names[ARRAY_SIZE(limits)];
	const char *like;

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		names[i] = limits[i].key;
	like = str_suggest(key, names, ARRAY_SIZE(names));
	err_set(err, ERR_USAGE, "config.json: %s has no key \"%.100s\"", where, key);
	return like ? err_hint(err, "did you mean \"%s\"?", like)
		    : err_hint(err, "take the key out");
}

static int take_limit(const char *key, const json_t *j, struct image_limits *l, struct err *err)
{
	uint64_t v = 0;
	size_t i = 0;
	int r;

	while (i < ARRAY_SIZE(limits) && !str_eq(limits[i].key, key))
		i++;
	if (i == ARRAY_SIZE(limits))
		return unknown_key("images.limits", key, err);
	if (json_is_string(j) && limits[i].bytes) {
		r = str_to_size(json_string_value(j), 1, key, &v, err);
		if (r < 0)
			return err_wrap(err, "config.json: images.limits");
	} else if (json_is_integer(j) && json_integer_value(j) > 0) {
		v = (uint64_t)json_integer_value(j);
	}
	if (v == 0 || v > limits[i].max) {
		err_set(err, ERR_USAGE, "config.json: images.limits.%s is not from 1 to %llu", key,
			(unsigned long long)limits[i].max);
		return err_hint(err, limits[i].bytes ? "it is a number of bytes, or a text like "
						       "\"20G\""
						     : "it is a number");
	}
	if (limits[i].wide)
		*(uint64_t *)((char *)l + limits[i].offset) = v;
	else
		*(uint32_t *)((char *)l + limits[i].offset) = (uint32_t)v;
	return 0;
}

int image_limits_parse(const char *text, size_t n, struct image_limits *l, struct err *err)
{
	__attribute__((cleanup(json_done))) json_t *root = NULL;
	json_t *images, *section, *value;
	json_error_t je;
	const char *key;

	root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
	if (!root)
		return err_set(err, ERR_USAGE, "config.json is not JSON: %s, line %d", je.text,
			       je.line);
	/* What else is at the top belongs to others. */
	images = json_object_get(root, "images");
	if (!json_is_object(root) || (images && !json_is_object(images)))
		return err_set(err, ERR_USAGE, "config.json: images is not an object");
	json_object_foreach(images, key, section)
	{
		if (!str_eq(key, "limits"))
			return unknown_key("images", key, err);
		if (!json_is_object(section))
			return err_set(err, ERR_USAGE, "config.json: images.limits is no object");
		json_object_foreach(section, key, value)
		{
			int r = take_limit(key, value, l, err);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

int image_limits_of(const struct store *s, const struct image_limits *given,
		    struct image_limits *ret, struct err *err)
{
	cleanup_free char *path = install_config(store_home(s), err);
	cleanup_buf struct buf b = BUF_INIT;
	struct image_limits l = {0};
	int r = 0;

	if (!path)
		return err && err->code ? -err->code : -EACCES;
	if (given) {
		l = *given;
	} else {
		struct err why = ERR_INIT;

		r = io_read_file(path, CONFIG_FILE_MAX, &b, &why);
		if (r >= 0)
			r = image_limits_parse((const char *)buf_ptr(&b), buf_size(&b), &l, err);
		else if (r == -ENOENT)
			r = 0;
		else
			err_copy(err, &why);
	}
	if (r < 0)
		return r;
	image_limits_default(&l);
	*ret = l;
	return 0;
}
