/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "boot.h"

enum { DISKS_MAX = 256, SERIAL_MAX = 64 };

static bool has_serial(int block, const char *disk, const char *serial)
{
	char path[280], text[SERIAL_MAX + 1];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/serial", disk);
	fd = openat(block, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, SERIAL_MAX);
	if (n < 0)
		return false;
	if (n && text[n - 1] == '\n')
		n--;
	text[n] = '\0';
	return !strcmp(text, serial);
}

int device_find(const char *spec, char *ret, size_t size, struct err *err)
{
	const char *serial = spec;
	cleanup_dir DIR *d = NULL;
	struct dirent *e;

	if (spec[0] == '/') {
		if (strlen(spec) >= size)
			return err_set(err, ENAMETOOLONG, "device '%.64s…': the name is too long",
				       spec);
		strcpy(ret, spec);
		return 0;
	}
	if (!strncmp(serial, "serial:", 7))
		serial += 7;
	d = opendir("/sys/block");
	if (!d)
		return err_errno(err, "cannot list /sys/block");
	for (int i = 0; i < DISKS_MAX && (e = readdir(d)); i++) {
		if (e->d_name[0] == 'v' && e->d_name[1] == 'd' && strlen(e->d_name) < size - 5 &&
		    has_serial(dirfd(d), e->d_name, serial)) {
			snprintf(ret, size, "/dev/%s", e->d_name);
			return 0;
		}
	}
	return err_set(err, ERR_NOT_FOUND, "no disk has the serial '%.64s'", serial);
}
