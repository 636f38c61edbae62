/* SPDX-License-Identifier: Apache-2.0 */
/* msb registry …: who we are at registries. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/term.h"
#include "image/reference.h"
#include "registry/registry.h"
#include "sandbox/artifacts.h"
#include "store/store.h"

/* "https://index.docker.io/v1/" and the like to the name that references have. */
static int registry_name(const char *text, char out[REFERENCE_NAME_MAX + 1], struct err *err)
{
	const char *p = strstr(text, "://");
	cleanup_free char *probe = NULL;
	struct reference ref;

	p = p ? p + 3 : text;
	probe = str_fmt("%.*s/x", (int)strcspn(p, "/"), p);
	if (!probe)
		return err_set(err, ENOMEM, "out of memory");
	/* A word without dot or port would be a directory of Docker Hub. */
	if (reference_parse(probe, &ref, NULL) < 0 ||
	    strchr(ref.path, '/') != strrchr(ref.path, '/') ||
	    (strchr(ref.path, '/') && !str_starts(ref.path, "library/"))) {
		err_set(err, ERR_USAGE, "\"%.200s\" is not the name of a registry", text);
		return err_hint(err, "write it as in images: docker.io, ghcr.io, localhost:5000");
	}
	snprintf(out, REFERENCE_NAME_MAX + 1, "%s", ref.domain);
	return 0;
}

/* login */

struct login_args {
	const char *username;
	bool password_stdin, insecure;
	struct strv ca_files;
};

static const struct opt login_opts[] = {
	{'u', "username", "NAME", "Log in as this user [asked for]", opt_set_text,
	 offsetof(struct login_args, username), 0},
	{0, "password-stdin", NULL, "Read the password from standard input", opt_set_flag,
	 offsetof(struct login_args, password_stdin), 0},
	{0, "insecure", NULL, "Ask the registry by plain HTTP", opt_set_flag,
	 offsetof(struct login_args, insecure), 0},
	{0, "ca-certs", "PATH", "Trust these certificates as well (repeatable)", opt_add_text,
	 offsetof(struct login_args, ca_files), 0},
};

static int read_password(struct login_args *a, struct credential *c, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	char *text;
	int r;

	if (a->password_stdin) {
		r = io_read_fd(STDIN_FILENO, CREDENTIAL_MAX, &b);
		if (r < 0)
			return err_set(err, r, "cannot read the password: %s", err_name(-r));
		text = buf_cstr(&b);
		if (!text)
			return err_set(err, ENOMEM, "out of memory");
		text[strcspn(text, "\r\n")] = '\0';
	} else {
		text = buf_reserve(&b, CREDENTIAL_MAX);
		if (!text)
			return err_set(err, ENOMEM, "out of memory");
		r = term_ask("Password: ", false, text, CREDENTIAL_MAX, err);
		if (r < 0)
			return r;
	}
	if (!*text)
		return err_set(err, ERR_USAGE, "the password is empty");
	c->password = strdup(text);
	explicit_bzero(text, strlen(text));
	return c->password ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int read_login(struct login_args *a, struct credential *c, struct err *err)
{
	char name[256];
	int r;

	if (!a->username && a->password_stdin) {
		err_set(err, ERR_USAGE, "whose password is it?");
		return err_hint(err, "add --username NAME");
	}
	if (!a->username) {
		r = term_ask("Username: ", true, name, sizeof(name), err);
		if (r < 0)
			return r;
		a->username = name;
	}
	if (!*a->username || strchr(a->username, ':'))
		return err_set(err, ERR_USAGE, "that is not a user's name");
	c->username = strdup(a->username);
	a->username = NULL;
	return c->username ? read_password(a, c, err) : err_set(err, ENOMEM, "out of memory");
}

static int login_to(struct login_args *a, const char *where, struct err *err)
{
	cleanup_registries_config struct registries_config config = {0};
	cleanup_credential struct credential c = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free char *program = NULL;
	struct registry_options o = {
		.config = &config,
		.insecure = a->insecure,
		.ca_files = a->ca_files.n ? (const char *const *)a->ca_files.v : NULL,
	};
	char host[REFERENCE_NAME_MAX + 1];
	bool needed = false;
	int r = registry_name(where, host, err);

	if (r >= 0)
		r = artifact_find(ARTIFACT_FETCH, &program, err);
	if (r >= 0)
		r = store_open(&store, NULL, err);
	if (r >= 0)
		r = registries_config_read(store_home(store), &config, err);
	if (r >= 0)
		r = read_login(a, &c, err);
	if (r < 0)
		return r;
	o.program = program;
	o.home = store_home(store);
	r = registry_check_login(host, &c, &o, &needed, err);
	if (r >= 0)
		r = credential_store(store_home(store), &config, host, &c, err);
	if (r < 0)
		return err_wrap(err, "cannot log in to %s", host);
	if (!needed)
		cli_warn("%s asks for no login; kept unverified", host);
	printf("logged in to %s as %s\n", host, c.username);
	return 0;
}

static int login(struct cli *cli, int argc, char **argv)
{
	struct login_args a = {0};
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 1, &words, &code)) {
		strv_done(&a.ca_files);
		return code;
	}
	r = login_to(&a, words.n ? words.words[0] : REFERENCE_DEFAULT_DOMAIN, &err);
	strv_done(&a.ca_files);
	return r < 0 ? cli_fail(&err, EXIT_FAILURE) : cli_finish();
}

