/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/links.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct link_first {
	dev_t dev;
	ino_t ino;
	char *path; /* NULL: free */
};

static struct link_first *find(struct link_first *t, size_t cap, dev_t dev, ino_t ino)
{
	size_t i = (size_t)(ino * 0x9e3779b97f4a7c15ull + dev) & (cap - 1);

	while (t[i].path && (t[i].ino != ino || t[i].dev != dev))
		i = (i + 1) & (cap - 1);
	return &t[i];
}

static int grow(struct links *l)
{
	size_t cap = MAX(l->cap * 2, (size_t)64);
	struct link_first *t = calloc(cap, sizeof(*t));

	if (!t)
		return -ENOMEM;
	for (size_t i = 0; i < l->cap; i++) {
		if (l->v[i].path)
			*find(t, cap, l->v[i].dev, l->v[i].ino) = l->v[i];
	}
	free(l->v);
	l->v = t;
	l->cap = cap;
	return 0;
}

int links_find(struct links *l, const struct stat *st, const char *path, const char **ret)
{
	struct link_first *f;

	*ret = NULL;
	if (st->st_nlink < 2 || S_ISDIR(st->st_mode))
		return 0;
	if (l->n * 2 >= l->cap && grow(l) < 0)
		return -ENOMEM;
	f = find(l->v, l->cap, st->st_dev, st->st_ino);
	if (f->path) {
		*ret = f->path;
		return 0;
	}
	*f = (struct link_first){st->st_dev, st->st_ino, strdup(path)};
	if (!f->path)
		return -ENOMEM;
	l->n++;
	return 0;
}

void links_done(struct links *l)
{
	for (size_t i = 0; i < l->cap; i++)
		free(l->v[i].path);
	free(l->v);
	*l = (struct links){0};
}
