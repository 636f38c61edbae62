/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: which of the places may be used how. What a kernel's version of it does not know is
 * left out; nothing is asked for that it would refuse.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "machine/jail/jail_impl.h"

/* Newer than the headers of Linux 6.1. */
#define FS_TRUNCATE  (1ull << 14) /* ABI 3 */
#define FS_IOCTL_DEV (1ull << 15) /* ABI 5 */
#define NET_TCP_ALL  3ull	  /* ABI 4: bind, connect */
#define SCOPE_ALL    3ull	  /* ABI 6: abstract sockets, signals */

struct ruleset_attr {
	uint64_t fs, net, scoped;
};

#define FS_FILE                                                                                    \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |                              \
	 LANDLOCK_ACCESS_FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define FS_MANAGE                                                                                  \
	(LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                          \
	 LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_WRITE_FILE |                             \
	 LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | FS_TRUNCATE)

static const struct {
	unsigned access;
	uint64_t rights;
} rights_of[] = {
	{JAIL_READ, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR},
	{JAIL_WRITE, LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE},
	{JAIL_EXEC, LANDLOCK_ACCESS_FS_EXECUTE},
	{JAIL_MANAGE, FS_MANAGE},
	{JAIL_IOCTL, FS_IOCTL_DEV},
};

/* Everything the version knows, so that what no rule allows is refused. */
static struct ruleset_attr all_of(int abi)
{
	return (struct ruleset_attr){
		.fs = abi >= 5	 ? (1ull << 16) - 1
		      : abi >= 3 ? (1ull << 15) - 1
		      : abi >= 2 ? (1ull << 14) - 1
				 : (1ull << 13) - 1,
		.net = abi >= 4 ? NET_TCP_ALL : 0,
		.scoped = abi >= 6 ? SCOPE_ALL : 0,
	};
}

static int add(int ruleset, int fd, uint64_t rights)
{
	struct landlock_path_beneath_attr rule = {rights, fd};

	return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0
		       ? -errno
		       : 0;
}

static int add_place(int ruleset, const struct jail_place *p, uint64_t known)
{
	cleanup_close int fd = open(p->path, O_PATH | O_CLOEXEC);
	uint64_t rights = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(rights_of); i++) {
		if (p->access & rights_of[i].access)
			rights |= rights_of[i].rights;
	}
	/* Rights of directories are refused for files. */
	if (!S_ISDIR(st.st_mode))
		rights &= FS_FILE;
	return add(ruleset, fd, rights & known);
}

void jail_landlock(struct jail *j, const struct jail_place *places, unsigned n)
{
	int abi =
		(int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct ruleset_attr all = all_of(abi);
	cleanup_close int ruleset = -1;
	int r = 0;

	if (abi < 1) {
		jail_degrade(j, JAIL_LANDLOCK, "%s",
			     errno == EOPNOTSUPP ? "disabled at the host's boot"
						 : "the host's kernel has none");
		return;
	}
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &all,
			       abi >= 6	  ? sizeof(all)
			       : abi >= 4 ? 16
					  : 8,
			       0);
	if (ruleset < 0) {
		jail_degrade(j, JAIL_LANDLOCK, "%s", err_name(errno));
		return;
	}
	for (unsigned i = 0; i < n && r == 0; i++)
		r = add_place(ruleset, &places[i], all.fs);
	/* To take the sandbox's directory itself away, and nothing else of what is beside it. */
	if (r == 0 && j->dir_parent >= 0)
		r = add(ruleset, j->dir_parent, LANDLOCK_ACCESS_FS_REMOVE_DIR);
	if (r < 0) {
		jail_degrade(j, JAIL_LANDLOCK, "no rule for a file: %s", err_name(r));
		return;
	}
	/* Nothing is listed in this one. */
	all.net = 0;
	j->net_ruleset = (int)syscall(SYS_landlock_create_ruleset, &all,
				      abi >= 6	 ? sizeof(all)
				      : abi >= 4 ? 16
						 : 8,
				      0);
	if (j->net_ruleset < 0) {
		jail_degrade(j, JAIL_LANDLOCK, "%s", err_name(errno));
		return;
	}
	j->ruleset = take_fd(&ruleset);
	jail_hold(j, JAIL_LANDLOCK, "ABI %d%s%s", abi, abi >= 4 ? ", no TCP" : "",
		  abi >= 6 ? ", no signals out" : "");
}

int jail_landlock_enter(const struct jail *j, enum jail_role role)
{
	int ruleset = role == JAIL_NET ? j->net_ruleset : j->ruleset;

	if (ruleset < 0)
		return 0;
	return syscall(SYS_landlock_restrict_self, ruleset, 0) < 0 ? -errno : 0;
}
