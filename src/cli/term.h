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
#include <stdint.h>

/* Make terminal @fd raw: 0 or -errno. Again after SIGCONT it takes effect anew. */
int term_raw(int fd);
/* Give the terminal back as it was found. Harmless at any time. */
void term_restore(void);
bool term_is_raw(void);

/* Size of terminal @fd; 24 by 80 when it has none. */
void term_size(int fd, uint16_t *rows, uint16_t *cols);

#endif
