/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The terminal that msb was started from: raw mode while a command in the guest has a terminal of
 * its own, and back, whatever ends us (SIGKILL excepted, which nobody can answer).
 *
 * One terminal per process; main thread only. The restoring handler for fatal signals is
 * async-signal-safe.
 */
#ifndef CLI_TERM_H
#define CLI_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Make terminal @fd raw: 0 or -errno. */
int term_raw(int fd);
/* Have it hand over keys one by one, unseen, and leave all else as it is. Otherwise the same. */
int term_keys(int fd);
/* Give the terminal back as it was found. Harmless at any time. */
void term_restore(void);
/* After SIGCONT: the shell had its own mode meanwhile. */
void term_again(void);
bool term_is_raw(void);

/*
 * Ask the person at the terminal, whatever stdin is. One line without its end into @buf; shown as
 * it is typed if @echo. Refused with -ENOTTY where there is no terminal, -EINTR after Ctrl-C.
 */
int term_ask(const char *prompt, bool echo, char *buf, size_t size, struct err *err);

/* Size of terminal @fd; 24 by 80 when it has none. */
void term_size(int fd, uint16_t *rows, uint16_t *cols);

#endif
