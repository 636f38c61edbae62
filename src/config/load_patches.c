/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patches: a list of maps of one key, the kind, to what it takes. The first list in a file takes
 * the place of those in files before.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "config/load.h"
#include "sandbox/patch.h"

/* All that is known about a kind; its schema is in conf_patches_schema. */
static const struct kind {
	const char *name;
	enum sandbox_patch_kind kind;
	const char *dst, *src;
	bool mode, replace;
	bool here;   /* src is a path of the host's */
	bool base64; /* src is */
} kinds[] = {
	{"text", SANDBOX_TEXT, "path", "content", true, true, false, false},
	{"file", SANDBOX_TEXT, "path", "content_base64", true, true, false, true},
	{"append", SANDBOX_APPEND, "path", "content", false, false, false, false},
	{"symlink", SANDBOX_LINK, "link", "target", false, true, false, false},
	{"copy", SANDBOX_COPY, "dst", "src", false, true, true, false},
	{"copy_file", SANDBOX_COPY_FILE, "dst", "src", true, true, true, false},
	{"copy_dir", SANDBOX_COPY_DIR, "dst", "src", false, true, true, false},
	{"mkdir", SANDBOX_MKDIR, "path", NULL, true, false, false, false},
	{"remove", SANDBOX_RM, "path", NULL, false, false, false, false},
};

#define TEXT	"{\"type\":\"string\"}"
#define MODE	",\"mode\":{\"type\":\"string\",\"pattern\":\"^0?[0-7]{3,4}$\"}"
#define REPLACE ",\"replace\":{\"type\":\"boolean\",\"default\":false}"
#define ONE(kind, dst, src, more)                                                                  \
	"\"" kind "\":{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"" dst    \
	"\",\"" src "\"],\"properties\":{\"" dst "\":" TEXT ",\"" src "\":" TEXT more "}}"
#define ALONE(kind, more)                                                                          \
	"\"" kind "\":{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"path\"]" \
	",\"properties\":{\"path\":" TEXT more "}}"

/* clang-format off */
const char conf_patches_schema[] =
	"{\"type\":\"array\",\"items\":{\"type\":\"object\",\"additionalProperties\":false,"
	"\"minProperties\":1,\"maxProperties\":1,\"properties\":{"
	ONE("text", "path", "content", MODE REPLACE) ","
	ONE("file", "path", "content_base64", MODE REPLACE) ","
	ONE("append", "path", "content", "") ","
	ONE("symlink", "link", "target", REPLACE) ","
	ONE("copy", "dst", "src", REPLACE) ","
	ONE("copy_file", "dst", "src", MODE REPLACE) ","
	ONE("copy_dir", "dst", "src", REPLACE) ","
	ALONE("mkdir", MODE) ","
	ALONE("remove", "") "}}}";
/* clang-format on */

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

/* Four octal digits, or three. In quotes, or with a 0 in front: 644 might be a decimal number. */
static int take_mode(struct conf_loading *l, const char *key, const struct conf_node *n, int *ret,
		     struct err *err)
{
	size_t digits = strspn(n->text, "01234567");

	if (n->text[digits] || digits < 3 || digits > 4 || (!n->quoted && n->text[0] != '0')) {
		conf_expected(l, key, n, "a mode in octal digits", err);
		return err_hint(err, "write it like \"0644\", in quotes");
	}
	*ret = (int)strtol(n->text, NULL, 8);
	return 0;
}

static int take_bool(struct conf_loading *l, const char *key, const struct conf_node *n, bool *ret,
		     struct err *err)
{
	*ret = str_eq(n->text, "true");
	if (n->quoted || (!*ret && !str_eq(n->text, "false")))
		return conf_expected(l, key, n, "true or false", err);
	return 0;
}

/* What it is made of: as it stands, decoded, or a path here. */
static int take_source(struct conf_loading *l, const struct kind *k, const char *key,
		       const struct conf_node *n, struct buf *b, struct err *err)
{
	cleanup_free char *path = NULL;

	if (k->here) {
		path = conf_resolve(l, n->text);
		if (!path)
			return no_memory(err);
		buf_add_str(b, path);
	} else if (!k->base64) {
		buf_add_str(b, n->text);
	} else if (base64_decode(n->text, strlen(n->text), b) < 0 && !buf_failed(b)) {
		return conf_error(err, l->file->name, n->at, "%s: this is not base64", key);
	}
	return buf_cstr(b) ? 0 : no_memory(err);
}

/* The map behind the kind; @key is that of the kind. */
static int load_kind(struct conf_loading *l, const struct kind *k, const char *key,
		     const struct conf_node *n, struct sandbox_patch *p, struct buf *src,
		     struct err *err)
{
	enum { DST, SRC, MODE_OF, REPLACES };
	const char *keys[4];
	struct conf_form form = {keys, 0, {NULL}};
	int at[4] = {-1, -1, -1, -1}, r;

#define KEY(which, name) (keys[form.n] = (name), at[which] = (int)form.n++)
#define NODE(which)	 (at[which] >= 0 ? form.node[at[which]] : NULL)
	KEY(DST, k->dst);
	if (k->src)
		KEY(SRC, k->src);
	if (k->mode)
		KEY(MODE_OF, "mode");
	if (k->replace)
		KEY(REPLACES, "replace");
	r = conf_take_form(l, key, n, &form, err);
	if (r < 0)
		return r;
	if (!NODE(DST) || (k->src && !NODE(SRC)))
		return conf_missing(l, key, n, NODE(DST) ? k->src : k->dst, err);
	if (NODE(MODE_OF))
		r = take_mode(l, key, NODE(MODE_OF), &p->mode, err);
	if (r == 0 && NODE(REPLACES))
		r = take_bool(l, key, NODE(REPLACES), &p->replace, err);
	if (r == 0 && k->src)
		r = take_source(l, k, key, NODE(SRC), src, err);
	p->dst = NODE(DST)->text;
#undef KEY
#undef NODE
	return r;
}

