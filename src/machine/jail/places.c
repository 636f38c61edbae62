/* SPDX-License-Identifier: Apache-2.0 */
/* What stays in reach of a machine, by engine. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "machine/jail/jail_impl.h"

struct places {
	struct jail_place *p;
	unsigned n;
};

static void add(struct places *s, unsigned access, const char *path)
{
	/* One that is missing will be missed by whoever wants it, who can say what for. */
	if (s->n == JAIL_PLACES_MAX || strlen(path) >= sizeof(s->p->path) ||
	    faccessat(AT_FDCWD, path, F_OK, AT_EACCESS) < 0)
		return;
	strcpy(s->p[s->n].path, path);
	s->p[s->n++].access = access;
}

/*
 * A QEMU of one's own needs what was installed with it: PREFIX of PREFIX/bin/qemu. One in no bin/
 * directory stands for itself.
 */
static void add_qemu(struct places *s, const char *path)
{
	char prefix[512];
	char *slash;

	if (!*path || str_starts(path, "/usr/"))
		return;
	snprintf(prefix, sizeof(prefix), "%s", path);
	slash = strrchr(prefix, '/');
	*slash = '\0';
	if (str_ends(prefix, "/bin") && strrchr(prefix, '/') != prefix)
		*strrchr(prefix, '/') = '\0';
	else
		*slash = '/';
	add(s, JAIL_READ | JAIL_EXEC, prefix);
}

/* By length: what is within another place goes on top of it. */
static void sort(struct jail_place *p, unsigned n)
{
	for (unsigned i = 1; i < n; i++) {
		struct jail_place moved = p[i];
		unsigned at = i;

		for (; at && strlen(p[at - 1].path) > strlen(moved.path); at--)
			p[at] = p[at - 1];
		p[at] = moved;
	}
}

unsigned jail_places(const struct jail *j, struct jail_place places[JAIL_PLACES_MAX])
{
	static const char *const programs[] = {"/usr",	  "/lib", "/lib64",    "/lib32",
					       "/libx32", "/bin", "/nix/store"};
	struct places s = {.p = places};
	char logs[1024];

	snprintf(logs, sizeof(logs), "%s/logs", j->params.dir);
	add(&s, JAIL_MANAGE, j->params.remove_dir ? j->params.dir : logs);
	add(&s, JAIL_READ, j->params.kernel);
	if (str_eq(j->params.engine, "kvm"))
		add(&s, JAIL_READ | JAIL_WRITE | JAIL_IOCTL, "/dev/kvm");
	if (str_eq(j->params.engine, "qemu")) {
		for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
			add(&s, JAIL_READ | JAIL_EXEC, programs[i]);
		add(&s, JAIL_READ, "/etc/ld.so.cache");
		/* For whom it is started, and for what it wants no more of. */
		add(&s, JAIL_READ | JAIL_WRITE, "/dev/null");
		add(&s, JAIL_READ, "/dev/urandom");
		add_qemu(&s, j->qemu);
	}
	sort(places, s.n);
	return s.n;
}
