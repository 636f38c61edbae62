/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directories of sandboxes, $MSB_HOME/sandboxes/NAME/:
 *
 *	lock            flock()ed by whoever runs the sandbox; owned (io_own()) by its msb-vm
 *	agent.sock      the relay's socket, while it runs
 *	control.sock    its machine's (machine/control_msg.h)
 *	upper.ext4      the writable disk, unless that is in memory or the user's
 *	overlay.qcow2   what was written to a disk image that is the root; .base: what that was
 *	patch.img       changes to the root that are still to be made
 *	config.json     what a kept sandbox is; its presence is what keeps the directory
 *	ephemeral.json  the same of one that is thrown away, for listings
 *	machine.json    what became of its machine, the one that runs or the last
 *	sessions.cbor   what the last one's sessions ended with, where nobody has asked for that
 *	logs/           vm.log, kernel.log
 *
 * Theory of operation. The lock is an open file description shared by msb and its msb-vm: it is
 * free exactly when both have gone. A directory whose lock is free and that has no config.json
 * belongs to nobody and is removed by the next command (sandbox_dir_heal()).
 *
 * Taking or even probing a lock, making a directory and giving one up happen under a lock on
 * sandboxes/ itself, held for microseconds: a directory that was just made is never mistaken for a
 * leftover, and a probe never makes somebody else's attempt fail. A directory is given up by
 * renaming it to ".gone-…" first, so its name is free while its files are deleted. (msb-vm deletes
 * an ephemeral directory without that when its owner was killed; nobody else uses its name.)
 *
 * Any thread; a struct sandbox_dir belongs to one at a time.
 */
#ifndef SANDBOX_SANDBOX_DIR_H
#define SANDBOX_SANDBOX_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/state.h"

struct store;
struct sandbox_record;

#define SANDBOX_LOGS "logs"
/* Changes to the root that are still to be made. */
#define SANDBOX_PATCH_FILE "patch.img"

#define SANDBOX_AGENT_SOCKET   "agent.sock"
#define SANDBOX_CONTROL_SOCKET "control.sock"

struct sandbox_dir {
	struct store *store;
	char *name, *path; /* path is absolute */
	int fd;		   /* the directory */
	int lock;	   /* locked, or -1 when only opened */
	int change;	   /* sandbox_dir_hold(), or -1 */
	bool kept;	   /* it has a config.json */
};
#define SANDBOX_DIR_INIT                                                                           \
	{                                                                                          \
		.fd = -1, .lock = -1, .change = -1                                                 \
	}

/*
 * Lock the directory of @name, making it when @create. A leftover is emptied; what an earlier owner
 * left of a kept one is sandbox_heal_row()'s. -EBUSY: it is running. -ERR_NOT_FOUND: !@create, and
 * there is none.
 */
int sandbox_dir_take(struct store *s, const char *name, bool create, struct sandbox_dir *ret,
		     struct err *err);
/* Take one that is new, under a name of its own. */
int sandbox_dir_take_random(struct store *s, struct sandbox_dir *ret, struct err *err);
/* Take, trying again until @timeout_ms have gone while it is running. */
int sandbox_dir_take_wait(struct store *s, const char *name, int timeout_ms,
			  struct sandbox_dir *ret, struct err *err);
/*
 * Make a sandbox's directory ours whose @lock, locked, was handed over to this process; the
 * descriptor becomes the directory's on success.
 */
int sandbox_dir_adopt(struct store *s, const char *name, int lock, struct sandbox_dir *ret,
		      struct err *err);
/*
 * Let those finish who change one that was taken, and nobody begin (change.h) until
 * sandbox_dir_let(), or it is removed or done with. Again is fine. Waits: before the database's
 * lock, not under it.
 */
int sandbox_dir_hold(struct sandbox_dir *d, struct err *err);
void sandbox_dir_let(struct sandbox_dir *d);
/*
 * Make one that was taken nobody's, should we be killed before we have dealt with the rest; it is
 * held from here on.
 */
int sandbox_dir_give_up(struct sandbox_dir *d, struct err *err);
/* The same, and empty it for another sandbox of that name. */
int sandbox_dir_renew(struct sandbox_dir *d, struct err *err);
/* Unlock and forget; the files stay. Harmless on an empty one. */
void sandbox_dir_done(struct sandbox_dir *d);
#define cleanup_sandbox_dir __attribute__((cleanup(sandbox_dir_done)))
/* Delete a directory that was taken, and forget it. */
int sandbox_dir_remove(struct sandbox_dir *d, struct err *err);

/*
 * Remove what killed processes left, and set right what is said about the rest (state.h). With
 * !@wait, do nothing when another command is at it.
 */
void sandbox_dir_heal(struct store *s, bool wait);

struct sandbox_entry {
	struct sandbox_record *record;
	/* Why its record cannot be read; NULL: it can. Of @record there is the name, then. */
	char *unreadable;
	bool running; /* somebody holds its lock */
	pid_t pid;    /* of msb-vm, when there is one; else 0 */
	struct sandbox_status status;
};
struct sandbox_list {
	struct sandbox_entry *items;
	size_t count;
};
/* All sandboxes, or only @name (-ERR_NOT_FOUND), newest first. */
int sandbox_dir_list(struct store *s, const char *name, struct sandbox_list *ret, struct err *err);
/* The directory of a sandbox, only to read in: a descriptor. */
int sandbox_dir_open(struct store *s, const char *name, struct err *err);
/* A pidfd of the msb-vm that runs @name: it is that one for certain. -ESRCH when there is none. */
int sandbox_dir_vm(struct store *s, const char *name);
void sandbox_list_done(struct sandbox_list *l);
#define cleanup_sandbox_list __attribute__((cleanup(sandbox_list_done)))

/*
 * A unix socket by directory and name, with no regard to how long the path is: listening (the
 * name must be free), or connected. Returns the descriptor.
 */
int sandbox_socket_listen(int dirfd, const char *name, struct err *err);
int sandbox_socket_connect(int dirfd, const char *name, struct err *err);

#endif
