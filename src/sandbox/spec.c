/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/spec.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "image/image.h"
#include "sandbox/patch.h"
#include "sandbox/session_history.h"
#include "sandbox/source.h"
#include "wire/cbor.h"

/* The order is that of the kernel's RLIMIT_ numbers; names are the peer's. */
static const char *const resources[] = {
	"cpu",	   "fsize", "data",  "stack",	   "core",     "rss",  "nproc",	 "nofile",
	"memlock", "as",    "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
};
_Static_assert(ARRAY_SIZE(resources) == SANDBOX_RLIMITS_MAX, "one slot per resource");

#define MEMORY_STEP ((uint64_t)2 << 20)

void sandbox_spec_init(struct sandbox_spec *s)
{
	*s = (struct sandbox_spec){
		.cpus = SANDBOX_CPUS_DEFAULT,
		.memory = SANDBOX_MEMORY_DEFAULT,
		.root = SANDBOX_ROOT_DISK,
		.root_size = SANDBOX_ROOT_DEFAULT,
	};
}

void sandbox_spec_done(struct sandbox_spec *s)
{
	free(s->name);
	free(s->user);
	free(s->workdir);
	free(s->hostname);
	free(s->kernel);
	free(s->engine);
	free(s->jail);
	free(s->huge_pages);
	free(s->log_level);
	free(s->root_file);
	free(s->shell);
	free(s->security);
	free(s->init);
	sandbox_patches_done(s);
	strv_done(&s->env);
	strv_done(&s->entrypoint);
	strv_done(&s->labels);
	free(s->net);
	free(s->net_egress);
	free(s->proxy);
	free(s->proxy_user);
	free(s->proxy_password_env);
	free(s->net_ingress);
	strv_done(&s->net_rules);
	strv_done(&s->net_limits);
	strv_done(&s->dns_servers);
	strv_done(&s->dns_hosts);
	strv_done(&s->net_names);
	strv_done(&s->vsock);
	strv_done(&s->vsock_listen);
	strv_done(&s->ports);
	strv_done(&s->init_args);
	strv_done(&s->init_env);
	memset(s, 0, sizeof(*s));
}

static bool env_name_ok(const char *text, size_t n)
{
	/* Whatever execve() takes; only an empty name cannot be meant. */
	return n > 0 && !memchr(text, '=', n);
}

/* @opt is how it is said. */
static int add_env(struct strv *env, const char *text, const char *opt, struct err *err)
{
	size_t key = strcspn(text, "=");
	int r;

	if (!env_name_ok(text, key)) {
		err_set(err, ERR_USAGE, "environment variable \"%s\" has no name", text);
		return err_hint(err, "write it like %s NAME=value, or %s NAME for the value here",
				opt, opt);
	}
	if (text[key] == '=') {
		r = strv_env_set(env, text);
	} else {
		const char *value = getenv(text);
		cleanup_free char *both = NULL;

		if (!value) {
			err_set(err, ERR_USAGE, "environment variable %s is not set here", text);
			return err_hint(err, "give it a value: %s %s=value", opt, text);
		}
		both = str_fmt("%s=%s", text, value);
		r = both ? strv_env_set(env, both) : -ENOMEM;
	}
	return r < 0 ? err_set(err, r, "cannot keep the environment: %s", err_name(r)) : 0;
}

int sandbox_spec_env(struct sandbox_spec *s, const char *text, struct err *err)
{
	return add_env(&s->env, text, "-e", err);
}

int sandbox_spec_init_env(struct sandbox_spec *s, const char *text, struct err *err)
{
	return add_env(&s->init_env, text, "--init-env", err);
}

int sandbox_spec_init_arg(struct sandbox_spec *s, const char *text, struct err *err)
{
	return strv_add(&s->init_args, text) < 0
		       ? err_set(err, ENOMEM, "cannot keep the init's argument: out of memory")
		       : 0;
}

static int set_text(char **at, const char *text, struct err *err)
{
	char *copy = strdup(text);

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	free(*at);
	*at = copy;
	return 0;
}

