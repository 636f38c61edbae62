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
	json_decref(r->odd);
	json_decref(r->beside);
	memset(r, 0, sizeof(*r));
}

/* Takes the words of a person: what it refuses now was not always refused. */
typedef int (*setter)(struct sandbox_spec *s, const char *text, struct err *err);

/* The same for "KEY=VALUE". */
static int set_pair(int (*set)(struct sandbox_spec *s, const char *key, const char *text,
			       struct err *err),
		    struct sandbox_spec *s, const char *pair, struct err *err)
{
	size_t n = strcspn(pair, "=");
	cleanup_free char *key = strndup(pair, n);

	return key ? set(s, key, pair + n + !!pair[n], err) : err_set(err, ENOMEM, "out of memory");
}

static int set_net_limit(struct sandbox_spec *s, const char *pair, struct err *err)
{
	return set_pair(sandbox_spec_net_limit, s, pair, err);
}

static int set_net_name(struct sandbox_spec *s, const char *pair, struct err *err)
{
	return set_pair(sandbox_spec_net_name, s, pair, err);
}

/* The texts of a spec, by JSON key; without a setter, sandbox_spec_check() judges them. */
static const struct {
	const char *key;
	size_t offset;
	setter set;
} texts[] = {
	{"user", offsetof(struct sandbox_spec, user), NULL},
	{"workdir", offsetof(struct sandbox_spec, workdir), NULL},
	{"hostname", offsetof(struct sandbox_spec, hostname), NULL},
	{"kernel", offsetof(struct sandbox_spec, kernel), NULL},
	{"engine", offsetof(struct sandbox_spec, engine), NULL},
	{"jail", offsetof(struct sandbox_spec, jail), NULL},
	{"huge_pages", offsetof(struct sandbox_spec, huge_pages), NULL},
	{"log_level", offsetof(struct sandbox_spec, log_level), NULL},
	{"net", offsetof(struct sandbox_spec, net), sandbox_spec_net},
	{"net_egress", offsetof(struct sandbox_spec, net_egress), sandbox_spec_net_egress},
	{"net_ingress", offsetof(struct sandbox_spec, net_ingress), sandbox_spec_net_ingress},
	{"proxy", offsetof(struct sandbox_spec, proxy), sandbox_spec_proxy},
	{"proxy_user", offsetof(struct sandbox_spec, proxy_user), NULL},
	{"proxy_password_env", offsetof(struct sandbox_spec, proxy_password_env),
	 sandbox_spec_proxy_password_env},
	{"root_file", offsetof(struct sandbox_spec, root_file), NULL},
	{"shell", offsetof(struct sandbox_spec, shell), NULL},
	{"security", offsetof(struct sandbox_spec, security), sandbox_spec_security},
	{"init", offsetof(struct sandbox_spec, init), sandbox_spec_init_program},
};

#define MEMORY_STEP ((json_int_t)2 << 20)
/* Milliseconds; a machine counts nanoseconds. */
#define DURATION_MAX (INT64_MAX / 1000000)

/* Its numbers, which are in the record only if they are not 0. */
static const struct {
	const char *key;
	size_t offset;
	json_int_t min, max, step; /* of those that are not 0 */
	json_int_t def;
	bool wide; /* 64 bits */
} numbers[] = {
	{"cpus", offsetof(struct sandbox_spec, cpus), 1, SANDBOX_CPUS_MAX, 1, SANDBOX_CPUS_DEFAULT,
	 false},
	{"memory", offsetof(struct sandbox_spec, memory), SANDBOX_MEMORY_MIN, SANDBOX_MEMORY_MAX,
	 MEMORY_STEP, SANDBOX_MEMORY_DEFAULT, true},
	{"max_cpus", offsetof(struct sandbox_spec, max_cpus), 1, SANDBOX_CPUS_MAX, 1, 0, false},
	{"max_memory", offsetof(struct sandbox_spec, max_memory), SANDBOX_MEMORY_MIN,
	 SANDBOX_MEMORY_MAX, MEMORY_STEP, 0, true},
	{"max_duration_ms", offsetof(struct sandbox_spec, max_duration_ms), 1, DURATION_MAX, 1, 0,
	 true},
	{"idle_timeout_ms", offsetof(struct sandbox_spec, idle_timeout_ms), 1, DURATION_MAX, 1, 0,
	 true},
	{"session_history", offsetof(struct sandbox_spec, session_history), SESSION_HISTORY_MIN,
	 SESSION_HISTORY_MAX, 1, 0, true},
};

