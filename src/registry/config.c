/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/install.h"
#include "base/io.h"
#include "registry/http.h"
#include "registry/json.h"

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static int wrong(struct err *err, const char *key, const char *want)
{
	return err_set(err, ERR_USAGE, "\"%.100s\" must be %s", key, want);
}

/* One text or a list of them. */
static int take_texts(const json_t *j, const char *key, struct strv *ret, struct err *err)
{
	size_t n = json_is_array(j) ? json_array_size(j) : 1;

	if (n > CONFIG_LIST_MAX)
		return err_set(err, ERR_LIMIT, "\"%s\" has more than %u entries", key,
			       CONFIG_LIST_MAX);
	for (size_t i = 0; i < n; i++) {
		const char *text = json_string_value(json_is_array(j) ? json_array_get(j, i) : j);

		if (!text || !*text)
			return wrong(err, key, "a text or a list of texts");
		if (strv_add(ret, text) < 0)
			return no_memory(err);
	}
	return 0;
}

static int take_text(const json_t *j, const char *key, char **ret, struct err *err)
{
	const char *text = json_string_value(j);

	if (!text || !*text)
		return wrong(err, key, "a text");
	free(*ret);
	*ret = strdup(text);
	return *ret ? 0 : no_memory(err);
}

static int take_number(const json_t *j, const char *key, unsigned max, unsigned *ret,
		       struct err *err)
{
	json_int_t n = json_integer_value(j);

	if (n < 1 || n > max)
		return err_set(err, ERR_USAGE, "\"%s\" must be a number from 1 to %u", key, max);
	*ret = (unsigned)n;
	return 0;
}

static int take_auth(json_t *j, struct host_config *h, struct err *err)
{
	const char *key;
	json_t *v;
	int r = 0;

	if (!json_is_object(j))
		return wrong(err, "auth", "an object");
	json_object_foreach(j, key, v)
	{
		if (str_eq(key, "username"))
			r = take_text(v, key, &h->username, err);
		else if (str_eq(key, "password_env"))
			r = take_text(v, key, &h->password_env, err);
		else if (!str_eq(key, "store")) /* where `msb registry login` keeps it anyway */
			r = err_set(err, ERR_USAGE, "there is no \"auth.%.60s\"", key);
		if (r < 0)
			return r;
	}
	if (h->password_env && !h->username)
		return err_set(err, ERR_USAGE,
			       "\"password_env\" is of no use without \"username\"");
	return 0;
}

static int take_mirrors(const json_t *j, struct host_config *h, struct err *err)
{
	struct http_origin origin;
	int r = take_texts(j, "mirrors", &h->mirrors, err);

	for (size_t i = 0; r >= 0 && i < h->mirrors.n; i++) {
		char *url = h->mirrors.v[i];
		size_t n = strlen(url);

		while (n && url[n - 1] == '/')
			url[--n] = '\0';
		if (n > 1024 || strpbrk(url, "?# ") || http_origin(url, &origin) < 0) {
			err_set(err, ERR_USAGE, "\"%.200s\" is not the URL of a mirror", url);
			r = err_hint(err, "write it like https://mirror.example:5000");
		}
	}
	return r;
}

static int take_host(const char *host, json_t *j, struct host_config *h, struct err *err)
{
	const char *key;
	json_t *v;
	int r = 0;

	h->host = strdup(host);
	if (!h->host)
		return no_memory(err);
	if (!json_is_object(j))
		return wrong(err, host, "an object");
	json_object_foreach(j, key, v)
	{
		if (str_eq(key, "insecure")) {
			if (!json_is_boolean(v))
				r = wrong(err, key, "true or false");
			h->insecure = json_is_true(v);
		} else if (str_eq(key, "mirrors")) {
			r = take_mirrors(v, h, err);
		} else if (str_eq(key, "auth")) {
			r = take_auth(v, h, err);
		} else {
			r = err_set(err, ERR_USAGE, "there is no \"%.60s\"", key);
		}
		if (r < 0)
			return err_wrap(err, "%.200s", host);
	}
	return 0;
}

