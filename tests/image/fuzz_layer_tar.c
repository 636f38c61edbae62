/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HEX.tar beside a layer of three files. The input is the length of the stream (24 bits) and the
 * uncompressed spans; the frame is put around them here.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/crc32c.h"
#include "image/layer_tar.h"
#include "image/scratch_store.h"

enum { FILES = 3, FILE_SIZE = 5000 };

struct source {
	uint8_t bytes[FILES * (512 + 5120) + 1024];
	bool done;
};

static int read_source(void *arg, const uint8_t **ret, size_t *ret_len, struct err *err)
{
	struct source *s = arg;

	(void)err;
	*ret = s->bytes;
	*ret_len = sizeof(s->bytes);
	if (s->done)
		return 0;
	s->done = true;
	return 1;
}

static void put_file(uint8_t *p, unsigned n)
{
	unsigned sum = 0;

	memset(p, 0, 512);
	snprintf((char *)p, 100, "f%u", n);
	memcpy(p + 100, "0000644", 7);
	snprintf((char *)p + 124, 12, "%011o", FILE_SIZE);
	p[156] = '0';
	memset(p + 148, ' ', 8);
	for (unsigned i = 0; i < 512; i++)
		sum += p[i];
	snprintf((char *)p + 148, 8, "%06o", sum);
	memset(p + 512, 'a' + (int)n, FILE_SIZE);
}

static void make_layer(struct store *s, const struct digest *id)
{
	cleanup_layer_draft struct layer_draft d = {0};
	struct layer_made made;
	int files[LAYER_FILES];
	static struct source src;
	struct image_limits l = {0};
	struct layer_info info;

	image_limits_default(&l);
	for (unsigned i = 0; i < FILES; i++)
		put_file(src.bytes + i * (512 + 5120), i);
	if (layer_draft_new(&d, s, NULL) < 0)
		abort();
	for (int i = 0; i < LAYER_FILES; i++)
		files[i] = d.files[i].fd;
	if (layer_make(files, &l, read_source, &src, &made, NULL) < 0 ||
	    layer_publish(&d, &made, id, &info, NULL) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct digest id = {{1}};
	static bool made;
	struct store *s = scratch_store();
	cleanup_layer_tar struct layer_tar *t = NULL;
	cleanup_close int fd = -1;
	cleanup_free uint8_t *frame = NULL;
	struct layer_reader *r = NULL;
	uint64_t bytes, seen = 0;
	const uint8_t *p;
	size_t n;
	int rc;

	if (!made)
		make_layer(s, &id);
	made = true;
	if (size < 3 || size > 1 << 16)
		return 0;
	bytes = data[0] | data[1] << 8 | data[2] << 16;
	n = ZSTD_compressBound(size);
	frame = malloc(n);
	if (!frame)
		return 0;
	n = ZSTD_compress(frame, n, data + 3, size - 3, 1);
	fd = io_memfd("tar", frame, n, NULL);
	if (fd < 0 || layer_open(&r, s, &id, NULL) < 0 ||
	    layer_tar_from(&t, r, fd, n, crc32c(~0u, frame, n), bytes, NULL) < 0)
		return 0;
	while ((rc = layer_tar_next(t, &p, &n, NULL)) > 0)
		seen += n;
	if (seen > bytes || (rc == 0 && seen != bytes))
		abort();
	return 0;
}
