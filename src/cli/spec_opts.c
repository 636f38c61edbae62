/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/spec_opts.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "sandbox/patch.h"

/* Setters that hand the words to the spec. */
typedef int spec_fn(struct sandbox_spec *s, const char *text, struct err *err);

enum {
	SPEC_ENV,
	SPEC_CPUS,
	SPEC_MEMORY,
	SPEC_ROOT,
	SPEC_RLIMIT,
	SPEC_LABEL,
	SPEC_MAX_CPUS,
	SPEC_DURATION,
	SPEC_IDLE
};
static spec_fn *const spec_fns[] = {
	[SPEC_ENV] = sandbox_spec_env,		 [SPEC_CPUS] = sandbox_spec_cpus,
	[SPEC_MEMORY] = sandbox_spec_memory,	 [SPEC_ROOT] = sandbox_spec_root,
	[SPEC_RLIMIT] = sandbox_spec_rlimit,	 [SPEC_LABEL] = sandbox_spec_label,
	[SPEC_MAX_CPUS] = sandbox_spec_max_cpus, [SPEC_DURATION] = sandbox_spec_max_duration,
	[SPEC_IDLE] = sandbox_spec_idle_timeout,
};

static int set_patch(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct spec_args *a = target;

	a->created = true;
	return sandbox_patch_add(&a->spec, (enum sandbox_patch_kind)o->number, value, err);
}

static int set_spec(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct spec_args *a = target;

	a->created = true;
	return spec_fns[o->number](&a->spec, value, err);
}

/* Texts of the spec; number 1 marks those that say nothing about a sandbox that is there. */
static int set_text(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct spec_args *a = target;
	char **at = (char **)((char *)&a->spec + o->offset), *copy = strdup(value);

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	free(*at);
	*at = copy;
	a->created |= !o->number;
	return 0;
}

static int set_log_level(const struct opt *o, void *target, const char *value, struct err *err)
{
	enum log_level level;

	if (log_level_parse(value, &level) < 0 || level == LOG_OFF) {
		err_set(err, ERR_USAGE, "there is no log level \"%s\"", value);
		return err_hint(err, "it is one of error, warn, info, debug, trace");
	}
	return set_text(o, target, value, err);
}

static int set_pull(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)o;
	return pull_policy_parse(value, &((struct spec_args *)target)->pull, err);
}

static int set_name(const struct opt *o, void *target, const char *value, struct err *err)
{
	int r = sandbox_name_check(value, err);

	return r < 0 ? r : set_text(o, target, value, err);
}

#define SPEC(field) offsetof(struct sandbox_spec, field)
#define ARGS(field) offsetof(struct spec_args, field)

static const struct opt rows[] = {
	{'e', "env", "KEY[=VALUE]", "Set an environment variable, or pass on ours (repeatable)",
	 set_spec, 0, SPEC_ENV},
	{'u', "user", "USER[:GROUP]", "Run as this user, by name or number [image's, or root]",
	 set_text, SPEC(user), 0},
	{'w', "workdir", "PATH", "Working directory [image's, or /]", set_text, SPEC(workdir), 0},
	{0, "entrypoint", "PROGRAM", "Program to run in place of the image's entrypoint", set_text,
	 SPEC(entrypoint), 0},
	{'c', "cpus", "N", "Virtual CPUs [1]", set_spec, 0, SPEC_CPUS},
	{0, "max-cpus", "N", "CPUs that it can be given while it runs [--cpus]", set_spec, 0,
	 SPEC_MAX_CPUS},
	{'m', "memory", "SIZE", "Memory, as in 512M or 1.5G; a bare number is MiB [512M]", set_spec,
	 0, SPEC_MEMORY},
	{0, "root-disk", "SIZE|tmpfs[:SIZE]|FILE",
	 "Room for changes to the root file system [8G], or a disk of yours for them", set_spec, 0,
	 SPEC_ROOT},
	{0, "shell", "PATH", "Shell, and what runs scripts [/bin/sh]", set_text, SPEC(shell), 0},
	{0, "copy", "SRC:DST",
	 "Copy a file or directory into the root (repeatable, as those below)", set_patch, 0,
	 SANDBOX_COPY},
	{0, "copy-file", "SRC:DST", "Copy a file", set_patch, 0, SANDBOX_COPY_FILE},
	{0, "copy-dir", "SRC:DST", "Copy a directory", set_patch, 0, SANDBOX_COPY_DIR},
	{0, "mkdir", "PATH", "Make a directory in the root", set_patch, 0, SANDBOX_MKDIR},
	{0, "rm", "PATH", "Remove a file or directory from the root", set_patch, 0, SANDBOX_RM},
	{0, "script", "NAME=BODY",
	 "Put a script on the PATH; \\n, \\t, \\\" and the like are understood", set_patch, 0,
	 SANDBOX_SCRIPT},
	{0, "script-raw", "NAME=BODY", "The same, as it stands", set_patch, 0, SANDBOX_SCRIPT_RAW},
	{0, "script-path", "NAME:FILE", "The same from a file", set_patch, 0, SANDBOX_SCRIPT_PATH},
	{'n', "name", "NAME", "Keep the sandbox under this name, and use it again next time",
	 set_name, SPEC(name), 1},
	{'H', "hostname", "NAME", "Host name in the guest [from the sandbox's name]", set_text,
	 SPEC(hostname), 0},
	{0, "label", "KEY[=VALUE]", "Attach a label, to choose sandboxes by (repeatable)", set_spec,
	 0, SPEC_LABEL},
	{0, "max-duration", "TIME", "Stop it after this long, as in 90, 30s, 5m, 1h", set_spec, 0,
	 SPEC_DURATION},
	{0, "idle-timeout", "TIME", "Stop it when nothing was done in it for so long", set_spec, 0,
	 SPEC_IDLE},
	{0, "rlimit", "RES=SOFT[:HARD]", "Resource limit, as in nofile=1024:4096 (repeatable)",
	 set_spec, 0, SPEC_RLIMIT},
	{0, "pull", "always|missing|never", "When to ask the image's registry [missing]", set_pull,
	 0, 0},
	{0, "kernel", "PATH", "Boot this kernel (an uncompressed vmlinux)", set_text, SPEC(kernel),
	 0},
	{0, "engine", "auto|kvm|qemu", "What runs the CPU [auto]", set_text, SPEC(engine), 0},
	{0, "jail", "on|off", "Walls around the process that runs the machine [on]", set_text,
	 SPEC(jail), 0},
	{0, "log-level", "LEVEL", "Log level of the sandbox's process", set_log_level,
	 SPEC(log_level), 1},
	{'q', "quiet", NULL, "Show no warnings", opt_set_flag, ARGS(quiet), 0},
};

const struct opt_set spec_opts = {rows, ARRAY_SIZE(rows)};

void spec_args_init(struct spec_args *a)
{
	*a = (struct spec_args){0};
	sandbox_spec_init(&a->spec);
}

void spec_args_done(struct spec_args *a)
{
	sandbox_spec_done(&a->spec);
}
