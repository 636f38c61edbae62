/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer in the store: four files named by diff_id, made in one pass over its tar stream.
 *
 *	HEX.data   Contents of regular files. Each file's blocks are contiguous and 4 KiB-aligned,
 *		   in tar order; all-zero blocks are holes of the host file, and files with equal
 *		   blocks share them. This file becomes part of the image disk as it is.
 *	HEX.tails  One zstd frame: the last partial blocks of those files that can carry them next
 *		   to their inode (see layer_tail_len()), in tar order, without padding.
 *	HEX.tar    What else it takes to make the tar stream again (image/layer_tar.h).
 *	HEX.index  A struct layer_header, then one zstd frame of records in tar order: what the tar
 *		   said about each entry, whiteouts included, and where its contents went.
 *
 * All integers are little-endian. The header carries a CRC of itself and of the body, all zstd
 * frames carry checksums, and each record has the CRC-32C of its file's contents, so that a
 * flipped bit anywhere is found (image_verify()). What is read back is still not trusted: every
 * length, type and reference is checked.
 *
 * The index is renamed into place last. Same stream, same bytes.
 *
 * Objects here belong to one thread at a time; different layers may be converted in parallel.
 */
#ifndef IMAGE_LAYER_H
#define IMAGE_LAYER_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#include "base/err.h"
#include "image/digest.h"
#include "image/erofs.h"
#include "image/image.h"
#include "tree/tar.h"
#include "store/store.h"

enum layer_type {
	LAYER_FILE = 1,
	LAYER_HARDLINK,
	LAYER_SYMLINK,
	LAYER_CHAR,
	LAYER_BLOCK,
	LAYER_DIRECTORY,
	LAYER_FIFO,
	LAYER_WHITEOUT, /* path: what disappears from the layers below */
	LAYER_OPAQUE,	/* path: the directory whose contents below disappear */
	LAYER_TYPE_END
};

struct layer_entry {
	enum layer_type type;
	char *path; /* normalised: no leading or doubled slash, no "." or ".."; "" is the root */
	char *link; /* symbolic link target verbatim, or normalised path of a hard link's */
	uint32_t mode, uid, gid, major, minor;
	int64_t mtime;
	uint32_t mtime_ns;
	uint64_t size;
	uint64_t data_block; /* first block in HEX.data */
	uint64_t data_blocks;
	uint32_t tail_len; /* bytes in HEX.tails */
	uint64_t tail_at;  /* where, in the uncompressed ones; set by layer_next() */
	uint32_t crc;	   /* of all contents */
	const struct erofs_xattr *xattrs;
	size_t xattr_count;
};

struct layer_info {
	uint64_t entries;
	uint64_t bytes;	      /* sum of regular file sizes */
	uint64_t data_blocks; /* length of HEX.data */
	uint64_t tail_bytes;  /* in HEX.tails, uncompressed */
	uint64_t tar_bytes;   /* length of the tar stream */
	uint64_t stored;      /* disk space of all its files */
};

/*
 * A tail lies in HEX.tails and again in the metadata of each image; beyond this, a block of its
 * own takes less. Measured on Debian, one image is smallest with 2.3 to 2.8 KiB; 2 KiB cost it 0.3
 * per cent and make the metadata of each further image that shares the layer half as large.
 */
#define LAYER_TAIL_MAX 2048u

/* How many bytes of a file stay with its inode rather than in a block of their own. */
uint32_t layer_tail_len(uint64_t size, size_t xattr_size);

/* Path of an entry as layer_entry.path wants it, into @out of IMAGE_PATH_MAX + 1 bytes. */
int layer_path_normalise(const char *path, const struct image_limits *l, char *out,
			 struct err *err);

/* Of the files of a layer, in the order in which they get their names. */
enum { LAYER_DATA, LAYER_TAILS, LAYER_TAR, LAYER_INDEX, LAYER_FILES };
extern const char *const layer_suffixes[LAYER_FILES];

/* --- Making (layer.c) --- */

/* What its index says of the files of a layer, besides whose they are. */
struct layer_made {
	struct layer_info info; /* all but `stored` */
	uint64_t body_size, tails_size, tar_size;
	uint32_t body_crc, tails_crc, tar_crc;
	uint32_t reserved;
};

