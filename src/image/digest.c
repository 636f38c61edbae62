/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/evp.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/digest.h"

static const char digest_prefix[] = "sha256:";

int digest_parse(const char *text, const char *what, struct digest *ret, struct err *err)
{
	const size_t prefix = sizeof(digest_prefix) - 1;
	struct digest d;

	if (strncmp(text, digest_prefix, prefix) != 0) {
		const char *colon = strchr(text, ':');

		if (colon && colon != text)
			return err_set(
				err, ERR_UNSUPPORTED,
				"%s uses the digest algorithm %.*s; only sha256 is supported", what,
				(int)MIN(colon - text, 32), text);
		return err_set(err, ERR_CORRUPT, "%s is not a digest: %.80s", what, text);
	}
	if (strlen(text) != IMAGE_DIGEST_LEN)
		return err_set(err, ERR_CORRUPT, "%s is not a sha256 digest: %.80s", what, text);
	for (const char *p = text + prefix; *p; p++)
		if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f')))
			return err_set(err, ERR_CORRUPT, "%s is not a sha256 digest: %.80s", what,
				       text);
	if (str_unhex(text + prefix, d.sha256, sizeof(d.sha256)) < 0)
		return err_set(err, ERR_CORRUPT, "%s is not a sha256 digest: %.80s", what, text);
	*ret = d;
	return 0;
}

char *digest_hex(const struct digest *d, char out[65])
{
	str_hex(d->sha256, sizeof(d->sha256), out);
	return out;
}

char *digest_text(const struct digest *d, char out[IMAGE_DIGEST_LEN + 1])
{
	memcpy(out, digest_prefix, sizeof(digest_prefix) - 1);
	digest_hex(d, out + sizeof(digest_prefix) - 1);
	return out;
}

int digest_of(const void *p, size_t n, struct digest *ret, struct err *err)
{
	if (EVP_Digest(p, n, ret->sha256, NULL, EVP_sha256(), NULL) != 1)
		return err_set(err, ENOMEM, "cannot compute a digest");
	return 0;
}

int hasher_init(struct hasher *h, struct err *err)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
		EVP_MD_CTX_free(ctx);
		return err_set(err, ENOMEM, "cannot compute a digest");
	}
	h->ctx = ctx;
	return 0;
}

void hasher_done(struct hasher *h)
{
	EVP_MD_CTX_free(h->ctx);
	h->ctx = NULL;
}

void hasher_add(struct hasher *h, const void *p, size_t n)
{
	EVP_DigestUpdate(h->ctx, p, n);
}

int hasher_finish(struct hasher *h, struct digest *ret, struct err *err)
{
	struct digest d;

	if (EVP_DigestFinal_ex(h->ctx, d.sha256, NULL) != 1)
		return err_set(err, EIO, "cannot compute a digest");
	*ret = d;
	return 0;
}
