/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/proc.h"
#include "registry/json.h"

/* Whatever a helper prints when it has nothing contains this. */
#define NOT_FOUND "credentials not found"

/* All that comes from @fd until its end, within the time. */
static int read_all(int fd, struct buf *b)
{
	const uint64_t end = now_ns() + (uint64_t)HELPER_TIMEOUT_MS * 1000000;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = now_ns();
		void *to = buf_reserve(b, 4096);
		ssize_t n;

		if (!to)
			return -ERR_LIMIT;
		if (now >= end)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((end - now) / 1000000) + 1) <= 0)
			continue;
		n = read(fd, to, 4096);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return (int)n;
		buf_commit(b, (size_t)n);
	}
}

/* Run it: the exit code, and what it printed. */
static int run(const char *name, const char *verb, const char *input, struct buf *out,
	       struct err *err)
{
	cleanup_free char *program = str_fmt("docker-credential-%s", name);
	const char *argv[] = {program, verb, NULL};
	cleanup_close int in = -1, rd = -1, wr = -1;
	struct proc proc = PROC_INIT;
	struct proc_fd fds[] = {
		{-1, STDIN_FILENO}, {-1, STDOUT_FILENO}, {STDERR_FILENO, STDERR_FILENO}};
	struct proc_spec spec = {.path = program,
				 .argv = argv,
				 .fds = fds,
				 .nfds = ARRAY_SIZE(fds),
				 .die_with_parent = true};
	int p[2], r;

	if (!program)
		return err_set(err, ENOMEM, "out of memory");
	if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
	    strlen(name))
		return err_set(err, ERR_USAGE, "\"%.60s\" is not the name of a credential helper",
			       name);
	in = io_memfd("input", input, strlen(input), err);
	if (in < 0)
		return in;
	if (lseek(in, 0, SEEK_SET) < 0 || pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, "cannot run %s", program);
	rd = p[0];
	wr = p[1];
	fds[0].from = in;
	fds[1].from = wr;
	r = proc_spawn(&proc, &spec, err);
	if (r < 0)
		return err_hint(err, "install the helper, or log in with `msb registry login`");
	wr = close_fd(wr);
	out->max = HELPER_OUTPUT_MAX;
	r = read_all(rd, out);
	if (r >= 0)
		r = proc_wait(&proc, HELPER_TIMEOUT_MS);
	proc_destroy(&proc);
	if (r < 0)
		return err_set(err, r, "%s %s: %s", program, verb, err_name(-r));
	return r;
}

/* What it says about its failure, which it prints on standard output. */
static int failed(const char *name, const char *verb, int code, struct buf *out, struct err *err)
{
	const char *text = buf_cstr(out);

	return err_set(err, EIO, "docker-credential-%s %s failed with exit code %d: %.200s", name,
		       verb, code, text ? text : "");
}

int helper_get(const char *name, const char *key, struct credential *ret, struct err *err)
{
	cleanup_credential struct credential c = {0};
	cleanup_buf struct buf out = BUF_INIT;
	cleanup_json json_t *root = NULL;
	const char *user, *secret;
	int r = run(name, "get", key, &out, err);

	if (r < 0)
		return r;
	if (r > 0) {
		const char *text = buf_cstr(&out);

		return text && strstr(text, NOT_FOUND) ? 0 : failed(name, "get", r, &out, err);
	}
	root = json_loadb((const char *)buf_ptr(&out), buf_size(&out), 0, NULL);
	user = json_string_value(json_object_get(root, "Username"));
	secret = json_string_value(json_object_get(root, "Secret"));
	if (!user || !secret)
		return err_set(err, ERR_CORRUPT, "docker-credential-%s did not print a login",
			       name);
	/* That is how Docker marks a token. */
	if (str_eq(user, "<token>")) {
		c.identity_token = strdup(secret);
	} else {
		c.username = strdup(user);
		c.password = strdup(secret);
	}
	if (!c.identity_token && !(c.username && c.password))
		return err_set(err, ENOMEM, "out of memory");
	*ret = c;
	c = (struct credential){0};
	return 0;
}

int helper_store(const char *name, const char *key, const struct credential *c, struct err *err)
{
	cleanup_json json_t *j = json_pack("{s:s,s:s,s:s}", "ServerURL", key, "Username",
					   c->username, "Secret", c->password);
	cleanup_free char *text = json_dumps(j, JSON_COMPACT);
	cleanup_buf struct buf out = BUF_INIT;
	int r;

	if (!text)
		return err_set(err, ERR_USAGE, "the login is not UTF-8");
	r = run(name, "store", text, &out, err);
	explicit_bzero(text, strlen(text));
	return r > 0 ? failed(name, "store", r, &out, err) : r;
}

int helper_erase(const char *name, const char *key, struct err *err)
{
	cleanup_buf struct buf out = BUF_INIT;
	int r = run(name, "erase", key, &out, err);

	return r > 0 ? failed(name, "erase", r, &out, err) : r;
}
