/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "machine/jail/jail_impl.h"

/* 128 clients with two sockets each, thousands of vsock connections, disks of many layers. */
#define FILES_MAX 16384
/*
 * Threads and processes of the user in this user namespace (before Linux 5.14: everywhere): 64
 * vCPUs, the queues of 26 disks, and as many of QEMU's.
 */
#define THREADS_MAX 4096

/* For jail_thread(), which has nothing else to ask. */
static bool filtered;

/* ---- words ---- */

const char *jail_step_name(enum jail_step step)
{
	static const char *const names[JAIL_STEPS] = {
		[JAIL_PRIVILEGES] = "privileges",
		[JAIL_NAMESPACES] = "namespaces",
		[JAIL_ROOT] = "root",
		[JAIL_LANDLOCK] = "landlock",
		[JAIL_CAPABILITIES] = "capabilities",
		[JAIL_SECCOMP] = "seccomp",
	};

	return names[step];
}

__attribute__((format(printf, 4, 0))) static void say(struct jail *j, enum jail_step s, bool held,
						      const char *fmt, va_list ap)
{
	j->step[s].held = held;
	vsnprintf(j->step[s].text, sizeof(j->step[s].text), fmt, ap);
}

void jail_hold(struct jail *j, enum jail_step s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(j, s, true, fmt, ap);
	va_end(ap);
}

void jail_degrade(struct jail *j, enum jail_step s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(j, s, false, fmt, ap);
	va_end(ap);
}

void jail_describe(const struct jail *j, struct buf *b)
{
	for (int s = 0; s < JAIL_STEPS; s++)
		buf_addf(b, "%s: %s%s\n", jail_step_name((enum jail_step)s),
			 j->step[s].held ? "" : "no: ", j->step[s].text);
}

/* ---- begin ---- */

/* An engine may ask for these; everything else was the caller's. */
static int clean_environment(struct jail *j)
{
	static const char *const kept[] = {"MSB_QEMU", "MSB_QEMU_ARGS"};
	char *values[ARRAY_SIZE(kept)] = {NULL};
	const char *v;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		v = getenv(kept[i]);
		values[i] = v ? strdup(v) : NULL;
	}
	/* The working directory will be another one. */
	if (values[0] && strchr(values[0], '/')) {
		char *real = realpath(values[0], NULL);

		if (real) {
			free(values[0]);
			values[0] = real;
			snprintf(j->qemu, sizeof(j->qemu), "%s", real);
		}
	}
	clearenv();
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		if (values[i])
			r |= setenv(kept[i], values[i], 1);
		free(values[i]);
	}
	return r ? -ENOMEM : 0;
}

/* Lower the limit for good; one that is lower already stays. */
static int limit(int what, rlim_t max)
{
	struct rlimit l;

	if (getrlimit((__rlimit_resource_t)what, &l) < 0)
		return -errno;
	l.rlim_max = MIN(l.rlim_max, max);
	l.rlim_cur = l.rlim_max;
	return setrlimit((__rlimit_resource_t)what, &l) < 0 ? -errno : 0;
}

static void give_up_privileges(struct jail *j)
{
	int r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;

	umask(077);
	if (r == 0)
		r = clean_environment(j);
	if (r == 0)
		r = limit(RLIMIT_CORE, 0);
	if (r == 0)
		r = limit(RLIMIT_NOFILE, FILES_MAX);
	if (r == 0)
		r = limit(RLIMIT_NPROC, THREADS_MAX);
	if (r == 0)
		r = limit(RLIMIT_MSGQUEUE, 0);
	if (r < 0)
		jail_degrade(j, JAIL_PRIVILEGES, "%s", err_name(r));
	else
		jail_hold(j, JAIL_PRIVILEGES, "no_new_privs, limits");
}