static int load_patch(struct conf_loading *l, const char *key, const struct conf_node *n,
		      struct sandbox_patch *ret, struct buf *src, char **ret_words, struct err *err)
{
	const char *names[ARRAY_SIZE(kinds)];
	const struct conf_node *c = n->first;
	cleanup_free char *path = NULL;

	if (n->kind != CONF_MAP || !c || c->next)
		return conf_expected(l, key, n, "a map with one key, the kind of the patch,", err);
	path = str_fmt("%s%s%.60s", key, key[0] ? "." : "", c->key);
	if (!path)
		return no_memory(err);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const struct kind *k = &kinds[i];
		bool shown = k->here || k->kind == SANDBOX_LINK;
		int r;

		names[i] = k->name;
		if (!str_eq(k->name, c->key))
			continue;
		*ret = (struct sandbox_patch){.kind = k->kind, .mode = SANDBOX_PATCH_MODE_NONE};
		r = load_kind(l, k, path, c, ret, src, err);
		if (r < 0)
			return r;
		ret->src = k->src ? buf_cstr(src) : NULL;
		ret->len = buf_size(src);
		r = sandbox_patch_put(&l->m->spec, ret, err);
		if (r < 0)
			return err_wrap(err, "%.200s:%u:%u: %s", l->file->name, c->at.line,
					c->at.column, path);
		/* What it is about; contents are of no use in a list. */
		*ret_words = str_fmt("%s %s%s%s", k->name, shown ? ret->src : "", shown ? ":" : "",
				     ret->dst);
		return *ret_words ? 0 : no_memory(err);
	}
	return conf_unknown(l, path, c, names, ARRAY_SIZE(names), err);
}

/* One, into the spec. */
static int add_patch(struct conf_loading *l, const char *key, const struct conf_node *n,
		     struct err *err)
{
	cleanup_buf struct buf src = {.max = CONF_BYTES_MAX};
	cleanup_free char *words = NULL;
	cleanup_free char *from = str_fmt("%s:%u", l->file->name, n->at.line);
	struct sandbox_patch p;
	int r = from ? load_patch(l, key, n, &p, &src, &words, err) : no_memory(err);

	return r < 0 ? r : field_note(field_by_key("patches"), l->m, words, from, err);
}

static void begin(struct conf_loading *l)
{
	if (!l->patches)
		(void)field_clear(field_by_key("patches"), l->m);
	l->patches = true;
}

static int load_list(struct conf_loading *l, const struct conf_node *n, struct err *err)
{
	size_t i = 0;
	int r = n->kind == CONF_LIST ? 0 : conf_expected(l, "patches", n, "a list", err);

	for (const struct conf_node *c = n->first; c && r == 0; c = c->next) {
		char key[32];

		snprintf(key, sizeof(key), "patches[%zu]", i++);
		r = add_patch(l, key, c, err);
	}
	return r;
}

int conf_load_patches(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err)
{
	(void)f;
	if (n->kind == CONF_LIST)
		begin(l);
	return load_list(l, n, err);
}

/* A file with "patches" and nothing else. */
static int load_file(const struct conf_loading *l, const char *path, struct err *err)
{
	cleanup_conf_file struct conf_file file = {0};
	struct conf_loading inner = *l;
	const struct conf_node *list;
	int r = conf_read_yaml(path, &file, err);

	if (r < 0)
		return r;
	inner.file = &file;
	list = conf_get(file.root, "patches");
	if (!list || list->next || file.root->first != list)
		return conf_error(err, file.name, file.root->at,
				  "a map with the key \"patches\" alone is expected");
	return load_list(&inner, list, err);
}

int conf_load_patch_files(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			  struct err *err)
{
	int r = n->kind == CONF_LIST ? 0 : conf_expected(l, f->key, n, "a list of paths", err);

	if (r == 0)
		begin(l);
	for (const struct conf_node *c = n->first; c && r == 0; c = c->next) {
		cleanup_free char *path = NULL;

		if (c->kind != CONF_TEXT)
			return conf_expected(l, f->key, c, "a path", err);
		path = conf_resolve(l, c->text);
		if (!path)
			return no_memory(err);
		r = load_file(l, path, err);
		/* What is wrong within has its place there. */
		if (r < 0 && r != -ERR_USAGE)
			return err_wrap(err, "%.200s:%u:%u: %s", l->file->name, c->at.line,
					c->at.column, f->key);
	}
	return r;
}

int conf_patch(struct model *m, const char *text, struct err *err)
{
	cleanup_conf_file struct conf_file file = {0};
	struct conf_loading l = {.file = &file, .m = m};
	cleanup_buf struct buf src = {.max = CONF_BYTES_MAX};
	cleanup_free char *words = NULL;
	struct sandbox_patch p;
	int r = conf_parse_words("--patch", text, &file, err);

	if (r == 0)
		r = load_patch(&l, "", file.root, &p, &src, &words, err);
	if (r < 0 && !err->hint[0])
		err_hint(err, "write it like --patch '{text: {path: /etc/motd, content: hello}}'");
	return r;
}

int conf_patch_file(struct model *m, const char *text, struct err *err)
{
	const struct conf_loading l = {.m = m};

	return load_file(&l, text, err);
}
