/* SPDX-License-Identifier: Apache-2.0 */
/* What sandbox.c and vm_setup.c know of each other. */
#ifndef SANDBOX_SANDBOX_IMPL_H
#define SANDBOX_SANDBOX_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/proc.h"
#include "image/image.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/source.h"

#define OVERLAY_FILE "overlay.qcow2"
#define PATCH_FILE   SANDBOX_PATCH_FILE
#define VM_LOG	     "logs/vm.log"
#define KERNEL_LOG   "logs/kernel.log"

struct sandbox {
	struct store *store;
	struct sandbox_dir dir;
	struct sandbox_record record;
	struct sandbox_machine machine;
	uint64_t began; /* now_ns() */
	struct sandbox_source source;
	struct image_info image; /* empty when the root is a disk */
	int hold;		 /* keeps the image from being removed */
	const char *engine;	 /* static */
	char *vm, *kernel, *agentd;
	bool reused, ready, ending;
	bool told;	 /* there is a row that says what we are about */
	bool ran;	 /* ...and it says "running" */
	bool asked;	 /* the machine ended as it was asked to */
	bool made;	 /* it is new, and ours */
	const char *why; /* sandbox_set_end() */
	int exit_code;
	struct proc proc;
	int owner;   /* closing it tells msb-vm that we have gone */
	int startup; /* reports come here */
	struct buf reports;
};

/* The message for msb-vm, in a memory file: its descriptor. */
int sandbox_vm_config(const struct sandbox *sb, struct err *err);
/* Does the root outlive the machine? */
bool sandbox_root_stays(const struct sandbox *sb);
/* Does the machine write to something that stays when an ephemeral sandbox goes? */
bool sandbox_writes_outside(const struct sandbox *sb);

#endif
