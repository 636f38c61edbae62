/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "name|uid[:group|gid]" against the guest's /etc/passwd and /etc/group, without NSS.
 *
 * As container runtimes do: a name beats a number of the same spelling; a uid unknown to passwd is
 * allowed and gets group 0 and home "/"; an explicit group replaces the supplementary groups.
 * No state; any thread.
 */
#ifndef GUEST_USERS_H
#define GUEST_USERS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
	USER_GROUPS_MAX = 64,
	USER_HOME_MAX = 256,
	USER_FILE_MAX = 1 << 20, /* a longer passwd or group file is refused */
};

struct user {
	uint32_t uid, gid;
	uint32_t groups[USER_GROUPS_MAX]; /* supplementary */
	size_t ngroups;
	char home[USER_HOME_MAX];
};

/* @passwd and @group are the files' texts, possibly empty. ERR_NOT_FOUND names what is missing. */
int user_parse(const char *spec, const char *passwd, size_t passwd_len, const char *group,
	       size_t group_len, struct user *ret, struct err *err);
/* Against the files under /etc. NULL or empty @spec is root. */
int user_lookup(const char *spec, struct user *ret, struct err *err);

#endif
