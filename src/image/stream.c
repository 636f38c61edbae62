/* SPDX-License-Identifier: Apache-2.0 */
#include <isa-l/igzip_lib.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/stream.h"

/* Small enough to stay in the second-level cache between the two threads, large to inflate. */
#define STREAM_CHUNK  (128u << 10)
#define STREAM_SLOTS  8u
#define STREAM_INPUTS 4u
#define STREAM_REPORT (1u << 20)
/* 2^27 is what zstd's own tool accepts without being asked: 128 MiB of window. */
#define STREAM_ZSTD_WINDOW_LOG 27

struct slot {
	uint8_t *data;
	size_t len;
};

struct stream {
	struct stream_options o;
	pthread_t thread;
	bool started;

	/* Guards everything down to `err`; held for moments only. */
	pthread_mutex_t lock;
	pthread_cond_t filled, emptied;
	struct slot slots[STREAM_SLOTS];
	unsigned head, count; /* oldest filled slot, number of filled ones */
	/*
	 * Pieces of input, read and hashed so far. Hashing them belongs to whichever thread would
	 * wait for the other: how fast data inflates varies, and so does what becomes of it.
	 */
	struct slot inputs[STREAM_INPUTS];
	uint64_t inputs_read, inputs_hashed;
	bool hashing; /* one of them has in_hash and inputs[inputs_hashed] */
	bool done, stop;
	struct err err;

	struct hasher in_hash;
	int stopped; /* eventfd: readable when the consumer has gone; -1 for files, which do not
			wait */

	/* The thread's own until `done`. */
	uint8_t *input;
	uint64_t in;
	uint64_t reported;
	enum compression compression;
	struct slot *filling;

	/* The consumer's own. */
	bool taken; /* the slot at head is in the consumer's hands */
	uint64_t out;
	struct hasher out_hash;
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

/* Hash a piece of input if there is one that waits for it. Called, and returns, with the lock. */
static bool hash_input(struct stream *s)
{
	const struct slot *slot = &s->inputs[s->inputs_hashed % STREAM_INPUTS];

	if (s->hashing || s->inputs_hashed == s->inputs_read)
		return false;
	s->hashing = true;
	pthread_mutex_unlock(&s->lock);
	hasher_add(&s->in_hash, slot->data, slot->len);
	pthread_mutex_lock(&s->lock);
	s->hashing = false;
	s->inputs_hashed++;
	pthread_cond_signal(&s->emptied);
	return true;
}

/* A slot to fill, or NULL when the consumer has gone. */
static struct slot *slot_begin(struct stream *s)
{
	struct slot *slot = NULL;

	pthread_mutex_lock(&s->lock);
	while (s->count == STREAM_SLOTS && !s->stop)
		if (!hash_input(s))
			pthread_cond_wait(&s->emptied, &s->lock);
	if (!s->stop)
		slot = &s->slots[(s->head + s->count) % STREAM_SLOTS];
	pthread_mutex_unlock(&s->lock);
	if (slot)
		slot->len = 0;
	return slot;
}

static void slot_end(struct stream *s)
{
	pthread_mutex_lock(&s->lock);
	s->count++;
	pthread_cond_signal(&s->filled);
	pthread_mutex_unlock(&s->lock);
	s->filling = NULL;
}

/* Room in the current slot: its size, or 0 when the consumer has gone. */
static size_t out_room(struct stream *s, uint8_t **ret)
{
	if (s->filling && s->filling->len == STREAM_CHUNK)
		slot_end(s);
	if (!s->filling)
		s->filling = slot_begin(s);
	if (!s->filling)
		return 0;
	*ret = s->filling->data + s->filling->len;
	return STREAM_CHUNK - s->filling->len;
}

static struct slot *input_begin(struct stream *s)
{
	struct slot *slot;