static int take_hosts(json_t *j, struct registries_config *c, struct err *err)
{
	const char *key;
	json_t *v;

	if (!json_is_object(j) || json_object_size(j) > CONFIG_HOSTS_MAX)
		return wrong(err, "hosts", "an object of a thousand hosts at most");
	c->hosts = calloc(json_object_size(j) + 1, sizeof(*c->hosts));
	if (!c->hosts)
		return no_memory(err);
	json_object_foreach(j, key, v)
	{
		int r = take_host(key, v, &c->hosts[c->host_count++], err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int take_registries(json_t *j, struct registries_config *c, struct err *err)
{
	const char *key;
	json_t *v;
	int r = 0;

	if (!json_is_object(j))
		return wrong(err, "registries", "an object");
	json_object_foreach(j, key, v)
	{
		if (str_eq(key, "ca_certs")) {
			r = take_texts(v, key, &c->ca_certs, err);
		} else if (str_eq(key, "credential_helper")) {
			r = take_text(v, key, &c->credential_helper, err);
		} else if (str_eq(key, "hosts")) {
			r = take_hosts(v, c, err);
		} else if (str_eq(key, "certs_dir")) {
			r = take_text(v, key, &c->certs_dir, err);
		} else if (str_eq(key, "connect_timeout_secs")) {
			r = take_number(v, key, 3600, &c->connect_secs, err);
		} else if (str_eq(key, "stall_timeout_secs")) {
			r = take_number(v, key, 3600, &c->stall_secs, err);
		} else if (str_eq(key, "parallel_layers")) {
			r = take_number(v, key, CONFIG_LAYERS_MAX, &c->parallel_layers, err);
		} else {
			r = err_set(err, ERR_USAGE, "there is no \"%.60s\"", key);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int registries_config_parse(const char *json, size_t n, struct registries_config *ret,
			    struct err *err)
{
	cleanup_registries_config struct registries_config c = {0};
	cleanup_json json_t *root = NULL;
	json_t *registries;
	json_error_t je;
	int r;

	root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &je);
	if (!json_is_object(root))
		return err_set(err, ERR_USAGE, "it is not a JSON object: %s, line %d",
			       root ? "something else" : je.text, root ? 1 : je.line);
	registries = json_object_get(root, "registries");
	r = registries ? take_registries(registries, &c, err) : 0;
	if (r < 0)
		return err_wrap(err, "registries");
	*ret = c;
	c = (struct registries_config){0};
	return 0;
}

int registries_config_read(const char *home, struct registries_config *ret, struct err *err)
{
	cleanup_free char *path = install_config(home, err);
	cleanup_buf struct buf b = BUF_INIT;
	int r;

	if (!path)
		return -EACCES;
	if (access(path, F_OK) < 0 && errno == ENOENT) {
		*ret = (struct registries_config){0};
		return 0;
	}
	r = io_read_file(path, CONFIG_FILE_MAX, &b, err);
	if (r >= 0) {
		r = registries_config_parse((const char *)buf_ptr(&b), buf_size(&b), ret, err);
		if (r < 0)
			err_wrap(err, "%s", path);
	}
	return r < 0 ? err_hint(err, "correct the file, or take it away") : 0;
}

void registries_config_done(struct registries_config *c)
{
	for (size_t i = 0; i < c->host_count; i++) {
		free(c->hosts[i].host);
		strv_done(&c->hosts[i].mirrors);
		free(c->hosts[i].username);
		free(c->hosts[i].password_env);
	}
	free(c->hosts);
	strv_done(&c->ca_certs);
	free(c->credential_helper);
	free(c->certs_dir);
	*c = (struct registries_config){0};
}

const struct host_config *registries_config_host(const struct registries_config *c,
						 const char *host)
{
	for (size_t i = 0; i < c->host_count; i++)
		if (str_eq(c->hosts[i].host, host))
			return &c->hosts[i];
	return NULL;
}
