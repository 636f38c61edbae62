/* SPDX-License-Identifier: Apache-2.0 */
/* The half of commit.c that reads what a guest has sent, for the tests. */
#ifndef IMAGE_COMMIT_H
#define IMAGE_COMMIT_H

#include "base/err.h"
#include "image/digest.h"
#include "image/image.h"
#include "store/store.h"

/* The archive of an upper directory in @upper as a layer's, into @out; its digest in @ret. */
int commit_layer(struct store_temp *out, int upper, const struct image_limits *l,
		 struct digest *ret, struct err *err);

#endif
