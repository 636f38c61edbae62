/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/log_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"

enum {
	CHUNK = 256 << 10,
	/* Six times the bytes of one entry, and what is around them; longer lines are not ours. */
	LINE_MAX_BYTES = 128 << 10,
	HEADER_MAX = 512,
};

struct log_reader {
	int dirfd;
	const char *log;
	int fd; /* the file we are in; -1: none yet */
	uint64_t seq, offset;
	struct buf in;	/* read, not yet handed out */
	bool last_look; /* its successor is there: read to the end, then go on */
	bool skipping;	/* in a line that is too long */
	json_t *entry;	/* what the last one handed out points into */
	struct buf decoded;
};

static int open_file(const struct log_reader *r, unsigned i)
{
	char name[32];

	if (i)
		snprintf(name, sizeof(name), "logs/%s.%u", r->log, i);
	else
		snprintf(name, sizeof(name), "logs/%s", r->log);
	return openat(r->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

/* The number of a file; 0: it has none (yet). */
static uint64_t seq_of(int fd)
{
	char b[HEADER_MAX], *end;
	ssize_t n = io_pread_full(fd, b, sizeof(b), 0);
	json_int_t seq;
	json_t *j;

	end = n > 0 ? memchr(b, '\n', (size_t)n) : NULL;
	if (!end)
		return 0;
	j = json_loadb(b, (size_t)(end - b), JSON_ALLOW_NUL, NULL);
	seq = json_integer_value(json_object_get(j, "seq"));
	json_decref(j);
	return seq > 0 ? (uint64_t)seq : 0;
}

/* The oldest file that is younger than @after: its descriptor (-1: none) and number. */
static int find_file(const struct log_reader *r, uint64_t after, uint64_t *ret)
{
	int found = -1;

	*ret = UINT64_MAX;
	for (unsigned i = 0; i < LOG_READER_FILES; i++) {
		int fd = open_file(r, i);
		uint64_t seq = fd < 0 ? 0 : seq_of(fd);

		if (seq > after && seq < *ret) {
			*ret = seq;
			close_fd(found);
			found = take_fd(&fd);
		}
		close_fd(fd);
	}
	return found;
}

static void enter(struct log_reader *r, int fd, uint64_t seq)
{
	close_fd(r->fd);
	r->fd = fd;
	r->seq = seq;
	r->offset = 0;
	r->last_look = r->skipping = false;
	buf_reset(&r->in);
}

int log_time_parse(const char *s, size_t n, int64_t *ret)
{
	char text[40], *rest;
	struct tm tm = {0};
	int64_t ns = 0, unit = 100000000, offset = 0;

	if (n >= sizeof(text))
		return -EINVAL;
	memcpy(text, s, n);
	text[n] = '\0';
	rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!rest)
		return -EINVAL;
	if (*rest == '.') {
		if (rest[1] < '0' || rest[1] > '9')
			return -EINVAL;
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
			ns += (*rest - '0') * unit;
	}
	if (*rest == '+' || *rest == '-') {
		unsigned h, m;
		int end = 0;

		if (sscanf(rest + 1, "%2u:%2u%n", &h, &m, &end) != 2 || end != 5 || h > 23 ||
		    m > 59)
			return -EINVAL;
		offset = ((int64_t)h * 60 + m) * (*rest == '+' ? 60 : -60);
		rest += 6;
	} else if (*rest == 'Z') {
		rest++;
	} else {
		return -EINVAL;
	}
	if (*rest)
		return -EINVAL;
	*ret = ((int64_t)timegm(&tm) - offset) * 1000000000 + ns;
	return 0;
}

/* A line into an entry: false when it is none. */
static bool parse(struct log_reader *r, const char *line, size_t n, struct log_entry *e)
{
	static const char *const sources[] = {"stdout", "stderr", "output", "system", "network"};
	const char *s, *coding;
	json_t *t, *d;
	bool known = false;

	json_decref(r->entry);
	r->entry = json_loadb(line, n, JSON_ALLOW_NUL, NULL);
	t = json_object_get(r->entry, "t");
	d = json_object_get(r->entry, "d");
	s = json_string_value(json_object_get(r->entry, "s"));
	if (!json_is_string(t) || !json_is_string(d) || !s || json_object_get(r->entry, "seq") ||
	    log_time_parse(json_string_value(t), json_string_length(t), &e->ns) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(sources) && !known; i++) {
		known = str_eq(sources[i], s);
		e->source = (enum log_source)i;
	}
	e->id = (uint32_t)json_integer_value(json_object_get(r->entry, "id"));
	e->data = json_string_value(d);
	e->n = json_string_length(d);
	e->line = line;
	e->line_n = n;
	coding = json_string_value(json_object_get(r->entry, "e"));
	if (coding) {
		buf_reset(&r->decoded);
		if (!str_eq(coding, "base64") || base64_decode(e->data, e->n, &r->decoded) < 0)
			return false;
		e->data = buf_ptr(&r->decoded);
		e->n = buf_size(&r->decoded);
	}
	return known;
}

/* 1: more bytes. 0: none now. -ENODATA: the file has been emptied under us. -ENOMEM. */
static int fill(struct log_reader *r)
{
	void *to = buf_reserve(&r->in, CHUNK);
	ssize_t n;

	if (!to)
		return -ENOMEM;
	do
		n = pread(r->fd, to, CHUNK, (off_t)r->offset);
	while (n < 0 && errno == EINTR);
	/* After the bytes: so they were the old file's, if it says that it still is. */
	if (seq_of(r->fd) != r->seq)
		return -ENODATA;
	if (n <= 0)
		return n < 0 ? -errno : 0;
	buf_commit(&r->in, (size_t)n);
	r->offset += (uint64_t)n;
	return 1;
}

/* The end of the file we are in. 1: look again. 0: the end of all. */
static int at_end(struct log_reader *r)
{
	uint64_t seq;
	int fd = find_file(r, r->seq, &seq);

	if (fd < 0)
		return 0;
	if (r->fd >= 0 && !r->last_look) {
		/* What was written before the successor began may have come after our look. */
		close_fd(fd);
		r->last_look = true;
		return 1;
	}
	/* The first is the oldest there is; from then on they have no gaps. */
	if (r->fd >= 0 && seq != r->seq + 1) {
		enter(r, fd, seq);
		return -ENODATA;
	}
	enter(r, fd, seq);
	return 1;
}

int log_reader_next(struct log_reader *r, struct log_entry *e)
{
	for (;;) {
		size_t n = buf_size(&r->in);
		const char *p = (const char *)buf_ptr(&r->in);
		const char *end = n ? memchr(p, '\n', n) : NULL;
		int got;

		if (end) {
			size_t len = (size_t)(end - p);
			bool whole = !r->skipping && len <= LINE_MAX_BYTES;

			/* The bytes stay where they are until more are read. */
			buf_consume(&r->in, len + 1);
			r->skipping = false;
			if (whole && parse(r, p, len, e))
				return 1;
			continue;
		}
		if (n > LINE_MAX_BYTES) {
			buf_reset(&r->in);
			r->skipping = true;
		}
		got = r->fd < 0 ? 0 : fill(r);
		if (got == -ENODATA) {
			/* Whatever comes next is younger than what we were to read. */
			enter(r, -1, r->seq);
			return -ENODATA;
		}
		if (got == 0)
			got = at_end(r);
		if (got <= 0)
			return got;
	}
}

int log_reader_back(struct log_reader *r, uint64_t bytes)
{
	uint64_t seqs[LOG_READER_FILES], seq = 0;
	size_t n = 0;
	int fd;

	enter(r, -1, 0);
	for (; n < LOG_READER_FILES && (fd = find_file(r, seq, &seqs[n])) >= 0; n++) {
		seq = seqs[n];
		close_fd(fd);
	}
	while (n > 0) {
		cleanup_close int file = find_file(r, seqs[--n] - 1, &seq);
		struct stat st;

		if (file < 0 || fstat(file, &st) < 0)
			break;
		if ((uint64_t)st.st_size > bytes) {
			enter(r, take_fd(&file), seq);
			/* What is there is the rest of a line, if only its end. */
			r->offset = (uint64_t)st.st_size - bytes - 1;
			r->skipping = true;
			return 0;
		}
		bytes -= (uint64_t)st.st_size;
	}
	return 1;
}

int log_reader_new(struct log_reader **ret, int dirfd, const char *log, struct err *err)
{
	struct log_reader *r = calloc(1, sizeof(*r));

	if (r) {
		r->fd = -1;
		r->log = log;
		r->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
	}
	if (!r || r->dirfd < 0) {
		free(r);
		return err_set(err, r ? errno : ENOMEM, "cannot read the log");
	}
	*ret = r;
	return 0;
}

struct log_reader *log_reader_free(struct log_reader *r)
{
	if (!r)
		return NULL;
	close_fd(r->dirfd);
	close_fd(r->fd);
	json_decref(r->entry);
	buf_done(&r->in);
	buf_done(&r->decoded);
	free(r);
	return NULL;
}
