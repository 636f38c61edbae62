/* SPDX-License-Identifier: Apache-2.0 */
#include "image/stream.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/convert.h"
#include "image/unpack.h"

#define STREAM_REPORT (1u << 20)

struct stream {
	struct stream_options o;
	bool begun, ended;
	struct err err; /* why there is no more */

	/* Reading the blob: the thread's own while it runs. */
	uint8_t *input;
	size_t first; /* bytes at @input that were read to see what they are */
	uint64_t in, reported;
	struct hasher in_hash;
	int stopped; /* eventfd: readable when nobody wants the rest; -1 for files, which do not
			wait */
	struct err in_err;

	/* With an unpacker. */
	struct convert_child child;
	pthread_t feeder;
	bool feeding;		   /* that thread is to be joined */
	struct slots given, slots; /* to it, and what it has made */
	const uint8_t *made;	   /* of the present slot, @made_len bytes */
	size_t made_len;

	uint8_t *piece; /* of stream_next() */
	uint64_t out;
	struct hasher out_hash;
};

/* --- The blob --- */

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

/* The next of the blob: its size, 0 at the end. */
static ssize_t in_read(struct stream *s, uint8_t *p, size_t max, struct err *err)
{
	size_t want = max;
	ssize_t n;

	if (s->o.size == UINT64_MAX) {
		n = read_waiting(s, p, want);
	} else {
		want = (size_t)MIN((uint64_t)want, s->o.size - s->in);
		n = io_pread_full(s->o.fd, p, want, s->o.offset + s->in);
		if (n >= 0 && (size_t)n < want)
			return err_set(err, ERR_CORRUPT,
				       "the blob is cut off after %llu of %llu bytes",
				       (unsigned long long)(s->in + (uint64_t)n),
				       (unsigned long long)s->o.size);
	}
	if (n < 0)
		return err_set(err, (int)n, "cannot read: %s", err_name((int)-n));
	if (s->o.hash_input)
		hasher_add(&s->in_hash, p, (size_t)n);
	s->in += (uint64_t)n;
	if (s->o.progress &&
	    (n == 0 || s->in - s->reported >= STREAM_REPORT || s->o.size == UINT64_MAX)) {
		s->reported = s->in;
		s->o.progress(s->o.progress_arg, s->in);
	}
	return n;
}

/* --- To the unpacker and back --- */

static void *feeder_thread(void *arg)
{
	struct stream *s = arg;
	uint8_t *to = slots_room(&s->given);
	ssize_t n = (ssize_t)s->first;

	if (to)
		memcpy(to, s->input, s->first);
	/* When it takes no more it has failed, which it will say itself. */
	while (to && n > 0 && slots_pass(&s->given, (size_t)n)) {
		to = slots_room(&s->given);
		if (to)
			n = in_read(s, to, SLOT_SIZE, &s->in_err);
	}
	slots_end(&s->given);
	return NULL;
}

