/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QMP client (QEMU Machine Protocol): the handshake, commands without answers we wait for,
 * events, and numbers that are asked for. Belongs to the thread of its loop.
 */
#ifndef MACHINE_QMP_H
#define MACHINE_QMP_H

#include <jansson.h>

#include "base/err.h"
#include "base/loop.h"

/* QEMU's greeting and events are a few hundred bytes. */
#define QMP_LINE_MAX ((size_t)64 << 10)

struct qmp;

/*
 * @data is borrowed and may be NULL. Without an @event it is a number, which is what a command of
 * before has returned.
 */
typedef void qmp_event_fn(void *arg, const char *event, json_t *data);

/* @fd becomes the client's. End of file on it is not an event: the process's end tells more. */
int qmp_new(struct qmp **ret, struct loop *loop, int fd, qmp_event_fn *fn, void *arg,
	    struct err *err);
/* @arguments is a JSON object, or NULL. */
int qmp_execute(struct qmp *q, const char *command, const char *arguments);
struct qmp *qmp_free(struct qmp *q);

#endif
