/* SPDX-License-Identifier: Apache-2.0 */
#include "net/proxy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "net/socket.h"

enum {
	/* The longest of all: a request of HTTP with credentials. */
	SAY_MAX = 2048,
	/* What a proxy has to say in front of the connection. */
	HEAR_MAX = 4096,
};

/* What is waited for. */
enum step { GREETING, LOGIN, REPLY, HEAD };

struct net_dialogue {
	const struct net_proxy *p;
	bool datagrams;
	struct net_addr to; /* of datagrams: where the relay is */
	uint16_t port;
	enum step step;
	struct buf out;
	size_t taken; /* bytes from the socket */
};

static const struct {
	const char *scheme;
	enum net_proxy_kind kind;
} schemes[] = {
	{"socks5://", NET_PROXY_SOCKS5},
	{"socks4://", NET_PROXY_SOCKS4},
	{"http://", NET_PROXY_HTTP},
};

/* ---- who it is ---- */

static bool parse_place(char *text, struct net_proxy *p)
{
	char *port = strrchr(text, ':');
	size_t n = strlen(text);
	uint64_t v;

	if (n && text[n - 1] == '/')
		text[n - 1] = '\0';
	if (!port)
		return false;
	*port++ = '\0';
	n = strlen(text);
	if (*text == '[') {
		if (text[n - 1] != ']')
			return false;
		text[n - 1] = '\0';
		text++;
	} else if (strchr(text, ':')) {
		return false;
	}
	if (!net_addr_parse(text, &p->addr) || str_to_u64(port, 65535, &v) < 0 || !v)
		return false;
	p->port = (uint16_t)v;
	return true;
}

int net_proxy_parse(const char *text, struct net_proxy *ret, struct err *err)
{
	struct net_proxy p = {0};

	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		cleanup_free char *place = NULL;

		if (!str_starts(text, schemes[i].scheme))
			continue;
		place = strdup(text + strlen(schemes[i].scheme));
		if (!place)
			return err_set(err, ENOMEM, "out of memory");
		p.kind = schemes[i].kind;
		if (!parse_place(place, &p))
			break;
		*ret = p;
		return 0;
	}
	err_set(err, ERR_USAGE, "no proxy: \"%.100s\"", text);
	return err_hint(err,
			"it looks like socks5://127.0.0.1:1080, socks4://… or http://…, with an "
			"address and a port");
}

int net_proxy_login(struct net_proxy *p, const char *user, const char *password, struct err *err)
{
	if (strlen(user) > NET_PROXY_WORD_MAX || strlen(password) > NET_PROXY_WORD_MAX)
		return err_set(err, ERR_USAGE,
			       "a user or password for a proxy is longer than %d bytes",
			       NET_PROXY_WORD_MAX);
	if (*password && p->kind == NET_PROXY_SOCKS4)
		return err_set(err, ERR_USAGE, "a SOCKS 4 proxy takes no password");
	if (p->kind == NET_PROXY_HTTP && strchr(user, ':'))
		return err_set(err, ERR_USAGE, "a user of an HTTP proxy cannot have a colon");
	if (*password && !*user)
		return err_set(err, ERR_USAGE, "a password for a proxy, and no user");
	snprintf(p->user, sizeof(p->user), "%s", user);
	snprintf(p->password, sizeof(p->password), "%s", password);
	return 0;
}

bool net_proxy_serves(const struct net_proxy *p, const struct net_addr *to)
{
	return p->kind != NET_PROXY_NONE && net_addr_kind(to) != NET_LOOPBACK;
}

/* ---- what is said ---- */

static void add_be16(struct buf *b, uint16_t v)
{
	buf_add_u8(b, (uint8_t)(v >> 8));
	buf_add_u8(b, (uint8_t)v);
}

static void add_addr(struct buf *b, const struct net_addr *a)
{
	if (net_addr_is_v4(a))
		buf_add(b, net_addr_four(a), 4);
	else
		buf_add(b, a->b, sizeof(a->b));
}

static void say_socks4(struct net_dialogue *d)
{
	buf_add(&d->out, "\x04\x01", 2);
	add_be16(&d->out, d->port);
	add_addr(&d->out, &d->to);
	buf_add(&d->out, d->p->user, strlen(d->p->user) + 1);
	d->step = REPLY;
}

static void say_socks5_request(struct net_dialogue *d)
{
	/* Where our datagrams will come from is not known yet. */
	if (d->datagrams) {
		buf_add(&d->out, "\x05\x03\x00\x01\0\0\0\0\0\0", 10);
	} else {
		buf_add(&d->out, "\x05\x01\x00", 3);
		buf_add_u8(&d->out, net_addr_is_v4(&d->to) ? 1 : 4);
		add_addr(&d->out, &d->to);
		add_be16(&d->out, d->port);
	}
	d->step = REPLY;
}

