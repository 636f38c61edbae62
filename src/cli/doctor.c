/* SPDX-License-Identifier: Apache-2.0 */
/* msb doctor: can sandboxes run here, and if not, what to do. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/cli.h"
#include "machine/kvm/probe.h"
#include "sandbox/artifacts.h"
#include "store/store.h"

enum { CHECKS_MAX = 16, VERSION_WAIT_MS = 10000 };

struct check {
	const char *name; /* also the JSON value */
	enum { CHECK_OK, CHECK_NOTE, CHECK_BAD } state;
	char detail[sizeof(((struct err *)0)->msg)];
	char hint[384];
};

struct report {
	struct check checks[CHECKS_MAX];
	size_t n;
};

static struct check *add(struct report *r, const char *name)
{
	struct check *c = &r->checks[r->n++];

	c->name = name;
	return c;
}

static void fail(struct check *c, const struct err *err)
{
	c->state = CHECK_BAD;
	snprintf(c->detail, sizeof(c->detail), "%s", err->msg);
	snprintf(c->hint, sizeof(c->hint), "%s", err->hint);
}

static void check_platform(struct report *r)
{
	struct check *c = add(r, "platform");
	struct utsname u;

	if (uname(&u) < 0)
		return;
	snprintf(c->detail, sizeof(c->detail), "%s %s, %s", u.sysname, u.release, u.machine);
	if (!str_eq(u.machine, "x86_64")) {
		c->state = CHECK_BAD;
		snprintf(c->hint, sizeof(c->hint), "this version runs on x86_64");
	}
}

/* The first line that `PROGRAM --version` prints. */
static void program_version(const char *path, char *out, size_t size)
{
	const char *const argv[] = {path, "--version", NULL};
	cleanup_close int rd = -1, wr = -1;
	struct proc child = PROC_INIT;
	ssize_t n;
	int p[2];

	out[0] = '\0';
	if (pipe2(p, O_CLOEXEC) < 0)
		return;
	rd = p[0];
	wr = p[1];
	if (proc_spawn(&child,
		       &(struct proc_spec){.path = path,
					   .argv = argv,
					   .fds = &(struct proc_fd){wr, STDOUT_FILENO},
					   .nfds = 1,
					   .die_with_parent = true},
		       NULL) < 0)
		return;
	wr = close_fd(wr);
	n = io_read_full(rd, out, size - 1);
	(void)proc_wait(&child, VERSION_WAIT_MS);
	proc_destroy(&child);
	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
}

static void check_engine(struct report *r)
{
	struct check *engine = add(r, "engine"), *kvm, *qemu;
	struct kvm_probe probe;
	cleanup_free char *path = artifact_program("qemu-system-x86_64");
	const char *name = NULL;
	struct err err = ERR_INIT;
	char version[128];

	if (artifact_engine("auto", NULL, &name, &err) < 0)
		fail(engine, &err);
	else
		snprintf(engine->detail, sizeof(engine->detail), "%s: %s", name,
			 strcmp(name, "kvm") == 0
				 ? "the processor's own virtualisation"
				 : "QEMU's software CPU, which needs no hardware virtualisation");
	qemu = add(r, "qemu");
	if (path) {
		program_version(path, version, sizeof(version));
		snprintf(qemu->detail, sizeof(qemu->detail), "%s (%s)", path, version);
	} else {
		qemu->state = CHECK_BAD;
		snprintf(qemu->detail, sizeof(qemu->detail), "not installed");
		snprintf(qemu->hint, sizeof(qemu->hint),
			 "apt-get install --no-install-recommends qemu-system-x86");
	}
	kvm = add(r, "kvm");
	kvm_probe(NULL, &probe);
	if (probe.verdict == KVM_GOOD) {
		snprintf(kvm->detail, sizeof(kvm->detail),
			 "/dev/kvm runs at the processor's speed");
		return;
	}
	/* Nobody has to mend it: there is the other engine. */
	kvm->state = CHECK_NOTE;
	snprintf(kvm->detail, sizeof(kvm->detail), "%s: %.400s", kvm_verdict_name(probe.verdict),
		 probe.why.msg);
	snprintf(kvm->hint, sizeof(kvm->hint), "%.180s", probe.why.hint);
}

