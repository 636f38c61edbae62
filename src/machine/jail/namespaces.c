/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces, all in one call where the host allows all, but for two.
 *
 * The kernel takes some 0.3 ms to make a net namespace, five times what the others take together.
 * So a thread makes it while the machine's files are opened, and each thread that stays enters it
 * in jail_close().
 *
 * With CAP_SYS_ADMIN no user namespace is made: it would only take away root's right to open files
 * of the user whose sandboxes these are, and jail_drop() leaves nothing for it to contain.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
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

#define PLAIN (CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

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

static void describe(struct jail *j)
{
	char have[96] = "", lack[96] = "";

	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
		char *to = j->spaces & spaces[i].flag	 ? have
			   : j->missing & spaces[i].flag ? lack
							 : NULL;
		if (!to)
			continue;
		if (*to)
			strcat(to, ", ");
		strcat(to, spaces[i].name);
	}
	if (!j->missing)
		jail_hold(j, JAIL_NAMESPACES, "%s", have);
	else if (*have)
		jail_degrade(j, JAIL_NAMESPACES, "only %s; not %s: %s", have, lack,
			     err_name(j->missing_why));
	else
		jail_degrade(j, JAIL_NAMESPACES, "the host does not allow any: %s",
			     err_name(j->missing_why));
}

static void lack(struct jail *j, unsigned flag, int why)
{
	j->missing |= flag;
	j->missing_why = why;
}

/* One by one what is refused together. */
static void unshare_each(struct jail *j, unsigned wanted)
{
	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
		if (!(wanted & spaces[i].flag))
			continue;
		if (unshare((int)spaces[i].flag) == 0)
			j->spaces |= spaces[i].flag;
		else
			lack(j, spaces[i].flag, errno);
	}
}

void jail_unshare(struct jail *j)
{
	unsigned wanted = PLAIN;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int r;

	if (!jail_has(CAP_SYS_ADMIN))
		wanted |= CLONE_NEWUSER;
	if (unshare((int)wanted) == 0)
		j->spaces = wanted;
	else
		unshare_each(j, wanted);
	if (j->spaces & CLONE_NEWUSER) {
		r = map_self(uid, gid);
		/* No user at all: files can still be opened, but not created. */
		if (r < 0)
			lack(j, CLONE_NEWUSER, r);
	}
	describe(j);
}

static void *make_net(void *arg)
{
	struct jail *j = arg;
	cleanup_close int in_it = -1;

	if (unshare(CLONE_NEWNET) < 0) {
		j->net = -errno;
		return NULL;
	}
	/* A name for it that needs no /proc. */
	in_it = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	j->net = in_it < 0 ? -1 : ioctl(in_it, SIOCGSKNS);
	if (j->net < 0)
		j->net = -errno;
	return NULL;
}

void jail_begin_net(struct jail *j)
{
	int r = pthread_create(&j->net_maker, NULL, make_net, j);

	j->net_making = r == 0;
	if (r)
		j->net = -r;
}

void jail_finish_net(struct jail *j)
{
	int r;

	if (j->net_making)
		pthread_join(j->net_maker, NULL);
	j->net_making = false;
	r = j->net < 0 ? j->net : jail_enter_net(j);
	if (r < 0)
		lack(j, CLONE_NEWNET, r);
	else
		j->spaces |= CLONE_NEWNET;
	describe(j);
}

int jail_enter_net(const struct jail *j)
{
	return j->net >= 0 && setns(j->net, CLONE_NEWNET) < 0 ? -errno : 0;
}

/* No thread can be started once children go elsewhere, so this waits until all exist. */
void jail_unshare_pid(struct jail *j)
{
	if (!j->spaces)
		return;
	if (unshare(CLONE_NEWPID) == 0)
		j->spaces |= CLONE_NEWPID;
	else
		lack(j, CLONE_NEWPID, errno);
	describe(j);
}
