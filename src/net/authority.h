/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom the first bytes of a connection are for: the server's name in TLS's ClientHello (RFC 8446,
 * 6066), or the host of a request of HTTP/1 (RFC 9112). Any thread.
 *
 * Only the beginning is looked at: a later request on the same connection may be for another host,
 * and a ClientHello may hold another one that is encrypted.
 */
#ifndef NET_AUTHORITY_H
#define NET_AUTHORITY_H

#include <stddef.h>
#include <stdint.h>

#include "wire/dns.h"

/* A ClientHello or the head of a request that is longer is none. */
#define AUTHORITY_MAX 16384

enum authority {
	AUTHORITY_MORE, /* bytes are needed */
	AUTHORITY_NONE,
	AUTHORITY_FOUND,
};

enum authority authority_find(const uint8_t *p, size_t n, struct dns_name *ret);

#endif