/* logout */

static int logout_of(const char *where, struct err *err)
{
	cleanup_registries_config struct registries_config config = {0};
	cleanup_store struct store *store = NULL;
	char host[REFERENCE_NAME_MAX + 1];
	int r = registry_name(where, host, err);

	if (r >= 0)
		r = store_open(&store, NULL, err);
	if (r >= 0)
		r = registries_config_read(store_home(store), &config, err);
	if (r >= 0)
		r = credential_erase(store_home(store), &config, host, err);
	if (r < 0)
		return r;
	if (r == 0) {
		err_set(err, ERR_NOT_FOUND, "there is no login to %s", host);
		return err_hint(err, "`msb registry ls` lists what there is; Docker's own are "
				     "taken away by `docker logout`");
	}
	printf("logged out of %s\n", host);
	return 0;
}

static int logout(struct cli *cli, int argc, char **argv)
{
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	int code;

	if (cli_parse_operands(cli, NULL, argc, argv, 0, 1, &words, &code))
		return code;
	if (logout_of(words.n ? words.words[0] : REFERENCE_DEFAULT_DOMAIN, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	return cli_finish();
}

/* ls */

struct list_args {
	bool json;
};

static const struct opt list_opts[] = {
	{0, "format", "json|table", "How to show them [table]", opt_set_format,
	 offsetof(struct list_args, json), 0},
};

static int print_list(const struct credential_list *l, bool json)
{
	enum { COLUMNS = 3 };
	cleanup_free const char **cells = calloc((l->count + 1) * COLUMNS, sizeof(*cells));
	json_t *out;
	size_t n = 0;

	if (json) {
		out = json_array();
		for (size_t i = 0; i < l->count; i++)
			json_array_append_new(out, json_pack("{s:s,s:s,s:s}", "registry",
							     l->items[i].host, "username",
							     l->items[i].username, "source",
							     l->items[i].source));
		return cli_json(out);
	}
	if (!cells)
		return EXIT_FAILURE;
	cells[n++] = "REGISTRY";
	cells[n++] = "USERNAME";
	cells[n++] = "KEPT BY";
	for (size_t i = 0; i < l->count; i++) {
		cells[n++] = l->items[i].host;
		cells[n++] = l->items[i].username;
		cells[n++] = l->items[i].source;
	}
	cli_table(cells, COLUMNS, n / COLUMNS);
	return cli_finish();
}

static int list(struct cli *cli, int argc, char **argv)
{
	struct list_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_registries_config struct registries_config config = {0};
	cleanup_store struct store *store = NULL;
	struct credential_list l = {0};
	struct err err = ERR_INIT;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	if (store_open(&store, NULL, &err) < 0 ||
	    registries_config_read(store_home(store), &config, &err) < 0 ||
	    credential_list(store_home(store), &config, &l, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	code = print_list(&l, a.json);
	credential_list_done(&l);
	return code;
}

static const struct verb registry_verbs[] = {
	{
		.name = "login",
		.args = "[OPTIONS] [REGISTRY]",
		.summary = "Log in to a registry and remember it",
		.details =
			"The login is tried first. It is kept in $MSB_HOME/registry-auth.json, or "
			"by the\ncredential helper that config.json there names.",
		.examples = "msb registry login -u me  # Docker Hub\n"
			    "echo \"$TOKEN\" | msb registry login -u me --password-stdin ghcr.io",
		.opts = login_opts,
		.nopts = ARRAY_SIZE(login_opts),
		.run = login,
	},
	{
		.name = "logout",
		.args = "[REGISTRY]",
		.summary = "Forget a login",
		.examples = "msb registry logout ghcr.io",
		.run = logout,
	},
	{
		.name = "list",
		.alias = "ls",
		.args = "[OPTIONS]",
		.summary = "List the logins, Docker's included",
		.examples = "msb registry ls",
		.opts = list_opts,
		.nopts = ARRAY_SIZE(list_opts),
		.run = list,
	},
};

const struct verb verb_registry = {
	.name = "registry",
	.group = "Images",
	.args = "COMMAND",
	.summary = "Log in to registries",
	.subs = registry_verbs,
	.nsubs = ARRAY_SIZE(registry_verbs),
};
