/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/record.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/session_history.h"

/* A record with the largest environment that a kernel would run is far smaller. */
#define RECORD_MAX ((size_t)4 << 20)

static void json_drop(json_t **j)
{
	json_decref(*j);
}
#define cleanup_json __attribute__((cleanup(json_drop)))

void sandbox_main_done(struct sandbox_main *m)
{
	strv_done(&m->argv);
	*m = (struct sandbox_main){0};
}

void record_done(struct sandbox_record *r)
{
	free(r->name);
	free(r->image);
	free(r->image_id);
	sandbox_spec_done(&r->spec);
	sandbox_main_done(&r->main);
	memset(r, 0, sizeof(*r));
}

/* The texts of a spec, by JSON key. */
static const struct {
	const char *key;
	size_t offset;
} texts[] = {
	{"user", offsetof(struct sandbox_spec, user)},
	{"workdir", offsetof(struct sandbox_spec, workdir)},
	{"hostname", offsetof(struct sandbox_spec, hostname)},
	{"kernel", offsetof(struct sandbox_spec, kernel)},
	{"engine", offsetof(struct sandbox_spec, engine)},
	{"jail", offsetof(struct sandbox_spec, jail)},
	{"huge_pages", offsetof(struct sandbox_spec, huge_pages)},
	{"log_level", offsetof(struct sandbox_spec, log_level)},
	{"net", offsetof(struct sandbox_spec, net)},
	{"net_egress", offsetof(struct sandbox_spec, net_egress)},
	{"net_ingress", offsetof(struct sandbox_spec, net_ingress)},
	{"proxy", offsetof(struct sandbox_spec, proxy)},
	{"proxy_user", offsetof(struct sandbox_spec, proxy_user)},
	{"proxy_password_env", offsetof(struct sandbox_spec, proxy_password_env)},
	{"root_file", offsetof(struct sandbox_spec, root_file)},
	{"shell", offsetof(struct sandbox_spec, shell)},
	{"security", offsetof(struct sandbox_spec, security)},
	{"init", offsetof(struct sandbox_spec, init)},
};

/* Its numbers that are in the record only if they are not 0, and their ceilings. */
static const struct {
	const char *key;
	size_t offset;
	json_int_t max;
	bool wide; /* 64 bits */
} numbers[] = {
	{"max_cpus", offsetof(struct sandbox_spec, max_cpus), SANDBOX_CPUS_MAX, false},
	{"max_memory", offsetof(struct sandbox_spec, max_memory), SANDBOX_MEMORY_MAX, true},
	{"max_duration_ms", offsetof(struct sandbox_spec, max_duration_ms), INT64_MAX, true},
	{"idle_timeout_ms", offsetof(struct sandbox_spec, idle_timeout_ms), INT64_MAX, true},
	{"session_history", offsetof(struct sandbox_spec, session_history), SESSION_HISTORY_MAX,
	 true},
};

/* Its lists that are in the record only if they are not empty; "K=V" each if @pairs. */
static const struct {
	const char *key;
	size_t offset;
	bool pairs;
} lists[] = {
	{"entrypoint", offsetof(struct sandbox_spec, entrypoint), false},
	{"labels", offsetof(struct sandbox_spec, labels), true},
	{"net_rules", offsetof(struct sandbox_spec, net_rules), false},
	{"ports", offsetof(struct sandbox_spec, ports), false},
	{"net_limits", offsetof(struct sandbox_spec, net_limits), true},
	{"dns_servers", offsetof(struct sandbox_spec, dns_servers), false},
	{"dns_hosts", offsetof(struct sandbox_spec, dns_hosts), false},
	{"net_names", offsetof(struct sandbox_spec, net_names), true},
	{"vsock", offsetof(struct sandbox_spec, vsock), false},
	{"vsock_listen", offsetof(struct sandbox_spec, vsock_listen), false},
	{"init_args", offsetof(struct sandbox_spec, init_args), false},
	{"init_env", offsetof(struct sandbox_spec, init_env), true},
};

static char **text_at(const struct sandbox_spec *s, size_t i)
{
	return (char **)((uintptr_t)s + texts[i].offset);
}

static struct strv *list_at(const struct sandbox_spec *s, size_t i)
{
	return (struct strv *)((uintptr_t)s + lists[i].offset);
}

static const char *const roots[] = {
	[SANDBOX_ROOT_DISK] = "disk",
	[SANDBOX_ROOT_TMPFS] = "tmpfs",
	[SANDBOX_ROOT_FILE] = "file",
};

/* JSON integers are signed; "unlimited" travels as -1. */
static json_int_t limit_out(uint64_t v)
{
	return v > INT64_MAX ? -1 : (json_int_t)v;
}