/* Its lists that are in the record only if they are not empty; "K=V" each if @pairs. */
static const struct {
	const char *key;
	size_t offset;
	bool pairs;
	setter set;
} lists[] = {
	{"entrypoint", offsetof(struct sandbox_spec, entrypoint), false, NULL},
	{"labels", offsetof(struct sandbox_spec, labels), true, sandbox_spec_label},
	{"net_rules", offsetof(struct sandbox_spec, net_rules), false, sandbox_spec_net_rule},
	{"ports", offsetof(struct sandbox_spec, ports), false, sandbox_spec_port},
	{"net_limits", offsetof(struct sandbox_spec, net_limits), true, set_net_limit},
	{"dns_servers", offsetof(struct sandbox_spec, dns_servers), false, sandbox_spec_dns_server},
	{"dns_hosts", offsetof(struct sandbox_spec, dns_hosts), false, sandbox_spec_dns_host},
	{"net_names", offsetof(struct sandbox_spec, net_names), true, set_net_name},
	{"vsock", offsetof(struct sandbox_spec, vsock), false, sandbox_spec_vsock},
	{"vsock_listen", offsetof(struct sandbox_spec, vsock_listen), false,
	 sandbox_spec_vsock_listen},
	{"init_args", offsetof(struct sandbox_spec, init_args), false, NULL},
	{"init_env", offsetof(struct sandbox_spec, init_env), true, NULL},
};

static char **text_at(const struct sandbox_spec *s, size_t i)
{
	return (char **)((uintptr_t)s + texts[i].offset);
}

static struct strv *list_at(const struct sandbox_spec *s, size_t i)
{
	return (struct strv *)((uintptr_t)s + lists[i].offset);
}

static uint64_t number_get(const struct sandbox_spec *s, size_t i)
{
	const char *at = (const char *)s + numbers[i].offset;

	return numbers[i].wide ? *(const uint64_t *)at : *(const uint32_t *)at;
}

static void number_put(struct sandbox_spec *s, size_t i, json_int_t n)
{
	char *at = (char *)s + numbers[i].offset;

	if (numbers[i].wide)
		*(uint64_t *)at = (uint64_t)n;
	else
		*(uint32_t *)at = (uint32_t)n;
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

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (number_get(s, i))
			json_object_set_new(o, numbers[i].key,
					    json_integer((json_int_t)number_get(s, i)));
	}
	json_object_set_new(o, "root_disk", json_string(roots[s->root]));
	json_object_set_new(o, "root_size", json_integer((json_int_t)s->root_size));
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		const char *text = *text_at(s, i);

		if (text)
			json_object_set_new(o, texts[i].key,
					    json_stringn_nocheck(text, strlen(text)));
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

json_t *record_written(const struct sandbox_record *r)
{
	json_t *o = record_config(&r->spec);

	if (r->odd)
		json_object_update(o, r->odd);
	/* That stands beside it. */
	json_object_del(o, "main");
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
					   r->ephemeral, "config", record_written(r));
	json_t *main = json_object_get(r->odd, "main");

	if (o && r->main.argv.n)
		json_object_set_new(o, "main",
				    json_pack("{s:o,s:b,s:I}", "argv", list_out(&r->main.argv),
					      "tty", r->main.tty, "timeout_ms",
					      (json_int_t)r->main.timeout_ms));
	else if (o && main)
		json_object_set(o, "main", main);
	if (o && r->beside)
		json_object_update_missing(o, r->beside);
	return print(o, b);
}

static int text_from_json(const json_t *v, char **ret)
{
	char *copy;

	if (!json_is_string(v))
		return -ERR_CORRUPT;
	copy = strdup(json_string_value(v));
	if (!copy)
		return -ENOMEM;
	free(*ret);
	*ret = copy;
	return 0;
}

