/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A project: the sandboxes that one file describes, its Sandboxfile.
 *
 *	sandboxes:
 *	  db:
 *	    image: postgres:16
 *	  web:
 *	    image: python:3.12-slim
 *	    depends_on: [db]
 *
 * Theory of operation. The file becomes a tree that knows lines and columns (config/node.h). Each
 * entry of `sandboxes` and `builds` is a map of the keys that any file about a sandbox may have,
 * filled into a struct model by the same table (config/field.h), and a few more: keys.c has the
 * rows that only projects have, and those that older files spell in another way. Once all are read,
 * the names they mention are looked up and the order in which they start is made (order.c).
 *
 * A file without any of the keys of a project describes one sandbox, as those of --conf do; it is
 * a project of that one, named after the file.
 *
 * Nothing here touches the disk but to read. One thread.
 */
#ifndef PROJECT_PROJECT_H
#define PROJECT_PROJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "config/load.h"
#include "config/node.h"

#define PROJECT_FILE "Sandboxfile"

/* More than a person describes, and less than would be a load in itself. */
#define PROJECT_SANDBOXES_MAX 256u

#define PROJECT_READY_TIMEOUT_MS  60000u
#define PROJECT_READY_INTERVAL_MS 500u

/* A name in a list, and where it stands. */
struct project_ref {
	char *name;
	struct conf_mark at;
};

struct project_refs {
	struct project_ref *v;
	size_t n;
};

/* What has to succeed, besides the agent's answering, before those that depend on it start. */
struct project_ready {
	struct strv exec; /* empty: no command */
	uint16_t tcp;	  /* 0: no port of the guest's */
	uint64_t timeout_ms, interval_ms;
};

struct project_step {
	char *name, *script;
};

struct project_sandbox {
	char *name;
	struct conf_mark at;
	bool build; /* an entry of `builds` */
	struct model model;
	struct project_refs depends, groups;
	struct project_ready ready;
	struct strv scripts;	    /* their names */
	struct project_step *steps; /* of a build, in order */
	size_t nsteps;
	char *version;
	unsigned level; /* in the order of starting: above all it depends on */
};

struct project_group {
	char *name;
	struct conf_mark at;
};

struct project {
	char *path;   /* of the file, as messages name it */
	char *file;   /* absolute */
	char *dir;    /* absolute: the project's */
	char *config; /* base name of the file */
	/* In the order of the file, builds after sandboxes. */
	struct project_sandbox *v;
	size_t n;
	struct project_group *groups;
	size_t ngroups;
	unsigned levels; /* of its sandboxes */
};

void project_done(struct project *p);
#define cleanup_project __attribute__((cleanup(project_done)))

/*
 * Where the file is that @word (of --file) means: itself, or the Sandboxfile in that directory;
 * NULL: in the current one. Absolute, the caller's. -ERR_NOT_FOUND when there is none.
 */
int project_find(const char *word, char **ret, struct err *err);
/*
 * Load it: "FILE:LINE:COLUMN: key: …" otherwise. @defaults is the config.json whose
 * sandbox_defaults hold for all, or NULL.
 */
int project_load(const char *path, const char *defaults, struct project *ret, struct err *err);
/* The same when it has been read. */
int project_load_file(const struct conf_file *f, const char *defaults, struct project *ret,
		      struct err *err);

/* The entry of `sandboxes` (or `builds`), or NULL. */
struct project_sandbox *project_get(const struct project *p, const char *name, bool build);
/* The same with words for a person when there is none. */
int project_want(const struct project *p, const char *name, struct project_sandbox **ret,
		 struct err *err);
/* Is it a member of the group? */
bool project_in_group(const struct project_sandbox *s, const char *group);
bool project_has_script(const struct project_sandbox *s, const char *name);

/* Find the levels; a cycle is -ERR_USAGE, with the way round in the message. */
int project_order(struct project *p, struct err *err);

/* The JSON Schema of such files, as text that ends in a newline: 0 or -ENOMEM. */
int project_schema(struct buf *b);

/* ---- the table of keys (keys.c) ---- */

extern const struct conf_scope project_scope;
extern const char project_schema_meta[];
int project_load_meta(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err);

int project_refs_add(struct project_refs *l, const char *name, struct conf_mark at);

#endif