static uint64_t limit_in(json_int_t v)
{
	return v < 0 ? UINT64_MAX : (uint64_t)v;
}

static json_t *list_out(const struct strv *list)
{
	json_t *o = json_array();

	for (size_t i = 0; i < list->n; i++)
		json_array_append_new(o, json_stringn_nocheck(list->v[i], strlen(list->v[i])));
	return o;
}

static int list_in(const json_t *o, bool pairs, struct strv *ret)
{
	json_t *item;
	size_t i;

	/* What is a list now was one text in records of an earlier msb: entrypoint. */
	if (json_is_string(o))
		return strv_add(ret, json_string_value(o));
	json_array_foreach(o, i, item)
	{
		const char *text = json_string_value(item);

		if (!text || (pairs && !strchr(text, '=')))
			return -ERR_CORRUPT;
		if ((pairs ? strv_env_set(ret, text) : strv_add(ret, text)) < 0)
			return -ENOMEM;
	}
	return 0;
}

json_t *record_config(const struct sandbox_spec *s)
{
	json_t *o = json_object(), *limits = json_array();

	json_object_set_new(o, "cpus", json_integer(s->cpus));
	json_object_set_new(o, "memory", json_integer((json_int_t)s->memory));
	json_object_set_new(o, "root_disk", json_string(roots[s->root]));
	json_object_set_new(o, "root_size", json_integer((json_int_t)s->root_size));
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		const char *text = *text_at(s, i);

		if (text)
			json_object_set_new(o, texts[i].key,
					    json_stringn_nocheck(text, strlen(text)));
	}
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		const char *at = (const char *)s + numbers[i].offset;
		uint64_t n = numbers[i].wide ? *(const uint64_t *)at : *(const uint32_t *)at;

		if (n)
			json_object_set_new(o, numbers[i].key, json_integer((json_int_t)n));
	}
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		if (list_at(s, i)->n)
			json_object_set_new(o, lists[i].key, list_out(list_at(s, i)));
	}
	for (size_t i = 0; i < s->nrlimits; i++) {
		const struct sandbox_rlimit *l = &s->rlimits[i];

		json_array_append_new(limits,
				      json_pack("{s:s,s:I,s:I}", "resource", l->resource, "soft",
						limit_out(l->soft), "hard", limit_out(l->hard)));
	}
	json_object_set_new(o, "env", list_out(&s->env));
	json_object_set_new(o, "rlimits", limits);
	return o;
}

static int dump(const char *p, size_t n, void *arg)
{
	buf_add(arg, p, n);
	return 0;
}

static int print(const json_t *o, struct buf *b)
{
	if (!o || json_dump_callback(o, dump, b, JSON_INDENT(2)) < 0)
		return -ENOMEM;
	buf_add_u8(b, '\n');
	return buf_failed(b) ? -ENOMEM : 0;
}

int record_encode(const struct sandbox_record *r, struct buf *b)
{
	cleanup_json json_t *o = json_pack("{s:i,s:s,s:s,s:s,s:I,s:b,s:o}", "version", 1, "name",
					   r->name, "image", r->image, "image_id", r->image_id,
					   "created_at", (json_int_t)r->created_at, "ephemeral",
					   r->ephemeral, "config", record_config(&r->spec));

	if (o && r->main.argv.n)
		json_object_set_new(o, "main",
				    json_pack("{s:o,s:b,s:I}", "argv", list_out(&r->main.argv),
					      "tty", r->main.tty, "timeout_ms",
					      (json_int_t)r->main.timeout_ms));
	return print(o, b);
}

