/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandboxes of a project in the store: what an entry of the file becomes there, and what has
 * become of it. One thread.
 */
#ifndef PROJECT_LIFE_H
#define PROJECT_LIFE_H

#include <stdbool.h>

#include "base/err.h"
#include "project/home.h"
#include "project/project.h"
#include "sandbox/sandbox_dir.h"

struct store;
struct sandbox_main;
struct image_config;

/* What an entry is in the store. */
enum project_state {
	PROJECT_NONE,	 /* nothing of it */
	PROJECT_STOPPED, /* as the file says, and does not run */
	PROJECT_RUNNING,
};

struct project_view {
	char *name; /* in the store */
	enum project_state state;
	bool changed;		  /* the file says something else now */
	struct sandbox_list list; /* of it alone; empty with PROJECT_NONE */
};
void project_view_done(struct project_view *v);
#define cleanup_project_view __attribute__((cleanup(project_view_done)))

int project_look(struct store *s, const struct project *p, const struct project_home *h,
		 const struct project_sandbox *e, struct project_view *ret, struct err *err);

/*
 * Open it in the store, to be started: made of the file, or kept as it is when the file says what
 * it said then. Its disk stays in either case. The image has to be in the store. The model of @e is
 * used up. -EBUSY: it runs. In *made: its disk is new, and ought to go if it fails to start.
 */
struct sandbox;
int project_open(struct store *s, const struct project *p, const struct project_home *h,
		 struct project_sandbox *e, struct sandbox **ret, bool *made, struct err *err);

/* After it did not come up: delete a new disk, unless there is a sandbox that has it. */
void project_undo(struct store *s, const struct project_home *h, const struct project_sandbox *e);

/*
 * What it runs when it starts by itself: its script "start", else its command, else the image's
 * unless that is but a shell, which would end at once for want of somebody who types. 0 words:
 * nothing.
 */
int project_main(const struct project_sandbox *e, const struct sandbox_spec *spec,
		 const struct image_config *image, struct sandbox_main *ret, struct err *err);
/*
 * The words of a script ("shell" is one that everybody has) or program, with arguments: 1. 0 when
 * neither was asked for and there is no script "start": the image's rules hold.
 */
int project_words(const struct project_sandbox *e, const char *script, const char *exec,
		  const char *const *args, size_t nargs, struct strv *ret, struct err *err);

/* Names in the store of all that belongs to the project, also what is in its file no more. */
int project_all(struct store *s, const struct project_home *h, struct sandbox_list *ret,
		struct err *err);
/* The name in the file of one of those; borrowed. */
const char *project_label(const struct sandbox_entry *e, const char *key);

#endif
