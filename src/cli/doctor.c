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
#include "sandbox/sandbox_dir.h"
#include "sandbox/walls.h"
#include "store/store.h"

enum { CHECKS_MAX = 16 + WALLS_MAX, VERSION_WAIT_MS = 10000, VERSION_MAX = 4096 };

struct check {
	const char *name; /* also the JSON value */
	enum { CHECK_OK, CHECK_NOTE, CHECK_BAD } state;
	char detail[sizeof(((struct err *)0)->msg)];
	char hint[384];
	char name_of_wall[48];
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

/* What sandboxes will run on; NULL when there is nothing. */
static const char *check_engine(struct report *r)
{
	struct check *c = add(r, "engine");
	const char *name = NULL;
	struct err err = ERR_INIT;

	if (artifact_engine("auto", NULL, &name, &err) < 0) {
		fail(c, &err);
		return NULL;
	}
	snprintf(c->detail, sizeof(c->detail), "%s: %s", name,
		 str_eq(name, "kvm")
			 ? "the processor's own virtualisation"
			 : "QEMU's software CPU, which needs no hardware virtualisation");
	return name;
}

/* The first line that it prints of itself. */
static int qemu_version(const char *path, struct buf *b, struct err *err)
{
	const char *const argv[] = {path, "--version", NULL};
	const struct proc_spec spec = {.path = path, .argv = argv, .die_with_parent = true};
	int r = proc_capture(&spec, VERSION_MAX, VERSION_WAIT_MS, b, err);
	char *line = buf_cstr(b);

	if (r < 0)
		return r;
	if (!line)
		return err_set(err, ENOMEM, "out of memory");
	line[strcspn(line, "\n")] = '\0';
	return artifact_qemu_version(line, err);
}

/* Where KVM does the work, nobody misses it. */
static void check_qemu(struct report *r, const char *engine)
{
	struct check *c = add(r, "qemu");
	cleanup_buf struct buf version = BUF_INIT;
	cleanup_free char *path = NULL;
	struct err err = ERR_INIT;
	int e = artifact_qemu(&path, &err);

	if (e == 0)
		e = qemu_version(path, &version, &err);
	if (e < 0) {
		fail(c, &err);
		c->state = engine && str_eq(engine, "kvm") ? CHECK_NOTE : CHECK_BAD;
		return;
	}
	snprintf(c->detail, sizeof(c->detail), "%s (%.200s)", path, buf_cstr(&version));
}

static void check_kvm(struct report *r)
{
	struct check *c = add(r, "kvm");
	struct kvm_probe probe;

	kvm_probe(NULL, &probe);
	if (probe.verdict == KVM_GOOD) {
		snprintf(c->detail, sizeof(c->detail), "/dev/kvm runs at the processor's speed");
		return;
	}
	/* Nobody has to mend it: there is the other engine. */
	c->state = CHECK_NOTE;
	snprintf(c->detail, sizeof(c->detail), "%s: %.400s", kvm_verdict_name(probe.verdict),
		 probe.why.msg);
	snprintf(c->hint, sizeof(c->hint), "%.300s", probe.why.hint);
}

static void check_wall(struct report *r, const struct wall *w)
{
	struct check *c = add(r, "jail");

	snprintf(c->name_of_wall, sizeof(c->name_of_wall), "jail.%.31s", w->name);
	c->name = c->name_of_wall;
	if (w->held) {
		snprintf(c->detail, sizeof(c->detail), "%s", w->detail);
		return;
	}
	/* A sandbox runs without it, and tells the same. */
	c->state = CHECK_NOTE;
	snprintf(c->detail, sizeof(c->detail), "%s; without it, %s", w->detail, wall_lost(w->name));
	snprintf(c->hint, sizeof(c->hint), "%s", wall_remedy(w, "/proc"));
}

/* Built for real, around a process that ends at once. */
static void check_jail(struct report *r, struct store *store, const char *engine)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct wall walls[WALLS_MAX];
	struct err err = ERR_INIT;
	size_t n;

	if (walls_try(store, engine ? engine : "qemu", &text, &err) < 0) {
		fail(add(r, "jail"), &err);
		return;
	}
	n = walls_parse(buf_cstr(&text), walls);
	for (size_t i = 0; i < n; i++)
		check_wall(r, &walls[i]);
}

static void check_artifacts(struct report *r)
{
	static const char *const names[ARTIFACTS] = {"msb-vm", "agent", "kernel", "msb-fetch",
						     "msb-convert"};

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

static void check_home(struct report *r, const char *engine)
{
	struct check *c = add(r, "home");
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;

	if (store_open(&store, NULL, &err) < 0) {
		fail(c, &err);
		return;
	}
	snprintf(c->detail, sizeof(c->detail), "%s", store_home(store));
	sandbox_dir_heal(store, true);
	check_jail(r, store, engine);
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

		printf("%s%-8s%s%-19s%s\n", colour, marks[c->state],
		       *colour ? cli_reset(stdout) : "", c->name, c->detail);
		if (c->hint[0])
			printf("%-27s→ %s\n", "", c->hint);
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
	const char *engine;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	check_platform(&r);
	engine = check_engine(&r);
	check_kvm(&r);
	check_qemu(&r, engine);
	check_artifacts(&r);
	check_tools(&r);
	check_home(&r, engine);
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
	.examples = "msb doctor\n"
		    "msb doctor --format json",
	.opts = doctor_opts,
	.nopts = ARRAY_SIZE(doctor_opts),
	.run = doctor,
};
