/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "registry/helper.h"
#include "registry/json.h"

#define OUR_FILE "registry-auth.json"

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static void wipe(char **s)
{
	if (*s)
		explicit_bzero(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

void credential_done(struct credential *c)
{
	wipe(&c->username);
	wipe(&c->password);
	wipe(&c->identity_token);
	c->source = NULL;
}

/* Names become header lines and arguments. */
static bool is_clean(const char *s)
{
	if (strlen(s) > CREDENTIAL_MAX)
		return false;
	for (; *s; s++)
		if ((unsigned char)*s < 32 || *s == 127)
			return false;
	return true;
}

/* --- Files like Docker's --- */

/* "dXNlcjpwYXNz" */
static int decode_auth(const char *text, struct credential *c, struct err *err)
{
	const size_t n = strlen(text), room = n / 4 * 3 + 4;
	cleanup_free char *plain = calloc(1, room);
	char *colon;
	int len;

	if (!plain)
		return no_memory(err);
	if (n > 4 * CREDENTIAL_MAX || n % 4)
		return err_set(err, ERR_CORRUPT, "\"auth\" is not base64");
	len = EVP_DecodeBlock((unsigned char *)plain, (const unsigned char *)text, (int)n);
	if (len < 0)
		return err_set(err, ERR_CORRUPT, "\"auth\" is not base64");
	/* OpenSSL counts the padding. */
	for (size_t i = n; i && text[i - 1] == '=' && len > 0; i--)
		len--;
	plain[len] = '\0';
	colon = strchr(plain, ':');
	if (!colon || strlen(plain) != (size_t)len)
		return err_set(err, ERR_CORRUPT, "\"auth\" is not NAME:PASSWORD");
	*colon = '\0';
	c->username = strdup(plain);
	c->password = strdup(colon + 1);
	explicit_bzero(plain, (size_t)len);
	return c->username && c->password ? 0 : no_memory(err);
}

/* The host of a key: "https://HOST/v1/" is how old versions wrote it. */
static void key_host(const char *key, char *out, size_t size)
{
	const char *p = strstr(key, "://");
	size_t n;

	p = p ? p + 3 : key;
	n = strcspn(p, "/");
	snprintf(out, size, "%.*s", (int)MIN(n, size - 1), p);
	if (str_eq(out, "index.docker.io"))
		snprintf(out, size, DOCKER_HUB);
}

static bool key_fits(const char *key, const char *host)
{
	char text[300];

	key_host(key, text, sizeof(text));
	return str_eq(text, host);
}

/* The value under the key that means @host; the exact spelling goes first. */
static const json_t *host_value(const json_t *object, const char *host)
{
	const json_t *v = json_object_get(object, host);
	const char *key;
	json_t *each;

	if (!v && str_eq(host, DOCKER_HUB))
		v = json_object_get(object, DOCKER_HUB_KEY);
	if (v)
		return v;
	json_object_foreach((json_t *)(uintptr_t)object, key,
			    each) if (key_fits(key, host)) return each;
	return NULL;
}

static int take_text(const json_t *j, const char *key, char **ret, struct err *err)
{
	const char *text = json_string_value(json_object_get(j, key));

	if (!text || !*text)
		return 0;
	free(*ret);
	*ret = strdup(text);
	return *ret ? 0 : no_memory(err);
}

static int parse_entry(const json_t *j, struct credential *ret, struct err *err)
{
	cleanup_credential struct credential c = {0};
	const char *auth = json_string_value(json_object_get(j, "auth"));
	int r = auth && *auth ? decode_auth(auth, &c, err) : 0;

	if (r >= 0)
		r = take_text(j, "username", &c.username, err);
	if (r >= 0)
		r = take_text(j, "password", &c.password, err);
	if (r >= 0)
		r = take_text(j, "identitytoken", &c.identity_token, err);
	if (r < 0)
		return r;
	if ((c.username && !is_clean(c.username)) || (c.password && !is_clean(c.password)) ||
	    (c.identity_token && !is_clean(c.identity_token)))
		return err_set(err, ERR_CORRUPT, "it is too long, or holds control characters");
	/* A helper leaves an empty entry behind to say that there is one. */
	if (!c.identity_token && !(c.username && *c.username && c.password))
		return 0;
	*ret = c;
	c = (struct credential){0};
	return 0;
}

int credential_parse(const char *json, size_t n, const char *host, struct credential *ret,
		     char **ret_helper, struct err *err)
{
	cleanup_json json_t *root = NULL;
	const char *helper;
	const json_t *v;
	json_error_t je;
	int r;

	root = json_loadb(json, n, 0, &je);
	if (!json_is_object(root))
		return err_set(err, ERR_CORRUPT, "it is not a JSON object");
	helper = json_string_value(host_value(json_object_get(root, "credHelpers"), host));
	if (!helper)
		helper = json_string_value(json_object_get(root, "credsStore"));
	if (helper && *helper && ret_helper) {
		*ret_helper = strdup(helper);
		if (!*ret_helper)
			return no_memory(err);
	}
	v = host_value(json_object_get(root, "auths"), host);
	r = v ? parse_entry(v, ret, err) : 0;
	if (r < 0 && ret_helper) {
		free(*ret_helper);
		*ret_helper = NULL;
	}
	return r < 0 ? err_wrap(err, "the login for %.200s", host) : 0;
}

/* 1 and its contents, 0 if there is no such file. */
static int read_file(const char *path, struct buf *b, struct err *err)
{
	int r;

	if (access(path, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	r = io_read_file(path, CREDENTIALS_FILE_MAX, b, err);
	return r < 0 ? r : 1;
}

static char *our_path(const char *home)
{
	return str_fmt("%s/" OUR_FILE, home);
}

static char *docker_path(void)
{
	const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");

	if (dir && *dir)
		return str_fmt("%s/config.json", dir);
	return home && *home ? str_fmt("%s/.docker/config.json", home) : NULL;
}

/* What helpers know @host by. */
static const char *helper_key(const char *host)
{
	return str_eq(host, DOCKER_HUB) ? DOCKER_HUB_KEY : host;
}

static int find_in_file(const char *path, const char *host, const char *source,
			struct credential *ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_free char *helper = NULL;
	int r = read_file(path, &b, err);

	if (r > 0)
		r = credential_parse((const char *)buf_ptr(&b), buf_size(&b), host, ret, &helper,
				     err);
	if (r < 0)
		return err_wrap(err, "%s", path);
	if (helper && credential_empty(ret)) {
		r = helper_get(helper, helper_key(host), ret, err);
		if (r < 0)
			return err_wrap(err, "%s", path);
	}
	ret->source = source;
	return 0;
}

static int find_in_config(const struct registries_config *c, const char *host,
			  struct credential *ret, struct err *err)
{
	const struct host_config *h = registries_config_host(c, host);
	const char *password;

	if (!h || !h->username)
		return 0;
	password = h->password_env ? getenv(h->password_env) : NULL;
	if (!password || !is_clean(password)) {
		/* A user's name alone says that `msb registry login` knows the rest. */
		if (!h->password_env)
			return 0;
		err_set(err, ERR_USAGE, "the password for %s should be in $%s, %s", host,
			h->password_env,
			password ? "and what is there is none" : "which is not set");
		return err_hint(err, "set it, or correct config.json");
	}
	ret->username = strdup(h->username);
	ret->password = strdup(password);
	ret->source = "config.json";
	return ret->username && ret->password ? 0 : no_memory(err);
}

int credential_find(const char *home, const struct registries_config *c, const char *host,
		    struct credential *ret, struct err *err)
{
	cleanup_credential struct credential found = {0};
	cleanup_free char *ours = our_path(home), *docker = docker_path();
	int r = 0;

	if (!ours)
		return no_memory(err);
	if (c->credential_helper) {
		r = helper_get(c->credential_helper, helper_key(host), &found, err);
		found.source = "credential helper";
	}
	if (r >= 0 && credential_empty(&found))
		r = find_in_file(ours, host, "msb registry login", &found, err);
	if (r >= 0 && credential_empty(&found))
		r = find_in_config(c, host, &found, err);
	if (r >= 0 && credential_empty(&found) && docker)
		r = find_in_file(docker, host, "Docker", &found, err);
	if (r < 0)
		return r;
	*ret = found;
	found = (struct credential){0};
	return 0;
}

/* --- Writing our file --- */

static int lock_file(const char *home, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" OUR_FILE ".lock", home);
	cleanup_close int fd = -1;

	if (!path)
		return no_memory(err);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || io_flock(fd, true, true) < 0)
		return err_errno(err, "cannot lock %s", path);
	return take_fd(&fd);
}

static int load_ours(const char *path, json_t **ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	int r = read_file(path, &b, err);
	json_t *root = NULL;

	if (r < 0)
		return r;
	if (r > 0) {
		root = json_loadb((const char *)buf_ptr(&b), buf_size(&b), 0, NULL);
		if (!json_is_object(root)) {
			json_decref(root);
			err_set(err, ERR_CORRUPT, "%s is damaged: it is not a JSON object", path);
			return err_hint(err, "delete it and log in again");
		}
	} else {
		root = json_object();
	}
	if (root && !json_is_object(json_object_get(root, "auths")))
		json_object_set_new(root, "auths", json_object());
	if (!root || !json_object_get(root, "auths")) {
		json_decref(root);
		return no_memory(err);
	}
	*ret = root;
	return 0;
}

static int save_ours(const char *path, const json_t *root, struct err *err)
{
	char *text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS);
	int r;

	if (!text)
		return no_memory(err);
	/* The temporary file is the user's alone from its first byte on. */
	r = io_write_file_atomic(path, text, strlen(text), 0600, err);
	wipe(&text);
	return r;
}

static json_t *encode_entry(const struct credential *c)
{
	cleanup_free char *plain = NULL, *coded = NULL;
	size_t n;
	json_t *j;

	if (c->identity_token)
		return json_pack("{s:s}", "identitytoken", c->identity_token);
	plain = str_fmt("%s:%s", c->username, c->password);
	n = plain ? strlen(plain) : 0;
	coded = calloc(1, n / 3 * 4 + 8);
	if (!plain || !coded)
		return NULL;
	EVP_EncodeBlock((unsigned char *)coded, (const unsigned char *)plain, (int)n);
	j = json_pack("{s:s}", "auth", coded);
	explicit_bzero(plain, n);
	explicit_bzero(coded, strlen(coded));
	return j;
}

int credential_store(const char *home, const struct registries_config *c, const char *host,
		     const struct credential *what, struct err *err)
{
	cleanup_free char *path = our_path(home);
	cleanup_close int lock = -1;
	cleanup_json json_t *root = NULL;
	json_t *entry;
	int r;

	if (!is_clean(what->username) || !is_clean(what->password) || strchr(what->username, ':'))
		return err_set(err, ERR_USAGE,
			       "a user's name has no colon, and neither it nor the password has "
			       "control characters");
	if (c->credential_helper)
		return helper_store(c->credential_helper, helper_key(host), what, err);
	lock = lock_file(home, err);
	if (lock < 0)
		return lock;
	r = path ? load_ours(path, &root, err) : no_memory(err);
	if (r < 0)
		return r;
	entry = encode_entry(what);
	if (!entry || json_object_set_new(json_object_get(root, "auths"), host, entry) < 0)
		return no_memory(err);
	return save_ours(path, root, err);
}

int credential_erase(const char *home, const struct registries_config *c, const char *host,
		     struct err *err)
{
	cleanup_free char *path = our_path(home);
	cleanup_close int lock = -1;
	cleanup_json json_t *root = NULL;
	int found = 0, r;

	if (c->credential_helper) {
		cleanup_credential struct credential had = {0};

		r = helper_get(c->credential_helper, helper_key(host), &had, err);
		if (r >= 0 && !credential_empty(&had)) {
			found = 1;
			r = helper_erase(c->credential_helper, helper_key(host), err);
		}
		if (r < 0)
			return r;
	}
	lock = lock_file(home, err);
	if (lock < 0)
		return lock;
	r = path ? load_ours(path, &root, err) : no_memory(err);
	if (r < 0)
		return r;
	if (json_object_del(json_object_get(root, "auths"), host) < 0)
		return found;
	r = save_ours(path, root, err);
	return r < 0 ? r : 1;
}

/* --- Listing --- */

static int list_add(struct credential_list *l, const char *host, const char *username,
		    const char *source, struct err *err)
{
	struct credential_entry *v;

	for (size_t i = 0; i < l->count; i++)
		if (str_eq(l->items[i].host, host))
			return 0;
	v = realloc(l->items, (l->count + 1) * sizeof(*v));
	if (!v)
		return no_memory(err);
	l->items = v;
	v[l->count] = (struct credential_entry){strdup(host), strdup(username), source};
	if (!v[l->count++].host || !v[l->count - 1].username)
		return no_memory(err);
	return 0;
}

static int list_file(struct credential_list *l, const char *path, const char *source,
		     struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_json json_t *root = NULL;
	const char *key;
	json_t *v;
	int r = read_file(path, &b, err);

	if (r <= 0)
		return r;
	root = json_loadb((const char *)buf_ptr(&b), buf_size(&b), 0, NULL);
	if (!json_is_object(root))
		return err_set(err, ERR_CORRUPT, "%s is not a JSON object", path);
	json_object_foreach(json_object_get(root, "auths"), key, v)
	{
		cleanup_credential struct credential c = {0};
		char host[300];

		key_host(key, host, sizeof(host));
		if (parse_entry(v, &c, NULL) < 0)
			continue;
		r = list_add(l, host, c.username ? c.username : "", source, err);
		if (r < 0)
			return r;
	}
	json_object_foreach(json_object_get(root, "credHelpers"), key, v)
	{
		char host[300];

		key_host(key, host, sizeof(host));
		r = list_add(l, host, "", source, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int by_host(const void *a, const void *b)
{
	return strcmp(((const struct credential_entry *)a)->host,
		      ((const struct credential_entry *)b)->host);
}

int credential_list(const char *home, const struct registries_config *c,
		    struct credential_list *ret, struct err *err)
{
	cleanup_free char *ours = our_path(home), *docker = docker_path();
	struct credential_list l = {0};
	int r = ours ? list_file(&l, ours, "msb", err) : no_memory(err);

	for (size_t i = 0; r >= 0 && i < c->host_count; i++)
		if (c->hosts[i].username)
			r = list_add(&l, c->hosts[i].host, c->hosts[i].username, "config.json",
				     err);
	if (r >= 0 && docker)
		r = list_file(&l, docker, "Docker", err);
	if (r < 0) {
		credential_list_done(&l);
		return r;
	}
	if (l.count)
		qsort(l.items, l.count, sizeof(*l.items), by_host);
	*ret = l;
	return 0;
}

void credential_list_done(struct credential_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->items[i].host);
		free(l->items[i].username);
	}
	free(l->items);
	*l = (struct credential_list){0};
}
