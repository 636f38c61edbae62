/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a layer on their way into the store. */
#include <endian.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/crc32c.h"
#include "image/layer.h"

const char *const layer_suffixes[LAYER_FILES] = {"data", "tails", "tar", "index"};

int layer_draft_new(struct layer_draft *d, const struct store *s, struct err *err)
{
	int r = 0;

	d->store = s;
	for (unsigned i = 0; i < LAYER_FILES; i++)
		d->files[i] = (struct store_temp)STORE_TEMP_INIT;
	for (unsigned i = 0; i < LAYER_FILES && r >= 0; i++)
		r = store_temp_new(s, &d->files[i], err);
	return r;
}

void layer_draft_done(struct layer_draft *d)
{
	for (unsigned i = 0; i < LAYER_FILES && d->store; i++)
		store_temp_done(&d->files[i]);
}

static int write_header(const struct layer_draft *d, const struct layer_made *m,
			const struct digest *diff_id, struct err *err)
{
	struct layer_header h = {
		.magic = LAYER_MAGIC,
		.version = htole32(LAYER_VERSION),
		.entries = htole64(m->info.entries),
		.bytes = htole64(m->info.bytes),
		.data_blocks = htole64(m->info.data_blocks),
		.tail_bytes = htole64(m->info.tail_bytes),
		.body_size = htole64(m->body_size),
		.tails_size = htole64(m->tails_size),
		.body_crc = htole32(m->body_crc),
		.tails_crc = htole32(m->tails_crc),
		.tar_size = htole64(m->tar_size),
		.tar_bytes = htole64(m->info.tar_bytes),
		.tar_crc = htole32(m->tar_crc),
	};
	int r;

	memcpy(h.diff_id, diff_id->sha256, sizeof(h.diff_id));
	h.header_crc = htole32(crc32c(~0u, &h, sizeof(h)));
	r = io_pwrite_full(d->files[LAYER_INDEX].fd, &h, sizeof(h), 0);
	return r < 0 ? store_write_error(d->store, r, err) : 0;
}

int layer_publish(struct layer_draft *d, const struct layer_made *made,
		  const struct digest *diff_id, struct layer_info *ret, struct err *err)
{
	const uint64_t sizes[LAYER_FILES] = {
		[LAYER_DATA] = made->info.data_blocks * EROFS_BLOCK,
		[LAYER_TAILS] = made->tails_size,
		[LAYER_TAR] = made->tar_size,
		[LAYER_INDEX] = sizeof(struct layer_header) + made->body_size,
	};
	struct store_publication files[LAYER_FILES];
	struct layer_info info = made->info;
	char hex[65];
	int r = write_header(d, made, diff_id, err);

	if (r < 0)
		return r;
	info.stored = 0;
	digest_hex(diff_id, hex);
	for (unsigned i = 0; i < LAYER_FILES; i++) {
		struct stat st;

		files[i].temp = &d->files[i];
		snprintf(files[i].name, sizeof(files[i].name), "%s.%s", hex, layer_suffixes[i]);
		if (fstat(d->files[i].fd, &st) < 0)
			return err_errno(err, "cannot publish %s", files[i].name);
		if ((uint64_t)st.st_size != sizes[i])
			return err_set(err, ERR_CORRUPT,
				       "its conversion went wrong: %s has %lld bytes",
				       layer_suffixes[i], (long long)st.st_size);
		info.stored += (uint64_t)st.st_blocks * 512;
	}
	r = store_publish(d->store, STORE_LAYERS, files, LAYER_FILES, err);
	if (r < 0)
		return r;
	*ret = info;
	return 0;
}
