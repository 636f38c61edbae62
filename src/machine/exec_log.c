/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/exec_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "machine/exec_log_impl.h"
#include "wire/cbor.h"

enum {
	/* The bytes of one entry: a line of at most twice that, or six times with control codes. */
	ENTRY_MAX = 16 << 10,
	HEADER_MAX = 256,
	EVENT_MAX = 512,
	/* For a budget that is used up to grow. */
	PAUSE_NS = 20000000,
};

/* Of the files, the peer's figures. */
const struct exec_log_limits exec_log_default = {
	.name = "exec.log",
	.files = EXEC_LOG_FILES,
	.file = (size_t)10 << 20,
	.burst = (size_t)64 << 20,
	.rate = (size_t)16 << 20,
};

const struct exec_log_limits net_log_default = {
	.name = "network.log",
	.files = 2,
	.file = (size_t)5 << 20,
	.burst = (size_t)16 << 20,
	.rate = (size_t)1 << 20,
	.wait = 100000000,
};

/* What is queued. */
struct record {
	struct record *next;
	int64_t ns; /* Unix time */
	uint32_t id;
	uint32_t n;
	enum exec_log_source source;
	uint8_t bytes[];
};

struct exec_log {
	struct exec_log_limits limits;
	struct worker worker;
	struct loop_source wake; /* an eventfd: something is queued */
	uint32_t sessions;	 /* of the main thread: how many there were */

	pthread_mutex_t lock; /* what both threads use: */
	struct record *first, **last;
	size_t queued;
	uint64_t lost; /* bytes, before the first of the queue */
	bool urgent;   /* something queued is not to wait */

	/* the writer's */
	struct loop_timer again; /* it may go on */
	int64_t budget;		 /* bytes that it may write now */
	uint64_t counted;	 /* when that was said */
	uint64_t rest;		 /* until then it writes nothing but what is urgent */
	struct buf line;
	int fd[EXEC_LOG_FILES];
	unsigned at;
	uint64_t seq;
	size_t size;
	uint64_t unwritten; /* bytes that the disk refused */
	int why;	    /* ...as this errno */
};

/* ---- lines ---- */

static void add_escaped(struct buf *b, const uint8_t *p, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	size_t plain = 0;

	for (size_t i = 0; i < n; i++) {
		char esc[6] = {'\\', 'u', '0', '0', hex[p[i] >> 4], hex[p[i] & 15]};
		size_t len = sizeof(esc);

		if (p[i] >= 0x20 && p[i] != '"' && p[i] != '\\' && p[i] != 0x7f)
			continue;
		if (p[i] == '"' || p[i] == '\\' || p[i] == '\n') {
			esc[1] = p[i] == '\n' ? 'n' : (char)p[i];
			len = 2;
		}
		buf_add(b, p + plain, i - plain);
		buf_add(b, esc, len);
		plain = i + 1;
	}
	buf_add(b, p + plain, n - plain);
}

