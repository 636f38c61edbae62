/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order in which sandboxes start: each gets a level, one above the highest of those that it
 * depends on. What has the same level may start at the same time. So do builds, which depend on
 * builds.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "project/project.h"

enum { NOT_SEEN, ON_THE_WAY, SEEN };

struct walk {
	struct project *p;
	unsigned char *seen;
	size_t *way; /* from the first to the one that is looked at */
	size_t n;
};

/* a -> b -> a, from where it is entered. */
static int cycle(const struct walk *w, size_t again, const struct project_ref *ref, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	size_t i = 0;

	while (w->way[i] != again)
		i++;
	for (; i < w->n; i++)
		buf_addf(&b, "%s -> ", w->p->v[w->way[i]].name);
	buf_addf(&b, "%s", w->p->v[again].name);
	buf_add_u8(&b, 0);
	if (buf_failed(&b))
		return err_set(err, ENOMEM, "out of memory");
	conf_error(err, w->p->path, ref->at, "depends_on: these wait for each other: %.400s",
		   (const char *)buf_ptr(&b));
	return err_hint(err, "leave one of them out");
}

static int visit(struct walk *w, size_t at, struct err *err)
{
	struct project_sandbox *s = &w->p->v[at];

	w->seen[at] = ON_THE_WAY;
	w->way[w->n++] = at;
	for (size_t i = 0; i < s->depends.n; i++) {
		const struct project_sandbox *d = project_get(w->p, s->depends.v[i].name, s->build);
		size_t next = (size_t)(d - w->p->v);
		int r = 0;

		if (w->seen[next] == ON_THE_WAY)
			return cycle(w, next, &s->depends.v[i], err);
		if (w->seen[next] == NOT_SEEN)
			r = visit(w, next, err);
		if (r < 0)
			return r;
		s->level = MAX(s->level, d->level + 1);
	}
	w->n--;
	w->seen[at] = SEEN;
	return 0;
}

/* The depth of the calls is at most PROJECT_SANDBOXES_MAX. */
int project_order(struct project *p, struct err *err)
{
	cleanup_free unsigned char *seen = calloc(p->n + 1, sizeof(*seen));
	cleanup_free size_t *way = calloc(p->n + 1, sizeof(*way));
	struct walk w = {p, seen, way, 0};

	if (!seen || !way)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < p->n; i++) {
		int r = seen[i] == NOT_SEEN ? visit(&w, i, err) : 0;

		if (r < 0)
			return r;
		if (!p->v[i].build)
			p->levels = MAX(p->levels, p->v[i].level + 1);
	}
	return 0;
}
