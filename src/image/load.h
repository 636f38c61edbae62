/* SPDX-License-Identifier: Apache-2.0 */
/* What bootstrap.c and the tests need of load.c. */
#ifndef IMAGE_LOAD_H
#define IMAGE_LOAD_H

#include "image/oci.h"

/* Convert, merge and register @images, whose blobs are in @src. The caller holds store_hold(). */
int load_images(struct store *s, const struct source *src, const struct oci_images *images,
		const struct image_load_options *o, struct image_list *ret, struct err *err);

#endif
