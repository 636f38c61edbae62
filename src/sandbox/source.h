/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands in the place of IMAGE: a reference, a directory, or a disk image with options.
 *
 *	python:3                     an image of the store
 *	./rootfs  /srv/rootfs        a directory: what begins with / ./ or ../ is a path
 *	./disk.qcow2                 a disk; the file stays as it is
 *	./disk.img:rw                a disk that is written to
 *	./disk.bin:format=raw,partition=2,fstype=ext4
 *	./top.qcow2:backing=base.raw a disk that rests on another one, which must be named
 *
 * The format of a disk follows from its name (.raw, .img, .qcow2, .vmdk) or from format=, never
 * from its contents, which a guest may have written.
 */
#ifndef SANDBOX_SOURCE_H
#define SANDBOX_SOURCE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

enum source_kind { SOURCE_IMAGE, SOURCE_DIRECTORY, SOURCE_DISK };

#define SOURCE_BACKING_MAX   15u  /* with overlay and disk the most that msb-vm stacks */
#define SOURCE_PARTITION_MAX 128u /* entries of a usual GPT */

struct sandbox_source {
	enum source_kind kind;
	char *text;	    /* as it was asked for, with absolute paths: means the same anywhere */
	char *path;	    /* absolute; NULL for images */
	const char *format; /* static, of a disk */
	char *fstype;	    /* NULL: told by what is on it */
	unsigned partition; /* 0: the whole disk, or the first partition that fits */
	bool writable;
	struct strv backing; /* absolute paths, uppermost first */
};

void sandbox_source_done(struct sandbox_source *s);
#define cleanup_source_text __attribute__((cleanup(sandbox_source_done)))

/* Does it look like a path, rather than like a reference? */
bool sandbox_source_is_path(const char *text);
/* The format that a file's name stands for: static, or NULL. */
const char *sandbox_source_format(const char *path);

/* -ERR_USAGE, -ERR_NOT_FOUND (no such file). */
int sandbox_source_parse(const char *text, struct sandbox_source *ret, struct err *err);

#endif
