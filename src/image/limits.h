/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits of image.h as $MSB_HOME/config.json has them:
 *
 *	{"images": {"limits": {"layer_bytes": "20G", "entries": 2000000}}}
 *
 * Keys are the members of struct image_limits; an unknown one is an error, because a mistyped one
 * would silently not protect. Keys besides "images" belong to others.
 */
#ifndef IMAGE_LIMITS_H
#define IMAGE_LIMITS_H

#include "image/image.h"

/* @given if there are any, else those of the store's configuration; the defaults for the rest. */
int image_limits_of(const struct store *s, const struct image_limits *given,
		    struct image_limits *ret, struct err *err);
/* The text of such a file; members that it does not name are left alone. */
int image_limits_parse(const char *text, size_t n, struct image_limits *l, struct err *err);

#endif
