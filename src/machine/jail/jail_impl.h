/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the jail. */
#ifndef MACHINE_JAIL_JAIL_IMPL_H
#define MACHINE_JAIL_JAIL_IMPL_H

#include <linux/filter.h>
#include <stddef.h>

#include "base/sanitized.h"
#include "machine/jail/jail.h"

/* Say how a step went; a later word replaces the earlier. */
void jail_hold(struct jail *j, enum jail_step s, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void jail_degrade(struct jail *j, enum jail_step s, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- places (places.c): what stays in reach, for root.c and landlock.c ---- */

enum jail_access {
	JAIL_READ = 1,	/* of files and directories */
	JAIL_WRITE = 2, /* of existing files and devices */
	JAIL_EXEC = 4,
	JAIL_MANAGE = 8, /* create, rename and remove below */
	JAIL_IOCTL = 16, /* of devices */
};

struct jail_place {
	char path[1024];
	unsigned access;
};

/* /usr, two or three of its aliases, the linker's cache, two devices, the kernel, QEMU, logs. */
#define JAIL_PLACES_MAX 16

/* Returns how many; those that do not exist are not among them. */
unsigned jail_places(const struct jail *j, struct jail_place places[JAIL_PLACES_MAX]);

/* ---- namespaces.c ---- */

void jail_unshare(struct jail *j);
/* Start making the net namespace, beside whatever comes next; and wait for it. */
void jail_begin_net(struct jail *j);
void jail_finish_net(struct jail *j);
/* Take the calling thread into it: 0 or -errno. */
int jail_enter_net(const struct jail *j);
void jail_unshare_pid(struct jail *j);

/* ---- capabilities.c ---- */

/* Empty the bounding set and lock the secure bits: true when both are done. */
bool jail_bound(void);
/* Drop what the thread has; 0 or -errno. */
int jail_drop(void);
bool jail_has(unsigned cap);

/* ---- root.c ---- */

#define JAIL_INITRAMFS	 "/initramfs"
#define JAIL_MEMORY_ROOM "/memory"
#define JAIL_MEMORY	 JAIL_MEMORY_ROOM "/file"

/* @files may be NULL. The old root is left only once jail_left() says so. */
int jail_root(struct jail *j, const struct jail_place *places, unsigned n,
	      const struct jail_files *files, struct err *err);
int jail_left(struct jail *j, struct err *err);

/* ---- landlock.c ---- */

/* Make the ruleset, which threads then enter. */
void jail_landlock(struct jail *j, const struct jail_place *places, unsigned n);
int jail_landlock_enter(const struct jail *j, enum jail_role role);

/* ---- seccomp.c, roles.c ---- */

/*
 * A system call of a list. Without a test any arguments match; with one, the low 32 bits of
 * argument
 * @arg are looked at. A call may be listed more than once: any of its tests will do.
 */
enum jail_test {
	JAIL_ANY,
	JAIL_EQUAL,   /* is @value, and the high half is zero */
	JAIL_PAIR,    /* is the low half of @value, and the argument before it the high half */
	JAIL_DIFFERS, /* is not @value */
	JAIL_NONE,    /* has none of the bits of @value */
	JAIL_SOME,    /* has one of them */
	JAIL_KIND,    /* bits 8 to 15, the type of an ioctl, are @value */
	JAIL_SELF,    /* is the number of this process */
};

struct jail_call {
	int nr;
	enum jail_test test;
	unsigned arg;
	uint32_t value;
	uint32_t verdict; /* instead of the list's, if not 0 */
};

struct jail_list {
	const struct jail_call *calls;
	size_t n;
	uint32_t matched, other; /* SECCOMP_RET_* */
};

extern const struct jail_list jail_lists[JAIL_ROLES];

/* A filter of at most @max instructions; returns how many, -E2BIG. */
int jail_compile(const struct jail_list *list, struct sock_filter *p, size_t max);
/* Compile and install on the calling thread, which has no_new_privs: 0 or -errno. */
int jail_filter(enum jail_role role);

/*
 * The descriptor number of jail.dir_parent, where the control thread's list knows it. Above what a
 * process that just starts has open, below any limit.
 */
#define JAIL_PARENT_FD 250

#endif