static int number_from_json(const json_t *v, size_t i, struct sandbox_spec *s)
{
	json_int_t n = json_integer_value(v);

	/* 0 is what it is when it is not there, if it may be. */
	if (!json_is_integer(v) || ((n || numbers[i].def) && n < numbers[i].min) ||
	    n > numbers[i].max || n % numbers[i].step)
		return -ERR_CORRUPT;
	number_put(s, i, n);
	return 0;
}

static int list_from_json(const json_t *v, bool pairs, struct strv *ret)
{
	cleanup_strv struct strv list = {0};
	int r = json_is_array(v) || json_is_string(v) ? list_in(v, pairs, &list) : -ERR_CORRUPT;

	if (r < 0)
		return r;
	strv_done(ret);
	*ret = list;
	list = (struct strv){0};
	return 0;
}

static int root_from_json(const json_t *v, struct sandbox_spec *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(roots); i++) {
		if (str_eq(json_string_value(v), roots[i])) {
			s->root = (enum sandbox_root)i;
			return 0;
		}
	}
	return -ERR_CORRUPT;
}

static int rlimits_from_json(const json_t *v, struct sandbox_spec *s)
{
	json_t *item;
	size_t i;

	if (!json_is_array(v))
		return -ERR_CORRUPT;
	json_array_foreach(v, i, item)
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

/* -ERR_CORRUPT: we know no such key, or not that of it; @s is as it was. */
static int value_from_json(const char *key, const json_t *v, struct sandbox_spec *s)
{
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (str_eq(key, texts[i].key))
			return text_from_json(v, text_at(s, i));
	}
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (str_eq(key, numbers[i].key))
			return number_from_json(v, i, s);
	}
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		if (str_eq(key, lists[i].key))
			return list_from_json(v, lists[i].pairs, list_at(s, i));
	}
	if (str_eq(key, "env"))
		return list_from_json(v, true, &s->env);
	if (str_eq(key, "root_disk"))
		return root_from_json(v, s);
	if (str_eq(key, "root_size") && json_integer_value(v) >= 0) {
		s->root_size = (uint64_t)json_integer_value(v);
		return 0;
	}
	if (!str_eq(key, "rlimits"))
		return -ERR_CORRUPT;
	r = rlimits_from_json(v, s);
	if (r < 0)
		s->nrlimits = 0;
	return r;
}

static int keep_odd(struct sandbox_record *r, const char *key, const json_t *v)
{
	if (!r->odd)
		r->odd = json_object();
	return json_object_set(r->odd, key, (json_t *)(uintptr_t)v) < 0 ? -ENOMEM : 0;
}

