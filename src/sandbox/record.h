/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is written down about a sandbox: a JSON file in its directory. Any thread.
 */
#ifndef SANDBOX_RECORD_H
#define SANDBOX_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "sandbox/spec.h"

#define RECORD_KEPT	 "config.json"
#define RECORD_EPHEMERAL "ephemeral.json"

struct sandbox_record {
	char *name;
	char *image;	    /* as it was asked for */
	char *image_id;	    /* what that was then: "sha256:…" */
	int64_t created_at; /* Unix seconds */
	bool ephemeral;
	struct sandbox_spec spec;
};

void record_done(struct sandbox_record *r);
#define cleanup_record __attribute__((cleanup(record_done)))

int record_encode(const struct sandbox_record *r, struct buf *b);
/* -ERR_CORRUPT when it is no record. */
int record_decode(const void *p, size_t n, struct sandbox_record *ret, struct err *err);

/* Read the record in a directory, whichever it has. -ENOENT when none. */
int record_read(int dirfd, struct sandbox_record *ret, struct err *err);

#endif
