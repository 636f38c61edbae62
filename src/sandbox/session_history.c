/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/session_history.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

/* Changes of stream that are kept; text that alternates by lines has one every 64 bytes or so. */
#define BYTES_PER_MARK 64

struct session_mark {
	uint64_t from;
	int stream;
};

static size_t nmarks(const struct session_history *h)
{
	return buf_size(&h->marks) / sizeof(struct session_mark);
}

static const struct session_mark *mark(const struct session_history *h, size_t i)
{
	return (const struct session_mark *)(const void *)buf_ptr(&h->marks) + i;
}

static size_t marks_max(const struct session_history *h)
{
	return h->max / BYTES_PER_MARK;
}

void history_init(struct session_history *h, size_t max)
{
	*h = (struct session_history){.max = max ? max : SESSION_HISTORY_DEFAULT};
	h->data.max = h->max;
	h->marks.max = (marks_max(h) + 1) * sizeof(struct session_mark);
}

void history_done(struct session_history *h)
{
	buf_done(&h->data);
	buf_done(&h->marks);
}

/* Drop @n bytes, and the marks that are then of no use. */
static void drop(struct session_history *h, size_t n)
{
	buf_consume(&h->data, n);
	while (nmarks(h) > 1 && mark(h, 1)->from <= history_first(h))
		buf_consume(&h->marks, sizeof(struct session_mark));
}

int history_add(struct session_history *h, int stream, const void *p, size_t n)
{
	size_t skip = n > h->max ? n - h->max : 0;
	struct session_mark m = {.from = h->end, .stream = stream};
	size_t size;

	if (skip) {
		drop(h, buf_size(&h->data));
		h->end += skip;
		m.from = h->end;
	}
	size = buf_size(&h->data) + n - skip;
	if (size > h->max)
		drop(h, size - h->max);
	if (!nmarks(h) || mark(h, nmarks(h) - 1)->stream != stream) {
		if (nmarks(h) == marks_max(h))
			drop(h, (size_t)(mark(h, 1)->from - history_first(h)));
		buf_add(&h->marks, &m, sizeof(m));
	}
	buf_add(&h->data, (const uint8_t *)p + skip, n - skip);
	h->end += n - skip;
	if (!buf_failed(&h->data) && !buf_failed(&h->marks))
		return 0;
	/* Nothing is kept of what came before, and the numbers go on. */
	buf_reset(&h->data);
	buf_reset(&h->marks);
	return -ENOMEM;
}

size_t history_at(const struct session_history *h, uint64_t at, size_t max, int *stream,
		  const void **p)
{
	size_t low = 0, high = nmarks(h);
	uint64_t end = h->end;

	/* The last mark that is not behind @at. */
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (mark(h, middle)->from <= at)
			low = middle;
		else
			high = middle;
	}
	if (low + 1 < nmarks(h))
		end = mark(h, low + 1)->from;
	*stream = mark(h, low)->stream;
	*p = buf_ptr(&h->data) + (at - history_first(h));
	return (size_t)MIN(end - at, (uint64_t)max);
}

uint64_t history_start(const struct session_history *h)
{
	uint64_t first = history_first(h);
	const uint8_t *p = buf_ptr(&h->data), *nl;

	if (!first || !buf_size(&h->data))
		return first;
	nl = memchr(p, '\n', buf_size(&h->data));
	return nl ? first + (uint64_t)(nl + 1 - p) : first;
}
