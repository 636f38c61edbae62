/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces, all in one call where the host allows all.
 *
 * With CAP_SYS_ADMIN no user namespace is made: it would only take away root's right to open files
 * of the user whose sandboxes these are, and jail_drop() leaves nothing for it to contain.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "machine/jail/jail_impl.h"

static const struct {
	unsigned flag;
	const char *name;
} spaces[] = {
	{CLONE_NEWUSER, "user"}, {CLONE_NEWNS, "mount"}, {CLONE_NEWNET, "net"},
	{CLONE_NEWIPC, "ipc"},	 {CLONE_NEWUTS, "uts"},	 {CLONE_NEWCGROUP, "cgroup"},
	{CLONE_NEWPID, "pid"},
};

#define PLAIN (CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

static int write_file(const char *path, const char *text)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : io_write_full(fd, text, strlen(text));
}

/* The caller's user and group stay what they are; there are no others. */
static int map_self(uid_t uid, gid_t gid)
{
	char uids[48], gids[48];
	int r;

	snprintf(uids, sizeof(uids), "%u %u 1\n", uid, uid);
	snprintf(gids, sizeof(gids), "%u %u 1\n", gid, gid);
	r = write_file("/proc/self/uid_map", uids);
	if (r == 0)
		r = write_file("/proc/self/setgroups", "deny");
	return r < 0 ? r : write_file("/proc/self/gid_map", gids);
}

static void describe(struct jail *j, int why, unsigned missing)
{
	char have[96] = "", lack[96] = "";

	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
		char *to = j->spaces & spaces[i].flag ? have
			   : missing & spaces[i].flag ? lack
						      : NULL;
		if (!to)
			continue;
		if (*to)
			strcat(to, ", ");
		strcat(to, spaces[i].name);
	}
	if (!missing)
		jail_hold(j, JAIL_NAMESPACES, "%s", have);
	else if (*have)
		jail_degrade(j, JAIL_NAMESPACES, "only %s; not %s: %s", have, lack, err_name(why));
	else
		jail_degrade(j, JAIL_NAMESPACES, "the host does not allow any: %s", err_name(why));
}

/* One by one what is refused together; returns what was refused. */
static unsigned unshare_each(struct jail *j, unsigned wanted, int *why)
{
	unsigned missing = 0;

	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
		if (!(wanted & spaces[i].flag))
			continue;
		if (unshare((int)spaces[i].flag) == 0) {
			j->spaces |= spaces[i].flag;
		} else {
			missing |= spaces[i].flag;
			*why = errno;
		}
	}
	return missing;
}

void jail_unshare(struct jail *j)
{
	unsigned wanted = PLAIN, missing = 0;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int why = 0, r;

	if (!jail_has(CAP_SYS_ADMIN))
		wanted |= CLONE_NEWUSER;
	if (unshare((int)wanted) == 0)
		j->spaces = wanted;
	else
		missing = unshare_each(j, wanted, &why);
	if (j->spaces & CLONE_NEWUSER) {
		r = map_self(uid, gid);
		if (r < 0) {
			/* No user at all: files can still be opened, but not created. */
			missing |= CLONE_NEWUSER;
			why = r;
		}
	}
	describe(j, why, missing);
}

/* No thread can be started once children go elsewhere, so this waits until all exist. */
void jail_unshare_pid(struct jail *j)
{
	bool whole = j->step[JAIL_NAMESPACES].held;

	if (!j->spaces)
		return;
	if (unshare(CLONE_NEWPID) == 0) {
		j->spaces |= CLONE_NEWPID;
		if (whole)
			describe(j, 0, 0);
	} else if (whole) {
		describe(j, errno, CLONE_NEWPID);
	}
}
