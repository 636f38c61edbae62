/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end: SIGTERM to everybody, leave as soon as everybody has gone or after the grace,
 * SIGKILL, sync, file systems read-only, machine off.
 */
#ifndef GUEST_SHUTDOWN_H
#define GUEST_SHUTDOWN_H

#include <stdint.h>

enum { SHUTDOWN_GRACE_MS = 300 /* at least */ };

/* Only for PID 1. @sigfd delivers SIGCHLD. Does not return. */
void shutdown_machine(int sigfd, uint32_t grace_ms) __attribute__((noreturn));
/* At once. Does not return. */
void shutdown_now(void) __attribute__((noreturn));

#endif
