/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a sandbox: from a wish to a running machine, and to nothing again.
 *
 *	sandbox_open()     directory, lock, image, disk, boot message; nothing runs yet
 *	sandbox_hand_over()  from here on it is another process's, which calls
 *	sandbox_adopt()      (see keeper.h)
 *	sandbox_start()    msb-vm is spawned and boots the machine
 *	sandbox_report()   how that went, read from the startup pipe when it is readable
 *	sandbox_connect()  a connection to the agent's socket, possible from sandbox_start() on
 *	sandbox_end()      the machine is stopped (kept sandboxes: cleanly), files are dealt with
 *	sandbox_free()     the same for whatever is left, without manners
 *
 * Theory of operation. Whoever opened a sandbox owns it. The owner holds the lock together with
 * msb-vm, and the write end of a pipe whose end tells msb-vm that the owner has gone: killed with
 * -9 at any moment, it leaves a machine that ends by itself and (if ephemeral) takes the directory
 * along; if that is killed as well, the next command cleans up (see sandbox_dir.h).
 *
 * An ephemeral sandbox has nothing to save: ending it is a SIGKILL to msb-vm, with which its
 * engine dies. A kept one gets a SIGTERM, which makes msb-vm ask the guest to shut down, so that
 * its disk is in order. So does an ephemeral one that writes to a disk of the user's.
 *
 * Any thread; a struct sandbox belongs to one at a time, together with its store.
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/spec.h"

struct store;
struct image_config;
struct sandbox;

/* How long a guest gets to shut down before it is ended by force; the peer's figure. */
#define SANDBOX_STOP_TIMEOUT_MS 10000

/*
 * Open the sandbox that @spec describes. With a name that is kept already, the stored wishes and
 * the image of then take the place of @spec and @image (see sandbox_reused()). @spec is emptied,
 * but for -EBUSY.
 *
 * Errors worth telling apart: -EBUSY (it is running), -ERR_NOT_FOUND (no such image, or
 * part of the installation missing), -ERR_UNSUPPORTED (engine, or an image for another
 * architecture).
 */
int sandbox_open(struct sandbox **ret, struct store *s, struct sandbox_spec *spec,
		 const char *image, struct err *err);
/* How else it is to be opened; all false is what sandbox_open() does. */
struct sandbox_open {
	bool keep;	/* even without a name: it gets one */
	bool fresh;	/* -EEXIST when the name is a kept sandbox's */
	bool replace;	/* stop and remove that one first; implies fresh */
	int timeout_ms; /* of its stopping */
};
int sandbox_open_how(struct sandbox **ret, struct store *s, struct sandbox_spec *spec,
		     const char *image, const struct sandbox_open *how, struct err *err);
/* Open one that is kept. -ERR_NOT_FOUND when there is none. */
int sandbox_open_kept(struct sandbox **ret, struct store *s, const char *name, struct err *err);

/*
 * Write down what its next owner needs to know, and say which descriptor that is to inherit: the
 * lock's. Ours stays until sandbox_release(), when that process has taken over, or sandbox_free(),
 * when it has not.
 */
int sandbox_hand_over(struct sandbox *sb, struct err *err);
/* Let go without touching anything; returns NULL. */
struct sandbox *sandbox_release(struct sandbox *sb);
/* The other side: open @name, whose @lock this process was given. @fresh: it is to go if it fails.
 */
int sandbox_adopt(struct sandbox **ret, struct store *s, const char *name, int lock, bool fresh,
		  struct err *err);

bool sandbox_reused(const struct sandbox *sb);
const char *sandbox_name(const struct sandbox *sb);
struct store *sandbox_store(const struct sandbox *sb);
/* What image it has, in the words it was asked for with. */
const char *sandbox_image(const struct sandbox *sb);
/* Is it what @image, in the words of a person, stands for? */
bool sandbox_has_image(const struct sandbox *sb, const char *image);
const struct sandbox_spec *sandbox_get_spec(const struct sandbox *sb);
/* The image's OCI configuration. */
const struct image_config *sandbox_get_config(const struct sandbox *sb);

