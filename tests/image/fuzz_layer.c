/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole layer blob: decompression, tar, blocks, tails, index and what save needs. Whatever is
 * accepted must verify, and make the same stream again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/layer_tar.h"
#include "image/scratch_store.h"
#include "image/stream.h"

static int convert(struct store *s, struct stream *st, struct digest *id)
{
	cleanup_layer_writer struct layer_writer *w = NULL;
	struct image_limits l = {.layer_bytes = 4u << 20,
				 .file_bytes = 4u << 20,
				 .entries = 300,
				 .xattr_bytes = 4096};
	struct stream_result res;
	struct layer_info info;
	int r;

	image_limits_default(&l);
	r = layer_writer_new(&w, s, &l, NULL);
	if (r >= 0)
		r = layer_write_tar(w, stream_next, st, NULL);
	if (r >= 0)
		r = stream_finish(st, l.layer_bytes, &res, NULL);
	if (r < 0)
		return r;
	*id = res.out_digest;
	r = layer_publish(w, id, &info, NULL);
	if (r >= 0 && info.tar_bytes != res.out)
		abort();
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct store *s = scratch_store();
	cleanup_stream struct stream *st = NULL;
	cleanup_close int fd = io_memfd("blob", data, size, NULL);
	struct stream_options o = {.fd = fd, .size = size, .hash_output = true};
	struct digest id;
	char hex[65], name[80];
	bool bad;

	if (fd < 0 || stream_open(&st, &o, NULL) < 0 || convert(s, st, &id) < 0)
		return 0;
	if (layer_verify(s, &id, &bad, NULL) < 0)
		abort();
	for (size_t i = 0; i < LAYER_FILES; i++) {
		snprintf(name, sizeof(name), "%s.%s", digest_hex(&id, hex), layer_suffixes[i]);
		unlinkat(store_dirfd(s, STORE_LAYERS), name, 0);
	}
	return 0;
}
