/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/change.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/sandbox_dir.h"

#define MARK "changing"

int sandbox_change_begin(struct store *s, const char *name, struct sandbox_change *ret,
			 struct err *err)
{
	cleanup_close int dir = sandbox_dir_open(s, name, err), mark = -1;
	int r;

	if (dir < 0)
		return dir;
	r = io_flock(dir, true, true);
	if (r < 0)
		return err_set(err, r, "cannot lock sandbox \"%s\": %s", name, err_name(r));
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
