/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole layer blob, without the processes: decompression, tar, blocks, tails, index and what save
 * needs. Whatever is accepted must verify, and make the same stream again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/layer_tar.h"
#include "image/scratch_store.h"
#include "image/unpack.h"

#define LAYER_MAX (4u << 20)

struct blob {
	const uint8_t *p;
	size_t left;
	struct buf out;
	size_t taken;
};

static size_t next_input(void *arg, const uint8_t **ret)
{
	struct blob *b = arg;
	size_t n = MIN(b->left, (size_t)1 + b->left * 11 % 3000);

	*ret = b->p;
	b->p += n;
	b->left -= n;
	return n;
}

static uint8_t *room(void *arg)
{
	struct blob *b = arg;

	return buf_size(&b->out) > LAYER_MAX ? NULL : buf_reserve(&b->out, UNPACK_ROOM);
}

static int pass(void *arg, size_t n)
{
	struct blob *b = arg;

	buf_commit(&b->out, n);
	return 0;
}

/* Pieces of many lengths. */
static int next(void *arg, const uint8_t **ret, size_t *ret_len, struct err *err)
{
	struct blob *b = arg;
	size_t left = buf_size(&b->out) - b->taken;

	(void)err;
	*ret = buf_ptr(&b->out) + b->taken;
	*ret_len = MIN(left, (size_t)1 + (b->taken * 7 + 511) % 5000);
	b->taken += *ret_len;
	return left > 0;
}

static int convert(struct store *s, struct blob *b, struct digest *id)
{
	cleanup_layer_draft struct layer_draft d = {0};
	struct image_limits l = {.layer_bytes = LAYER_MAX,
				 .file_bytes = LAYER_MAX,
				 .entries = 300,
				 .xattr_bytes = 4096};
	struct layer_made made;
	struct layer_info info;
	int files[LAYER_FILES], r;

	image_limits_default(&l);
	r = layer_draft_new(&d, s, NULL);
	if (r < 0)
		return r;
	for (int i = 0; i < LAYER_FILES; i++)
		files[i] = d.files[i].fd;
	r = layer_make(files, &l, next, b, &made, NULL);
	if (r >= 0)
		r = digest_of(buf_ptr(&b->out), buf_size(&b->out), id, NULL);
	if (r >= 0)
		r = layer_publish(&d, &made, id, &info, NULL);
	if (r >= 0 && info.tar_bytes != buf_size(&b->out))
		abort();
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct blob b = {.p = data, .left = size, .out = BUF_INIT};
	const struct unpack_io io = {next_input, room, pass, &b};
	struct store *s = scratch_store();
	struct digest id;
	char hex[65], name[80];
	bool bad;
	int r = 0;

	if (compression_of(data, size) != COMPRESSION_NONE)
		r = unpack(&io, NULL);
	else
		buf_add(&b.out, data, size);
	if (r >= 0)
		r = convert(s, &b, &id);
	buf_done(&b.out);
	if (r < 0)
		return 0;
	if (layer_verify(s, &id, &bad, NULL) < 0)
		abort();
	for (size_t i = 0; i < LAYER_FILES; i++) {
		snprintf(name, sizeof(name), "%s.%s", digest_hex(&id, hex), layer_suffixes[i]);
		unlinkat(store_dirfd(s, STORE_LAYERS), name, 0);
	}
	return 0;
}
