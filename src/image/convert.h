/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb-convert: decompression and tar in processes that can do nothing else.
 *
 * Theory of operation. What is in a layer is up to a stranger, and two large pieces of code read
 * it: a decompressor and the tar reader with the layer writer. Each works in a child of msb of its
 * own, new for each layer, which holds the descriptors of this one job and may read, write and
 * allocate; everything else ends it (convert_seal.c).
 *
 *	           compressed              uncompressed
 *	  blob ──► msb ──slots──► unpack ──slots──► msb ──slots──► layer ──► four files
 *	            └ digest                         └ diff_id
 *
 * What is trusted. msb computes both digests, on bytes in its own memory. What comes out of
 * "unpack" is copied there before it is hashed, so that nobody changes it afterwards, and is what
 * "layer" sees, by a mapping that cannot be written through. An unpacker that was taken over can
 * therefore pass off nothing: another stream has another diff_id, and is not published. A writer
 * that was taken over can write into its four files what it likes, but only those bytes that have
 * this very diff_id could have taken it over. They make a bad layer under their own name, as they
 * could have without any fault of ours; no other image shares it but by asking for those bytes. It
 * is published when its process has ended, so nobody holds a descriptor of a layer in the store.
 * The lengths that it reports are compared with the files, and what reads a layer trusts none of
 * it (layer.h).
 */
#ifndef IMAGE_CONVERT_H
#define IMAGE_CONVERT_H

#include "base/err.h"
#include "base/proc.h"
#include "image/image.h"
#include "image/layer.h"
#include "image/slots.h"

/* --- For msb --- */

/* Up to @max bytes of a tar stream into @p: how many, 0 at the end. */
typedef ssize_t convert_fill_fn(void *arg, uint8_t *p, size_t max, struct err *err);

/* Make a layer of what @fill delivers, at most @l->layer_bytes. */
int convert_layer(struct layer_draft *d, const struct image_limits *l, convert_fill_fn *fill,
		  void *arg, struct layer_made *ret, struct err *err);

struct convert_child {
	struct proc proc;
	int report;
};
#define CONVERT_CHILD_INIT                                                                         \
	{                                                                                          \
		.proc = PROC_INIT, .report = -1                                                    \
	}

/* Start an unpacker that takes @in and fills @out, which are initialised. Any thread. */
int convert_unpack(struct convert_child *c, struct slots *in, struct slots *out, struct err *err);
/* What has become of it, once it wants nothing any more: waits for its end. */
int convert_wait(struct convert_child *c, struct layer_made *ret, struct err *err);
/* End it, if it runs. */
void convert_kill(struct convert_child *c);

/* --- Between msb and msb-convert --- */

/* msb-convert WHAT: "unpack" has IN and OUT, "layer" IN and FILES. */
#define CONVERT_UNPACK "unpack"
#define CONVERT_LAYER  "layer"
enum {
	CONVERT_FD_REPORT = 3, /* a pipe that gets one struct convert_report */
	CONVERT_FD_IN = 4,     /* slots: memory and socket */
	CONVERT_FD_OUT = 6,
	CONVERT_FD_FILES = 6, /* LAYER_FILES of them */
};

/* What "layer" finds in its first slot. */
struct convert_job {
	struct image_limits limits;
};

struct convert_report {
	struct err err; /* code 0: it has been done */
	struct layer_made made;
};

/* --- For msb-convert (convert_seal.c) --- */

/*
 * Give up all but what the job needs: 0 or a negative code. @writes: files, up to @file_max bytes
 * each. Cannot be taken back.
 */
int convert_seal(bool writes, uint64_t file_max, struct err *err);

#endif
