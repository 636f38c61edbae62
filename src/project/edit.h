/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes to a project's file that leave everything else in it as a person wrote it: comments,
 * blank lines, order, quotes. They are changes of the text, whose places come from the file's tree;
 * what came out is read again before it is written. One thread.
 */
#ifndef PROJECT_EDIT_H
#define PROJECT_EDIT_H

#include "base/buf.h"
#include "base/err.h"
#include "config/field.h"

/* What `add` takes besides the fields. */
struct project_extra {
	struct strv depends, env_files;
	const char *scope; /* NULL: not said */
};

/*
 * The lines of an entry, as said on the command line: "image: …" and so on, without indentation.
 * -ERR_UNSUPPORTED for what a file says in another form.
 */
int project_render(const struct model *m, const struct project_extra *extra, struct buf *out,
		   struct err *err);

/* Put the entry @name with these lines at the end of `sandboxes` of the file @path. -EEXIST. */
int project_edit_add(const char *path, const char *const *names, size_t n, const char *lines,
		     struct err *err);
/* Take entries out. -ERR_NOT_FOUND. */
int project_edit_remove(const char *path, const char *const *names, size_t n, struct err *err);

#endif
