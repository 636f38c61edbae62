/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and trees between the host, sandboxes and tar streams.
 *
 * Theory of operation. What is copied is a tar stream (tree/tree.h) from where it is packed to
 * where it is unpacked: the host's file system, an agent (core.fs.request, PackTree and
 * UnpackTree), or our standard input or output. Between two sandboxes the stream passes through
 * unread. Pieces are handed on as they come, each side waiting for the other, so that memory does
 * not depend on sizes. A stream that breaks off makes whoever unpacks it take back what was not
 * there before.
 *
 * What a sandbox sends is not trusted: it decides what a tree holds, and neither where it goes nor
 * (unless `all`) what could have rights there.
 *
 * Blocks; one thread.
 */
#ifndef SANDBOX_COPY_H
#define SANDBOX_COPY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct copy_side {
	const char *sandbox; /* NULL: the host */
	int agent;	     /* of a sandbox: a connection to its agent, which becomes ours */
	const char *path;    /* NULL: standard input or output, a tar stream */
};

struct copy {
	struct copy_side from, to;
	bool follow; /* a link as the source stands for what it points to */
	bool all;    /* with extended attributes, and set-id bits and devices out of a sandbox */
	int stop;    /* readable: give up and clean up (-EINTR); -1: nothing */
	int archive; /* where one goes that is to go to standard output; 0: there */
};

/* The rules of `cp -a` and, for SRC/. and SRC/, of `docker cp`. In @notes what was not kept, or "".
 */
int copy_run(const struct copy *c, char *notes, size_t size, struct err *err);

#endif
