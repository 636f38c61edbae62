/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/walls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/str.h"
#include "sandbox/artifacts.h"
#include "sandbox/sandbox_dir.h"

#define MISSING "no: "

size_t walls_parse(const char *text, struct wall walls[WALLS_MAX])
{
	size_t n = 0;

	while (text && *text && n < WALLS_MAX) {
		const char *end = strchrnul(text, '\n');
		const char *colon = memchr(text, ':', (size_t)(end - text));
		struct wall *w = &walls[n];

		if (colon && colon + 1 < end) {
			const char *detail = colon + 2;

			w->held = !str_starts(detail, MISSING);
			if (!w->held)
				detail += strlen(MISSING);
			snprintf(w->name, sizeof(w->name), "%.*s", (int)(colon - text), text);
			snprintf(w->detail, sizeof(w->detail), "%.*s", (int)(end - detail), detail);
			n++;
		}
		text = *end ? end + 1 : end;
	}
	return n;
}

static const struct {
	const char *name, *lost;
} losses[] = {
	{"privileges", "limits on what the machine's process may use are missing"},
	{"namespaces", "the machine's process shares what is missing with its user's others"},
	{"root", "only Landlock keeps the machine's process from its user's files"},
	{"landlock", "only the empty root keeps the machine's process from its user's files"},
	{"capabilities", "the machine's process keeps rights of its user's"},
	{"seccomp", "the machine's process may make any system call"},
};

const char *wall_lost(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(losses); i++) {
		if (str_eq(losses[i].name, name))
			return losses[i].lost;
	}
	return "";
}

/* Does a setting have this value? One that is not there has none. */
static bool set_to(const char *proc, const char *name, const char *value)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_free char *path = str_fmt("%s/sys/%s", proc, name);
	char *text;

	if (!path || io_read_file(path, 64, &b, NULL) < 0 || !(text = buf_cstr(&b)))
		return false;
	text[strcspn(text, "\n")] = '\0';
	return str_eq(text, value);
}

static const char *allow_namespaces(const char *proc)
{
	static const struct {
		const char *name, *value, *remedy;
	} settings[] = {
		{"user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"},
		{"kernel/unprivileged_userns_clone", "0",
		 "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1",
		 "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile "
		 "with \"userns\" for msb-vm"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		if (set_to(proc, settings[i].name, settings[i].value))
			return settings[i].remedy;
	}
	return "let this user make user namespaces; in a container, its seccomp profile may be "
	       "what forbids them";
}

const char *wall_remedy(const struct wall *w, const char *proc)
{
	static const struct {
		const char *name, *why, *remedy;
	} known[] = {
		{"root", "needs a mount namespace", "see namespaces"},
		{"root", "pivot_root",
		 "boot the host from a file system of its own, not an initramfs"},
		{"root", "not implemented", "Linux 5.12 or newer on the host"},
		{"landlock", "disabled", "add landlock to lsm= on the host kernel's command line"},
		{"landlock", "has none",
		 "Linux 5.13 or newer on the host, with CONFIG_SECURITY_LANDLOCK"},
		{"seccomp", "", "a host kernel with CONFIG_SECCOMP_FILTER"},
	};

	if (w->held || strstr(w->detail, "switched off"))
		return "";
	if (strstr(w->detail, "sanitizer"))
		return "use a build without sanitizers";
	if (str_eq(w->name, "namespaces"))
		return allow_namespaces(proc);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (str_eq(known[i].name, w->name) && strcasestr(w->detail, known[i].why))
			return known[i].remedy;
	}
	return "";
}

/* ---- trying ---- */

enum { TRY_MAX = 16384, TRY_WAIT_MS = 20000 };

static int try_in(const struct sandbox_dir *d, const char *engine, struct buf *report,
		  struct err *err)
{
	cleanup_free char *vm = NULL, *kernel = NULL;
	int r = artifact_find(ARTIFACT_VM, &vm, err);

	if (r < 0)
		return r;
	/* A kernel is one file to the jail; where there is none, another will do. */
	if (artifact_find(ARTIFACT_KERNEL, &kernel, NULL) < 0)
		kernel = strdup(vm);
	if (!kernel || mkdirat(d->fd, SANDBOX_LOGS, 0700) < 0)
		return err_errno(err, "cannot try the jail");
	const char *const argv[] = {"msb-vm", "--try-jail", engine, d->path, kernel, NULL};
	const struct proc_spec spec = {.path = vm, .argv = argv, .die_with_parent = true};

	r = proc_capture(&spec, TRY_MAX, TRY_WAIT_MS, report, err);
	return r > 0 ? err_set(err, EIO, "msb-vm cannot build its jail (exit code %d)", r) : r;
}

int walls_try(struct store *s, const char *engine, struct buf *report, struct err *err)
{
	cleanup_sandbox_dir struct sandbox_dir d = SANDBOX_DIR_INIT;
	int r = sandbox_dir_take_random(s, &d, err);

	if (r < 0)
		return r;
	r = try_in(&d, engine, report, err);
	(void)sandbox_dir_remove(&d, NULL);
	return r;
}
