/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a project keeps of its own, in .menv beside its file:
 *
 *	.menv/FILE/project.json        who it is: {"id": "shop-3f9ac1", "dir": "/home/me/shop"}
 *	.menv/FILE/lock                held while sandboxes are started, stopped or changed
 *	.menv/FILE/rw/NAME/upper.ext4  what was written in a sandbox: the project's, not the store's
 *	.menv/FILE/rw/NAME/disk.json   which image that lies on
 *
 * Theory of operation. A project's sandboxes are ordinary ones of the store, called ID.NAME, with
 * labels that say whose they are, and with a disk that is a file of the project's. So whatever the
 * store knows of them can be made again from the file and the disk, and is, when the file has
 * changed or when the directory has moved (its path was written down; a copy of the directory whose
 * original is still there gets an id of its own). A project that was deleted leaves stopped
 * sandboxes without a disk behind: project_heal() removes them.
 *
 * One thread.
 */
#ifndef PROJECT_HOME_H
#define PROJECT_HOME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "project/project.h"

struct store;

#define PROJECT_HOME ".menv"

/* Labels of a project's sandboxes. */
#define PROJECT_LABEL	      "project"	     /* its id */
#define PROJECT_LABEL_SANDBOX "sandbox"	     /* the name in the file */
#define PROJECT_LABEL_DIR     "project.dir"  /* where the project's home is */
#define PROJECT_LABEL_SPEC    "project.spec" /* which wishes it was made of */

struct project_home {
	char *id;
	char *dir; /* absolute: .menv/FILE */
	int lock;  /* -1: not held */
};
#define PROJECT_HOME_INIT                                                                          \
	{                                                                                          \
		.lock = -1                                                                         \
	}

/*
 * The home of the project whose directory is @dir and whose file is called @config, made if @make;
 * else -ERR_NOT_FOUND when there is none.
 */
int project_home_open(const char *dir, const char *config, bool make, struct project_home *ret,
		      struct err *err);
void project_home_done(struct project_home *h);
#define cleanup_project_home __attribute__((cleanup(project_home_done)))

/* Take the lock if nobody has it: -EWOULDBLOCK otherwise. */
int project_home_lock(struct project_home *h, struct err *err);

/* What a sandbox of the project is called in the store: a new string. */
char *project_sandbox_name(const struct project_home *h, const char *name);

/*
 * The disk of a sandbox. @image and @id are what it lies on: when the disk is there they are what
 * was written down then, and 0 is returned, otherwise it is made, which is 1.
 */
struct project_disk {
	char *path;
	char *image, *id; /* id: "" for what has none that lasts */
	uint64_t size;
};
void project_disk_done(struct project_disk *d);
#define cleanup_project_disk __attribute__((cleanup(project_disk_done)))
/* -ERR_NOT_FOUND when there is none. */
int project_disk_read(const struct project_home *h, const char *name, struct project_disk *ret,
		      struct err *err);
int project_disk_make(const struct project_home *h, struct store *s, const char *name,
		      const char *image, const char *id, uint64_t size, struct project_disk *ret,
		      struct err *err);
/* Delete it; fine when there is none. */
int project_disk_remove(const struct project_home *h, const char *name, struct err *err);
/* Names of the sandboxes that have one. */
int project_disks(const struct project_home *h, struct strv *ret, struct err *err);

/* Delete the home, and .menv when it was the last in it. */
int project_home_remove(struct project_home *h, struct err *err);

/* Remove stopped sandboxes of @l whose project has gone, or moved: true if there were any. */
struct sandbox_list;
bool project_heal(struct store *s, const struct sandbox_list *l);

#endif
