/* SPDX-License-Identifier: Apache-2.0 */
#include "project/edit.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "project/project.h"
#include "sandbox/patch.h"

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

/* ---- an entry's lines ---- */

/* As a plain word where that means the same, else in double quotes; ${ stays what it is. */
static void put_text(struct buf *b, const char *s)
{
	const char *c = s;
	bool plain = isalnum((unsigned char)*c) || *c == '/' || *c == '.';

	for (; *c && plain; c++)
		plain = isalnum((unsigned char)*c) || strchr("/._-+@%=", *c) ||
			(*c == ':' && c[1] && c[1] != ' ');
	if (plain && !str_eq(s, "null")) {
		buf_add_str(b, s);
		return;
	}
	buf_add_u8(b, '"');
	for (c = s; *c; c++) {
		if (*c == '"' || *c == '\\')
			buf_addf(b, "\\%c", *c);
		else if (*c == '\n')
			buf_add_str(b, "\\n");
		else if (*c == '\t')
			buf_add_str(b, "\\t");
		else if ((unsigned char)*c < ' ' || *c == 0x7f)
			buf_addf(b, "\\x%02x", (unsigned char)*c);
		else if (*c == '$' && c[1] == '{')
			buf_add_str(b, "$$");
		else
			buf_add_u8(b, (uint8_t)*c);
	}
	buf_add_u8(b, '"');
}

/* A script: its lines, if they can stand in a block, else in quotes. */
static void put_script(struct buf *b, const char *body)
{
	bool block = strchr(body, '\n') && body[0] != ' ' && body[0] != '\n' &&
		     !strstr(body, "${") && !strstr(body, "\n\n");
	size_t n = strlen(body);

	for (const char *c = body; *c && block; c++)
		block = *c == '\n' || (unsigned char)*c >= ' ';
	if (!block) {
		put_text(b, body);
		buf_add_u8(b, '\n');
		return;
	}
	buf_add_str(b, n && body[n - 1] == '\n' ? "|\n" : "|-\n");
	for (const char *line = body; *line;) {
		size_t len = strcspn(line, "\n");

		buf_addf(b, "    %.*s\n", (int)len, line);
		line += len + (line[len] == '\n');
	}
}

static void put_list(struct buf *b, const char *key, const struct strv *l)
{
	if (!l->n)
		return;
	buf_addf(b, "%s:\n", key);
	for (size_t i = 0; i < l->n; i++) {
		buf_add_str(b, "  - ");
		put_text(b, l->v[i]);
		buf_add_u8(b, '\n');
	}
}

static void put_scripts(struct buf *b, const struct sandbox_spec *s)
{
	bool first = true;

	for (size_t i = 0; i < s->npatches; i++) {
		const struct sandbox_patch *p = &s->patches[i];
		const char *slash = p->dst ? strrchr(p->dst, '/') : NULL;

		if (p->kind < SANDBOX_SCRIPT || !slash)
			continue;
		if (first)
			buf_add_str(b, "scripts:\n");
		first = false;
		buf_add_str(b, "  ");
		put_text(b, slash + 1);
		buf_add_str(b, ": ");
		put_script(b, p->src);
	}
}

static bool is_own(const struct said *s)
{
	return str_eq(s->from, "command line");
}

static bool is_script(const struct field *f)
{
	return f->opt && str_starts(f->opt, "script");
}