int sandbox_spec_init_program(struct sandbox_spec *s, const char *text, struct err *err)
{
	if (!str_eq(text, "auto") && text[0] != '/') {
		err_set(err, ERR_USAGE, "the init \"%s\" is not an absolute path", text);
		return err_hint(err, "write --init auto, or a path in the image like /sbin/init");
	}
	return set_text(&s->init, text, err);
}

int sandbox_spec_entrypoint(struct sandbox_spec *s, const char *text, struct err *err)
{
	struct strv v = {0};

	if (strv_add(&v, text) < 0)
		return err_set(err, ENOMEM, "out of memory");
	strv_done(&s->entrypoint);
	s->entrypoint = v;
	return 0;
}

int sandbox_spec_security(struct sandbox_spec *s, const char *text, struct err *err)
{
	if (!str_eq(text, "default") && !str_eq(text, "restricted")) {
		err_set(err, ERR_USAGE, "there is no security profile \"%s\"", text);
		return err_hint(err, "it is default or restricted");
	}
	return set_text(&s->security, text, err);
}

int sandbox_label_parse(const char *text, char **ret, struct err *err)
{
	size_t key = strcspn(text, "=");
	const char *value = text[key] ? text + key + 1 : "";
	bool ok = key > 0 && key <= SANDBOX_LABEL_KEY_MAX;

	for (size_t i = 0; i < key && ok; i++)
		ok = isalnum((unsigned char)text[i]) || (i > 0 && strchr("._-/", text[i]));
	if (!ok) {
		err_set(err, ERR_USAGE, "\"%.*s\" is not a label", (int)MIN(key, (size_t)40), text);
		return err_hint(err,
				"write it like KEY or KEY=VALUE, KEY of letters, digits and . _ - "
				"/, at most %d of them",
				SANDBOX_LABEL_KEY_MAX);
	}
	if (strlen(value) > SANDBOX_LABEL_MAX)
		return err_set(err, ERR_USAGE, "the value of label %.*s is longer than %d bytes",
			       (int)key, text, SANDBOX_LABEL_MAX);
	for (const char *c = value; *c && ok; c++)
		ok = (unsigned char)*c >= ' ' && *c != 0x7f;
	if (!ok || !cbor_utf8_valid((const uint8_t *)value, strlen(value)))
		return err_set(err, ERR_USAGE, "the value of label %.*s is not printable text",
			       (int)key, text);
	if (!ret)
		return 0;
	*ret = str_fmt("%.*s=%s", (int)key, text, value);
	return *ret ? 0 : err_set(err, ENOMEM, "cannot keep a label: out of memory");
}

int sandbox_spec_label(struct sandbox_spec *s, const char *text, struct err *err)
{
	cleanup_free char *label = NULL;
	int r = sandbox_label_parse(text, &label, err);

	if (r < 0)
		return r;
	r = strv_env_set(&s->labels, label);
	return r < 0 ? err_set(err, r, "cannot keep a label: out of memory") : 0;
}

static int parse_cpus(const char *text, uint32_t *ret, struct err *err)
{
	uint64_t n;

	if (str_to_u64(text, SANDBOX_CPUS_MAX, &n) < 0 || n == 0) {
		err_set(err, ERR_USAGE, "\"%s\" is not a number of CPUs", text);
		return err_hint(err, "choose between 1 and %d", SANDBOX_CPUS_MAX);
	}
	*ret = (uint32_t)n;
	return 0;
}

int sandbox_spec_cpus(struct sandbox_spec *s, const char *text, struct err *err)
{
	return parse_cpus(text, &s->cpus, err);
}

int sandbox_spec_max_cpus(struct sandbox_spec *s, const char *text, struct err *err)
{
	return parse_cpus(text, &s->max_cpus, err);
}

