/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's console: what its kernel prints goes to logs/kernel.log.
 *
 * The guest decides how much it prints, so the log has a ceiling: at CONSOLE_LOG_MAX bytes the
 * file becomes kernel.log.1 and a new one begins, which leaves the newest of all in two files of at
 * most that size. There is no limit to the rate: each byte costs the guest a way out of its virtual
 * machine, and none of our memory, as it waits when the pipe is full. Belongs to the thread of its
 * loop.
 */
#ifndef MACHINE_CONSOLE_H
#define MACHINE_CONSOLE_H

#include "base/err.h"
#include "base/loop.h"

#define CONSOLE_LOG_MAX ((size_t)10 << 20)

struct console;

/* @dir is the sandbox's directory. *ret_fd is the end to give to the machine. */
int console_new(struct console **ret, struct loop *loop, const char *dir, int *ret_fd,
		struct err *err);
/* Write down what the machine has left in the pipe. */
void console_drain(struct console *c);
/*
 * The line that tells why the kernel stopped, or NULL: the last "Kernel panic" or the like seen.
 * Unprintable bytes are replaced, since people will see it. Owned by the console.
 */
const char *console_last_words(struct console *c);
struct console *console_free(struct console *c);

#endif
