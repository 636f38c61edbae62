/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.sock: the requests of control_msg.h, from any number of clients.
 *
 * A client sends one request after the other; the next is read when the last was answered, so that
 * nothing queues up. Each is handed to one function, which answers at once or later. Clients of
 * another user are hung up on, and so is who sends what is no request.
 *
 * All calls belong to the thread of the loop.
 */
#ifndef MACHINE_CONTROL_H
#define MACHINE_CONTROL_H

#include "base/err.h"
#include "base/loop.h"
#include "machine/control_msg.h"

/* A watcher or two for each sandbox is usual; the others wait to be let in. */
#define CONTROL_CLIENTS_MAX 64

struct control;
struct control_call;

/* Deal with @q and answer @call, now or later, with one of the functions below. */
typedef void control_fn(void *arg, struct control_call *call, const struct control_request *q);

/* @listenfd, a listening unix stream socket, becomes the server's, also on failure. */
int control_new(struct control **ret, struct loop *loop, int listenfd, control_fn *fn, void *arg,
		struct err *err);
/* Calls that are not answered yet must be answered before. NULL is fine; returns NULL. */
struct control *control_free(struct control *c);

/* The call is over. @a is only read. */
void control_answer(struct control_call *call, const struct control_answer *a);
void control_ok(struct control_call *call);
void control_fail(struct control_call *call, const struct err *err);

#endif
