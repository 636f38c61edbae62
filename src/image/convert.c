/* SPDX-License-Identifier: Apache-2.0 */
#include "image/convert.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/install.h"
#include "base/io.h"
#include "base/sanitized.h"

static int spawn(struct convert_child *c, const char *what, const struct proc_fd *given, unsigned n,
		 struct err *err)
{
	/* Nothing of the user's; but sanitizers are told by the environment what to do. */
	static const char *const no_environment[] = {NULL};
	cleanup_free char *program = NULL;
	cleanup_close int rd = -1, wr = -1;
	struct proc_fd fds[CONVERT_FD_FILES + LAYER_FILES];
	const char *argv[] = {"msb-convert", what, NULL};
	struct proc_spec spec = {.argv = argv,
				 .envp = SANITIZED ? NULL : no_environment,
				 .fds = fds,
				 .nfds = n + 1,
				 .die_with_parent = true,
				 .new_session = true};
	int p[2], r;

	r = install_find("msb-convert", X_OK, INSTALL_HINT, &program, err);
	if (r < 0)
		return r;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, "cannot start msb-convert");
	rd = p[0];
	wr = p[1];
	memcpy(fds, given, n * sizeof(*fds));
	fds[n] = (struct proc_fd){wr, CONVERT_FD_REPORT};
	spec.path = program;
	c->proc = (struct proc)PROC_INIT;
	r = proc_spawn(&c->proc, &spec, err);
	if (r < 0)
		return r;
	c->report = take_fd(&rd);
	return 0;
}

int convert_unpack(struct convert_child *c, struct slots *in, struct slots *out, struct err *err)
{
	cleanup_close int in_peer = -1, out_peer = -1;
	int r = slots_make(in, true, &in_peer, err);

	if (r >= 0)
		r = slots_make(out, false, &out_peer, err);
	if (r >= 0) {
		const struct proc_fd fds[] = {{in->memory, CONVERT_FD_IN},
					      {in_peer, CONVERT_FD_IN + 1},
					      {out->memory, CONVERT_FD_OUT},
					      {out_peer, CONVERT_FD_OUT + 1}};

		r = spawn(c, CONVERT_UNPACK, fds, ARRAY_SIZE(fds), err);
	}
	return r;
}

void convert_kill(struct convert_child *c)
{
	proc_destroy(&c->proc);
	c->report = close_fd(c->report);
}

static int died(int code, struct err *err)
{
	if (code > 128)
		err_set(err, ERR_CORRUPT, "msb-convert was ended by signal %d (%s)", code - 128,
			strsignal(code - 128));
	else
		err_set(err, ERR_CORRUPT, "msb-convert ended without a report, with exit code %d",
			code);
	return err_hint(err, "either the layer is made to do harm, or this is our fault: then "
			     "please report it");
}

int convert_wait(struct convert_child *c, struct layer_made *ret, struct err *err)
{
	struct convert_report report;
	ssize_t n = io_read_full(c->report, &report, sizeof(report));
	int code = proc_wait(&c->proc, -1);

	c->report = close_fd(c->report);
	if (code < 0)
		return err_set(err, code, "cannot wait for msb-convert: %s", err_name(-code));
	if (n != sizeof(report))
		return died(code, err);
	report.err.msg[sizeof(report.err.msg) - 1] = '\0';
	report.err.hint[sizeof(report.err.hint) - 1] = '\0';
	if (report.err.code < 0 || report.err.code > ERR_GUEST || (!report.err.code && code))
		return died(code, err);
	if (report.err.code)
		return err_copy(err, &report.err);
	if (ret)
		*ret = report.made;
	return 0;
}

/* --- Layers --- */

static int start_layer(struct convert_child *c, struct slots *s, const struct layer_draft *d,
		       const struct image_limits *l, struct err *err)
{
	const struct convert_job job = {*l};
	struct proc_fd fds[2 + LAYER_FILES];
	cleanup_close int peer = -1;
	int r = slots_make(s, true, &peer, err);

	if (r < 0)
		return r;
	fds[0] = (struct proc_fd){s->memory, CONVERT_FD_IN};
	fds[1] = (struct proc_fd){peer, CONVERT_FD_IN + 1};
	for (int i = 0; i < LAYER_FILES; i++)
		fds[2 + i] = (struct proc_fd){d->files[i].fd, CONVERT_FD_FILES + i};
	r = spawn(c, CONVERT_LAYER, fds, ARRAY_SIZE(fds), err);
	if (r < 0)
		return r;
	memcpy(slots_room(s), &job, sizeof(job));
	/* When it has ended, its report says why. */
	(void)slots_pass(s, sizeof(job));
	return 0;
}

/* Until the end of the stream or of the child; *ret_total bytes in all. */
static int feed(struct slots *s, const struct image_limits *l, convert_fill_fn *fill, void *arg,
		uint64_t *ret_total, struct err *err)
{
	for (*ret_total = 0;;) {
		uint8_t *p = slots_room(s);
		ssize_t n = p ? fill(arg, p, SLOT_SIZE, err) : 0;

		if (n <= 0)
			return (int)n;
		/* The child stops at the limit as well, and has a better message. */
		*ret_total += (uint64_t)n;
		if (!slots_pass(s, (size_t)n) || *ret_total > l->layer_bytes)
			return 0;
	}
}

int convert_layer(struct layer_draft *d, const struct image_limits *l, convert_fill_fn *fill,
		  void *arg, struct layer_made *ret, struct err *err)
{
	CLEANUP(slots_done) struct slots s = SLOTS_INIT;
	CLEANUP(convert_kill) struct convert_child c = CONVERT_CHILD_INIT;
	uint64_t total = 0;
	int r = start_layer(&c, &s, d, l, err);

	if (r >= 0)
		r = feed(&s, l, fill, arg, &total, err);
	if (r < 0)
		return r;
	slots_end(&s);
	r = convert_wait(&c, ret, err);
	if (r >= 0 && ret->info.tar_bytes != total)
		r = err_set(err, ERR_CORRUPT,
			    "its conversion went wrong: it saw %llu of %llu bytes",
			    (unsigned long long)ret->info.tar_bytes, (unsigned long long)total);
	/* What it cannot write to is the store. */
	if (r < 0 && r != -ENOMEM && -r < ERR_CORRUPT)
		r = store_write_error(d->store, r, err);
	return r;
}
