/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing tar: headers that old readers understand, with a pax header in front where the old one
 * has no room for something. Names are bytes and go as they are.
 *
 * Everything is appended to a buffer, whose failure is the only one. No state: any thread.
 */
#ifndef TREE_TAR_WRITE_H
#define TREE_TAR_WRITE_H

#include "base/buf.h"
#include "tree/tar.h"

#define TAR_BLOCK 512u

struct tar_fragment {
	uint64_t off, len;
};

/*
 * The header, or headers, of an entry; @e->offset is of no meaning. A sparse file (@map is not
 * NULL) is in the pax format 1.0 of GNU; its map has been put in front of the data.
 */
void tar_put_entry(struct buf *b, const struct tar_entry *e, const struct tar_fragment *map,
		   size_t map_len);
/* What fills up @size bytes to whole blocks. */
void tar_put_padding(struct buf *b, uint64_t size);
/* The end of the archive. */
void tar_put_end(struct buf *b);

/* The parts, for a stream that must come out in a certain way. */
struct tar_fields {
	const char *name;
	const char *prefix; /* NULL: none */
	const char *link;   /* NULL: none */
	char type;
	uint32_t mode;
	uint64_t uid, gid, size, mtime; /* what does not fit is written as 0 */
	uint32_t major, minor;
};
void tar_put_header(struct buf *b, const struct tar_fields *f);
/* One pax record. */
void tar_put_pax(struct buf *b, const char *key, const void *value, size_t n);
void tar_put_pax_text(struct buf *b, const char *key, const char *text);
void tar_put_pax_number(struct buf *b, const char *key, uint64_t v);
/* The records in @pax as an extended header. */
void tar_put_extended(struct buf *b, const struct buf *pax);

#endif