void jail_begin(struct jail *j, const struct jail_params *params)
{
	j->params = *params;
	if (!params->on || SANITIZED) {
		j->params.on = false;
		for (int s = 0; s < JAIL_STEPS; s++)
			jail_degrade(j, (enum jail_step)s, "%s",
				     params->on ? "built with a sanitizer" : "switched off");
		return;
	}
	give_up_privileges(j);
	jail_unshare(j);
	/* Against others of the same user; the id maps had to be written before. */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (jail_has(CAP_SETPCAP))
		j->bounded = jail_bound();
	jail_begin_net(j);
}

/* ---- close ---- */

/* What became of a thread's own walls: 0 or -errno each. */
struct walls {
	int net, landlock, capabilities, filter;
};

/*
 * Everything but the filter that a thread can only do for itself. Landlock, for which no_new_privs
 * is enough, comes first; it may be refused where the number of layers is used up.
 */
static void confine_thread(const struct jail *j, enum jail_role role, struct walls *w)
{
	w->landlock = jail_landlock_enter(j, role);
	w->capabilities = jail_drop();
}

static void note(struct jail *j, const struct walls *w)
{
	if (w->net < 0)
		jail_degrade(j, JAIL_NAMESPACES, "a device's thread, net: %s", err_name(w->net));
	if (w->landlock < 0)
		jail_degrade(j, JAIL_LANDLOCK, "%s", err_name(w->landlock));
	if (w->capabilities < 0)
		jail_degrade(j, JAIL_CAPABILITIES, "%s", err_name(w->capabilities));
	if (w->filter < 0)
		jail_degrade(j, JAIL_SECCOMP, "%s", err_name(w->filter));
}

/* Whether filters can be had, without the time that one takes. */
static void check_filters(struct jail *j)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0)
		jail_degrade(j, JAIL_SECCOMP, "%s", err_name(errno));
}

/* The descriptor that Landlock's rule and jail_remove_dir() need, where there is no root of ours.
 */
