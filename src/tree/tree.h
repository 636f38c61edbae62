/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file or a tree of files as a tar stream, and back. `msb cp` has one half of it, the agent in
 * the guest the other; an image needs no tar of its own.
 *
 * Theory of operation. Packing walks by descriptors, never follows a link below the top, and holds
 * one buffer and one open directory per level. Files that have several names in the tree are sent
 * once, holes are not sent, sockets and what pseudo file systems (proc, sysfs…) hold below the top
 * are left out. Unpacking takes the entries as they come. Whoever wrote the stream is not trusted:
 * every path is resolved by openat2() beneath the directory that the caller chose and through no
 * link, and what can give rights outside of the stream's origin (set-id bits, devices, security
 * attributes) comes only if the caller says so. A directory gets its owner, mode and times when
 * its last entry is in place.
 *
 * Any thread; calls block. What could not be kept is counted in tree_notes.
 */
#ifndef TREE_TREE_H
#define TREE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "tree/tar.h"

/* Levels of directories; each holds a descriptor, of which a process has 1024 unless it asks. */
#define TREE_DEPTH_MAX 500u
/* Of a path in a stream, as the kernel takes it. */
#define TREE_PATH_MAX 4095u

struct tree_notes {
	uint64_t sockets, vanished; /* packing: left out; gone before they were read */
	uint64_t owners, rights;    /* unpacking: owners not kept; set-id bits, devices not made */
	uint64_t devices, attributes; /* not permitted here; not supported or not permitted here */
};
/* One line about what was not kept, or "" if all was. */
const char *tree_notes_text(const struct tree_notes *n, char *b, size_t size);

/* Take @n bytes of the stream. Negative ends the packing. */
typedef int tree_write_fn(void *arg, const void *p, size_t n, struct err *err);

struct tree_pack {
	const char *path; /* of the file or tree; a final link is the link unless @follow */
	const char *name; /* of the top entry in the stream: "." makes all names relative to it */
	bool follow;
	bool attributes; /* extended ones */
};
int tree_pack(const struct tree_pack *o, tree_write_fn *write, void *arg, struct tree_notes *notes,
	      struct err *err);

struct tree_unpack {
	const char *path; /* where to, as `cp` understands it: see below */
	/*
	 * One tree whose top is ".": if @path is a directory, it gets this name in there, or with
	 * "" its contents go there. Otherwise it becomes @path. NULL: any archive, into the
	 * directory
	 * @path.
	 */
	const char *name;
	bool rights;	 /* keep set-id bits, devices and security attributes */
	bool attributes; /* keep extended attributes */
};
/*
 * Directories that are there are merged with, other things replaced, except by directories and vice
 * versa. On failure a tree that was not there before is removed again, and so is a file that has
 * not come whole.
 */
int tree_unpack(const struct tree_unpack *o, tar_read_fn *read, void *arg, struct tree_notes *notes,
		struct err *err);

#endif
