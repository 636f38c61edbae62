/* SPDX-License-Identifier: Apache-2.0 */
/* Between exec_log.c and exec_tap.c. */
#ifndef MACHINE_EXEC_LOG_IMPL_H
#define MACHINE_EXEC_LOG_IMPL_H

#include "machine/exec_log.h"

/* Queue an entry: of @before and @p, one behind the other. */
void exec_log_put(struct exec_log *l, enum exec_log_source source, uint32_t id, const void *before,
		  size_t nbefore, const void *p, size_t n);
/* @n bytes are known to be missing. */
void exec_log_lose(struct exec_log *l, size_t n);
/* A number for a new session. */
uint32_t exec_log_session(struct exec_log *l);

#endif
