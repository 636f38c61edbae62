/* SPDX-License-Identifier: Apache-2.0 */
/* msb config, schema: what a sandbox would be and who says so; what can be said in a file. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/install.h"
#include "cli/cli.h"
#include "cli/spec_opts.h"
#include "config/schema.h"
#include "project/project.h"
#include "store/store.h"

struct config_args {
	struct spec_args with; /* first: spec_opts sets it */
	bool json;
};

static const struct opt config_opts[] = {
	{0, "format", "table|json", "How to print it", opt_set_format,
	 offsetof(struct config_args, json), 0, "table"},
};

/* One line: something that is said, and by whom. */
struct value {
	char *key, *text, *from;
};

struct values {
	struct value *v;
	size_t n;
};

static void values_done(struct values *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].key);
		free(l->v[i].text);
		free(l->v[i].from);
	}
	free(l->v);
}

static int add(struct values *l, const char *key, const char *text, const char *from)
{
	struct value *v = reallocarray(l->v, l->n + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	l->v = v;
	v[l->n] = (struct value){strdup(key), strdup(text), strdup(from)};
	l->n++;
	return v[l->n - 1].key && v[l->n - 1].text && v[l->n - 1].from ? 0 : -ENOMEM;
}

/* Does a later word of a list or map leave an earlier one standing? */
static bool adds_up(const struct said *earlier, const struct said *later)
{
	size_t name;

	if (later->field->kind == FIELD_LIST)
		return true;
	if (later->field->kind != FIELD_MAP)
		return false;
	name = strcspn(later->text, "=");
	return strcspn(earlier->text, "=") != name || memcmp(earlier->text, later->text, name) != 0;
}

static int add_field(struct values *l, const struct model *m, const struct field *f)
{
	const char *key = f->key ? f->key : f->opt;
	bool any = false;
	int r = 0;

	for (size_t i = 0; i < m->nsaid && r == 0; i++) {
		bool stands = m->said[i].field == f;

		for (size_t j = i + 1; j < m->nsaid && stands; j++)
			stands = m->said[j].field != f || adds_up(&m->said[i], &m->said[j]);
		if (stands)
			r = add(l, key, m->said[i].text, m->said[i].from);
		any |= stands;
	}
	if (r == 0 && !any && f->def)
		r = add(l, key, f->def, "default");
	return r;
}

/* What the file of all sandboxes says to others: "images.limits.layer_bytes" and the like. */
static int add_node(struct values *l, const char *file, const char *key, const struct conf_node *n)
{
	cleanup_free char *from = str_fmt("%s:%u", file, n->at.line);
	unsigned i = 0;
	int r = 0;

	if (n->kind == CONF_TEXT || n->kind == CONF_NULL)
		return from ? add(l, key, n->text ? n->text : "null", from) : -ENOMEM;
	for (const struct conf_node *c = n->first; c && r == 0; c = c->next) {
		cleanup_free char *below = n->kind == CONF_MAP ? str_fmt("%s.%s", key, c->key)
							       : str_fmt("%s[%u]", key, i++);

		r = below ? add_node(l, file, below, c) : -ENOMEM;
	}
	return r;
}

static int add_others(struct values *l, const char *path)
{
	cleanup_conf_file struct conf_file file = {0};
	int r = conf_read_json(path, &file, NULL);

	/* What is wrong with it has been said; it may also be missing. */
	for (const struct conf_node *c = r < 0 ? NULL : file.root->first; c; c = c->next) {
		if (!str_eq(c->key, "sandbox_defaults") && add_node(l, path, c->key, c) < 0)
			return -ENOMEM;
	}
	return 0;
}

static const char *who_says_home(void)
{
	static const char *const variables[] = {"MSB_HOME", "XDG_DATA_HOME"};

	for (size_t i = 0; i < ARRAY_SIZE(variables); i++) {
		const char *v = getenv(variables[i]);

		if (v && (i ? v[0] == '/' : v[0]))
			return variables[i];
	}
	return "default";
}

static int collect(struct values *l, const struct model *m)
{
	const char *named = getenv("MSB_CONFIG_PATH");
	cleanup_free char *home = store_default_home(NULL);
	cleanup_free char *file = home ? install_config(home, NULL) : NULL;
	int r = 0;

	if (!file)
		return -ENOMEM;
	r = add(l, "home", home, who_says_home());
	if (r == 0)
		r = add(l, "config file", file,
			named && *named		  ? "MSB_CONFIG_PATH"
			: access(file, F_OK) == 0 ? "home"
						  : "home; there is none");
	for (const struct cli_fact *v = cli_variables; v->name && r == 0; v++) {
		const char *value = getenv(v->name);

		if (value && !str_eq(v->name, "MSB_HOME") && !str_eq(v->name, "MSB_CONFIG_PATH"))
			r = add(l, v->name, value, "environment");
	}
	for (size_t i = 0; i < nfields && r == 0; i++)
		r = add_field(l, m, &fields[i]);
	return r < 0 ? r : add_others(l, file);
}

static int print_json(const struct values *l)
{
	json_t *list = json_array();

	for (size_t i = 0; i < l->n; i++)
		json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "key", l->v[i].key, "value",
						      l->v[i].text, "from", l->v[i].from));
	return cli_json(list);
}

