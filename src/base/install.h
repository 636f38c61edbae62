/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the parts of an installation are.
 *
 * Searched in this order: $MSB_LIBDIR, the directory of the running executable (a build tree, or
 * its parent for what is not built there), and ../lib/microsandbox beside it (an installation).
 * Any thread.
 */
#ifndef BASE_INSTALL_H
#define BASE_INSTALL_H

#include "base/err.h"

/*
 * The absolute path of the part @name, which can be opened as @mode of access(2) says; the caller's
 * to free. ERR_NOT_FOUND with @hint when there is none.
 */
int install_find(const char *name, int mode, const char *hint, char **ret, struct err *err);
/* What to do when a program is missing. */
#define INSTALL_HINT "run `make`, or set MSB_LIBDIR to where it is"

/*
 * The file of what holds for all sandboxes: $MSB_CONFIG_PATH, which then must be there, or
 * @home/config.json, which may be missing. The caller's to free.
 */
char *install_config(const char *home, struct err *err);

/* @path if it can be used as @mode says, else freed and NULL. */
char *install_usable(char *path, int mode);

#endif
