/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A patch: what is to be done to a root before its first command, as the contents of a small disk
 * that the host writes and the agent reads once, front to back.
 *
 * A struct patch_head, then steps in the order in which they are done: a struct patch_step, its
 * path, the target of a link, contents; PATCH_END is the last one. Integers are little-endian.
 * Paths are absolute, any bytes but NUL.
 */
#ifndef WIRE_PATCH_H
#define WIRE_PATCH_H

#include <stdint.h>

#define PATCH_MAGIC	 "MSBPATC1"
#define PATCH_MAGIC_SIZE 8
#define PATCH_PATH_MAX	 4095u
/* Where scripts go; it is on the PATH of every command when it is there. */
#define PATCH_SCRIPTS_DIR "/.msb/scripts"

/*
 * Where the agent writes down how far it got: the head's id, and a letter. A machine that is killed
 * meets the same patch once more; what is done is not done again, and what was begun is done over,
 * in place of what the first try left. For that, there follows for each PATCH_APPEND how long its
 * file was before, as 8 bytes.
 */
#define PATCH_MARK  "/.msb/patched"
#define PATCH_BEGUN 'b'
#define PATCH_DONE  'd'

struct patch_head {
	char magic[PATCH_MAGIC_SIZE];
	uint8_t id[16]; /* random */
};
_Static_assert(sizeof(struct patch_head) == 24, "patch head layout");

enum patch_op {
	PATCH_END,
	PATCH_FILE,	 /* a new file; there must be nothing of that name */
	PATCH_REPLACE,	 /* a file in place of what is there */
	PATCH_DIRECTORY, /* a new directory */
	PATCH_LINK,	 /* a new symbolic link */
	PATCH_MKDIR,	 /* a directory, if it is missing, with its parents */
	PATCH_REMOVE,	 /* whatever it is, with all that is in it, if it is there */
	PATCH_APPEND,	 /* to a file, which is made if it is missing */
	PATCH_OPS
};

struct patch_step {
	uint32_t op;
	uint32_t mode;
	uint32_t path_len, target_len;
	uint64_t size; /* of the contents */
	int64_t mtime;
	uint32_t mtime_ns;
	uint32_t reserved;
};
_Static_assert(sizeof(struct patch_step) == 40, "patch step layout");

#endif
