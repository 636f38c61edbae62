/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/sandbox_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/str.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir_impl.h"
#include "sandbox/spec.h"
#include "store/store.h"

#define GONE ".gone-"

/* How often a wait for another process's lock looks again: it cannot be waited for with a limit. */
#define TAKE_RETRY_NS 5000000

int sandbox_names_lock(struct store *s, bool wait)
{
	cleanup_close int fd =
		openat(store_dirfd(s, STORE_SANDBOXES), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = io_flock(fd, true, wait);
	return r < 0 ? r : take_fd(&fd);
}

bool sandbox_dir_kept(int dirfd)
{
	return faccessat(dirfd, RECORD_KEPT, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

bool sandbox_dir_known(int dirfd)
{
	return sandbox_dir_kept(dirfd) ||
	       faccessat(dirfd, RECORD_EPHEMERAL, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void sandbox_dir_done(struct sandbox_dir *d)
{
	free(d->name);
	free(d->path);
	close_fd(d->fd);
	close_fd(d->lock);
	close_fd(d->change);
	*d = (struct sandbox_dir)SANDBOX_DIR_INIT;
}

void sandbox_dir_clean(int dirfd)
{
	/* Last the one by which it is seen that some may be left. */
	static const char *const sockets[] = {SANDBOX_CONTROL_SOCKET, "session.sock",
					      SANDBOX_AGENT_SOCKET};

	for (size_t i = 0; i < ARRAY_SIZE(sockets); i++)
		(void)unlinkat(dirfd, sockets[i], 0);
}

/* Delete everything in the directory but the lock. */
static int empty(const struct sandbox_dir *d)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *de;
	int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int r = -errno;

		close_fd(fd);
		return r;
	}
	while ((de = readdir(dir))) {
		cleanup_free char *path = NULL;
		int r;

		if (str_eq(de->d_name, ".") || str_eq(de->d_name, "..") ||
		    str_eq(de->d_name, SANDBOX_LOCK))
			continue;
		path = str_fmt("%s/%s", d->path, de->d_name);
		r = path ? io_remove_tree(path, NULL) : -ENOMEM;
		if (r < 0)
			return r;
	}
	return 0;
}

int sandbox_none(struct store *s, const char *name, struct err *err)
{
	cleanup_strv struct strv names = {0};
	int fd = openat(store_dirfd(s, STORE_SANDBOXES), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	const char *like;

	if (!d)
		close_fd(fd);
	while (d && (e = readdir(d))) {
		/* One that is gone may still be in the way of being removed. */
		if (e->d_name[0] != '.' && !str_eq(e->d_name, name) &&
		    strv_add(&names, e->d_name) < 0)
			break;
	}
	like = str_suggest(name, (const char *const *)names.v, names.n);
	err_set(err, ERR_NOT_FOUND, "there is no sandbox \"%s\"", name);
	if (like)
		return err_hint(err, "did you mean %s? `msb ls` shows what there is", like);
	return err_hint(err, "`msb ls` shows what there is");
}

/* Path and name of one. */
static int set_names(struct sandbox_dir *d, struct store *s, const char *name, struct err *err)
{
	char path[4096];
	int r = store_path(s, STORE_SANDBOXES, name, path, sizeof(path), err);

	if (r < 0)
		return r;
	d->store = s;
	d->name = strdup(name);
	d->path = strdup(path);
	if (!d->name || !d->path)
		return err_set(err, ENOMEM, "cannot open sandbox %s: out of memory", name);
	return 0;
}

int sandbox_dir_take(struct store *s, const char *name, bool create, struct sandbox_dir *ret,
		     struct err *err)
{
	cleanup_close int names = sandbox_names_lock(s, true);
	cleanup_sandbox_dir struct sandbox_dir d = SANDBOX_DIR_INIT;
	const char *path;
	int at = store_dirfd(s, STORE_SANDBOXES), r;

	if (names < 0)
		return err_set(err, names, "cannot lock %s/sandboxes: %s", store_home(s),
			       err_name(names));
	r = set_names(&d, s, name, err);
	if (r < 0)
		return r;
	path = d.path;
	if (create && mkdirat(at, name, 0700) < 0 && errno != EEXIST)
		return err_errno(err, "cannot create %s", path);
	d.fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d.fd < 0 && errno == ENOENT)
		return sandbox_none(s, name, err);
	if (d.fd < 0)
		return err_errno(err, "cannot open %s", path);
	d.lock = openat(d.fd, SANDBOX_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d.lock < 0)
		return err_errno(err, "cannot open %s/%s", path, SANDBOX_LOCK);
	r = io_flock(d.lock, true, false);
	if (r == -EWOULDBLOCK) {
		r = err_set(err, EBUSY, "sandbox \"%s\" is already running", name);
		err_hint(err, "stop it with `msb stop %s`, or choose another --name", name);
		return r;
	}
	if (r < 0)
		return err_set(err, r, "cannot lock sandbox \"%s\": %s", name, err_name(r));
	d.kept = sandbox_dir_kept(d.fd);
	if (!d.kept) {
		r = empty(&d);
		if (r < 0)
			return err_set(err, r, "cannot clean %s: %s", path, err_name(r));
	}
	*ret = d;
	d = (struct sandbox_dir)SANDBOX_DIR_INIT;
	return 0;
}

int sandbox_dir_adopt(struct store *s, const char *name, int lock, struct sandbox_dir *ret,
		      struct err *err)
{
	cleanup_sandbox_dir struct sandbox_dir d = SANDBOX_DIR_INIT;
	struct stat mine, theirs;
	int r = set_names(&d, s, name, err);

	if (r < 0)
		return r;
	d.fd = sandbox_dir_open(s, name, err);
	if (d.fd < 0)
		return d.fd;
	if (fstat(lock, &mine) < 0 || fstatat(d.fd, SANDBOX_LOCK, &theirs, 0) < 0 ||
	    mine.st_ino != theirs.st_ino || mine.st_dev != theirs.st_dev ||
	    io_flock(lock, true, false) < 0)
		return err_set(err, ERR_USAGE, "the lock of sandbox \"%s\" was not handed over",
			       name);
	d.lock = lock;
	d.kept = sandbox_dir_kept(d.fd);
	*ret = d;
	d = (struct sandbox_dir)SANDBOX_DIR_INIT;
	return 0;
}

int sandbox_dir_hold(struct sandbox_dir *d, struct err *err)
{
	/* Of its own: it is let go of before the directory is. */
	cleanup_close int fd = -1;
	int r;

	if (d->change >= 0)
		return 0;
	fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = fd < 0 ? -errno : io_flock(fd, true, true);
	if (r < 0)
		return err_set(err, r, "cannot lock %s: %s", d->path, err_name(r));
	d->change = take_fd(&fd);
	return 0;
}

void sandbox_dir_let(struct sandbox_dir *d)
{
	d->change = close_fd(d->change);
}

int sandbox_dir_give_up(struct sandbox_dir *d, struct err *err)
{
	int r = sandbox_dir_hold(d, err);

	if (r < 0)
		return r;
	if (unlinkat(d->fd, RECORD_KEPT, 0) < 0 && errno != ENOENT)
		return err_errno(err, "cannot remove %s/%s", d->path, RECORD_KEPT);
	d->kept = false;
	return 0;
}

int sandbox_dir_renew(struct sandbox_dir *d, struct err *err)
{
	int r = sandbox_dir_give_up(d, err);

	if (r < 0)
		return r;
	r = empty(d);
	return r < 0 ? err_set(err, r, "cannot clean %s: %s", d->path, err_name(r)) : 0;
}

int sandbox_dir_take_random(struct store *s, struct sandbox_dir *ret, struct err *err)
{
	char name[16];
	int r;

	do {
		r = sandbox_name_random(name, err);
		if (r == 0)
			r = sandbox_dir_take(s, name, true, ret, err);
		if (r == 0 && ret->kept) {
			sandbox_dir_done(ret);
			r = -EBUSY;
		}
	} while (r == -EBUSY);
	return r;
}

int sandbox_dir_take_wait(struct store *s, const char *name, int timeout_ms,
			  struct sandbox_dir *ret, struct err *err)
{
	uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000u;

	for (;;) {
		int r = sandbox_dir_take(s, name, false, ret, err);

		if (r != -EBUSY || now_ns() >= end)
			return r;
		nanosleep(&(struct timespec){.tv_nsec = TAKE_RETRY_NS}, NULL);
	}
}

int sandbox_dir_remove(struct sandbox_dir *d, struct err *err)
{
	cleanup_sandbox_dir struct sandbox_dir mine = *d;
	cleanup_free char *gone = NULL;
	uint32_t v = 0;
	int r;

	*d = (struct sandbox_dir)SANDBOX_DIR_INIT;
	(void)!getrandom(&v, sizeof(v), 0);
	gone = str_fmt("%s/sandboxes/" GONE "%s-%08x", store_home(mine.store), mine.name, v);
	if (!gone)
		return err_set(err, ENOMEM, "cannot remove %s: out of memory", mine.path);
	{
		cleanup_close int names = sandbox_names_lock(mine.store, true);

		/* Should that fail, it goes under its own name. */
		r = names < 0 || rename(mine.path, gone) < 0 ? -errno : 0;
	}
	if (r == -ENOENT)
		return 0;
	return io_remove_tree(r < 0 ? mine.path : gone, err);
}

int sandbox_entry_open(int at, const char *name, int *lock)
{
	int fd;

	if (str_eq(name, ".") || str_eq(name, ".."))
		return -1;
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0)
		*lock = openat(fd, SANDBOX_LOCK, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd;
}

static void entry_done(struct sandbox_entry *e)
{
	record_done(e->record);
	free(e->record);
	free(e->unreadable);
	sandbox_status_done(&e->status);
}

void sandbox_list_done(struct sandbox_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		entry_done(&l->items[i]);
	free(l->items);
	l->items = NULL;
	l->count = 0;
}

static int list_add(struct sandbox_list *l, const struct sandbox_entry *e)
{
	struct sandbox_entry *p = reallocarray(l->items, l->count + 1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	l->items = p;
	p[l->count++] = *e;
	return 1;
}

static int newest_first(const void *a, const void *b)
{
	const struct sandbox_record *x = ((const struct sandbox_entry *)a)->record;
	const struct sandbox_record *y = ((const struct sandbox_entry *)b)->record;

	if (x->created_at != y->created_at)
		return x->created_at < y->created_at ? 1 : -1;
	return strcmp(x->name, y->name);
}

/*
 * What to say of a sandbox whose lock is held, or not. Its row, which is emptied, may be behind:
 * its owner may be about to write it, or have been killed.
 */
static int settle(int dirfd, const struct sandbox_entry *e, struct sandbox_status *row,
		  struct sandbox_status *ret)
{
	struct sandbox_status now = {.ephemeral = e->record->ephemeral,
				     .created_at = e->record->created_at,
				     .exit_code = -1};

	if (row) {
		now = *row;
		row->reason = NULL;
	}
	if (e->running && (!row || !sandbox_state_alive(now.state)))
		now.state = !row && e->pid ? SANDBOX_RUNNING : SANDBOX_STARTING;
	else if (!e->running && (!row || sandbox_state_alive(now.state)))
		sandbox_state_guess(dirfd, &now);
	if (!now.reason)
		now.reason = strdup("");
	*ret = now;
	return now.reason ? 0 : -ENOMEM;
}

/* There is one, and that is all we know: from an msb that is newer, or damaged. */
static int list_unreadable(struct sandbox_entry *e, int dirfd, const char *name,
			   const struct sandbox_status *row, const char *why)
{
	struct sandbox_record *rec = e->record;

	rec->name = strdup(name);
	rec->image = strdup("?");
	rec->image_id = strdup("");
	rec->ephemeral = !sandbox_dir_kept(dirfd);
	rec->created_at = row ? row->created_at : 0;
	e->unreadable = strdup(why);
	return rec->name && rec->image && rec->image_id && e->unreadable ? 0 : -ENOMEM;
}

/* One entry; 0 when there is nothing to list. */
static int list_entry(struct sandbox_list *l, int names, const char *name,
		      const struct sandbox_states *rows)
{
	cleanup_close int lock = -1, fd = sandbox_entry_open(names, name, &lock);
	struct sandbox_entry e = {.record = calloc(1, sizeof(*e.record))};
	struct sandbox_status *row = sandbox_states_find(rows, name);
	struct err err = ERR_INIT;
	int r;

	if (!e.record)
		return -ENOMEM;
	/* One that has no record yet (or no longer) is only just being made (or removed). */
	r = fd < 0 || lock < 0 ? -ENOENT : record_read(fd, e.record, &err);
	if (r < 0 && r != -ENOENT && sandbox_dir_known(fd))
		r = list_unreadable(&e, fd, name, row, err.msg);
	if (r < 0) {
		entry_done(&e);
		return r == -ENOMEM ? r : 0;
	}
	e.running = io_flock(lock, true, false) == -EWOULDBLOCK;
	e.pid = e.running ? io_owner(lock) : 0;
	/* Those that only await being healed are gone for everybody but us. */
	r = 0;
	if (e.running || !e.record->ephemeral)
		r = settle(fd, &e, row, &e.status) == 0 ? list_add(l, &e) : -ENOMEM;
	if (r <= 0)
		entry_done(&e);
	return r;
}

int sandbox_dir_list(struct store *s, const char *name, struct sandbox_list *ret, struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	cleanup_states struct sandbox_states rows = {0};
	cleanup_dir DIR *dir = NULL;
	int names = sandbox_names_lock(s, true), r;
	struct dirent *de;

	dir = names < 0 ? NULL : fdopendir(names);
	if (!dir) {
		r = names < 0 ? names : -errno;
		close_fd(names);
		return err_set(err, r, "cannot list %s/sandboxes: %s", store_home(s), err_name(r));
	}
	r = sandbox_states_read(s, &rows, err);
	if (r < 0)
		return r;
	while ((de = readdir(dir))) {
		if (de->d_name[0] == '.' || (name && !str_eq(name, de->d_name)))
			continue;
		if (list_entry(&l, names, de->d_name, &rows) < 0)
			return err_set(err, ENOMEM, "cannot list sandboxes: out of memory");
	}
	if (name && !l.count)
		return sandbox_none(s, name, err);
	if (l.count)
		qsort(l.items, l.count, sizeof(*l.items), newest_first);
	*ret = l;
	l = (struct sandbox_list){0};
	return 0;
}

int sandbox_dir_open(struct store *s, const char *name, struct err *err)
{
	int r = sandbox_name_check(name, err), fd;

	if (r < 0)
		return r;
	fd = openat(store_dirfd(s, STORE_SANDBOXES), name,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return sandbox_none(s, name, err);
	return fd < 0 ? err_errno(err, "cannot open sandbox \"%s\"", name) : fd;
}

int sandbox_dir_vm(struct store *s, const char *name)
{
	cleanup_close int dir = sandbox_dir_open(s, name, NULL);
	cleanup_close int lock = dir < 0 ? -1 : openat(dir, SANDBOX_LOCK, O_RDWR | O_CLOEXEC);
	cleanup_close int vm = -1;
	pid_t pid = lock < 0 ? 0 : io_owner(lock);

	if (pid <= 0)
		return -ESRCH;
	vm = (int)syscall(SYS_pidfd_open, pid, 0);
	/* An owner of that number after it was opened: its, then, is the process that was opened.
	 */
	return vm >= 0 && io_owner(lock) == pid ? take_fd(&vm) : -ESRCH;
}

/* sun_path holds 108 bytes; a path through /proc is short whatever the directory's own is. */
static int make_address(int dirfd, const char *name, struct sockaddr_un *sa)
{
	int n;

	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	n = snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", dirfd, name);
	return n < (int)sizeof(sa->sun_path) ? 0 : -ENAMETOOLONG;
}

static int make_socket(int dirfd, const char *name, struct sockaddr_un *sa, int *ret)
{
	int r = make_address(dirfd, name, sa);

	if (r < 0)
		return r;
	*ret = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return *ret < 0 ? -errno : 0;
}

int sandbox_socket_listen(int dirfd, const char *name, struct err *err)
{
	cleanup_close int fd = -1;
	struct sockaddr_un sa;
	int r = make_socket(dirfd, name, &sa, &fd);

	if (r == 0 && (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
		       fchmodat(dirfd, name, 0600, 0) < 0 || listen(fd, 64) < 0))
		r = -errno;
	if (r < 0)
		return err_set(err, r, "cannot listen on %s: %s", name, err_name(r));
	return take_fd(&fd);
}

int sandbox_socket_connect(int dirfd, const char *name, struct err *err)
{
	cleanup_close int fd = -1;
	struct sockaddr_un sa;
	int r = make_socket(dirfd, name, &sa, &fd);

	if (r == 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		r = -errno;
	if (r < 0)
		return err_set(err, r, "cannot connect to %s: %s", name, err_name(r));
	return take_fd(&fd);
}