/*
 * Convert everything that @read delivers into four empty files, in the order of layer_suffixes.
 * Part of msb-convert (image/convert.h), where there is no store: a code that is an errno other
 * than ENOMEM is that of a file.
 */
int layer_make(const int files[LAYER_FILES], const struct image_limits *l, tar_read_fn *read,
	       void *arg, struct layer_made *ret, struct err *err);

/* --- Keeping (layer_draft.c) --- */

struct layer_draft {
	const struct store *store;
	struct store_temp files[LAYER_FILES];
};

/* Zero-initialised or not, until layer_draft_done(). */
int layer_draft_new(struct layer_draft *d, const struct store *s, struct err *err);
void layer_draft_done(struct layer_draft *d);
#define cleanup_layer_draft __attribute__((cleanup(layer_draft_done)))

/*
 * Say whose the files are and give them their names. @made, which a process has said that may have
 * been taken over, is compared with them as far as their lengths go.
 */
int layer_publish(struct layer_draft *d, const struct layer_made *made,
		  const struct digest *diff_id, struct layer_info *ret, struct err *err);

/* --- Reading (layer_index.c) --- */

struct layer_reader;

/* -ENOENT if the store does not have the layer; -ERR_CORRUPT if a file does not fit its index. */
int layer_open(struct layer_reader **ret, const struct store *s, const struct digest *diff_id,
	       struct err *err);
/* The index alone, from a descriptor which is borrowed. */
int layer_open_index(struct layer_reader **ret, int fd, struct err *err);
struct layer_reader *layer_close(struct layer_reader *r);
static inline void layer_close_fn(struct layer_reader **r)
{
	layer_close(*r);
}
#define cleanup_layer __attribute__((cleanup(layer_close_fn)))

const struct layer_info *layer_info(const struct layer_reader *r);
/* 1 and the next entry, 0 after the last. Pointers live until the next call. */
int layer_next(struct layer_reader *r, struct layer_entry *ret, struct err *err);
/* @n bytes at @offset of a file's contents, all of them in front of its tail. */
int layer_read_blocks(const struct layer_reader *r, const struct layer_entry *e, uint64_t offset,
		      void *p, size_t n, struct err *err);
/* @n bytes at @offset of the uncompressed tails; offsets must not go backwards. */
int layer_read_tail(struct layer_reader *r, uint64_t offset, void *p, size_t n, struct err *err);
/*
 * Compare every byte with its checksum and the tar stream with @diff_id. After -ERR_CORRUPT,
 * *ret_data says whether what a sandbox reads is damaged, and not only what we keep besides.
 */
int layer_verify(const struct store *s, const struct digest *diff_id, bool *ret_data,
		 struct err *err);
/*
 * A damaged layer: take its index away, so that the next load makes it anew, and with @data its
 * contents, so that no sandbox starts with them. Best effort.
 */
void layer_set_aside(const struct store *s, const struct digest *diff_id, bool data);

/* --- Format, shared by layer_draft.c and layer_index.c --- */

#define LAYER_MAGIC   "MSBLAYER"
#define LAYER_VERSION 2u

struct layer_header {
	char magic[8];
	uint32_t version;
	uint32_t header_crc; /* of this header with the field zero */
	uint8_t diff_id[32];
	uint64_t entries, bytes, data_blocks, tail_bytes;
	uint64_t body_size;  /* compressed records, directly after this header */
	uint64_t tails_size; /* of the HEX.tails file */
	uint32_t body_crc;
	uint32_t tails_crc;
	uint64_t tar_size;  /* of the HEX.tar file */
	uint64_t tar_bytes; /* of the stream that it makes */
	uint32_t tar_crc;
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct layer_header) == 128, "layer header layout");

struct layer_record {
	uint8_t type;
	uint8_t reserved;
	uint16_t mode;
	uint32_t uid, gid;
	uint32_t major, minor;
	uint32_t mtime_ns;
	int64_t mtime;
	uint64_t size;
	uint32_t data_block, data_blocks;
	uint32_t crc;
	uint16_t tail_len;
	uint16_t path_len, link_len;
	uint16_t xattr_count;
	uint32_t xattr_bytes;
};
_Static_assert(sizeof(struct layer_record) == 64, "layer record layout");

struct layer_record_xattr {
	uint8_t name_len; /* without prefix */
	uint8_t prefix;	  /* EROFS name index */
	uint16_t value_len;
};

#endif