/* A text in one line; its rest is of no use here. */
static void cut(char *text)
{
	size_t n = strcspn(text, "\n");

	if (text[n] && text[n + 1])
		memcpy(text + (n < 3 ? 0 : n - 3), n < 3 ? "" : "...", n < 3 ? 1 : 4);
	else
		text[n] = '\0';
}

static int print_table(const struct values *l)
{
	cleanup_free const char **cells = calloc((l->n + 1) * 3, sizeof(*cells));

	if (!cells)
		return EXIT_FAILURE;
	memcpy(cells, (const char *[]){"KEY", "VALUE", "FROM"}, 3 * sizeof(*cells));
	for (size_t i = 0; i < l->n; i++) {
		cut(l->v[i].text);
		memcpy(&cells[(i + 1) * 3],
		       (const char *[]){l->v[i].key, l->v[i].text, l->v[i].from},
		       3 * sizeof(*cells));
	}
	cli_table(cells, 3, l->n + 1);
	return cli_finish();
}

static int config(struct cli *cli, int argc, char **argv)
{
	struct config_args a = {0};
	cleanup_words struct opt_words words = {0};
	CLEANUP(values_done) struct values l = {0};
	struct err err = ERR_INIT;
	int code, r = 0;

	spec_args_init(&a.with);
	if (cli_parse_operands(cli, &a, argc, argv, 0, 1, &words, &code)) {
		spec_args_done(&a.with);
		return code;
	}
	if (words.n)
		r = spec_args_operands(&a.with, &words, &err);
	if (r == 0)
		r = sandbox_spec_check(&a.with.model.spec, &err);
	if (r == 0 && collect(&l, &a.with.model) < 0)
		r = err_set(&err, ENOMEM, "out of memory");
	spec_args_done(&a.with);
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	return a.json ? print_json(&l) : print_table(&l);
}

static int schema(struct cli *cli, int argc, char **argv)
{
	cleanup_words struct opt_words words = {0};
	cleanup_buf struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	int code;

	if (cli_parse_operands(cli, NULL, argc, argv, 0, 1, &words, &code))
		return code;
	if (words.n && !str_eq(words.words[0], "sandboxfile") &&
	    !str_eq(words.words[0], "sandbox")) {
		err_set(&err, ERR_USAGE, "there is no schema of \"%.60s\"", words.words[0]);
		err_hint(&err, "it is sandbox or sandboxfile");
		return cli_fail(&err, EXIT_USAGE);
	}
	if ((words.n && str_eq(words.words[0], "sandboxfile") ? project_schema(&b)
							      : conf_schema(&b)) < 0) {
		err_set(&err, ENOMEM, "out of memory");
		return cli_fail(&err, EXIT_FAILURE);
	}
	fwrite(buf_ptr(&b), 1, buf_size(&b), stdout);
	return cli_finish();
}

const struct verb verb_config = {
	.name = "config",
	.group = "Other",
	.args = "[OPTIONS] [IMAGE]",
	.summary = "Show what a sandbox would be, and where that is said",
	.details = "Takes the options of `run`, files among them, and starts nothing. What is said "
		   "counts in\n"
		   "this order, the last one most: defaults, sandbox_defaults of the config file, "
		   "files in\n"
		   "the order in which they are named, the command line.",
	.examples = "msb config --conf app.yaml -m 2G\n"
		    "msb config --conf app.yaml --format json",
	.opts = config_opts,
	.nopts = ARRAY_SIZE(config_opts),
	.shared = &spec_opts,
	.run = config,
};

const struct verb verb_schema = {
	.name = "schema",
	.group = "Other",
	.args = "[OPTIONS] [sandbox|sandboxfile]",
	.summary = "Print the JSON Schema of files for --conf, or of a project's",
	.examples = "msb schema > sandbox.schema.json\n"
		    "msb schema sandboxfile > sandboxfile.schema.json",
	.run = schema,
};