static int spec_from_json(const json_t *o, struct sandbox_record *ret)
{
	struct sandbox_spec *s = &ret->spec;
	const char *key;
	json_t *v;
	int r = 0;

	if (!json_is_object(o))
		return -ERR_CORRUPT;
	sandbox_spec_init(s);
	json_object_foreach((json_t *)(uintptr_t)o, key, v)
	{
		r = value_from_json(key, v, s);
		if (r == -ERR_CORRUPT)
			r = keep_odd(ret, key, v);
		if (r < 0)
			return r;
	}
	v = json_object_get(o, "root_disk");
	if (!v || (s->root == SANDBOX_ROOT_FILE) != !!s->root_file)
		r = keep_odd(ret, "root_disk", v ? v : json_null());
	return r;
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

/* What is not ours to judge stays, too, when it is written again. */
static int keep_beside(struct sandbox_record *r, const json_t *o)
{
	static const char *const ours[] = {"version",	 "name",      "image",	"image_id",
					   "created_at", "ephemeral", "config", "main"};

	r->beside = json_copy((json_t *)(uintptr_t)o);
	for (size_t i = 0; r->beside && i < ARRAY_SIZE(ours); i++)
		json_object_del(r->beside, ours[i]);
	return r->beside ? 0 : -ENOMEM;
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
	if (version != 1) {
		err_set(err, ERR_UNSUPPORTED, "it is of version %d, which we do not know", version);
		return err_hint(err, "a newer msb made it: update this one");
	}
	ret_code = spec_from_json(config, &r);
	if (ret_code == 0)
		ret_code = main_from_json(json_object_get(o, "main"), &r.main);
	if (ret_code == -ERR_CORRUPT && json_is_object(config)) {
		sandbox_main_done(&r.main);
		ret_code = keep_odd(&r, "main", json_object_get(o, "main"));
	}
	if (ret_code == 0)
		ret_code = keep_beside(&r, o);
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

/* ---- what can no longer be, and getting rid of it ---- */

/* The message is the setter's; what to do is the same for all of them. */
static int refused(const struct sandbox_record *r, const char *key, const struct err *why,
		   struct err *err)
{
	err_set(err, why->code, "sandbox \"%s\" cannot be what it was (%s): %s", r->name, key,
		why->msg);
	return err_hint(err,
			"set it anew with `msb modify`, or forget it: `msb modify --reset %s %s`",
			key, r->name);
}

static int check_odd(const struct sandbox_record *r, struct err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach(r->odd, key, v)
	{
		cleanup_free char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);

		err_set(err, ERR_UNSUPPORTED,
			"sandbox \"%s\" was made with something that this msb does not know: "
			"%.60s = %.100s",
			r->name, key, text ? text : "");
		return err_hint(err,
				"a newer msb may know it; without it: `msb modify --reset %s "
				"%s`, or set it anew",
				key, r->name);
	}
	return 0;
}

int record_check(const struct sandbox_record *r, struct err *err)
{
	cleanup_spec struct sandbox_spec s = {0};
	struct err why = ERR_INIT;

	if (check_odd(r, err) < 0)
		return -ERR_UNSUPPORTED;
	sandbox_spec_init(&s);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		const char *text = *text_at(&r->spec, i);

		if (text && texts[i].set && texts[i].set(&s, text, &why) < 0)
			return refused(r, texts[i].key, &why, err);
	}
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		const struct strv *list = list_at(&r->spec, i);

		for (size_t k = 0; lists[i].set && k < list->n; k++) {
			if (lists[i].set(&s, list->v[k], &why) < 0)
				return refused(r, lists[i].key, &why, err);
		}
	}
	if (sandbox_spec_check(&r->spec, &why) == 0)
		return 0;
	err_set(err, why.code, "sandbox \"%s\" cannot be what it was: %s", r->name, why.msg);
	return err_hint(err,
			"`msb inspect %s` shows what it is; `msb modify` sets it anew, or "
			"forgets it (--reset KEY)",
			r->name);
}

static int no_key(const struct sandbox_record *r, const char *key, struct err *err)
{
	cleanup_json json_t *o = record_written(r);
	const char *all[64], *name, *like;
	size_t n = 0;
	json_t *v;

	json_object_foreach(o, name, v)
	{
		if (n < ARRAY_SIZE(all))
			all[n++] = name;
	}
	like = str_suggest(key, all, n);
	err_set(err, ERR_NOT_FOUND, "sandbox \"%s\" has no \"%s\"", r->name, key);
	if (like)
		return err_hint(err, "did you mean %s?", like);
	return err_hint(err, "`msb inspect --format json %s` shows its config", r->name);
}

int record_reset(struct sandbox_record *r, const char *key, struct err *err)
{
	bool odd = json_object_del(r->odd, key) == 0;

	if (str_starts(key, "root_")) {
		err_set(err, ERR_USAGE, "the disk of sandbox \"%s\" stays what it is", r->name);
		return err_hint(err, "make another sandbox, and copy what is in this one");
	}
	if (!json_object_size(r->odd)) {
		json_decref(r->odd);
		r->odd = NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (str_eq(key, texts[i].key)) {
			free(take_ptr(*text_at(&r->spec, i)));
			return 0;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (str_eq(key, numbers[i].key)) {
			number_put(&r->spec, i, numbers[i].def);
			return 0;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		if (str_eq(key, lists[i].key)) {
			strv_done(list_at(&r->spec, i));
			return 0;
		}
	}
	if (str_eq(key, "env"))
		strv_done(&r->spec.env);
	else if (str_eq(key, "rlimits"))
		r->spec.nrlimits = 0;
	else if (!odd)
		return no_key(r, key, err);
	return 0;
}

/* ---- files ---- */

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
	/* It is that already; should the name not last, what it was before does. */
	if (r == 0 && str_eq(name, RECORD_KEPT))
		(void)fsync(dirfd);
	if (r < 0 && fd >= 0)
		(void)unlinkat(dirfd, tmp, 0);
	return r;
}