static int spec_from_json(const json_t *o, struct sandbox_spec *s)
{
	json_int_t cpus = 0, memory = 0, size = 0;
	const char *root = "";
	json_t *env = NULL, *limits = NULL, *item;
	size_t i;
	int r;

	if (json_unpack((json_t *)(uintptr_t)o, "{s:I,s:I,s:s,s:I,s:o,s:o}", "cpus", &cpus,
			"memory", &memory, "root_disk", &root, "root_size", &size, "env", &env,
			"rlimits", &limits) < 0)
		return -ERR_CORRUPT;
	if (cpus < 1 || cpus > SANDBOX_CPUS_MAX || memory <= 0 || size < 0)
		return -ERR_CORRUPT;
	s->cpus = (uint32_t)cpus;
	s->memory = (uint64_t)memory;
	for (i = 0; i < ARRAY_SIZE(roots) && !str_eq(root, roots[i]); i++)
		;
	if (i == ARRAY_SIZE(roots))
		return -ERR_CORRUPT;
	s->root = (enum sandbox_root)i;
	s->root_size = (uint64_t)size;
	for (i = 0; i < ARRAY_SIZE(texts); i++) {
		const char *text = json_string_value(json_object_get(o, texts[i].key));

		if (text && !(*text_at(s, i) = strdup(text)))
			return -ENOMEM;
	}
	if ((s->root == SANDBOX_ROOT_FILE) != !!s->root_file)
		return -ERR_CORRUPT;
	for (i = 0; i < ARRAY_SIZE(numbers); i++) {
		json_int_t n = json_integer_value(json_object_get(o, numbers[i].key));
		char *at = (char *)s + numbers[i].offset;

		if (n < 0 || n > numbers[i].max)
			return -ERR_CORRUPT;
		if (numbers[i].wide)
			*(uint64_t *)at = (uint64_t)n;
		else
			*(uint32_t *)at = (uint32_t)n;
	}
	r = list_in(env, true, &s->env);
	for (i = 0; i < ARRAY_SIZE(lists) && r == 0; i++)
		r = list_in(json_object_get(o, lists[i].key), lists[i].pairs, list_at(s, i));
	if (r < 0)
		return r;
	json_array_foreach(limits, i, item)
	{
		const char *name = "";
		json_int_t soft = 0, hard = 0;
		cleanup_free char *text = NULL;

		if (json_unpack(item, "{s:s,s:I,s:I}", "resource", &name, "soft", &soft, "hard",
				&hard) < 0)
			return -ERR_CORRUPT;
		text = str_fmt("%s=unlimited", name);
		if (!text)
			return -ENOMEM;
		if (sandbox_spec_rlimit(s, text, NULL) < 0)
			return -ERR_CORRUPT;
		s->rlimits[s->nrlimits - 1].soft = limit_in(soft);
		s->rlimits[s->nrlimits - 1].hard = limit_in(hard);
	}
	return 0;
}

static int main_from_json(const json_t *o, struct sandbox_main *m)
{
	json_t *argv = NULL;
	json_int_t timeout = 0;
	int tty = 0;

	if (!o)
		return 0;
	if (json_unpack((json_t *)(uintptr_t)o, "{s:o,s:b,s:I}", "argv", &argv, "tty", &tty,
			"timeout_ms", &timeout) < 0 ||
	    timeout < 0)
		return -ERR_CORRUPT;
	m->tty = tty;
	m->timeout_ms = (uint64_t)timeout;
	return list_in(argv, false, &m->argv);
}

int record_decode(const void *p, size_t n, struct sandbox_record *ret, struct err *err)
{
	cleanup_json json_t *o = json_loadb(p, n, 0, NULL);
	cleanup_record struct sandbox_record r = {0};
	const char *name = "", *image = "", *id = "";
	json_int_t created = 0;
	json_t *config = NULL;
	int ephemeral = 0, version = 0, ret_code;

	if (!o || json_unpack(o, "{s:i,s:s,s:s,s:s,s:I,s:b,s:o}", "version", &version, "name",
			      &name, "image", &image, "image_id", &id, "created_at", &created,
			      "ephemeral", &ephemeral, "config", &config) < 0)
		return err_set(err, ERR_CORRUPT, "it is not a sandbox's configuration");
	if (version != 1)
		return err_set(err, ERR_UNSUPPORTED, "it is of version %d, which we do not know",
			       version);
	ret_code = spec_from_json(config, &r.spec);
	if (ret_code == 0)
		ret_code = main_from_json(json_object_get(o, "main"), &r.main);
	if (ret_code < 0)
		return err_set(err, ret_code, "it is not a sandbox's configuration");
	r.name = strdup(name);
	r.image = strdup(image);
	r.image_id = strdup(id);
	r.created_at = created;
	r.ephemeral = ephemeral;
	if (!r.name || !r.image || !r.image_id)
		return err_set(err, ENOMEM, "out of memory");
	*ret = r;
	memset(&r, 0, sizeof(r));
	return 0;
}

/* -ENOENT, without a message, when it is not there. */
static int read_file(int dirfd, const char *name, struct buf *b, struct err *err)
{
	cleanup_close int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int r;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT : err_errno(err, "cannot read %s", name);
	r = io_read_fd(fd, RECORD_MAX, b);
	return r < 0 ? err_set(err, r, "cannot read %s: %s", name, err_name(r)) : 0;
}

int record_read(int dirfd, struct sandbox_record *ret, struct err *err)
{
	static const char *const names[] = {RECORD_KEPT, RECORD_EPHEMERAL};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		cleanup_buf struct buf b = BUF_INIT;
		int r = read_file(dirfd, names[i], &b, err);

		if (r == -ENOENT)
			continue;
		if (r < 0)
			return r;
		r = record_decode(buf_ptr(&b), buf_size(&b), ret, err);
		if (r < 0)
			err_wrap(err, "%s", names[i]);
		return r;
	}
	return err_set(err, ENOENT, "there is no configuration");
}

