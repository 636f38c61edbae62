/* SPDX-License-Identifier: Apache-2.0 */
/* The database side of loading an image. */
#ifndef IMAGE_CATALOG_H
#define IMAGE_CATALOG_H

#include "image/merge.h"
#include "image/oci.h"
#include "store/store.h"

/* 1 if the image is registered and its metadata sound, else 0. */
int catalog_has(struct store *s, const struct digest *id, struct err *err);
/*
 * Register @img, whose blobs are published; @infos describes its layers in order. In a transaction
 * of the caller's, which gives it its names as well.
 */
int catalog_add(struct store *s, const struct oci_image *img, const struct layer_info *infos,
		const struct merge_result *meta, struct err *err);
/* See to it that the row says so: 1 if it did not. */
int catalog_mend(struct store *s, const struct digest *id, const struct digest *diff_ids,
		 const struct layer_info *infos, size_t layers, const struct merge_result *meta,
		 struct err *err);
/* As image_find() with references and without extents, even if its configuration is damaged. */
int catalog_find_any(struct store *s, const char *ref, struct image_info *ret, struct err *err);
/* Point normalised reference @ref at @id. */
int catalog_set_ref(struct store *s, const char *ref, const struct digest *id, struct err *err);

#endif
