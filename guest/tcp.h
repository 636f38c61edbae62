/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP connections made from inside the guest: core.tcp.*.
 *
 *	connect → (name lookup in a helper) → connecting → open ⇄ half-closed → closed
 *
 * Each address of a name is tried in turn within TCP_CONNECT_TIMEOUT_S altogether. Either side
 * may end its direction; the stream is over when both have, when the client closes it, or when
 * it fails.
 */
#ifndef GUEST_TCP_H
#define GUEST_TCP_H

#include "server.h"

void tcp_connect(struct conn *c, uint32_t id, const struct msg_tcp_connect *m);
void tcp_data(struct stream *s, const uint8_t *p, size_t n);
void tcp_eof(struct stream *s);
void tcp_close(struct stream *s);
bool tcp_is(const struct stream *s);

#endif