/* ---- the machine ---- */

void record_machine_done(struct sandbox_machine *m)
{
	free(m->engine);
	free(m->jail);
	free(m->end);
	free(m->state);
	strv_done(&m->ports);
	memset(m, 0, sizeof(*m));
}

int record_machine_encode(const struct sandbox_machine *m, struct buf *b)
{
	cleanup_json json_t *o =
		json_pack("{s:i,s:s,s:s*,s:s*,s:s*,s:o,s:I,s:I,s:I}", "version", 1, "engine",
			  m->engine, "jail", m->jail, "end", m->end, "state", m->state, "ports",
			  list_out(&m->ports), "started_at", (json_int_t)m->started_at, "ended_at",
			  (json_int_t)m->ended_at, "ready_ms", (json_int_t)m->ready_ms);

	if (o && m->exit_code)
		json_object_set_new(o, "exit_code", json_integer(m->exit_code - 1));

	return print(o, b);
}

static int copy(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

int record_machine_decode(const void *p, size_t n, struct sandbox_machine *ret, struct err *err)
{
	cleanup_json json_t *o = json_loadb(p, n, 0, NULL);
	cleanup_machine struct sandbox_machine m = {0};
	const char *engine = NULL, *jail = NULL, *end = NULL, *state = NULL;
	json_int_t started = 0, ended = 0, ready = 0, code = -1;
	json_t *ports = NULL;
	int version = 0;

	if (!o || json_unpack(o, "{s:i,s:s,s?s,s?s,s?s,s?o,s:I,s:I,s:I,s?I}", "version", &version,
			      "engine", &engine, "jail", &jail, "end", &end, "state", &state,
			      "ports", &ports, "started_at", &started, "ended_at", &ended,
			      "ready_ms", &ready, "exit_code", &code) < 0)
		return err_set(err, ERR_CORRUPT, "it does not describe a machine");
	if (version != 1)
		return err_set(err, ERR_UNSUPPORTED, "it is of version %d, which we do not know",
			       version);
	if (copy(&m.engine, engine) < 0 || copy(&m.jail, jail) < 0 || copy(&m.end, end) < 0 ||
	    copy(&m.state, state) < 0)
		return err_set(err, ENOMEM, "out of memory");
	if (list_in(ports, false, &m.ports) < 0)
		return err_set(err, ERR_CORRUPT, "it does not describe a machine");
	m.started_at = started;
	m.ended_at = ended;
	m.ready_ms = ready > 0 ? (uint64_t)ready : 0;
	m.exit_code = code >= 0 && code < 256 ? (int)code + 1 : 0;
	*ret = m;
	memset(&m, 0, sizeof(m));
	return 0;
}

int record_machine_read(int dirfd, struct sandbox_machine *ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	int r = read_file(dirfd, RECORD_MACHINE, &b, err);

	if (r == -ENOENT)
		return err_set(err, ENOENT, "it has not had a machine");
	if (r == 0)
		r = record_machine_decode(buf_ptr(&b), buf_size(&b), ret, err);
	return r < 0 ? err_wrap(err, RECORD_MACHINE) : 0;
}

json_t *record_active_read(int dirfd)
{
	cleanup_buf struct buf b = BUF_INIT;

	return read_file(dirfd, RECORD_ACTIVE, &b, NULL) < 0
		       ? NULL
		       : json_loadb((const char *)buf_ptr(&b), buf_size(&b), 0, NULL);
}

int record_active_put(int dirfd, const json_t *config)
{
	cleanup_buf struct buf b = BUF_INIT;
	int r;

	if (!config)
		return unlinkat(dirfd, RECORD_ACTIVE, 0) < 0 && errno != ENOENT ? -errno : 0;
	r = print(config, &b);
	return r < 0 ? r : record_put(dirfd, RECORD_ACTIVE, &b);
}

int record_put(int dirfd, const char *name, const struct buf *b)
{
	cleanup_free char *tmp = str_fmt("%s.tmp", name);
	cleanup_close int fd = -1;
	int r;

	if (!tmp || buf_failed(b))
		return -ENOMEM;
	fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = fd < 0 ? -errno : io_write_full(fd, buf_ptr(b), buf_size(b));
	/* What a sandbox is shall be there after a power cut, too; the rest goes with its machine.
	 */
	if (r == 0 && str_eq(name, RECORD_KEPT) && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(dirfd, tmp, dirfd, name) < 0)
		r = -errno;
	if (r < 0 && fd >= 0)
		(void)unlinkat(dirfd, tmp, 0);
	return r;
}