static int start_unpacker(struct stream *s, struct err *err)
{
	sigset_t all, old;
	int r = convert_unpack(&s->child, &s->given, &s->slots, err);

	if (r < 0)
		return r;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	r = pthread_create(&s->feeder, NULL, feeder_thread, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return err_set(err, r, "cannot start a thread: %s", err_name(r));
	s->feeding = true;
	return 0;
}

/* It may wait for the blob, or for a child that does not read. */
static void join_feeder(struct stream *s)
{
	const uint64_t one = 1;

	if (s->stopped >= 0)
		(void)!write(s->stopped, &one, sizeof(one));
	if (s->feeding)
		pthread_join(s->feeder, NULL);
	s->feeding = false;
}

/* Look at the first bytes. */
static int begin(struct stream *s, struct err *err)
{
	const char *unsupported;
	ssize_t n = in_read(s, s->input, SLOT_SIZE, err);

	s->begun = true;
	if (n < 0)
		return (int)n;
	s->first = (size_t)n;
	unsupported = compression_unsupported(s->input, s->first);
	if (unsupported)
		return err_set(err, ERR_UNSUPPORTED,
			       "%s compression is not supported, only gzip and zstd", unsupported);
	if (compression_of(s->input, s->first) != COMPRESSION_NONE)
		return start_unpacker(s, err);
	return 0;
}

static ssize_t fill_plain(struct stream *s, uint8_t *p, size_t max, struct err *err)
{
	size_t n = MIN(s->first, max);

	if (!n)
		return in_read(s, p, max, err);
	memcpy(p, s->input, n);
	memmove(s->input, s->input + n, s->first - n);
	s->first -= n;
	return (ssize_t)n;
}

/* Why nothing comes any more: 0 if that is all. */
static int unpacker_ended(struct stream *s, struct err *err)
{
	int r = convert_wait(&s->child, NULL, err);

	join_feeder(s);
	/* An end that came early is our reading's fault first, unless that was stopped by it. */
	return s->in_err.code && s->in_err.code != ECANCELED ? err_copy(err, &s->in_err) : r;
}

/* A copy, because the unpacker could change it at any time. */
static ssize_t fill_unpacked(struct stream *s, uint8_t *p, size_t max, struct err *err)
{
	size_t have = 0;

	while (have < max) {
		size_t n;

		if (!s->made_len)
			s->made_len = slots_take(&s->slots, &s->made);
		if (!s->made_len)
			return have ? (ssize_t)have : unpacker_ended(s, err);
		n = MIN(s->made_len, max - have);
		memcpy(p + have, s->made, n);
		s->made += n;
		s->made_len -= n;
		have += n;
	}
	return (ssize_t)have;
}

ssize_t stream_fill(void *stream, uint8_t *p, size_t max, struct err *err)
{
	struct stream *s = stream;
	ssize_t n = s->begun || s->err.code ? 0 : begin(s, &s->err);

	if (s->err.code)
		return err_copy(err, &s->err);
	if (n < 0 || s->ended)
		return n;
	n = s->slots.p ? fill_unpacked(s, p, max, &s->err) : fill_plain(s, p, max, &s->err);
	if (n < 0)
		return err_copy(err, &s->err);
	s->ended = n == 0;
	/* Plain input has been hashed on its way in. */
	if (s->o.hash_output && (s->slots.p || !s->o.hash_input))
		hasher_add(&s->out_hash, p, (size_t)n);
	s->out += (uint64_t)n;
	return n;
}

int stream_next(void *stream, const uint8_t **ret, size_t *ret_len, struct err *err)
{
	struct stream *s = stream;
	ssize_t n;

	if (!s->piece && !(s->piece = malloc(SLOT_SIZE)))
		return err_set(err, ENOMEM, "out of memory");
	n = stream_fill(s, s->piece, SLOT_SIZE, err);
	if (n <= 0)
		return (int)n;
	*ret = s->piece;
	*ret_len = (size_t)n;
	return 1;
}

int stream_finish(struct stream *s, uint64_t max_out, struct stream_result *ret, struct err *err)
{
	struct stream_result res = {0};
	const uint8_t *p;
	size_t n;
	int r = 0;

	do {
		if (s->out > max_out)
			return err_set(err, ERR_LIMIT, "more than %llu bytes uncompressed",
				       (unsigned long long)max_out);
		r = stream_next(s, &p, &n, err);
	} while (r > 0);
	if (r < 0)
		return r;
	res.in = s->in;
	res.out = s->out;
	if (s->o.hash_input)
		r = hasher_finish(&s->in_hash, &res.in_digest, err);
	if (r >= 0 && s->o.hash_output) {
		if (!s->slots.p && s->o.hash_input)
			res.out_digest = res.in_digest;
		else
			r = hasher_finish(&s->out_hash, &res.out_digest, err);
	}
	if (r < 0)
		return r;
	*ret = res;
	return 0;
}

int stream_open(struct stream **ret, const struct stream_options *o, struct err *err)
{
	cleanup_stream struct stream *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	s->o = *o;
	s->stopped = -1;
	s->given = s->slots = (struct slots)SLOTS_INIT;
	s->child = (struct convert_child)CONVERT_CHILD_INIT;
	s->input = malloc(SLOT_SIZE);
	if (!s->input)
		return err_set(err, ENOMEM, "out of memory");
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
	*ret = take_ptr(s);
	return 0;
}

struct stream *stream_close(struct stream *s)
{
	if (!s)
		return NULL;
	convert_kill(&s->child);
	join_feeder(s);
	slots_done(&s->given);
	slots_done(&s->slots);
	close_fd(s->stopped);
	hasher_done(&s->in_hash);
	hasher_done(&s->out_hash);
	free(s->input);
	free(s->piece);
	free(s);
	return NULL;
}
