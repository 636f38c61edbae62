/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image references as Docker spells them: [DOMAIN/]PATH[:TAG][@sha256:HEX].
 *
 * The first component is a domain if it has a dot, a colon or a capital, or is "localhost";
 * otherwise the image lives at docker.io, below library/ if it has no other directory.
 */
#ifndef IMAGE_REFERENCE_H
#define IMAGE_REFERENCE_H

#include <stddef.h>

#include "base/err.h"
#include "image/image.h"

#define REFERENCE_DEFAULT_DOMAIN "docker.io"
#define REFERENCE_DEFAULT_TAG	 "latest"
#define REFERENCE_NAME_MAX	 255u /* domain and path; distribution specification */
#define REFERENCE_TAG_MAX	 128u

struct reference {
	char domain[REFERENCE_NAME_MAX + 1];
	char path[REFERENCE_NAME_MAX + 1];
	char tag[REFERENCE_TAG_MAX + 1];   /* "" if only a digest was given */
	char digest[IMAGE_DIGEST_LEN + 1]; /* "sha256:HEX" or "" */
};

int reference_parse(const char *text, struct reference *ret, struct err *err);
/* "docker.io/library/python:latest" */
char *reference_format(const struct reference *r, char out[IMAGE_REFERENCE_MAX]);
/* Both in one. */
int reference_normalise(const char *text, char out[IMAGE_REFERENCE_MAX], struct err *err);

#endif