/* All that was said of one field. */
static void put_field(struct buf *b, const struct model *m, const struct field *f, char *level,
		      size_t size)
{
	const char *dot = strchr(f->key, '.'), *key = dot ? dot + 1 : f->key;
	size_t n = dot ? (size_t)(dot - f->key) : 0;
	bool first = true;

	for (size_t i = 0; i < m->nsaid; i++) {
		const struct said *s = &m->said[i];
		const char *in = dot ? "  " : "", *eq = strchr(s->text, '=');

		if (s->field != f || !is_own(s))
			continue;
		if (dot && first && (strlen(level) != n || strncmp(level, f->key, n) != 0)) {
			snprintf(level, size, "%.*s", (int)n, f->key);
			buf_addf(b, "%s:\n", level);
		}
		if (f->kind == FIELD_MAP) {
			if (first)
				buf_addf(b, "%s%s:\n", in, key);
			buf_addf(b, "%s  ", in);
			if (eq) {
				cleanup_free char *name = strndup(s->text, (size_t)(eq - s->text));

				put_text(b, name ? name : "");
				buf_add_str(b, ": ");
				put_text(b, eq[1] ? eq + 1 : "");
				buf_add_u8(b, '\n');
			} else if (str_eq(f->key, "labels")) {
				put_text(b, s->text);
				buf_add_str(b, ": \"\"\n");
			} else {
				/* The host's value of that time. */
				buf_addf(b, "%s: ${%s}\n", s->text, s->text);
			}
		} else if (f->kind == FIELD_LIST) {
			if (first)
				buf_addf(b, "%s%s:\n", in, key);
			buf_addf(b, "%s  - ", in);
			put_text(b, s->text);
			buf_add_u8(b, '\n');
		} else {
			bool later = false;

			for (size_t j = i + 1; j < m->nsaid; j++)
				later |= m->said[j].field == f;
			if (later)
				continue;
			buf_addf(b, "%s%s: ", in, key);
			put_text(b, s->text);
			buf_add_u8(b, '\n');
		}
		first = false;
	}
}

int project_render(const struct model *m, const struct project_extra *extra, struct buf *out,
		   struct err *err)
{
	char level[32] = "";

	for (size_t i = 0; i < m->nsaid; i++) {
		const struct field *f = m->said[i].field;

		if (f->key || is_script(f) || !is_own(&m->said[i]))
			continue;
		err_set(err, ERR_UNSUPPORTED, "--%s cannot be written down like this", f->opt);
		return err_hint(err, "%s",
				str_eq(f->opt, "name") ? "the entry's name is its name"
						       : "write an entry of \"patches\" into the "
							 "file");
	}
	for (size_t i = 0; i < nfields; i++) {
		if (fields[i].key && !is_script(&fields[i]))
			put_field(out, m, &fields[i], level, sizeof(level));
	}
	put_scripts(out, &m->spec);
	if (extra->scope)
		buf_addf(out, "scope: %s\n", extra->scope);
	put_list(out, "env_file", &extra->env_files);
	put_list(out, "depends_on", &extra->depends);
	buf_add_u8(out, 0);
	return buf_failed(out) ? no_memory(err) : 0;
}

/* ---- the file's text, by lines ---- */

struct text {
	struct buf b;
	const char **line; /* [n] is the end */
	unsigned n;
	mode_t mode;
};

static void text_done(struct text *t)
{
	buf_done(&t->b);
	free(t->line);
}

static int text_read(const char *path, struct text *t, struct err *err)
{
	struct stat st;
	const char *at, *end;
	unsigned n = 1;
	int r = io_read_file(path, CONF_BYTES_MAX, &t->b, err);

	if (r < 0)
		return r;
	t->mode = stat(path, &st) == 0 ? st.st_mode & 0777 : 0644;
	if (buf_size(&t->b) && buf_ptr(&t->b)[buf_size(&t->b) - 1] != '\n')
		buf_add_u8(&t->b, '\n');
	if (buf_failed(&t->b))
		return no_memory(err);
	at = (const char *)buf_ptr(&t->b);
	end = at + buf_size(&t->b);
	for (const char *c = at; c < end; c++)
		n += *c == '\n';
	t->line = calloc(n + 1, sizeof(*t->line));
	if (!t->line)
		return no_memory(err);
	t->line[t->n] = at;
	for (const char *c = at; c < end; c++) {
		if (*c == '\n')
			t->line[++t->n] = c + 1;
	}
	return 0;
}

