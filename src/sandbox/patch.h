/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes to a root before its first command: files and directories of the host's, directories,
 * removals, scripts. They are collected in the spec, in the order in which they were asked for, and
 * written to a file that becomes a disk of the machine's first start (wire/patch.h), whatever kind
 * of root it has.
 *
 * What is copied belongs to root in the guest, with the mode it has here less the set-id bits (its
 * owner is another one now) and its time; links are copied as links, except SRC itself, which is
 * followed. Sockets are left out; devices and pipes are refused. Nothing that is there is replaced
 * unless that was asked for. Scripts are.
 */
#ifndef SANDBOX_PATCH_H
#define SANDBOX_PATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct sandbox_spec;

/* Copied twice, here and in the guest; who has more wants an image or a directory as a root. */
#define SANDBOX_PATCH_BYTES_MAX	  ((uint64_t)4 << 30)
#define SANDBOX_PATCH_ENTRIES_MAX 100000u
#define SANDBOX_PATCH_DEPTH_MAX	  64u
#define SANDBOX_SCRIPT_MAX	  ((size_t)4 << 20)

enum sandbox_patch_kind {
	SANDBOX_COPY, /* a file or a directory */
	SANDBOX_COPY_FILE,
	SANDBOX_COPY_DIR,
	SANDBOX_MKDIR,
	SANDBOX_RM,
	SANDBOX_TEXT,	/* a file, from its contents */
	SANDBOX_APPEND, /* contents behind what is there */
	SANDBOX_LINK,
	SANDBOX_SCRIPT, /* with escapes: \n \t \r \\ \" \' */
	SANDBOX_SCRIPT_RAW,
	SANDBOX_SCRIPT_PATH, /* body from a file */
};

struct sandbox_patch {
	enum sandbox_patch_kind kind;
	char *src;    /* of a copy; contents; what a link says */
	size_t len;   /* of the contents */
	char *dst;    /* in the guest */
	int mode;     /* -1: that of the source, or as usual */
	bool replace; /* what is there */
};
#define SANDBOX_PATCH_MODE_NONE (-1)

/*
 * Add one in the words of a person: "SRC:DST", "PATH", "NAME=BODY", "NAME:PATH". ERR_USAGE and a
 * hint; the spec is untouched then.
 */
int sandbox_patch_add(struct sandbox_spec *s, enum sandbox_patch_kind kind, const char *text,
		      struct err *err);
/* Add one, of a kind that is no script: a copy of it. The same errors. */
int sandbox_patch_put(struct sandbox_spec *s, const struct sandbox_patch *p, struct err *err);
/* Forget all but the scripts. */
void sandbox_patches_clear(struct sandbox_spec *s);
void sandbox_patches_done(struct sandbox_spec *s);

/* Write the spec's patches as the file @name (new) in @dirfd. Scripts start with the spec's shell.
 */
int sandbox_patch_write(const struct sandbox_spec *s, int dirfd, const char *name, struct err *err);

#endif
