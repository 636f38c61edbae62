/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *err_name(int code)
{
	const char *text;

	code = abs(code);
	switch (code) {
	case ERR_CORRUPT:
		return "corrupt data";
	case ERR_LIMIT:
		return "limit exceeded";
	case ERR_UNSUPPORTED:
		return "not supported";
	case ERR_USAGE:
		return "usage error";
	case ERR_NOT_FOUND:
		return "not found";
	case ERR_PROTOCOL:
		return "protocol error";
	case ERR_GUEST:
		return "virtual machine failed";
	}
#ifdef __GLIBC__
	text = strerrordesc_np(code);
#else
	text = strerror(code);
#endif
	return text ? text : "unknown error";
}

/* What the last message of this thread was about, for calls without an error object. */
static __thread int last_code;

/* A code of 0 would read as success; it can only come from a caller that lost its errno. */
static int negative(int code)
{
	return code ? -abs(code) : -EIO;
}

__attribute__((format(printf, 3, 0))) static int set(struct err *e, int code, const char *fmt,
						     va_list ap)
{
	last_code = code;
	if (!e)
		return negative(code);
	e->code = -negative(code);
	e->hint[0] = '\0';
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	return -e->code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = set(e, code, fmt, ap);
	va_end(ap);
	return r;
}

int err_errno(struct err *e, const char *fmt, ...)
{
	int code = errno, r;
	size_t n;
	va_list ap;

	va_start(ap, fmt);
	r = set(e, code, fmt, ap);
	va_end(ap);
	if (e) {
		n = strlen(e->msg);
		snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", err_name(e->code));
	}
	return r;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char old[sizeof(e->msg)];
	va_list ap;
	size_t n;

	if (!e)
		return negative(last_code);
	memcpy(old, e->msg, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	n = strlen(e->msg);
	snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", old);
	return negative(e->code);
}

int err_hint(struct err *e, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return negative(last_code);
	if (!e->hint[0]) {
		va_start(ap, fmt);
		vsnprintf(e->hint, sizeof(e->hint), fmt, ap);
		va_end(ap);
	}
	return negative(e->code);
}

int err_copy(struct err *to, const struct err *from)
{
	if (to && to != from)
		*to = *from;
	return negative(from->code);
}

void err_clear(struct err *e)
{
	if (e) {
		e->code = 0;
		e->msg[0] = '\0';
		e->hint[0] = '\0';
	}
}
