/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/crc32c.h"
#include "image/digest.h"
#include "image/frame.h"

/* Fast levels: this runs once per layer on the path of a user who waits. */
#define FRAME_ZSTD_LEVEL   1
#define FRAME_OUT_BUFFER   (64u << 10)
#define FRAME_IN_BUFFER	   (64u << 10)
#define UNFRAME_OUT_BUFFER (128u << 10)

int frame_init(struct frame *f, int fd, uint64_t at, struct err *err)
{
	f->fd = fd;
	f->at = at;
	f->crc = ~0u;
	f->z = ZSTD_createCCtx();
	f->out = malloc(FRAME_OUT_BUFFER);
	if (!f->z || !f->out)
		return err_set(err, ENOMEM, "out of memory");
	ZSTD_CCtx_setParameter(f->z, ZSTD_c_compressionLevel, FRAME_ZSTD_LEVEL);
	ZSTD_CCtx_setParameter(f->z, ZSTD_c_checksumFlag, 1);
	return 0;
}

void frame_done(struct frame *f)
{
	ZSTD_freeCCtx(f->z);
	free(f->out);
}

static int frame_run(struct frame *f, const void *p, size_t n, ZSTD_EndDirective mode,
		     struct err *err)
{
	ZSTD_inBuffer in = {p, n, 0};
	size_t left;

	do {
		ZSTD_outBuffer out = {f->out, FRAME_OUT_BUFFER, 0};
		int r;

		left = ZSTD_compressStream2(f->z, &out, &in, mode);
		if (ZSTD_isError(left))
			return err_set(err, ENOMEM, "cannot compress: %s", ZSTD_getErrorName(left));
		if (!out.pos)
			continue;
		f->crc = crc32c(f->crc, f->out, out.pos);
		r = io_pwrite_full(f->fd, f->out, out.pos, f->at);
		if (r < 0)
			return err_set(err, r, "cannot write: %s", err_name(-r));
		f->written += out.pos;
		f->at += out.pos;
	} while (in.pos < n || (mode == ZSTD_e_end && left));
	return 0;
}

int frame_add(struct frame *f, const void *p, size_t n, struct err *err)
{
	return n ? frame_run(f, p, n, ZSTD_e_continue, err) : 0;
}

int frame_end(struct frame *f, struct err *err)
{
	return frame_run(f, NULL, 0, ZSTD_e_end, err);
}

int unframe_init(struct unframe *u, int fd, uint64_t at, uint64_t size, struct err *err)
{
	u->fd = fd;
	u->at = at;
	u->left = size;
	u->crc = ~0u;
	u->pending = 1;
	u->z = ZSTD_createDCtx();
	u->in = malloc(FRAME_IN_BUFFER);
	u->out = malloc(UNFRAME_OUT_BUFFER);
	if (!u->z || !u->in || !u->out)
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

void unframe_done(struct unframe *u)
{
	ZSTD_freeDCtx(u->z);
	free(u->in);
	free(u->out);
}

/* More bytes in u->out: 1, 0 at the end of the frame. */
static int unframe_more(struct unframe *u, struct err *err)
{
	for (;;) {
		ZSTD_outBuffer out = {u->out, UNFRAME_OUT_BUFFER, 0};

		if (u->zin.pos == u->zin.size && u->left) {
			size_t want = (size_t)MIN(u->left, (uint64_t)FRAME_IN_BUFFER);
			ssize_t n = io_pread_full(u->fd, u->in, want, u->at);

			if (n < 0)
				return err_set(err, (int)n, "cannot read a layer: %s",
					       err_name((int)-n));
			if ((size_t)n < want)
				return err_set(err, ERR_CORRUPT, "a file of the layer is cut off");
			u->crc = crc32c(u->crc, u->in, want);
			u->at += want;
			u->left -= want;
			u->zin = (ZSTD_inBuffer){u->in, want, 0};
		}
		if (u->pending == 0)
			return u->left || u->zin.pos < u->zin.size
				       ? err_set(err, ERR_CORRUPT, "the layer has trailing bytes")
				       : 0;
		if (u->zin.size == 0)
			return err_set(err, ERR_CORRUPT, "a file of the layer is cut off");
		u->pending = ZSTD_decompressStream(u->z, &out, &u->zin);
		if (ZSTD_isError(u->pending))
			return err_set(err, ERR_CORRUPT, "the layer is damaged: %s",
				       ZSTD_getErrorName(u->pending));
		if (out.pos) {
			u->out_at = 0;
			u->out_len = out.pos;
			return 1;
		}
		if (u->pending && u->zin.pos == u->zin.size && !u->left)
			return err_set(err, ERR_CORRUPT, "a file of the layer is cut off");
	}
}

int unframe_read(struct unframe *u, void *p, size_t n, struct err *err)
{
	uint8_t *to = p;

	while (n) {
		size_t piece = MIN(n, u->out_len - u->out_at);

		if (piece && to) {
			memcpy(to, u->out + u->out_at, piece);
			to += piece;
		}
		u->out_at += piece;
		u->pos += piece;
		n -= piece;
		if (n) {
			int r = unframe_more(u, err);

			if (r == 0)
				return err_set(err, ERR_CORRUPT, "a file of the layer is cut off");
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int unframe_end(struct unframe *u, uint32_t crc, struct err *err)
{
	int r = u->out_at < u->out_len ? 1 : unframe_more(u, err);

	if (r != 0)
		return r;
	return u->crc == crc ? 0 : err_set(err, ERR_CORRUPT, "the layer has a wrong checksum");
}
