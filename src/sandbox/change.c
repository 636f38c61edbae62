/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/change.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/sandbox_dir_impl.h"

#define MARK "changing"

static bool same_dir(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino &&
	       x.st_dev == y.st_dev;
}

int sandbox_change_lock(struct store *s, const char *name, bool wait, struct err *err)
{
	for (;;) {
		cleanup_close int dir = sandbox_dir_open(s, name, err), now = -1;
		int r;

		if (dir < 0)
			return dir;
		r = io_flock(dir, true, wait);
		if (r < 0)
			return err_set(err, r, "cannot lock sandbox \"%s\": %s", name, err_name(r));
		/* While we waited it may have been removed, and another one made. */
		now = sandbox_dir_open(s, name, err);
		if (now < 0)
			return now;
		if (same_dir(dir, now))
			return take_fd(&dir);
	}
}

int sandbox_change_begin(struct store *s, const char *name, struct sandbox_change *ret,
			 struct err *err)
{
	cleanup_close int dir = sandbox_change_lock(s, name, true, err), mark = -1;

	if (dir < 0)
		return dir;
	if (!sandbox_dir_known(dir))
		return sandbox_none(s, name, err);
	/* Without a mark (a full disk) it is done all the same: it is for the worst case only. */
	mark = openat(dir, MARK, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	ret->marked = mark >= 0;
	ret->dir = take_fd(&dir);
	return 0;
}

void sandbox_change_end(struct sandbox_change *c, bool whole)
{
	if (c->dir >= 0 && whole && c->marked)
		sandbox_change_unmark(c->dir);
	c->dir = close_fd(c->dir);
}

bool sandbox_change_marked(int dirfd)
{
	return faccessat(dirfd, MARK, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

bool sandbox_change_take(int dirfd)
{
	return io_flock(dirfd, true, false) == 0;
}

void sandbox_change_unmark(int dirfd)
{
	(void)unlinkat(dirfd, MARK, 0);
}
