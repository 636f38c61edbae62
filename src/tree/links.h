/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files with several names: which of them came first. A hash table of (device, inode); one thread.
 */
#ifndef TREE_LINKS_H
#define TREE_LINKS_H

#include <stddef.h>
#include <sys/stat.h>

struct link_first;

struct links {
	struct link_first *v;
	size_t n, cap;
};

/*
 * *ret: the path under which this file was seen before, or NULL if it is new, and then remembered
 * as @path. Files with one name and directories are never remembered. -ENOMEM.
 */
int links_find(struct links *l, const struct stat *st, const char *path, const char **ret);
void links_done(struct links *l);

#endif
