/* SPDX-License-Identifier: Apache-2.0 */
#include "base/install.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

char *install_usable(char *path, int mode)
{
	if (path && access(path, mode) == 0)
		return path;
	free(path);
	return NULL;
}

int install_find(const char *name, int mode, const char *hint, char **ret, struct err *err)
{
	/* Relative to the executable's directory. */
	static const char *const places[] = {"", "../", "../lib/microsandbox/"};
	const char *libdir = getenv("MSB_LIBDIR");
	char exe[PATH_MAX], *found = NULL, *slash;
	ssize_t n;

	if (libdir && *libdir) {
		found = install_usable(str_fmt("%s/%s", libdir, name), mode);
		if (!found) {
			err_set(err, ERR_NOT_FOUND, "%s is not in MSB_LIBDIR (%s)", name, libdir);
			return err_hint(err, "correct MSB_LIBDIR, or unset it");
		}
	}
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n < 0 && !found)
		return err_errno(err, "cannot find the running program in /proc");
	exe[n < 0 ? 0 : n] = '\0';
	slash = strrchr(exe, '/');
	if (slash)
		slash[1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(places) && !found; i++)
		found = install_usable(str_fmt("%s%s%s", exe, places[i], name), mode);
	if (!found) {
		err_set(err, ERR_NOT_FOUND, "%s is missing (looked in %s and %s%s)", name, exe, exe,
			places[ARRAY_SIZE(places) - 1]);
		return err_hint(err, "%s", hint);
	}
	*ret = found;
	return 0;
}

char *install_config(const char *home, struct err *err)
{
	const char *named = getenv("MSB_CONFIG_PATH");
	char *path;

	if (named && *named && access(named, R_OK) < 0) {
		err_errno(err, "cannot read %s", named);
		err_hint(err, "correct MSB_CONFIG_PATH, or unset it");
		return NULL;
	}
	path = named && *named ? strdup(named) : str_fmt("%s/config.json", home);
	if (!path)
		err_set(err, ENOMEM, "out of memory");
	return path;
}
