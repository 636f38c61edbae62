/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of a project's file: what the verbs that write them share. */
#ifndef CLI_ENTRIES_H
#define CLI_ENTRIES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

struct model;
struct project_extra;

/* The project of installed commands, in the store's directory. */
#define ENTRIES_INSTALLS "installs"

/* Make a file with no sandboxes, if there is none: 1. */
int entries_ensure_file(const char *path, struct err *err);
/* The lines of an entry with this image and script "start" (or NULL); see project/edit.h. */
int entries_render(struct model *m, const char *image, const char *start,
		   const struct project_extra *extra, struct buf *out, struct err *err);
/* `remove --file`: an exit code. */
int entries_remove(const char *file, const char *const *names, size_t n, bool quiet);

#endif
