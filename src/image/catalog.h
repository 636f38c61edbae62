/* SPDX-License-Identifier: Apache-2.0 */
/* The database side of loading an image. */
#ifndef IMAGE_CATALOG_H
#define IMAGE_CATALOG_H

#include "image/layer.h"
#include "image/oci.h"
#include "store/store.h"

/* 1 if the image is registered and its metadata file whole, else 0. */
int catalog_has(struct store *s, const struct digest *id, struct err *err);
/* Register @img, whose blobs are published; @infos describes its layers in order. */
int catalog_add(struct store *s, const struct oci_image *img, const struct layer_info *infos,
		uint64_t meta_blocks, struct err *err);
/* Point normalised reference @ref at @id. */
int catalog_set_ref(struct store *s, const char *ref, const struct digest *id, struct err *err);

#endif