static void say_login(struct net_dialogue *d)
{
	buf_add_u8(&d->out, 1);
	buf_add_u8(&d->out, (uint8_t)strlen(d->p->user));
	buf_add_str(&d->out, d->p->user);
	buf_add_u8(&d->out, (uint8_t)strlen(d->p->password));
	buf_add_str(&d->out, d->p->password);
	d->step = LOGIN;
}

static void say_http(struct net_dialogue *d)
{
	const bool four = net_addr_is_v4(&d->to);
	char addr[NET_ADDR_TEXT], place[NET_ADDR_TEXT + 16];

	net_addr_text(&d->to, addr);
	snprintf(place, sizeof(place), "%s%s%s:%u", four ? "" : "[", addr, four ? "" : "]",
		 d->port);
	buf_addf(&d->out, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", place, place);
	if (*d->p->user) {
		cleanup_free char *both = str_fmt("%s:%s", d->p->user, d->p->password);

		buf_add_str(&d->out, "Proxy-Authorization: Basic ");
		if (both)
			base64_encode(both, strlen(both), &d->out);
		else
			d->out.failed = true;
		buf_add_str(&d->out, "\r\n");
	}
	buf_add_str(&d->out, "\r\n");
	d->step = HEAD;
}

struct net_dialogue *net_dialogue_new(const struct net_proxy *p, const struct net_addr *to,
				      uint16_t port)
{
	struct net_dialogue *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->p = p;
	d->datagrams = !to;
	d->to = to ? *to : p->addr;
	d->port = port;
	d->out.max = SAY_MAX;
	switch (p->kind) {
	case NET_PROXY_SOCKS4:
		say_socks4(d);
		break;
	case NET_PROXY_SOCKS5:
		if (*p->user)
			buf_add(&d->out, "\x05\x02\x00\x02", 4);
		else
			buf_add(&d->out, "\x05\x01\x00", 3);
		d->step = GREETING;
		break;
	case NET_PROXY_HTTP:
		say_http(d);
		break;
	case NET_PROXY_NONE:
		break;
	}
	return buf_failed(&d->out) ? net_dialogue_free(d) : d;
}

struct net_dialogue *net_dialogue_free(struct net_dialogue *d)
{
	if (!d)
		return NULL;
	buf_done(&d->out);
	free(d);
	return NULL;
}

bool net_dialogue_sends(const struct net_dialogue *d)
{
	return buf_size(&d->out) > 0;
}

size_t net_dialogue_taken(const struct net_dialogue *d)
{
	return d->taken;
}

void net_dialogue_relay(const struct net_dialogue *d, struct net_addr *a, uint16_t *port)
{
	*a = d->to;
	*port = d->port;
}

/* ---- datagrams (RFC 1928, 7) ---- */

size_t net_datagram_head(uint8_t head[NET_DATAGRAM_HEAD], const struct net_addr *to, uint16_t port)
{
	const bool four = net_addr_is_v4(to);
	const size_t n = four ? 4 : 16;

	/* Not a part of one. */
	memset(head, 0, 3);
	head[3] = four ? 1 : 4;
	memcpy(head + 4, four ? net_addr_four(to) : to->b, n);
	head[4 + n] = (uint8_t)(port >> 8);
	head[5 + n] = (uint8_t)port;
	return 6 + n;
}

size_t net_datagram_open(const uint8_t *p, size_t n, struct net_addr *from, uint16_t *port)
{
	struct cur c = cur_make(p, n);
	const uint8_t *at;
	unsigned kind;

	(void)cur_be16(&c);
	if (cur_u8(&c))
		return 0;
	kind = cur_u8(&c);
	if (kind != 1 && kind != 4)
		return 0;
	at = cur_bytes(&c, kind == 1 ? 4 : 16);
	*port = (uint16_t)cur_be16(&c);
	if (!at || c.bad)
		return 0;
	*from = kind == 1 ? net_addr_v4(at) : net_addr_v6(at);
	return n - cur_left(&c);
}

/* ---- what is heard ---- */

/* RFC 1928, 6. */
static int socks5_error(uint8_t code)
{
	static const int errors[] = {
		[1] = ECONNREFUSED, [2] = EACCES,    [3] = ENETUNREACH, [4] = EHOSTUNREACH,
		[5] = ECONNREFUSED, [6] = ETIMEDOUT, [7] = ENETUNREACH, [8] = ENETUNREACH,
	};

	return code < ARRAY_SIZE(errors) && errors[code] ? -errors[code] : -ECONNREFUSED;
}

static int http_error(unsigned code)
{
	switch (code) {
	case 401:
	case 403:
	case 407:
		return -EACCES;
	case 404:
	case 502:
	case 503:
		return -EHOSTUNREACH;
	case 408:
	case 504:
		return -ETIMEDOUT;
	default:
		return -ECONNREFUSED;
	}
}

/* @n bytes are there. 0: too few; else how many were ours, with *done or *error set or neither. */
static size_t hear_socks4(const uint8_t *b, size_t n, bool *done, int *error)
{
	if (n < 8)
		return 0;
	*done = b[0] == 0 && b[1] == 90;
	if (!*done)
		*error = b[0] == 0 && (b[1] == 92 || b[1] == 93) ? -EACCES : -ECONNREFUSED;
	return 8;
}

/* A proxy that has many addresses, or does not know its own, means the one it was reached at. */
static bool take_relay(struct net_dialogue *d, const uint8_t *b, size_t len)
{
	static const uint8_t nowhere[16];
	const size_t n = b[3] == 1 ? 4 : 16;
	enum net_kind kind;

	d->port = (uint16_t)(b[len - 2] << 8 | b[len - 1]);
	d->to = d->p->addr;
	if (b[3] == 3 || memcmp(b + 4, nowhere, n) == 0)
		return d->port;
	d->to = b[3] == 1 ? net_addr_v4(b + 4) : net_addr_v6(b + 4);
	kind = net_addr_kind(&d->to);
	/* Its own loopback is not ours. */
	if (kind == NET_LOOPBACK && net_addr_kind(&d->p->addr) != NET_LOOPBACK)
		d->to = d->p->addr;
	return d->port && kind != NET_METADATA && kind != NET_MULTICAST;
}

static size_t hear_socks5(struct net_dialogue *d, const uint8_t *b, size_t n, bool *done,
			  int *error)
{
	/* Of the address that the proxy connected from, by its kind. */
	size_t len;

	if (n < 2)
		return 0;
	if (b[0] != (d->step == LOGIN ? 1 : 5)) {
		*error = -EPROTO;
		return n;
	}
	if (d->step == GREETING) {
		if (b[1] == 0)
			say_socks5_request(d);
		else if (b[1] == 2 && *d->p->user)
			say_login(d);
		else
			*error = -EACCES;
		return 2;
	}
	if (d->step == LOGIN) {
		if (b[1] == 0)
			say_socks5_request(d);
		else
			*error = -EACCES;
		return 2;
	}
	if (b[1]) {
		*error = d->datagrams ? -EACCES : socks5_error(b[1]);
		return 2;
	}
	if (n < 5)
		return 0;
	len = b[3] == 1 ? 4 : b[3] == 4 ? 16 : b[3] == 3 ? 1u + b[4] : 0;
	if (!len)
		*error = -EPROTO;
	len += 6;
	*done = !*error && n >= len;
	if (*done && d->datagrams && !take_relay(d, b, len))
		*error = -EPROTO;
	return *error ? n : n >= len ? len : 0;
}

static size_t hear_http(const uint8_t *b, size_t n, bool *done, int *error)
{
	static const char version[] = "HTTP/1.";
	const uint8_t *end = memmem(b, n, "\r\n\r\n", 4);
	unsigned code = 0;

	if (!end) {
		if (memcmp(b, version, MIN(n, sizeof(version) - 1)))
			*error = -EPROTO;
		return 0;
	}
	/* HTTP/1.1 200 */
	if (end - b >= 12 && !memcmp(b, version, sizeof(version) - 1) && b[8] == ' ') {
		for (int i = 9; i < 12; i++)
			code = code * 10 + (b[i] >= '0' && b[i] <= '9' ? b[i] - 48u : 1000u);
	}
	*done = code >= 200 && code < 300;
	if (!*done)
		*error = code >= 100 && code < 1000 ? http_error(code) : -EPROTO;
	return (size_t)(end - b) + 4;
}

int net_dialogue_run(struct net_dialogue *d, int fd)
{
	uint8_t b[HEAR_MAX];
	bool done = false;
	int error = 0, r;

	/* Its addresses have four bytes. */
	if (d->p->kind == NET_PROXY_SOCKS4 && !net_addr_is_v4(&d->to))
		return -ENETUNREACH;
	for (;;) {
		ssize_t got;
		size_t ours;

		r = net_flush(fd, &d->out);
		if (r <= 0)
			return r == -ENOTCONN ? 0 : r;
		/* What is behind the answer is the guest's. */
		got = recv(fd, b, sizeof(b), MSG_PEEK | MSG_DONTWAIT);
		if (got < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (got == 0)
			return -ECONNREFUSED;
		if (d->p->kind == NET_PROXY_SOCKS4)
			ours = hear_socks4(b, (size_t)got, &done, &error);
		else if (d->p->kind == NET_PROXY_SOCKS5)
			ours = hear_socks5(d, b, (size_t)got, &done, &error);
		else
			ours = hear_http(b, (size_t)got, &done, &error);
		if (error < 0)
			return error;
		if (buf_failed(&d->out))
			return -ENOMEM;
		if (!ours)
			return (size_t)got == sizeof(b) ? -EPROTO : 0;
		(void)!recv(fd, b, ours, MSG_DONTWAIT);
		d->taken += ours;
		if (done)
			return 1;
	}
}