static void add_line(struct buf *b, int64_t ns, const char *source, uint32_t id, const void *p,
		     size_t n, uint64_t seq, const char *members)
{
	bool text = cbor_utf8_valid(p, n);
	time_t s = (time_t)(ns / 1000000000);
	char when[32] = "";
	struct tm tm;

	if (gmtime_r(&s, &tm))
		(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	buf_addf(b, "{\"t\":\"%s.%06dZ\",\"s\":\"%s\",\"d\":\"", when,
		 (int)(ns % 1000000000 / 1000), source);
	if (text)
		add_escaped(b, p, n);
	else
		base64_encode(p, n, b);
	buf_add_u8(b, '"');
	if (!text)
		buf_add_str(b, ",\"e\":\"base64\"");
	if (id)
		buf_addf(b, ",\"id\":%u", id);
	if (seq)
		buf_addf(b, ",\"seq\":%llu", (unsigned long long)seq);
	buf_addf(b, "%s}\n", members);
}

/* Where to cut @n bytes that do not fit one entry: not within a character, if those are any. */
static size_t cut(const uint8_t *p, size_t n)
{
	size_t m;

	if (n <= ENTRY_MAX)
		return n;
	for (m = ENTRY_MAX; m > ENTRY_MAX - 4; m--) {
		if ((p[m] & 0xc0) != 0x80)
			return m;
	}
	return ENTRY_MAX;
}

/* ---- the writer ---- */

static int put(struct exec_log *l, const struct buf *b)
{
	int r = io_write_full(l->fd[l->at], buf_ptr(b), buf_size(b));

	if (r == 0) {
		l->size += buf_size(b);
		return 0;
	}
	/* No half lines: the next one would be lost as well. */
	(void)!ftruncate(l->fd[l->at], (off_t)l->size);
	return r;
}

static int begin_file(struct exec_log *l, unsigned at, int64_t ns)
{
	static const char what[] = "a new file of the log";
	cleanup_buf struct buf b = BUF_INIT;

	l->at = at;
	l->size = 0;
	if (ftruncate(l->fd[at], 0) < 0)
		return -errno;
	add_line(&b, ns, "system", 0, what, sizeof(what) - 1, ++l->seq, "");
	return buf_failed(&b) ? -ENOMEM : put(l, &b);
}

static int put_entry(struct exec_log *l, const struct record *rec, const void *p, size_t n)
{
	static const char *const names[] = {"stdout", "stderr", "output", "system", "network"};
	const char *members = "";
	int r = 0;

	/* Two texts, each with its end: exec_log_network() made them. */
	if (rec->source == EXEC_LOG_NETWORK) {
		n = strlen(p);
		members = (const char *)p + n + 1;
	}
	buf_reset(&l->line);
	add_line(&l->line, rec->ns, names[rec->source], rec->id, p, n, 0, members);
	if (buf_failed(&l->line))
		return -ENOMEM;
	if (!l->seq || l->size + buf_size(&l->line) > l->limits.file)
		r = begin_file(l, l->seq ? (l->at + 1) % l->limits.files : 0, rec->ns);
	return r < 0 ? r : put(l, &l->line);
}

static void put_lost(struct exec_log *l, int64_t ns, uint64_t lost, const char *why)
{
	struct record rec = {.ns = ns, .source = EXEC_LOG_SYSTEM};
	char text[128];
	int n = snprintf(text, sizeof(text), "%llu bytes of output are not in the log: %s",
			 (unsigned long long)lost, why);

	(void)put_entry(l, &rec, text, (size_t)n);
}

static void put_record(struct exec_log *l, const struct record *rec)
{
	const uint8_t *p = rec->bytes;

	for (size_t done = 0; done < rec->n;) {
		size_t n = cut(p + done, rec->n - done);
		int r;

		if (l->unwritten) {
			uint64_t lost = l->unwritten;

			l->unwritten = 0;
			put_lost(l, rec->ns, lost, err_name(l->why));
		}
		r = put_entry(l, rec, p + done, n);
		if (r < 0) {
			l->unwritten += n;
			l->why = -r;
		}
		done += n;
	}
}

static int64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static struct record *take(struct exec_log *l, uint64_t *lost)
{
	struct record *rec;

	pthread_mutex_lock(&l->lock);
	rec = l->first;
	*lost = l->lost;
	l->lost = 0;
	if (rec) {
		l->first = rec->next;
		l->queued -= rec->n;
		if (!l->first)
			l->last = &l->first;
	}
	pthread_mutex_unlock(&l->lock);
	return rec;
}

/* How much may be written now? */
static int64_t budget(struct exec_log *l)
{
	uint64_t now = now_ns(), us = (now - l->counted) / 1000;

	/* In a day the budget is full again, whatever it is. */
	l->budget += (int64_t)(MIN(us, (uint64_t)86400000000) * l->limits.rate / 1000000);
	l->budget = MIN(l->budget, (int64_t)l->limits.burst);
	l->counted = now;
	return l->budget;
}

/* Write what is queued, as far as the budget goes or @all. On the writer's thread. */
static void drain(struct exec_log *l, bool all)
{
	static const char why[] = "they came faster than it is written";

	l->rest = now_ns() + l->limits.wait;
	for (;;) {
		struct record *rec;
		uint64_t lost;

		if (!all && budget(l) < 0) {
			(void)loop_timer_in(l->worker.loop, &l->again, PAUSE_NS);
			return;
		}
		rec = take(l, &lost);
		if (lost)
			put_lost(l, rec ? rec->ns : wall_ns(), lost, why);
		if (!rec)
			return;
		put_record(l, rec);
		l->budget -= rec->n;
		free(rec);
	}
}

static void on_again(struct loop_timer *t)
{
	drain(container_of(t, struct exec_log, again), false);
}

static void on_wake(struct loop_source *s, uint32_t events)
{
	struct exec_log *l = container_of(s, struct exec_log, wake);
	bool urgent;
	uint64_t n;

	(void)events;
	(void)!read(s->fd, &n, sizeof(n));
	pthread_mutex_lock(&l->lock);
	urgent = l->urgent;
	l->urgent = false;
	pthread_mutex_unlock(&l->lock);
	if (loop_timer_armed(&l->again) && !urgent)
		return;
	/* What follows shortly goes along, without another word from thread to thread. */
	if (urgent || now_ns() >= l->rest ||
	    loop_timer_at(l->worker.loop, &l->again, l->rest) < 0) {
		loop_timer_stop(&l->again);
		drain(l, false);
	}
}

static void begin(void *arg)
{
	struct exec_log *l = arg;

	(void)loop_add(l->worker.loop, &l->wake, EPOLLIN);
}

static void end(void *arg)
{
	struct exec_log *l = arg;

	loop_timer_stop(&l->again);
	drain(l, true);
	loop_del(&l->wake);
}

/* ---- the main thread ---- */

static void wake(struct exec_log *l)
{
	(void)!write(l->wake.fd, &(uint64_t){1}, sizeof(uint64_t));
}

void exec_log_lose(struct exec_log *l, size_t n)
{
	pthread_mutex_lock(&l->lock);
	l->lost += n;
	pthread_mutex_unlock(&l->lock);
	wake(l);
}

/* With the lock: make room for @n bytes, at the cost of the oldest. */
static struct record *give_way(struct exec_log *l, size_t n)
{
	struct record *gone = NULL, **tail = &gone;

	while (l->first && l->queued + n > EXEC_LOG_QUEUE) {
		*tail = l->first;
		tail = &l->first->next;
		l->queued -= l->first->n;
		l->lost += l->first->n;
		l->first = l->first->next;
	}
	*tail = NULL;
	if (!l->first)
		l->last = &l->first;
	return gone;
}

static void put_queue(struct exec_log *l, enum exec_log_source source, uint32_t id,
		      const void *before, size_t nbefore, const void *p, size_t n, bool urgent)
{
	struct record *rec, *gone;
	size_t all = nbefore + n;
	bool tell;

	if (!all)
		return;
	rec = malloc(sizeof(*rec) + all);
	if (!rec) {
		exec_log_lose(l, all);
		return;
	}
	*rec = (struct record){.ns = wall_ns(), .id = id, .n = (uint32_t)all, .source = source};
	if (nbefore)
		memcpy(rec->bytes, before, nbefore);
	if (n)
		memcpy(rec->bytes + nbefore, p, n);
	pthread_mutex_lock(&l->lock);
	gone = give_way(l, all);
	tell = !l->first || (urgent && !l->urgent);
	l->urgent |= urgent;
	*l->last = rec;
	l->last = &rec->next;
	l->queued += all;
	pthread_mutex_unlock(&l->lock);
	if (tell)
		wake(l);
	while (gone) {
		struct record *next = gone->next;

		free(gone);
		gone = next;
	}
}

void exec_log_put(struct exec_log *l, enum exec_log_source source, uint32_t id, const void *before,
		  size_t nbefore, const void *p, size_t n)
{
	put_queue(l, source, id, before, nbefore, p, n, false);
}

uint32_t exec_log_session(struct exec_log *l)
{
	return ++l->sessions;
}

void exec_log_event(struct exec_log *l, uint32_t id, const char *fmt, ...)
{
	char text[EVENT_MAX];
	va_list ap;
	int n;

	if (!l)
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(text)) {
		n = sizeof(text) - 1;
		/* Not within a character. */
		while (n && ((uint8_t)text[n - 1] & 0xc0) == 0x80)
			n--;
		n -= n && (uint8_t)text[n - 1] >= 0xc0;
	}
	if (n > 0)
		exec_log_put(l, EXEC_LOG_SYSTEM, id, NULL, 0, text, (size_t)n);
}