/* The command it runs whenever it starts in the background; see record.h. Takes over @main. */
struct sandbox_main;
int sandbox_set_main(struct sandbox *sb, struct sandbox_main *main, struct err *err);
const struct sandbox_main *sandbox_get_main(const struct sandbox *sb);

/* Spawn the machine. */
int sandbox_start(struct sandbox *sb, struct err *err);
/* Readable when there is something to read with sandbox_report(); -1 when all was read. */
int sandbox_report_fd(const struct sandbox *sb);
/*
 * Read what msb-vm has to say. 1: the guest is ready. 0: nothing complete yet. Negative: the
 * machine has failed or ended, with @err saying how; the end a caller asked for is -ESHUTDOWN.
 */
int sandbox_report(struct sandbox *sb, struct err *err);
/*
 * How its machine ended: "stopped", "drained", "drain-timeout", "max-duration", "idle", "left",
 * "shutdown" (the guest switched itself off), or a sentence about a failure. NULL before that.
 * Borrowed.
 */
const char *sandbox_end_reason(const struct sandbox *sb);
/* The same as a sentence; @reason may be NULL. */
const char *sandbox_end_words(const char *reason);
/* Pidfd of msb-vm: readable when it has ended. */
int sandbox_pidfd(const struct sandbox *sb);
/* A connected socket to the relay. */
int sandbox_connect(struct sandbox *sb, struct err *err);
struct session_host;
/* session_host_note(), of one that is kept. Before sandbox_end(). */
void sandbox_note_sessions(struct sandbox *sb, const struct session_host *h);
/* Listen on a socket in the directory of one that we own: a descriptor. */
int sandbox_listen(struct sandbox *sb, const char *name, struct err *err);
/* Write down what is only for listings; after sandbox_start(), where it costs nobody time. */
void sandbox_note(struct sandbox *sb);
/* The same of what the machine said when it was ready. */
void sandbox_note_machine(struct sandbox *sb);
/* Append the last lines of vm.log and kernel.log to @b, for a person. */
struct buf;
void sandbox_logs(const struct sandbox *sb, struct buf *b);

/*
 * Say before the end why that comes (static text), and what its command's exit code was; -1: it had
 * none.
 */
void sandbox_set_end(struct sandbox *sb, const char *reason, int exit_code);
/*
 * End the machine and put the files in order. A kept sandbox is given SANDBOX_STOP_TIMEOUT_MS.
 * -ETIMEDOUT: it had to be killed.
 */
int sandbox_end(struct sandbox *sb, struct err *err);
/* NULL is fine; returns NULL. */
struct sandbox *sandbox_free(struct sandbox *sb);

/*
 * Stop a sandbox that another process runs. 0 when it has stopped (or had already), -ETIMEDOUT
 * when it had to be killed, -ERR_NOT_FOUND. @force: at once, without the guest's shutdown.
 */
int sandbox_stop(struct store *s, const char *name, bool force, int timeout_ms, struct err *err);
/*
 * Wait until a sandbox that another process runs has ended, and nobody holds it any more.
 * -ETIMEDOUT; negative times wait for as long as it takes.
 */
int sandbox_wait_end(struct store *s, const char *name, int timeout_ms, struct err *err);
/* The same in two halves, for several at once: each gets @timeout_ms from its own beginning. */
struct sandbox_stopping {
	const char *name;
	bool force, done;
	int timeout_ms, vm;
	uint64_t began; /* now_ns() */
};
int sandbox_stop_begin(struct store *s, const char *name, bool force, int timeout_ms,
		       struct sandbox_stopping *ret, struct err *err);
int sandbox_stop_finish(struct store *s, struct sandbox_stopping *st, struct err *err);
/* Delete a kept sandbox. -EBUSY while it runs, unless @force, which stops it first. */
int sandbox_remove(struct store *s, const char *name, bool force, struct err *err);

#endif
