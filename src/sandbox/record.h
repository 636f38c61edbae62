/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is written down about a sandbox, in JSON files in its directory: what it is (a record), and
 * what became of its machine. Any thread.
 */
#ifndef SANDBOX_RECORD_H
#define SANDBOX_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "sandbox/spec.h"

struct json_t;

#define RECORD_KEPT	 "config.json"
#define RECORD_EPHEMERAL "ephemeral.json"
#define RECORD_MACHINE	 "machine.json"
#define RECORD_ACTIVE	 "active.json"

/* A command that a sandbox runs when it starts in the background, and stops with. */
struct sandbox_main {
	struct strv argv; /* empty: there is none */
	bool tty;
	uint64_t timeout_ms; /* 0: none */
};
void sandbox_main_done(struct sandbox_main *m);
#define cleanup_main __attribute__((cleanup(sandbox_main_done)))

struct sandbox_record {
	char *name;
	char *image;	    /* as it was asked for */
	char *image_id;	    /* what that was then: "sha256:…" */
	int64_t created_at; /* Unix seconds */
	bool ephemeral;
	struct sandbox_spec spec;
	struct sandbox_main main;
	/*
	 * What of its configuration we do not understand, by key: of a newer version, or out of
	 * bounds. It is written again as it is, and with it no machine is started
	 * (record_check()). NULL: there is no such thing.
	 */
	struct json_t *odd;
	struct json_t *beside; /* what else stands in the file */
};

void record_done(struct sandbox_record *r);
#define cleanup_record __attribute__((cleanup(record_done)))

int record_encode(const struct sandbox_record *r, struct buf *b);
/* -ERR_CORRUPT when it is no record. */
int record_decode(const void *p, size_t n, struct sandbox_record *ret, struct err *err);

/* The wishes in a record, as JSON; NULL when out of memory. */
struct json_t *record_config(const struct sandbox_spec *s);
/* The same with what is not understood. */
struct json_t *record_written(const struct sandbox_record *r);

/*
 * Can it be started, as far as that is seen from the record? What was allowed when it was written
 * may not be now. The hint says how to go on.
 */
int record_check(const struct sandbox_record *r, struct err *err);
/* Let @key be what it is when nothing is said. -ERR_NOT_FOUND: there is no such key. */
int record_reset(struct sandbox_record *r, const char *key, struct err *err);

/* Read the record in a directory, whichever it has. -ENOENT when none. */
int record_read(int dirfd, struct sandbox_record *ret, struct err *err);

/* The machine that runs, or the last one that did. */
struct sandbox_machine {
	char *engine;
	char *jail;	    /* jail_describe()'s words; NULL until it has reported */
	char *end;	    /* how it ended; NULL: it runs, or nobody was left to write that down */
	char *state;	    /* the sandbox's after that, for a database that knows nothing of it */
	int exit_code;	    /* of its own command, + 1; 0: there is none */
	struct strv ports;  /* published: "ADDRESS:HOST->GUEST/tcp" */
	int64_t started_at; /* Unix seconds */
	int64_t ended_at;   /* 0: as with @end */
	uint64_t ready_ms;  /* from its start to its agent's being ready; 0: was not */
};

void record_machine_done(struct sandbox_machine *m);
#define cleanup_machine __attribute__((cleanup(record_machine_done)))

int record_machine_encode(const struct sandbox_machine *m, struct buf *b);
int record_machine_decode(const void *p, size_t n, struct sandbox_machine *ret, struct err *err);
int record_machine_read(int dirfd, struct sandbox_machine *ret, struct err *err);

/*
 * What the machine that runs has of record_config(), where that is not what is written down for the
 * next one; else NULL. It goes with the machine.
 */
struct json_t *record_active_read(int dirfd);
int record_active_put(int dirfd, const struct json_t *config);

/* Put a file of a sandbox's in the place of what it was, all at once. */
int record_put(int dirfd, const char *name, const struct buf *b);

#endif