void exec_log_network(struct exec_log *l, const char *text, const char *members, bool urgent)
{
	put_queue(l, EXEC_LOG_NETWORK, 0, text, strlen(text) + 1, members, strlen(members) + 1,
		  urgent);
}

/* The "seq" of a file that was written before; 0: there is none. */
static uint64_t read_seq(int fd)
{
	char b[HEADER_MAX + 1], *at;
	ssize_t n = io_pread_full(fd, b, HEADER_MAX, 0);
	uint64_t seq = 0;

	if (n <= 0)
		return 0;
	b[n] = '\0';
	b[strcspn(b, "\n")] = '\0';
	at = strstr(b, ",\"seq\":");
	if (!at)
		return 0;
	at[strcspn(at, "}")] = '\0';
	return str_to_u64(at + strlen(",\"seq\":"), UINT64_MAX, &seq) < 0 ? 0 : seq;
}

static int open_files(struct exec_log *l, const char *dir, struct err *err)
{
	for (unsigned i = 0; i < l->limits.files; i++) {
		cleanup_free char *path = NULL;
		struct stat st;
		uint64_t seq;

		path = i ? str_fmt("%s/logs/%s.%u", dir, l->limits.name, i)
			 : str_fmt("%s/logs/%s", dir, l->limits.name);
		if (!path)
			return err_set(err, ENOMEM, "cannot open the log: out of memory");
		l->fd[i] = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (l->fd[i] < 0)
			return err_errno(err, "cannot open %s", path);
		if (fstat(l->fd[i], &st) < 0 || st.st_size == 0)
			continue;
		seq = read_seq(l->fd[i]);
		if (seq > l->seq) {
			l->seq = seq;
			l->at = i;
			l->size = (size_t)st.st_size;
		}
	}
	return 0;
}

