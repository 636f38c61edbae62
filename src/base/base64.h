/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 with padding, RFC 4648 section 4. Any thread. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include <stddef.h>

#include "base/buf.h"

/* Append; failure is the buffer's. */
void base64_encode(const void *p, size_t n, struct buf *b);
/* Append what @text stands for: 0, or -EINVAL (what was appended is then of no use). */
int base64_decode(const char *text, size_t n, struct buf *b);

#endif
