/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named blobs of an image on disk: a directory, or a tar archive of one.
 *
 * A plain archive in a file is read where it lies, at any offset. A compressed one, or one that
 * comes through a pipe, is unpacked into an unnamed file of the store first, because layers may
 * stand in front of the manifest that says what they are. Names come from hostile manifests: they
 * lead nowhere but into the archive or directory.
 *
 * source_find() may be called from any thread once the source is open.
 */
#ifndef IMAGE_SOURCE_H
#define IMAGE_SOURCE_H

#include "base/buf.h"
#include "image/image.h"
#include "store/store.h"

/* An image has a manifest, a configuration and some layers; old archives three files per layer. */
#define SOURCE_ENTRIES_MAX 65536u
/* Links followed from one name; `docker save` used to write one. */
#define SOURCE_LINKS_MAX 8

struct source;

struct source_blob {
	int fd; /* owned; close it */
	uint64_t offset, size;
};

int source_open(struct source **ret, const struct store *s, const char *input,
		const struct image_load_options *o, struct err *err);
/* A source of one blob: the whole of @fd, which is borrowed, under @name. */
int source_open_file(struct source **ret, int fd, const char *name, struct err *err);
struct source *source_close(struct source *src);
static inline void source_close_fn(struct source **s)
{
	source_close(*s);
}
#define cleanup_source __attribute__((cleanup(source_close_fn)))

/* -ENOENT without a message if there is no such file. */
int source_find(const struct source *src, const char *name, struct source_blob *ret,
		struct err *err);
/* A whole small file, NUL-terminated behind its end; as source_find(). */
int source_read(const struct source *src, const char *name, size_t max, struct buf *ret,
		struct err *err);

#endif
