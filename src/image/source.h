/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named blobs of an image on disk: a directory, or a tar archive of one.
 *
 * A plain archive in a file is read where it lies, at any offset. A compressed one, or one that
 * comes through a pipe, is unpacked into an unnamed file of the store first, because layers may
 * stand in front of the manifest that says what they are. Names come from hostile manifests: they
 * lead nowhere but into the archive or directory.
 *
 * Or somebody else's: a source with operations of its own (source_open_ops()), such as a registry.
 *
 * source_find() and what follows it may be called from any thread once the source is open.
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
	int fd; /* give it back with source_release() */
	uint64_t offset, size;
	void *feed; /* NULL, or who writes into the pipe that fd is; then size may be UINT64_MAX */
};

struct source_ops {
	/* source_read() and source_find(), and what gives such a blob back. */
	int (*read)(void *arg, const char *name, size_t max, struct buf *ret, struct err *err);
	int (*find)(void *arg, const char *name, struct source_blob *ret, struct err *err);
	int (*release)(void *arg, struct source_blob *b, struct err *err);
	/* What is under way need not be finished. */
	void (*abort)(void *arg);
	const char *manifests; /* the folder that manifests and indexes are in */
};

int source_open(struct source **ret, const struct store *s, const char *input,
		const struct image_load_options *o, struct err *err);
/* A source of one blob: the whole of @fd, which is borrowed, under @name. */
int source_open_file(struct source **ret, int fd, const char *name, struct err *err);
/* @ops and @arg outlive it. */
int source_open_ops(struct source **ret, const struct source_ops *ops, void *arg, struct err *err);
struct source *source_close(struct source *src);
static inline void source_close_fn(struct source **s)
{
	source_close(*s);
}
#define cleanup_source __attribute__((cleanup(source_close_fn)))

/* -ENOENT without a message if there is no such file. */
int source_find(const struct source *src, const char *name, struct source_blob *ret,
		struct err *err);
/*
 * Give a blob back. @r is how its use went, and returned, unless it went wrong because the bytes
 * did not come: then that is what is returned and told.
 */
int source_release(const struct source *src, struct source_blob *b, int r, struct err *err);
/* One use has failed: do not go on with the others. */
void source_abort(const struct source *src);
/* "blobs", or where else manifests lie. */
const char *source_manifests(const struct source *src);
/* A whole small file, NUL-terminated behind its end; as source_find(). */
int source_read(const struct source *src, const char *name, size_t max, struct buf *ret,
		struct err *err);

#endif