static int parse_memory(const char *text, uint64_t *ret, struct err *err)
{
	uint64_t n;
	int r = str_to_size(text, (uint64_t)1 << 20, "memory size", &n, err);

	if (r < 0)
		return r;
	if (n < SANDBOX_MEMORY_MIN || n > SANDBOX_MEMORY_MAX) {
		err_set(err, ERR_USAGE, "memory size %s is too %s", text,
			n < SANDBOX_MEMORY_MIN ? "small" : "large");
		return err_hint(err, "a machine needs at least %llu MiB",
				(unsigned long long)(SANDBOX_MEMORY_MIN >> 20));
	}
	*ret = (n + MEMORY_STEP - 1) / MEMORY_STEP * MEMORY_STEP;
	return 0;
}

int sandbox_spec_memory(struct sandbox_spec *s, const char *text, struct err *err)
{
	return parse_memory(text, &s->memory, err);
}

int sandbox_spec_max_memory(struct sandbox_spec *s, const char *text, struct err *err)
{
	return parse_memory(text, &s->max_memory, err);
}

/* Milliseconds, at least one: 0 means that there is no limit. */
static int parse_limit(const char *text, const char *what, uint64_t *ret, struct err *err)
{
	uint64_t ns;
	int r = str_to_duration(text, what, &ns, err);

	if (r < 0)
		return r;
	if (ns < 1000000)
		return err_set(err, ERR_USAGE, "the %s %s leaves no time for anything", what, text);
	*ret = ns / 1000000;
	return 0;
}

int sandbox_spec_max_duration(struct sandbox_spec *s, const char *text, struct err *err)
{
	return parse_limit(text, "maximal duration", &s->max_duration_ms, err);
}

int sandbox_spec_idle_timeout(struct sandbox_spec *s, const char *text, struct err *err)
{
	return parse_limit(text, "idle timeout", &s->idle_timeout_ms, err);
}

int sandbox_spec_session_history(struct sandbox_spec *s, const char *text, struct err *err)
{
	uint64_t n;
	int r = str_to_size(text, (uint64_t)1 << 20, "session history", &n, err);

	if (r < 0)
		return r;
	if (n < SESSION_HISTORY_MIN || n > SESSION_HISTORY_MAX) {
		err_set(err, ERR_USAGE, "a session history of %s is too %s", text,
			n < SESSION_HISTORY_MIN ? "small" : "large");
		return err_hint(err, "it has %llu KiB to %llu MiB",
				(unsigned long long)(SESSION_HISTORY_MIN >> 10),
				(unsigned long long)(SESSION_HISTORY_MAX >> 20));
	}
	s->session_history = n;
	return 0;
}

static int root_file(struct sandbox_spec *s, const char *text, struct err *err)
{
	cleanup_source_text struct sandbox_source src = {0};
	int r = sandbox_source_parse(text, &src, err);

	if (r < 0)
		return r;
	if (src.kind != SOURCE_DISK) {
		err_set(err, ERR_USAGE, "the root disk %s is no file", text);
		return err_hint(err, "make one: truncate -s 8G FILE.img && mkfs.ext4 FILE.img");
	}
	free(s->root_file);
	s->root_file = take_ptr(src.text);
	s->root = SANDBOX_ROOT_FILE;
	s->root_size = 0;
	s->root_asked = true;
	return 0;
}

int sandbox_spec_root(struct sandbox_spec *s, const char *text, struct err *err)
{
	enum sandbox_root root = SANDBOX_ROOT_DISK;
	const char *size = text;
	uint64_t n = 0;

	if (sandbox_source_is_path(text))
		return root_file(s, text, err);
	if (str_eq(text, "tmpfs") || str_starts(text, "tmpfs:")) {
		root = SANDBOX_ROOT_TMPFS;
		size = text[5] ? text + 6 : NULL;
	}
	if (size) {
		int r = str_to_size(size, (uint64_t)1 << 20, "root disk size", &n, err);

		if (r < 0) {
			if (root == SANDBOX_ROOT_DISK)
				err_set(err, ERR_USAGE, "root disk \"%s\" is not understood", text);
			return err_hint(err, "write --root-disk 8G, tmpfs, tmpfs:256M or ./FILE");
		}
		if (n < ((uint64_t)16 << 20)) {
			err_set(err, ERR_USAGE, "root disk size %s is too small", size);
			return err_hint(err, "16M is the least");
		}
	}
	free(s->root_file);
	s->root_file = NULL;
	s->root = root;
	s->root_size = n;
	s->root_asked = true;
	return 0;
}

