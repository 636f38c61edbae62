/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one error convention.
 *
 * A fallible function returns >= 0 on success and a negative errno-like code on failure; its
 * outputs are untouched on failure. Where a person will read about it, the function takes a
 * `struct err *` last. The origin fills it with err_set(), callers put context in front with
 * err_wrap(), and err_hint() says what to do. All of them accept a NULL error and return the
 * code, so that one line both reports and returns:
 *
 *	if (fd < 0)
 *		return err_set(err, errno, "cannot open %s: %s", path, strerror(errno));
 *
 * Filling an error never allocates. An error object belongs to one thread.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

/* Codes of our own live above errno's range. */
enum err_code {
	ERR_CORRUPT = 4096, /* stored or received data does not verify */
	ERR_LIMIT,	    /* a configured or built-in limit was exceeded */
	ERR_UNSUPPORTED,    /* well-formed, but not something we do */
	ERR_USAGE,	    /* the caller's words are wrong */
	ERR_NOT_FOUND,	    /* the named thing does not exist */
	ERR_PROTOCOL,	    /* a peer broke the protocol */
	ERR_GUEST,	    /* the virtual machine failed */
};

struct err {
	int code; /* positive code; 0 when empty */
	char msg[768];
	char hint[384];
};

#define ERR_INIT                                                                                   \
	{                                                                                          \
		0                                                                                  \
	}

/* Start a new message. @code may be given positive or negative. Returns the negative code. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Like err_set() with ": strerror(errno)" appended and errno as the code. */
int err_errno(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put "context: " in front of the message. Returns the negative code. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Say what to do about it; the first hint stands. Returns the negative code. */
int err_hint(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Move @from into @to, when both are given. Returns the negative code of @from. */
int err_copy(struct err *to, const struct err *from);

void err_clear(struct err *e);

/* strerror() that also knows enum err_code. Thread-safe; the string is static. */
const char *err_name(int code);

#endif