static void check_artifacts(struct report *r)
{
	static const char *const names[ARTIFACTS] = {"msb-vm", "agent", "kernel"};

	for (int i = 0; i < ARTIFACTS; i++) {
		struct check *c = add(r, names[i]);
		cleanup_free char *path = NULL;
		struct err err = ERR_INIT;

		if (artifact_find((enum artifact)i, &path, &err) < 0)
			fail(c, &err);
		else
			snprintf(c->detail, sizeof(c->detail), "%s", path);
	}
}

static void check_tools(struct report *r)
{
	struct check *c = add(r, "mke2fs");
	cleanup_free char *path = artifact_program("mke2fs");

	if (path) {
		snprintf(c->detail, sizeof(c->detail), "%s", path);
		return;
	}
	c->state = CHECK_BAD;
	snprintf(c->detail, sizeof(c->detail), "not installed");
	snprintf(c->hint, sizeof(c->hint), "apt-get install e2fsprogs");
}

static void check_home(struct report *r)
{
	struct check *c = add(r, "home");
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;

	if (store_open(&store, NULL, &err) < 0) {
		fail(c, &err);
		return;
	}
	snprintf(c->detail, sizeof(c->detail), "%s", store_home(store));
}

static json_t *to_json(const struct report *r, bool healthy)
{
	static const char *const states[] = {"ok", "note", "failed"};
	json_t *checks = json_array();

	for (size_t i = 0; i < r->n; i++) {
		const struct check *c = &r->checks[i];

		json_array_append_new(checks, json_pack("{s:s,s:s,s:s,s:s}", "name", c->name,
							"status", states[c->state], "detail",
							c->detail, "hint", c->hint));
	}
	return json_pack("{s:b,s:o}", "healthy", healthy, "checks", checks);
}

static void print_report(const struct report *r)
{
	static const char *const marks[] = {"ok", "note", "FAILED"};

	for (size_t i = 0; i < r->n; i++) {
		const struct check *c = &r->checks[i];
		const char *colour = c->state == CHECK_BAD ? cli_red(stdout) : "";

		printf("%s%-8s%s%-10s%s\n", colour, marks[c->state],
		       *colour ? cli_reset(stdout) : "", c->name, c->detail);
		if (c->hint[0])
			printf("%-18s→ %s\n", "", c->hint);
	}
}

struct doctor_args {
	bool json;
};

static const struct opt doctor_opts[] = {
	{0, "format", "json|table", "How to show it [table]", opt_set_format,
	 offsetof(struct doctor_args, json), 0},
};

static int doctor(struct cli *cli, int argc, char **argv)
{
	struct doctor_args a = {0};
	cleanup_words struct opt_words words = {0};
	struct report r = {0};
	bool healthy = true;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	check_platform(&r);
	check_engine(&r);
	check_artifacts(&r);
	check_tools(&r);
	check_home(&r);
	for (size_t i = 0; i < r.n; i++)
		healthy &= r.checks[i].state != CHECK_BAD;
	if (a.json) {
		code = cli_json(to_json(&r, healthy));
	} else {
		print_report(&r);
		code = cli_finish();
	}
	return code ? code : healthy ? EXIT_SUCCESS : EXIT_FAILURE;
}

const struct verb verb_doctor = {
	.name = "doctor",
	.group = "Other",
	.args = "[OPTIONS]",
	.summary = "Check what sandboxes need on this host",
	.opts = doctor_opts,
	.nopts = ARRAY_SIZE(doctor_opts),
	.run = doctor,
};
