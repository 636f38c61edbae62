/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulling as verbs share it: `msb pull`, and `msb run` of an image that is not there.
 */
#ifndef CLI_PULL_H
#define CLI_PULL_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "cli/opt.h"
#include "config/field.h"
#include "image/image.h"

struct store;
struct cli;

/* For the two rows that are the same verb. */
#define PULL_DETAILS                                                                               \
	"REFERENCE is [REGISTRY/]NAME[:TAG][@DIGEST]; without a registry it is Docker Hub.\n"      \
	"Layers that are here already are not fetched, unless --force says so."
enum { PULL_OPTS = 6 };
extern const struct opt pull_opts[PULL_OPTS];
int pull_run(struct cli *cli, int argc, char **argv);

struct pull_args {
	const char *platform;
	struct strv ca_files;
	bool insecure, quiet, json, force;
	const char *username, *password; /* NULL: what `registry login` keeps */
};

/* Pull @ref, showing on stderr (as JSON: stdout) how far it is. */
int cli_pull(struct store *s, const char *ref, const struct pull_args *a, struct image_info *ret,
	     struct err *err);
/*
 * Make sure of @image, which a sandbox called @name (NULL: a new one) is to have, as the model has
 * it. Leaves alone what is no reference, and an image of a sandbox that is there.
 */
int cli_pull_for_run(struct store *s, const char *image, const char *name, const struct model *m,
		     bool quiet, struct err *err);

#endif