	pthread_mutex_lock(&s->lock);
	while (s->inputs_read - s->inputs_hashed == STREAM_INPUTS)
		if (!hash_input(s))
			pthread_cond_wait(&s->emptied, &s->lock);
	slot = &s->inputs[s->inputs_read % STREAM_INPUTS];
	pthread_mutex_unlock(&s->lock);
	return slot;
}

static void input_end(struct stream *s)
{
	pthread_mutex_lock(&s->lock);
	s->inputs_read++;
	if (s->o.hash_input)
		pthread_cond_signal(&s->filled);
	else
		s->inputs_hashed++;
	pthread_mutex_unlock(&s->lock);
}

/* A pipe may wait for a network: its reader does not, once nobody wants the data. */
static ssize_t read_waiting(struct stream *s, uint8_t *p, size_t want)
{
	size_t n = 0;

	while (n < want) {
		struct pollfd fds[] = {{s->o.fd, POLLIN, 0}, {s->stopped, POLLIN, 0}};
		ssize_t r = poll(fds, ARRAY_SIZE(fds), -1);

		if (r > 0 && fds[1].revents)
			return -ECANCELED;
		if (r > 0)
			r = read(s->o.fd, p + n, want - n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		n += (size_t)r;
	}
	return (ssize_t)n;
}

/* The next input at s->input: its size, 0 at the end. */
static ssize_t in_read(struct stream *s, struct err *err)
{
	struct slot *slot = input_begin(s);
	size_t want = STREAM_CHUNK;
	ssize_t n;

	s->input = slot->data;
	if (s->o.size == UINT64_MAX) {
		n = read_waiting(s, s->input, want);
	} else {
		want = (size_t)MIN((uint64_t)want, s->o.size - s->in);
		n = io_pread_full(s->o.fd, s->input, want, s->o.offset + s->in);
		if (n >= 0 && (size_t)n < want)
			return err_set(err, ERR_CORRUPT,
				       "the blob is cut off after %llu of %llu bytes",
				       (unsigned long long)(s->in + (uint64_t)n),
				       (unsigned long long)s->o.size);
	}
	if (n < 0)
		return err_set(err, (int)n, "cannot read: %s", err_name((int)-n));
	slot->len = (size_t)n;
	if (n > 0)
		input_end(s);
	s->in += (uint64_t)n;
	if (s->o.progress &&
	    (n == 0 || s->in - s->reported >= STREAM_REPORT || s->o.size == UINT64_MAX)) {
		s->reported = s->in;
		s->o.progress(s->o.progress_arg, s->in);
	}
	return n;
}

static int copy_all(struct stream *s, ssize_t n, struct err *err)
{
	for (; n > 0; n = in_read(s, err)) {
		for (ssize_t at = 0; at < n;) {
			uint8_t *out;
			size_t room = out_room(s, &out), piece;

			if (!room)
				return -ECANCELED;
			piece = MIN(room, (size_t)(n - at));
			memcpy(out, s->input + at, piece);
			s->filling->len += piece;
			at += (ssize_t)piece;
		}
	}
	return (int)n;
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

static int inflate_members(struct stream *s, struct inflate_state *z, ssize_t n, struct err *err)
{
	bool in_member = true, full = false;

	for (; n > 0; n = in_read(s, err)) {
		z->next_in = s->input;
		z->avail_in = (uint32_t)n;
		/* With all input taken, output may still be pending behind a full slot. */
		while (z->avail_in || full) {
			uint32_t before = z->avail_in;
			uint8_t *out;
			size_t room;
			int r;

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
			room = out_room(s, &out);
			if (!room)
				return -ECANCELED;
			z->next_out = out;
			z->avail_out = (uint32_t)room;
			r = isal_inflate(z);
			s->filling->len += room - z->avail_out;
			in_member = z->block_state != ISAL_BLOCK_FINISH;
			full = in_member && !z->avail_out;
			/* It always moves; a loop that hostile data drives does not rely on that.
			 */
			if (r != ISAL_DECOMP_OK ||
			    (before && before == z->avail_in && room == z->avail_out && in_member))
				return err_set(err, ERR_CORRUPT, "bad gzip data: %s",
					       gzip_fault(r));
		}
	}
	if (n < 0)
		return (int)n;
	return in_member ? err_set(err, ERR_CORRUPT, "the gzip data is cut off") : 0;
}

static int gunzip_all(struct stream *s, ssize_t n, struct err *err)
{
	/* 100 KB: too much for the stack. */
	cleanup_free struct inflate_state *z = malloc(sizeof(*z));

	if (!z)
		return err_set(err, ENOMEM, "out of memory");
	isal_inflate_init(z);
	z->crc_flag = ISAL_GZIP;
	return inflate_members(s, z, n, err);
}

static int unzstd_frames(struct stream *s, ZSTD_DCtx *z, ssize_t n, struct err *err)
{
	size_t left = 0;

	for (; n > 0; n = in_read(s, err)) {
		ZSTD_inBuffer in = {s->input, (size_t)n, 0};
		bool full = false;

		while (in.pos < in.size || full) {
			ZSTD_outBuffer out = {0};
			uint8_t *p;

			out.size = out_room(s, &p);
			if (!out.size)
				return -ECANCELED;
			out.dst = p;
			left = ZSTD_decompressStream(z, &out, &in);
			if (ZSTD_isError(left))
				return err_set(err, ERR_CORRUPT, "bad zstd data: %s",
					       ZSTD_getErrorName(left));
			s->filling->len += out.pos;
			full = out.pos == out.size;
			/* A frame that ended exactly here has nothing pending. */
			if (full && left == 0 && in.pos == in.size)
				break;
		}
	}
	if (n < 0)
		return (int)n;
	return left ? err_set(err, ERR_CORRUPT, "the zstd data is cut off") : 0;
}

static int unzstd_all(struct stream *s, ssize_t n, struct err *err)
{
	ZSTD_DCtx *z = ZSTD_createDCtx();
	int r;

	if (!z)
		return err_set(err, ENOMEM, "out of memory");
	ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, STREAM_ZSTD_WINDOW_LOG);
	r = unzstd_frames(s, z, n, err);
	ZSTD_freeDCtx(z);
	return r;
}

static void *stream_thread(void *arg)
{
	struct stream *s = arg;
	struct err err = ERR_INIT;
	ssize_t n = in_read(s, &err);
	int r = (int)n;

	if (n > 0) {
		const char *unsupported = compression_unsupported(s->input, (size_t)n);

		s->compression = compression_of(s->input, (size_t)n);
		if (unsupported)
			r = err_set(&err, ERR_UNSUPPORTED,
				    "%s compression is not supported, only gzip and zstd",
				    unsupported);
		else if (s->compression == COMPRESSION_GZIP)
			r = gunzip_all(s, n, &err);
		else if (s->compression == COMPRESSION_ZSTD)
			r = unzstd_all(s, n, &err);
		else
			r = copy_all(s, n, &err);
	}
	if (s->filling && s->filling->len)
		slot_end(s);
	pthread_mutex_lock(&s->lock);
	if (r < 0)
		s->err = err;
	s->done = true;
	pthread_cond_signal(&s->filled);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int stream_open(struct stream **ret, const struct stream_options *o, struct err *err)
{
	cleanup_stream struct stream *s = calloc(1, sizeof(*s));
	sigset_t all, old;
	int r;

	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	s->o = *o;
	s->stopped = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->filled, NULL);
	pthread_cond_init(&s->emptied, NULL);
	for (unsigned i = 0; i < STREAM_SLOTS + STREAM_INPUTS; i++) {
		struct slot *slot = i < STREAM_SLOTS ? &s->slots[i] : &s->inputs[i - STREAM_SLOTS];

		slot->data = malloc(STREAM_CHUNK);
		if (!slot->data)
			return err_set(err, ENOMEM, "out of memory");
	}
	if (o->size == UINT64_MAX) {
		s->stopped = eventfd(0, EFD_CLOEXEC);
		if (s->stopped < 0)
			return err_errno(err, "cannot read");
	}
	r = o->hash_input ? hasher_init(&s->in_hash, err) : 0;
	if (r >= 0 && o->hash_output)
		r = hasher_init(&s->out_hash, err);
	if (r < 0)
		return r;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	r = pthread_create(&s->thread, NULL, stream_thread, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return err_set(err, r, "cannot start a thread: %s", err_name(r));
	s->started = true;
	*ret = take_ptr(s);
	return 0;
}

struct stream *stream_close(struct stream *s)
{
	if (!s)
		return NULL;
	if (s->started) {
		const uint64_t one = 1;

		if (s->stopped >= 0)
			(void)!write(s->stopped, &one, sizeof(one));
		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_cond_signal(&s->emptied);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->thread, NULL);
	}
	for (unsigned i = 0; i < STREAM_SLOTS; i++)
		free(s->slots[i].data);
	for (unsigned i = 0; i < STREAM_INPUTS; i++)
		free(s->inputs[i].data);
	close_fd(s->stopped);
	hasher_done(&s->in_hash);
	hasher_done(&s->out_hash);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->filled);
	pthread_cond_destroy(&s->emptied);
	free(s);
	return NULL;
}

int stream_next(void *stream, const uint8_t **ret, size_t *ret_len, struct err *err)
{
	struct stream *s = stream;
	const struct slot *slot = NULL;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	if (s->taken) {
		s->head = (s->head + 1) % STREAM_SLOTS;
		s->count--;
		s->taken = false;
		pthread_cond_signal(&s->emptied);
	}
	while (!s->count && !s->done)
		if (!hash_input(s))
			pthread_cond_wait(&s->filled, &s->lock);
	if (s->count) {
		slot = &s->slots[s->head];
		s->taken = true;
	} else if (s->err.code) {
		r = err_copy(err, &s->err);
	}
	pthread_mutex_unlock(&s->lock);
	if (!slot)
		return r;
	/* Plain input has been hashed on its way in. */
	if (s->o.hash_output && !(s->compression == COMPRESSION_NONE && s->o.hash_input))
		hasher_add(&s->out_hash, slot->data, slot->len);
	s->out += slot->len;
	*ret = slot->data;
	*ret_len = slot->len;
	return 1;
}

int stream_finish(struct stream *s, uint64_t max_out, struct stream_result *ret, struct err *err)
{
	struct stream_result res = {0};
	const uint8_t *p;
	size_t n;
	int r;

	while ((r = stream_next(s, &p, &n, err)) > 0)
		if (s->out > max_out)
			return err_set(err, ERR_LIMIT, "more than %llu bytes uncompressed",
				       (unsigned long long)max_out);
	if (r < 0)
		return r;
	/* The thread is done; what it read last may be left. */
	pthread_mutex_lock(&s->lock);
	while (hash_input(s))
		;
	pthread_mutex_unlock(&s->lock);
	res.in = s->in;
	res.out = s->out;
	if (s->o.hash_input)
		r = hasher_finish(&s->in_hash, &res.in_digest, err);
	if (r >= 0 && s->o.hash_output) {
		if (s->compression == COMPRESSION_NONE && s->o.hash_input)
			res.out_digest = res.in_digest;
		else
			r = hasher_finish(&s->out_hash, &res.out_digest, err);
	}
	if (r < 0)
		return r;
	*ret = res;
	return 0;
}