static int rlimit_value(const char *text, uint64_t *ret)
{
	if (str_eq(text, "unlimited") || str_eq(text, "-1")) {
		*ret = UINT64_MAX;
		return 0;
	}
	return str_to_u64(text, UINT64_MAX - 1, ret);
}

int sandbox_spec_rlimit(struct sandbox_spec *s, const char *text, struct err *err)
{
	const char *eq = strchr(text, '=');
	cleanup_free char *name = eq ? strndup(text, (size_t)(eq - text)) : NULL;
	cleanup_free char *soft = eq ? strdup(eq + 1) : NULL;
	struct sandbox_rlimit limit = {0};
	char *hard;
	size_t at;

	if (!eq) {
		err_set(err, ERR_USAGE, "resource limit \"%s\" has no value", text);
		return err_hint(err, "write it like --rlimit nofile=1024:4096");
	}
	if (!name || !soft)
		return err_set(err, ENOMEM, "cannot keep a resource limit: out of memory");
	for (size_t i = 0; i < ARRAY_SIZE(resources); i++) {
		if (str_eq(resources[i], name))
			limit.resource = resources[i];
	}
	if (!limit.resource) {
		const char *like = str_suggest(name, resources, ARRAY_SIZE(resources));

		err_set(err, ERR_USAGE, "there is no resource limit \"%s\"", name);
		if (like)
			return err_hint(err, "did you mean %s?", like);
		return err_hint(err, "they are called cpu, fsize, data, stack, core, rss, nproc, "
				     "nofile, memlock, as, locks, sigpending, msgqueue, nice, "
				     "rtprio, rttime");
	}
	hard = strchr(soft, ':');
	if (hard)
		*hard++ = '\0';
	if (rlimit_value(soft, &limit.soft) < 0 ||
	    rlimit_value(hard ? hard : soft, &limit.hard) < 0) {
		err_set(err, ERR_USAGE, "resource limit \"%s\" is not a number", text);
		return err_hint(err, "write numbers or \"unlimited\": --rlimit nofile=1024:4096");
	}
	if (limit.soft > limit.hard)
		return err_set(err, ERR_USAGE,
			       "resource limit \"%s\": the soft limit is above the hard one", text);
	for (at = 0; at < s->nrlimits; at++) {
		if (s->rlimits[at].resource == limit.resource)
			break;
	}
	s->rlimits[at] = limit;
	if (at == s->nrlimits)
		s->nrlimits++;
	return 0;
}

int sandbox_name_check(const char *name, struct err *err)
{
	size_t n = strlen(name);

	if (n > SANDBOX_NAME_MAX) {
		err_set(err, ERR_USAGE, "the sandbox name \"%.32s…\" is too long", name);
		return err_hint(err, "%d characters are the most", SANDBOX_NAME_MAX);
	}
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c >= 128 || (!isalnum(c) && (i == 0 || !strchr("._-", c))))
			n = 0;
	}
	if (n == 0) {
		err_set(err, ERR_USAGE, "\"%s\" is not a name for a sandbox", name);
		return err_hint(err, "start with a letter or digit, go on with those and . _ -");
	}
	return 0;
}

int sandbox_name_random(char ret[16], struct err *err)
{
	uint32_t v;

	if (getrandom(&v, sizeof(v), 0) != sizeof(v))
		return err_errno(err, "cannot get random numbers");
	snprintf(ret, 16, "msb-%08x", v);
	return 0;
}

