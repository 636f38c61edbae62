/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection that has to show whom it is for (flow_inspect()). What the guest sends is held back,
 * and so is what it would get, until there is a name in it or there can be none; then the policy is
 * asked again. With its consent what was held goes out, and the look is over.
 *
 * On the loop's thread.
 */
#ifndef NET_LOOK_H
#define NET_LOOK_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/loop.h"
#include "net/stack.h"

/* How long it may take. */
#define LOOK_S 10

struct look;

/* @fd is its connection. @ran is called after time was up and something became of that. */
struct look *look_new(struct stack *s, struct flow *f, int fd, struct loop *loop,
		      void (*ran)(void *arg), void *arg);
struct look *look_free(struct look *l);

/* All of these take NULL for one that is over. Is anything held back? */
bool look_holds(const struct look *l);
/* Whether the guest may see what comes. */
bool look_agreed(const struct look *l);
/* Of what the guest sends: how much was taken, or -errno: -EACCES when it is not allowed. */
ssize_t look_send(struct look *l, const struct iovec *iov, unsigned n);
size_t look_room(const struct look *l);
/* The connection takes more. */
void look_flush(struct look *l);
/* The guest sends no more: true if that will be passed on later. */
bool look_shut(struct look *l);

#endif
