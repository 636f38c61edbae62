/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fetch/fetch.h"

/* Everything a process can do to files by Linux 5.13's Landlock. */
#define ALL_ACCESS                                                                                 \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |                              \
	 LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |                              \
	 LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                          \
	 LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |                              \
	 LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |                              \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |                            \
	 LANDLOCK_ACCESS_FS_MAKE_SYM)
#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

/* Names of hosts are looked up by libraries and files of the system's. */
static const char *const readable[] = {
	"/etc", "/usr", "/lib", "/lib64", "/run", "/var/run", "/dev/urandom", "/dev/null",
};

static void confine_files(void)
{
	struct landlock_ruleset_attr attr = {.handled_access_fs = ALL_ACCESS};
	cleanup_close int set = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	if (set < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(readable); i++) {
		struct landlock_path_beneath_attr rule = {.allowed_access = READ};
		cleanup_close int fd = open(readable[i], O_PATH | O_CLOEXEC);

		if (fd < 0)
			continue;
		rule.parent_fd = fd;
		/* Reading a directory is nothing a device has. */
		if (syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0) {
			rule.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE;
			(void)syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &rule,
				      0);
		}
	}
	(void)syscall(SYS_landlock_restrict_self, set, 0);
}

void fetch_confine(void)
{
	const struct rlimit none = {0, 0}, files = {1024, 1024};

	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	setrlimit(RLIMIT_CORE, &none);
	setrlimit(RLIMIT_FSIZE, &none);
	setrlimit(RLIMIT_NOFILE, &files);
	confine_files();
}
