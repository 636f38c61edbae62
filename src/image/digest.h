/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 digests as OCI writes them.
 */
#ifndef IMAGE_DIGEST_H
#define IMAGE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "image/image.h"

struct digest {
	uint8_t sha256[32];
};

static inline bool digest_equal(const struct digest *a, const struct digest *b)
{
	return memcmp(a->sha256, b->sha256, sizeof(a->sha256)) == 0;
}

/* "sha256:HEX" in lower case, nothing else: -ERR_UNSUPPORTED for another algorithm. @what is said.
 */
int digest_parse(const char *text, const char *what, struct digest *ret, struct err *err);
/* "sha256:HEX" */
char *digest_text(const struct digest *d, char out[IMAGE_DIGEST_LEN + 1]);
/* "HEX" */
char *digest_hex(const struct digest *d, char out[65]);

int digest_of(const void *p, size_t n, struct digest *ret, struct err *err);

/* A running SHA-256; owned by one thread. */
struct hasher {
	void *ctx;
};
int hasher_init(struct hasher *h, struct err *err);
void hasher_done(struct hasher *h);
#define cleanup_hasher __attribute__((cleanup(hasher_done)))
/* Failures are remembered by the library and come out of hasher_finish(). */
void hasher_add(struct hasher *h, const void *p, size_t n);
int hasher_finish(struct hasher *h, struct digest *ret, struct err *err);

#endif
