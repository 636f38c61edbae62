/* SPDX-License-Identifier: Apache-2.0 */
#include "image/unpack.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/cleanup.h"

/* 2^27 is what zstd's own tool accepts without being asked: 128 MiB of window. */
#define UNPACK_ZSTD_WINDOW_LOG 27

struct unpacker {
	const struct unpack_io *io;
	uint8_t *room; /* or NULL */
	size_t len;    /* in it */
};

enum compression compression_of(const uint8_t *p, size_t n)
{
	if (n >= 3 && p[0] == 0x1f && p[1] == 0x8b && p[2] == 8)
		return COMPRESSION_GZIP;
	/* A frame, or a skippable frame in front of one. */
	if (n >= 4 && p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd)
		return COMPRESSION_ZSTD;
	if (n >= 4 && (p[0] & 0xf0) == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18)
		return COMPRESSION_ZSTD;
	return COMPRESSION_NONE;
}

const char *compression_unsupported(const uint8_t *p, size_t n)
{
	if (n >= 6 && memcmp(p,
			     "\xfd"
			     "7zXZ\0",
			     6) == 0)
		return "xz";
	if (n >= 3 && memcmp(p, "BZh", 3) == 0)
		return "bzip2";
	if (n >= 4 && memcmp(p, "\x04\x22\x4d\x18", 4) == 0)
		return "lz4";
	return NULL;
}

static int pass(struct unpacker *u, struct err *err)
{
	int r = u->len ? u->io->pass(u->io->arg, u->len) : 0;

	u->room = NULL;
	u->len = 0;
	return r < 0 ? err_set(err, r, "cannot write: %s", err_name(-r)) : 0;
}

/* Where output goes: how much of it fits there, never nothing, or a negative code. */
static int room(struct unpacker *u, uint8_t **ret, struct err *err)
{
	if (!u->room)
		u->room = u->io->room(u->io->arg);
	if (!u->room)
		return err_set(err, EPIPE, "cannot write: %s", err_name(EPIPE));
	*ret = u->room + u->len;
	return (int)(UNPACK_ROOM - u->len);
}

/* @n bytes are in it now. */
static int filled(struct unpacker *u, size_t n, struct err *err)
{
	u->len += n;
	return u->len == UNPACK_ROOM ? pass(u, err) : 0;
}

static const char *gzip_fault(int r)
{
	switch (r) {
	case ISAL_INVALID_BLOCK:
		return "invalid block";
	case ISAL_INVALID_SYMBOL:
		return "invalid code";
	case ISAL_INVALID_LOOKBACK:
		return "a distance too far back";
	case ISAL_INVALID_WRAPPER:
		return "not a gzip header";
	case ISAL_UNSUPPORTED_METHOD:
		return "unknown compression method";
	case ISAL_INCORRECT_CHECKSUM:
		return "its checksum or length does not match";
	default:
		return "unknown fault";
	}
}

static int inflate_members(struct unpacker *u, struct inflate_state *z, const uint8_t *p, size_t n,
			   struct err *err)
{
	bool in_member = true, full = false;

	for (; n; n = u->io->next(u->io->arg, &p)) {
		z->next_in = (uint8_t *)(uintptr_t)p;
		z->avail_in = (uint32_t)n;
		/* With all input taken, output may still be pending behind a full room. */
		while (z->avail_in || full) {
			uint32_t before = z->avail_in;
			int size, r, fault;

			/* gzip allows members back to back, and some writers pad with zeros. */
			if (!in_member) {
				if (*z->next_in == 0) {
					z->next_in++;
					z->avail_in--;
					continue;
				}
				isal_inflate_reset(z);
				in_member = true;
			}
			size = room(u, &z->next_out, err);
			if (size < 0)
				return size;
			z->avail_out = (uint32_t)size;
			fault = isal_inflate(z);
			r = filled(u, (uint32_t)size - z->avail_out, err);
			if (r < 0)
				return r;
			in_member = z->block_state != ISAL_BLOCK_FINISH;
			full = in_member && !z->avail_out;
			/* It always moves; a loop that hostile data drives does not rely on that.
			 */
			if (fault != ISAL_DECOMP_OK ||
			    (before && before == z->avail_in && (uint32_t)size == z->avail_out &&
			     in_member))
				return err_set(err, ERR_CORRUPT, "bad gzip data: %s",
					       gzip_fault(fault));
		}
	}
	return in_member ? err_set(err, ERR_CORRUPT, "the gzip data is cut off") : 0;
}

static int gunzip_all(struct unpacker *u, const uint8_t *p, size_t n, struct err *err)
{
	/* 100 KB: too much for the stack. */
	cleanup_free struct inflate_state *z = malloc(sizeof(*z));

	if (!z)
		return err_set(err, ENOMEM, "out of memory");
	isal_inflate_init(z);
	z->crc_flag = ISAL_GZIP;
	return inflate_members(u, z, p, n, err);
}

static int unzstd_frames(struct unpacker *u, ZSTD_DCtx *z, const uint8_t *p, size_t n,
			 struct err *err)
{
	size_t left = 0;

	for (; n; n = u->io->next(u->io->arg, &p)) {
		ZSTD_inBuffer in = {p, n, 0};
		bool full = false;

		while (in.pos < in.size || full) {
			ZSTD_outBuffer out = {0};
			uint8_t *to;
			int r = room(u, &to, err);

			if (r < 0)
				return r;
			out.dst = to;
			out.size = (size_t)r;
			left = ZSTD_decompressStream(z, &out, &in);
			if (ZSTD_isError(left))
				return err_set(err, ERR_CORRUPT, "bad zstd data: %s",
					       ZSTD_getErrorName(left));
			r = filled(u, out.pos, err);
			if (r < 0)
				return r;
			full = out.pos == out.size;
			/* A frame that ended exactly here has nothing pending. */
			if (full && left == 0 && in.pos == in.size)
				break;
		}
	}
	return left ? err_set(err, ERR_CORRUPT, "the zstd data is cut off") : 0;
}

static int unzstd_all(struct unpacker *u, const uint8_t *p, size_t n, struct err *err)
{
	ZSTD_DCtx *z = ZSTD_createDCtx();
	int r;

	if (!z)
		return err_set(err, ENOMEM, "out of memory");
	ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, UNPACK_ZSTD_WINDOW_LOG);
	r = unzstd_frames(u, z, p, n, err);
	ZSTD_freeDCtx(z);
	return r;
}

int unpack(const struct unpack_io *io, struct err *err)
{
	struct unpacker u = {.io = io};
	const uint8_t *p = NULL;
	size_t n = io->next(io->arg, &p);
	int r;

	switch (n ? compression_of(p, n) : COMPRESSION_NONE) {
	case COMPRESSION_GZIP:
		r = gunzip_all(&u, p, n, err);
		break;
	case COMPRESSION_ZSTD:
		r = unzstd_all(&u, p, n, err);
		break;
	default:
		return err_set(err, ERR_CORRUPT, "it is not compressed");
	}
	return r < 0 ? r : pass(&u, err);
}
