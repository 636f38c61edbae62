/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image metadata: OCI layouts, `docker save` archives, manifests, configurations.
 *
 * Everything here is JSON from strangers. Blobs named by digest are verified before they are
 * parsed; sizes, counts and nesting are capped.
 */
#ifndef IMAGE_OCI_H
#define IMAGE_OCI_H

#include "image/digest.h"
#include "image/image.h"
#include "image/source.h"

/* Manifests and indexes: the limit registries have. Configurations grow with history. */
#define OCI_MANIFEST_MAX (4u << 20)
#define OCI_CONFIG_MAX	 (16u << 20)
#define OCI_INDEX_DEPTH	 4u
#define OCI_IMAGES_MAX	 256u
#define OCI_LIST_MAX	 65536u /* entries of any list in a configuration */

struct oci_layer {
	char *name; /* in the source */
	char *media_type;
	bool has_digest;
	struct digest digest; /* of the blob */
	struct digest diff_id;
	uint64_t size; /* of the blob, UINT64_MAX if not said */
};

struct oci_image {
	struct digest id;
	char *manifest_digest; /* "" if there is no manifest */
	char *config_json;
	struct image_config config;
	char **names; /* as in the source; NULL-terminated */
	struct oci_layer *layers;
	size_t layer_count;
};

struct oci_images {
	struct oci_image *items;
	size_t count;
};
void oci_images_done(struct oci_images *l);
#define cleanup_oci_images __attribute__((cleanup(oci_images_done)))

/* GOARCH name of this machine. */
const char *oci_host_architecture(void);

/* All images for @architecture ("arm64", "arm/v7") in @src; at least one, or an error. */
int oci_find_images(const struct source *src, const char *architecture,
		    const struct image_limits *l, struct oci_images *ret, struct err *err);

/* Parse a configuration; *ret_diff_ids (may be NULL) is a malloc'd array. */
int oci_parse_config(const char *json, size_t len, struct image_config *ret,
		     struct digest **ret_diff_ids, size_t *ret_count, struct err *err);
void oci_config_done(struct image_config *c);

/* For fuzzing: a manifest or index without a source behind it. */
int oci_check_manifest(const char *json, size_t len, struct err *err);

#endif