static void open_parent(struct jail *j)
{
	cleanup_free char *path = strdup(j->params.dir);
	char *slash = path ? strrchr(path, '/') : NULL;

	if (!slash || slash == path)
		return;
	*slash = '\0';
	j->dir_parent = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static int change_root(struct jail *j, const struct jail_place *places, unsigned n,
		       const struct jail_files *files, struct err *err)
{
	int r = 0;

	if (!(j->spaces & CLONE_NEWNS))
		jail_degrade(j, JAIL_ROOT, "needs a mount namespace");
	else if (j->params.dir[0] != '/' || j->params.kernel[0] != '/')
		jail_degrade(j, JAIL_ROOT, "needs absolute paths");
	else
		r = jail_root(j, places, n, files, err);
	if (!j->rooted && j->params.remove_dir)
		open_parent(j);
	return r;
}

int jail_close(struct jail *j, const struct jail_files *files, uint64_t file_max,
	       struct jail_names *ret, struct err *err)
{
	bool child = str_eq(j->params.engine, "qemu");
	struct jail_place places[JAIL_PLACES_MAX + 2];
	struct walls w = {0};
	unsigned n;
	int r;

	if (!j->params.on)
		return 0;
	n = jail_places(j, places);
	r = change_root(j, places, n, child ? files : NULL, err);
	if (r < 0)
		return r;
	if (j->rooted && child) {
		ret->initramfs = JAIL_INITRAMFS;
		places[n++] = (struct jail_place){JAIL_INITRAMFS, JAIL_READ};
		if (files->memory) {
			ret->memory = JAIL_MEMORY;
			places[n++] = (struct jail_place){JAIL_MEMORY, JAIL_READ | JAIL_WRITE};
		}
	}
	jail_landlock(j, places, n);
	jail_finish_net(j);
	if (child) {
		r = jail_left(j, err);
		if (r < 0)
			return r;
		jail_unshare_pid(j);
	}
	/* What would grow beyond is refused, as on a full disk. */
	(void)signal(SIGXFSZ, SIG_IGN);
	(void)limit(RLIMIT_FSIZE, file_max);
	if (j->bounded)
		jail_hold(j, JAIL_CAPABILITIES, "none, bounding set empty");
	else
		jail_hold(j, JAIL_CAPABILITIES, "none");
	confine_thread(j, JAIL_CONTROL, &w);
	jail_hold(j, JAIL_SECCOMP, "lists for devices, vCPUs, control");
	/* An engine of our own gets lists for each of its threads before the guest runs. */
	if (child)
		w.filter = jail_filter(JAIL_CHILD);
	else
		check_filters(j);
	note(j, &w);
	filtered = j->step[JAIL_SECCOMP].held;
	return 0;
}

/* ---- threads ---- */

struct jail_pending {
	const struct jail *jail;
	struct loop *loop;
	struct loop_call call;
	enum jail_role role;
	struct walls walls;
	struct jail_pending *next;
};

static void confine_device(void *arg)
{
	struct jail_pending *p = arg;

	if (p->role != JAIL_NET)
		p->walls.net = jail_enter_net(p->jail);
	confine_thread(p->jail, p->role, &p->walls);
	if (filtered)
		p->walls.filter = jail_filter(p->role);
}

int jail_loop(struct jail *j, struct loop *loop, enum jail_role role)
{
	struct jail_pending *p;

	if (!j->params.on)
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->jail = j;
	p->loop = loop;
	p->role = role;
	p->next = j->pending;
	j->pending = p;
	loop_post(loop, &p->call, confine_device, p);
	return 0;
}

void jail_wait(struct jail *j)
{
	struct jail_pending *p;

	while ((p = j->pending)) {
		loop_wait(p->loop, &p->call);
		note(j, &p->walls);
		j->pending = p->next;
		free(p);
	}
}

int jail_thread(enum jail_role role)
{
	return filtered ? jail_filter(role) : 0;
}

int jail_dialer(void)
{
	if (SANITIZED)
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return jail_filter(JAIL_DIALER);
}

bool jail_filters(void)
{
	return filtered;
}

int jail_seal(struct jail *j, struct err *err)
{
	struct walls w = {0};
	int r = jail_left(j, err);

	if (r < 0)
		return r;
	jail_wait(j);
	j->ruleset = close_fd(j->ruleset);
	j->net_ruleset = close_fd(j->net_ruleset);
	j->net = close_fd(j->net);
	if (filtered)
		w.filter = jail_filter(JAIL_CONTROL);
	note(j, &w);
	return 0;
}

/* ---- the end ---- */

static int remove_contents(const char *dir, struct err *err)
{
	cleanup_dir DIR *d = opendir(dir);
	struct dirent *de;

	if (!d)
		return err_errno(err, "cannot open %s", dir);
	while ((de = readdir(d))) {
		cleanup_free char *path = NULL;
		int r;

		if (str_eq(de->d_name, ".") || str_eq(de->d_name, ".."))
			continue;
		path = str_fmt("%s/%s", dir, de->d_name);
		r = path ? io_remove_tree(path, err) : err_set(err, ENOMEM, "out of memory");
		if (r < 0)
			return r;
	}
	return 0;
}

int jail_remove_dir(struct jail *j, struct err *err)
{
	const char *dir = j->params.dir, *name = strrchr(dir, '/');
	int r;

	if (j->dir_parent < 0 || !name)
		return io_remove_tree(dir, err);
	r = remove_contents(dir, err);
	if (r < 0)
		return r;
	if (unlinkat(j->dir_parent, name + 1, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return err_errno(err, "cannot remove %s", dir);
	return 0;
}

void jail_done(struct jail *j)
{
	struct err ignored = ERR_INIT;

	(void)jail_left(j, &ignored);
	if (j->net_making)
		pthread_join(j->net_maker, NULL);
	j->net = close_fd(j->net);
	j->ruleset = close_fd(j->ruleset);
	j->net_ruleset = close_fd(j->net_ruleset);
	j->dir_parent = close_fd(j->dir_parent);
}