void sandbox_hostname(const struct sandbox_spec *s, const char *name,
		      char ret[SANDBOX_HOSTNAME_MAX + 1])
{
	const char *from = s->hostname ? s->hostname : name;
	size_t n = strlen(from);

	snprintf(ret, SANDBOX_HOSTNAME_MAX + 1, "%s", from);
	if (s->hostname)
		return;
	for (char *c = ret; *c; c++) {
		if (*c == '_')
			*c = '-';
	}
	if (n > SANDBOX_HOSTNAME_MAX) {
		uint32_t hash = 2166136261u; /* FNV-1a */

		for (size_t i = 0; i < n; i++)
			hash = (hash ^ (unsigned char)from[i]) * 16777619u;
		snprintf(ret + SANDBOX_HOSTNAME_MAX - 9, 10, "-%08x", hash);
	}
	/* A host name does not end in a dot or dash. */
	for (n = strlen(ret); n > 1 && !isalnum((unsigned char)ret[n - 1]); n--)
		ret[n - 1] = '\0';
}

static int check_hostname(const char *name, struct err *err)
{
	size_t n = strlen(name);
	bool ok = n > 0 && n <= SANDBOX_HOSTNAME_MAX && name[0] != '-' && name[0] != '.';

	for (size_t i = 0; i < n && ok; i++)
		ok = isalnum((unsigned char)name[i]) || strchr("-._", name[i]);
	if (ok)
		return 0;
	err_set(err, ERR_USAGE, "\"%s\" is not a host name", name);
	return err_hint(err, "letters, digits, dots and dashes, %d at most", SANDBOX_HOSTNAME_MAX);
}

/* The agent protocol carries text; bytes that are none would arrive as something else. */
static int check_text(const char *what, const char *text, struct err *err)
{
	if (!text || cbor_utf8_valid((const uint8_t *)text, strlen(text)))
		return 0;
	err_set(err, ERR_UNSUPPORTED, "%s is not valid UTF-8 and cannot be passed on", what);
	return err_hint(err, "pass such bytes through standard input");
}

/* An init runs with all rights, and runs whatever anybody asks it to. */
static int check_init(const struct sandbox_spec *s, struct err *err)
{
	if (s->init && s->security && str_eq(s->security, "restricted"))
		return err_set(err, ERR_USAGE,
			       "--init and --security restricted exclude each other");
	if (!s->init && (s->init_args.n || s->init_env.n)) {
		err_set(err, ERR_USAGE, "there is no init for an argument or environment");
		return err_hint(err, "add --init auto");
	}
	return 0;
}

