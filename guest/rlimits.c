/* SPDX-License-Identifier: Apache-2.0 */
#include "rlimits.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

static const struct {
	const char *name;
	int resource;
} names[] = {
	{"cpu", RLIMIT_CPU},	       {"fsize", RLIMIT_FSIZE},
	{"data", RLIMIT_DATA},	       {"stack", RLIMIT_STACK},
	{"core", RLIMIT_CORE},	       {"rss", RLIMIT_RSS},
	{"nproc", RLIMIT_NPROC},       {"nofile", RLIMIT_NOFILE},
	{"memlock", RLIMIT_MEMLOCK},   {"as", RLIMIT_AS},
	{"locks", RLIMIT_LOCKS},       {"sigpending", RLIMIT_SIGPENDING},
	{"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
	{"rtprio", RLIMIT_RTPRIO},     {"rttime", RLIMIT_RTTIME},
};

enum {
	AGENT_FILES = 1 << 20, /* fs.nr_open's default */
	COMMAND_FILES_SOFT = 1024,
	COMMAND_FILES_HARD = 512 << 10,
};

int rlimit_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(names[i].name, name))
			return names[i].resource;
	}
	return -1;
}

int rlimits_check(const struct wire_list *limits, struct err *err)
{
	const struct exec_rlimit *l = limits->v;

	for (size_t i = 0; i < limits->n; i++) {
		if (rlimit_find(l[i].resource) < 0)
			return err_set(err, EINVAL, "unknown resource limit '%.64s'",
				       l[i].resource);
		if (l[i].soft > l[i].hard)
			return err_set(err, EINVAL, "resource limit '%s': soft is above hard",
				       l[i].resource);
	}
	return 0;
}

int rlimit_set(const struct exec_rlimit *l)
{
	struct {
		uint64_t soft, hard;
	} v = {l->soft, l->hard};

	return syscall(SYS_prlimit64, 0, rlimit_find(l->resource), &v, NULL) < 0 ? -errno : 0;
}

struct limit64 {
	uint64_t soft, hard;
};

void rlimit_raise_files(void)
{
	struct limit64 v = {AGENT_FILES, AGENT_FILES};

	(void)syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &v, NULL);
}

void rlimit_default_files(void)
{
	struct limit64 v;

	if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &v) < 0)
		return;
	v.hard = MIN(v.hard, (uint64_t)COMMAND_FILES_HARD);
	v.soft = MIN(v.hard, (uint64_t)COMMAND_FILES_SOFT);
	(void)syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &v, NULL);
}
