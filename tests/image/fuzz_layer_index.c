/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of a layer and the merge behind it. The input is the uncompressed records; header and
 * frame are put around it here, since no mutation would get past the checksums.
 */
#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/crc32c.h"
#include "image/merge.h"

static int no_tail(void *arg, const struct erofs_node *n, void *p, struct err *err)
{
	(void)arg;
	(void)err;
	memset(p, 0, n->tail_len);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_close int fd = -1, out = -1;
	cleanup_layer struct layer_reader *r = NULL;
	cleanup_tree struct erofs_tree *t = NULL;
	struct layer_header h = {.magic = LAYER_MAGIC,
				 .version = htole32(LAYER_VERSION),
				 .data_blocks = htole64(1000),
				 .tail_bytes = htole64(100000)};
	struct image_limits l = {0};
	struct erofs_options o = {.tail = no_tail, .data_blocks = 1000};
	struct erofs_result res;
	uint8_t *buf;
	size_t n;

	if (size < 1 || size > 1 << 16)
		return 0;
	h.entries = htole64(data[0]);
	data++;
	size--;
	n = ZSTD_compressBound(size);
	buf = malloc(sizeof(h) + n);
	if (!buf)
		return 0;
	n = ZSTD_compress(buf + sizeof(h), n, data, size, 1);
	h.body_size = htole64(n);
	h.body_crc = htole32(crc32c(~0u, buf + sizeof(h), n));
	h.header_crc = htole32(crc32c(~0u, &h, sizeof(h)));
	memcpy(buf, &h, sizeof(h));
	fd = io_memfd("fuzz", buf, sizeof(h) + n, NULL);
	free(buf);
	image_limits_default(&l);
	if (fd < 0 || layer_open_index(&r, fd, NULL) < 0 || erofs_tree_new(&t, NULL) < 0)
		return 0;
	if (merge_apply(t, r, 0, 0, &l, NULL) < 0)
		return 0;
	out = io_memfd("image", NULL, 0, NULL);
	if (out >= 0)
		erofs_write(t, out, &o, &res, NULL);
	return 0;
}
