/* SPDX-License-Identifier: Apache-2.0 */
#include "users.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

struct span {
	const char *p;
	size_t n;
};

enum { COLUMNS_MAX = 7 };

/* Split off the next line into its columns; false at the end. Missing columns are empty. */
static bool next_line(struct span *text, struct span cols[COLUMNS_MAX])
{
	const char *end, *p = text->p;
	size_t n;

	if (!text->n)
		return false;
	end = memchr(p, '\n', text->n);
	n = end ? (size_t)(end - p) : text->n;
	text->p += n + (end != NULL);
	text->n -= n + (end != NULL);
	for (size_t i = 0; i < COLUMNS_MAX; i++) {
		const char *colon = i + 1 < COLUMNS_MAX ? memchr(p, ':', n) : NULL;
		size_t len = colon ? (size_t)(colon - p) : n;

		cols[i] = (struct span){p, len};
		p += len + (colon != NULL);
		n -= len + (colon != NULL);
	}
	return true;
}

static bool same(struct span a, struct span b)
{
	return a.n == b.n && !memcmp(a.p, b.p, a.n);
}

static bool parse_id(struct span s, uint32_t *ret)
{
	uint64_t v = 0;

	if (!s.n || s.n > 10)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	/* The last one means "leave alone" to the system calls. */
	if (v >= UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool list_has(struct span list, struct span name)
{
	while (list.n) {
		const char *comma = memchr(list.p, ',', list.n);
		size_t n = comma ? (size_t)(comma - list.p) : list.n;

		if (same((struct span){list.p, n}, name))
			return true;
		list.p += n + (comma != NULL);
		list.n -= n + (comma != NULL);
	}
	return false;
}

/* Find by name (pass 0), then by number (pass 1). */
static bool find_user(struct span passwd, struct span who, struct user *u, struct span *name)
{
	uint32_t want = 0, uid, gid;
	bool number = parse_id(who, &want);

	for (int pass = 0; pass < 1 + number; pass++) {
		struct span text = passwd, cols[COLUMNS_MAX];

		while (next_line(&text, cols)) {
			if (!cols[0].n || !parse_id(cols[2], &uid) || !parse_id(cols[3], &gid))
				continue;
			if (pass == 0 ? !same(cols[0], who) : uid != want)
				continue;
			u->uid = uid;
			u->gid = gid;
			if (cols[5].n && cols[5].n < sizeof(u->home)) {
				memcpy(u->home, cols[5].p, cols[5].n);
				u->home[cols[5].n] = '\0';
			}
			*name = cols[0];
			return true;
		}
	}
	if (!number)
		return false;
	u->uid = want;
	u->gid = 0;
	return true;
}

static bool find_group(struct span group, struct span who, uint32_t *ret)
{
	uint32_t gid;
	struct span cols[COLUMNS_MAX];

	while (next_line(&group, cols)) {
		if (cols[0].n && same(cols[0], who) && parse_id(cols[2], &gid)) {
			*ret = gid;
			return true;
		}
	}
	return parse_id(who, ret);
}

static void find_memberships(struct span group, struct span name, struct user *u)
{
	struct span cols[COLUMNS_MAX];
	uint32_t gid;

	while (name.n && next_line(&group, cols) && u->ngroups < USER_GROUPS_MAX) {
		if (parse_id(cols[2], &gid) && list_has(cols[3], name))
			u->groups[u->ngroups++] = gid;
	}
}

int user_parse(const char *spec, const char *passwd, size_t passwd_len, const char *group,
	       size_t group_len, struct user *ret, struct err *err)
{
	struct span users = {passwd, passwd_len}, groups = {group, group_len}, name = {"", 0};
	struct user u = {.home = "/"};
	const char *colon;
	struct span who;

	if (!spec || !*spec)
		spec = "0";
	colon = strchr(spec, ':');
	who = (struct span){spec, colon ? (size_t)(colon - spec) : strlen(spec)};
	if (!who.n)
		who = (struct span){"0", 1};
	if (!find_user(users, who, &u, &name))
		return err_set(err, ERR_NOT_FOUND, "user '%.*s' is not in the guest's /etc/passwd",
			       (int)MIN(who.n, (size_t)64), who.p);
	if (colon && colon[1]) {
		struct span g = {colon + 1, strlen(colon + 1)};

		if (!find_group(groups, g, &u.gid))
			return err_set(err, ERR_NOT_FOUND,
				       "group '%.64s' is not in the guest's /etc/group", g.p);
	} else {
		find_memberships(groups, name, &u);
	}
	*ret = u;
	return 0;
}

static int read_text(const char *path, char **ret, size_t *ret_n, struct err *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	cleanup_free char *text = NULL;
	struct stat st;
	ssize_t n;

	*ret = NULL;
	*ret_n = 0;
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0
							   : err_errno(err, "cannot read %s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "%s is not a regular file", path);
	if (st.st_size > USER_FILE_MAX)
		return err_set(err, ERR_LIMIT, "%s is longer than %d bytes", path, USER_FILE_MAX);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return err_set(err, ENOMEM, "cannot read %s: out of memory", path);
	n = read(fd, text, (size_t)st.st_size);
	if (n < 0)
		return err_errno(err, "cannot read %s", path);
	*ret = take_ptr(text);
	*ret_n = (size_t)n;
	return 0;
}

int user_lookup(const char *spec, struct user *ret, struct err *err)
{
	cleanup_free char *passwd = NULL;
	cleanup_free char *group = NULL;
	size_t np, ng;
	int r = read_text("/etc/passwd", &passwd, &np, err);

	if (!r)
		r = read_text("/etc/group", &group, &ng, err);
	if (r)
		return r;
	return user_parse(spec, passwd ? passwd : "", np, group ? group : "", ng, ret, err);
}
