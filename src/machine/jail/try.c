/* SPDX-License-Identifier: Apache-2.0 */
/* The whole jail around a machine that has no devices but a thread, to see what of it holds. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "machine/jail/jail.h"

/* Files that it may write are none. */
#define FILE_MAX ((uint64_t)1 << 20)

static int enter(struct jail *j, struct worker *worker, struct err *err)
{
	cleanup_close int initramfs = io_memfd("initramfs", "", 0, err);
	const struct jail_files files = {.initramfs = initramfs};
	struct jail_names names = {0};
	int r = initramfs;

	if (r >= 0)
		r = jail_close(j, &files, FILE_MAX, &names, err);
	if (r < 0)
		return r;
	r = jail_loop(j, worker->loop, JAIL_DEVICE);
	if (r < 0)
		return err_set(err, r, "cannot confine a thread: %s", err_name(r));
	return jail_seal(j, err);
}

int jail_try(const struct jail_params *params, struct buf *report, struct err *err)
{
	struct jail j = JAIL_INIT;
	struct worker worker;
	int r;

	jail_begin(&j, params);
	r = worker_start(&worker, "device", err);
	if (r < 0)
		return r;
	r = enter(&j, &worker, err);
	worker_stop(&worker);
	if (r == 0 && params->remove_dir)
		r = jail_remove_dir(&j, err);
	jail_describe(&j, report);
	jail_done(&j);
	return r;
}