static size_t indent_of(const struct text *t, unsigned line)
{
	const char *s = t->line[line];

	return strspn(s, " ");
}

/* Blank, or a comment that starts at most at column @column. */
static bool is_between(const struct text *t, unsigned line, size_t column)
{
	size_t n = indent_of(t, line);
	char c = t->line[line][n];

	return c == '\n' || c == '\r' || (c == '#' && n <= column);
}

/* Write it, if it is still a project in which @names are what @there says. */
static int replace_text(const char *path, const struct text *old, const char *p, size_t n,
			const char *const *names, size_t nnames, bool there, struct err *err)
{
	cleanup_conf_file struct conf_file f = {0};
	const struct conf_node *map;
	const char *slash = strrchr(path, '/');
	cleanup_free char *dir =
		slash && slash > path ? strndup(path, (size_t)(slash - path)) : strdup("/");
	int r = dir ? conf_parse_yaml(path, dir, p, n, &f, err) : no_memory(err);

	map = r == 0 ? conf_get(f.root, "sandboxes") : NULL;
	for (size_t i = 0; i < nnames && r == 0; i++) {
		if (!!(map && conf_get(map, names[i])) != there)
			r = err_set(err, ERR_UNSUPPORTED,
				    "%s: it is written in a way that cannot be changed by halves",
				    path);
	}
	if (r == 0) {
		cleanup_project struct project check = {0};

		r = project_load_file(&f, NULL, &check, err);
	}
	if (r < 0)
		return err_hint(err, "change it by hand");
	return io_write_file_atomic(path, p, n, old->mode, err);
}

/* The entries of a block, and where they end. */
struct block {
	const struct conf_node *map; /* NULL: there is no such key */
	unsigned first, end;	     /* lines, from 0: of the key, and behind its value */
	size_t column;		     /* of the entries' keys */
};

static int find_block(const char *path, const struct text *t, const struct conf_file *f,
		      struct block *ret, struct err *err)
{
	const struct conf_node *map = conf_get(f->root, "sandboxes");
	size_t skip;

	*ret = (struct block){.end = t->n, .column = 2, .map = map};
	if (f->root->kind == CONF_MAP && !map && conf_get(f->root, "image")) {
		err_set(err, ERR_UNSUPPORTED, "%s describes one sandbox and is no project", path);
		return err_hint(err, "`msb init` makes one");
	}
	if (!map)
		return 0;
	ret->first = map->name.line - 1;
	if (map->next)
		ret->end = map->next->name.line - 1;
	if (map->kind == CONF_MAP && map->first) {
		ret->column = map->first->name.column - 1;
		if (map->first->name.line == map->name.line) {
			conf_error(err, path, map->at, "sandboxes: these stand in braces");
			return err_hint(err, "change it by hand, or write them line by line");
		}
	} else {
		/* Nothing, {} or ~: the rest of the line has to be that alone. */
		skip = map->name.column - 1 + strlen("sandboxes:");
		if (map->kind != CONF_NULL && map->kind != CONF_MAP)
			return conf_error(err, path, map->at, "sandboxes: a map is expected");
		if (strcspn(t->line[ret->first], "\n") < skip || map->name.column != 1)
			return conf_error(err, path, map->name, "sandboxes: change it by hand");
		ret->end = ret->first + 1;
	}
	/* What stands before the next key belongs to that. */
	while (ret->end > ret->first + 1 && is_between(t, ret->end - 1, ret->column - 1))
		ret->end--;
	return 0;
}

static void put_lines(struct buf *out, const struct text *t, unsigned from, unsigned to)
{
	buf_add(out, t->line[from], (size_t)(t->line[to] - t->line[from]));
}