int exec_log_new(struct exec_log **ret, const char *dir, const struct exec_log_limits *limits,
		 struct err *err)
{
	struct exec_log *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_set(err, ENOMEM, "cannot open the log: out of memory");
	pthread_mutex_init(&l->lock, NULL);
	l->limits = *limits;
	l->limits.files = MIN(limits->files, (unsigned)EXEC_LOG_FILES);
	for (unsigned i = 0; i < EXEC_LOG_FILES; i++)
		l->fd[i] = -1;
	l->wake = (struct loop_source){.fn = on_wake, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	l->last = &l->first;
	l->again.fn = on_again;
	l->budget = (int64_t)limits->burst;
	l->counted = now_ns();
	r = l->wake.fd < 0 ? err_errno(err, "cannot open the log") : open_files(l, dir, err);
	l->worker.batch = true;
	if (r == 0)
		r = worker_start(&l->worker, limits->name, err);
	if (r == 0) {
		loop_call(l->worker.loop, begin, l);
		if (!loop_source_active(&l->wake))
			r = err_set(err, ENOMEM, "cannot open the log: out of memory");
	}
	if (r < 0) {
		exec_log_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

struct loop *exec_log_loop(struct exec_log *l)
{
	return l->worker.loop;
}

struct exec_log *exec_log_free(struct exec_log *l)
{
	if (!l)
		return NULL;
	if (l->worker.started)
		loop_call(l->worker.loop, end, l);
	worker_stop(&l->worker);
	for (unsigned i = 0; i < EXEC_LOG_FILES; i++)
		close_fd(l->fd[i]);
	close_fd(l->wake.fd);
	buf_done(&l->line);
	pthread_mutex_destroy(&l->lock);
	free(l);
	return NULL;
}