int sandbox_spec_check(const struct sandbox_spec *s, struct err *err)
{
	int r = s->name ? sandbox_name_check(s->name, err) : 0;

	if (r == 0)
		r = check_text("the user", s->user, err);
	if (r == 0)
		r = check_text("the working directory", s->workdir, err);
	if (r == 0 && s->shell && (!s->shell[0] || strchr(s->shell, '\n')))
		r = err_set(err, ERR_USAGE, "the shell \"%s\" is not a program's name", s->shell);
	if (r == 0 && s->hostname)
		r = check_hostname(s->hostname, err);
	if (r == 0)
		r = check_init(s, err);
	if (r == 0)
		r = sandbox_spec_net_check(s, err);
	if (r < 0)
		return r;
	if (s->workdir && s->workdir[0] != '/') {
		err_set(err, ERR_USAGE, "the working directory \"%s\" is not absolute", s->workdir);
		return err_hint(err, "start it with a slash");
	}
	if (s->jail && !str_eq(s->jail, "on") && !str_eq(s->jail, "off")) {
		err_set(err, ERR_USAGE, "there is no jail \"%s\"", s->jail);
		return err_hint(err, "it is on or off");
	}
	if (s->huge_pages && !str_eq(s->huge_pages, "on") && !str_eq(s->huge_pages, "off")) {
		err_set(err, ERR_USAGE, "huge pages cannot be \"%s\"", s->huge_pages);
		return err_hint(err, "they are on or off");
	}
	if (s->entrypoint.n && !s->entrypoint.v[0][0]) {
		err_set(err, ERR_USAGE, "the entrypoint is empty");
		return err_hint(err, "name a program, or leave --entrypoint out");
	}
	if (s->user && (!s->user[0] || s->user[0] == ':')) {
		err_set(err, ERR_USAGE, "the user \"%s\" is empty", s->user);
		return err_hint(err, "write it like name, 1000 or 1000:1000");
	}
	if (s->root == SANDBOX_ROOT_TMPFS && s->root_size > s->memory) {
		err_set(err, ERR_USAGE, "a root disk in memory does not fit the machine's memory");
		return err_hint(err, "raise --memory, or lower --root-disk");
	}
	if (s->max_cpus && s->max_cpus < s->cpus) {
		err_set(err, ERR_USAGE, "at most %u CPUs are fewer than the %u to start with",
			s->max_cpus, s->cpus);
		return err_hint(err, "raise --max-cpus, or lower --cpus");
	}
	if (s->max_memory && s->max_memory < s->memory) {
		err_set(err, ERR_USAGE, "the most memory is less than that to start with");
		return err_hint(err, "raise --max-memory, or lower --memory");
	}
	if (s->max_memory > s->memory && s->huge_pages && str_eq(s->huge_pages, "on")) {
		err_set(err, ERR_USAGE,
			"huge pages are set aside at the start, and cannot come and "
			"go while it runs");
		return err_hint(err, "leave --max-memory or --huge-pages out");
	}
	if (!s->init && (s->init_args.n || s->init_env.n)) {
		err_set(err, ERR_USAGE, "arguments or environment for an init, but no init");
		return err_hint(err, "add --init auto, or --init PATH");
	}
	if (s->labels.n > SANDBOX_LABELS_MAX)
		return err_set(err, ERR_USAGE, "%zu labels are more than %d", s->labels.n,
			       SANDBOX_LABELS_MAX);
	return 0;
}

static int add_all(struct strv *to, char *const *list)
{
	int r = 0;

	for (; list && *list && r == 0; list++)
		r = strv_add(to, *list);
	return r;
}

int sandbox_command_resolve(const struct sandbox_spec *s, const struct image_config *image,
			    const char *const *args, size_t nargs, struct sandbox_command *ret,
			    struct err *err)
{
	cleanup_command struct sandbox_command c = {0};
	const char *workdir = s->workdir ? s->workdir : image->workdir;
	const char *user = s->user ? s->user : image->user;
	int r;

	r = add_all(&c.argv, s->entrypoint.n ? s->entrypoint.v : image->entrypoint);
	if (nargs) {
		for (size_t i = 0; i < nargs && r == 0; i++)
			r = strv_add(&c.argv, args[i]);
	} else if (r == 0 && !s->entrypoint.n) {
		r = add_all(&c.argv, image->cmd);
	}
	for (char **e = image->env; e && *e && r == 0; e++)
		r = strv_env_set(&c.env, *e);
	for (size_t i = 0; i < s->env.n && r == 0; i++)
		r = strv_env_set(&c.env, s->env.v[i]);
	c.user = strdup(user ? user : "");
	/* Images may say "app" for /app. */
	c.workdir =
		str_fmt("%s%s", workdir && workdir[0] == '/' ? "" : "/", workdir ? workdir : "");
	if (r < 0 || !c.user || !c.workdir)
		return err_set(err, ENOMEM, "cannot put the command together: out of memory");
	for (size_t i = 0; i < c.argv.n && r == 0; i++)
		r = check_text("an argument", c.argv.v[i], err);
	for (size_t i = 0; i < c.env.n && r == 0; i++)
		r = check_text("an environment variable", c.env.v[i], err);
	if (r < 0)
		return r;
	*ret = c;
	memset(&c, 0, sizeof(c));
	return 0;
}

void sandbox_command_done(struct sandbox_command *c)
{
	strv_done(&c->argv);
	strv_done(&c->env);
	free(c->user);
	free(c->workdir);
	c->user = c->workdir = NULL;
}