static void put_entry(struct buf *out, const char *name, const char *lines, size_t column)
{
	buf_addf(out, "%*s", (int)column, "");
	put_text(out, name);
	buf_add_str(out, ":\n");
	while (*lines) {
		size_t n = strcspn(lines, "\n");

		buf_addf(out, "%*s%.*s\n", (int)column + 2, "", (int)n, lines);
		lines += n + (lines[n] == '\n');
	}
}

static int begin_edit(const char *path, struct text *t, struct conf_file *f, struct block *b,
		      struct err *err)
{
	int r = text_read(path, t, err);

	if (r == 0)
		r = conf_read_yaml(path, f, err);
	return r < 0 ? r : find_block(path, t, f, b, err);
}

int project_edit_add(const char *path, const char *const *names, size_t n, const char *lines,
		     struct err *err)
{
	CLEANUP(text_done) struct text t = {.b = BUF_INIT};
	cleanup_conf_file struct conf_file f = {0};
	cleanup_buf struct buf out = BUF_INIT;
	struct block b;
	int r = begin_edit(path, &t, &f, &b, err);

	for (size_t i = 0; i < n && r == 0; i++) {
		r = sandbox_name_check(names[i], err);
		for (size_t j = 0; j < i && r == 0; j++) {
			if (str_eq(names[i], names[j]))
				r = err_set(err, ERR_USAGE, "\"%s\" is there twice", names[i]);
		}
		if (r == 0 && b.map && conf_get(b.map, names[i])) {
			r = err_set(err, EEXIST, "there is a sandbox \"%s\" in %s already",
				    names[i], path);
			err_hint(err, "`msb remove --file %s %s` takes it out", path, names[i]);
		}
	}
	if (r < 0)
		return r;
	if (!b.map) {
		put_lines(&out, &t, 0, t.n);
		buf_addf(&out, "%ssandboxes:\n", t.n ? "\n" : "");
	} else if (b.map->first) {
		put_lines(&out, &t, 0, b.end);
	} else {
		put_lines(&out, &t, 0, b.first);
		buf_add_str(&out, "sandboxes:\n");
		put_lines(&out, &t, b.first + 1, b.end);
	}
	for (size_t i = 0; i < n; i++)
		put_entry(&out, names[i], lines, b.column);
	if (b.map)
		put_lines(&out, &t, b.end, t.n);
	if (buf_failed(&out))
		return no_memory(err);
	return replace_text(path, &t, (const char *)buf_ptr(&out), buf_size(&out), names, n, true,
			    err);
}

int project_edit_remove(const char *path, const char *const *names, size_t n, struct err *err)
{
	CLEANUP(text_done) struct text t = {.b = BUF_INIT};
	cleanup_conf_file struct conf_file f = {0};
	cleanup_buf struct buf out = BUF_INIT;
	struct block b;
	unsigned at = 0;
	int r = begin_edit(path, &t, &f, &b, err);

	for (size_t i = 0; i < n && r == 0; i++) {
		if (!b.map || !conf_get(b.map, names[i])) {
			r = err_set(err, ERR_NOT_FOUND, "there is no sandbox \"%.100s\" in %s",
				    names[i], path);
			err_hint(err, "`msb list --file %s` shows those there are", path);
		}
	}
	if (r < 0)
		return r;
	for (const struct conf_node *c = b.map ? b.map->first : NULL; c; c = c->next) {
		unsigned from = c->name.line - 1, to = c->next ? c->next->name.line - 1 : b.end;
		bool gone = false;

		for (size_t i = 0; i < n; i++)
			gone |= str_eq(names[i], c->key);
		/* Comments above the next one are its own. */
		while (c->next && to > from + 1 && is_between(&t, to - 1, b.column))
			to--;
		if (!gone)
			continue;
		put_lines(&out, &t, at, from);
		at = to;
	}
	put_lines(&out, &t, at, t.n);
	if (buf_failed(&out))
		return no_memory(err);
	return replace_text(path, &t, (const char *)buf_ptr(&out), buf_size(&out), names, n, false,
			    err);
}
