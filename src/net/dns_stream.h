/* SPDX-License-Identifier: Apache-2.0 */
/* Messages on streams: a length of two bytes in front (RFC 1035, 4.2.2). */
#ifndef NET_DNS_STREAM_H
#define NET_DNS_STREAM_H

#include <sys/types.h>

#include "base/buf.h"

void dns_stream_put(struct buf *b, const void *m, size_t n);
/* How long the first one is; -1 when it is not there yet. */
ssize_t dns_stream_have(const struct buf *b);
/* The first one, which is there, into @ret of DNS_MESSAGE_MAX bytes. */
size_t dns_stream_take(struct buf *b, uint8_t *ret);
/* More from a socket. 1: some came; 0: none now; -errno, or -EPIPE at the end. */
int dns_stream_fetch(int fd, struct buf *b);

#endif
